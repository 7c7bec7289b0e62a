"""From frames to stacks: one stack is one volume. A series may hold several, and a folder many series.

A series is split where frames cannot lie on one grid (matrix, voxel size, orientation, frame of reference), and where
several frames lie at one place: by what tells them apart (image type, echo time, inversion time, flip angle, b value,
gradient direction), or else by their order in time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from MedXlateCore.errors import InputError, Warned
from MedXlateCore.io.dicom_files import Frame, Header, open_dataset
from MedXlateCore.io.dicom_geometry import SAME_PLACE_MM, check_place, projections, same_plane, stack_geometry
from MedXlateCore.io.dicom_tags import element_value, reading_errors
from MedXlateCore.volume import Geometry

__all__ = ["Stack", "find_stacks"]

_UNITS = {"echo time": " ms", "inversion time": " ms", "flip angle": " degrees", "b value": " s/mm2"}


@dataclass(frozen=True)
class Stack:
    """One volume that can be read, or why it cannot.

    Attributes:
        name: eight hexadecimal digits of its series, followed by ``-2`` for the second of several stacks.
        frames: its slices, in order where ``geometry`` is known.
        geometry: its grid; None where ``problem`` says why there is none.
        problem: why it cannot be read.
        notes: recorded warnings.
        apart: what tells it from the other stacks of its series, such as ``echo time 90 ms``.
    """

    name: str
    frames: tuple[Frame, ...]
    geometry: Geometry | None
    problem: InputError | None
    notes: tuple[Warned, ...] = ()
    apart: str = ""

    @property
    def header(self) -> Header:
        """The header of the first frame's file."""
        return self.frames[0].header


def find_stacks(frames: Iterable[Frame], where: str) -> list[Stack]:
    """Sort frames into stacks, by series number and name.

    Args:
        frames: of any series.
        where: file or folder for messages.
    """
    series: dict[tuple[str, ...], list[Frame]] = {}
    for frame in frames:
        series.setdefault(frame.header.series, []).append(frame)
    stacks = [stack for key, members in series.items() for stack in _stacks_of_series(key, members, where)]
    return sorted(stacks, key=lambda s: (s.header.series_number is None, s.header.series_number or 0, *_rank(s.name)))


def _rank(name: str) -> tuple[str, int]:
    series, _, part = name.partition("-")
    return series, int(part or 0)


def _stacks_of_series(key: tuple[str, ...], frames: list[Frame], where: str) -> list[Stack]:
    name = hashlib.sha256("\0".join(key).encode("utf-8", "backslashreplace")).hexdigest()[:8]
    unusable = [frame for frame in frames if frame.header.problem]
    usable = [frame for frame in frames if not frame.header.problem]
    found: list[Stack] = []
    if unusable:
        found.append(Stack("", tuple(unusable), None, _no_volume(unusable[0].header, where)))
    if usable:
        lack = f"{len(unusable)} objects of the series were left out: {unusable[0].header.problem}" if unusable else ""
        found += _stacks_of_images(usable, [Warned("MX-DCM-107", lack, where)] if lack else [], where)
    if len(found) == 1:
        return [_named(found[0], name)]
    return [_named(stack, f"{name}-{part}") for part, stack in enumerate(found, start=1)]


def _named(stack: Stack, name: str) -> Stack:
    return Stack(name, stack.frames, stack.geometry, stack.problem, stack.notes, stack.apart)


def _no_volume(header: Header, where: str) -> InputError:
    colour = header.problem == "a colour image"
    return InputError(
        "MX-FIL-046" if colour else "MX-DCM-005",
        f"this is no volume: {header.problem}",
        expected="one number per voxel" if colour else "CT, MR or PET images with a position in the patient",
        where=where,
        fix="give the original series" + ("" if colour else "; convert other objects with dcm2niix or 3D Slicer first"),
    )


def _stacks_of_images(frames: list[Frame], notes: list[Warned], where: str) -> list[Stack]:
    problem = next((error for frame in frames if (error := check_place(frame, where)) is not None), None)
    if problem is not None:  # the others are not taken alone: a slice would be missing without notice
        return [Stack("", tuple(frames), None, problem)]
    try:
        single, copies = _without_copies(frames, where)
    except InputError as error:
        return [Stack("", tuple(frames), None, error)]
    planes: list[list[Frame]] = []
    for frame in single:
        home = next((plane for plane in planes if same_plane(plane[0], frame)), None)
        if home is None:
            planes.append([frame])
        else:
            home.append(frame)
    found = []
    for plane in planes:
        parts = [(plane, "")]
        for fact in plane[0].apart:
            parts = [part for members, label in parts for part in _split_by(members, label, fact)]
        parts = [part for members, label in parts for part in _split_by_time(members, label)]
        found += [_finished(members, label, notes + copies, where) for members, label in parts]
    return found


def _finished(frames: list[Frame], label: str, notes: list[Warned], where: str) -> Stack:
    try:
        if _repeated(frames):
            raise InputError(
                "MX-DCM-014",
                f"several of {len(frames)} images lie at one place and nothing tells them apart",
                expected="one image at each place, or as many at every place",
                where=where,
                fix="remove incomplete repetitions from the folder, or export the series again",
            )
        ordered, geometry, remarks = stack_geometry(frames, where)
    except InputError as error:
        return Stack("", tuple(frames), None, error, tuple(notes), label)
    return Stack("", tuple(ordered), geometry, None, (*notes, *remarks), label)


# --- frames at one place -------------------------------------------------------------------------------------------


def _places(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Return the frames by place along the normal. Frames at one place lie within ``SAME_PLACE_MM``."""
    along = projections(frames)
    places: list[list[Frame]] = []
    last = float("-inf")
    for k in along.argsort(kind="stable"):
        if along[k] - last > SAME_PLACE_MM:
            places.append([])
            last = float(along[k])
        places[-1].append(frames[k])
    return places


def _repeated(frames: Sequence[Frame]) -> bool:
    return len(_places(frames)) < len(frames)


def _split_by(frames: list[Frame], label: str, fact: str) -> list[tuple[list[Frame], str]]:
    """Split frames by a fact, if that tells apart frames at one place."""
    if not any(len({frame.apart[fact] for frame in place}) > 1 for place in _places(frames)):
        return [(frames, label)]
    values: dict[Hashable, list[Frame]] = {}
    for frame in frames:
        values.setdefault(frame.apart[fact], []).append(frame)
    ordered = sorted(values.items(), key=lambda item: _sort_key(item[0]))
    return [(members, ", ".join(filter(None, (label, _said(fact, value))))) for value, members in ordered]


def _sort_key(value: Hashable) -> tuple[bool, bool, Any]:
    """Order numbers before texts, and what is unknown last."""
    return value is None, isinstance(value, tuple), 0 if value is None else value


def _said(fact: str, value: object) -> str:
    if isinstance(value, tuple):
        return f"{fact} {' '.join(f'{item:.2g}' if isinstance(item, float) else str(item) for item in value)}"
    return f"{fact} unknown" if value is None else f"{fact} {value:g}{_UNITS.get(fact, '')}"


def _split_by_time(frames: list[Frame], label: str) -> list[tuple[list[Frame], str]]:
    """Split frames by their order in time at each place, if every place has as many and their times differ."""
    places = _places(frames)
    count = len(places[0])
    whole = all(len(place) == count and len({frame.moment for frame in place}) == count for place in places)
    if count == 1 or not whole:
        return [(frames, label)]
    ranked = [sorted(place, key=lambda frame: frame.moment) for place in places]
    return [
        ([place[n] for place in ranked], ", ".join(filter(None, (label, f"time point {n + 1} of {count}"))))
        for n in range(count)
    ]


# --- copies --------------------------------------------------------------------------------------------------------


def _without_copies(frames: list[Frame], where: str) -> tuple[list[Frame], list[Warned]]:
    """Leave out files that are copies of others: one object, lying in the folder twice.

    Raises:
        InputError: ``MX-DCM-014``, two files claim to be one object but hold different images.
    """
    first: dict[tuple[str, int], Frame] = {}
    kept, copies = [], 0
    for frame in frames:
        earlier = first.setdefault((frame.header.sop_uid, frame.index), frame)
        if earlier is frame or not frame.header.sop_uid:
            kept.append(frame)
            continue
        if frame.index == 0 and not _one_image(earlier, frame):
            raise InputError(
                "MX-DCM-014",
                f"the images '{earlier.header.path.name}' and '{frame.header.path.name}' have one identity "
                "(SOP Instance UID) but differ",
                expected="one file for each image",
                where=where,
                fix="remove the wrong file of the two, or export the series again",
            )
        copies += frame.index == 0
    if not copies:
        return kept, []
    return kept, [Warned("MX-DCM-103", f"{copies} files are copies of others and were left out", where)]


def _one_image(first: Frame, second: Frame) -> bool:
    if first.position != second.position or first.orientation != second.orientation or first.size != second.size:
        return False
    try:
        datasets = [open_dataset(frame.header.path, header_only=False) for frame in (first, second)]
        voxels = [element_value(dataset, "PixelData") for dataset in datasets]
    except reading_errors():
        return False
    return voxels[0] == voxels[1]
