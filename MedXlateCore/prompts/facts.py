"""Facts about the acquisition of files, wherever they are written: sidecars of NIfTI files, DICOM attributes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.errors import InputError
from MedXlateCore.files import read_json
from MedXlateCore.io import sidecar_path
from MedXlateCore.io.bids import facts_from_sidecar
from MedXlateCore.io.dicom_read import list_stacks, split_choice
from MedXlateCore.paths import require_file, shown
from MedXlateCore.prompts.acquisition_text import describe, misfits, with_modality

__all__ = ["Known", "check_facts", "facts_of", "known_facts", "text_like"]

_NIFTI = (".nii", ".nii.gz")


@dataclass(frozen=True)
class Known:
    """An image, by the name under which it can be read, and what is known about its acquisition."""

    name: str
    facts: Acquisition


def facts_of(path: Path | str) -> Acquisition:
    """Return what is known about the acquisition of one image.

    Args:
        path: a NIfTI file with its sidecar, a DICOM file, folder or ``DIR#NAME``.

    Raises:
        InputError: ``MX-TXT-020`` (nothing is known), ``MX-TXT-021`` (a folder with several images), or what reading
            raises (``MX-FIL-*``).
    """
    found = known_facts(path)
    if len(found) > 1:
        raise InputError(
            "MX-TXT-021",
            f"there are {len(found)} images: {', '.join(known.name for known in found[:8])}",
            expected="one image",
            where=shown(path),
            fix="name one of them",
        )
    return found[0].facts


def known_facts(path: Path | str) -> tuple[Known, ...]:
    """Return what is known about the acquisition of an image, or of every image in a folder.

    Images of a folder about which nothing is known are left out.

    Raises:
        InputError: ``MX-TXT-020``, nothing is known; or what reading raises (``MX-FIL-*``).
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if _is_nifti(file) and file.is_file())
        found = [Known(str(file), _nifti(file)) for file in files] or _dicom(path)
    elif _is_nifti(path):
        require_file(path)
        found = [Known(str(path), _nifti(path))]
    else:
        found = _dicom(path)
    known = tuple(one for one in found if one.facts != Acquisition())
    if known:
        return known
    raise _unknown(shown(path))


def check_facts(facts: Acquisition, where: str) -> None:
    """Check the facts of an image that a target is to be like.

    Args:
        facts: of that image.
        where: its name, for errors.

    Raises:
        InputError: ``MX-TXT-020`` (nothing is known), ``MX-TXT-022`` (the facts contradict each other).
    """
    if facts == Acquisition():
        raise _unknown(where)
    if wrong := misfits(facts):
        raise InputError(
            "MX-TXT-022",
            f"the facts contradict each other: {facts.modality} with {', '.join(wrong)}",
            expected=f"facts that {facts.modality} has",
            where=where,
            fix="correct its sidecar, or describe the target in words",
        )


def text_like(path: Path | str) -> str:
    """Return the text that leads to the same image as the facts of a reference, for people to read and to change.

    The plane is left out: volumes are made from axial slices, whatever the reference's plane.

    Args:
        path: as for :func:`facts_of`.

    Raises:
        InputError: as :func:`facts_of` and :func:`check_facts`.
    """
    facts = facts_of(path)
    check_facts(facts, shown(path))
    return describe(with_modality(facts).with_facts(plane=None))


def _unknown(where: str) -> InputError:
    return InputError(
        "MX-TXT-020",
        "nothing is known about how this was acquired",
        expected="a sidecar .json beside a NIfTI file, a BIDS name such as sub-01_T1w.nii.gz, or DICOM attributes",
        where=where,
        fix="convert from DICOM with dcm2niix, which writes sidecars, or describe the image in words",
    )


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith(_NIFTI)


def _nifti(path: Path) -> Acquisition:
    sidecar = sidecar_path(path)
    content = read_json(sidecar) if sidecar.is_file() else {}
    facts, _ = facts_from_sidecar(content if isinstance(content, dict) else {}, path.name)
    return facts


def _dicom(path: Path) -> list[Known]:
    folder, choice = split_choice(path)
    if not folder.is_dir():
        require_file(folder)
    return [
        Known(f"{folder}#{one.stack.name}", one.facts.acquisition)
        for one in list_stacks(path)[0]
        if not choice or one.stack.name == choice
    ]
