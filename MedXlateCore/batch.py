"""Many cases in one run: which ones there are, which are finished already, and a manifest of what became of each.

The manifest, ``manifest.jsonl`` in the output folder, has one JSON object a line: case, target, status (``done``,
``skipped`` because an earlier run finished it, ``failed``), output, SHA-256, seconds, warnings, error. While a batch
runs lines are appended, and the last one about a case counts; at the end they are put in order.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from MedXlateCore.errors import InputError, MedXlateError
from MedXlateCore.files import atomic_write_text, read_bytes, remove_stale_temporaries, to_jsonable
from MedXlateCore.io import read_record, source_sha256
from MedXlateCore.io.bids import BidsSession, derivative_path, index_bids
from MedXlateCore.models.card import ModelCard
from MedXlateCore.models.sampling import Sampling
from MedXlateCore.paths import unwritable
from MedXlateCore.prompts.roi import DEFAULT_LABELS
from MedXlateCore.training.table import check_names, file_of_case, image_columns, modality_of_column, read_csv
from MedXlateCore.volume import Modality

__all__ = ["MANIFEST", "BatchCase", "Manifest", "find_cases", "finished_record"]

MANIFEST = "manifest.jsonl"
_FOLDER_NAME = re.compile(
    r"[^/\\:*?\"<>|\x00-\x1f\x7f.\s]([^/\\:*?\"<>|\x00-\x1f\x7f]{0,98}[^/\\:*?\"<>|\x00-\x1f\x7f.\s])?"
)


@dataclass(frozen=True)
class BatchCase:
    """One case of a batch.

    Attributes:
        name: unique in the batch.
        sources: file of each source, in the model's channel order.
        output: where the result belongs, relative to the output folder.
        roi: label map of the region, or None.
        problem: why the case cannot be translated, as far as that is known before any volume is opened.
    """

    name: str
    sources: dict[Modality, Path] = field(default_factory=dict)
    output: Path = Path()
    roi: Path | None = None
    problem: MedXlateError | None = None


def find_cases(
    source: Path, card: ModelCard, target: Modality, roi_column: str | None = None, split: str | None = None
) -> list[BatchCase]:
    """Return the cases of a table (CSV) or of a BIDS folder. A case that lacks something comes with its problem.

    Args:
        source: the table, or the folder.
        card: the model's card, which says what sources it needs.
        target: what will be made.
        roi_column: the table's column of region label maps, or the suffix of such files in BIDS (``dseg``).
        split: only rows of this split; the table then needs the column.

    Raises:
        InputError: ``MX-DAT-002``, ``MX-DAT-004`` (the table), ``MX-DAT-015`` (no case); ``MX-FIL-001`` to ``008``.
        UsageError: ``MX-DAT-003``, a column is missing or means two things.
    """
    if source.is_dir():
        cases = [_bids_case(session, card, target, roi_column) for session in index_bids(source)]
        expected = "folders sub-*/[ses-*/]anat with images"
    else:
        cases = list(_table_cases(source, card, target, roi_column, split))
        expected = f"at least one row{f' with the split {split}' if split else ''}"
    if not cases:
        raise InputError(
            "MX-DAT-015",
            "the input holds no case",
            expected=expected,
            where=str(source),
            fix="give a table of cases (CSV with the columns case and one for each modality) or a BIDS folder",
        )
    return cases


def finished_record(
    case: BatchCase,
    folder: Path,
    card: ModelCard,
    target: Modality,
    labels: Mapping[str, Any],
    sampling: Sampling | None = None,
) -> dict[str, Any] | None:
    """Return the record of the case's result if that is there, whole, and made from these files by this model.

    Args:
        case: the case.
        folder: the output folder.
        card: the model's card.
        target: what is to be made.
        labels: label values by region; empty for the usual ones.
        sampling: how samples are to be drawn; None for the model's own way.
    """
    asked = (sampling or Sampling()).to_dict()
    record = read_record(folder / case.output)
    if record is None or case.problem is not None:
        return None
    inputs = [(modality.value, source_sha256(path, modality)) for modality, path in case.sources.items()]
    prompt = None
    if case.roi is not None:
        prompt = (source_sha256(case.roi, Modality.LABEL), to_jsonable(labels or DEFAULT_LABELS))
    try:
        found = record["prompt"]
        same = (
            record["target"] == target.value
            and record["model"]["sha256"] == card.weights["sha256"]
            and [(item["role"], item["sha256"]) for item in record["inputs"]] == inputs
            and (None if found is None else (found["sha256"], found["labels"])) == prompt
            and record["compute"].get("sampling", {"asked": asked})["asked"] == asked
        )
    except (KeyError, TypeError):  # a record of another version, or an edited one
        return None
    return record if same else None


# --- cases ---------------------------------------------------------------------------------------------------------


def _table_cases(
    path: Path, card: ModelCard, target: Modality, roi_column: str | None, split: str | None
) -> Iterator[BatchCase]:
    header, records = read_csv(path)
    modalities = card.sources_for(target.value, [modality_of_column(name) for name in header])
    others = ["case", *filter(None, (roi_column, "split" if split else None))]
    fix = "correct the table's header, or --roi-column"
    columns = image_columns(header, modalities, others, path, optional=("seg",), fix=fix)
    used = [(line, record) for line, record in records if split is None or record["split"] == split]
    check_names(used, path)
    seen: set[str] = set()
    for line, record in used:
        case = BatchCase(record["case"])
        where = f"{path}, line {line}"
        try:
            _refuse_bad_name(case.name, seen, where)
            case = replace(case, output=Path(case.name) / f"{case.name}_synthetic-{target.value}.nii.gz")
            yield _with_files(case, record, columns, roi_column, path.parent, where)
        except MedXlateError as error:
            yield replace(case, problem=error)


def _with_files(
    case: BatchCase,
    record: Mapping[str, str],
    columns: Mapping[str, str],
    roi_column: str | None,
    folder: Path,
    where: str,
) -> BatchCase:
    absent = [name for name, column in columns.items() if not record[column]]
    if absent:
        raise _lacking(case.name, absent, where)
    sources = {
        Modality.parse(name): file_of_case(folder, record[column], case.name, name, where)
        for name, column in columns.items()
    }
    text = record[roi_column] if roi_column else ""
    roi = file_of_case(folder, text, case.name, str(roi_column), where) if text else None
    return replace(case, sources=sources, roi=roi)


def _refuse_bad_name(name: str, seen: set[str], where: str) -> None:
    """Refuse names that no folder can have, or that two cases would share on Windows and macOS."""
    problem = "" if _FOLDER_NAME.fullmatch(name) else "cannot be the name of a folder"
    if not problem and name.casefold() in seen:
        problem = "differs from another case's name in upper and lower case only"
    seen.add(name.casefold())
    if problem:
        raise InputError(
            "MX-DAT-013",
            f"the case's name '{name}' {problem}",
            expected='a name of at most 100 characters without / \\ : * ? " < > | and without a dot at either end',
            where=where,
            fix="rename the case in the table",
        )


def _bids_case(session: BidsSession, card: ModelCard, target: Modality, roi_suffix: str | None) -> BatchCase:
    case = BatchCase(session.name, output=derivative_path(session, target))
    present = [modality.value for modality, paths in session.images.items() if paths]
    wanted = [Modality.parse(name) for name in card.sources_for(target.value, present)]
    found = {modality.value: session.images.get(modality, []) for modality in wanted}
    regions = session.others.get(roi_suffix, []) if roi_suffix else []
    several = next((name for name, paths in {**found, str(roi_suffix): regions}.items() if len(paths) > 1), None)
    absent = [name for name, paths in found.items() if not paths]
    if absent:
        return replace(case, problem=_lacking(session.name, absent, session.name))
    if several is not None:
        names = ", ".join(path.name for path in found.get(several, regions))
        problem = InputError(
            "MX-DAT-014",
            f"several files of '{session.name}' could be the {several}: {names}",
            expected="one file for each modality",
            where=session.name,
            fix="name the file wanted in a table of cases (CSV)",
        )
        return replace(case, problem=problem)
    sources = {modality: found[modality.value][0] for modality in wanted}
    return replace(case, sources=sources, roi=regions[0] if regions else None)


def _lacking(case: str, absent: Iterable[str], where: str) -> InputError:
    return InputError(
        "MX-DAT-008",
        f"the case '{case}' has no {' and no '.join(absent)}",
        expected="all of the model's sources",
        where=where,
        fix="add the images, or use a model that needs fewer (medxlate models list)",
    )


# --- manifest ------------------------------------------------------------------------------------------------------


class Manifest:
    """What became of each case and target, on disk at every moment. Hold the folder's lock while using it.

    Raises:
        ResourceError: ``MX-FIL-010`` to ``MX-FIL-016``, it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / MANIFEST
        self.lines: dict[tuple[str, str], dict[str, Any]] = {}
        for line in self._read():
            self._take(line)
        remove_stale_temporaries(folder)
        self._rewrite([])

    def add(self, line: Mapping[str, Any]) -> None:
        """Note what became of a case; the line is on disk when this returns."""
        facts = to_jsonable(line)
        self._take(facts)
        try:
            with self.path.open("a", encoding="utf-8", newline="\n") as stream:
                stream.write(_text(facts))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from error

    def finish(self, order: Sequence[str]) -> None:
        """Leave one line a case and target, the cases in the given order first."""
        self._rewrite(order)

    def _take(self, line: dict[str, Any]) -> None:
        self.lines[str(line.get("case")), str(line.get("target"))] = line

    def _read(self) -> Iterator[dict[str, Any]]:
        text = read_bytes(self.path).decode("utf-8", "replace") if _has_bytes(self.path) else ""
        for row in text.splitlines():
            with contextlib.suppress(ValueError):  # the last line of a run that was killed
                line = json.loads(row)
                if isinstance(line, dict):
                    yield line

    def _rewrite(self, order: Sequence[str]) -> None:
        place = {name: position for position, name in enumerate(order)}
        lines = sorted(self.lines.values(), key=lambda line: place.get(str(line.get("case")), len(place)))
        atomic_write_text(self.path, "".join(_text(line) for line in lines))


def _text(line: Mapping[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"


def _has_bytes(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:  # none yet
        return False
