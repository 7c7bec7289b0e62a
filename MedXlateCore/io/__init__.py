"""Reading and writing volumes: NIfTI (``.nii``, ``.nii.gz``, ``.hdr``/``.img``), MetaImage, NRRD; reading DICOM.

A new format is one module beside ``nifti`` and one line in ``_READERS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.errors import InputError, ResourceError, UsageError
from MedXlateCore.files import (
    atomic_write,
    atomic_write_together,
    check_writable,
    json_text,
    path_lock,
    read_json,
    refuse_same_file,
    remove_stale_temporaries,
    require_file,
    sha256_file,
    shown,
)
from MedXlateCore.io.dicom_read import dicom_sha256, is_dicom_source, read_dicom, split_choice
from MedXlateCore.io.images import read_image, refuse_shear, write_image
from MedXlateCore.io.nifti import read_nifti, write_nifti
from MedXlateCore.io.voxels import voxels
from MedXlateCore.paths import refuse_bad_name
from MedXlateCore.volume import Geometry, Modality, Volume

__all__ = [
    "check_input_format",
    "check_output",
    "check_output_format",
    "read_record",
    "read_volume",
    "require_volume",
    "sidecar_path",
    "source_sha256",
    "synthetic_remark",
    "write_volume",
]

_READERS: dict[str, Callable[[Path, Modality, int | None], Volume]] = {
    ".nii.gz": read_nifti,
    ".nii": read_nifti,
    ".hdr": read_nifti,
    ".img": read_nifti,
    ".mha": read_image,
    ".mhd": read_image,
    ".nrrd": read_image,
    ".nhdr": read_image,
    ".dcm": read_dicom,
    ".dicom": read_dicom,
    ".ima": read_dicom,
}
_DICOM = ".dcm"
_READERS_OF_ONE_FILE = frozenset({".nii.gz", ".nii", ".mha", ".nrrd"})
_WRITERS: dict[str, Callable[[NDArray, Geometry, Path, str], None]] = {
    ".nii.gz": write_nifti,
    ".nii": write_nifti,
    ".mha": write_image,
    ".nrrd": write_image,
}
_ADVICE = {
    ".png .jpg .jpeg .bmp .gif .tif .tiff .webp": "a picture has no position in the patient: give the original volume",
    ".npy .npz .mat .h5 .hdf5 .pt .pth .pkl": "an array has no place in the patient: save it as NIfTI with its affine",
    ".mgz .mgh": "convert it with FreeSurfer: mri_convert file.mgz file.nii.gz",
    ".mnc": "convert it with mnc2nii",
    ".zip .tar .tgz .7z .rar .gz .bz2 .xz": "unpack the archive first",
}  # fmt: skip
_OUTPUT_KEY = "output_file"
_LOCK_TIMEOUT_S = 30.0


# --- reading -------------------------------------------------------------------------------------------------------


def read_volume(path: Path | str, modality: Modality | str | None = None, frame: int | None = None) -> Volume:
    """Read a volume from a file, by its suffix.

    Args:
        path: ``.nii``, ``.nii.gz``, ``.hdr``/``.img``, ``.mha``, ``.mhd``, ``.nrrd`` or ``.nhdr``; a DICOM file, a
            folder of DICOM files, or ``DIR#NAME`` (see :mod:`MedXlateCore.io.dicom_read`).
        modality: what it shows (name or alias). Images become float32; a label map keeps its integers. Of a DICOM
            folder with several volumes it chooses the only one of this role.
        frame: which frame of a 4D file, counted from 0.

    Returns:
        The volume ``[I, J, K]`` on the file's own grid in RAS mm, read-only, in the file's index order (first index
        fastest in memory). ``notes`` holds what had to be assumed or repaired; ``synthetic`` is True if the header
        says SYNTHETIC; ``source.sha256`` is the hash of the file's bytes (of header and data where they are two).

    Raises:
        UsageError: ``MX-USE-010``, unknown modality.
        InputError: the file cannot be used; the formats' modules list the codes.
        ResourceError: ``MX-FIL-005`` (no permission), ``MX-FIL-009`` (not enough memory), ``MX-DCM-021`` (codec).
    """
    kind = Modality.OTHER if modality is None else Modality.parse(modality)
    suffix = check_input_format(path)
    try:
        return _READERS[suffix](Path(path), kind, frame)
    except MemoryError as error:
        raise ResourceError(
            "MX-FIL-009",
            "there is not enough memory to read the file",
            expected="memory for the whole volume",
            where=shown(path),
            fix="close other programs, or crop the image",
        ) from error


def check_input_format(path: Path | str) -> str:
    """Check that a file exists and has a known format, and return its suffix in lower case; ``.dcm`` for all DICOM.

    Raises:
        InputError: ``MX-FIL-001`` to ``003`` and ``007`` (no usable file), ``MX-FIL-040`` (format not known).
        ResourceError: ``MX-FIL-005``.
    """
    require_volume(path)
    suffix = _suffix(Path(path), _READERS)
    if suffix is None or Path(path).is_dir() or split_choice(path)[1]:
        suffix = _DICOM if is_dicom_source(path) else None
    if suffix is not None:
        return _DICOM if _READERS[suffix] is read_dicom else suffix
    found = Path(path).suffix.lower()
    advice = next((text for suffixes, text in _ADVICE.items() if found and found in suffixes.split()), "")
    raise InputError(
        "MX-FIL-040",
        f"the format '{shown(found)}' cannot be read",
        expected=f"one of {', '.join(_READERS)}, or a folder of DICOM files",
        where=shown(path),
        fix=advice or "convert the image to .nii.gz, for example with 3D Slicer",
    )


def require_volume(path: Path | str) -> None:
    """Check that there is a regular, non-empty file, or a folder, which may hold DICOM files.

    Raises:
        InputError: ``MX-FIL-001`` to ``003`` and ``007``.
        ResourceError: ``MX-FIL-005``.
    """
    refuse_bad_name(path)
    place, _ = split_choice(path)
    try:
        is_folder = place.is_dir()
    except OSError:  # a name that is too long, a folder that may not be looked into: said below
        is_folder = False
    if not is_folder:
        require_file(place)


def source_sha256(path: Path | str, modality: Modality | str | None = None) -> str:
    """Return the hash that :func:`read_volume` gives to the volume there, without decoding it. Raises alike."""
    suffix = check_input_format(path)
    if suffix in _READERS_OF_ONE_FILE:
        return sha256_file(path)
    if suffix == _DICOM:
        return dicom_sha256(Path(path), Modality.OTHER if modality is None else Modality.parse(modality))
    return read_volume(path, modality).source.sha256


def _suffix(path: Path, known: Mapping[str, object]) -> str | None:
    name = path.name.lower()
    return next((suffix for suffix in known if name.endswith(suffix)), None)


# --- writing -------------------------------------------------------------------------------------------------------


def write_volume(volume: Volume, path: Path | str, record: Mapping[str, Any] | None = None) -> list[Path]:
    """Write a volume, and beside it the record of how it was made.

    Images are written as float32, label maps as uint8, int16 or int32. The header of a synthetic volume says
    ``SYNTHETIC <modality> MedXlate; research use only``. Both files are complete before either appears, and the
    record appears first: an interruption never leaves an image without a record. The record gains the key
    ``output_file`` with the image's name, size and SHA-256, so that a record of an earlier image is told apart.

    Args:
        volume: what to write.
        path: ``.nii.gz``, ``.nii``, ``.mha`` or ``.nrrd``. (``.mhd`` and ``.nhdr`` are two files, which cannot
            appear at once, and are only read.)
        record: JSON-able facts for ``<stem>.json``; None for no such file.

    Returns:
        The files written, the image first.

    Raises:
        UsageError: ``MX-FIL-018`` (a file that is not ours has the record's name), ``MX-FIL-019`` (format).
        InputError: ``MX-GEO-014`` (a sheared grid into MetaImage or NRRD), ``MX-IMG-015``, ``MX-ROI-001``/``002``.
        ResourceError: ``MX-FIL-010`` to ``013``, ``015``, ``016`` as in :mod:`MedXlateCore.files`.
    """
    path = Path(path)
    suffix = check_output(path, with_record=record is not None, geometry=volume.geometry)
    array = _to_store(volume, path)
    remark = synthetic_remark(volume.modality) if volume.synthetic else ""
    write, sidecar = _WRITERS[suffix], sidecar_path(path)
    with path_lock(path, _LOCK_TIMEOUT_S):
        remove_stale_temporaries(path.parent)
        if record is None:
            with atomic_write(path) as image:
                write(array, volume.geometry, image, remark)
                if _described_file(sidecar) == path.name:
                    sidecar.unlink()  # it describes the image that is being replaced
            return [path]
        with atomic_write_together(sidecar, path) as (text, image):
            write(array, volume.geometry, image, remark)
            facts = {"name": path.name, "bytes": image.stat().st_size, "sha256": sha256_file(image)}
            text.write_text(json_text({**record, _OUTPUT_KEY: facts}), encoding="utf-8", newline="\n")
    return [path, sidecar]


def check_output(
    path: Path | str,
    inputs: Sequence[Path | str] = (),
    with_record: bool = True,
    geometry: Geometry | None = None,
    needed_bytes: int = 0,
) -> str:
    """Check, before any computing, that a volume can be written to ``path``, and return the suffix.

    Args:
        path: the output.
        inputs: files that must not be overwritten.
        with_record: whether ``<stem>.json`` will be written too.
        geometry: the output's grid, where known, to refuse formats that cannot hold it.
        needed_bytes: expected size of the file.

    Raises:
        As :func:`write_volume`, and UsageError ``MX-FIL-014`` (the output is an input).
    """
    path = Path(path)
    suffix = check_output_format(path)
    sidecar = sidecar_path(path)
    refuse_same_file(path, inputs)
    check_writable(path, needed_bytes)
    if geometry is not None and _WRITERS[suffix] is write_image:
        refuse_shear(geometry, path)
    if with_record:
        refuse_same_file(sidecar, inputs)
        check_writable(sidecar)
        _refuse_foreign_sidecar(sidecar, path)
    return suffix


def check_output_format(path: Path | str) -> str:
    """Check that a volume can be written under this suffix, and return it in lower case.

    Raises:
        UsageError: ``MX-FIL-019``.
    """
    path = Path(path)
    suffix = _suffix(path, _WRITERS)
    if suffix is None:
        raise UsageError(
            "MX-FIL-019",
            f"the output format '{shown(path.suffix)}' cannot be written",
            expected=f"one of {', '.join(_WRITERS)}",
            where=shown(path),
            fix="name the output .nii.gz (or .mha instead of .mhd, .nrrd instead of .nhdr: one complete file)",
        )
    return suffix


def sidecar_path(path: Path | str) -> Path:
    """Return the path of the record beside a volume: ``<stem>.json``."""
    path = Path(path)
    suffix = _suffix(path, _READERS) or path.suffix
    return path.parent / (path.name[: len(path.name) - len(suffix)] + ".json")


def read_record(path: Path | str) -> dict[str, Any] | None:
    """Return the record beside a volume if it describes the file as it is (by SHA-256); otherwise None."""
    try:
        record = read_json(sidecar_path(path))
        facts = record.get(_OUTPUT_KEY) if isinstance(record, dict) else None
        described = isinstance(facts, dict) and facts.get("sha256") == sha256_file(path)
    except (InputError, ResourceError):
        return None
    return record if described else None


def synthetic_remark(modality: Modality) -> str:
    """Return the text that marks a synthetic volume in its header (at most 79 characters)."""
    return f"SYNTHETIC {modality.value} MedXlate; research use only"


def _to_store(volume: Volume, path: Path) -> NDArray:
    array = volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array
    stored, _ = voxels(array, volume.modality, 1.0, 0.0, shown(path))
    if volume.modality is not Modality.LABEL or stored.dtype == np.uint8:
        return stored
    narrow, _ = voxels(stored.astype(np.float64), Modality.LABEL, 1.0, 0.0, shown(path))
    return narrow


def _described_file(sidecar: Path) -> str | None:
    """Return the name of the image that an existing record describes; None if it is no record of ours."""
    try:
        record = read_json(sidecar)
    except (InputError, ResourceError):
        return None
    facts = record.get(_OUTPUT_KEY) if isinstance(record, dict) else None
    return str(facts["name"]) if isinstance(facts, dict) and "name" in facts else None


def _refuse_foreign_sidecar(sidecar: Path, path: Path) -> None:
    described = _described_file(sidecar)
    ours = described == path.name or (described is not None and not sidecar.with_name(described).exists())
    if sidecar.exists() and not ours:
        whose = "is the record of another image" if described else "was not written by MedXlate"
        raise UsageError(
            "MX-FIL-018",
            f"'{shown(sidecar.name)}' exists and {whose}",
            expected="a free name for the record beside the output",
            where=shown(sidecar),
            fix="choose another output name",
        )
