"""What client and worker say to each other, as plain JSON data and back. No torch, no pickle."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedXlateCore.errors import Cancelled, InputError, InternalError, MedXlateError, ResourceError, UsageError, Warned
from MedXlateCore.inference.events import Event, Finished, Progress, Started
from MedXlateCore.volume import Geometry, Modality, Source, Volume
from MedXlateCore.worker.arrays import Parcel, array_header, read_parcel

__all__ = [
    "Failed", "Opened", "Ready", "Result", "WorkerEvent", "describe", "error_from_dict", "event_from_dict",
    "event_to_dict", "line", "nothing_open", "rebuild", "volume_from_parcel",
]  # fmt: skip

_ERRORS: tuple[type[MedXlateError], ...] = (UsageError, InputError, ResourceError, InternalError)
_EVENTS: dict[str, type[Started] | type[Progress] | type[Warned] | type[Finished]] = {
    "started": Started, "progress": Progress, "warned": Warned, "finished": Finished,
}  # fmt: skip


@dataclass(frozen=True)
class Ready:
    """The worker has loaded its libraries."""

    versions: Mapping[str, str]


@dataclass(frozen=True)
class Opened:
    """The worker has the sources and the model."""


@dataclass(frozen=True, eq=False)
class Result:
    """An update is complete.

    Attributes:
        volume: the synthetic volume.
        record: the run record as plain data.
        uncertainty: standard deviation of each voxel over the samples, on the same grid; None for fewer than two.
    """

    volume: Volume
    record: dict[str, Any]
    uncertainty: Volume | None = None


@dataclass(frozen=True)
class Failed:
    """What was asked for cannot be done; the error has the code that the command line would show."""

    error: MedXlateError


WorkerEvent = Event | Ready | Opened | Result | Failed


def line(message: Mapping[str, Any]) -> bytes:
    """Return a message as one line of ASCII JSON (any file name survives)."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def describe(volume: Volume) -> dict[str, Any]:
    """Return everything about a volume but its voxels."""
    return {
        **array_header(volume.array),
        "affine_ras": volume.geometry.affine_ras.tolist(),
        "modality": volume.modality.value,
        "name": volume.source.name,
        "path": None if volume.source.path is None else str(volume.source.path),
        "sha256": volume.source.sha256,
        "synthetic": volume.synthetic,
        "notes": [note.as_dict() for note in volume.notes],
    }


def rebuild(facts: Mapping[str, Any], array: Any) -> Volume:
    """Return the volume that :func:`describe` described, with its voxels."""
    path = None if facts["path"] is None else Path(facts["path"])
    return Volume(
        array,
        Geometry(tuple(facts["shape"]), facts["affine_ras"]),
        Modality(facts["modality"]),
        Source(facts["name"], path, facts["sha256"]),
        facts["synthetic"],
        tuple(Warned(**note) for note in facts["notes"]),
    )


def volume_from_parcel(facts: Mapping[str, Any]) -> Volume:
    """Return a volume from its description with the key ``voxels``: where they are."""
    return rebuild(facts, read_parcel(facts["voxels"], facts))


def event_to_dict(event: Event) -> dict[str, Any]:
    """Return an event of a translation as plain data."""
    name = next(name for name, kind in _EVENTS.items() if isinstance(event, kind))
    return {"event": name, **dataclasses.asdict(event)}


def event_from_dict(facts: Mapping[str, Any], rooms: Sequence[Parcel] = ()) -> WorkerEvent | None:
    """Return the event that a line of the worker stands for; None for one that nobody waits for.

    Args:
        facts: the line.
        rooms: where the voxels of a result are, and of its uncertainty where there is one.
    """
    name = facts.get("event")
    values = {key: value for key, value in facts.items() if key not in ("event", "id")}
    if name in _EVENTS:
        return _EVENTS[name](**values)
    if name == "ready":
        return Ready(values["versions"])
    if name == "opened":
        return Opened()
    if name == "failed":
        return Failed(error_from_dict(values["error"]))
    if name == "result" and rooms:
        described = [values["volume"], *([values["uncertainty"]] if values["uncertainty"] else [])]
        volume, *spread = (rebuild(each, room.take(each)) for each, room in zip(described, rooms, strict=False))
        return Result(volume, values["record"], *spread)
    return None


def error_from_dict(facts: Mapping[str, Any]) -> MedXlateError:
    """Return the error that ``MedXlateError.as_dict`` described."""
    if facts["exit_code"] == Cancelled.exit_code:
        return Cancelled(facts["where"])
    kind = next((kind for kind in _ERRORS if kind.exit_code == facts["exit_code"]), InternalError)
    return kind(facts["code"], facts["found"], expected=facts["expected"], where=facts["where"], fix=facts["fix"])


def nothing_open() -> UsageError:
    """Return ``MX-WRK-003`` for an update without inputs."""
    return UsageError("MX-WRK-003", "no inputs are open", expected="open before update", where="worker")
