"""The MRML scene with what the application adds to it: logics, view nodes, subject hierarchy items."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import slicer
import vtk

# terminologies and the like, which slicer-core comes without
SHARE = Path(importlib.util.find_spec("trame_slicer").submodule_search_locations[0]) / "resources"

# the application's names of its modules, and their logics
LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Units": "vtkSlicerUnitsLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "Data": "vtkSlicerDataModuleLogic",
}
# the classes that a subject hierarchy plugin of the application claims
IN_HIERARCHY = (
    "vtkMRMLDisplayableNode",
    "vtkMRMLTableNode",
    "vtkMRMLTextNode",
    "vtkMRMLPlotChartNode",
    "vtkMRMLPlotSeriesNode",
    "vtkMRMLSequenceNode",
)


class Scene:
    """One fresh scene and its logics; `close` undoes what it observes."""

    def __init__(self) -> None:
        self.scene = slicer.vtkMRMLScene()
        self.slice_logics: dict[str, Any] = {}
        self._tags: list[int] = []
        self.module_logics: dict[str, Any] = {}
        self.application_logic = slicer.vtkSlicerApplicationLogic()
        self._make_nodes()
        self._make_logics()

    def _make_nodes(self) -> None:
        scene, logic = self.scene, self.application_logic
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        scene.AddNode(crosshair)
        logic.SetMRMLScene(scene)
        logic.GetColorLogic().SetMRMLScene(scene)
        logic.GetColorLogic().AddDefaultColorNodes()
        self._collection = vtk.vtkCollection()
        logic.SetSliceLogics(self._collection)
        logic.SetViewLogics(vtk.vtkCollection())
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
        self.layout_logic = slicer.vtkMRMLLayoutLogic()
        self.layout_logic.SetMRMLScene(scene)
        slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")):
            self._add_slice_logic(scene.GetNthNodeByClass(index, "vtkMRMLSliceNode"))
        self._observe(slicer.vtkMRMLScene.NodeAddedEvent, self._on_node_added)
        self._observe(slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, self._on_node_removed)

    def _observe(self, event: int, function: Any) -> None:
        @vtk.calldata_type(vtk.VTK_OBJECT)
        def on_event(caller: Any, event: Any, node: Any) -> None:
            function(node)

        self._tags.append(self.scene.AddObserver(event, on_event))

    def _add_slice_logic(self, node: Any) -> None:
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLScene(self.scene)
        logic.SetMRMLApplicationLogic(self.application_logic)
        logic.SetSliceNode(node)
        node.SetDimensions(300, 300, 1)
        self.slice_logics[node.GetLayoutName()] = logic
        self._collection.AddItem(logic)

    def _on_node_added(self, node: Any) -> None:
        if node.IsA("vtkMRMLSliceNode") and node.GetLayoutName() not in self.slice_logics:
            self._add_slice_logic(node)
        if not node.GetHideFromEditors() and any(node.IsA(name) for name in IN_HIERARCHY):
            hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
            if not hierarchy.GetItemByDataNode(node):
                hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    def _on_node_removed(self, node: Any) -> None:
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
        item = hierarchy.GetItemByDataNode(node) if hierarchy and node is not hierarchy else 0
        if item and not self.scene.IsClosing():
            hierarchy.RemoveItem(item, False, False)

    def _make_logics(self) -> None:
        for name, class_name in LOGICS.items():
            logic = getattr(slicer, class_name)()
            # the application logic first: without it loading the scene's defaults fails
            logic.SetMRMLApplicationLogic(self.application_logic)
            if hasattr(logic, "SetModuleShareDirectory"):
                logic.SetModuleShareDirectory(str(SHARE / name.lower()))
            logic.SetMRMLScene(self.scene)
            self.application_logic.SetModuleLogic(name, logic)
            self.module_logics[name] = logic

    def close(self) -> None:
        """Empty the scene and let go of it; the logics go before their scene, which they do not own."""
        for tag in self._tags:
            self.scene.RemoveObserver(tag)
        self._collection.RemoveAllItems()
        self.slice_logics.clear()
        self.module_logics.clear()
        self.scene.Clear(False)
