"""qMRML widgets of segmentations, and the views of tables and plots: their nodes are real, drawing is left out."""

from __future__ import annotations

from typing import Any

from PySide6 import QtGui, QtWidgets
from PySide6.QtCore import Property
from PySide6.QtWidgets import QWidget

from .custom import define
from .qmrml import CheckableNodeComboBox, WithScene, body

IDLE = (
    "installKeyboardShortcuts",
    "uninstallKeyboardShortcuts",
    "setupViewObservations",
    "removeViewObservations",
    "rotateSliceViewsToSegmentation",
    "updateEffectList",
    "updateWidgetFromMRML",
    "setEffectNameOrder",
    "saveStateForUndo",
    "undo",
    "redo",
)


class SegmentEditor(WithScene):
    """The segment editor without its effects; `calls` tells what the panel asked of it.

    As in the application, segmentation, source and effect are the editor node's: editors on one node share them all.
    """

    DEFAULTS = {
        "segmentationNodeSelectorVisible": True,
        "sourceVolumeNodeSelectorVisible": True,
        "maximumNumberOfUndoStates": 10,
    }

    def __init__(self, parent: QWidget | None = None) -> None:
        QWidget.__init__(self, parent)
        self.setObjectName("qMRMLSegmentEditorWidget")
        self.calls: list[str] = []
        self.editor_node = None

    @property
    def effect(self) -> str:
        """Return the name of the effect that is taken up, "" for none."""
        return (self.editor_node.GetActiveEffectName() or "") if self.editor_node is not None else ""

    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        """Set the node that holds the editor's choices."""
        self.editor_node = node

    def mrmlSegmentEditorNode(self) -> Any:
        """Return the node that holds the editor's choices."""
        return self.editor_node

    def _editor(self) -> Any:
        if self.editor_node is None:
            raise RuntimeError(
                "the segment editor has no vtkMRMLSegmentEditorNode: call setMRMLSegmentEditorNode first"
            )
        return self.editor_node

    def setSegmentationNode(self, node: Any) -> None:
        """Edit that segmentation."""
        if node is None and self.editor_node is None:
            return
        if self._editor().GetSegmentationNode() is not node:
            self._editor().SetActiveEffectName("")
            self._editor().SetAndObserveSegmentationNode(node)
            self.segmentationNodeChanged.emit(node)
        if node is not None and node.GetSegmentation().GetNumberOfSegments() and not self.currentSegmentID():
            self.setCurrentSegmentID(node.GetSegmentation().GetNthSegmentID(0))

    def segmentationNode(self) -> Any:
        """Return the segmentation that is edited."""
        return None if self.editor_node is None else self.editor_node.GetSegmentationNode()

    def setSourceVolumeNode(self, node: Any) -> None:
        """Edit on that volume's grid."""
        if self.segmentationNode() is None:
            if node is not None:
                raise RuntimeError("need to set segment editor and segmentation nodes first")
            return
        if self._editor().GetSourceVolumeNode() is not node:
            self._editor().SetAndObserveSourceVolumeNode(node)
            self.sourceVolumeNodeChanged.emit(node)

    def sourceVolumeNode(self) -> Any:
        """Return the volume whose grid is used."""
        return None if self.editor_node is None else self.editor_node.GetSourceVolumeNode()

    def currentSegmentID(self) -> str:
        """Return the selected segment's ID."""
        return (self.editor_node.GetSelectedSegmentID() or "") if self.editor_node is not None else ""

    def setCurrentSegmentID(self, segment: str) -> None:
        """Select a segment."""
        if segment != self.currentSegmentID():
            self._editor().SetSelectedSegmentID(segment)
            self.currentSegmentIDChanged.emit(segment)

    def setActiveEffectByName(self, name: str) -> None:
        """Take up the effect of that name, "" for none."""
        self._editor().SetActiveEffectName(name)
        self.calls.append(f"setActiveEffectByName({name})")

    def setActiveEffect(self, effect: Any) -> None:
        """Put the effect away."""
        if effect is not None:
            raise NotImplementedError("the stand-in for Slicer has no effect objects: use setActiveEffectByName")
        if self.editor_node is not None:
            self.editor_node.SetActiveEffectName("")
        self.calls.append("setActiveEffect(None)")

    def activeEffect(self) -> None:
        """Return None: the stand-in has no effect objects."""


def _idle(name: str) -> Any:
    def record(self: Any, *arguments: Any) -> None:
        self.calls.append(name)

    record.__name__, record.__doc__ = name, "Only remember the call."
    return record


for _name in IDLE:
    setattr(SegmentEditor, _name, _idle(_name))


class SegmentsTable(WithScene):
    """The table of a segmentation's segments."""

    DEFAULTS = {
        "headerVisible": True,
        "visibilityColumnVisible": True,
        "colorColumnVisible": True,
        "opacityColumnVisible": True,
    }

    def __init__(self, parent: QWidget | None = None) -> None:
        QWidget.__init__(self, parent)
        self.node, self.selected = None, []

    def setSegmentationNode(self, node: Any) -> None:
        """Show the segments of that node."""
        self.node, self.selected = node, []

    def segmentationNode(self) -> Any:
        """Return the node shown."""
        return self.node

    def displayedSegmentIDs(self) -> list[str]:
        """Return the IDs of the segments shown."""
        return [] if self.node is None else list(self.node.GetSegmentation().GetSegmentIDs())

    def selectedSegmentIDs(self) -> list[str]:
        """Return the IDs of the selected segments."""
        return list(self.selected)

    def setSelectedSegmentIDs(self, segments: list[str]) -> None:
        """Select segments."""
        self.selected = [segment for segment in self.displayedSegmentIDs() if segment in segments]
        self.selectionChanged.emit(None, None)

    def clearSelection(self) -> None:
        """Select nothing."""
        self.setSelectedSegmentIDs([])

    segmentCount = Property(int, lambda self: len(self.displayedSegmentIDs()))


class SegmentSelector(WithScene):
    """A selector of a segmentation and of its segments."""

    DEFAULTS = {"segmentationNodeSelectorVisible": True}

    def __init__(self, parent: QWidget | None = None) -> None:
        QWidget.__init__(self, parent)
        self.node, self.segment, self.selected = None, "", []

    def setCurrentNode(self, node: Any) -> None:
        """Select a segmentation."""
        if node is not self.node:
            self.node, self.selected = node, []
            self.segment = next(iter(self.segmentIDs()), "") if not self.stored("noneEnabled") else ""
            self.currentNodeChanged[object].emit(node)
            self.currentNodeChanged[bool].emit(node is not None)
            self.currentSegmentChanged.emit(self.segment)

    def currentNode(self) -> Any:
        """Return the selected segmentation."""
        return self.node

    def setCurrentNodeID(self, node_id: str) -> None:
        """Select the segmentation of that ID."""
        self.setCurrentNode(self.mrmlScene().GetNodeByID(node_id))

    def currentNodeID(self) -> str:
        """Return the ID of the selected segmentation."""
        return "" if self.node is None else self.node.GetID()

    def segmentIDs(self) -> list[str]:
        """Return the IDs of all segments."""
        return [] if self.node is None else list(self.node.GetSegmentation().GetSegmentIDs())

    def currentSegmentID(self) -> str:
        """Return the ID of the selected segment."""
        return self.segment

    def setCurrentSegmentID(self, segment: str) -> None:
        """Select a segment."""
        if segment != self.segment:
            self.segment = segment
            self.currentSegmentChanged.emit(segment)

    def selectedSegmentIDs(self) -> list[str]:
        """Return the IDs of the segments selected together."""
        return list(self.selected)

    def setSelectedSegmentIDs(self, segments: list[str]) -> None:
        """Select several segments."""
        self.selected = list(segments)
        self.segmentSelectionChanged.emit(self.selected)


class TableView(WithScene):
    """A view of a table node."""

    def setMRMLTableNode(self, node: Any) -> None:
        """Show that table."""
        self.__dict__["_node"] = node
        self.setModel(_model_of(node))

    def mrmlTableNode(self) -> Any:
        """Return the table shown."""
        return self.__dict__.get("_node")


def _model_of(node: Any) -> QtGui.QStandardItemModel:
    """Return the table's cells as Qt shows them; read once, not followed."""
    model = QtGui.QStandardItemModel()
    columns = [] if node is None else [node.GetTable().GetColumn(index) for index in range(node.GetNumberOfColumns())]
    model.setHorizontalHeaderLabels([column.GetName() for column in columns])
    for place, column in enumerate(columns):
        for row in range(column.GetNumberOfValues()):
            model.setItem(row, place, QtGui.QStandardItem(str(column.GetValue(row))))
    return model


class PlotView(WithScene):
    """A view of plots."""

    def setMRMLPlotViewNode(self, node: Any) -> None:
        """Show what that view node names."""
        self.__dict__["_node"] = node

    def mrmlPlotViewNode(self) -> Any:
        """Return the view's node."""
        return self.__dict__.get("_node")


def define_segments() -> None:
    """Make and register the classes."""
    define("qMRMLCheckableNodeComboBox", QWidget, body(CheckableNodeComboBox))
    define("qMRMLSegmentEditorWidget", QWidget, body(SegmentEditor))
    define("qMRMLSegmentsTableView", QWidget, body(SegmentsTable))
    define("qMRMLSegmentSelectorWidget", QWidget, body(SegmentSelector))
    define("qMRMLTableView", QtWidgets.QTableView, body(TableView))
    define("qMRMLPlotView", QWidget, body(PlotView))
    define("qSlicerWidget", QWidget, body(WithScene))
