"""The table of cases: a CSV file with one row a case, read and checked as a whole before any volume is opened.

Columns: ``case``, ``split`` (train, val or test), one column per modality (any usual alias), and optionally ``patient``
(the case itself by default) and a column of lesion label maps. Paths start at the table's folder; an empty cell means
that the case lacks this volume. Other columns are ignored unless ``[data] where`` names them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from MedXlateCore.config import nearest
from MedXlateCore.errors import InputError, UsageError, Warned
from MedXlateCore.files import read_bytes
from MedXlateCore.io import require_volume
from MedXlateCore.training.config import DataTable, expanded
from MedXlateCore.volume import Modality

__all__ = [
    "SPLITS",
    "CaseRow",
    "CaseTable",
    "check_leakage",
    "check_names",
    "check_split_name",
    "file_of_case",
    "image_columns",
    "is_wanted",
    "modality_of_column",
    "no_validation",
    "read_csv",
    "read_table",
    "table_path",
]

SPLITS = ("train", "val", "test")
_LIMIT_BYTES = 64 << 20
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True)
class CaseRow:
    """One usable case.

    Attributes:
        case: its name, unique in the table.
        patient: whose images these are; never in two splits.
        split: ``train``, ``val`` or ``test``.
        images: file of each source and of the target, by modality name.
        regions: lesion label map, or None where nothing is annotated.
    """

    case: str
    patient: str
    split: str
    images: dict[str, Path]
    regions: Path | None


@dataclass(frozen=True)
class CaseTable:
    """The usable cases, sorted by name, and what was left out."""

    rows: tuple[CaseRow, ...]
    warnings: tuple[Warned, ...] = ()

    def split(self, name: str) -> tuple[CaseRow, ...]:
        """Return the cases of one split."""
        return tuple(row for row in self.rows if row.split == name)


def read_table(data: DataTable) -> CaseTable:
    """Read and check the table of cases that ``[data]`` names.

    Raises:
        UsageError: ``MX-DAT-001`` (no table named), ``MX-DAT-003`` (a column is missing or means two things).
        InputError: ``MX-DAT-002`` (not a CSV table), ``MX-DAT-004`` (a case without name or named twice),
            ``MX-DAT-005`` (not a split), ``MX-DAT-006`` (a patient in two splits), ``MX-DAT-007`` (a file is missing),
            ``MX-DAT-008`` (a case lacks an image), ``MX-DAT-009`` (no training case).
    """
    path = table_path(data, "cases")
    header, records = read_csv(path)
    columns = _columns(header, data, path)
    used = [(line, record) for line, record in records if is_wanted(record, data)]
    check_names(used, path)
    for line, record in used:
        check_split_name(record, f"{path}, line {line}")
    rows: list[CaseRow] = []
    warnings: list[Warned] = []
    for line, record in used:
        row = _row(record, columns, data, path, line)
        if isinstance(row, Warned):
            warnings.append(row)
        else:
            rows.append(row)
    check_leakage(((row.patient, row.split, row.case) for row in rows), "patient", path)
    table = CaseTable(tuple(sorted(rows, key=lambda row: row.case)), tuple(warnings))
    return CaseTable(table.rows, (*warnings, *_check_splits(table, len(records), data, path)))


def table_path(data: DataTable, what: str) -> Path:
    """Return the path of the table of ``what`` (``cases``, ``scans``) that ``[data]`` names.

    Raises:
        UsageError: ``MX-DAT-001``, it names none.
    """
    if not data.table:
        raise UsageError(
            "MX-DAT-001", f"no table of {what} is given", expected="a CSV file", where="[data] table",
            fix=f"set [data] table, or use --data {what}.csv",
        )  # fmt: skip
    return Path(data.table)


def is_wanted(record: Mapping[str, str], data: DataTable) -> bool:
    """Say whether ``[data] where`` lets a row through."""
    return all(record[key] == wanted for key, wanted in data.where.items())


def check_leakage(facts: Iterable[tuple[str, str, str]], what: str, path: Path) -> None:
    """Refuse that one thing (patient, image) is in two splits.

    Args:
        facts: (identity of the thing, split, case) of every case.
        what: name of the thing.
        path: the table, for the message.

    Raises:
        InputError: ``MX-DAT-006``.
    """
    seen: dict[str, tuple[str, str]] = {}
    for identity, split, case in facts:
        other_split, other_case = seen.setdefault(identity, (split, case))
        if other_split != split:
            raise InputError(
                "MX-DAT-006",
                f"the {what} '{identity}' is in two splits: {other_split} ({other_case}) and {split} ({case})",
                expected=f"each {what} in one split only, so that test results are honest",
                where=str(path),
                fix="move all cases of this patient to one split",
            )


def read_csv(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the header and the non-empty rows with their line numbers.

    Raises:
        InputError: ``MX-DAT-002`` (not a CSV table); ``MX-FIL-001`` to ``MX-FIL-008`` for the file.
    """
    data = read_bytes(path, _LIMIT_BYTES)
    problem = ""
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells)]
    except (csv.Error, UnicodeDecodeError) as error:
        lines, problem = [], str(error)
    if not problem and not lines:
        problem = "it is empty"
    header = lines[0][1] if lines else []
    other = next((sign for sign in ";\t|" if len(header) == 1 and sign in header[0]), "")
    if other:
        problem = f"its cells are separated by {_SEPARATORS[other]}, not by commas"
    for number, cells in lines[1:]:
        if len(cells) != len(header) and not problem:
            problem = f"line {number} has {len(cells)} cells, the header {len(header)}"
    if problem:
        raise InputError(
            "MX-DAT-002",
            f"the table of cases cannot be read: {problem}",
            expected="UTF-8 text, cells separated by commas, a header line, as many cells in each line",
            where=str(path),
            fix="export the table as CSV again",
        )
    return header, [(number, dict(zip(header, cells, strict=True))) for number, cells in lines[1:]]


def _columns(header: list[str], data: DataTable, path: Path) -> dict[str, str]:
    """Return the column of each modality that a training needs."""
    return image_columns(
        header, [*data.sources, data.target], ("case", "split", *data.where), path,
        optional=("patient", data.roi or "seg"), fix="correct the table's header, or [data] sources, target and where",
    )  # fmt: skip


def image_columns(
    header: Sequence[str],
    modalities: Sequence[str],
    others: Sequence[str],
    path: Path,
    optional: Sequence[str],
    fix: str,
) -> dict[str, str]:
    """Return the column of each modality wanted; check that all needed columns exist once.

    Args:
        header: the table's column names.
        modalities: names of the modalities wanted; a column may have any of their aliases.
        others: further columns that must exist.
        path: the table, for the message.
        optional: columns that may exist, for the message.
        fix: what to do, for the message.

    Raises:
        UsageError: ``MX-DAT-003`` (a column is missing or means two things).
    """
    by_modality: dict[str, str] = {}
    problem = next((f"the column '{name}' occurs twice" for name in header if name and header.count(name) > 1), "")
    for name in header:
        modality = modality_of_column(name)
        if modality in modalities:
            if modality in by_modality:
                problem = problem or f"the columns '{by_modality[modality]}' and '{name}' both mean {modality}"
            by_modality[modality] = name
    needed = [name for name in others if name not in header]
    needed += [name for name in modalities if name not in by_modality]
    if needed and not problem:
        guess = nearest(needed[0], header)
        problem = f"the column '{needed[0]}' is missing" + (f"; is it '{guess}'?" if guess else "")
    if problem:
        raise UsageError(
            "MX-DAT-003",
            problem,
            expected=f"columns {', '.join([*others, *modalities])} and optionally {', '.join(optional)}",
            where=str(path),
            fix=fix,
        )
    return by_modality


def modality_of_column(name: str) -> str:
    """Return the modality that a column's name stands for; empty for a column that is no image."""
    try:
        return Modality.parse(name).value
    except UsageError:  # a column that is not an image, such as case or age
        return ""


def check_names(used: Sequence[tuple[int, Mapping[str, str]]], path: Path) -> None:
    """Check that every row names a case, and each another one.

    Raises:
        InputError: ``MX-DAT-004``.
    """
    seen: dict[str, int] = {}
    for line, record in used:
        problem, case = "", record["case"]
        if not case:
            problem = f"line {line} names no case"
        elif case in seen:
            problem = f"the case '{case}' is on lines {seen[case]} and {line}"
        seen[case] = line
        if problem:
            raise InputError(
                "MX-DAT-004", problem, expected="one row a case, each with a name of its own", where=str(path),
                fix="correct the column 'case'",
            )  # fmt: skip


def check_split_name(record: Mapping[str, str], where: str) -> None:
    """Check that a row names a split.

    Raises:
        InputError: ``MX-DAT-005``.
    """
    if record["split"] not in SPLITS:
        raise InputError(
            "MX-DAT-005",
            f"the case '{record['case']}' is in the split '{record['split']}'",
            expected=f"one of {', '.join(SPLITS)}",
            where=where,
            fix="correct the column 'split'",
        )


def _row(
    record: Mapping[str, str], columns: Mapping[str, str], data: DataTable, path: Path, line: int
) -> CaseRow | Warned:
    """Return the case, or the remark that it was skipped."""
    case, where = record["case"], f"{path}, line {line}"
    absent = [name for name, column in columns.items() if not record[column]]
    if absent:
        text = f"the case '{case}' has no {' and no '.join(absent)}"
        if data.missing == "skip":
            return Warned("MX-DAT-008", text, where, "the case is left out")
        raise InputError(
            "MX-DAT-008", text, expected="all sources and the target", where=where,
            fix='fill in the table, or set [data] missing = "skip"',
        )  # fmt: skip
    images = {name: file_of_case(path.parent, record[column], case, name, where) for name, column in columns.items()}
    label = record.get(data.roi, "") if data.roi else ""
    regions = file_of_case(path.parent, label, case, str(data.roi), where) if label else None
    return CaseRow(case, record.get("patient", "") or case, record["split"], images, regions)


def file_of_case(folder: Path, text: str, case: str, role: str, where: str) -> Path:
    """Return the file that a cell names; paths start at the table's folder.

    Raises:
        InputError: ``MX-DAT-007``, there is no such file.
        ResourceError: ``MX-FIL-005``, no permission.
    """
    path = folder / expanded(text)
    try:
        require_volume(path)
    except InputError as error:
        raise InputError(
            "MX-DAT-007",
            f"the {role} of case '{case}' cannot be used: {error.found} ({path})",
            expected="an existing file; paths start at the table's folder",
            where=where,
            fix="correct the path, or leave the cell empty where there is no such volume",
        ) from error
    return path


def _check_splits(table: CaseTable, n_records: int, data: DataTable, path: Path) -> list[Warned]:
    if not table.split("train"):
        chosen = f" where {', '.join(f'{k} = {v}' for k, v in data.where.items())}" if data.where else ""
        raise InputError(
            "MX-DAT-009",
            f"no training case is left of {n_records} rows{chosen} ({len(table.rows)} usable in other splits)",
            expected="at least one case in the split 'train' with all sources and the target",
            where=str(path),
            fix="check the columns 'split' and the modalities, and [data] where",
        )
    warnings = []
    if not table.split("val"):
        warnings.append(no_validation(path))
    if data.roi and not any(row.regions for row in table.split("train")):
        text = f"no training case has a lesion label map (column '{data.roi}'): no prompt can be learned"
        warnings.append(Warned("MX-DAT-012", text, str(path), 'correct [data] roi, or set it to "none"'))
    return warnings


def no_validation(path: Path) -> Warned:
    """Return the remark ``MX-DAT-010``: a table has no validation case."""
    text = "there is no validation case"
    return Warned("MX-DAT-010", text, str(path), "the last state is exported, not the best one")
