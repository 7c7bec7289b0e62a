"""The table of scans: a CSV file with one row a scan and any number of scans a case, each told apart by its facts.

Columns: ``case``, ``split`` (train, val or test), ``image``, ``facts`` (JSON, see ``Acquisition``), and optionally
``patient`` (the case itself by default), a column of lesion label maps, and ``held_out``: scans for which it says
anything but no are kept out of training and validation. All scans of a case lie on one grid, or are brought there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.errors import InputError, UsageError, Warned
from MedXlateCore.prompts.acquisition_text import describe
from MedXlateCore.training.config import DataTable, TrainingConfig
from MedXlateCore.training.table import (
    CaseRow,
    check_leakage,
    check_split_name,
    file_of_case,
    image_columns,
    is_wanted,
    no_validation,
    read_csv,
    table_path,
)
from MedXlateCore.volume import Modality
from MedXlateCore.weighting import role_of

__all__ = ["ScanRow", "ScanTable", "domain_of", "read_scans", "told_scans"]

_NO = {"", "0", "no", "false"}


@dataclass(frozen=True)
class ScanRow(CaseRow):
    """One case with its scans: ``images`` by number (``"0"``, ``"1"``, ...), in the table's order.

    Attributes:
        facts: of each scan.
    """

    facts: tuple[Acquisition, ...] = field(default=())

    @property
    def modalities(self) -> tuple[str, ...]:
        """Name of each scan's modality."""
        return tuple(role_of(facts).value for facts in self.facts)


@dataclass(frozen=True)
class ScanTable:
    """The cases with at least two usable scans, sorted by name, and what was left out."""

    rows: tuple[ScanRow, ...]
    warnings: tuple[Warned, ...] = ()

    def split(self, name: str) -> tuple[ScanRow, ...]:
        """Return the cases of one split."""
        return tuple(row for row in self.rows if row.split == name)


@lru_cache(maxsize=4096)
def domain_of(facts: Acquisition) -> str:
    """Return the domain of an image: what must be said of it, the plane apart."""
    return describe(replace(facts, plane=None), optional="none")


def read_scans(data: DataTable) -> ScanTable:
    """Read and check the table of scans that ``[data] table`` names.

    Raises:
        UsageError: ``MX-DAT-001`` (no table named), ``MX-DAT-003`` (a column is missing).
        InputError: ``MX-DAT-002`` (not a CSV table), ``MX-DAT-004`` (a row without case), ``MX-DAT-005`` (not a split),
            ``MX-DAT-006`` (a patient in two splits), ``MX-DAT-007`` (a file is missing), ``MX-DAT-009`` (no training
            case), ``MX-DAT-016`` (facts that cannot be read).
    """
    path = table_path(data, "scans")
    header, records = read_csv(path)
    image_columns(
        header, (), ("case", "split", "image", "facts", *data.where), path,
        optional=("patient", "held_out", data.roi or "seg"), fix="correct the table's header",
    )  # fmt: skip
    for line, record in records:
        _check_named(record, f"{path}, line {line}")
        check_split_name(record, f"{path}, line {line}")
    for what, column in (("patient", "patient"), ("case", "case")):
        facts = ((record.get(column, "") or record["case"], record["split"], record["case"]) for _, record in records)
        check_leakage(facts, what, path)
    grouped: dict[str, list[tuple[str, Mapping[str, str]]]] = {}
    for line, record in records:
        where = f"{path}, line {line}"
        if is_wanted(record, data) and record.get("held_out", "").lower() in _NO:
            grouped.setdefault(record["case"], []).append((where, record))
    cases = [_case(name, scans, data, path) for name, scans in sorted(grouped.items())]
    usable = tuple(row for row in cases if len(row.facts) > 1)
    warnings = tuple(
        Warned("MX-DAT-008", f"the case '{row.case}' has one scan only", str(path), "the case is left out")
        for row in cases
        if len(row.facts) == 1 and row.split != "test"
    )
    table = ScanTable(usable, warnings)
    _check_training(table, path)
    if not table.split("val"):
        warnings += (no_validation(path),)
    return ScanTable(usable, warnings)


def told_scans(config: TrainingConfig) -> TrainingConfig:
    """Tell a method what its table holds: its domains, and the directions between its modalities by their names.

    What the configuration says itself stays. Directions are those that a training case has both images of. Raises as
    :func:`read_scans`.
    """
    rows = read_scans(config.data).split("train")
    told = dict(config.model.config)
    if not told.get("domains"):
        told["domains"] = sorted({domain_of(facts) for row in rows for facts in row.facts})
    data = config.data
    if not data.directions:
        order = [modality.value for modality in Modality]
        pairs = {(one, other) for row in rows for one in row.modalities for other in row.modalities if one != other}
        named = sorted(pairs, key=lambda pair: (order.index(pair[0]), order.index(pair[1])))
        other = Modality.OTHER.value  # a modality without a name cannot be asked for by it
        data = replace(data, directions=tuple(f"{a}->{b}" for a, b in named if other not in (a, b)))
    return replace(config, data=data, model=replace(config.model, config=told))


def _check_named(record: Mapping[str, str], where: str) -> None:
    if not record["case"]:
        raise InputError(
            "MX-DAT-004",
            "a row names no case",
            expected="a case in each row",
            where=where,
            fix="correct the column 'case'",
        )


def _case(name: str, scans: list[tuple[str, Mapping[str, str]]], data: DataTable, path: Path) -> ScanRow:
    first = scans[0][1]
    images = {
        str(n): file_of_case(path.parent, record["image"], name, "image", where)
        for n, (where, record) in enumerate(scans)
    }
    label = first.get(data.roi, "") if data.roi else ""
    regions = file_of_case(path.parent, label, name, str(data.roi), scans[0][0]) if label else None
    facts = tuple(_facts(record["facts"], name, where) for where, record in scans)
    return ScanRow(name, first.get("patient", "") or name, first["split"], images, regions, facts)


def _facts(text: str, case: str, where: str) -> Acquisition:
    try:
        facts = Acquisition.from_dict(json.loads(text))
    except (json.JSONDecodeError, UsageError, AttributeError) as error:
        found = error.found if isinstance(error, UsageError) else "they are not a JSON object"
        raise _unreadable(f"the facts of a scan of case '{case}' cannot be read: {found}", where) from error
    if facts.modality is None:
        raise _unreadable(f"the facts of a scan of case '{case}' name no modality", where)
    return facts


def _unreadable(found: str, where: str) -> InputError:
    return InputError(
        "MX-DAT-016",
        found,
        expected='facts as JSON, such as {"modality": "MR", "sequence": "T1", "organ": "brain"}',
        where=where,
        fix="correct the column 'facts'; medxlate describe FILE --json prints what a file says",
    )


def _check_training(table: ScanTable, path: Path) -> None:
    if not table.split("train"):
        raise InputError(
            "MX-DAT-009",
            f"no training case with two scans is left ({len(table.rows)} usable in other splits)",
            expected="at least one case in the split 'train' with two scans that are not held out",
            where=str(path),
            fix="check the columns 'split' and 'held_out', and [data] where",
        )
