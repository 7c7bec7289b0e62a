"""What DCLIP says about images: facts of slices, swapped roles of volumes, and what patients' volumes look like."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedXlateCore.errors import InputError
from MedXlateCore.inference.gate import SLICES, Gate, role_check
from MedXlateCore.io import read_volume
from MedXlateCore.models.eva_i2i import EvaNetwork, known_domains
from MedXlateCore.models.package import LoadedModel
from MedXlateCore.training.data import fit_to_size
from MedXlateCore.training.scans import slice_size
from MedXlateCore.transforms.planes import PLANES, plane_slice

if TYPE_CHECKING:
    from run import TestHead

__all__ = ["classify", "gate_of", "on_patients", "slices_of", "swaps"]

ROLES = ("T1", "T2", "FLAIR", "CT")
COLUMNS = ("T1", "T1ce", "T2", "FLAIR", "CT")  # of cases.csv
TEMPLATES = {
    "spm_avg152T1": "T1", "spm_single_subj_T1": "T1", "spm_avg152T2": "T2", "spm_avg152PD": "PD", "clinical_scct": "CT"
}  # fmt: skip


def gate_of(model: LoadedModel) -> Gate:
    """Return the sentences that images are compared with."""
    network: EvaNetwork = model.network  # type: ignore[assignment]
    return Gate(network.dclip, tuple(known_domains(model.config).values()))


def slices_of(head: TestHead, scan: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield some slices of the middle of a scan in each plane, in the squares that training has: plane, slice."""
    side = max(slice_size([head.case], 1))
    for (first, stop), plane in zip(head.case.parts, PLANES, strict=True):
        for index in np.linspace(first, stop - 1, SLICES).round().astype(int):
            yield plane, fit_to_size(plane_slice(head.stack(scan), plane, int(index)), (side, side))


def classify(model: LoadedModel, heads: Sequence[TestHead]) -> list[dict[str, Any]]:
    """Return what each slice of each test scan is and what it looks like, under the normaliser of its own modality."""
    gate = gate_of(model)
    rows: list[dict[str, Any]] = []
    for head in heads:
        for scan, facts in enumerate(head.case.facts):
            own = list(slices_of(head, scan))
            similarities = gate.similarities([image for _, image in own])
            for n, (plane, _) in enumerate(own):
                looks = gate.told(similarities[n : n + 1])
                found = {
                    "sequence": looks.sequence.value or "CT",
                    "plane": looks.plane.value,
                    "fat_suppressed": looks.fat_suppressed.value,
                    "contrast_agent": looks.contrast_agent.value,
                }
                true = {
                    "sequence": facts.sequence or "CT",
                    "plane": plane,
                    "fat_suppressed": facts.fat_suppressed,
                    "contrast_agent": facts.contrast_agent,
                }
                told = {"case": head.case.row.case, "scan": scan, "rule": head.rules[scan]}
                rows.append({**told, **true, **{f"{name}_found": value for name, value in found.items()}})
    return rows


def swaps(model: LoadedModel, heads: Sequence[TestHead]) -> list[dict[str, Any]]:
    """Return what the gate says of every test volume declared as each of the roles, its own one among them."""
    gate = gate_of(model)
    rows: list[dict[str, Any]] = []
    for head in heads:
        for scan, path in enumerate(head.case.row.images.values()):
            true = head.case.modalities[scan]
            if true not in (*ROLES, "T1ce"):
                continue
            volume = read_volume(path, true)
            for declared in dict.fromkeys((true, *ROLES)):
                check = role_check(volume, declared, model, gate)
                rows.append(
                    {
                        "case": head.case.row.case,
                        "scan": scan,
                        "rule": head.rules[scan],
                        "true": true,
                        "declared": declared,
                        "looks": check.looks.modality.value,
                        "probability": round(check.looks.modality.probability, 3),
                        "warned": not check.agrees,
                    }
                )
    return rows


def on_patients(model: LoadedModel, data: Path) -> list[dict[str, Any]]:
    """Return what patients' volumes, and templates made of many, look like."""
    gate = gate_of(model)
    rows: list[dict[str, Any]] = []
    for group, case, true, path in _patients(data):
        try:
            looks = role_check(read_volume(path, true), true, model, gate)
        except InputError as error:
            rows.append({"group": group, "case": case, "true": true, "looks": error.code})
            continue
        modality = looks.looks.modality
        rows.append(
            {
                "group": group,
                "case": case,
                "true": true,
                "looks": modality.value,
                "probability": round(modality.probability, 3),
                "fat_suppressed_found": looks.looks.fat_suppressed.value,
                "contrast_agent_found": looks.looks.contrast_agent.value,
                "warned": not looks.agrees,
            }
        )
    return rows


def _patients(data: Path) -> Iterator[tuple[str, str, str, Path]]:
    """Yield group, case, modality and file of the real volumes."""
    with (data / "cases.csv").open(encoding="utf-8", newline="") as file:
        for record in csv.DictReader(file):
            if not record["group"].endswith("-2d"):
                yield from (
                    (record["group"], record["case"], name, data / record[name]) for name in COLUMNS if record[name]
                )
    for path in sorted((data / "open-ms").glob("long_*/*.nii.gz")):
        name = next((role for role in ("FLAIR", "T1") if role in path.name), "")
        if name:
            yield "skull on, defaced", path.parent.name, name, path
    for path in sorted((data / "templates-mni").glob("*.nii*")):
        name = path.name.split(".")[0]
        if name in TEMPLATES:
            yield "templates", name, TEMPLATES[name], path
