"""``medxlate models``: list the installed model packages, show a card, verify a package."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from MedXlateCore.models.card import ModelCard

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="list the packages in the model folders")
    for name, text in (("show", "show a package's card"), ("verify", "load a package with all its checks")):
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        action.add_argument("package", metavar="NAME|DIR", help="an installed package's name, or a package's folder")


def run(options: argparse.Namespace) -> int:
    """Do what was asked."""
    return {"list": _list, "show": _show, "verify": _verify}[options.action](options)


def _list(options: argparse.Namespace) -> int:
    from MedXlateCore.models.catalogue import bundled_models_folder, list_packages, user_models_folder

    entries = list_packages()
    for entry in entries:
        if entry.card is None:
            print(f"{entry.name}  cannot be used: {entry.problem}")
        else:
            print(f"{entry.name}  {entry.card.version}  {_task(entry.card)}  ({entry.card.method})")
    if not entries:
        print(f"no model packages in {bundled_models_folder()} or {user_models_folder()}")
    return 0


def _show(options: argparse.Namespace) -> int:
    from MedXlateCore.models.card import card_text, read_card
    from MedXlateCore.models.catalogue import find_package

    print(card_text(read_card(find_package(options.package))), end="")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from MedXlateCore.models.package import load_package

    model = load_package(options.package)
    parameters = sum(p.numel() for p in model.network.parameters())
    print(f"{model.path}  {model.card.name} {model.card.version} is sound")
    print(f"  {_task(model.card)}; method {model.card.method}, {parameters} parameters")
    print(f"  weights SHA-256 {model.card.weights['sha256']}")
    return 0


def _task(card: ModelCard) -> str:
    if card.directions:
        return f"{len(card.directions)} directions: {'; '.join(card.directions)}"
    prompt = " + region" if card.prompts == "region" else ""
    return f"{', '.join(card.sources)}{prompt} to {', '.join(card.targets)}"
