"""Where a result goes in a scene: its marks, its place under the source, its window, and how views show it.

Views are found in the scene alone (layout, slice and composite nodes). Nothing here moves, rotates or fits a view that
the user arranged, and what was shown before can be shown again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from MedXlateCore.errors import InputError
from MedXlateCore.files import json_text
from MedXlateCore.metrics.pictures import display_window
from MedXlateCore.provenance import STATEMENT
from MedXlateCore.transforms.foreground import foreground_mask
from MedXlateCore.volume import Volume
from MedXlateSlicerLib.bridge import SYNTHETIC_ATTRIBUTE, node_from_volume
from MedXlateSlicerLib.colours import sequential_colours
from MedXlateSlicerLib.nodes import Node

__all__ = [
    "COMPARISON_LAYOUT",
    "RECORD_ATTRIBUTE",
    "TARGET_ATTRIBUTE",
    "ViewState",
    "add_result",
    "add_uncertainty",
    "capture_views",
    "is_uncertainty",
    "mark_synthetic",
    "mark_uncertainty",
    "place_under",
    "register_layout",
    "restore_views",
    "set_overlay_opacity",
    "set_window",
    "show_overlay",
    "show_side_by_side",
]

RECORD_ATTRIBUTE = "MedXlate.record"
TARGET_ATTRIBUTE = "MedXlate.target"
SHOWS_ATTRIBUTE = "MedXlate.shows"
UNCERTAINTY = "standard deviation"
"""Value of the attribute ``MedXlate.shows``, and of ``shows`` in the run record, as beside the command line's file."""
COMPARISON_LAYOUT = 51701
"""Number of the layout with source and result side by side; Slicer's own layouts end far below."""

SOURCE_VIEW, RESULT_VIEW = "MedXlateSource", "MedXlateResult"
_CT_WINDOW = (-135.0, 215.0)  # soft tissue: level 40, window 350
_CT_PRESETS = ((100.0, 50.0), (350.0, 40.0), (1000.0, 400.0))  # window, level: brain, soft tissue, bone


# --- the result as a node -------------------------------------------------------------------------------------------


def add_result(scene: Node, volume: Volume, record: Mapping[str, Any], source_node: Node | None) -> Node:
    """Add a synthetic volume to a scene: named, marked, windowed, on the grid of its source and under it.

    Args:
        scene: where to.
        volume: the result; its source name (``SYNTHETIC T1ce (model)``) becomes the node's name.
        record: the run record, as ``RunRecord.as_dict`` gives it.
        source_node: the reference source, or None if it is gone.
    """
    name = volume.source.name or f"SYNTHETIC {volume.modality}"
    node = node_from_volume(volume, scene, name, source_node)
    mark_synthetic(node, record)
    set_window(node, volume)
    place_under(scene, node, source_node)
    return node


def add_uncertainty(scene: Node, volume: Volume, record: Mapping[str, Any], result_node: Node) -> Node:
    """Add the samples' standard deviation to a scene, under the result: named, marked, with colours from 0 upwards.

    Args:
        scene: where to.
        volume: the standard deviation, on the result's grid; its source name becomes the node's name.
        record: the run record of the result.
        result_node: the result it belongs to.
    """
    node = node_from_volume(volume, scene, volume.source.name or f"SYNTHETIC, {UNCERTAINTY}", result_node)
    mark_uncertainty(node, record)
    node.SetDescription("standard deviation of each voxel over the samples, in the result's unit")
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(sequential_colours(scene).GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0.0, _reach(volume))
    place_under(scene, node, result_node)
    return node


def mark_uncertainty(node: Node, record: Mapping[str, Any]) -> None:
    """Write onto a node what ``mark_synthetic`` writes, and that it shows a standard deviation."""
    mark_synthetic(node, {**record, "shows": UNCERTAINTY})
    node.SetAttribute(SHOWS_ATTRIBUTE, UNCERTAINTY)


def is_uncertainty(node: Node) -> bool:
    """True for a node that shows how far samples differ, and no image."""
    return node.GetAttribute(SHOWS_ATTRIBUTE) == UNCERTAINTY


def _reach(volume: Volume) -> float:
    """Return the 99.5 percentile; the largest value where that is 0, and 1 where all are."""
    reach = float(np.percentile(volume.array, 99.5)) or float(volume.array.max())
    return reach if reach > 0 else 1.0


def mark_synthetic(node: Node, record: Mapping[str, Any]) -> None:
    """Write onto a node that it is synthetic, what made it, and the whole run record; scenes save this with it."""
    model = record.get("model") or {}
    attributes = {
        SYNTHETIC_ATTRIBUTE: "1",
        "MedXlate.statement": STATEMENT,
        TARGET_ATTRIBUTE: record.get("target", ""),
        "MedXlate.model": f"{model.get('name', '')} {model.get('version', '')}".strip(),
        "MedXlate.sha256": model.get("sha256", ""),
        RECORD_ATTRIBUTE: json_text(record),
    }
    for name, value in attributes.items():
        node.SetAttribute(name, str(value))


def place_under(scene: Node, node: Node, source_node: Node | None) -> None:
    """Put a node under its source in the subject hierarchy, so that it is found where the patient's images are."""
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if hierarchy is None:
        return
    above = hierarchy.GetSceneItemID()
    if source_node is not None and source_node.GetScene() is scene:
        above = _item(hierarchy, source_node, above)
    hierarchy.SetItemParent(_item(hierarchy, node, above), above)


def _item(hierarchy: Node, node: Node, above: int) -> int:
    """Return a node's item; it is created where no application does that by itself."""
    return int(hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(above, node))


def set_window(node: Node, volume: Volume) -> None:
    """Set the grey window of a node: percentiles 0.5 to 99.5 inside the tissue; soft tissue, with presets, for CT."""
    display = node.GetDisplayNode()
    try:
        inside = foreground_mask(volume.array, volume.modality)
    except InputError:  # nothing stands out: the result is kept and shown as it is
        inside = None
    window = display_window(volume, inside)
    if volume.modality.unit == "HU":
        window = _CT_WINDOW
        display.ResetWindowLevelPresets()
        for width, level in _CT_PRESETS:
            display.AddWindowLevelPreset(width, level)
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(*window)


# --- views ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ViewState:
    """What the slice views showed, to be shown again.

    Attributes:
        layers: by identifier of the composite node: background, foreground, label (identifiers or None), opacities of
            foreground and label.
        arrangement: number of the layout, or None without a layout node.
    """

    layers: Mapping[str, tuple[str | None, str | None, str | None, float, float]]
    arrangement: int | None


def capture_views(scene: Node) -> ViewState:
    """Return what all slice views show, and the layout."""
    layers = {
        view.GetID(): (
            view.GetBackgroundVolumeID(),
            view.GetForegroundVolumeID(),
            view.GetLabelVolumeID(),
            view.GetForegroundOpacity(),
            view.GetLabelOpacity(),
        )
        for view in _composites(scene)
    }
    layout = _layout_node(scene)
    return ViewState(layers, None if layout is None else int(layout.GetViewArrangement()))


def restore_views(scene: Node, state: ViewState) -> None:
    """Show again what was captured, as far as it still exists."""
    layout = _layout_node(scene)
    if layout is not None and state.arrangement is not None and layout.GetViewArrangement() != state.arrangement:
        layout.SetViewArrangement(state.arrangement)
    for view in _composites(scene):
        if view.GetID() in state.layers:
            background, foreground, label, opacity, label_opacity = state.layers[view.GetID()]
            view.SetBackgroundVolumeID(_existing(scene, background))
            view.SetForegroundVolumeID(_existing(scene, foreground))
            view.SetLabelVolumeID(_existing(scene, label))
            view.SetForegroundOpacity(opacity)
            view.SetLabelOpacity(label_opacity)


def show_overlay(scene: Node, result_node: Node, source_node: Node | None, opacity: float = 0.5) -> None:
    """Show the result over its source in all slice views; labels stay, and no view is moved.

    Args:
        scene: whose views.
        result_node: becomes the foreground.
        source_node: becomes the background; None leaves the background as it is.
        opacity: of the result, 0 to 1.
    """
    for view in _composites(scene):
        if source_node is not None:
            view.SetBackgroundVolumeID(source_node.GetID())
        view.SetForegroundVolumeID(result_node.GetID())
    set_overlay_opacity(scene, result_node, opacity)


def set_overlay_opacity(scene: Node, result_node: Node, opacity: float) -> None:
    """Set how much of the result is seen over its source (0 to 1), in the views that show it as foreground."""
    for view in _composites(scene):
        if view.GetForegroundVolumeID() == result_node.GetID():
            view.SetForegroundOpacity(min(max(float(opacity), 0.0), 1.0))


def show_side_by_side(scene: Node, result_node: Node, source_node: Node) -> bool:
    """Show source and result beside each other in two linked views of their own, at the slice the red view shows.

    The user's own views keep position, zoom and volumes. Returns False where the scene has no layout.
    """
    layout = _layout_node(scene)
    if layout is None:
        return False
    register_layout(scene)
    layout.SetViewArrangement(COMPARISON_LAYOUT)
    shown = {SOURCE_VIEW: source_node, RESULT_VIEW: result_node}
    for view in _composites(scene):
        if view.GetLayoutName() in shown:
            view.SetLinkedControl(1)
            view.SetBackgroundVolumeID(shown[view.GetLayoutName()].GetID())
            view.SetForegroundVolumeID(None)
    red = scene.GetSingletonNode("Red", "vtkMRMLSliceNode")
    for name in shown:
        own = scene.GetSingletonNode(name, "vtkMRMLSliceNode")
        if red is not None and own is not None:
            _look_at_the_same(own, red)
    return True


def register_layout(scene: Node) -> None:
    """Make the layout with source and result known: a scene saved in it would else be opened without views."""
    layout = _layout_node(scene)
    if layout is not None and not layout.IsLayoutDescription(COMPARISON_LAYOUT):
        layout.AddLayoutDescription(COMPARISON_LAYOUT, _comparison_layout())


def _look_at_the_same(own: Node, other: Node) -> None:
    """Give one slice view the plane and the scale (mm per pixel) of another."""
    width, height, _ = other.GetDimensions()
    field = other.GetFieldOfView()
    scale = max(field[0] / max(width, 1), field[1] / max(height, 1))
    own.GetSliceToRAS().DeepCopy(other.GetSliceToRAS())
    own.SetFieldOfView(scale * own.GetDimensions()[0], scale * own.GetDimensions()[1], field[2])
    own.UpdateMatrices()


def _comparison_layout() -> str:
    """Return the layout: two axial views beside each other, in a view group of their own."""
    items = "".join(
        f'<item><view class="vtkMRMLSliceNode" singletontag="{name}">'
        '<property name="orientation" action="default">Axial</property>'
        f'<property name="viewlabel" action="default">{label}</property>'
        f'<property name="viewcolor" action="default">{colour}</property>'
        '<property name="viewgroup" action="default">51</property></view></item>'
        for name, label, colour in ((SOURCE_VIEW, "source", "#4A7FB5"), (RESULT_VIEW, "synthetic", "#B5544A"))
    )
    return f'<layout type="horizontal" split="true">{items}</layout>'


def _composites(scene: Node) -> Iterator[Node]:
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
        yield scene.GetNthNodeByClass(index, "vtkMRMLSliceCompositeNode")


def _layout_node(scene: Node) -> Node | None:
    return scene.GetFirstNodeByClass("vtkMRMLLayoutNode")


def _existing(scene: Node, identifier: str | None) -> str | None:
    return identifier if identifier and scene.GetNodeByID(identifier) is not None else None
