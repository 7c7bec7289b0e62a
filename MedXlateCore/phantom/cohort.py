"""A folder of phantom cases with its table: ``<case>/<case>_<modality>.nii.gz``, ``cases.csv``, ``phantom.json``.

With scans of varied settings: ``<case>/<case>_scan<n>.nii.gz`` and ``scans.csv``, one row a scan.
"""

from __future__ import annotations

import math
import multiprocessing
import shutil
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from MedXlateCore import __version__
from MedXlateCore.errors import InputError, ResourceError, UsageError
from MedXlateCore.files import atomic_write_text, check_writable, csv_text, read_json, write_json
from MedXlateCore.io import write_volume
from MedXlateCore.phantom.fields import generator
from MedXlateCore.phantom.head import (
    MODALITIES,
    Subject,
    build_subject,
    check_modalities,
    phantom_geometry,
    render_subject,
)
from MedXlateCore.phantom.physics import MRAcquisition, acquisition_for, vary_acquisition
from MedXlateCore.phantom.scans import ScanPlan, render_scan, scan_table
from MedXlateCore.volume import Modality, Volume

__all__ = ["CaseDone", "CohortPlan", "write_cohort"]

SPLITS = ("train", "val", "test")
_MOST_CASES = 100_000
_MOST_JOBS = 256


@dataclass(frozen=True)
class CohortPlan:
    """What to make.

    Attributes:
        cases: how many.
        seed: seed of the cohort; cohorts with different seeds share no head.
        shape: voxels along I, J, K; None for the usual 128 x 160 x 104.
        spacing_mm: voxel size; None for what the shape needs to hold the head.
        modalities: which images.
        splits: three fractions that add up to 1, or three counts that add up to ``cases``: train, val, test.
        lesion_free_fraction: share of heads without a tumour, 0 to 1.
        field_strength_t: 1.5 or 3.
        acquisitions: changed settings per MR modality, by attribute of ``MRAcquisition``.
        vary_acquisition: True to vary the settings from case to case.
        brain_only: True for skull-stripped images.
        write_mask: True to write a brain mask and its column too.
        scans: scans with varied settings, in place of ``modalities``; their table is ``scans.csv``.

    Raises:
        UsageError: ``MX-USE-184`` (number of cases), ``MX-USE-185`` (splits), ``MX-USE-188`` (fraction), ``MX-USE-183``
            (seed), ``MX-USE-180`` to ``-182`` (modalities, settings, size).
        ResourceError: ``MX-RES-180``, too many voxels.
    """

    cases: int
    seed: int = 0
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    modalities: tuple[Modality, ...] = MODALITIES
    splits: tuple[float, float, float] = (0.8, 0.1, 0.1)
    lesion_free_fraction: float = 0.15
    field_strength_t: float = 3.0
    acquisitions: Mapping[Modality, Mapping[str, object]] = field(default_factory=dict)
    vary_acquisition: bool = False
    brain_only: bool = False
    write_mask: bool = False
    scans: ScanPlan | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.cases <= _MOST_CASES:
            raise UsageError(
                "MX-USE-184",
                f"{self.cases} cases cannot be made",
                expected=f"1 to {_MOST_CASES} cases",
                where="number of cases",
                fix="correct the number",
            )
        if not 0 <= self.lesion_free_fraction <= 1:
            raise UsageError(
                "MX-USE-188",
                f"the share of lesion-free heads is {self.lesion_free_fraction}",
                expected="a fraction from 0 to 1",
                where="lesion-free fraction",
                fix="correct the fraction",
            )
        if self.seed < 0:
            raise UsageError(
                "MX-USE-183",
                f"the seed is {self.seed}",
                expected="a seed of 0 or above",
                where="seed",
                fix="correct it",
            )
        object.__setattr__(self, "modalities", check_modalities(self.modalities))
        phantom_geometry(self.shape, self.spacing_mm)
        self.split_counts()
        for modality in {*self.acquisitions, *(m for m in self.modalities if m.is_mr)}:
            self.acquisition(modality)

    def split_counts(self) -> tuple[int, int, int]:
        """Return the numbers of training, validation and test cases (largest remainder for fractions)."""
        parts, total = self.splits, sum(self.splits)
        usable = len(parts) == 3 and all(math.isfinite(p) and p >= 0 for p in parts)
        if usable and total == self.cases and all(float(p).is_integer() for p in parts):
            return int(parts[0]), int(parts[1]), int(parts[2])
        if not usable or abs(total - 1.0) > 1e-6:
            raise UsageError(
                "MX-USE-185",
                f"the splits are {', '.join(f'{p:g}' for p in parts)} for {self.cases} cases",
                expected="three fractions that add up to 1, or three counts that add up to the number of cases",
                where="splits",
                fix="for example 0.8,0.1,0.1",
            )
        exact = [p * self.cases for p in parts]
        counts = [math.floor(e + 1e-9) for e in exact]
        by_remainder = sorted(range(3), key=lambda n: counts[n] - exact[n])
        for n in by_remainder[: self.cases - sum(counts)]:
            counts[n] += 1
        return counts[0], counts[1], counts[2]

    def acquisition(self, modality: Modality) -> MRAcquisition:
        """Return the settings of an MR modality, before any variation."""
        changes = {"field_strength_t": self.field_strength_t, **self.acquisitions.get(modality, {})}
        return acquisition_for(modality, **changes)  # type: ignore[arg-type]

    @property
    def images(self) -> int:
        """Number of images of each case."""
        return len(self.modalities) if self.scans is None else self.scans.scans

    @property
    def table_name(self) -> str:
        """File name of the table."""
        return "cases.csv" if self.scans is None else "scans.csv"

    def case_plans(self) -> list[CasePlan]:
        """Return the cases in order, training first; heads without a tumour are spread evenly."""
        names = [name for name, n in zip(SPLITS, self.split_counts(), strict=True) for _ in range(n)]
        share = self.lesion_free_fraction
        return [
            CasePlan(
                name=f"phantom_s{self.seed}_{n + 1:04d}",
                number=n,
                split=split,
                seed=self.seed * 1_000_000 + n,
                lesion=math.floor((n + 1) * share + 1e-9) == math.floor(n * share + 1e-9),
            )
            for n, split in enumerate(names)
        ]


@dataclass(frozen=True)
class CasePlan:
    """One case to make: its name, number (from 0), split, seed, and whether it has a tumour."""

    name: str
    number: int
    split: str
    seed: int
    lesion: bool


@dataclass(frozen=True)
class CaseDone:
    """Event: a case was written. ``number`` of ``total`` are done; ``facts`` go into ``phantom.json``."""

    number: int
    total: int
    case: CasePlan
    facts: Mapping[str, Any]


def write_cohort(plan: CohortPlan, folder: Path, *, overwrite: bool = False, jobs: int = 1) -> Iterator[CaseDone]:
    """Make the cohort, one event a case; the table and ``phantom.json`` appear last.

    If it is stopped (the iterator closed, an exception) the case folders it made are removed again.

    Args:
        plan: what to make.
        folder: where; created if missing.
        overwrite: True to replace an earlier cohort (its case folders are removed; other files stay).
        jobs: worker processes.

    Raises:
        UsageError: ``MX-USE-186`` (the folder is not empty), ``MX-USE-189`` (number of jobs).
        ResourceError: disk or permission, as in ``MedXlateCore.files.check_writable``; ``MX-RES-181``, a worker ended.
    """
    if not 1 <= jobs <= _MOST_JOBS:
        raise UsageError(
            "MX-USE-189",
            f"{jobs} jobs",
            expected=f"1 to {_MOST_JOBS}",
            where="number of jobs",
            fix="correct the number",
        )
    _prepare_folder(plan, folder, overwrite)
    new_folder = not folder.exists()
    cases = plan.case_plans()
    facts: dict[str, Mapping[str, Any]] = {}
    try:
        with closing(_run(plan, cases, folder, jobs)) as results:  # closing it ends the workers before the clean-up
            for case, result in results:
                facts[case.name] = result
                yield CaseDone(len(facts), len(cases), case, result)
        table = _table(plan, cases) if plan.scans is None else _scan_table(plan, cases, facts)
        atomic_write_text(folder / plan.table_name, table)
        write_json(folder / "phantom.json", _description(plan, cases, facts))
    except BaseException:
        for case in cases:
            shutil.rmtree(folder / case.name, ignore_errors=True)
        if new_folder:
            with suppress(OSError):
                folder.rmdir()
        raise


def _prepare_folder(plan: CohortPlan, folder: Path, overwrite: bool) -> None:
    """Check that the cohort can be written, and clear an earlier one if that is wanted."""
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise UsageError(
            "MX-USE-186",
            "the output folder is not empty",
            expected="a new or empty folder",
            where=str(folder),
            fix="choose another folder, or add --overwrite to replace an earlier cohort",
        )
    voxels = math.prod(phantom_geometry(plan.shape, plan.spacing_mm).shape)
    check_writable(folder / plan.table_name, needed_bytes=plan.cases * voxels * (3 * plan.images))
    if not overwrite:
        return
    with suppress(InputError):  # no earlier phantom.json: nothing of ours to remove
        earlier = read_json(folder / "phantom.json")
        for table in ("cases.csv", "scans.csv"):
            (folder / table).unlink(missing_ok=True)  # first: a table must not name cases that are gone
        for case in earlier.get("cases", []) if isinstance(earlier, dict) else []:
            name = str(case.get("case", "")) if isinstance(case, dict) else ""
            if name.startswith("phantom_s") and Path(name).name == name:
                shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "phantom.json").unlink(missing_ok=True)


def _run(
    plan: CohortPlan, cases: list[CasePlan], folder: Path, jobs: int
) -> Generator[tuple[CasePlan, Mapping[str, Any]], None, None]:
    if jobs == 1:
        for case in cases:
            yield case, _make_case(plan, case, folder)
        return
    # Spawned, not forked: the caller may hold threads (torch, Qt) that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(cases)), mp_context=context) as pool:
        futures: dict[Future[Mapping[str, Any]], CasePlan] = {
            pool.submit(_make_case, plan, case, folder): case for case in cases
        }
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise ResourceError(
                "MX-RES-181",
                "a worker process ended before its phantom was made",
                expected="workers that run to their end",
                where=f"{jobs} jobs",
                fix="use fewer jobs or a smaller size; most often the system's memory ran out",
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _make_case(plan: CohortPlan, case: CasePlan, folder: Path) -> Mapping[str, Any]:
    """Build, render and write one case; return its facts."""
    subject = build_subject(case.seed, plan.shape, plan.spacing_mm, lesion=case.lesion)
    volumes: dict[str, Volume] = {"seg": subject.label_volume()}
    if plan.write_mask:
        mask = subject.skull_strip_mask.astype(np.uint8)
        volumes["mask"] = Volume(mask, subject.geometry, Modality.LABEL)
    for name, volume in volumes.items():
        write_volume(volume, _path(folder, case, name))
    values, counts = np.unique(subject.labels, return_counts=True)
    volume_ml = subject.geometry.voxel_volume_mm3 / 1000.0
    return {
        "case": case.name,
        "split": case.split,
        "seed": case.seed,
        "lesions": [lesion.to_dict() for lesion in subject.lesions],
        "label_ml": {str(v): round(float(n) * volume_ml, 3) for v, n in zip(values, counts, strict=True) if v},
        "hyperintensity_burden": round(subject.hyperintensity_burden, 4),
        **(
            _make_modalities(plan, case, folder, subject)
            if plan.scans is None
            else {"scans": _make_scans(plan, plan.scans, case, folder, subject)}
        ),
    }


def _make_modalities(plan: CohortPlan, case: CasePlan, folder: Path, subject: Subject) -> dict[str, Any]:
    """Render and write one image a modality; return the settings."""
    scans = {m: plan.acquisition(m) for m in plan.modalities if m.is_mr}
    if plan.vary_acquisition:
        scans = {m: vary_acquisition(scan, generator(case.seed, "acquisition", m.value)) for m, scan in scans.items()}
    for modality in plan.modalities:  # one at a time: memory for one image, not for all
        image = render_subject(subject, [modality], scans, brain_only=plan.brain_only)[modality]
        write_volume(image, _path(folder, case, modality.value))
    return {"acquisitions": {m.value: scan.to_dict() for m, scan in scans.items()}}


def _make_scans(
    plan: CohortPlan, scans: ScanPlan, case: CasePlan, folder: Path, subject: Subject
) -> list[dict[str, Any]]:
    """Render and write a case's scans; return file, facts and settings of each."""
    mask = subject.skull_strip_mask if plan.brain_only else None
    made = []
    for number, scan in enumerate(scans.draw(case.seed, case.split, case.number), start=1):
        if plan.brain_only:
            scan = replace(scan, facts=scan.facts.with_facts(preprocessing=("skull removed",)))
        name = f"scan{number:02d}"
        write_volume(render_scan(subject, scan, number, mask), _path(folder, case, name))
        made.append({"image": _path(Path(), case, name).as_posix(), **scan.to_dict()})
    return made


def _path(folder: Path, case: CasePlan, name: str) -> Path:
    return folder / case.name / f"{case.name}_{name}.nii.gz"


def _table(plan: CohortPlan, cases: list[CasePlan]) -> str:
    """Return the table of cases as CSV; paths are relative to its folder."""
    columns = [*(m.value for m in plan.modalities), "seg", *(["mask"] if plan.write_mask else [])]
    rows = (
        [case.name, case.name, case.split, *(_path(Path(), case, name).as_posix() for name in columns)]
        for case in cases
    )
    return csv_text(["case", "patient", "split", *columns], rows)


def _scan_table(plan: CohortPlan, cases: list[CasePlan], facts: Mapping[str, Mapping[str, Any]]) -> str:
    names = ["seg", *(["mask"] if plan.write_mask else [])]
    return scan_table(
        (case.name, case.split, {n: _path(Path(), case, n).as_posix() for n in names}, facts[case.name]["scans"])
        for case in cases
    )


def _description(plan: CohortPlan, cases: list[CasePlan], facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    geometry = phantom_geometry(plan.shape, plan.spacing_mm)
    return {
        "what": "numerical head phantom made by MedXlate; no patient; research use only, not for diagnosis",
        "version": __version__,
        "seed": plan.seed,
        "shape": list(geometry.shape),
        "spacing_mm": [round(s, 6) for s in geometry.spacing_mm],
        **_contents(plan),
        "splits": dict(zip(SPLITS, plan.split_counts(), strict=True)),
        "lesion_free_fraction": plan.lesion_free_fraction,
        "vary_acquisition": plan.vary_acquisition,
        "brain_only": plan.brain_only,
        "labels": {"core": 1, "oedema": 2, "enhancing": 4},
        "cases": [facts[case.name] for case in cases],
    }


def _contents(plan: CohortPlan) -> dict[str, Any]:
    if plan.scans is None:
        return {"modalities": [m.value for m in plan.modalities]}
    rules = [rule.text for rule in plan.scans.hold_out]
    return {"scans": plan.scans.scans, "kinds": list(plan.scans.kinds), "hold_out": rules}
