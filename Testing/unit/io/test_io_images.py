"""MetaImage and NRRD: the same voxels and the same place as SimpleITK gives, without its blind spots."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MedXlateCore.errors import InputError
from MedXlateCore.io import read_volume
from MedXlateCore.io.images import write_image
from MedXlateCore.volume import Geometry, Modality

SHAPE = (5, 6, 7)
RAMP = np.arange(210, dtype=np.float32).reshape(SHAPE) / 4
SUFFIXES = [".mha", ".mhd", ".nrrd", ".nhdr"]


def turned(degrees: float = 20.0) -> Geometry:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) * [0.7, 1.1, 3.3]
    affine[:3, 3] = [-90.123456789, 126.987654321, -72.5]
    return Geometry(SHAPE, affine)


def itk_image(array: np.ndarray = RAMP, geometry: Geometry | None = None) -> sitk.Image:
    """An ITK image with a known place, built without the code under test."""
    geometry = geometry or turned()
    lps = np.diag([-1, -1, 1, 1]) @ geometry.affine_ras
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(geometry.spacing_mm)
    image.SetOrigin(lps[:3, 3])
    image.SetDirection((lps[:3, :3] / geometry.spacing_mm).ravel())
    return image


def code_of(path: Path, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path, **options)  # type: ignore[arg-type]
    error = caught.value
    assert error.found and error.expected and error.fix and path.stem in error.where
    return error.code


def meta(
    tmp_path: Path, body: bytes | None = None, data_file: str = "LOCAL", name: str = "a.mha", **fields: str
) -> Path:
    """Write a MetaImage by hand; fields given as None are left out."""
    lines = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "1 2 3",
        "ElementSpacing": "1 1 2",
        "DimSize": "5 6 7",
        "ElementType": "MET_FLOAT",
        **fields,
        "ElementDataFile": data_file,
    }
    text = "".join(f"{k} = {v}\n" for k, v in lines.items() if v is not None)
    body = RAMP.tobytes(order="F") if body is None else body
    path = tmp_path / name
    path.write_bytes(text.encode() + (body if data_file == "LOCAL" else b""))
    return path


def nrrd(
    tmp_path: Path, body: bytes | None = None, name: str = "a.nrrd", extra: str = "", **fields: str | None
) -> Path:
    """Write a NRRD by hand; fields given as None are left out, ``_`` in a name is a space."""
    lines = {
        "type": "float",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "5 6 7",
        "space_directions": "(1,0,0) (0,1,0) (0,0,2)",
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "raw",
        "space_origin": "(1,2,3)",
        **fields,
    }
    text = "NRRD0004\n" + "".join(f"{k.replace('_', ' ')}: {v}\n" for k, v in lines.items() if v is not None)
    body = RAMP.tobytes(order="F") if body is None else body
    path = tmp_path / name
    path.write_bytes((text + extra + "\n").encode() + body)
    return path


# --- right files ---


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"]
)
def test_voxels_and_place_are_those_that_simpleitk_gives(tmp_path: Path, suffix: str, packed: bool, dtype: str) -> None:
    array = np.arange(210).reshape(SHAPE).astype(dtype)
    path = tmp_path / f"image{suffix}"
    sitk.WriteImage(itk_image(array), str(path), useCompression=packed)
    volume = read_volume(path, "T2")
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(sitk.ReadImage(str(path))).transpose(2, 1, 0))
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.geometry.affine_ras, turned().affine_ras, atol=1e-6)
    assert volume.array.dtype == np.float32 and volume.modality is Modality.T2
    assert volume.array.flags.f_contiguous and not volume.array.flags.writeable
    assert volume.notes == () and not volume.synthetic and len(volume.source.sha256) == 64


@pytest.mark.parametrize("point", [(0, 0, 0), (4, 5, 6), (1, 2, 3)])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_voxel_lies_where_itk_puts_it(tmp_path: Path, suffix: str, point: tuple[int, int, int]) -> None:
    path = tmp_path / f"image{suffix}"
    image = itk_image()
    sitk.WriteImage(image, str(path))
    x, y, z = image.TransformIndexToPhysicalPoint(point)
    found = read_volume(path).geometry.affine_ras @ [*point, 1]
    np.testing.assert_allclose(found[:3], [-x, -y, z], atol=1e-6)


def test_big_endian_files_read_right(tmp_path: Path) -> None:
    body = RAMP.astype(">f4").tobytes(order="F")
    for path in (meta(tmp_path, body, BinaryDataByteOrderMSB="True"), nrrd(tmp_path, body, endian="big")):
        np.testing.assert_array_equal(read_volume(path).array, RAMP)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).transpose(2, 1, 0), RAMP)


def test_a_nrrd_in_ras_lies_in_ras(tmp_path: Path) -> None:
    path = nrrd(tmp_path, space="right-anterior-superior")
    np.testing.assert_allclose(read_volume(path).geometry.affine_ras[:3, 3], [1, 2, 3])
    path = nrrd(tmp_path)
    np.testing.assert_allclose(read_volume(path).geometry.affine_ras[:3, 3], [-1, -2, 3])


def test_a_label_map_keeps_its_integers(tmp_path: Path) -> None:
    labels = (np.arange(210).reshape(SHAPE) % 5).astype(np.int16)
    sitk.WriteImage(itk_image(labels), str(tmp_path / "seg.nrrd"))
    volume = read_volume(tmp_path / "seg.nrrd", "seg")
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, labels)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_2d_image_becomes_one_slice_with_a_note(tmp_path: Path, suffix: str) -> None:
    image = sitk.GetImageFromArray(np.ascontiguousarray(RAMP[:, :, 0].T))
    image.SetSpacing((0.5, 0.75))
    sitk.WriteImage(image, str(tmp_path / f"flat{suffix}"))
    volume = read_volume(tmp_path / f"flat{suffix}")
    assert volume.array.shape == (5, 6, 1)
    assert volume.geometry.spacing_mm == (0.5, 0.75, 1.0)
    assert "MX-GEO-015" in [n.code for n in volume.notes]
    np.testing.assert_array_equal(volume.array[..., 0], RAMP[:, :, 0])


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_series_asks_for_a_frame(tmp_path: Path, suffix: str) -> None:
    series = np.stack([RAMP, RAMP + 1000])
    image = sitk.JoinSeries([itk_image(a) for a in series])
    path = tmp_path / f"series{suffix}"
    sitk.WriteImage(image, str(path))
    assert code_of(path) == "MX-FIL-038"
    assert code_of(path, frame=2) == "MX-FIL-039"
    for frame in (0, 1):
        volume = read_volume(path, frame=frame)
        np.testing.assert_array_equal(volume.array, series[frame])
        np.testing.assert_allclose(volume.geometry.affine_ras, turned().affine_ras, atol=1e-6)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_vector_images_are_refused(tmp_path: Path, suffix: str) -> None:
    sitk.WriteImage(sitk.Compose([itk_image()] * 3), str(tmp_path / f"rgb{suffix}"))
    assert code_of(tmp_path / f"rgb{suffix}") in {"MX-FIL-046", "MX-FIL-041"}


def test_a_header_without_orientation_is_noted(tmp_path: Path) -> None:
    for path in (meta(tmp_path, TransformMatrix=None), nrrd(tmp_path, space="scanner-xyz")):
        assert [n.code for n in read_volume(path).notes] == ["MX-GEO-011"]
    path = nrrd(tmp_path, space=None, space_directions=None, space_origin=None, spacings="1 1 2")
    volume = read_volume(path)
    assert [n.code for n in volume.notes] == ["MX-GEO-011", "MX-GEO-009"]
    assert volume.geometry.spacing_mm == (1, 1, 2)


def test_a_header_without_voxel_size_is_noted(tmp_path: Path) -> None:
    path = meta(tmp_path, ElementSpacing=None)
    assert [n.code for n in read_volume(path).notes] == ["MX-GEO-009"]
    path = nrrd(tmp_path, space=None, space_directions=None, space_origin=None)
    assert [n.code for n in read_volume(path).notes] == ["MX-GEO-011", "MX-GEO-009", "MX-GEO-009"]


def test_a_header_without_position_is_noted(tmp_path: Path) -> None:
    for path in (meta(tmp_path, Offset=None), nrrd(tmp_path, space_origin=None)):
        volume = read_volume(path)
        assert [n.code for n in volume.notes] == ["MX-GEO-009"] and "position" in volume.notes[0].found
        np.testing.assert_array_equal(volume.geometry.affine_ras[:3, 3], 0)


def test_a_header_that_says_synthetic_is_believed(tmp_path: Path) -> None:
    assert read_volume(meta(tmp_path, Comment="SYNTHETIC T1ce")).synthetic
    assert read_volume(nrrd(tmp_path, extra="Comment:=Synthetic CT\n")).synthetic
    assert not read_volume(nrrd(tmp_path, extra="Comment:=acquired\n")).synthetic
    (tmp_path / "SYNTHETIC.raw").write_bytes(RAMP.tobytes(order="F"))
    assert not read_volume(meta(tmp_path, data_file="SYNTHETIC.raw", name="b.mhd")).synthetic


# --- damaged files ---


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("packed", [True, False])
def test_a_truncated_file_is_refused_at_any_length(tmp_path: Path, suffix: str, packed: bool) -> None:
    path = tmp_path / f"image{suffix}"
    sitk.WriteImage(itk_image(), str(path), useCompression=packed)
    (data_file,) = [p for p in tmp_path.iterdir() if p != path] or [path]
    whole = data_file.read_bytes()
    for length in sorted({*range(0, len(whole), 37), len(whole) - 1, len(whole) - 4, len(whole) - 8}):
        data_file.write_bytes(whole[:length])
        assert code_of(path) in {
            "MX-FIL-003", "MX-FIL-030", "MX-FIL-033", "MX-FIL-034", "MX-FIL-041", "MX-FIL-042", "MX-FIL-043"
        }  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_flipped_bit_in_compressed_voxels_is_never_silent(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    sitk.WriteImage(itk_image(), str(path), useCompression=True)
    (data_file,) = [p for p in tmp_path.iterdir() if p != path] or [path]
    whole = data_file.read_bytes()
    start = 0 if data_file != path else whole.rindex(b"\n\n" if suffix == ".nrrd" else b"LOCAL\n") + 6
    refused = 0
    for position in range(start + 12, len(whole), 5):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        data_file.write_bytes(damaged)
        try:
            np.testing.assert_array_equal(read_volume(path).array, RAMP)
        except InputError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"DimSize": "5 6 0"}, "MX-FIL-033"),
        ({"DimSize": "5 6 -7"}, "MX-FIL-033"),
        ({"DimSize": "5 6"}, "MX-FIL-033"),
        ({"NDims": "9"}, "MX-FIL-033"),
        ({"DimSize": "5 6 x"}, "MX-FIL-041"),
        ({"NDims": None}, "MX-FIL-041"),
        ({"DimSize": "100000 100000 100000"}, "MX-FIL-035"),
        ({"DimSize": "9" * 30 + " 1 1"}, "MX-FIL-041"),
        ({"DimSize": "50 60 70"}, "MX-FIL-034"),
        ({"DimSize": "1 1 7", "ElementNumberOfChannels": "30"}, "MX-FIL-046"),
        ({"ElementType": "MET_STRING"}, "MX-FIL-043"),
        ({"ElementType": None}, "MX-FIL-043"),
        ({"BinaryData": "False"}, "MX-FIL-043"),
        ({"CompressedData": "True"}, "MX-FIL-030"),
        ({"CompressedData": "Truth"}, "MX-FIL-041"),
        ({"CompressedDataSize": "840"}, "MX-FIL-041"),
        ({"BinaryDataByteOrderMSB": "maybe"}, "MX-FIL-041"),
        ({"BinaryData": ""}, "MX-FIL-041"),
        ({"HeaderSize": "-2"}, "MX-FIL-041"),
        ({"HeaderSize": "1000"}, "MX-FIL-034"),
        ({"TransformMatrix": "0 0 0 0 0 0 0 0 0"}, "MX-GEO-002"),
        ({"TransformMatrix": "1 0 0 0 1 0 0 0 nan"}, "MX-FIL-041"),
        ({"TransformMatrix": "1 0 0 0 1 0 0"}, "MX-FIL-041"),
        ({"ElementSpacing": "1 1"}, "MX-FIL-041"),
        ({"Offset": "1 2"}, "MX-FIL-041"),
        ({"Offset": ""}, "MX-FIL-041"),
        ({"Offset": "x 0 0"}, "MX-FIL-041"),
        ({"ElementSpacing": "0 1 1"}, None),
        ({"ElementSpacing": "nan 1 1"}, None),
        ({"Offset": "nan 0 0"}, "MX-FIL-041"),
    ],
    ids=str,
)
def test_metaimage_headers_that_cannot_be_true_are_refused(
    tmp_path: Path, fields: dict[str, str], code: str | None
) -> None:
    found = code_of(meta(tmp_path, **fields))
    assert found == code or (code is None and found.startswith(("MX-FIL-041", "MX-GEO-00")))


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"sizes": "5 6 0"}, "MX-FIL-033"),
        ({"sizes": "5 6"}, "MX-FIL-033"),
        ({"dimension": "4"}, "MX-FIL-033"),
        ({"sizes": "100000 100000 100000"}, "MX-FIL-035"),
        ({"sizes": "50 60 70"}, "MX-FIL-034"),
        ({"type": "block"}, "MX-FIL-043"),
        ({"type": None}, "MX-FIL-043"),
        ({"encoding": "ascii"}, "MX-FIL-043"),
        ({"encoding": "bzip2"}, "MX-FIL-043"),
        ({"encoding": "gzip"}, "MX-FIL-030"),
        ({"endian": None}, "MX-FIL-041"),
        ({"line_skip": "3"}, "MX-FIL-043"),
        ({"byte_skip": "x"}, "MX-FIL-041"),
        ({"space_directions": "(0,0,0) (0,1,0) (0,0,2)"}, None),
        ({"space_directions": "(1,0,0) (1,0,0) (0,0,2)"}, None),
        ({"space_directions": "(nan,0,0) (0,1,0) (0,0,2)"}, None),
        ({"space_directions": "garbage"}, "MX-FIL-041"),
        ({"space_directions": "(1,0,0) (0,1,0)"}, "MX-FIL-041"),
        ({"space_origin": "(nan,0,0)"}, None),
        ({"space_origin": "(x,0,0)"}, None),
        ({"space_origin": "(1,2)"}, "MX-FIL-041"),
    ],
    ids=str,
)
def test_nrrd_headers_that_cannot_be_true_are_refused(tmp_path: Path, fields: dict[str, str], code: str | None) -> None:
    found = code_of(nrrd(tmp_path, **fields))
    assert found == code or (code is None and found.startswith(("MX-FIL-041", "MX-GEO-00")))


def test_files_that_are_something_else_are_refused(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        for content in (b"hello", b"\xff" * 3000, b"a = b\n" * 10, b"NRRD0009", b"\n" * 100, RAMP.tobytes()):
            path = tmp_path / f"other{suffix}"
            path.write_bytes(content)
            assert code_of(path) in {"MX-FIL-041", "MX-FIL-043"}


def test_bytes_behind_the_voxels_are_refused(tmp_path: Path) -> None:
    body = RAMP.tobytes(order="F")
    for make in (meta, nrrd):
        assert code_of(make(tmp_path, body + b"\0")) == "MX-FIL-045"
    assert code_of(meta(tmp_path, zlib.compress(body + b"\0"), CompressedData="True")) == "MX-FIL-045"
    assert code_of(nrrd(tmp_path, gzip.compress(body + b"\0"), encoding="gzip")) == "MX-FIL-045"
    assert code_of(meta(tmp_path, zlib.compress(body) + b"rest", CompressedData="True")) == "MX-FIL-031"
    assert code_of(nrrd(tmp_path, gzip.compress(body) + b"rest", encoding="gzip")) == "MX-FIL-031"


def test_compressed_voxels_that_are_too_few_are_refused(tmp_path: Path) -> None:
    body = RAMP.tobytes(order="F")[:-4]
    assert code_of(meta(tmp_path, zlib.compress(body), CompressedData="True")) == "MX-FIL-034"
    assert code_of(nrrd(tmp_path, gzip.compress(body), encoding="gzip")) == "MX-FIL-034"


# --- data files ---


@pytest.mark.parametrize(
    "name", ["../secret.raw", "/etc/passwd", "..\\secret.raw", "C:secret.raw", "sub/secret.raw", "..", "."]
)
def test_data_outside_the_headers_folder_is_never_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.raw").write_bytes(RAMP.tobytes())
    folder = tmp_path / "sub"
    folder.mkdir()
    (folder / "secret.raw").write_bytes(RAMP.tobytes())
    assert code_of(meta(folder, data_file=name, name="a.mhd")) == "MX-FIL-042"
    assert code_of(nrrd(folder, b"", name="a.nhdr", data_file=name)) == "MX-FIL-042"


def test_a_missing_data_file_is_named(tmp_path: Path) -> None:
    for path in (
        meta(tmp_path, data_file="gone.raw", name="a.mhd"),
        nrrd(tmp_path, b"", name="a.nhdr", data_file="gone.raw"),
    ):
        with pytest.raises(InputError, match=r"gone\.raw"):
            read_volume(path)
        assert code_of(path) == "MX-FIL-042"


@pytest.mark.parametrize("name", ["LIST", "LIST 2", "slice%03d.raw 1 7 1"])
def test_voxels_spread_over_many_files_are_refused(tmp_path: Path, name: str) -> None:
    assert code_of(meta(tmp_path, data_file=name, name="a.mhd")) == "MX-FIL-043"
    assert code_of(nrrd(tmp_path, b"", name="a.nhdr", data_file=name)) == "MX-FIL-043"


@pytest.mark.parametrize("skip", [0, 100, -1])
def test_leading_bytes_of_a_data_file_are_skipped(tmp_path: Path, skip: int) -> None:
    (tmp_path / "d.raw").write_bytes(b"x" * (100 if skip else 0) + RAMP.tobytes(order="F"))
    for path in (
        meta(tmp_path, data_file="d.raw", name="a.mhd", HeaderSize=str(skip)),
        nrrd(tmp_path, b"", name="a.nhdr", data_file="d.raw", byte_skip=str(skip)),
    ):
        np.testing.assert_array_equal(read_volume(path).array, RAMP)


def test_leading_bytes_of_compressed_data_are_skipped(tmp_path: Path) -> None:
    packed = gzip.compress(b"x" * 100 + RAMP.tobytes(order="F"))
    np.testing.assert_array_equal(read_volume(nrrd(tmp_path, packed, encoding="gzip", byte_skip="100")).array, RAMP)
    assert code_of(nrrd(tmp_path, packed, encoding="gzip", byte_skip="-1")) == "MX-FIL-043"


def test_the_hash_covers_header_and_data(tmp_path: Path) -> None:
    (tmp_path / "d.raw").write_bytes(RAMP.tobytes(order="F"))
    path = meta(tmp_path, data_file="d.raw", name="a.mhd")
    first = read_volume(path).source.sha256
    (tmp_path / "d.raw").write_bytes((RAMP + 1).tobytes(order="F"))
    assert read_volume(path).source.sha256 != first


def test_reading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for path in (meta(tmp_path, TransformMatrix="0 0 0 0 0 0 0 0 0"), nrrd(tmp_path, space_directions="garbage")):
        with pytest.raises(InputError):
            read_volume(path)
    assert capfd.readouterr() == ("", "")


# --- writing ---


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
def test_what_is_written_comes_back(tmp_path: Path, suffix: str, dtype: str) -> None:
    array = np.arange(210).reshape(SHAPE).astype(dtype)
    path = tmp_path / f"out{suffix}"
    write_image(array, turned(), path, "a remark")
    back = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back).transpose(2, 1, 0), array)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.geometry.corners_ras(), turned().corners_ras(), atol=1e-6)
    assert volume.notes == ()
    assert b"a remark" in path.read_bytes()


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_200_oblique_grids_come_back_within_a_millionth_of_a_millimetre(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(1)
    array = np.zeros((2, 3, 4), np.uint8)
    for _ in range(200):
        turn, _r = np.linalg.qr(rng.normal(size=(3, 3)))
        affine = np.eye(4)
        affine[:3, :3] = turn * rng.uniform(0.3, 5, 3)
        affine[:3, 3] = rng.uniform(-300, 300, 3)
        write_image(array, Geometry(array.shape, affine), tmp_path / f"a{suffix}")
        np.testing.assert_allclose(read_volume(tmp_path / f"a{suffix}").geometry.affine_ras, affine, atol=1e-6)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_sheared_grid_is_refused(tmp_path: Path, suffix: str) -> None:
    affine = np.eye(4)
    affine[0, 1] = 2e-4
    with pytest.raises(InputError) as caught:
        write_image(RAMP, Geometry(SHAPE, affine), tmp_path / f"a{suffix}")
    assert caught.value.code == "MX-GEO-014"
    affine[0, 1] = 5e-5
    write_image(RAMP, Geometry(SHAPE, affine), tmp_path / f"a{suffix}")
    np.testing.assert_allclose(read_volume(tmp_path / f"a{suffix}").geometry.affine_ras, affine, atol=1e-6)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_the_same_volume_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in "ab":
        write_image(RAMP, turned(), tmp_path / f"{name}{suffix}", "x")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
