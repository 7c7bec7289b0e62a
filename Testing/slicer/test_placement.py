"""Where results go: marks, subject hierarchy, window, and views that are left as the user arranged them."""

import json

import mrml
import numpy as np
import pytest
from MedXlateSlicerLib.bridge import is_synthetic, volume_from_node
from MedXlateSlicerLib.placement import (
    COMPARISON_LAYOUT,
    RECORD_ATTRIBUTE,
    add_result,
    add_uncertainty,
    capture_views,
    is_uncertainty,
    place_under,
    restore_views,
    set_overlay_opacity,
    show_overlay,
    show_side_by_side,
)

from MedXlateCore.volume import Geometry, Modality, Source, Volume

slicer_core = pytest.importorskip("slicer")

RECORD = {
    "synthetic": True,
    "target": "T1ce",
    "model": {"name": "starter", "version": "1.0", "method": "tlp", "sha256": "ab" * 32},
    "inputs": [{"role": "T1", "name": 'T1 "öäü" <&> \n second line'}],
    "compute": {"seconds": {"predict": 1.5, "odd": float("nan")}},
}


def result_of(source, modality=Modality.T1CE) -> Volume:
    volume = volume_from_node(source, modality)
    return volume.with_array(volume.array * 1.5, synthetic=True, source=Source("SYNTHETIC T1ce (starter)"))


def hierarchy_of(scene):
    return slicer_core.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)


def composites(scene) -> list:
    count = scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")
    return [scene.GetNthNodeByClass(index, "vtkMRMLSliceCompositeNode") for index in range(count)]


def slice_geometry(scene) -> dict:
    count = scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")
    nodes = [scene.GetNthNodeByClass(index, "vtkMRMLSliceNode") for index in range(count)]
    return {
        node.GetName(): (
            node.GetFieldOfView(),
            node.GetXYZOrigin(),
            mrml.as_array(lambda m, node=node: m.DeepCopy(node.GetSliceToRAS())).tolist(),
        )
        for node in nodes
        if not node.GetLayoutName().startswith("MedXlate")
    }


@pytest.fixture
def source(slicer_scene):
    return mrml.add_volume(slicer_scene, name="patient T1")


def test_a_result_says_on_its_node_that_it_is_synthetic_and_how_it_came_about(slicer_scene, source):
    node = add_result(slicer_scene, result_of(source), RECORD, source)
    assert node.GetName() == "SYNTHETIC T1ce (starter)"
    assert is_synthetic(node)
    assert "not for diagnosis" in node.GetAttribute("MedXlate.statement")
    assert node.GetAttribute("MedXlate.model") == "starter 1.0"
    assert node.GetAttribute("MedXlate.sha256") == "ab" * 32
    assert json.loads(node.GetAttribute(RECORD_ATTRIBUTE))["inputs"] == RECORD["inputs"]


def test_the_record_survives_saving_and_loading_the_scene(slicer_scene, source, tmp_path):
    node = add_result(slicer_scene, result_of(source), RECORD, source)
    before = json.loads(node.GetAttribute(RECORD_ATTRIBUTE))
    slicer_scene.SetURL(str(tmp_path / "scene.mrml"))
    slicer_scene.Commit()
    slicer_scene.Clear(False)
    slicer_scene.SetURL(str(tmp_path / "scene.mrml"))
    slicer_scene.Import()
    restored = slicer_scene.GetFirstNodeByName("SYNTHETIC T1ce (starter)")
    found = json.loads(restored.GetAttribute(RECORD_ATTRIBUTE))
    assert found["model"] == before["model"]
    assert found["compute"] == before["compute"]
    assert is_synthetic(restored)


def test_a_result_stands_under_its_source(slicer_scene, source):
    node = add_result(slicer_scene, result_of(source), RECORD, source)
    hierarchy = hierarchy_of(slicer_scene)
    item = hierarchy.GetItemByDataNode(node)
    assert item
    assert hierarchy.GetItemParent(item) == hierarchy.GetItemByDataNode(source)


def test_a_source_without_an_item_gets_one(slicer_scene, source):
    hierarchy = hierarchy_of(slicer_scene)
    hierarchy.RemoveItem(hierarchy.GetItemByDataNode(source), False, False)
    node = add_result(slicer_scene, result_of(source), RECORD, source)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == hierarchy.GetItemByDataNode(source) != 0


def spread_of(source, array) -> Volume:
    volume = volume_from_node(source, "other")
    name = "SYNTHETIC T1ce (starter), standard deviation"
    return volume.with_array(np.asarray(array, np.float32), synthetic=True, source=Source(name))


def test_a_spread_stands_under_its_result_marked_and_coloured_from_zero_upwards(slicer_scene, source):
    result = add_result(slicer_scene, result_of(source), RECORD, source)
    array = np.linspace(0, 200, int(np.prod(mrml.SHAPE))).reshape(mrml.SHAPE)
    node = add_uncertainty(slicer_scene, spread_of(source, array), RECORD, result)
    assert node.GetName() == "SYNTHETIC T1ce (starter), standard deviation"
    assert is_synthetic(node) and is_uncertainty(node) and not is_uncertainty(result)
    assert json.loads(node.GetAttribute(RECORD_ATTRIBUTE))["shows"] == "standard deviation"
    assert mrml.parent_of(slicer_scene, node) is result
    assert node.GetAttribute("MedXlate.grid") == "reference volume"
    display = node.GetDisplayNode()
    low, high = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    assert (low, high) == (0.0, pytest.approx(np.percentile(array, 99.5)))
    table = display.GetColorNode()
    colour = [0.0] * 4
    brightness = []
    for index in range(table.GetNumberOfColors()):
        table.GetColor(index, colour)
        brightness.append(0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2])
    assert np.all(np.diff(brightness) > 0)
    again = add_uncertainty(slicer_scene, spread_of(source, array), RECORD, result)
    assert again.GetDisplayNode().GetColorNode() is table


@pytest.mark.parametrize(("largest", "reach"), [(0.0, 1.0), (7.0, 7.0)])
def test_a_spread_of_nothing_or_of_one_voxel_has_a_window_all_the_same(slicer_scene, source, largest, reach):
    array = np.zeros((60, 10, 8))
    array[3, 3, 3] = largest
    volume = Volume(array.astype(np.float32), Geometry(array.shape, np.eye(4)), Modality.OTHER, Source("s"), True)
    node = add_uncertainty(slicer_scene, volume, RECORD, source)
    assert node.GetDisplayNode().GetWindowLevelMax() == reach


def test_a_result_whose_source_is_gone_stands_at_the_top(slicer_scene, source):
    volume = result_of(source)
    slicer_scene.RemoveNode(source)
    node = add_result(slicer_scene, volume, RECORD, source)
    hierarchy = hierarchy_of(slicer_scene)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == hierarchy.GetSceneItemID()
    place_under(slicer_scene, node, None)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == hierarchy.GetSceneItemID()


def test_the_window_fits_the_tissue_of_the_result_and_not_of_the_source(slicer_scene, source):
    volume = result_of(source)
    node = add_result(slicer_scene, volume, RECORD, source)
    display = node.GetDisplayNode()
    inside = volume.array[volume.array > 0]
    assert not display.GetAutoWindowLevel()
    assert display.GetWindowLevelMax() == pytest.approx(np.percentile(inside, 99.5), rel=1e-3)
    assert display.GetWindowLevelMin() == pytest.approx(0, abs=1)


def test_a_ct_gets_the_soft_tissue_window_and_presets(slicer_scene):
    array = np.where(mrml.pattern() > 0, 40, -1000).astype(np.int16)
    source = mrml.add_volume(slicer_scene, array)
    node = add_result(slicer_scene, result_of(source, Modality.CT), RECORD, source)
    display = node.GetDisplayNode()
    assert (display.GetWindow(), display.GetLevel()) == (350, 40)
    assert display.GetNumberOfWindowLevelPresets() == 3


def test_a_constant_result_still_gets_a_window(slicer_scene):
    volume = Volume(np.zeros(mrml.SHAPE, np.float32), Geometry(mrml.SHAPE, mrml.affine()), Modality.T1, synthetic=True)
    node = add_result(slicer_scene, volume, {}, None)
    assert node.GetDisplayNode().GetWindow() > 0
    assert node.GetName() == "SYNTHETIC T1"


def test_adding_a_result_changes_nothing_of_the_source(slicer_scene, source):
    mrml.add_linear(slicer_scene, mrml.affine(tilt=(1, 2, 3)), source)
    volume = result_of(source)
    before = mrml.content(slicer_scene)
    display = source.GetDisplayNode()
    window = (display.GetAutoWindowLevel(), display.GetWindow(), display.GetLevel(), display.GetColorNodeID())
    add_result(slicer_scene, volume, RECORD, source)
    after = mrml.content(slicer_scene)
    assert after[f"{source.GetID()} voxels"] == before[f"{source.GetID()} voxels"]
    assert window == (display.GetAutoWindowLevel(), display.GetWindow(), display.GetLevel(), display.GetColorNodeID())
    assert after["count"] == before["count"] + 2  # the node and its display


def test_the_overlay_is_shown_without_moving_a_view_and_taken_back(slicer_scene, source):
    node = add_result(slicer_scene, result_of(source), RECORD, source)
    other = mrml.add_volume(slicer_scene, name="other")
    assert len(composites(slicer_scene)) >= 3
    for view in composites(slicer_scene):
        view.SetBackgroundVolumeID(other.GetID())
        view.SetLabelOpacity(0.3)
    views, state = slice_geometry(slicer_scene), capture_views(slicer_scene)
    show_overlay(slicer_scene, node, source, 0.4)
    for view in composites(slicer_scene):
        assert view.GetBackgroundVolumeID() == source.GetID()
        assert view.GetForegroundVolumeID() == node.GetID()
        assert view.GetForegroundOpacity() == pytest.approx(0.4)
        assert view.GetLabelOpacity() == pytest.approx(0.3)
    set_overlay_opacity(slicer_scene, node, 7)
    assert composites(slicer_scene)[0].GetForegroundOpacity() == 1.0
    assert slice_geometry(slicer_scene) == views
    for view in composites(slicer_scene):
        view.SetLabelOpacity(0.9)
    restore_views(slicer_scene, state)
    assert {view.GetLabelOpacity() for view in composites(slicer_scene)} == {0.3}
    assert {view.GetForegroundOpacity() for view in composites(slicer_scene)} == {0.0}
    assert {view.GetBackgroundVolumeID() for view in composites(slicer_scene)} == {other.GetID()}
    assert {view.GetForegroundVolumeID() for view in composites(slicer_scene)} == {None}


def test_the_fade_leaves_views_alone_that_show_something_else(slicer_scene, source):
    node = add_result(slicer_scene, result_of(source), RECORD, source)
    show_overlay(slicer_scene, node, source, 0.5)
    other = composites(slicer_scene)[0]
    other.SetForegroundVolumeID(source.GetID())
    set_overlay_opacity(slicer_scene, node, 0.9)
    assert other.GetForegroundOpacity() == pytest.approx(0.5)
    assert composites(slicer_scene)[1].GetForegroundOpacity() == pytest.approx(0.9)


def test_restoring_passes_over_what_was_deleted(slicer_scene, source):
    for view in composites(slicer_scene):
        view.SetBackgroundVolumeID(source.GetID())
    state = capture_views(slicer_scene)
    slicer_scene.RemoveNode(source)
    restore_views(slicer_scene, state)
    assert {view.GetBackgroundVolumeID() for view in composites(slicer_scene)} == {None}


def test_side_by_side_uses_views_of_its_own_at_the_slice_of_the_red_view(slicer_scene, source):
    node = add_result(slicer_scene, result_of(source), RECORD, source)
    red = slicer_scene.GetSingletonNode("Red", "vtkMRMLSliceNode")
    red.JumpSliceByCentering(3, 4, 17)
    layout = slicer_scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    layout.SetViewArrangement(layout.SlicerLayoutFourUpView)
    views, state = slice_geometry(slicer_scene), capture_views(slicer_scene)
    shown = {view.GetLayoutName(): view.GetBackgroundVolumeID() for view in composites(slicer_scene)}
    assert show_side_by_side(slicer_scene, node, source)
    assert layout.GetViewArrangement() == COMPARISON_LAYOUT
    found = {view.GetLayoutName(): view.GetBackgroundVolumeID() for view in composites(slicer_scene)}
    assert found == {**shown, "MedXlateSource": source.GetID(), "MedXlateResult": node.GetID()}
    for name in ("MedXlateSource", "MedXlateResult"):
        own = slicer_scene.GetSingletonNode(name, "vtkMRMLSliceNode")
        assert mrml.as_array(lambda m, own=own: m.DeepCopy(own.GetSliceToRAS()))[2, 3] == pytest.approx(17)
        assert own.GetFieldOfView()[0] / own.GetDimensions()[0] == pytest.approx(
            own.GetFieldOfView()[1] / own.GetDimensions()[1]
        )
    assert slice_geometry(slicer_scene) == views
    restore_views(slicer_scene, state)
    assert layout.GetViewArrangement() == layout.SlicerLayoutFourUpView


def test_without_a_layout_there_is_no_side_by_side():
    scene = slicer_core.vtkMRMLScene()
    source = mrml.add_volume(scene)
    assert not show_side_by_side(scene, source, source)
