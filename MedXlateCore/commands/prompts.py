"""``medxlate prompts``: show which prompt components a model for many directions takes for which direction."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from MedXlateCore.volume import Volume

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="NAME|DIR", help="an installed package's name, or a package's folder")
    parser.add_argument("--data", required=True, type=Path, metavar="CSV", help="table of cases")
    parser.add_argument("--split", metavar="NAME", help="only cases of this split, such as test")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the table and the picture")


def run(options: argparse.Namespace) -> int:
    """Look, and write ``prompt_weights.csv`` and ``prompt_weights.svg``.

    Raises:
        InputError: ``MX-DAT-015``, no case has the sources of any direction; ``MX-DAT-002``, ``MX-FIL-*`` for files.
        UsageError: ``MX-MOD-094``, the model has no prompt components.
    """
    from MedXlateCore.errors import InputError
    from MedXlateCore.files import atomic_write_text
    from MedXlateCore.inference.prompt_weights import prompt_weights, weights_csv, weights_svg
    from MedXlateCore.models.package import load_package

    model = load_package(options.model)
    found = prompt_weights(model, _cases(options.data, options.split, model.card.sources))
    if not found:
        raise InputError(
            "MX-DAT-015",
            "the input holds no case with the sources of any direction",
            expected=f"cases with {' or '.join(model.card.sources)}",
            where=str(options.data),
            fix="check the table's columns and --split",
        )
    card = model.card
    for name, text in {
        "prompt_weights.csv": weights_csv(found),
        "prompt_weights.svg": weights_svg(found, f"{card.name} {card.version}: prompt components by direction"),
    }.items():
        atomic_write_text(options.out / name, text)
        print(options.out / name)
    return 0


def _cases(table: Path, split: str | None, modalities: tuple[str, ...]) -> Iterator[dict[str, Volume]]:
    """Yield each case's volumes that the model can use, by modality name."""
    from MedXlateCore.io import read_volume
    from MedXlateCore.training.table import file_of_case, modality_of_column, read_csv

    header, records = read_csv(table)
    columns = {name: modality_of_column(name) for name in header if modality_of_column(name) in modalities}
    for line, record in records:
        if split is not None and record.get("split") != split:
            continue
        where = f"{table}, line {line}"
        case = record.get("case", "")
        yield {
            role: read_volume(file_of_case(table.parent, record[column], case, role, where), role)
            for column, role in columns.items()
            if record[column]
        }
