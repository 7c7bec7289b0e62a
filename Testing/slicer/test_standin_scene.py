"""The scene that the Slicer tests work on behaves as the application's."""

from __future__ import annotations

import sys

import numpy as np
import pytest


def test_every_node_gets_its_item_in_the_subject_hierarchy(slicer_scene):
    import slicer

    volume = slicer.util.addVolumeFromArray(np.zeros((2, 3, 4), np.float32), name="T1")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer_scene)
    assert hierarchy.GetItemByDataNode(volume) > 0
    slicer_scene.RemoveNode(volume)
    assert hierarchy.GetItemByDataNode(volume) == 0


def test_hidden_nodes_get_no_item(slicer_scene):
    import slicer

    node = slicer.vtkMRMLScalarVolumeNode()
    node.SetHideFromEditors(True)
    slicer_scene.AddNode(node)
    assert slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer_scene).GetItemByDataNode(node) == 0


def test_slice_views_show_what_they_are_told(slicer_scene):
    import slicer

    volume = slicer.util.addVolumeFromArray(np.zeros((2, 3, 4), np.float32))
    slicer.util.setSliceViewerLayers(background=volume)
    manager = slicer.app.layoutManager()
    assert set(manager.sliceViewNames()) == {"Red", "Green", "Yellow"}
    for name in manager.sliceViewNames():
        composite = manager.sliceWidget(name).sliceLogic().GetSliceCompositeNode()
        assert composite.GetBackgroundVolumeID() == volume.GetID()


def test_the_layout_number_is_the_layout_nodes(slicer_scene):
    import slicer

    seen = []
    manager = slicer.app.layoutManager()
    assert manager.connect("layoutChanged(int)", seen.append)
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView)
    assert manager.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView
    assert seen == [manager.layout]


def test_a_segment_reaches_its_array_through_the_segmentations_logic(slicer_scene):
    import slicer

    volume = slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), np.float32))
    segmentation = slicer_scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment = segmentation.GetSegmentation().AddEmptySegment("core")
    drawn = np.zeros((4, 5, 6), np.uint8)
    drawn[1:3, 2:4, 3:5] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(drawn, segmentation, segment, volume)
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, volume), drawn)


def test_each_test_has_a_scene_of_its_own(slicer_scene):
    import slicer

    assert slicer.mrmlScene is slicer_scene
    assert slicer_scene.GetNumberOfNodesByClass("vtkMRMLVolumeNode") == 0
    assert "qt" not in sys.modules


def test_names_the_application_lacks_are_refused(slicer_scene):
    import slicer

    with pytest.raises(AttributeError):
        slicer.app.noSuchThing()
    with pytest.raises(AttributeError):
        slicer.app.layout = 3
    with pytest.raises(NotImplementedError, match="stand-in"):
        slicer.app.openSettingsDialog()
