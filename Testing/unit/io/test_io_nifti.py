"""Strict NIfTI: what is accepted is right, what is not right has a code."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from MedXlateCore.errors import InputError
from MedXlateCore.io import nifti, read_volume
from MedXlateCore.io.nifti import encode_nifti, read_nifti, write_nifti
from MedXlateCore.volume import Geometry, Modality

SHAPE = (5, 6, 7)
AFFINE = np.array([[-2.0, 0, 0, 30], [0, 1.0, 3.0, -40], [0, -1.5, 0.25, 50], [0, 0, 0, 1]])
SQUARE = np.array([[-2.0, 0, 0, 30], [0, 1.5, 0, -40], [0, 0, 3.0, 50], [0, 0, 0, 1]])
RAMP = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE) / 4

# NIfTI-1 header fields: offset and struct format (nifti1.h)
FIELD = {
    "sizeof_hdr": (0, "i"),
    "dim": (40, "8h"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    "pixdim": (76, "8f"),
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "xyzt_units": (123, "B"),
    "descrip": (148, "80s"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "quatern": (256, "3f"),
    "qoffset": (268, "3f"),
    "srow": (280, "12f"),
    "magic": (344, "4s"),
}
nan, inf = float("nan"), float("inf")


def raw_nifti(
    array: np.ndarray = RAMP, affine: np.ndarray = SQUARE, order: str = "<", qform: bool = True, **fields: Any
) -> bytes:
    """Build a NIfTI-1 file byte by byte, with any header field replaced."""
    image = nib.Nifti1Image(array, affine, dtype=array.dtype)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1 if qform else 0)
    header = image.header.as_byteswapped({"<": "<", ">": ">"}[order])
    header["scl_slope"], header["scl_inter"], header["vox_offset"] = 1, 0, 352
    head = bytearray(header.binaryblock)
    for name, value in fields.items():
        offset, form = FIELD[name]
        values = value if isinstance(value, (tuple, list)) else (value,)
        struct.pack_into(order + form, head, offset, *values)
    return bytes(head) + b"\0" * 4 + array.astype(array.dtype.newbyteorder(order)).tobytes(order="F")


def save(folder: Path, data: bytes, name: str = "image.nii.gz") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
    return path


def code_of(path: Path, modality: str | None = None, frame: int | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path, modality, frame)
    error = caught.value
    assert error.found and error.expected and error.fix
    assert path.name in error.where or path.stem in error.where
    return error.code


def notes_of(path: Path, modality: str | None = None) -> list[str]:
    return [note.code for note in read_volume(path, modality).notes]


# --- right files are read right ---


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ", "a.Nii"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
)
def test_every_number_type_in_either_byte_order_reads_as_nibabel_reads_it(
    tmp_path: Path, dtype: str, order: str, name: str
) -> None:
    array = np.arange(210).reshape(SHAPE).astype(dtype)
    path = tmp_path / name
    data = raw_nifti(array, AFFINE, order, qform=False)
    path.write_bytes(gzip.compress(data) if name.lower().endswith("gz") else data)
    volume = read_volume(path, "T1")
    assert volume.array.dtype == np.float32
    reference = nib.Nifti1Image.from_bytes(data)
    np.testing.assert_array_equal(volume.array, np.asarray(reference.dataobj, dtype=np.float64))
    np.testing.assert_array_equal(volume.geometry.affine_ras, reference.affine)
    assert volume.notes == () and volume.modality is Modality.T1 and not volume.synthetic


def test_the_array_is_native_read_only_and_in_file_order(tmp_path: Path) -> None:
    for order in "<>":
        array = read_volume(save(tmp_path, raw_nifti(order=order))).array
        assert array.flags.f_contiguous and array.flags.aligned and not array.flags.writeable
        assert array.dtype.isnative


def test_a_nifti_2_file_reads_the_same(tmp_path: Path) -> None:
    image = nib.Nifti2Image(RAMP, AFFINE)
    nib.save(image, tmp_path / "two.nii.gz")
    volume = read_volume(tmp_path / "two.nii.gz")
    np.testing.assert_array_equal(volume.array, RAMP)
    np.testing.assert_array_equal(volume.geometry.affine_ras, AFFINE)


@pytest.mark.parametrize("name", ["pair.hdr", "pair.img"])
def test_either_file_of_a_pair_reads_both(tmp_path: Path, name: str) -> None:
    nib.save(nib.Nifti1Pair(RAMP, SQUARE), tmp_path / "pair.hdr")
    volume = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.array, RAMP)
    np.testing.assert_array_equal(volume.geometry.affine_ras, SQUARE)
    assert volume.source.path == tmp_path / name


def test_the_pair_without_its_image_is_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(RAMP, SQUARE), tmp_path / "pair.hdr")
    (tmp_path / "pair.img").unlink()
    assert code_of(tmp_path / "pair.hdr") == "MX-FIL-042"


def test_an_extension_before_the_voxels_is_skipped(tmp_path: Path) -> None:
    image = nib.Nifti1Image(RAMP, SQUARE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 100))
    nib.save(image, tmp_path / "ext.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "ext.nii.gz").array, RAMP)


def test_scale_factors_are_applied_in_double_precision(tmp_path: Path) -> None:
    array = np.arange(210, dtype=np.int16).reshape(SHAPE)
    slope, inter = float(np.float32(0.1)), float(np.float32(-1024.3))
    volume = read_volume(save(tmp_path, raw_nifti(array, scl_slope=slope, scl_inter=inter)))
    np.testing.assert_array_equal(volume.array, (array.astype(np.float64) * slope + inter).astype(np.float32))


@pytest.mark.parametrize("slope", [0.0, nan])
def test_a_slope_of_zero_or_nan_means_unscaled(tmp_path: Path, slope: float) -> None:
    volume = read_volume(save(tmp_path, raw_nifti(scl_slope=slope, scl_inter=7.0)))
    np.testing.assert_array_equal(volume.array, RAMP)


@pytest.mark.parametrize(("slope", "inter"), [(inf, 0.0), (-inf, 0.0), (1.0, nan), (2.0, inf)])
def test_infinite_scale_factors_are_refused(tmp_path: Path, slope: float, inter: float) -> None:
    assert code_of(save(tmp_path, raw_nifti(scl_slope=slope, scl_inter=inter))) == "MX-FIL-037"


def test_values_beyond_float32_are_refused(tmp_path: Path) -> None:
    array = RAMP.astype(np.float64)
    array[1, 2, 3] = 1e39
    assert code_of(save(tmp_path, raw_nifti(array))) == "MX-IMG-015"
    assert code_of(save(tmp_path, raw_nifti(scl_slope=3e38))) == "MX-IMG-015"


def test_nan_and_infinity_of_the_file_are_kept_for_the_checks(tmp_path: Path) -> None:
    for dtype in (np.float32, np.float64):
        array = RAMP.astype(dtype)
        array[0, 0, 0], array[1, 1, 1] = nan, inf
        np.testing.assert_array_equal(read_volume(save(tmp_path, raw_nifti(array))).array, array)


def test_integers_that_float32_rounds_are_noted(tmp_path: Path) -> None:
    array = np.full(SHAPE, 2**24 + 1, dtype=np.int32)
    assert notes_of(save(tmp_path, raw_nifti(array))) == ["MX-IMG-016"]
    array[:] = 2**24
    assert notes_of(save(tmp_path, raw_nifti(array))) == []


# --- label maps ---


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "uint16"])
def test_a_label_map_keeps_its_integers(tmp_path: Path, dtype: str) -> None:
    array = (np.arange(210).reshape(SHAPE) % 5).astype(dtype)
    volume = read_volume(save(tmp_path, raw_nifti(array, order=">")), "seg")
    assert volume.array.dtype == np.dtype(dtype) and volume.array.dtype.isnative
    np.testing.assert_array_equal(volume.array, array)


@pytest.mark.parametrize(
    ("values", "dtype"), [((0, 255), "uint8"), ((-1, 3), "int16"), ((0, 256), "int16"), ((0, 70_000), "int32")]
)
def test_a_label_map_stored_as_float_becomes_the_smallest_integer_type(
    tmp_path: Path, values: tuple[int, int], dtype: str
) -> None:
    array = np.full(SHAPE, values[0], dtype=np.float64)
    array[0, 0, 0] = values[1]
    volume = read_volume(save(tmp_path, raw_nifti(array)), Modality.LABEL)
    assert volume.array.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(volume.array, array)


def test_a_label_map_with_scale_factors_is_scaled(tmp_path: Path) -> None:
    array = (np.arange(210).reshape(SHAPE) % 5).astype(np.uint8)
    volume = read_volume(save(tmp_path, raw_nifti(array, scl_slope=2.0)), "label")
    np.testing.assert_array_equal(volume.array, array * 2)


@pytest.mark.parametrize("value", [0.5, nan, inf, -1.001])
def test_a_label_that_is_no_integer_is_refused(tmp_path: Path, value: float) -> None:
    array = np.zeros(SHAPE, dtype=np.float32)
    array[2, 2, 2] = value
    assert code_of(save(tmp_path, raw_nifti(array)), "label") == "MX-ROI-001"


def test_a_label_beyond_32_bits_is_refused(tmp_path: Path) -> None:
    assert code_of(save(tmp_path, raw_nifti(np.full(SHAPE, 1e12))), "label") == "MX-ROI-002"


# --- shapes and frames ---


def test_a_2d_image_becomes_one_slice_in_its_place(tmp_path: Path) -> None:
    array = RAMP[:, :, 3]
    volume = read_volume(save(tmp_path, raw_nifti(array, dim=(2, 5, 6, 0, 0, 0, 0, 0))))
    assert volume.array.shape == (5, 6, 1)
    np.testing.assert_array_equal(volume.array[..., 0], array)
    np.testing.assert_array_equal(volume.geometry.affine_ras, SQUARE)


def test_a_slice_without_thickness_gets_one_millimetre_and_a_note(tmp_path: Path) -> None:
    flat = (*SQUARE[0, :2], 0.0, 30.0, *SQUARE[1, :2], 0.0, -40.0, *SQUARE[2, :2], 0.0, 50.0)
    path = save(tmp_path, raw_nifti(RAMP[:, :, :1], qform_code=0, srow=flat))
    volume = read_volume(path)
    assert [n.code for n in volume.notes] == ["MX-GEO-015"]
    assert volume.geometry.spacing_mm == (2.0, 1.5, 1.0)
    only_qform = raw_nifti(RAMP[:, :, :1], sform_code=0, pixdim=(1.0, 2.0, 1.5, 0.0, 0, 0, 0, 0))
    assert read_volume(save(tmp_path, only_qform)).geometry.spacing_mm == (2.0, 1.5, 1.0)
    neither = raw_nifti(RAMP[:, :, :1], sform_code=0, qform_code=0, pixdim=(1.0, 2.0, 1.5, 0.0, 0, 0, 0, 0))
    assert read_volume(save(tmp_path, neither)).geometry.spacing_mm == (2.0, 1.5, 1.0)


@pytest.mark.parametrize("dim", [(4, 5, 6, 7, 1, 0, 0, 0), (7, 5, 6, 7, 1, 1, 1, 1)])
def test_extra_axes_of_length_one_are_dropped(tmp_path: Path, dim: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(read_volume(save(tmp_path, raw_nifti(dim=dim))).array, RAMP)


def test_a_series_asks_for_a_frame(tmp_path: Path) -> None:
    series = np.stack([RAMP, RAMP + 1000, RAMP + 2000], axis=3)
    path = save(tmp_path, raw_nifti(series))
    assert code_of(path) == "MX-FIL-038"
    for frame in range(3):
        np.testing.assert_array_equal(read_volume(path, frame=frame).array, series[..., frame])
    for frame in (-1, 3):
        assert code_of(path, frame=frame) == "MX-FIL-039"


def test_frame_zero_of_a_3d_volume_is_the_volume_and_others_do_not_exist(tmp_path: Path) -> None:
    path = save(tmp_path, raw_nifti())
    np.testing.assert_array_equal(read_volume(path, frame=0).array, RAMP)
    assert code_of(path, frame=1) == "MX-FIL-039"


def test_a_vector_image_is_refused_even_with_a_frame(tmp_path: Path) -> None:
    vectors = np.zeros((5, 6, 7, 1, 3), dtype=np.float32)
    path = save(tmp_path, raw_nifti(vectors))
    assert code_of(path) == code_of(path, frame=1) == "MX-FIL-046"


@pytest.mark.parametrize(("datatype", "bitpix"), [(128, 24), (2304, 32)])
def test_colour_images_are_refused(tmp_path: Path, datatype: int, bitpix: int) -> None:
    assert code_of(save(tmp_path, raw_nifti(datatype=datatype, bitpix=bitpix))) == "MX-FIL-046"


@pytest.mark.parametrize("datatype", [32, 1792, 2048, 1536, 1, 0, -4, 9999])
def test_complex_long_and_unknown_numbers_are_refused(tmp_path: Path, datatype: int) -> None:
    assert code_of(save(tmp_path, raw_nifti(datatype=datatype))) == "MX-FIL-036"


# --- damaged and dishonest files ---


def test_a_truncated_gzip_is_refused_at_any_length(tmp_path: Path) -> None:
    whole = gzip.compress(raw_nifti(), 1)
    for length in {1, 2, 5, 10, 17, 18, 100, len(whole) // 2, len(whole) - 9, len(whole) - 8, len(whole) - 1}:
        path = tmp_path / "cut.nii.gz"
        path.write_bytes(whole[:length])
        assert code_of(path) in {"MX-FIL-030", "MX-FIL-032", "MX-FIL-034"}


@pytest.mark.parametrize("content", [b"\x1f\x8b\xff\xff" * 100, b"\x1f\x8b\x08\xe0" + b"x" * 50, b"hello" * 100])
def test_what_is_no_gzip_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.nii.gz").write_bytes(content)
    assert code_of(tmp_path / "a.nii.gz") == "MX-FIL-030"


def test_a_wrong_checksum_or_length_field_is_refused(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(raw_nifti(), 1))
    for position in range(1, 9):
        damaged = bytearray(whole)
        damaged[-position] ^= 1
        path = tmp_path / "crc.nii.gz"
        path.write_bytes(damaged)
        assert code_of(path) == "MX-FIL-030"


def test_bytes_after_the_gzip_stream_are_refused_and_zeros_noted(tmp_path: Path) -> None:
    path = save(tmp_path, raw_nifti())
    whole = path.read_bytes()
    path.write_bytes(whole + b"garbage")
    assert code_of(path) == "MX-FIL-031"
    path.write_bytes(whole + b"\0" * 512)
    assert notes_of(path) == ["MX-FIL-050"]


def test_a_gzip_of_several_members_is_one_file(tmp_path: Path) -> None:
    data = raw_nifti()
    path = tmp_path / "members.nii.gz"
    path.write_bytes(gzip.compress(data[:400]) + gzip.compress(data[400:]))
    np.testing.assert_array_equal(read_volume(path).array, RAMP)
    path.write_bytes(gzip.compress(data[:400]) + gzip.compress(data[400:])[:-1])
    assert code_of(path) == "MX-FIL-030"


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_data_shorter_than_the_header_says_is_refused(tmp_path: Path, name: str) -> None:
    for missing in (1, 4, 400, 840):
        assert code_of(save(tmp_path, raw_nifti()[:-missing], name)) == "MX-FIL-034"


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_little_padding_is_noted_and_more_refused(tmp_path: Path, name: str) -> None:
    assert notes_of(save(tmp_path, raw_nifti() + b"\1" * 4096, name)) == ["MX-FIL-050"]
    assert code_of(save(tmp_path, raw_nifti() + b"\1" * 4097, name)) == "MX-FIL-045"


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_file_shorter_than_a_header_is_refused(tmp_path: Path, name: str) -> None:
    for length in (1, 3, 4, 40, 347):
        assert code_of(save(tmp_path, raw_nifti()[:length], name)) in {"MX-FIL-032", "MX-FIL-034"}


def test_a_header_that_announces_terabytes_is_refused_before_allocation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absurd = raw_nifti(dim=(3, 32000, 32000, 32000, 1, 1, 1, 1))
    for name in ("a.nii", "a.nii.gz"):
        assert code_of(save(tmp_path, absurd, name)) == "MX-FIL-035"
    below_the_limit = raw_nifti(dim=(3, 1000, 1000, 1000, 1, 1, 1, 1))
    monkeypatch.setattr(nifti, "inflate", None)  # it must not come to that
    for name in ("a.nii", "a.nii.gz"):
        assert code_of(save(tmp_path, below_the_limit, name)) == "MX-FIL-034"


def test_a_gzip_bomb_is_abandoned_at_the_size_its_header_announces(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(raw_nifti() + bytes(200_000_000), 9))
    assert code_of(path) == "MX-FIL-045"


@pytest.mark.parametrize(
    "fields",
    [
        {"dim": (0, 5, 6, 7, 1, 1, 1, 1)},
        {"dim": (1, 210, 1, 1, 1, 1, 1, 1)},
        {"dim": (8, 5, 6, 7, 1, 1, 1, 1)},
        {"dim": (-3, 5, 6, 7, 1, 1, 1, 1)},
        {"dim": (3, 0, 6, 7, 1, 1, 1, 1)},
        {"dim": (3, 5, -6, 7, 1, 1, 1, 1)},
        {"dim": (4, 5, 6, 7, 0, 1, 1, 1)},
        {"bitpix": 16},
        {"bitpix": 0},
        {"datatype": 4},
        {"vox_offset": nan},
        {"vox_offset": inf},
        {"vox_offset": -352.0},
        {"vox_offset": 0.0},
        {"vox_offset": 351.0},
        {"vox_offset": 352.5},
        {"magic": b"ni1\0"},
        {"sform_code": 6},
        {"sform_code": -1},
        {"qform_code": 255},
    ],
    ids=lambda f: str(f)[:50],
)
def test_headers_that_cannot_be_true_are_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    assert code_of(save(tmp_path, raw_nifti(**fields))) == "MX-FIL-033"


def test_voxels_said_to_begin_behind_the_end_are_refused(tmp_path: Path) -> None:
    assert code_of(save(tmp_path, raw_nifti(vox_offset=356.0))) == "MX-FIL-034"
    assert code_of(save(tmp_path, raw_nifti(vox_offset=1e30))) == "MX-FIL-033"


@pytest.mark.parametrize(
    "fields", [{"sizeof_hdr": 0}, {"sizeof_hdr": 1234}, {"magic": b"\0\0\0\0"}, {"magic": b"n+9\0"}]
)
def test_other_files_are_not_taken_for_nifti(tmp_path: Path, fields: dict[str, Any]) -> None:
    assert code_of(save(tmp_path, raw_nifti(**fields))) == "MX-FIL-032"


def test_a_wrong_suffix_is_explained(tmp_path: Path) -> None:
    data = raw_nifti()
    (tmp_path / "packed.nii").write_bytes(gzip.compress(data))
    (tmp_path / "plain.nii.gz").write_bytes(data)
    with pytest.raises(InputError, match=r"rename it to \.nii\.gz"):
        read_volume(tmp_path / "packed.nii")
    with pytest.raises(InputError, match=r"rename it to \.nii"):
        read_volume(tmp_path / "plain.nii.gz")


# --- geometry ---


def test_the_sform_wins_and_a_different_qform_is_noted(tmp_path: Path) -> None:
    moved = SQUARE.copy()
    moved[0, 3] += 0.01
    path = save(tmp_path, raw_nifti(srow=moved[:3].ravel().tolist()))
    volume = read_volume(path)
    np.testing.assert_allclose(volume.geometry.affine_ras, moved, atol=1e-5)
    assert [n.code for n in volume.notes] == ["MX-GEO-010"]
    assert "0.01 mm" in volume.notes[0].found
    moved[0, 3] = SQUARE[0, 3] + 5e-4
    assert notes_of(save(tmp_path, raw_nifti(srow=moved[:3].ravel().tolist()))) == []


def test_without_sform_the_qform_is_used(tmp_path: Path) -> None:
    turned = SQUARE.copy()
    angle = np.deg2rad(20)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    turned[:3, :3] = turn @ SQUARE[:3, :3]
    path = save(tmp_path, raw_nifti(affine=turned, sform_code=0, srow=[9.0] * 12))
    np.testing.assert_allclose(read_volume(path).geometry.affine_ras, turned, atol=1e-5)
    assert notes_of(path) == []


def test_without_both_the_voxel_sizes_serve_with_a_note(tmp_path: Path) -> None:
    path = save(tmp_path, raw_nifti(sform_code=0, qform_code=0))
    volume = read_volume(path)
    assert [n.code for n in volume.notes] == ["MX-GEO-011"]
    np.testing.assert_allclose(volume.geometry.affine_ras, nib.load(path).affine)


@pytest.mark.parametrize("pixdim", [0.0, -1.0, nan, inf])
def test_unusable_voxel_sizes_are_refused_where_they_are_needed(tmp_path: Path, pixdim: float) -> None:
    sizes = (1.0, 2.0, pixdim, 3.0, 0, 0, 0, 0)
    assert code_of(save(tmp_path, raw_nifti(sform_code=0, qform_code=0, pixdim=sizes))) == "MX-GEO-012"
    assert code_of(save(tmp_path, raw_nifti(sform_code=0, pixdim=sizes))) == "MX-GEO-012"
    assert notes_of(save(tmp_path, raw_nifti(pixdim=sizes))) == ["MX-GEO-010"]  # the sform needs none
    assert notes_of(save(tmp_path, raw_nifti(qform_code=0, pixdim=sizes))) == []


@pytest.mark.parametrize("quatern", [(nan, 0.0, 0.0), (1.0, 1.0, 1.0), (inf, 0.0, 0.0)])
def test_an_unusable_quaternion_is_refused_where_it_is_needed(
    tmp_path: Path, quatern: tuple[float, float, float]
) -> None:
    assert code_of(save(tmp_path, raw_nifti(sform_code=0, quatern=quatern))) == "MX-GEO-012"
    assert notes_of(save(tmp_path, raw_nifti(quatern=quatern))) == ["MX-GEO-010"]


@pytest.mark.parametrize(
    ("column", "value", "code"), [(0, 0.0, "MX-GEO-002"), (1, nan, "MX-GEO-001"), (2, inf, "MX-GEO-001")]
)
def test_an_affine_that_is_none_is_refused(tmp_path: Path, column: int, value: float, code: str) -> None:
    affine = SQUARE[:3].copy()
    affine[:, column] = value
    assert code_of(save(tmp_path, raw_nifti(qform_code=0, srow=affine.ravel().tolist()))) == code
    assert code_of(save(tmp_path, raw_nifti(srow=affine.ravel().tolist()))) == code


def test_a_slice_whose_axes_coincide_is_refused(tmp_path: Path) -> None:
    flat = (2.0, 2.0, 0.0, 30.0, 0.0, 0.0, 0.0, -40.0, 0.0, 0.0, 0.0, 50.0)
    assert code_of(save(tmp_path, raw_nifti(RAMP[:, :, :1], qform_code=0, srow=flat))) == "MX-GEO-002"


def test_a_sheared_grid_is_read_as_it_is(tmp_path: Path) -> None:
    assert Geometry(SHAPE, AFFINE).shear > 0.01
    assert notes_of(save(tmp_path, raw_nifti(affine=AFFINE, qform=False))) == []


@pytest.mark.parametrize(("unit", "factor"), [(1, 1000.0), (3, 0.001)])
def test_metres_and_micrometres_become_millimetres_with_a_note(tmp_path: Path, unit: int, factor: float) -> None:
    volume = read_volume(save(tmp_path, raw_nifti(xyzt_units=unit | 8)))
    np.testing.assert_allclose(volume.geometry.affine_ras[:3], SQUARE[:3] * factor)
    assert [n.code for n in volume.notes] == ["MX-GEO-013"]


@pytest.mark.parametrize("unit", [0, 2, 10])
def test_unknown_units_are_millimetres(tmp_path: Path, unit: int) -> None:
    path = save(tmp_path, raw_nifti(xyzt_units=unit))
    np.testing.assert_array_equal(read_volume(path).geometry.affine_ras, SQUARE)


@pytest.mark.parametrize("text", [b"SYNTHETIC T1ce MedXlate", b"a synthetic image"])
def test_a_header_that_says_synthetic_is_believed(tmp_path: Path, text: bytes) -> None:
    assert read_volume(save(tmp_path, raw_nifti(descrip=text))).synthetic


# --- writing ---


def signed_permutations() -> list[np.ndarray]:
    return [
        np.eye(3)[list(order)] * np.array(signs)[:, None]
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1, -1), repeat=3)
    ]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_the_48_orientations_come_back_exactly(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    for turn in signed_permutations():
        affine = np.eye(4)
        affine[:3, :3] = turn * [0.5, 0.75, 3.0]
        affine[:3, 3] = [-90.25, 126.5, -72.125]
        write_nifti(RAMP, Geometry(SHAPE, affine), path)
        volume = read_nifti(path)
        np.testing.assert_array_equal(volume.geometry.affine_ras, affine)
        np.testing.assert_array_equal(volume.array, RAMP)
        assert volume.notes == ()
        np.testing.assert_allclose(nib.load(path).get_qform(), affine, atol=1e-5)


def random_oblique(seed: int) -> Geometry:
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn * rng.uniform(0.3, 5, 3)
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    return Geometry((256, 256, 180), affine)


def test_an_affine_that_came_from_nifti_goes_back_without_change() -> None:
    for seed in range(200):
        geometry = random_oblique(seed)
        stored = Geometry(geometry.shape, geometry.affine_ras.astype(np.float32))
        header = nib.Nifti1Header(encode_nifti(np.zeros(geometry.shape, np.uint8), stored)[:348])
        np.testing.assert_array_equal(header.get_sform(), stored.affine_ras)


def test_any_other_affine_moves_by_no_more_than_float32_rounding() -> None:
    for seed in range(200):
        geometry = random_oblique(seed)
        header = nib.Nifti1Header(encode_nifti(np.zeros(geometry.shape, np.uint8), geometry)[:348])
        stored = Geometry(geometry.shape, header.get_sform())
        assert np.abs(stored.corners_ras() - geometry.corners_ras()).max() < 1e-4


def test_a_qform_that_would_mislead_has_code_0() -> None:
    """Near a turn of 180 degrees float32 quaternions lose digits; sheared grids have no quaternion."""
    dropped = 0
    for seed in range(200):
        geometry = random_oblique(seed)
        header = nib.Nifti1Header(encode_nifti(np.zeros(geometry.shape, np.uint8), geometry)[:348])
        qform, code = header.get_qform(coded=True)
        dropped += int(code) == 0
        if code:
            assert np.abs(Geometry(geometry.shape, qform).corners_ras() - geometry.corners_ras()).max() < 2e-3
    assert dropped < 60
    sheared = nib.Nifti1Header(encode_nifti(RAMP, Geometry(SHAPE, AFFINE))[:348])
    assert int(sheared["qform_code"]) == 0 and int(sheared["sform_code"]) == 1
    np.testing.assert_array_equal(sheared.get_sform(), AFFINE.astype(np.float32))


def test_the_same_volume_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(RAMP, Geometry(SHAPE, SQUARE), tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_memory_order_does_not_change_the_file(tmp_path: Path) -> None:
    for name, array in (("a.nii", RAMP), ("b.nii", np.asfortranarray(RAMP)), ("c.nii", RAMP[::-1][::-1])):
        write_nifti(array, Geometry(SHAPE, SQUARE), tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in ("a.nii", "b.nii", "c.nii")}) == 1


def test_a_long_axis_needs_nifti_2(tmp_path: Path) -> None:
    array = np.zeros((40_000, 1, 1), np.uint8)
    array[39_999] = 7
    write_nifti(array, Geometry(array.shape, np.eye(4)), tmp_path / "long.nii.gz")
    volume = read_volume(tmp_path / "long.nii.gz")
    assert volume.array.shape == (40_000, 1, 1) and volume.array[-1, 0, 0] == 7
    assert isinstance(nib.load(tmp_path / "long.nii.gz"), nib.Nifti2Image)


def test_a_long_text_is_cut_to_the_field(tmp_path: Path) -> None:
    write_nifti(RAMP, Geometry(SHAPE, SQUARE), tmp_path / "a.nii", "é" * 200)
    assert bytes(nib.load(tmp_path / "a.nii").header["descrip"].tobytes()) == b"?" * 79 + b"\0"


def test_reading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for data in (raw_nifti(pixdim=(0.0,) * 8), raw_nifti(quatern=(1.0, 1.0, 1.0)), raw_nifti(dim=(0,) * 8)):
        with contextlib.suppress(InputError):
            read_volume(save(tmp_path, data))
    assert capfd.readouterr() == ("", "")


def test_no_call_needs_the_whole_file_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash and the voxels come from one read: a file that changes meanwhile cannot split them."""
    path = save(tmp_path, raw_nifti())
    reads: list[Path] = []
    real: Callable[[Path], bytes] = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: (reads.append(self), real(self))[1])
    read_volume(path)
    assert reads == [path]
