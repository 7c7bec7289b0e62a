"""The real files: every one is read, or refused for the reason it deserves."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from MedXlateCore.errors import InputError
from MedXlateCore.io import read_volume
from MedXlateCore.volume import Modality

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
AWKWARD = DATA / "awkward"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"the real volumes are not at {DATA}"),
]

REFUSED = {
    "5D_small.nii": "MX-FIL-046",
    "analyze.hdr": "MX-FIL-032",
    "example4d.nii.gz": "MX-FIL-038",
    "example_nifti2.nii.gz": "MX-FIL-038",
    "freesurfer_brain.mgz": "MX-FIL-040",
    "functional.nii": "MX-FIL-038",
    "minc2_4d.mnc": "MX-FIL-040",
    "nifti1.hdr": "MX-FIL-042",
    "not-nifti.nii": "MX-FIL-032",
    "pcasl.nii.gz": "MX-FIL-038",
    "small.mnc": "MX-FIL-040",
    "test.mgz": "MX-FIL-040",
    "derived/4d_channels.nii.gz": "MX-FIL-038",
    "derived/complex64.nii.gz": "MX-FIL-036",
    "derived/corrupt_crc.nii.gz": "MX-FIL-030",
    "derived/rgb24.nii.gz": "MX-FIL-046",
    "derived/truncated.nii.gz": "MX-FIL-030",
    "derived/truncated_raw.nii": "MX-FIL-034",
    "derived/pair/analyze75.hdr": "MX-FIL-032",
    "derived/pair/analyze75.img": "MX-FIL-032",
}
NOTED = {"derived/no_qform_sform.nii.gz": ["MX-GEO-011"]}


def awkward_files() -> list[str]:
    return sorted(p.relative_to(AWKWARD).as_posix() for p in AWKWARD.rglob("*") if p.is_file())


@pytest.mark.parametrize("name", awkward_files())
def test_each_awkward_file_is_read_or_refused_for_its_reason(name: str) -> None:
    if name in REFUSED:
        with pytest.raises(InputError) as caught:
            read_volume(AWKWARD / name)
        assert caught.value.code == REFUSED[name]
        return
    volume = read_volume(AWKWARD / name)
    assert [note.code for note in volume.notes] == NOTED.get(name, [])
    if name.endswith((".mha", ".nrrd")):
        expected = sitk.GetArrayFromImage(sitk.ReadImage(str(AWKWARD / name))).transpose(2, 1, 0)
    else:
        image = nib.load(AWKWARD / name)
        expected = np.asarray(image.dataobj).reshape(volume.array.shape)
        np.testing.assert_allclose(volume.geometry.affine_ras, image.affine, atol=1e-6)
    np.testing.assert_array_equal(volume.array, expected.astype(np.float32))


@pytest.mark.parametrize("name", [n for n, code in REFUSED.items() if code == "MX-FIL-038"])
def test_a_frame_of_each_series_reads_as_nibabel_reads_it(name: str) -> None:
    image = nib.load(AWKWARD / name)
    last = image.shape[3] - 1
    volume = read_volume(AWKWARD / name, frame=last)
    np.testing.assert_array_equal(volume.array, np.asarray(image.dataobj[..., last]).astype(np.float32))


def test_one_image_in_many_disguises_is_one_image() -> None:
    """The derived files stem from one MR: byte order, scale factors, format and 2D storage must not show."""
    read = {
        name: read_volume(AWKWARD / "derived" / name)
        for name in ("mr.mha", "mr.nrrd", "bigendian_float32.nii.gz", "no_qform_sform.nii.gz", "2d.nii.gz")
    }
    np.testing.assert_array_equal(read["mr.mha"].array, read["mr.nrrd"].array)
    np.testing.assert_allclose(read["mr.mha"].geometry.affine_ras, read["mr.nrrd"].geometry.affine_ras, atol=1e-6)
    single = read_volume(AWKWARD / "derived" / "single_slice.nii.gz")
    np.testing.assert_array_equal(single.array, read["2d.nii.gz"].array)
    big, little = read_volume(AWKWARD / "big.nii.gz"), read_volume(AWKWARD / "little.nii.gz")
    np.testing.assert_array_equal(big.array, little.array)


def test_every_nifti_of_the_collection_reads_with_the_shape_its_manifest_states() -> None:
    entries = json.loads((DATA / "manifest.json").read_text())["files"]
    seen = 0
    for entry in entries:
        name = entry["file"]
        if not name.endswith(".nii.gz") or name.startswith("awkward") or not (DATA / name).is_file():
            continue
        is_label = any(word in name.lower() for word in ("mask", "seg", "truth", "multiclass", "gold"))
        volume = read_volume(DATA / name, Modality.LABEL if is_label else None)
        assert volume.notes == (), name
        assert volume.source.sha256 == entry["sha256"], name
        assert [n for n in volume.array.shape if n > 1] == [n for n in entry["shape"] if n > 1], name
        assert volume.array.dtype.kind in ("iu" if is_label else "f")
        seen += 1
    assert seen > 150
