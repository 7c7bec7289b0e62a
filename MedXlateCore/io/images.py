"""MetaImage (``.mha``, ``.mhd``) and NRRD (``.nrrd``, ``.nhdr``): strict reading, writing through SimpleITK.

SimpleITK interprets the header's geometry (patient space LPS, turned to RAS here). The voxel bytes are taken from the
file directly, with length and checksum verified, because ITK accepts truncated data. Sources: MetaIO documentation;
NRRD0005 format definition (teem).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.errors import InputError, Warned
from MedXlateCore.files import read_bytes, shown
from MedXlateCore.io.compressed import GZIP, GZIP_OR_ZLIB, inflate, refuse_absurd_size, short_data
from MedXlateCore.io.nifti import MAX_VOLUME_BYTES
from MedXlateCore.io.voxels import frame_index, make_geometry, several_channels, voxels
from MedXlateCore.volume import Geometry, Modality, Source, Volume

__all__ = ["MAX_SHEAR", "read_image", "write_image"]

MAX_SHEAR = 1e-4
"""Largest cosine between two axes that these formats are given: many of their readers assume right angles."""

_HEADER_LIMIT = 2**20
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_META_TYPES = {
    "CHAR": "i1", "UCHAR": "u1", "SHORT": "i2", "USHORT": "u2", "INT": "i4", "UINT": "u4", "LONG": "i4", "ULONG": "u4",
    "LONG_LONG": "i8", "ULONG_LONG": "u8", "FLOAT": "f4", "DOUBLE": "f8",
}  # fmt: skip
_META_VECTORS = {"Offset", "Position", "Origin", "ElementSpacing", "ElementSize"}
_META_MATRICES = {"TransformMatrix", "Orientation", "Rotation"}
_NRRD_TYPES = {
    name: dtype
    for dtype, names in {
        "i1": "signed char,int8,int8_t",
        "u1": "uchar,unsigned char,uint8,uint8_t",
        "i2": "short,short int,signed short,signed short int,int16,int16_t",
        "u2": "ushort,unsigned short,unsigned short int,uint16,uint16_t",
        "i4": "int,signed int,int32,int32_t",
        "u4": "uint,unsigned int,uint32,uint32_t",
        "i8": "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t",
        "u8": "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t",
        "f4": "float",
        "f8": "double",
    }.items()
    for name in names.split(",")
}
_ANATOMICAL = re.compile(r"(ras|las|lps|(right|left)-(anterior|posterior)-superior)(t|-time)?", re.IGNORECASE)


@dataclass(frozen=True)
class _Layout:
    """Where and how a header says that the voxels are stored."""

    shape: tuple[int, ...]
    dtype: np.dtype
    channels: int
    packed: int  # 0 for plain bytes, else the kind for ``inflate``
    data_file: str  # "" for the header's own file
    skip: int  # bytes before the first voxel; -1: count from the end
    header_bytes: int
    oriented: bool
    assumed: tuple[str, ...]  # what the header leaves open
    remarks: tuple[str, ...] = field(default=())  # free text that may say SYNTHETIC


# --- reading -------------------------------------------------------------------------------------------------------


def read_image(path: Path, modality: Modality = Modality.OTHER, frame: int | None = None) -> Volume:
    """Read a MetaImage or NRRD file, plain or gzip-compressed, with its data inside or in the same folder.

    Args:
        path: the file or header.
        modality: what it shows; a label map keeps integers.
        frame: which frame of a 4D file.

    Raises:
        InputError: codes as in :func:`MedXlateCore.io.nifti.read_nifti`, and ``MX-FIL-041`` (SimpleITK refuses the
            header), ``MX-FIL-042`` (data file missing or in another folder), ``MX-FIL-043`` (storage not supported).
    """
    where = shown(path)
    head = read_bytes(path, MAX_VOLUME_BYTES)
    is_meta = path.suffix.lower() in {".mha", ".mhd"}
    layout = _parse_meta(head, where) if is_meta else _parse_nrrd(head, where)
    if layout.channels != 1:
        raise several_channels(f"{layout.channels} channels", where)
    expected = math.prod(layout.shape) * layout.dtype.itemsize
    blob = memoryview(head)[layout.header_bytes :]
    if layout.data_file:
        blob = memoryview(read_bytes(_data_path(path, layout.data_file), MAX_VOLUME_BYTES))
    data, notes = _data(blob, layout, expected, where)
    geometry, remarks = _geometry(path, layout, where)
    at = frame_index(layout.shape, frame, where) * math.prod(geometry.shape) * layout.dtype.itemsize
    stored = np.frombuffer(data, layout.dtype, math.prod(geometry.shape), at).reshape(geometry.shape, order="F")
    array, repairs = voxels(stored, modality, 1.0, 0.0, where)
    digest = hashlib.sha256(head)
    if layout.data_file:
        digest.update(blob)
    source = Source(path.name, path, digest.hexdigest())
    synthetic = any("SYNTHETIC" in text.upper() for text in layout.remarks)
    return Volume(array, geometry, modality, source, synthetic, (*notes, *remarks, *repairs))


def _data(blob: memoryview, layout: _Layout, expected: int, where: str) -> tuple[bytes | bytearray, list[Warned]]:
    """Return exactly the voxels' bytes. No padding is tolerated: nothing else shows that a header lost its way."""
    total = expected + max(layout.skip, 0)
    refuse_absurd_size(total, len(blob), MAX_VOLUME_BYTES, where, bool(layout.packed))
    notes: list[Warned] = []
    data: bytes | bytearray
    if layout.packed and layout.skip == -1:
        raise _unsupported("compressed voxels are counted from the file's end", where)
    if layout.packed:
        data, notes = inflate(blob, total, where, layout.packed)
    else:
        data = bytes(blob)
    if len(data) < total:
        raise short_data(f"{len(data)} bytes of voxels", total, where)
    if layout.skip == -1:
        return data[len(data) - expected :], notes
    if len(data) > total:
        raise InputError(
            "MX-FIL-045",
            f"the file holds {len(data) - total} bytes more than its header announces",
            expected=f"{total} bytes of voxels",
            where=where,
            fix="the header or the data is wrong; export the file again",
        )
    return data[layout.skip :], notes


def _data_path(header: Path, name: str) -> Path:
    """Return the data file's path; only plain names beside the header are followed."""
    if name in {".", ".."} or any(sign in name for sign in "/\\\0:"):
        raise InputError(
            "MX-FIL-042",
            f"the header points to the data file '{shown(name)}'",
            expected="a data file in the header's own folder",
            where=shown(header),
            fix="put the data file beside the header and write its plain name into it, or convert to one .mha file",
        )
    path = header.parent / name
    if not path.is_file():
        raise InputError(
            "MX-FIL-042",
            f"the data file '{shown(name)}' is missing",
            expected="the data file beside the header",
            where=shown(header),
            fix="keep both files together, or convert to one .mha or .nrrd file",
        )
    return path


def _geometry(path: Path, layout: _Layout, where: str) -> tuple[Geometry, list[Warned]]:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    try:
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
    except (RuntimeError, ValueError, UnicodeError) as error:  # SimpleITK wraps every ITK exception in RuntimeError
        raise _refused(str(error), where) from error
    if reader.GetNumberOfComponents() != 1:
        raise several_channels(f"{reader.GetNumberOfComponents()} channels", where)
    if tuple(reader.GetSize()) != layout.shape:
        raise _refused(f"SimpleITK reads sizes {reader.GetSize()}, the header says {layout.shape}", where)
    n = len(layout.shape)
    direction = np.eye(3)
    spacing, origin = np.ones(3), np.zeros(3)
    m = min(n, 3)
    direction[:m, :m] = np.array(reader.GetDirection()).reshape(n, n)[:m, :m]
    spacing[:m], origin[:m] = reader.GetSpacing()[:m], reader.GetOrigin()[:m]
    affine = np.eye(4)
    affine[:3, :3] = direction * spacing
    affine[:3, 3] = origin
    shape = (*layout.shape, 1)[:3] if n == 2 else layout.shape[:3]
    notes = []
    if n == 2:
        notes.append(Warned("MX-GEO-015", "a single slice without thickness: 1 mm was assumed", where))
    if not layout.oriented:
        text = "the header does not say where left and right are: axes were taken as left, posterior, superior"
        notes.append(Warned("MX-GEO-011", text, where, "check the orientation in a viewer"))
    for text in layout.assumed:
        notes.append(Warned("MX-GEO-009", f"the header gives no {text} was assumed", where, "check it in a viewer"))
    return make_geometry((shape[0], shape[1], shape[2]), _LPS_TO_RAS @ affine, where), notes


def _parse_meta(head: bytes, where: str) -> _Layout:
    """Read a MetaImage header: ``Key = Value`` lines up to ElementDataFile."""
    fields: dict[str, str] = {}
    position = 0
    while "ElementDataFile" not in fields:
        end = head.find(b"\n", position, _HEADER_LIMIT)
        line = head[position : end if end >= 0 else len(head)].decode("utf-8", "replace")
        key, separator, value = line.partition("=")
        if not separator or position >= len(head):
            raise _refused("it has no line 'ElementDataFile = ...'", where)
        fields[key.strip()] = value.strip()
        position = end + 1 if end >= 0 else len(head)
    data_file = fields["ElementDataFile"]
    local = data_file.upper() == "LOCAL"
    if data_file.upper().startswith("LIST") or "%" in data_file:
        raise _unsupported("the voxels are spread over several files", where)
    if not _flag(fields, "BinaryData", True, where):
        raise _unsupported("the voxels are stored as text", where)
    kind = fields.get("ElementType", "").removeprefix("MET_")
    if kind not in _META_TYPES:
        raise _unsupported(f"the voxel type is '{fields.get('ElementType', '')}'", where)
    shape = _sizes(fields.get("DimSize", ""), fields.get("NDims", ""), where)
    for key in _META_VECTORS & fields.keys():
        _check_numbers(key, fields[key], len(shape), where)
    for key in _META_MATRICES & fields.keys():
        _check_numbers(key, fields[key], len(shape) ** 2, where)
    packed = _flag(fields, "CompressedData", False, where)
    if "CompressedDataSize" in fields and not packed:
        raise _refused("it has CompressedDataSize without CompressedData = True", where)
    msb = _flag(fields, "BinaryDataByteOrderMSB", _flag(fields, "ElementByteOrderMSB", False, where), where)
    return _Layout(
        shape=shape,
        dtype=np.dtype(_META_TYPES[kind]).newbyteorder(">" if msb else "<"),
        channels=_integer(fields.get("ElementNumberOfChannels", "1"), where),
        packed=GZIP_OR_ZLIB if packed else 0,
        data_file="" if local else data_file,
        skip=_skip(fields.get("HeaderSize", "0"), where),
        header_bytes=position if local else 0,
        oriented=bool(fields.keys() & _META_MATRICES),
        assumed=_assumed(fields.keys(), {"ElementSpacing", "ElementSize"}, {"Offset", "Position", "Origin"}),
        remarks=tuple(v for k, v in fields.items() if k not in {"ElementDataFile", "Name"}),
    )


def _parse_nrrd(head: bytes, where: str) -> _Layout:
    """Read a NRRD header: ``field: value`` and ``key:=value`` lines up to an empty line or the end of the file."""
    if not head.startswith(b"NRRD000"):
        raise _refused("it does not begin with NRRD000", where)
    match = re.search(rb"\r?\n\r?\n", head[:_HEADER_LIMIT])
    text = head[: match.start() if match else len(head)][:_HEADER_LIMIT].decode("utf-8", "replace")
    fields: dict[str, str] = {}
    remarks = []
    for line in text.splitlines()[1:]:
        if line.startswith("#") or ":=" in line:
            remarks.append(line.lstrip("# "))
        else:
            key, _, value = line.partition(":")
            fields[key.strip().lower().replace(" ", "")] = value.strip()
    data_file = fields.get("datafile", "")
    if data_file.upper().startswith("LIST") or "%" in data_file:
        raise _unsupported("the voxels are spread over several files", where)
    encoding = fields.get("encoding", "").lower()
    if encoding not in {"raw", "gzip", "gz"}:
        raise _unsupported(f"the encoding is '{encoding}'", where)
    kind = fields.get("type", "").lower()
    if kind not in _NRRD_TYPES:
        raise _unsupported(f"the voxel type is '{kind}'", where)
    if _integer(fields.get("lineskip", "0"), where) != 0:
        raise _unsupported("the voxels begin after skipped lines", where)
    dtype = np.dtype(_NRRD_TYPES[kind])
    endian = fields.get("endian", "").lower()
    if dtype.itemsize > 1 and endian not in {"little", "big"}:
        raise _refused("it does not say the byte order ('endian')", where)
    return _Layout(
        shape=_sizes(fields.get("sizes", ""), fields.get("dimension", ""), where),
        dtype=dtype.newbyteorder(">" if endian == "big" else "<"),
        channels=1,
        packed=0 if encoding == "raw" else GZIP,
        data_file=data_file,
        skip=_skip(fields.get("byteskip", "0"), where),
        header_bytes=match.end() if match else len(head),
        oriented=_ANATOMICAL.fullmatch(fields.get("space", "")) is not None and "spacedirections" in fields,
        assumed=_assumed(fields.keys(), {"spacings", "spacedirections"}, {"spaceorigin"}),
        remarks=tuple(remarks),
    )


def _sizes(text: str, dimensions: str, where: str) -> tuple[int, ...]:
    sizes = tuple(_integer(item, where) for item in text.split())
    if len(sizes) != _integer(dimensions, where) or not 2 <= len(sizes) <= 7 or min(sizes) < 1:
        raise InputError(
            "MX-FIL-033",
            f"the header is not usable: {dimensions or 'no'} dimensions of sizes '{text}'",
            expected="2 to 7 dimensions of at least one voxel",
            where=where,
            fix="the file is damaged or was written wrongly; export it again",
        )
    return sizes


def _assumed(fields: Collection[str], sizes: set[str], origins: set[str]) -> tuple[str, ...]:
    """Say what of a grid's place the header leaves open."""
    open_ends = ((sizes, "voxel size: 1 mm"), (origins, "position: the origin"))
    return tuple(text for names, text in open_ends if not names.intersection(fields))


def _check_numbers(key: str, text: str, count: int, where: str) -> None:
    """Refuse a field that does not hold so many finite numbers: MetaIO would read 0 for the others."""
    try:
        numbers = [float(item) for item in text.split()]
    except ValueError:
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise _refused(f"{key} is '{shown(text[:80])}', not {count} numbers", where)


def _flag(fields: Mapping[str, str], key: str, default: bool, where: str) -> bool:
    """Read True or False; anything else is damage, and guessing would turn compressed bytes into voxels."""
    text = fields.get(key, str(default)).lower()
    if text not in {"true", "false", "1", "0"}:
        raise _refused(f"{key} is '{shown(text[:40])}'", where)
    return text in {"true", "1"}


def _integer(text: str, where: str) -> int:
    if not re.fullmatch(r"-?\d{1,18}", text, re.ASCII):
        raise _refused(f"'{shown(text[:40])}' stands where a whole number belongs", where)
    return int(text)


def _skip(text: str, where: str) -> int:
    skip = _integer(text, where)
    if skip < -1:
        raise _refused(f"it skips {skip} bytes", where)
    return skip


def _refused(reason: str, where: str) -> InputError:
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return InputError(
        "MX-FIL-041",
        f"the image header cannot be read: {shown(lines[-1] if lines else 'no reason given')[:300]}",
        expected="a complete MetaImage or NRRD header",
        where=where,
        fix="copy or export the file again, or convert it to .nii.gz",
    )


def _unsupported(found: str, where: str) -> InputError:
    return InputError(
        "MX-FIL-043",
        found,
        expected="one file of plain or gzip-compressed numbers",
        where=where,
        fix="save the image again as .nrrd, .mha or .nii.gz",
    )


# --- writing -------------------------------------------------------------------------------------------------------


def write_image(array: NDArray, geometry: Geometry, path: Path, remark: str = "") -> None:
    """Write voxels to a compressed ``.mha`` or ``.nrrd`` (not atomic by itself).

    Args:
        array: uint8, int16, int32 or float32, ``[I, J, K]``.
        geometry: its grid, with right-angled axes.
        path: the file.
        remark: text for the header (NRRD key and MetaImage field ``Comment``).

    Raises:
        InputError: ``MX-GEO-014``, the grid is sheared by more than ``MAX_SHEAR``.
        OSError: SimpleITK could not write.
    """
    import SimpleITK as sitk

    refuse_shear(geometry, path)
    affine = _LPS_TO_RAS @ geometry.affine_ras
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(geometry.spacing_mm)
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / np.array(geometry.spacing_mm)).ravel().tolist())
    if remark:
        image.SetMetaData("Comment", remark)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=1)
    except RuntimeError as error:
        raise OSError(str(error).strip().splitlines()[-1]) from error


def refuse_shear(geometry: Geometry, path: Path) -> None:
    """Refuse a grid whose axes are not at right angles (``MX-GEO-014``)."""
    if geometry.shear > MAX_SHEAR:
        raise InputError(
            "MX-GEO-014",
            f"the grid is sheared (cosine between axes {geometry.shear:.3g})",
            expected=f"right angles (cosine at most {MAX_SHEAR:g}) for {path.suffix}",
            where=shown(path),
            fix="write .nii.gz, which can hold sheared grids",
        )
