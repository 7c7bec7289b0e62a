"""The cases of an experiment: which there are for each direction, no patient in two splits, and their fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from MedXlateCore.directions import Direction
from MedXlateCore.errors import InputError, MedXlateError, Warned
from MedXlateCore.experiment.config import Experiment
from MedXlateCore.training.cache import content_hash
from MedXlateCore.training.config import DataTable
from MedXlateCore.training.table import SPLITS, CaseRow, CaseTable, check_leakage, read_table

__all__ = ["Cohort", "data_of", "survey"]


@dataclass(frozen=True)
class Cohort:
    """The usable cases of each direction.

    Attributes:
        tables: by direction (as text).
        hashes: SHA-256 of every file that is used.
        warnings: what was left out or noticed, each once.
    """

    tables: dict[str, CaseTable]
    hashes: dict[Path, str]
    warnings: tuple[Warned, ...]

    def fingerprint(self, directions: Sequence[Direction]) -> str:
        """Return a hash of the cases of some directions: names, patients, splits and the content of all files."""
        lines = []
        for direction in directions:
            for row in self.tables[str(direction)].rows:
                files = [f"{name} {self.hashes[path]}" for name, path in sorted(row.images.items())]
                files.append(f"regions {self.hashes[row.regions] if row.regions else ''}")
                lines.append(f"{direction} {row.split} {row.case} {row.patient} {' '.join(files)}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def test(self, direction: Direction) -> tuple[CaseRow, ...]:
        """Return the test cases of a direction."""
        return self.tables[str(direction)].split("test")

    def counts(self, direction: Direction) -> dict[str, tuple[int, int]]:
        """Return numbers of cases and of patients by split."""
        found = {split: self.tables[str(direction)].split(split) for split in SPLITS}
        return {split: (len(rows), len({row.patient for row in rows})) for split, rows in found.items()}


def data_of(data: DataTable, direction: Direction) -> DataTable:
    """Return the settings of ``[data]`` for one direction."""
    return replace(data, sources=direction.sources, target=direction.target, directions=())


def survey(experiment: Experiment, progress: Callable[[int, int], None] = lambda done, total: None) -> Cohort:
    """Read the table of cases for every direction and hash all files.

    Args:
        experiment: the experiment.
        progress: called with the number of files hashed and their total.

    Raises:
        UsageError: ``MX-DAT-001``, ``MX-DAT-003`` (no column for a modality).
        InputError: ``MX-DAT-002`` to ``-009`` (the table; nobody has the images of a direction; a patient, or an image,
            in two splits), ``MX-EXP-005`` (no test case).
    """
    tables: dict[str, CaseTable] = {}
    warnings: list[Warned] = []
    for direction in experiment.directions:
        try:
            table = read_table(data_of(experiment.data, direction))
        except MedXlateError as error:
            error.where = f"{error.where}, direction {direction}" if error.where else f"direction {direction}"
            raise
        if not table.split("test"):
            raise InputError(
                "MX-EXP-005",
                f"there is no test case for {direction}",
                expected="at least one case in the split 'test' with all sources and the target",
                where=experiment.data.table,
                fix="check the column 'split' and the modalities, or leave this direction out",
            )
        tables[str(direction)] = table
        warnings += table.warnings
    rows = {row.case: row for table in tables.values() for row in table.rows}
    path = Path(experiment.data.table)
    check_leakage(((row.patient, row.split, row.case) for row in rows.values()), "patient", path)
    every = [row for table in tables.values() for row in table.rows]
    files = {file: role for row in every for role, file in _files(row)}
    hashes: dict[Path, str] = {}
    for file, role in files.items():
        hashes[file] = content_hash(file, role)
        progress(len(hashes), len(files))
    images = ((hashes[file][:16], row.split, row.case) for row in every for file in row.images.values())
    check_leakage(images, "image", path)
    return Cohort(tables, hashes, tuple(dict.fromkeys(warnings)))


def _files(row: CaseRow) -> list[tuple[str, Path]]:
    """Return the files of a case with their roles."""
    return [*row.images.items(), *([("label", row.regions)] if row.regions else [])]
