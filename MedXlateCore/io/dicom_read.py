"""DICOM series: read from a folder or a file, listed, and chosen by identity or by role.

``DIR`` is a folder with DICOM files in it or below it; ``DIR#NAME`` chooses one volume of it by the name that
:func:`list_stacks` gives, or by its Series Instance UID. Nothing that identifies a patient, a person or an
institution gets into a volume, its facts, its notes or an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.errors import InputError, Warned
from MedXlateCore.files import sha256_file
from MedXlateCore.io.dicom_facts import TagFacts, facts_of_frame, plane_of
from MedXlateCore.io.dicom_files import UNKNOWN_KIND, Found, looks_like_dicom, open_dataset, scan_file, scan_folder
from MedXlateCore.io.dicom_geometry import continues
from MedXlateCore.io.dicom_pixels import hash_of_files, read_pixels
from MedXlateCore.io.dicom_stacks import Stack, find_stacks
from MedXlateCore.io.dicom_tags import quiet, reading_errors
from MedXlateCore.paths import refuse_bad_name, require_file, shown
from MedXlateCore.volume import Modality, Source, Volume
from MedXlateCore.weighting import role_of

__all__ = ["Listed", "dicom_sha256", "is_dicom_source", "list_stacks", "read_dicom", "split_choice"]

_ANY_ROLE = {Modality.OTHER, Modality.LABEL}
_MOST_LISTED = 12
_UNPLACED = {"MX-DCM-010", "MX-DCM-011", "MX-DCM-020"}


@dataclass(frozen=True)
class Listed:
    """A stack and what its tags say.

    Attributes:
        stack: the volume, or why there is none.
        facts: what the tags say; empty where they cannot be read.
        role: the role it can have by its parameters or tags; ``OTHER`` where they do not say.
        described: the role that its series description names, where the parameters do not say; else ``OTHER``.
    """

    stack: Stack
    facts: TagFacts
    role: Modality
    described: Modality

    def as_text(self) -> str:
        """Return one line for lists: name, role or modality, plane, shape, spacing, what sets it apart."""
        stack = self.stack
        what = self.role.value if self.role is not Modality.OTHER else self.facts.acquisition.sequence or ""
        if not what and self.described is not Modality.OTHER:
            what = f"{self.described.value}?"
        kind = self.facts.acquisition.modality or stack.header.modality
        parts = [f"#{stack.name}", kind if what == kind else f"{kind} {what}".strip()]
        parts.append(self.facts.acquisition.plane or "")
        if stack.geometry is not None:
            parts.append(" x ".join(str(n) for n in stack.geometry.shape))
            parts.append(" x ".join(f"{s:.3g}" for s in stack.geometry.spacing_mm) + " mm")
        else:
            parts.append(f"{len(stack.frames)} images")
        parts += [stack.apart, "localiser or projection" if stack.header.aside else ""]
        parts.append(f"cannot be read: {stack.problem.code}" if stack.problem else "")
        return ", ".join(filter(None, parts))


# --- paths ---------------------------------------------------------------------------------------------------------


def split_choice(path: Path | str) -> tuple[Path, str]:
    """Split ``DIR#NAME`` into the path and the name; a path that exists as it stands is never split."""
    path = Path(path)
    place, sign, choice = str(path).rpartition("#")
    with contextlib.suppress(OSError, ValueError):  # a name that no file can have does not exist
        if sign and place and choice and not path.exists() and Path(place).exists():
            return Path(place), choice
    return path, ""


def is_dicom_source(path: Path | str) -> bool:
    """Say whether a path is a folder, ``DIR#NAME``, or a file that begins as DICOM does."""
    place, choice = split_choice(path)
    with contextlib.suppress(OSError, ValueError):
        return bool(choice) or place.is_dir() or (place.is_file() and looks_like_dicom(place))
    return False


# --- reading -------------------------------------------------------------------------------------------------------


def read_dicom(path: Path, modality: Modality = Modality.OTHER, frame: int | None = None) -> Volume:
    """Read one volume of a DICOM folder or file.

    A file stands for its whole series in its folder. Of several volumes the one is taken that ``path`` names; else the
    only one whose parameters or tags say ``modality``; else the only one whose description does.

    Args:
        path: folder, ``DIR#NAME`` or file.
        modality: what it shows. Images become float32; a label map keeps integers.
        frame: which of several volumes of one series, from 0.

    Returns:
        The volume ``[I, J, K]``: i along rows, j along columns, k along their normal, in RAS mm, with its
        ``acquisition``; ``notes`` holds what had to be assumed or left out. ``source.sha256`` is the file's hash, or
        the hash of the hashes of all its files, in order of slices.

    Raises:
        InputError: ``MX-DCM-001`` (no DICOM images), ``MX-DCM-002`` (several volumes, and none chosen), ``MX-DCM-003``
            (no such volume), ``MX-DCM-004`` to ``006``, ``MX-DCM-010`` to ``014`` (geometry), ``MX-DCM-020`` to
            ``024`` (voxels), ``MX-FIL-034``, ``035``, ``039``, ``045``, ``046``.
        ResourceError: ``MX-DCM-021``, a codec is not installed.
    """
    place, _ = split_choice(path)
    where = shown(place)  # without the name or UID: notes get into records
    chosen, notes = _chosen(path, modality, frame)
    stack = chosen.stack
    if stack.problem is not None:
        raise stack.problem
    if stack.geometry is None:  # never: a stack without a problem has a grid
        raise _nothing(where)
    with quiet():
        pixels = read_pixels(stack.frames, modality, where)
    return Volume(
        array=pixels.array,
        geometry=stack.geometry,
        modality=modality,
        source=Source(place.name, place, pixels.sha256),
        synthetic=pixels.synthetic,
        notes=(*notes, *stack.notes, *pixels.notes, *chosen.facts.notes),
        acquisition=_facts(chosen),
    )


def _facts(chosen: Listed) -> Acquisition:
    """Return the facts; the weighting from the description where nothing else tells it."""
    facts = chosen.facts.acquisition
    if facts.sequence is None and chosen.facts.described is not None:
        return facts.with_facts(sequence=chosen.facts.described)
    return facts


def dicom_sha256(path: Path, modality: Modality = Modality.OTHER) -> str:
    """Return the hash that :func:`read_dicom` gives to the same volume, without decoding it. Raises alike."""
    chosen, _ = _chosen(path, modality, None)
    files = dict.fromkeys(frame.header.path for frame in chosen.stack.frames)
    return hash_of_files([sha256_file(file) for file in files])


def list_stacks(path: Path | str) -> tuple[list[Listed], list[Warned]]:
    """List the volumes of a folder or file, and recorded warnings about files that were left out.

    Raises:
        InputError: ``MX-DCM-001``, ``MX-DCM-004``, ``MX-DCM-006``.
    """
    place, _ = split_choice(path)
    return _listed(place, shown(place))


# --- choosing ------------------------------------------------------------------------------------------------------


def _listed(place: Path, where: str) -> tuple[list[Listed], list[Warned]]:
    with quiet():
        found, notes = _found(place, where)
        listed = [_with_facts(stack, where) for stack in find_stacks(found.frames, where)]
    if not listed:
        raise _nothing(where)
    return listed, notes


def _found(place: Path, where: str) -> tuple[Found, list[Warned]]:
    """Return the frames of a folder, or of the series that a file belongs to."""
    refuse_bad_name(place)
    if place.is_dir():
        found = scan_folder(place)
        return found, found.notes(where)
    require_file(place)
    found = scan_file(place)
    if found.directories:  # a DICOMDIR: what it refers to is not followed, its folder is looked through
        found = scan_folder(place.parent)
        return found, found.notes(where)
    if len(found.frames) != 1 or found.frames[0].header.problem or not found.frames[0].header.series_uid:
        return found, []
    series = found.frames[0].header.series
    around = scan_folder(place.parent)
    mates = Found([frame for frame in around.frames if frame.header.series == series])
    if len(mates.frames) < 2:
        return found, []
    text_ = f"the file is one of {len(mates.frames)} images of its series in this folder; the whole series was read"
    return mates, [Warned("MX-DCM-109", text_, where)]


def _with_facts(stack: Stack, where: str) -> Listed:
    nothing = TagFacts(Acquisition())
    if stack.header.problem:
        return Listed(stack, nothing, Modality.OTHER, Modality.OTHER)
    try:
        facts = facts_of_frame(open_dataset(stack.header.path), stack.frames[0].index, where)
    except reading_errors():
        facts = nothing
    described = Modality.OTHER
    if facts.acquisition.sequence is None and facts.described is not None:
        described = role_of(facts.acquisition.with_facts(sequence=facts.described))
    if facts.acquisition.plane is None:
        plane = plane_of(stack.frames[0].orientation)
        facts = TagFacts(facts.acquisition.with_facts(plane=plane), facts.described, facts.notes)
    return Listed(stack, facts, role_of(facts.acquisition), described)


def _nothing(where: str) -> InputError:
    return InputError(
        "MX-DCM-001",
        "there are no DICOM images in this folder or below it",
        expected="a folder of DICOM files, or one volume file",
        where=where,
        fix="give the volume's file itself, or the folder of the DICOM series",
    )


def _chosen(path: Path, modality: Modality, frame: int | None) -> tuple[Listed, list[Warned]]:
    """Return the one volume that is meant, and recorded warnings about the choice."""
    place, choice = split_choice(path)
    where = shown(place)
    listed, notes = _listed(place, where)
    if choice:
        candidates = [item for item in listed if _is_named(item.stack, choice)]
        if not candidates:
            raise _no_such(choice, listed, where)
    else:
        candidates = listed
    one = _by_frame(candidates, frame, where) if frame is not None else _by_role(candidates, modality, where)
    notes += _strays(one.stack, [item.stack for item in listed if item is not one], where)
    return one, notes + _remarks(one, len(candidates) > 1 and frame is None, modality, where)


def _is_named(stack: Stack, choice: str) -> bool:
    series, _, part = stack.name.partition("-")
    uid = stack.header.series_uid
    return choice in {stack.name, series, uid, f"{uid}-{part}" if part else uid}


def _by_frame(candidates: Sequence[Listed], frame: int, where: str) -> Listed:
    images = _images(candidates)
    if len({item.stack.header.series for item in images}) > 1:
        raise _several(images, where)
    if not 0 <= frame < len(images):
        raise InputError(
            "MX-FIL-039",
            f"frame {frame} was asked for",
            expected=f"a frame from 0 to {len(images) - 1}",
            where=where,
            fix="choose another frame",
        )
    return images[frame]


def _by_role(candidates: Sequence[Listed], modality: Modality, where: str) -> Listed:
    """Return the only candidate, or the only one of this role.

    One that cannot be read counts: its sound remains must not be taken for the whole.
    """
    images = _images(candidates)
    plain = [item for item in images if not item.stack.header.aside]
    for pool in (images, plain):
        if len(pool) == 1:
            return pool[0]
    if modality in _ANY_ROLE:
        raise _several(plain or images, where)
    wanted = Modality.CT if modality is Modality.CBCT else modality
    tests: tuple[Callable[[Listed], bool], ...] = (
        lambda item: item.role is wanted,
        lambda item: item.described is wanted,
    )
    for test in tests:
        fitting = [item for item in plain if test(item)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise _several(fitting, where, f" that could be {modality.value}")
    raise _several(plain or images, where, f", none of which its tags call {modality.value}")


def _images(candidates: Sequence[Listed]) -> list[Listed]:
    """Return the candidates that are images of a volume; if none is, raise why the first is not."""
    images = [item for item in candidates if not item.stack.header.problem]
    if not images and candidates[0].stack.problem is not None:
        raise candidates[0].stack.problem
    return images


def _several(candidates: Sequence[Listed], where: str, how: str = "") -> InputError:
    names = [item.as_text() for item in candidates[:_MOST_LISTED]]
    more = len(candidates) - len(names)
    return InputError(
        "MX-DCM-002",
        f"there are {len(candidates)} volumes{how}",
        expected=f"one of: {'; '.join(names)}{f'; and {more} more' if more else ''}",
        where=where,
        fix=f"put the name of one behind the path, such as '{where}#{candidates[0].stack.name}' "
        "(`medxlate check` lists all)",
    )


def _no_such(choice: str, listed: Sequence[Listed], where: str) -> InputError:
    names = [item.as_text() for item in listed[:_MOST_LISTED]]
    return InputError(
        "MX-DCM-003",
        f"there is no volume named '{shown(choice)}'",
        expected=f"one of: {'; '.join(names)}",
        where=where,
        fix="see `medxlate check` for all names; a Series Instance UID will do too",
    )


def _strays(chosen: Stack, others: Sequence[Stack], where: str) -> list[Warned]:
    """Say if images beside the chosen volume may be slices of it: a damaged header parts a slice from its series."""
    lost = [
        stack
        for stack in others
        if stack.header.problem == UNKNOWN_KIND
        or (stack.problem is not None and stack.problem.code in _UNPLACED)
        or (len(stack.frames) == 1 and continues(chosen.frames, stack.frames[0], where))
    ]
    if not lost:
        return []
    text_ = f"{sum(len(stack.frames) for stack in lost)} images beside it have no usable place, or seem to continue it"
    return [Warned("MX-DCM-114", text_, where, "slices may be missing: compare with the PACS or scanner")]


def _remarks(one: Listed, by_role: bool, modality: Modality, where: str) -> list[Warned]:
    """Say where the choice rests on a description only, and where the tags contradict the role."""
    if modality in _ANY_ROLE:
        return []
    if by_role and one.role is Modality.OTHER and one.described is not Modality.OTHER:
        text_ = f"that this is {modality.value} is known from the series description only"
        return [Warned("MX-DCM-112", text_, where, "check it in a viewer")]
    said = one.role
    pairs = {(Modality.CBCT, Modality.CT), (Modality.T1CE, Modality.T1)}  # tags often leave the agent out
    if said in {modality, Modality.OTHER} or (modality, said) in pairs:
        other = one.facts.acquisition.sequence if said is Modality.OTHER and one.facts.acquisition.sequence else ""
        if not other:
            return []
        said_text = other
    else:
        said_text = said.value
    text_ = f"given as {modality.value}, but its tags say {said_text}"
    return [Warned("MX-DCM-113", text_, where, "check that the sources are not swapped")]
