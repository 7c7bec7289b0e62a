"""Nodes to volumes and back: same grid, same voxels, nothing of the user's changed."""

import itertools
import subprocess
import sys
from pathlib import Path

import mrml
import numpy as np
import pytest
from MedXlateSlicerLib.bridge import (
    GRID_ATTRIBUTE,
    WORLD_GRID,
    is_synthetic,
    node_from_volume,
    roi_from_segmentation,
    update_node,
    volume_from_node,
    world_geometry,
)

from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.pipeline import translate
from MedXlateCore.transforms.resampling import resample
from MedXlateCore.volume import Geometry, Modality, Source, Volume

LABELS = {"oedema": (2,), "core": (1, 3, 4)}
RIGID = mrml.affine(tilt=(10, -20, 30)) @ np.linalg.inv(mrml.affine())
SQUEEZE = np.array([[1.1, 0.2, 0, 5], [0, 0.9, 0.1, -7], [0.05, 0, 1.2, 3], [0, 0, 0, 1.0]])
TRANSFORMS = ("none", "linear", "affine with shear", "two linear", "non-linear", "linear over non-linear")


def put_under(scene, node, transform: str) -> None:
    if transform in {"linear", "two linear"}:
        mrml.add_linear(scene, RIGID, node)
    if transform in {"affine with shear", "two linear"}:
        mrml.add_linear(scene, SQUEEZE, node, "second")
    if "non-linear" in transform:
        mrml.add_bend(scene, node, shift=(2, -1, 0))
    if transform == "linear over non-linear":
        bend = node.GetParentTransformNode()
        mrml.add_linear(scene, RIGID, bend)


def world_of(node) -> np.ndarray:
    """Return the matrix from index to world by Slicer's own means."""
    local = mrml.as_array(node.GetIJKToRASMatrix)
    parent = node.GetParentTransformNode()
    return local if parent is None else mrml.as_array(parent.GetMatrixTransformToWorld) @ local


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_result_lies_on_exactly_the_grid_of_its_reference_in_48_orientations(slicer_scene, transform):
    for turn, tilt in itertools.product(mrml.orientations(), ((0, 0, 0), (7, -12, 21))):
        slicer_scene.Clear(False)
        source = mrml.add_volume(slicer_scene, matrix=mrml.affine(turn, tilt))
        put_under(slicer_scene, source, transform)
        before = mrml.picture(slicer_scene)
        volume = volume_from_node(source, "T1", slicer_scene)
        assert mrml.picture(slicer_scene) == before
        result = node_from_volume(volume, slicer_scene, "result", source)
        corners = Geometry(mrml.SHAPE, world_of(result)).corners_ras()
        assert np.abs(corners - volume.geometry.corners_ras()).max() < 1e-6
        np.testing.assert_array_equal(mrml.voxels_of(result), volume.array)
        if "non-linear" not in transform:
            assert np.abs(corners - Geometry(mrml.SHAPE, world_of(source)).corners_ras()).max() < 1e-6
            assert result.GetTransformNodeID() == source.GetTransformNodeID()
            np.testing.assert_array_equal(volume.array, mrml.voxels_of(source))
        slicer_scene.RemoveNode(result.GetDisplayNode())
        slicer_scene.RemoveNode(result)
        assert mrml.content(slicer_scene) == {name: before[name] for name in before if not name.endswith(" time")}


@pytest.mark.parametrize("matrix", [mrml.affine(shear=0.2), mrml.affine(mrml.orientations()[1], (3, 4, 5), 0.1)])
def test_a_slanted_grid_survives_the_way_there_and_back(slicer_scene, matrix):
    source = mrml.add_volume(slicer_scene, matrix=matrix)
    volume = volume_from_node(source, "CT")
    np.testing.assert_allclose(volume.geometry.affine_ras, matrix, atol=1e-9)
    result = node_from_volume(volume, slicer_scene, "result", source)
    np.testing.assert_allclose(world_of(result), matrix, atol=1e-9)


def test_the_same_place_is_read_as_slicer_shows_it(slicer_scene):
    source = mrml.add_volume(slicer_scene, matrix=mrml.affine(mrml.orientations()[17], (5, 6, 7)))
    put_under(slicer_scene, source, "two linear")
    index = (3, 4, 5)
    local = mrml.affine(mrml.orientations()[17], (5, 6, 7)) @ [*index, 1]
    world = [0.0, 0.0, 0.0]
    source.TransformPointToWorld(local[:3], world)
    np.testing.assert_allclose((world_geometry(source).affine_ras @ [*index, 1])[:3], world, atol=1e-9)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "float32", "float64"])
def test_images_become_float32_and_label_maps_keep_their_integers(slicer_scene, dtype):
    array = mrml.pattern().astype(np.uint8) // 2
    image = mrml.add_volume(slicer_scene, array.astype(dtype))
    assert volume_from_node(image, "T2").array.dtype == np.float32
    labels = mrml.add_volume(slicer_scene, array.astype(dtype), kind="LabelMap")
    found = volume_from_node(labels, "label")
    assert found.array.dtype == (np.uint8 if dtype.startswith("float") else np.dtype(dtype))
    np.testing.assert_array_equal(found.array, array)


def test_the_copy_does_not_change_with_the_node(slicer_scene):
    source = mrml.add_volume(slicer_scene)
    volume = volume_from_node(source, "T1")
    mrml.voxels_of(source)[...] = -1
    np.testing.assert_array_equal(volume.array, mrml.pattern())


def test_a_bent_volume_shows_what_slicer_shows_after_hardening(slicer_scene):
    smooth = np.indices(mrml.SHAPE).sum(axis=0).astype(np.float32)
    source = mrml.add_volume(slicer_scene, smooth)
    mrml.add_bend(slicer_scene, source, bulge=1.5)
    volume = volume_from_node(source, "T1")
    hardened = mrml.add_volume(slicer_scene, smooth, name="hardened")
    hardened.SetAndObserveTransformNodeID(source.GetTransformNodeID())
    hardened.HardenTransform()
    grid = Geometry(mrml.voxels_of(hardened).shape, world_of(hardened))  # Slicer enlarges and shifts the grid
    expected = resample(mrml.voxels_of(hardened), grid, volume.geometry)
    inner = np.s_[3:-3, 2:-2, 2:-2]
    np.testing.assert_allclose(volume.array[inner], expected[inner], atol=0.02)
    assert np.abs(volume.array[inner] - smooth[inner]).min() > 0.5
    assert "MX-SLI-101" in [note.code for note in volume.notes]


def test_a_shift_above_a_bend_moves_the_grid_and_loses_nothing(slicer_scene):
    source = mrml.add_volume(slicer_scene)
    bend = mrml.add_bend(slicer_scene, source, bulge=0.0)
    shift = np.eye(4)
    shift[:3, 3] = (500, -300, 200)
    mrml.add_linear(slicer_scene, shift, bend)
    volume = volume_from_node(source, "T1")
    assert [note.code for note in volume.notes] == ["MX-SLI-101"]
    np.testing.assert_allclose(volume.geometry.affine_ras, shift @ mrml.affine(), atol=1e-9)
    np.testing.assert_allclose(volume.array, mrml.pattern(), atol=1e-2)


def test_content_that_a_bend_moves_off_the_grid_is_reported(slicer_scene):
    source = mrml.add_volume(slicer_scene)
    mrml.add_bend(slicer_scene, source, shift=(6, 0, 0), bulge=0.0)
    codes = [note.code for note in volume_from_node(source, "T1").notes]
    assert codes == ["MX-SLI-101", "MX-SLI-102"]


def test_a_bend_that_moves_only_air_off_the_grid_is_no_loss(slicer_scene):
    noisy = mrml.pattern() + np.random.default_rng(1).uniform(0, 4, mrml.SHAPE).astype(np.float32)
    source = mrml.add_volume(slicer_scene, noisy)
    mrml.add_bend(slicer_scene, source, shift=(1.2, 0, 0), bulge=0.0)
    assert [note.code for note in volume_from_node(source, "T1").notes] == ["MX-SLI-101"]


def test_air_outside_a_bent_ct_stays_air(slicer_scene):
    array = np.where(mrml.pattern() > 0, 40, -1000).astype(np.int16)
    source = mrml.add_volume(slicer_scene, array)
    mrml.add_bend(slicer_scene, source, shift=(3, 0, 0), bulge=0.0)
    assert volume_from_node(source, "CT").array[0].max() == -1000


def test_a_bent_label_map_keeps_its_labels(slicer_scene):
    labels = mrml.add_volume(slicer_scene, (mrml.pattern() > 0).astype(np.uint8) * 7, kind="LabelMap")
    mrml.add_bend(slicer_scene, labels, shift=(0.4, 0.3, 0.2))
    assert set(np.unique(volume_from_node(labels, "label").array)) == {0, 7}


def test_the_result_on_a_bent_reference_lies_in_world_space_and_says_so(slicer_scene):
    source = mrml.add_volume(slicer_scene)
    mrml.add_bend(slicer_scene, source)
    result = node_from_volume(volume_from_node(source, "T1"), slicer_scene, "result", source)
    assert result.GetAttribute(GRID_ATTRIBUTE) == WORLD_GRID
    assert result.GetParentTransformNode() is None


def test_a_result_goes_where_it_was_computed_when_the_reference_was_moved_or_deleted_meanwhile(slicer_scene):
    source = mrml.add_volume(slicer_scene)
    transform = mrml.add_linear(slicer_scene, RIGID, source)
    volume = volume_from_node(source, "T1")
    transform.SetMatrixTransformToParent(mrml.vtk_matrix(SQUEEZE))
    for number in range(2):
        result = node_from_volume(volume, slicer_scene, f"result {number}", source)
        np.testing.assert_allclose(world_of(result), RIGID @ mrml.affine(), atol=1e-9)
        assert result.GetAttribute(GRID_ATTRIBUTE) == WORLD_GRID
        slicer_scene.RemoveNode(source)


def test_a_whole_translation_leaves_the_nodes_as_they_were(slicer_scene, tiny_model, make_patient):
    geometry = Geometry((20, 24, 6), mrml.affine(mrml.orientations()[9], (4, 5, 6)))
    patient = make_patient(geometry)
    nodes = {
        role: mrml.add_volume(slicer_scene, patient[role].array, geometry.affine_ras, role) for role in ("T1", "T2")
    }
    transform = mrml.add_linear(slicer_scene, RIGID, nodes["T1"])
    nodes["T2"].SetAndObserveTransformNodeID(transform.GetID())
    segmentation = mrml.add_segmentation(slicer_scene)
    core = mrml.add_segment(segmentation, patient["region"].array == 1, geometry.affine_ras, "core")
    segmentation.SetAndObserveTransformNodeID(transform.GetID())
    before = mrml.picture(slicer_scene)
    sources = [volume_from_node(node, role, slicer_scene) for role, node in nodes.items()]
    roi = roi_from_segmentation(segmentation, {"core": [core]}, nodes["T1"], LABELS, slicer_scene)
    np.testing.assert_array_equal(roi.array, patient["region"].array == 1)
    made = translate(sources, tiny_model, roi=roi, roi_labels=LABELS, device="cpu").run()
    assert mrml.picture(slicer_scene) == before
    result = node_from_volume(made, slicer_scene, made.source.name, nodes["T1"])
    assert is_synthetic(result)
    np.testing.assert_allclose(world_of(result), world_of(nodes["T1"]), atol=1e-9)
    np.testing.assert_array_equal(mrml.voxels_of(result), made.array)


def test_a_second_result_gets_a_name_of_its_own(slicer_scene):
    source = mrml.add_volume(slicer_scene)
    volume = volume_from_node(source, "T1")
    names = {node_from_volume(volume, slicer_scene, "SYNTHETIC T1ce (m)", source).GetName() for _ in range(3)}
    assert len(names) == 3


@pytest.mark.parametrize("dtype", [bool, np.float16, np.int64, np.uint64, np.longdouble, ">f4"])
def test_types_that_mrml_cannot_store_are_converted(slicer_scene, dtype):
    array = (mrml.pattern() > 100).astype(dtype)
    node = node_from_volume(Volume(array, Geometry(mrml.SHAPE, mrml.affine())), slicer_scene, "x")
    np.testing.assert_array_equal(mrml.voxels_of(node), array)


def test_labels_beyond_32_bits_are_refused(slicer_scene):
    array = np.full(mrml.SHAPE, 2**40)
    with pytest.raises(InputError) as caught:
        node_from_volume(Volume(array, Geometry(mrml.SHAPE, mrml.affine())), slicer_scene, "x")
    assert caught.value.code == "MX-SLI-008"


def test_label_maps_become_label_map_nodes(slicer_scene):
    volume = Volume(mrml.pattern().astype(np.uint8), Geometry(mrml.SHAPE, mrml.affine()), Modality.LABEL)
    assert node_from_volume(volume, slicer_scene, "x").GetClassName() == "vtkMRMLLabelMapVolumeNode"


def test_an_updated_node_keeps_grid_display_and_identity(slicer_scene):
    source = mrml.add_volume(slicer_scene)
    mrml.add_linear(slicer_scene, RIGID, source)
    volume = volume_from_node(source, "T1")
    node = node_from_volume(volume, slicer_scene, "result", source)
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevelMinMax(3, 7)
    count, grid = slicer_scene.GetNumberOfNodes(), world_of(node)
    update_node(node, volume.with_array(volume.array * 2))
    np.testing.assert_array_equal(mrml.voxels_of(node), mrml.pattern() * 2)
    np.testing.assert_array_equal(world_of(node), grid)
    assert (node.GetDisplayNode().GetWindowLevelMin(), node.GetDisplayNode().GetWindowLevelMax()) == (3, 7)
    assert slicer_scene.GetNumberOfNodes() == count


def test_an_update_on_another_grid_is_refused(slicer_scene):
    source = mrml.add_volume(slicer_scene)
    volume = volume_from_node(source, "T1")
    node = node_from_volume(volume, slicer_scene, "result", source)
    mrml.add_linear(slicer_scene, RIGID, node)
    with pytest.raises(InputError) as caught:
        update_node(node, volume)
    assert caught.value.code == "MX-SLI-007"


def test_nodes_that_are_no_volumes_are_refused_with_a_reason(slicer_scene):
    import slicer

    empty = slicer.vtkMRMLScalarVolumeNode()
    slicer_scene.AddNode(empty)
    colour = slicer.vtkMRMLVectorVolumeNode()
    slicer_scene.AddNode(colour)
    model = slicer.vtkMRMLModelNode()
    slicer_scene.AddNode(model)
    deleted = mrml.add_volume(slicer_scene)
    slicer_scene.RemoveNode(deleted)
    flat = mrml.add_volume(slicer_scene, matrix=mrml.affine() @ np.diag([1, 1, 1e-12, 1]))
    cases = ((empty, "MX-SLI-004"), (colour, "MX-SLI-003"), (model, "MX-SLI-003"), (deleted, "MX-SLI-002"))
    for node, code in cases:
        with pytest.raises(InputError) as caught:
            volume_from_node(node, "T1", slicer_scene)
        assert caught.value.code == code
        assert caught.value.fix
    with pytest.raises(UsageError) as chosen:
        volume_from_node(None, "T1", slicer_scene)
    assert chosen.value.code == "MX-SLI-001"
    assert world_geometry(flat).shape == mrml.SHAPE  # thin, but a grid


def test_a_transform_that_flattens_space_is_refused(slicer_scene):
    source = mrml.add_volume(slicer_scene)
    mrml.add_linear(slicer_scene, np.diag([1.0, 0.0, 1.0, 1.0]), source)
    with pytest.raises(InputError) as caught:
        volume_from_node(source, "T1")
    assert caught.value.code == "MX-GEO-002"


def test_a_volume_of_another_scene_is_refused(slicer_scene):
    import slicer

    other = slicer.vtkMRMLScene()
    node = mrml.add_volume(other)
    with pytest.raises(InputError) as caught:
        volume_from_node(node, "T1", slicer_scene)
    assert caught.value.code == "MX-SLI-002"


def test_what_a_scene_file_brings_back_is_the_same(slicer_scene, tmp_path):
    import slicer

    source = mrml.add_volume(slicer_scene, matrix=mrml.affine(mrml.orientations()[11], (3, 5, 7)))
    mrml.add_linear(slicer_scene, RIGID, source)
    volume = volume_from_node(source, "T1", slicer_scene)
    made = volume.with_array(volume.array + 1, synthetic=True, source=Source("SYNTHETIC T1ce (m)"))
    result = node_from_volume(made, slicer_scene, "SYNTHETIC T1ce (m)", source)
    for node, name in ((source, "source.nrrd"), (result, "result.nrrd")):
        node.AddDefaultStorageNode()
        node.GetStorageNode().SetFileName(str(tmp_path / name))
        assert node.GetStorageNode().WriteData(node)
    slicer_scene.SetURL(str(tmp_path / "scene.mrml"))
    slicer_scene.Commit()
    slicer_scene.Clear(False)
    slicer_scene.SetURL(str(tmp_path / "scene.mrml"))
    slicer_scene.Import()
    restored = slicer_scene.GetFirstNodeByName("SYNTHETIC T1ce (m)")
    assert isinstance(restored, slicer.vtkMRMLScalarVolumeNode)
    assert is_synthetic(restored)
    again = volume_from_node(restored, "T1ce", slicer_scene)
    assert again.synthetic
    # NRRD files are written right-handed: slices may come back in the other order, in the same place
    np.testing.assert_array_equal(resample(again.array, again.geometry, made.geometry, fill=-1), made.array)


# --- regions --------------------------------------------------------------------------------------------------------


def block(shape=mrml.SHAPE, low=(3, 3, 2), high=(7, 6, 5)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


@pytest.mark.parametrize("number", range(0, 48, 5))
@pytest.mark.parametrize("transform", ["none", "two linear"])
def test_segments_on_the_references_grid_are_copied_as_drawn(slicer_scene, number, transform):
    matrix = mrml.affine(mrml.orientations()[number], (5, -8, 13))
    source = mrml.add_volume(slicer_scene, matrix=matrix)
    put_under(slicer_scene, source, transform)
    segmentation = mrml.add_segmentation(slicer_scene)
    segmentation.SetAndObserveTransformNodeID(source.GetTransformNodeID())
    core = mrml.add_segment(segmentation, block(), matrix, "core")
    oedema = mrml.add_segment(segmentation, block(high=(9, 8, 7)), matrix, "oedema")
    segmentation.GetDisplayNode().SetSegmentVisibility(core, False)
    before = mrml.picture(slicer_scene)
    roi = roi_from_segmentation(segmentation, {"core": [core], "oedema": [oedema]}, source, LABELS, slicer_scene)
    assert mrml.picture(slicer_scene) == before
    np.testing.assert_array_equal(roi.array, np.where(block(), 1, np.where(block(high=(9, 8, 7)), 2, 0)))
    assert roi.modality is Modality.LABEL
    assert roi.geometry.allclose(world_geometry(source), 1e-6)
    assert roi.notes == ()


def test_segments_that_share_a_layer_are_told_apart(slicer_scene):
    source = mrml.add_volume(slicer_scene)
    segmentation = mrml.add_segmentation(slicer_scene)
    first = mrml.add_segment(segmentation, block(high=(5, 6, 5)), mrml.affine(), "first")
    second = mrml.add_segment(segmentation, block(low=(5, 3, 2)), mrml.affine(), "second")
    segmentation.GetSegmentation().CollapseBinaryLabelmaps(False)
    assert segmentation.GetSegmentation().GetNumberOfLayers() == 1
    roi = roi_from_segmentation(segmentation, {"core": [second]}, source, LABELS)
    np.testing.assert_array_equal(roi.array, block(low=(5, 3, 2)))
    both = roi_from_segmentation(segmentation, {"core": [first, second]}, source, LABELS)
    np.testing.assert_array_equal(both.array, block())


def test_a_segment_on_another_grid_is_brought_over_as_the_pipeline_does(slicer_scene):
    source = mrml.add_volume(slicer_scene)
    own = mrml.affine(tilt=(0, 0, 25)) @ np.diag([0.5, 0.5, 0.5, 1])
    own[:3, 3] = mrml.affine()[:3, 3] + (4, 2, 4)
    shape = (16, 14, 18)
    mask = block(shape, (2, 2, 2), (14, 11, 15))
    segmentation = mrml.add_segmentation(slicer_scene)
    core = mrml.add_segment(segmentation, mask, own, "core")
    roi = roi_from_segmentation(segmentation, {"core": [core]}, source, LABELS)
    expected = resample(mask.astype(np.float32), Geometry(shape, own), world_geometry(source)) > 0.5
    assert expected.sum() > 20
    np.testing.assert_array_equal(roi.array > 0, expected)


def test_transforms_on_either_node_count(slicer_scene):
    source = mrml.add_volume(slicer_scene)
    segmentation = mrml.add_segmentation(slicer_scene)
    core = mrml.add_segment(segmentation, block(), np.linalg.inv(RIGID) @ mrml.affine(), "core")
    mrml.add_linear(slicer_scene, RIGID, segmentation)
    roi = roi_from_segmentation(segmentation, {"core": [core]}, source, LABELS)
    np.testing.assert_array_equal(roi.array, block())
    mrml.add_linear(slicer_scene, RIGID, source)
    segmentation.SetAndObserveTransformNodeID(None)
    local = mrml.add_segment(segmentation, block(), RIGID @ mrml.affine(), "moved")
    roi = roi_from_segmentation(segmentation, {"core": [local]}, source, LABELS)
    np.testing.assert_array_equal(roi.array, block())


def test_a_bent_segmentation_follows_its_bent_volume(slicer_scene):
    array = block((24, 20, 16), (8, 6, 5), (16, 14, 12)).astype(np.float32)
    source = mrml.add_volume(slicer_scene, array)
    segmentation = mrml.add_segmentation(slicer_scene)
    core = mrml.add_segment(segmentation, array > 0, mrml.affine(), "core")
    bend = mrml.add_bend(slicer_scene, source, shift=(2.2, 0, 0))
    segmentation.SetAndObserveTransformNodeID(bend.GetID())
    roi = roi_from_segmentation(segmentation, {"core": [core]}, source, LABELS)
    image = volume_from_node(source, "T1").array > 0.5
    dice = 2 * (image & (roi.array > 0)).sum() / (image.sum() + (roi.array > 0).sum())
    assert dice > 0.97


def test_a_segment_made_of_a_surface_works_and_stays_a_surface(slicer_scene):
    import slicer
    import vtk

    sphere = vtk.vtkSphereSource()
    sphere.SetRadius(6)
    sphere.SetThetaResolution(32)
    sphere.SetPhiResolution(32)
    sphere.Update()
    source = mrml.add_volume(slicer_scene, np.zeros((20, 20, 20), np.float32), np.diag([1.0, 1, 1, 1]))
    centred = np.eye(4)
    centred[:3, 3] = -9.5
    source.SetIJKToRASMatrix(mrml.vtk_matrix(centred))
    slicer.modules.segmentations.logic()  # registers the conversion rules, as the application does at its start
    segmentation = mrml.add_segmentation(slicer_scene)
    segmentation.GetSegmentation().SetSourceRepresentationName("Closed surface")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(source)
    core = segmentation.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), "ball", [1, 0, 0])
    before = mrml.picture(slicer_scene)
    roi = roi_from_segmentation(segmentation, {"core": [core]}, source, LABELS)
    assert mrml.picture(slicer_scene) == before
    assert not segmentation.GetSegmentation().ContainsRepresentation("Binary labelmap")
    assert roi.array.sum() == pytest.approx(4 / 3 * np.pi * 6**3, rel=0.1)


@pytest.mark.parametrize("beside", [False, True])
def test_an_empty_segment_gives_an_empty_region(slicer_scene, beside):
    source = mrml.add_volume(slicer_scene)
    segmentation = mrml.add_segmentation(slicer_scene)
    if beside:
        mrml.add_segment(segmentation, block(), mrml.affine(), "other")
    empty = segmentation.GetSegmentation().AddEmptySegment("", "core")
    roi = roi_from_segmentation(segmentation, {"core": [empty], "oedema": []}, source, LABELS)
    assert roi.array.shape == mrml.SHAPE
    assert not roi.array.any()


def test_a_deleted_segment_is_refused(slicer_scene):
    source = mrml.add_volume(slicer_scene)
    segmentation = mrml.add_segmentation(slicer_scene)
    core = mrml.add_segment(segmentation, block(), mrml.affine(), "core")
    segmentation.RemoveSegment(core)
    with pytest.raises(InputError) as caught:
        roi_from_segmentation(segmentation, {"core": [core]}, source, LABELS)
    assert caught.value.code == "MX-SLI-005"


def test_a_region_without_a_label_is_refused(slicer_scene):
    source = mrml.add_volume(slicer_scene)
    segmentation = mrml.add_segmentation(slicer_scene)
    core = mrml.add_segment(segmentation, block(), mrml.affine(), "core")
    with pytest.raises(UsageError) as caught:
        roi_from_segmentation(segmentation, {"rim": [core]}, source, LABELS)
    assert caught.value.code == "MX-ROI-032"


def test_a_segment_wholly_outside_is_refused_and_one_partly_outside_is_noted(slicer_scene):
    source = mrml.add_volume(slicer_scene)
    segmentation = mrml.add_segmentation(slicer_scene)
    shifted = mrml.affine()
    shifted[0, 3] += 5 * mrml.SPACING[0]
    partly = mrml.add_segment(segmentation, block(low=(3, 3, 2), high=(11, 6, 5)), shifted, "partly")
    roi = roi_from_segmentation(segmentation, {"core": [partly]}, source, LABELS)
    assert [note.code for note in roi.notes] == ["MX-ROI-012"]
    assert roi.array.sum() == 4 * 3 * 3
    shifted[0, 3] += 100
    outside = mrml.add_segment(segmentation, block(), shifted, "outside")
    with pytest.raises(InputError) as caught:
        roi_from_segmentation(segmentation, {"core": [outside]}, source, LABELS)
    assert caught.value.code == "MX-ROI-011"


def test_a_segment_too_small_for_the_grid_is_noted(slicer_scene):
    source = mrml.add_volume(slicer_scene)
    fine = mrml.affine() @ np.diag([0.2, 0.2, 0.2, 1])
    fine[:3, 3] = (mrml.affine() @ [5.4, 5.4, 4.4, 1])[:3]
    segmentation = mrml.add_segmentation(slicer_scene)
    speck = mrml.add_segment(segmentation, np.ones((1, 1, 1), dtype=bool), fine, "speck")
    roi = roi_from_segmentation(segmentation, {"core": [speck]}, source, LABELS)
    assert [note.code for note in roi.notes] == ["MX-SLI-103"]


def test_a_segmentation_that_was_deleted_or_not_chosen_is_refused(slicer_scene):
    source = mrml.add_volume(slicer_scene)
    with pytest.raises(UsageError) as chosen:
        roi_from_segmentation(None, {}, source, LABELS)
    assert chosen.value.code == "MX-SLI-001"
    segmentation = mrml.add_segmentation(slicer_scene)
    slicer_scene.RemoveNode(segmentation)
    with pytest.raises(InputError) as caught:
        roi_from_segmentation(segmentation, {}, source, LABELS)
    assert caught.value.code == "MX-SLI-002"


def test_the_library_loads_without_torch_slicer_or_qt():
    code = (
        "import sys; sys.path[:0] = ['MedXlateSlicer']\n"
        "from MedXlateSlicerLib import bridge, evaluation, placement, roles, sample_data\n"
        "print(sorted({'torch', 'slicer', 'vtk', 'qt', 'nibabel', 'SimpleITK'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
