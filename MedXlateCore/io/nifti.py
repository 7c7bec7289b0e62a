"""NIfTI-1 and NIfTI-2: strict reading, atomic writing.

Source: NIfTI-1.1 header (nifti1.h, R. W. Cox 2003) and NIfTI-2 (2011). nibabel interprets the header's fields (sform,
qform quaternion); the bytes are checked and read here, because nibabel accepts damaged checksums, NaN and zero-column
affines, dimensions of 0 and headers that announce terabytes.

What uncompressed ``.nii`` cannot offer: it has no checksum, so changed voxels go unnoticed there. Use ``.nii.gz``.
"""

from __future__ import annotations

import gzip
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.errors import InputError, Warned
from MedXlateCore.files import read_bytes, require_file, shown
from MedXlateCore.io.compressed import inflate, inflate_prefix, refuse_absurd_size, short_data
from MedXlateCore.io.voxels import frame_index, make_geometry, several_channels, voxels
from MedXlateCore.volume import Geometry, Modality, Source, Volume

__all__ = ["MAX_VOLUME_BYTES", "encode_nifti", "read_nifti", "write_nifti"]

MAX_VOLUME_BYTES = 2**33
"""Files that announce more than this are refused before anything is allocated."""

TRAILING_LIMIT_BYTES = 4096
"""Writers pad files to blocks: up to this much after the last voxel is ignored with a warning, more is an error."""

AFFINE_TOLERANCE_MM = 1e-3

_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_COLOUR = {128, 2304}
_UNIT_MM = {1: 1000.0, 3: 0.001}


@dataclass(frozen=True)
class _Header:
    """The checked facts of a NIfTI header; ``fields`` is nibabel's header object."""

    fields: Any
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    slope: float
    intercept: float
    in_pair: bool

    @property
    def end(self) -> int:
        """Offset just behind the last voxel, bytes."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


# --- reading -------------------------------------------------------------------------------------------------------


def read_nifti(path: Path, modality: Modality = Modality.OTHER, frame: int | None = None) -> Volume:
    """Read ``.nii``, ``.nii.gz`` or a ``.hdr``/``.img`` pair.

    The sform is used if its code is above 0, else the qform, else the voxel sizes (with a recorded warning). 2D images
    become one slice. Values are scaled by ``scl_slope`` and ``scl_inter``. The array keeps the file's index order.

    Args:
        path: the file (either one of a pair).
        modality: what it shows; a label map keeps integers.
        frame: which frame of a 4D file.

    Raises:
        InputError: ``MX-FIL-001`` to ``008`` (the file), ``030``/``031`` (damaged gzip), ``032`` (not NIfTI), ``033``
            (impossible header), ``034``/``045`` (too short, too long), ``035`` (too large), ``036``/``046`` (voxel
            type), ``037`` (scale factors), ``038``/``039`` (frames), ``042`` (pair incomplete), ``MX-GEO-001`` to
            ``003`` and ``012`` (geometry), ``MX-IMG-015``, ``MX-ROI-001``/``002`` (values).
    """
    where = shown(path)
    if path.suffix.lower() in {".hdr", ".img"}:
        return _read_pair(path, modality, frame)
    blob = read_bytes(path, MAX_VOLUME_BYTES)
    packed = path.name.lower().endswith(".gz")
    _refuse_wrong_packing(blob, packed, where)
    head = inflate_prefix(blob, 540, where) if packed else blob[:540]
    header = _parse_header(head, where)
    if header.in_pair:
        raise _impossible("it is the header of a .hdr/.img pair", "a single-file NIfTI", where)
    refuse_absurd_size(header.end, len(blob), MAX_VOLUME_BYTES, where, packed)
    data, notes = inflate(blob, header.end + TRAILING_LIMIT_BYTES, where) if packed else (blob, [])
    notes += _check_length(len(data), header, where)
    source = Source(path.name, path, hashlib.sha256(blob).hexdigest())
    return _volume(data, header, source, modality, frame, notes)


def _read_pair(path: Path, modality: Modality, frame: int | None) -> Volume:
    header_path, data_path = (_partner(path, suffix) for suffix in (".hdr", ".img"))
    head = read_bytes(header_path, MAX_VOLUME_BYTES)
    header = _parse_header(head[:540], shown(header_path))
    where = shown(data_path)
    try:
        size = require_file(data_path)
    except InputError as error:
        raise InputError(
            "MX-FIL-042",
            "the header's image file is missing or empty",
            expected=f"the file '{shown(data_path.name)}' beside the header",
            where=shown(header_path),
            fix="keep the .hdr and .img files together",
        ) from error
    refuse_absurd_size(header.end, size, MAX_VOLUME_BYTES, where, packed=False)
    data = read_bytes(data_path, MAX_VOLUME_BYTES)
    notes = _check_length(len(data), header, where)
    source = Source(path.name, path, hashlib.sha256(head + data).hexdigest())
    return _volume(data, header, source, modality, frame, notes)


def _partner(path: Path, suffix: str) -> Path:
    if path.suffix.lower() == suffix:
        return path
    return path.with_suffix(suffix.upper() if path.suffix.isupper() else suffix)


def _refuse_wrong_packing(blob: bytes, packed: bool, where: str) -> None:
    is_gzip = blob[:2] == b"\x1f\x8b"
    if is_gzip and not packed:
        raise _not_nifti("the file is compressed but named .nii", where, "rename it to .nii.gz")
    if packed and not is_gzip and _byte_order(blob) is not None:
        raise _not_nifti("the file is not compressed but named .nii.gz", where, "rename it to .nii")


def _byte_order(head: bytes) -> tuple[str, int] | None:
    """Return byte order and NIfTI version from the header's own size field, or None."""
    for order, name in (("<", "little"), (">", "big")):
        size = int.from_bytes(head[:4], name, signed=True)  # type: ignore[arg-type]
        if size in (348, 540):
            return order, 1 if size == 348 else 2
    return None


def _parse_header(head: bytes, where: str) -> _Header:
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    found = _byte_order(head)
    if found is None:
        raise _not_nifti("the file does not begin with a NIfTI header", where, "check that this is the right file")
    order, version = found
    size = 348 if version == 1 else 540
    if len(head) < size:
        raise short_data(f"{len(head)} bytes", size, where)
    magic = head[344:348] if version == 1 else head[4:12]
    singles, pairs = ({b"n+1\0"}, {b"ni1\0"}) if version == 1 else ({b"n+2\0\r\n\x1a\n"}, {b"ni2\0\r\n\x1a\n"})
    if magic not in singles | pairs:
        what = "an ANALYZE 7.5 header, which does not say where left and right are" if version == 1 else "no NIfTI-2"
        raise _not_nifti(f"the magic bytes are {magic!r}: {what}", where, "convert the image to NIfTI with its origin")
    fields = (Nifti1Header if version == 1 else Nifti2Header)(head[:size], endianness=order, check=False)
    return _check_header(fields, magic in pairs, size, where)


def _check_header(fields: Any, in_pair: bool, size: int, where: str) -> _Header:
    raw = fields.structarr
    dims = [int(n) for n in raw["dim"]]
    if not 2 <= dims[0] <= 7 or min(dims[1 : dims[0] + 1]) < 1:
        raise _impossible(f"dim is {dims}", "2 to 7 dimensions of at least one voxel", where)
    shape = tuple(dims[1 : dims[0] + 1])
    code = int(raw["datatype"])
    if code in _COLOUR:
        raise several_channels("a colour image", where)
    if code not in _TYPES:
        raise InputError(
            "MX-FIL-036",
            f"the voxel type has code {code}",
            expected=f"integers of 8 to 64 bits or floats of 32 or 64 bits (codes {sorted(_TYPES)})",
            where=where,
            fix="convert the image, for example to its magnitude as 32-bit float",
        )
    dtype = np.dtype(_TYPES[code]).newbyteorder(fields.endianness)
    if int(raw["bitpix"]) != dtype.itemsize * 8:
        raise _impossible(f"bitpix is {int(raw['bitpix'])}", f"{dtype.itemsize * 8} for voxel type {code}", where)
    offset = float(raw["vox_offset"])
    lowest = 0 if in_pair else size + 4
    if not (math.isfinite(offset) and offset == int(offset) and lowest <= offset <= MAX_VOLUME_BYTES):
        raise _impossible(f"vox_offset is {offset}", f"a whole number from {lowest}", where)
    codes = int(raw["sform_code"]), int(raw["qform_code"])
    if not all(0 <= code <= 5 for code in codes):  # programs disagree whether such a form counts
        raise _impossible(f"sform_code and qform_code are {codes}", "codes from 0 to 5", where)
    slope, intercept = _scale(float(raw["scl_slope"]), float(raw["scl_inter"]), where)
    return _Header(fields, (*shape, 1) if len(shape) == 2 else shape, dtype, int(offset), slope, intercept, in_pair)


def _scale(slope: float, intercept: float, where: str) -> tuple[float, float]:
    """Return slope and intercept; a slope of 0 or NaN means unscaled (nifti1.h; NaN by nibabel's usage)."""
    if slope == 0 or math.isnan(slope):
        return 1.0, 0.0
    if math.isinf(slope) or not math.isfinite(intercept):
        raise InputError(
            "MX-FIL-037",
            f"scl_slope is {slope} and scl_inter {intercept}",
            expected="finite scale factors",
            where=where,
            fix="export the image again, or repair its header",
        )
    return slope, intercept


def _check_length(length: int, header: _Header, where: str) -> list[Warned]:
    extra = length - header.end
    if extra < 0:
        raise short_data(f"{length} bytes", header.end, where)
    if extra > TRAILING_LIMIT_BYTES:
        raise InputError(
            "MX-FIL-045",
            f"the file holds {extra} bytes more than its header announces",
            expected=f"{header.end} bytes",
            where=where,
            fix="the header or the data is wrong; export the file again",
        )
    return [Warned("MX-FIL-050", f"{extra} bytes behind the last voxel were ignored", where)] if extra else []


def _volume(
    data: bytes | bytearray,
    header: _Header,
    source: Source,
    modality: Modality,
    frame: int | None,
    notes: list[Warned],
) -> Volume:
    where = shown(source.path or source.name)
    grid = header.shape[:3]
    count = math.prod(grid)
    start = header.offset + frame_index(header.shape, frame, where) * count * header.dtype.itemsize
    stored = np.frombuffer(data, header.dtype, count, start).reshape(grid, order="F")
    affine, remarks = _affine(header, where)
    geometry = make_geometry((grid[0], grid[1], grid[2]), affine, where)
    array, repairs = voxels(stored, modality, header.slope, header.intercept, where)
    synthetic = b"SYNTHETIC" in bytes(header.fields.structarr["descrip"].tobytes()).upper()
    return Volume(array, geometry, modality, source, synthetic, (*notes, *remarks, *repairs))


def _affine(header: _Header, where: str) -> tuple[NDArray[np.float64], list[Warned]]:
    """Choose the affine (sform before qform) in mm, and say what had to be assumed."""
    raw = header.fields.structarr
    notes: list[Warned] = []
    sform = header.fields.get_sform() if int(raw["sform_code"]) > 0 else None
    qform = _qform(header, where, required=sform is None) if int(raw["qform_code"]) > 0 else None
    chosen = sform if sform is not None else qform
    if chosen is None:
        chosen = _unoriented(header, where)
        text = "the file has neither sform nor qform: which side is left is a guess (first axis towards the left)"
        notes.append(Warned("MX-GEO-011", text, where, "check the orientation in a viewer"))
    affine = np.array(chosen, dtype=np.float64)
    notes += _give_thickness(affine, header, where)
    if sform is not None and int(raw["qform_code"]) > 0:
        notes += _compare_forms(affine, qform, header, where)
    unit = int(raw["xyzt_units"]) & 7
    if unit in _UNIT_MM:
        affine[:3] *= _UNIT_MM[unit]
        notes.append(Warned("MX-GEO-013", f"lengths were given in {'m' if unit == 1 else 'µm'}; now in mm", where))
    return affine, notes


def _qform(header: _Header, where: str, required: bool) -> NDArray[np.float64] | None:
    """Return the affine of the quaternion, or None if it is not usable and not required."""
    from nibabel.spatialimages import HeaderDataError

    fields = header.fields.copy()
    if header.shape[2] == 1 and not fields.structarr["pixdim"][3] > 0:
        fields.structarr["pixdim"][3] = 1.0
    sizes = fields.structarr["pixdim"][1:4]
    usable = bool(np.isfinite(sizes).all() and (sizes > 0).all())
    try:
        affine = np.asarray(fields.get_qform(), dtype=np.float64) if usable else None
    except (HeaderDataError, ValueError):
        affine = None
    if affine is not None and np.isfinite(affine).all():
        return affine
    if required:
        raise _no_sizes(header, where)
    return None


def _unoriented(header: _Header, where: str) -> NDArray[np.float64]:
    """Return the affine of nifti1.h method 1: voxel sizes only, first axis towards the left, centred."""
    sizes = np.array(header.fields.structarr["pixdim"][1:4], dtype=np.float64)
    if header.shape[2] == 1 and not sizes[2] > 0:
        sizes[2] = 1.0
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise _no_sizes(header, where)
    affine = np.diag([-sizes[0], sizes[1], sizes[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(header.shape[:3]) - 1) / 2)
    return affine


def _give_thickness(affine: NDArray[np.float64], header: _Header, where: str) -> list[Warned]:
    """Give a single slice without thickness one of 1 mm along its normal, in place."""
    flat = header.shape[2] == 1 and not affine[:3, 2].any()
    if not flat:
        return []
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    length = float(np.linalg.norm(normal))
    if not math.isfinite(length) or length == 0:
        return []  # Geometry reports the other two axes
    affine[:3, 2] = normal / length
    return [Warned("MX-GEO-015", "a single slice without thickness: 1 mm was assumed", where)]


def _compare_forms(
    affine: NDArray[np.float64], qform: NDArray[np.float64] | None, header: _Header, where: str
) -> list[Warned]:
    if qform is None:
        return [Warned("MX-GEO-010", "the qform is not usable; the sform was used", where)]
    shape = (header.shape[0], header.shape[1], header.shape[2])
    first, second = (make_geometry(shape, a, where) for a in (affine, qform))
    apart = float(np.linalg.norm(first.corners_ras() - second.corners_ras(), axis=1).max())
    if apart <= AFFINE_TOLERANCE_MM:
        return []
    text = f"sform and qform disagree by up to {apart:.3g} mm; the sform was used"
    return [Warned("MX-GEO-010", text, where, "check the position in a viewer if other programs use the qform")]


def _no_sizes(header: _Header, where: str) -> InputError:
    return InputError(
        "MX-GEO-012",
        f"the voxel sizes or the quaternion are not usable (pixdim {header.fields.structarr['pixdim'][:4].tolist()})",
        expected="finite voxel sizes above 0 mm and a unit quaternion",
        where=where,
        fix="repair the file's header (pixdim, quatern) or export it again",
    )


def _not_nifti(found: str, where: str, fix: str) -> InputError:
    return InputError("MX-FIL-032", found, expected="a NIfTI-1 or NIfTI-2 file", where=where, fix=fix)


def _impossible(found: str, expected: str, where: str) -> InputError:
    return InputError(
        "MX-FIL-033",
        f"the header is not usable: {found}",
        expected=expected,
        where=where,
        fix="the file is damaged or was written wrongly; export it again",
    )


# --- writing -------------------------------------------------------------------------------------------------------


def write_nifti(array: NDArray, geometry: Geometry, path: Path, descrip: str = "") -> None:
    """Write voxels to ``path`` as they are (not atomic by itself: see :func:`MedXlateCore.io.write_volume`).

    sform and qform get code 1 (scanner). A NIfTI-1 affine is float32: one that came from NIfTI returns exactly, others
    within about 1e-7 of the coordinates. For a grid that the qform's quaternion cannot hold to 1e-3 mm (sheared ones,
    and rotations near 180°) the qform keeps code 0 so that nobody uses it. The bytes are reproducible.

    Args:
        array: uint8, int16, int32 or float32, ``[I, J, K]``.
        geometry: its grid.
        path: ``.nii`` or ``.nii.gz`` (compressed, level 1).
        descrip: header text, cut at 79 bytes.
    """
    head = encode_nifti(array, geometry, descrip)
    body = np.ascontiguousarray(array.T)  # first index fastest
    if not path.name.lower().endswith(".gz"):
        with path.open("wb") as stream:
            stream.write(head)
            stream.write(body.data)
        return
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as packed:
        packed.write(head)
        packed.write(body.data)


def encode_nifti(array: NDArray, geometry: Geometry, descrip: str = "") -> bytes:
    """Return the header for :func:`write_nifti`; NIfTI-2 where a dimension exceeds 32767."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    header: Any = Nifti1Header() if max(array.shape) <= 32767 else Nifti2Header()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header.set_sform(geometry.affine_ras, 1)
    header.set_qform(geometry.affine_ras, 1)
    header.set_xyzt_units("mm")
    header["descrip"] = descrip.encode("ascii", "replace")[:79]
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    header["magic"] = header.single_magic
    header["vox_offset"] = header.single_vox_offset
    stored = Geometry(geometry.shape, header.get_qform())
    if not stored.allclose(Geometry(geometry.shape, header.get_sform()), AFFINE_TOLERANCE_MM):
        header["qform_code"] = 0
    return header.binaryblock + b"\0\0\0\0"
