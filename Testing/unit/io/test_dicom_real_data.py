"""Real DICOM series of six vendors: geometry and voxels against SimpleITK, facts, and why others are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread

from MedXlateCore.errors import InputError, MedXlateError
from MedXlateCore.io import read_volume
from MedXlateCore.io.dicom_read import list_stacks
from MedXlateCore.volume import Geometry

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "dicom"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"the real DICOM series are not at {DATA}"),
]

SOUND = {
    "ProstateX-0000/siemens_skyra_ADC": "ADC",
    "ProstateX-0000/siemens_skyra_calcBVAL": "DWI",
    "ProstateX-0000/siemens_skyra_t2_tse_tra": "T2",
    "ProstateX-0000/siemens_skyra_tfl3d_PD": "PD",
    "ProstateX-0218/siemens_trio_ADC": "ADC",
    "ProstateX-0218/siemens_trio_vibe_flip02_PD": "PD",
    "ProstateX-0218/siemens_trio_vibe_flip20": "T1",
    "STS_001_raw/siemens_avanto_T1_SE": "T1",
    "STS_001_raw/siemens_avanto_T2_FS": "T2",
    "STS_042/CT": None,
    "STS_042/MR_T1": "T1",
    "STS_042/PET": "FDG",
    "awkward/missing_slice_increment": None,
    "awkward/non_isotropic": None,
    "awkward/too_few_slices": "FLAIR",
    "awkward/transfer_jpeg2000": "FLAIR",
    "awkward/transfer_rle": "FLAIR",
    "fnndsc_adi/siemens_trio_MEMPRAGE_RMS_sag": "T1",
    "fnndsc_adi/siemens_trio_T2_FSE_ax": "T2",
    "multivendor/ge_discovery_mr750_T1": "T1",
    "multivendor/hitachi_echelon": "PD",
    "multivendor/hyperfine_multiframe_FLAIR": "FLAIR",
    "multivendor/philips_achieva_enhanced": "T1",
    "multivendor/philips_cs_dl_T1W_FFE_classic": "T1",
    "multivendor/philips_cs_dl_T1W_TSE_enhanced": "T1",
    "multivendor/philips_intera_FLAIR": "FLAIR",
    "multivendor/siemens_enhanced": None,
    "multivendor/siemens_trio_FLAIR": "FLAIR",
    "toshiba_titan/ADC": "ADC",
    "toshiba_titan/T2_ax": "T2",
}
"""Series that are one sound volume, and the sequence or tracer that their facts must name."""

ANSWERS = {
    "STS_042/CT_RTSTRUCT": "MX-DCM-005",
    "STS_042/MR_T1_RTSTRUCT": "MX-DCM-005",
    "STS_042/PET_RTSTRUCT": "MX-DCM-005",
    "awkward/mixed_orientation": "MX-DCM-002",
    "awkward/nine_transfer_syntaxes": "MX-DCM-005",
    "awkward/rgb": "MX-DCM-005",
    "ge_signa/breast_DCE_3phase": "MX-DCM-002",
}


def folders() -> list[str]:
    found = (path.parent for path in DATA.rglob("*") if path.is_file())
    return sorted({path.relative_to(DATA).as_posix() for path in found} - {"."})


def by_simpleitk(folder: Path) -> tuple[np.ndarray, Geometry]:
    """Return voxels [I, J, K] and grid in RAS of the series in a folder."""
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    files = list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    image = sitk.ReadImage(files if len(files) > 1 else files[0])
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    array = sitk.GetArrayFromImage(image).T
    return array, Geometry(array.shape, np.diag([-1.0, -1, 1, 1]) @ affine)


def test_every_folder_has_its_expected_answer_here():
    special = {"awkward/gantry_tilt", "awkward/transfer_jpeg", "awkward/transfer_jpegls"}
    assert set(folders()) == set(SOUND) | set(ANSWERS) | special


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_series_lies_where_simpleitk_says_and_has_its_voxels(name: str):
    volume = read_volume(DATA / name)
    array, geometry = by_simpleitk(DATA / name)
    assert volume.geometry.allclose(geometry, tolerance_mm=1e-3)
    assert np.allclose(volume.array, array, rtol=1e-6, atol=1e-6 * np.abs(array).max())
    assert volume.notes == ()
    assert volume.acquisition is not None
    assert volume.acquisition.sequence == SOUND[name]


@pytest.mark.parametrize("name", ANSWERS)
def test_what_is_not_one_volume_is_refused_for_its_reason(name: str):
    with pytest.raises(InputError) as caught:
        read_volume(DATA / name)
    assert caught.value.code == ANSWERS[name]


def test_a_tilted_ct_keeps_its_shear():
    volume = read_volume(DATA / "awkward/gantry_tilt", "CT")
    assert [note.code for note in volume.notes] == ["MX-DCM-104"]
    assert "14.00 degrees" in volume.notes[0].found
    first = dcmread(sorted((DATA / "awkward/gantry_tilt").iterdir())[2])
    position = np.array(first.ImagePositionPatient, float) * [-1, -1, 1]
    assert np.allclose(volume.geometry.affine_ras @ [0, 0, 2, 1], [*position, 1], atol=1e-6)


@pytest.mark.parametrize("name", ["transfer_jpeg", "transfer_jpegls", "transfer_jpeg2000", "transfer_rle"])
def test_a_compressed_series_has_the_voxels_of_the_uncompressed_one_or_its_codec_is_named(name: str):
    try:
        volume = read_volume(DATA / "awkward" / name)
    except MedXlateError as error:
        assert error.code == "MX-DCM-021"
        assert error.exit_code == 4
        assert "pip install" in error.fix
        return
    assert np.array_equal(volume.array, by_simpleitk(DATA / "awkward" / name)[0])


def test_nine_transfer_syntaxes_hold_one_image_as_far_as_codecs_are_here(tmp_path: Path):
    """The files are mosaics, which are refused: only their voxels are compared, taken as single slices."""
    arrays = []
    for path in sorted((DATA / "awkward/nine_transfer_syntaxes").iterdir()):
        folder = tmp_path / path.stem
        folder.mkdir()
        dataset = dcmread(path)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        dataset.save_as(folder / "slice.dcm")
        try:
            arrays.append(read_volume(folder).array)
        except MedXlateError as error:
            assert error.code == "MX-DCM-021"
    assert len(arrays) >= 5
    assert all(np.array_equal(array, arrays[0]) for array in arrays)


def test_three_dynamic_phases_are_three_volumes_of_the_same_place():
    listed, _ = list_stacks(DATA / "ge_signa/breast_DCE_3phase")
    assert [item.role.value for item in listed] == ["T1"] * 3
    assert all(item.facts.acquisition.fat_suppressed for item in listed)
    assert {item.facts.acquisition.field_strength_t for item in listed} == {1.5}
    phases = [read_volume(DATA / "ge_signa/breast_DCE_3phase", "T1", frame=n) for n in range(3)]
    assert all(phase.geometry.allclose(phases[0].geometry) for phase in phases)
    brightness = [float(phase.array.mean()) for phase in phases]
    assert brightness[0] < min(brightness[1:])  # the agent has come


@pytest.mark.parametrize(
    ("folder", "role", "series"),
    [
        ("ProstateX-0000", "T2", "siemens_skyra_t2_tse_tra"),
        ("ProstateX-0218", "T1", "siemens_trio_vibe_flip20"),
        ("ProstateX-0218", "PD", "siemens_trio_vibe_flip02_PD"),
        ("STS_042", "CT", "CT"),
        ("STS_042", "PET", "PET"),
        ("STS_042", "T1", "MR_T1"),
    ],
)
def test_of_a_patients_folder_the_series_of_a_role_is_found(folder: str, role: str, series: str):
    assert read_volume(DATA / folder, role).source.sha256 == read_volume(DATA / folder / series, role).source.sha256


BROKEN = {
    "a slice taken away": (lambda files: files[7].unlink(), "MX-DCM-012"),
    "a slice without position": (lambda files: _edit(files[3], "ImagePositionPatient"), "MX-DCM-010"),
    "a slice without voxels": (lambda files: _edit(files[3], "PixelData"), "MX-DCM-020"),
    "a file cut off in its voxels": (lambda files: files[5].write_bytes(files[5].read_bytes()[:-999]), "MX-FIL-034"),
    "a file cut off in its header": (lambda files: files[5].write_bytes(files[5].read_bytes()[:700]), "MX-DCM-012"),
    "a slice of another matrix": (lambda files: _edit(files[5], "Rows", 64), "MX-DCM-002"),
    "a slice turned": (lambda files: _edit(files[5], "ImageOrientationPatient", [0, 1, 0, 0, 0, -1]), "MX-DCM-002"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_spoiled_copy_of_a_real_series_is_refused(tmp_path: Path, what: str):
    spoil, code = BROKEN[what]
    shutil.copytree(DATA / "ProstateX-0000/siemens_skyra_tfl3d_PD", tmp_path / "s")
    files = sorted((tmp_path / "s").iterdir())
    for path in files:
        path.chmod(0o644)
    spoil(files)
    with pytest.raises(InputError) as caught:
        read_volume(tmp_path / "s", "PD")
    assert caught.value.code == code


def _edit(path: Path, keyword: str, value: object = None) -> None:
    dataset = dcmread(path)
    if value is None:
        delattr(dataset, keyword)
    else:
        setattr(dataset, keyword, value)
    dataset.save_as(path)
