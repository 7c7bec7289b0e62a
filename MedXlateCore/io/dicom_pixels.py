"""Voxels of DICOM frames: decoding, bits, rescaling (DICOM PS3.3, C.7.6.3 and C.11.1; PS3.5, section 8).

Each file is read once; what is hashed is what is decoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.errors import InputError, ResourceError, Warned
from MedXlateCore.files import read_bytes, shown
from MedXlateCore.io.compressed import refuse_absurd_size, short_data
from MedXlateCore.io.dicom_files import Frame, open_dataset
from MedXlateCore.io.dicom_tags import FrameTags, element_value, number, reading_errors, text
from MedXlateCore.io.nifti import MAX_VOLUME_BYTES
from MedXlateCore.io.voxels import voxels
from MedXlateCore.volume import Modality

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

__all__ = ["Pixels", "hash_of_files", "read_pixels"]

_CODECS = (
    ("1.2.840.10008.1.2.4.20", "pylibjpeg pylibjpeg-openjpeg"),  # high-throughput JPEG 2000: .201 to .203
    ("1.2.840.10008.1.2.4.9", "pylibjpeg pylibjpeg-openjpeg"),  # JPEG 2000: .90, .91
    ("1.2.840.10008.1.2.4.8", "pyjpegls"),  # JPEG-LS: .80, .81
    ("1.2.840.10008.1.2.4.", "pylibjpeg pylibjpeg-libjpeg"),  # JPEG: .50, .51, .57, .70
)
"""What decodes a family of transfer syntaxes, by the beginning of its UID."""


@dataclass(frozen=True)
class Pixels:
    """What the files of a stack hold.

    Attributes:
        array: voxels ``[I, J, K]``, scaled; float32 for images.
        sha256: of the one file, or of the files' hashes in order of slices.
        synthetic: True where a file says so (0008,001C).
        notes: recorded warnings.
    """

    array: NDArray
    sha256: str
    synthetic: bool
    notes: tuple[Warned, ...]


@dataclass(frozen=True)
class _Slice:
    stored: NDArray  # [rows, columns]
    slope: float
    intercept: float
    inverted: bool


def hash_of_files(hashes: Sequence[str]) -> str:
    """Return the hash that stands for a stack: the file's own, or that of the hashes of several, one a line."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode("ascii")).hexdigest()


def read_pixels(frames: Sequence[Frame], modality: Modality, where: str) -> Pixels:
    """Decode the frames of a stack, in the order given.

    Args:
        frames: slices of one matrix, in order along the third axis.
        modality: a label map keeps integers.
        where: folder or file for messages.

    Raises:
        InputError: ``MX-DCM-020`` (no voxels, or attributes that contradict each other), ``MX-DCM-022`` (a way of
            compression that nothing decodes), ``MX-DCM-023`` (the compressed voxels are damaged), ``MX-DCM-024``
            (scale factors), ``MX-FIL-034``, ``MX-FIL-035``, ``MX-FIL-045`` (size), as in ``voxels``.
        ResourceError: ``MX-DCM-021``, a codec is not installed.
    """
    rows, columns = frames[0].size
    refuse_absurd_size(4 * rows * columns * len(frames), MAX_VOLUME_BYTES, MAX_VOLUME_BYTES, where, packed=False)
    slices: dict[int, _Slice] = {}
    hashes: list[str] = []
    synthetic, unit = False, ""
    by_path: dict[Path, list[int]] = {}
    for k, frame in enumerate(frames):
        by_path.setdefault(frame.header.path, []).append(k)
    for path, members in by_path.items():
        data = read_bytes(path, MAX_VOLUME_BYTES)
        hashes.append(hashlib.sha256(data).hexdigest())
        dataset = _opened(data, path)
        synthetic = synthetic or text(dataset, "SyntheticData").upper() == "YES"
        unit = unit or text(dataset, "Units").upper()
        wanted = [frames[k].index for k in members]
        for k, piece in zip(members, _slices(dataset, wanted, frames[0].size, path), strict=True):
            slices[k] = piece
    array, notes = _joined([slices[k] for k in range(len(frames))], modality, where)
    if slices[0].inverted:
        keep = modality is Modality.LABEL or frames[0].header.modality in {"CT", "PT"}
        array, note = _turned(array, keep, where)
        notes.append(note)
    if frames[0].header.modality == "PT" and unit != "GML":
        text_ = f"the PET values are in '{unit or 'an unknown unit'}', not in SUV (GML)"
        notes.append(Warned("MX-DCM-110", text_, where, "convert them to body-weight SUV before use"))
    if array.shape != (columns, rows, len(frames)):
        raise _contradiction(f"slices of {array.shape[1]} rows and {array.shape[0]} columns", where)
    return Pixels(array, hash_of_files(hashes), synthetic, tuple(notes))


def _opened(data: bytes, path: Path) -> Dataset:
    try:
        return open_dataset(data, header_only=False)
    except reading_errors() as error:  # the header could be read: what follows cannot
        raise InputError(
            "MX-DCM-004",
            f"the file cannot be read as DICOM ({type(error).__name__})",
            expected="a complete DICOM file",
            where=shown(path),
            fix="copy or export it again",
        ) from error


def _slices(dataset: Dataset, wanted: list[int], size: tuple[int, int], path: Path) -> Iterator[_Slice]:
    where = shown(path)
    _check_pixels(dataset, size, where)
    inverted = text(dataset, "PhotometricInterpretation").upper() == "MONOCHROME1"
    if element_value(dataset, "ModalityLUTSequence") is not None:
        raise _bad_scale("a lookup table (Modality LUT)", where)
    stored = _decoded(dataset, wanted, where)
    for index, array in zip(wanted, stored, strict=True):
        slope, intercept = _scale(dataset, index, where)
        yield _Slice(_significant_bits(array, dataset), slope, intercept, inverted)


def _check_pixels(dataset: Dataset, size: tuple[int, int], where: str) -> None:
    """Check that there are voxels and that header and data agree, before anything is decoded."""
    data = element_value(dataset, "PixelData")
    allocated, bits = int(number(dataset, "BitsAllocated") or 0), int(number(dataset, "BitsStored") or 0)
    if data is None:
        raise _contradiction("no voxels (Pixel Data)", where)
    if allocated not in {8, 16, 32} or not 1 <= bits <= allocated:
        raise _contradiction(f"{bits} bits stored in {allocated}", where)
    if text(dataset, "PixelRepresentation") not in {"0", "1"}:
        raise _contradiction("no Pixel Representation (signed or not)", where)
    if not text(dataset, "PhotometricInterpretation").upper().startswith("MONOCHROME"):
        raise _contradiction(f"the kind '{text(dataset, 'PhotometricInterpretation')}'", where)
    frames = int(number(dataset, "NumberOfFrames") or 1)
    expected = frames * size[0] * size[1] * allocated // 8
    _check_codec(dataset, where)
    packed = _syntax(dataset).is_encapsulated  # an empty slice packs to next to nothing
    refuse_absurd_size(expected, expected if packed else len(data), MAX_VOLUME_BYTES, where, packed=False)
    if not packed and len(data) >= expected + expected // frames:
        raise InputError(
            "MX-FIL-045",
            f"the file holds {len(data) - expected} bytes more than its header announces",
            expected=f"{expected} bytes of voxels",
            where=where,
            fix="the header or the data is wrong; export the file again",
        )


def _contradiction(found: str, where: str) -> InputError:
    return InputError(
        "MX-DCM-020",
        f"the image has {found}",
        expected="grey values with rows, columns, bits and sign described, as DICOM wants",
        where=where,
        fix="export the series again; this image is damaged or incomplete",
    )


def _decoded(dataset: Dataset, wanted: list[int], where: str) -> list[NDArray]:
    from pydicom.pixels import iter_pixels

    try:
        return [np.asarray(array) for array in iter_pixels(dataset, indices=wanted, raw=True)]
    except reading_errors() as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        if "pixel data" in reason and "less than" in reason:
            raise short_data(reason, len(dataset.PixelData), where) from error
        raise InputError(
            "MX-DCM-023",
            f"the voxels cannot be decoded ({shown(reason)})",
            expected=f"sound voxels in {_syntax(dataset).name}",
            where=where,
            fix=f"copy or export the file again; if others read it: pip install {_packages(dataset)}",
        ) from error


def _check_codec(dataset: Dataset, where: str) -> None:
    from pydicom.pixels import get_decoder

    syntax = _syntax(dataset)
    name = syntax.name if syntax.name != str(syntax) else f"transfer syntax {shown(str(syntax)[:64])}"
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError as error:
        raise InputError(
            "MX-DCM-022",
            f"the voxels are stored as {name}",
            expected="uncompressed voxels, or JPEG, JPEG-LS, JPEG 2000 or RLE",
            where=where,
            fix="export the series again, uncompressed",
        ) from error
    if not available:
        packages = _packages(dataset)
        raise ResourceError(
            "MX-DCM-021",
            f"the voxels are compressed ({name}), and no codec for that is installed",
            expected=f"one of the Python packages {packages.split()[-1]} and python-gdcm",
            where=where,
            fix=f"pip install {packages} (in 3D Slicer: PythonSlicer -m pip install {packages}), "
            "or export the series uncompressed",
        )


def _syntax(dataset: Dataset) -> UID:
    """Return the transfer syntax; whatever else stands there, as a UID that nobody knows."""
    from pydicom.uid import UID

    return UID(text(dataset.file_meta, "TransferSyntaxUID"))


def _packages(dataset: Dataset) -> str:
    syntax = str(_syntax(dataset))
    return next((packages for start, packages in _CODECS if syntax.startswith(start)), "python-gdcm")


def _significant_bits(array: NDArray, dataset: Dataset) -> NDArray:
    """Return the stored numbers without foreign bits around them (old overlays), the sign in its place."""
    allocated = 8 * array.dtype.itemsize
    bits = int(number(dataset, "BitsStored") or allocated)
    high = number(dataset, "HighBit")
    high = bits - 1 if high is None or not bits - 1 <= high < allocated else int(high)
    signed = text(dataset, "PixelRepresentation") == "1"
    native = array.astype(np.dtype(f"{'i' if signed else 'u'}{array.dtype.itemsize}"), copy=False)
    if bits == allocated:
        return native
    return (native << (allocated - 1 - high)) >> (allocated - bits)


def _scale(dataset: Dataset, index: int, where: str) -> tuple[float, float]:
    """Return slope and intercept of a frame; 1 and 0 where the file gives none."""
    tags = FrameTags(dataset, index)
    found = []
    for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        holder = tags.group("PixelValueTransformationSequence", keyword)
        value = number(holder, keyword)
        if value is None and not _is_blank(holder, keyword):
            raise _bad_scale(f"a {keyword} that is no finite number", where)
        found.append(default if value is None else value)
    if found[0] == 0.0:
        raise _bad_scale(f"the RescaleSlope {found[0]:g}", where)
    return found[0], found[1]


def _is_blank(dataset: Dataset, keyword: str) -> bool:
    """Say whether an attribute is absent or empty, whatever its value would be read as."""
    if keyword not in dataset:
        return True
    value = getattr(dataset.get_item(keyword), "value", None)
    return value is None or not (value.strip(b" \0") if isinstance(value, bytes) else str(value).strip())


def _bad_scale(found: str, where: str) -> InputError:
    return InputError(
        "MX-DCM-024",
        f"the image has {found}",
        expected="a finite slope that is not 0, and a finite intercept",
        where=where,
        fix="export the series again; the numbers have no meaning without their scale",
    )


def _joined(slices: list[_Slice], modality: Modality, where: str) -> tuple[NDArray, list[Warned]]:
    """Stack the slices ``[I, J, K]`` in file index order, scale them, and turn inverted images round."""
    shapes = {piece.stored.shape for piece in slices}
    if len(shapes) > 1 or len({piece.inverted for piece in slices}) > 1:
        raise _contradiction("slices of several sizes or kinds", where)
    rows, columns = slices[0].stored.shape
    scales = {(piece.slope, piece.intercept) for piece in slices}
    one_scale = len(scales) == 1
    dtype = np.result_type(*(piece.stored.dtype for piece in slices)) if one_scale else np.float64
    stored = np.empty((columns, rows, len(slices)), dtype, order="F")
    for k, piece in enumerate(slices):
        stored[:, :, k] = piece.stored.T if one_scale else piece.stored.T * piece.slope + piece.intercept
    slope, intercept = next(iter(scales)) if one_scale else (1.0, 0.0)
    return voxels(stored, modality, slope, intercept, where)


def _turned(array: NDArray, keep: bool, where: str) -> tuple[NDArray, Warned]:
    """Turn an inverted image round, so that bright is bright; ``keep`` for numbers with a unit, and for labels."""
    if keep:
        text_ = "the image is stored for inverted display (MONOCHROME1); the values were taken as they are"
        return array, Warned("MX-DCM-108", text_, where)
    text_ = "the image is stored inverted (MONOCHROME1); the values were turned round between their limits"
    return (array.min() + array.max()) - array, Warned("MX-DCM-108", text_, where, "check it in a viewer")
