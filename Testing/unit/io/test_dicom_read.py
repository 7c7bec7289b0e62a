"""DICOM series made of numbers: where they lie, what their voxels are, which is chosen, what is said about them.

What is refused, and with which warning odd series are read, stands in ``Testing/faults/table/dicom.toml``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from dicom_made import places, write_enhanced, write_series
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, generate_uid

from MedXlateCore.errors import InputError
from MedXlateCore.files import sha256_file
from MedXlateCore.io import check_input_format, read_volume, source_sha256
from MedXlateCore.io.dicom_read import list_stacks
from MedXlateCore.provenance import describe_volume
from MedXlateCore.volume import Geometry, Modality

AXIAL = np.array([[-2.0, 0, 0, 30], [0, -1.5, 0, 40], [0, 0, 5, -20], [0, 0, 0, 1]])


def some_voxels(shape: tuple[int, int, int] = (6, 5, 4), low: int = -50, high: int = 900) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, shape).astype(np.int16)


def turned(degrees: tuple[float, float, float], spacing=(0.7, 1.3, 4.0), origin=(11.0, -37.5, 80.25)) -> np.ndarray:
    matrix = np.diag([-1.0, -1.0, 1.0])
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = [n for n in range(3) if n != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[b, a], turn[a, b] = np.sin(angle), -np.sin(angle)
        matrix = turn @ matrix
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix * spacing, origin
    return affine


def code_of(*arguments, **settings) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(*arguments, **settings)
    return caught.value.code


# --- where it lies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [(0, 0, 0), (0, 90, 0), (90, 0, 0), (20, -35, 12), (-75, 40, 100), (180, 3, 0)])
def test_the_affine_is_that_of_the_slices_whatever_their_direction(tmp_path: Path, degrees) -> None:
    array, affine = some_voxels(), turned(degrees)
    write_series(tmp_path, array, affine)
    volume = read_volume(tmp_path)
    assert volume.geometry.allclose(Geometry(array.shape, affine), tolerance_mm=1e-6)
    assert np.array_equal(volume.array, array)


def test_slices_written_from_top_to_bottom_get_a_right_handed_grid_with_the_same_voxels(
    tmp_path: Path,
) -> None:
    array, affine = some_voxels(), turned((10, 20, 30))
    down = affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 3], [0, 0, 0, 1]])
    write_series(tmp_path, array[:, :, ::-1], down)
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, array)
    assert volume.geometry.allclose(Geometry(array.shape, affine), tolerance_mm=1e-6)


def test_frames_of_an_enhanced_object_are_sorted_by_position_and_scaled_each_by_its_own(tmp_path: Path) -> None:
    array = some_voxels()
    write_enhanced(tmp_path / "e.dcm", array, AXIAL, order=[2, 0, 3, 1])
    volume = read_volume(tmp_path / "e.dcm")
    assert volume.geometry.allclose(Geometry(array.shape, AXIAL), tolerance_mm=1e-6)
    assert np.array_equal(volume.array, array * (1 + np.arange(4) / 8))
    assert volume.array.flags.f_contiguous


def test_a_tilted_stack_keeps_every_voxel_where_it_was_measured(tmp_path: Path) -> None:
    array, affine = some_voxels(), AXIAL.copy()
    affine[:3, 2] = [0, 1.25, 5]
    write_series(tmp_path, array, affine)
    volume = read_volume(tmp_path)
    assert volume.geometry.allclose(Geometry(array.shape, affine), tolerance_mm=1e-6)
    assert [note.code for note in volume.notes] == ["MX-DCM-104"]


def test_a_single_slice_is_as_thick_as_its_header_says_or_1_mm_with_a_warning(tmp_path: Path) -> None:
    array = some_voxels((6, 5, 1))
    write_series(tmp_path / "thick", array, AXIAL, SliceThickness=3.5)
    write_series(tmp_path / "bare", array, AXIAL)
    assert read_volume(tmp_path / "thick").geometry.spacing_mm == pytest.approx((2, 1.5, 3.5))
    bare = read_volume(tmp_path / "bare")
    assert bare.geometry.spacing_mm == pytest.approx((2, 1.5, 1))
    assert [note.code for note in bare.notes] == ["MX-GEO-015"]


def test_positions_decide_and_slice_location_does_not(tmp_path: Path) -> None:
    array = some_voxels()
    write_series(tmp_path, array, AXIAL, change=lambda dataset, k: setattr(dataset, "SliceLocation", -7.0 * k))
    assert np.array_equal(read_volume(tmp_path).array, array)


# --- voxels --------------------------------------------------------------------------------------------------------


ENCODINGS = {
    ImplicitVRLittleEndian: {"implicit_vr": True, "little_endian": True},
    ExplicitVRBigEndian: {"implicit_vr": False, "little_endian": False},
    DeflatedExplicitVRLittleEndian: {"implicit_vr": False, "little_endian": True},
}


@pytest.mark.parametrize("syntax", ENCODINGS)
def test_every_uncompressed_way_of_writing_gives_the_same_voxels(tmp_path: Path, syntax) -> None:
    array = some_voxels()
    for path in write_series(tmp_path, array, AXIAL):
        dataset = dcmread(path)
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax is ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").byteswap().tobytes()
        dcmwrite(path, dataset, force_encoding=True, **ENCODINGS[syntax])
    assert np.array_equal(read_volume(tmp_path).array, array)


@pytest.mark.parametrize(("signed", "low", "high"), [(1, -2048, 2048), (0, 0, 4096)])
def test_bits_beside_the_twelve_stored_ones_do_not_count(tmp_path: Path, signed: int, low: int, high: int) -> None:
    array = some_voxels(low=low, high=high)
    overlay = np.random.default_rng(1).integers(0, 16, array.shape) << 12

    def spoil(dataset: Dataset, k: int) -> None:
        words = (array[:, :, k].T.astype(np.int32) & 0xFFF) | overlay[:, :, k].T
        dataset.PixelData = words.astype("<u2").tobytes()
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, signed

    write_series(tmp_path, array, AXIAL, change=spoil)
    assert np.array_equal(read_volume(tmp_path).array, array)


def test_slices_with_their_own_slope_and_intercept_become_one_scale(tmp_path: Path) -> None:
    array = some_voxels()

    def scale(dataset: Dataset, k: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = [0.5, 2, 1, 0.25][k], [0, -100, 10, 3][k]

    write_series(tmp_path, array, AXIAL, change=scale)
    expected = array * np.array([0.5, 2, 1, 0.25]) + np.array([0, -100, 10, 3])
    assert np.array_equal(read_volume(tmp_path).array, expected.astype(np.float32))


def test_signed_and_unsigned_slices_in_one_series_keep_their_values(tmp_path: Path) -> None:
    array = some_voxels(low=0, high=30000).astype(np.int32)
    array[:, :, 1] -= 100
    array[:, :, 2] += 30000

    def store(dataset: Dataset, k: int) -> None:
        kind = "<i2" if k == 1 else "<u2"
        dataset.PixelData, dataset.PixelRepresentation = array[:, :, k].T.astype(kind).tobytes(), int(k == 1)

    write_series(tmp_path, array.astype(np.int16), AXIAL, change=store)
    assert np.array_equal(read_volume(tmp_path).array, array)


def test_an_inverted_mr_is_turned_round_and_an_inverted_ct_keeps_its_hounsfield_units(tmp_path: Path) -> None:
    array = some_voxels()
    write_series(
        tmp_path / "mr", array, AXIAL, change=lambda d, k: setattr(d, "PhotometricInterpretation", "MONOCHROME1")
    )

    def as_ct(dataset: Dataset, k: int) -> None:
        dataset.SOPClassUID, dataset.Modality = "1.2.840.10008.5.1.4.1.1.2", "CT"
        dataset.PhotometricInterpretation = "MONOCHROME1"

    write_series(tmp_path / "ct", array, AXIAL, change=as_ct)
    assert np.array_equal(read_volume(tmp_path / "mr", "T1").array, int(array.min()) + int(array.max()) - array)
    ct = read_volume(tmp_path / "ct", "CT")
    assert np.array_equal(ct.array, array)
    assert [note.code for note in ct.notes] == ["MX-DCM-108"]


def test_a_label_map_keeps_its_integers(tmp_path: Path) -> None:
    array = some_voxels(low=0, high=4)
    write_series(tmp_path, array, AXIAL, RescaleSlope=1, RescaleIntercept=0)
    volume = read_volume(tmp_path, "label")
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array, array)


def test_an_image_that_says_it_is_synthetic_is_synthetic(tmp_path: Path) -> None:
    write_series(tmp_path, some_voxels(), AXIAL, SyntheticData="YES")
    assert read_volume(tmp_path).synthetic


# --- which one -----------------------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Return a folder with a dual-echo series (PD, T2), a T1 with and one without contrast agent, and a report."""
    array = some_voxels()
    write_series(tmp_path / "a", array, AXIAL, series="1.2.3.1", EchoTime=15.0, RepetitionTime=3000.0)
    write_series(tmp_path / "b", array + 1, AXIAL, series="1.2.3.1", EchoTime=100.0, RepetitionTime=3000.0)
    write_series(tmp_path / "c", array + 2, AXIAL, series="1.2.3.2", SeriesNumber=2)
    write_series(tmp_path / "d", array + 3, AXIAL, series="1.2.3.3", SeriesNumber=3, ContrastBolusAgent="GADOVIST")
    (tmp_path / "report.txt").write_text("hello")
    return tmp_path


@pytest.mark.parametrize(("role", "offset"), [("PD", 0), ("T2", 1), ("T1", 2), ("T1ce", 3)])
def test_the_only_volume_of_a_role_is_chosen(study: Path, role: str, offset: int) -> None:
    volume = read_volume(study, role)
    assert np.array_equal(volume.array, some_voxels() + offset)
    assert [note.code for note in volume.notes] == ["MX-DCM-101"]
    assert source_sha256(study, role) == volume.source.sha256


def test_a_role_that_no_volume_has_and_no_role_at_all_list_the_candidates(study: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_volume(study, "FLAIR")
    assert caught.value.code == "MX-DCM-002"
    names = [item.stack.name for item in list_stacks(study)[0]]
    assert len(set(names)) == 4
    assert all(f"#{name}" in caught.value.expected for name in names)
    assert code_of(study) == "MX-DCM-002"


def test_every_listed_name_chooses_its_volume(study: Path) -> None:
    for item in list_stacks(study)[0]:
        volume = read_volume(f"{study}#{item.stack.name}")
        files = {frame.header.path.parent.name for frame in item.stack.frames}
        assert files == {"abcd"[int(volume.array[0, 0, 0] - some_voxels()[0, 0, 0])]}


def test_a_series_is_chosen_by_its_uid_and_a_volume_of_it_by_frame(study: Path) -> None:
    assert np.array_equal(read_volume(f"{study}#1.2.3.2").array, some_voxels() + 2)
    assert np.array_equal(read_volume(f"{study}#1.2.3.1", frame=1).array, some_voxels() + 1)
    assert code_of(f"{study}#1.2.3.1") == "MX-DCM-002"
    assert code_of(f"{study}#1.2.3.1", frame=2) == "MX-FIL-039"
    assert code_of(f"{study}#1.2.3.4") == "MX-DCM-003"


def test_time_points_and_b_values_of_one_series_are_volumes_of_their_own(tmp_path: Path) -> None:
    for point in range(3):
        write_series(tmp_path / "t", some_voxels() + point, AXIAL, AcquisitionNumber=point + 1)
    kind = ["ORIGINAL", "PRIMARY", "DIFFUSION"]
    for b in (0.0, 800.0):
        write_series(tmp_path / "b", some_voxels(), AXIAL, DiffusionBValue=b, ImageType=kind)
    points, _ = list_stacks(tmp_path / "t")
    assert [item.stack.apart for item in points] == [f"time point {n} of 3" for n in (1, 2, 3)]
    assert [read_volume(tmp_path / "t", frame=n).array[0, 0, 0] for n in range(3)] == [
        some_voxels()[0, 0, 0] + n for n in range(3)
    ]
    diffusion, _ = list_stacks(tmp_path / "b")
    assert [item.stack.apart for item in diffusion] == ["b value 0 s/mm2", "b value 800 s/mm2"]
    assert {item.facts.acquisition.sequence for item in diffusion} == {"DWI"}


def test_a_file_stands_for_its_series_and_a_file_alone_for_itself(tmp_path: Path) -> None:
    files = write_series(tmp_path / "s", some_voxels(), AXIAL)
    write_series(tmp_path / "s", some_voxels() + 5, AXIAL, series="1.2.3.9")
    whole = read_volume(files[2], "T1")
    assert np.array_equal(whole.array, some_voxels())
    assert [note.code for note in whole.notes] == ["MX-DCM-109"]
    alone = tmp_path / "alone" / "IM1"
    alone.parent.mkdir()
    alone.write_bytes(files[2].read_bytes())
    assert check_input_format(alone) == ".dcm"
    volume = read_volume(alone)
    assert volume.array.shape == (6, 5, 1)
    assert volume.source.sha256 == sha256_file(alone) == source_sha256(alone)


def test_a_folder_whose_name_holds_the_sign_is_a_folder(tmp_path: Path) -> None:
    write_series(tmp_path / "a#b", some_voxels(), AXIAL)
    assert read_volume(tmp_path / "a#b").source.name == "a#b"


def test_a_dicomdir_is_not_followed_out_of_its_folder(tmp_path: Path) -> None:
    outside = write_series(tmp_path / "outside", some_voxels(), AXIAL)
    files = FileSet()
    for path in outside:
        dataset = dcmread(path)
        dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20200101", "101010", "1"
        files.add(dataset)
    (tmp_path / "media").mkdir()
    files.write(tmp_path / "media")
    directory = tmp_path / "media" / "DICOMDIR"
    assert read_volume(directory).array.shape == (6, 5, 4)
    hostile = dcmread(directory)
    for record in hostile.DirectoryRecordSequence:
        if "ReferencedFileID" in record:
            record.ReferencedFileID = ["..", "outside", "IM0000.dcm"]
    for path in (tmp_path / "media").rglob("*"):
        if path.is_file():
            path.unlink()
    hostile.save_as(directory)
    assert code_of(directory) == "MX-DCM-001"


# --- what is said and kept -----------------------------------------------------------------------------------------


def test_nothing_that_identifies_anyone_is_kept(tmp_path: Path) -> None:
    secrets = {
        "PatientName": "Somebody^Famous", "PatientID": "P-7777", "PatientBirthDate": "19700101",
        "InstitutionName": "Clinic X", "ReferringPhysicianName": "Dr^Whoever", "OperatorsName": "Oper^Ator",
        "AccessionNumber": "ACC123", "StudyDate": "20200202", "DeviceSerialNumber": "SER99", "StationName": "STAT1",
        "SeriesDescription": "for Mrs Famous T1", "StudyID": "ST42", "PatientComments": "secret",
        "RequestedProcedureDescription": "head of Famous",
    }  # fmt: skip
    write_series(tmp_path / "s", some_voxels(), AXIAL, series="1.2.3.99", **secrets)
    write_series(tmp_path / "s", some_voxels() + 1, AXIAL, series="1.2.3.98", **secrets)
    name = list_stacks(tmp_path / "s")[0][0].stack.name
    for choice in (name, "1.2.3.99"):
        volume = read_volume(f"{tmp_path / 's'}#{choice}", "T1")
        kept = json.dumps([dataclasses.asdict(volume.acquisition), describe_volume(volume)], default=str)
        kept += repr(volume.source) + "".join(note.as_text() for note in volume.notes) + volume.name
        words = {word for value in secrets.values() for word in re.split(r"[\^ ]", value) if len(word) > 3}
        assert [word for word in words | {"1.2.3.9"} if word in kept] == []
    with pytest.raises(InputError) as caught:
        read_volume(tmp_path / "s", "T1")
    assert [word for word in words | {"1.2.3.9"} if word in caught.value.as_text()] == []


def test_the_hash_is_of_all_files_and_changes_with_any(tmp_path: Path) -> None:
    files = write_series(tmp_path, some_voxels(), AXIAL)
    before = read_volume(tmp_path).source.sha256
    lines = "\n".join(sha256_file(path) for path in files)
    assert before == hashlib.sha256(lines.encode()).hexdigest() == source_sha256(tmp_path)
    dataset = dcmread(files[3])
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(files[3])
    assert read_volume(tmp_path).source.sha256 != before


def test_reading_changes_no_file(tmp_path: Path) -> None:
    files = write_series(tmp_path, some_voxels(), AXIAL, InstanceCreatorUID=generate_uid())
    before = [(path.stat().st_mtime_ns, sha256_file(path)) for path in files]
    read_volume(tmp_path)
    assert [(path.stat().st_mtime_ns, sha256_file(path)) for path in files] == before


def test_the_declared_role_stays_whatever_the_tags_say(tmp_path: Path) -> None:
    write_series(tmp_path, some_voxels(), AXIAL)
    volume = read_volume(tmp_path, "FLAIR")
    assert volume.modality is Modality.FLAIR
    assert [note.code for note in volume.notes] == ["MX-DCM-113"]
    assert read_volume(tmp_path).modality is Modality.OTHER


def test_the_made_series_lie_where_they_are_said_to(tmp_path: Path) -> None:
    """The maker itself, against another reader: its mistakes would be ours too."""
    import SimpleITK as sitk

    array, affine = some_voxels(), turned((20, -35, 12))
    files = write_series(tmp_path, array, affine)
    image = sitk.ReadImage([str(path) for path in files])
    for index in ((0, 0, 0), (5, 4, 3), (2, 0, 1)):
        point = np.array(image.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]
        assert np.allclose(point, affine[:3, :3] @ index + affine[:3, 3], atol=1e-5)
    assert len(places(affine, 4)[2]) == 4
