"""The panel's region of interest: a segmentation, what its segments are used as, and the Segment Editor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from MedXlateSlicerLib.nodes import Node
from MedXlateSlicerLib.regions import USES, segment_names, use_text
from MedXlateSlicerLib.widgets import chosen, fill_combo, set_row

__all__ = ["EDITOR_TAG", "SegmentEditor", "SegmentsTable"]

EDITOR_TAG = "MedXlate"
"""Singleton tag of the editor's node. The Segment Editor module has a node of its own: two editors on one node would
both take up an effect, paint everything twice, and change what the other one edits.
"""


class SegmentsTable:
    """The table of segments with a choice of use in every row.

    Args:
        table: the QTableWidget.
        on_change: called with the uses by segment identifier after the user changed one.
    """

    def __init__(self, table: Any, on_change: Callable[[dict[str, str]], None]) -> None:
        self._table = table
        self._on_change = on_change
        self._rows: list[tuple[str, str]] = []
        self._combos: list[Any] = []
        table.horizontalHeader().setStretchLastSection(True)
        table.verticalHeader().visible = False

    def show(self, segmentation: Node | None, uses: Mapping[str, str], enabled: bool) -> None:
        """Show the segments and their uses."""
        rows = list(segment_names(segmentation).items())
        if rows != self._rows:
            self._build(rows)
        for combo, (segment_id, _) in zip(self._combos, self._rows, strict=True):
            fill_combo(combo, [(use_text(use), use) for use in USES], uses.get(segment_id, "none"))
            combo.enabled = enabled
        self._table.visible = bool(rows)

    def _build(self, rows: list[tuple[str, str]]) -> None:
        import qt

        self._rows, self._combos = rows, []
        self._table.setRowCount(len(rows))
        for row, (_, name) in enumerate(rows):
            combo = qt.QComboBox()
            combo.toolTip = self._table.toolTip
            fill_combo(combo, [(use_text(use), use) for use in USES], "none")
            combo.connect("currentIndexChanged(int)", self._changed)
            set_row(self._table, row, [name])
            self._table.setCellWidget(row, 1, combo)
            self._combos.append(combo)
        self._table.setColumnWidth(0, 180)

    def _changed(self, index: int = 0) -> None:
        pairs = zip(self._rows, self._combos, strict=True)
        self._on_change({segment_id: chosen(combo) or "none" for (segment_id, _), combo in pairs})


class SegmentEditor:
    """The embedded Segment Editor, independent of the Segment Editor module.

    Args:
        editor: the qMRMLSegmentEditorWidget.
        scene: the scene.
    """

    def __init__(self, editor: Any, scene: Node) -> None:
        self._editor = editor
        self._scene = scene
        self._shown = False
        editor.setMaximumNumberOfUndoStates(10)
        editor.autoShowSourceVolumeNode = False  # it would change what the user's views show

    def edit(self, segmentation: Node | None, source: Node | None, opened: bool = True) -> None:
        """Edit a segmentation on a volume's grid.

        While the editor is folded up its effect is put away and nothing else is touched: a segmentation that is merely
        chosen keeps its display, and the views keep their label layer. While another module is shown nothing happens.
        """
        node = self._editor.mrmlSegmentEditorNode()
        if not self._shown or (node is None and (segmentation is None or not opened)):
            return
        if segmentation is not None and not opened:
            self._editor.setActiveEffect(None)
            return
        node = self._require_node()
        # asked of the node: the widget's own selector may show a segmentation that is not edited
        if node.GetSegmentationNode() is not segmentation:
            self._editor.setSegmentationNode(segmentation)
        if segmentation is not None and source is not None and node.GetSourceVolumeNode() is not source:
            self._editor.setSourceVolumeNode(source)

    def enter(self) -> None:
        """Listen to the views and the keyboard, now or as soon as there is something to edit."""
        self._shown = True
        if self._editor.mrmlSegmentEditorNode() is not None:
            self._editor.updateWidgetFromMRML()
            self._editor.setupViewObservations()
            self._editor.installKeyboardShortcuts()

    def leave(self) -> None:
        """Put the effect away and let go of views and keyboard."""
        self._shown = False
        if self._editor.mrmlSegmentEditorNode() is not None:
            self._editor.setActiveEffect(None)
            self._editor.uninstallKeyboardShortcuts()
            self._editor.removeViewObservations()

    def forget(self) -> None:
        """Let go of the scene's nodes. The editor's own node stays: with it the widget puts its effect away."""
        if self._editor.mrmlSegmentEditorNode() is not None:
            self._editor.setActiveEffect(None)
            self._editor.setSegmentationNode(None)
            self._editor.removeViewObservations()  # while a scene closes, the widget does not do so itself

    def _require_node(self) -> Node:
        """Return the editor's node, made where it is not there yet."""
        import slicer

        known = self._editor.mrmlSegmentEditorNode()
        if known is not None and known.GetScene() is self._scene:
            return known
        node = self._scene.GetSingletonNode(EDITOR_TAG, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetSingletonTag(EDITOR_TAG)
            node = self._scene.AddNode(node)
        self._editor.setMRMLSegmentEditorNode(node)
        self._editor.setupViewObservations()
        self._editor.installKeyboardShortcuts()
        return node
