"""Sample cases: made once, reused only when whole, registered without work."""

import re

import mrml
import numpy as np
import pytest
from MedXlateSlicerLib.bridge import roi_from_segmentation, volume_from_node
from MedXlateSlicerLib.roles import detect_roles
from MedXlateSlicerLib.sample_data import (
    PHANTOM_SEEDS,
    PUBLIC_CASES,
    load_phantom_case,
    phantom_case,
    register_sample_data,
    remove_phantom_cases,
)
from standin.extras import sample_data

from MedXlateCore.io import read_volume
from MedXlateCore.volume import Modality

COARSE = (6.0, 6.0, 8.0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    phantom_case(folder, spacing_mm=COARSE)
    return folder


def test_a_phantom_case_has_four_sequences_and_the_region(cache):
    files = phantom_case(cache, spacing_mm=COARSE)
    assert set(files) == {"T1", "T1ce", "T2", "FLAIR", "region"}
    volumes = {role: read_volume(path, "label" if role == "region" else role) for role, path in files.items()}
    assert len({volume.geometry.shape for volume in volumes.values()}) == 1
    assert volumes["region"].array.any()


def test_a_case_made_once_is_used_again(cache):
    first = phantom_case(cache, spacing_mm=COARSE)
    times = {path: path.stat().st_mtime_ns for path in first.values()}
    again = phantom_case(cache, spacing_mm=COARSE)
    assert {path: path.stat().st_mtime_ns for path in again.values()} == times


@pytest.mark.parametrize("damage", ["cut", "missing", "no list", "list is text", "list is empty"])
def test_a_damaged_case_is_made_again(cache, damage):
    files = phantom_case(cache, spacing_mm=COARSE)
    good = files["T2"].read_bytes()
    listing = files["T2"].parent / "phantom.json"
    if damage == "cut":
        files["T2"].write_bytes(good[: len(good) // 2])
    elif damage == "missing":
        files["T2"].unlink()
    elif damage == "no list":
        listing.unlink()
    else:
        listing.write_text("not json" if damage == "list is text" else "[]")
    again = phantom_case(cache, spacing_mm=COARSE)
    assert again["T2"].read_bytes()[:400] == good[:400]
    assert read_volume(again["T2"], "T2").geometry.shape == read_volume(again["T1"], "T1").geometry.shape
    assert listing.is_file()


def test_another_spacing_makes_another_patient(cache, tmp_path):
    coarse = read_volume(phantom_case(cache, spacing_mm=COARSE)["T1"], "T1")
    finer = read_volume(phantom_case(tmp_path, spacing_mm=(5.0, 6.0, 8.0))["T1"], "T1")
    assert finer.geometry.shape != coarse.geometry.shape
    again = read_volume(phantom_case(tmp_path, spacing_mm=COARSE)["T1"], "T1")
    np.testing.assert_array_equal(again.array, coarse.array)


def test_a_phantom_loads_as_volumes_with_roles_and_a_segmentation_that_prompts(slicer_scene, cache):
    import slicer

    slicer.modules.segmentations.logic()
    nodes = load_phantom_case(slicer_scene, cache, spacing_mm=COARSE)
    images = [node for role, node in nodes.items() if role != "region"]
    roles = detect_roles(images, ["T1", "T1ce", "T2", "FLAIR"])
    assert {role.value: found.node for role, found in roles.items()} == {
        role: node for role, node in nodes.items() if role != "region"
    }
    segmentation = nodes["region"]
    parts = segmentation.GetSegmentation()
    ids = {
        parts.GetNthSegment(index).GetName(): parts.GetNthSegmentID(index)
        for index in range(parts.GetNumberOfSegments())
    }
    assert set(ids) <= {"core", "oedema", "enhancing"}
    labels = read_volume(phantom_case(cache, spacing_mm=COARSE)["region"], "label")
    chosen = {"core": [ids[name] for name in ("core", "enhancing") if name in ids], "oedema": [ids["oedema"]]}
    roi = roi_from_segmentation(segmentation, chosen, nodes["T1"], {"oedema": (2,), "core": (1,)})
    image = volume_from_node(nodes["T1"], "T1")
    assert roi.geometry.allclose(image.geometry)
    np.testing.assert_array_equal(roi.array > 0, labels.array > 0)
    np.testing.assert_array_equal(roi.array == 2, labels.array == 2)
    assert not [node for node in mrml.nodes_of(slicer_scene) if node.IsA("vtkMRMLLabelMapVolumeNode")]


def test_removing_phantoms_leaves_everything_else(tmp_path):
    (tmp_path / "phantom-12").mkdir()
    (tmp_path / "phantom-12" / "T1.nrrd").write_bytes(b"x")
    for name in ("phantom-x", "models"):
        (tmp_path / name).mkdir()
    assert remove_phantom_cases(tmp_path) == 1
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {"phantom-x", "models"}
    assert remove_phantom_cases(tmp_path / "absent") == 0


def test_all_cases_are_registered_with_addresses_and_checksums():
    sources, asked = [], []
    register_sample_data(sample_data(sources).SampleDataLogic, asked.append)
    assert len(sources) == len(PHANTOM_SEEDS) + len(PUBLIC_CASES)
    for source in sources[len(PHANTOM_SEEDS) :]:
        assert (
            len(source["uris"]) == len(source["checksums"]) == len(source["fileNames"]) == len(source["nodeNames"]) == 4
        )
        assert all(
            address.startswith("https://") and address.endswith(name)
            for address, name in zip(source["uris"], source["fileNames"], strict=True)
        )
        assert all(re.fullmatch(r"SHA256:[0-9a-f]{64}", text) for text in source["checksums"])
    assert asked == []
    sources[1]["customDownloader"](None)
    assert asked == [PHANTOM_SEEDS[1]]


def test_no_two_public_files_share_a_checksum():
    digests = [digest for case in PUBLIC_CASES for digest in case.sha256.values()]
    assert len(set(digests)) == len(digests) == 20


def test_the_public_cases_names_are_read_as_roles():
    from MedXlateSlicerLib.roles import role_from_name

    expected = [Modality.T1CE, Modality.T1, Modality.FLAIR, Modality.T2]
    for case in PUBLIC_CASES:
        assert [role_from_name(name.removesuffix(".nii.gz")) for name in case.files] == expected
