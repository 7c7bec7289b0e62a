"""``medxlate import-weights``: an author's published checkpoint in, a model package out."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("checkpoint", type=Path, metavar="FILE", help="the authors' checkpoint (.pth, .pt)")
    parser.add_argument("output", type=Path, metavar="OUT_DIR", help="folder of the new package")
    parser.add_argument("--method", required=True, metavar="NAME", help="the checkpoint's method, such as tlp")
    parser.add_argument("--sources", metavar="A,B", help="source modalities in channel order (default: as published)")
    parser.add_argument("--target", metavar="MODALITY", help="the modality it makes (default: as published)")
    parser.add_argument("--name", help="name of the package")
    parser.add_argument("--licence", metavar="TEXT", help="licence of the weights (default: as published)")
    parser.add_argument("--overwrite", action="store_true", help="replace a package in OUT_DIR")


def run(options: argparse.Namespace) -> int:
    """Import and say what came out."""
    from MedXlateCore.models.importer import import_weights

    sources = [name.strip() for name in options.sources.split(",")] if options.sources else None
    card = import_weights(
        options.method, options.checkpoint, options.output, sources=sources, target=options.target,
        name=options.name, licence=options.licence, overwrite=options.overwrite,
    )  # fmt: skip
    print(f"{options.output}  {card.name} {card.version}: {', '.join(card.sources)} to {', '.join(card.targets)}")
    if sources is None or options.target is None:
        print("note: sources and target are assumed as published; correct them with --sources and --target")
    print("Synthetic images are for research use only, not for diagnosis.")
    return 0
