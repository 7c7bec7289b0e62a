"""The run record: everything needed to say how a synthetic volume came about. It travels as JSON beside the result."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from MedXlateCore import __version__
from MedXlateCore.errors import Warned
from MedXlateCore.volume import Volume

__all__ = ["STATEMENT", "RunRecord", "describe_volume", "software_versions", "warnings_as_dicts"]

STATEMENT = "Synthetic image made by a neural network. Research use only, not for diagnosis."


def software_versions() -> dict[str, str]:
    """Return the versions that decide the result's bits."""
    versions = {
        "medxlate": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    for package in ("numpy", "scipy", "torch", "nibabel", "SimpleITK"):
        if package in sys.modules:
            try:
                versions[package] = metadata.version(package)
            except metadata.PackageNotFoundError:  # a program's own build, as 3D Slicer's SimpleITK
                versions[package] = str(getattr(sys.modules[package], "__version__", "unknown"))
    return versions


@dataclass(frozen=True)
class RunRecord:
    """One translation, from inputs to result.

    Attributes:
        target: modality of the result.
        model: name, version, method and SHA-256 of the weights.
        inputs: role, file name, SHA-256, shape and spacing (mm) of each source.
        prompt: the region prompt (file name, hash, labels, voxels), or None.
        grid: what the spatial plan did.
        intensity: fitted normalisers and the result's intensity scale.
        compute: device, precision, batch size, steps down where memory did not suffice (ladder), slices recomputed and
            reused, estimated memory (bytes), seconds per stage.
        described: a target in words: the text, what was understood (facts), the sentence that the network was told,
            the nearest image it was trained on, and whose intensities the result has; None for a target by its name.
        warnings: all recorded warnings.
        software: versions.
        created_utc: time of completion, ISO 8601.
    """

    target: str
    model: dict[str, Any]
    inputs: list[dict[str, Any]]
    prompt: dict[str, Any] | None
    grid: dict[str, Any]
    intensity: dict[str, Any]
    compute: dict[str, Any]
    described: dict[str, Any] | None = None
    warnings: list[dict[str, str]] = field(default_factory=list)
    software: dict[str, str] = field(default_factory=software_versions)
    created_utc: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def as_dict(self) -> dict[str, Any]:
        """Return the record for JSON, the statement first."""
        return {"synthetic": True, "statement": STATEMENT, **asdict(self)}


def describe_volume(volume: Volume) -> dict[str, Any]:
    """Return what a run record says of an input: role, file name (no folder), hash, grid."""
    return {
        "role": volume.modality.value,
        "name": volume.source.name,
        "sha256": volume.source.sha256,
        "shape": list(volume.geometry.shape),
        "spacing_mm": [round(s, 6) for s in volume.geometry.spacing_mm],
        "synthetic": volume.synthetic,
    }


def warnings_as_dicts(warnings: tuple[Warned, ...] | list[Warned]) -> list[dict[str, str]]:
    """Return warnings for JSON, each once, in order of appearance."""
    return [w.as_dict() for w in dict.fromkeys(warnings)]
