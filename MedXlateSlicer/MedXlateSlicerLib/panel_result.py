"""The panel's result: overlay with fade, side by side, warnings and run record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from MedXlateCore.files import json_text
from MedXlateSlicerLib.bridge import is_synthetic
from MedXlateSlicerLib.nodes import Node
from MedXlateSlicerLib.placement import (
    RECORD_ATTRIBUTE,
    ViewState,
    capture_views,
    restore_views,
    set_overlay_opacity,
    show_overlay,
    show_side_by_side,
)
from MedXlateSlicerLib.texts import tr as _
from MedXlateSlicerLib.translator import RunStatus
from MedXlateSlicerLib.widgets import set_text

__all__ = ["ResultSection", "source_of"]


def source_of(scene: Node, result: Node | None) -> Node | None:
    """Return the volume that a result lies under in the subject hierarchy, or None."""
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if result is None or hierarchy is None:
        return None
    node = hierarchy.GetItemDataNode(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(result)))
    return node if node is not None and node.IsA("vtkMRMLScalarVolumeNode") else None


class ResultSection:
    """Shows a result in the views and what is known of it. The views' position and zoom stay as they are.

    Args:
        ui: the panel's widgets by name.
        scene: the scene.
        parameters: returns the parameters, or None without a scene.
        copy: puts a text on the clipboard.
    """

    def __init__(self, ui: Any, scene: Node, parameters: Callable[[], Any], copy: Callable[[str], None]) -> None:
        self._ui = ui
        self._scene = scene
        self._parameters = parameters
        self._before: ViewState | None = None
        self._faded: float | None = None
        ui.overlayButton.connect("clicked()", self.overlay)
        ui.sideBySideButton.connect("clicked()", self.side_by_side)
        ui.restoreButton.connect("clicked()", self.restore)
        ui.copyRecordButton.connect(
            "clicked()", lambda: copy(f"{ui.warningsText.plainText}\n\n{ui.recordText.plainText}".strip())
        )
        self.show(RunStatus())

    def show(self, status: RunStatus) -> None:
        """Show which result there is; follow the fade slider."""
        result, ui = self._result(), self._ui
        source = source_of(self._scene, result)
        text = _("No result yet.") if result is None else result.GetName()
        if source is not None:
            text = _("{result}, on the grid of {source}").format(result=text, source=source.GetName())
        set_text(ui.resultText, text)
        for widget in (ui.overlayButton, ui.fadeSlider):
            widget.enabled = result is not None
        ui.sideBySideButton.enabled = source is not None
        ui.restoreButton.enabled = self._before is not None
        self._fade(result)
        set_text(ui.warningsText, "\n".join(w.as_text() for w in status.warnings) or _("none"))
        record = json_text(status.record) if status.record else ""
        if not record and result is not None:
            record = result.GetAttribute(RECORD_ATTRIBUTE) or ""
        set_text(ui.recordText, record)
        ui.copyRecordButton.enabled = bool(record or status.warnings)

    def overlay(self) -> None:
        """Show the result over its source in all slice views."""
        result = self._result()
        if result is not None:
            self._remember()
            self._faded = self._parameters().fade
            show_overlay(self._scene, result, source_of(self._scene, result), self._faded)

    def side_by_side(self) -> None:
        """Show source and result beside each other."""
        result = self._result()
        source = source_of(self._scene, result)
        if result is not None and source is not None:
            self._remember()
            show_side_by_side(self._scene, result, source)

    def restore(self) -> None:
        """Show what was shown before."""
        if self._before is not None:
            restore_views(self._scene, self._before)
            self._before = None
            self._ui.restoreButton.enabled = False

    def forget(self) -> None:
        """Let go of a scene that is closed."""
        self._before = self._faded = None

    def _remember(self) -> None:
        if self._before is None:
            self._before = capture_views(self._scene)
        self._ui.restoreButton.enabled = True

    def _fade(self, result: Node | None) -> None:
        """Set the opacity when the slider has moved; opacities that the user set elsewhere stay."""
        parameters = self._parameters()
        if result is not None and self._faded is not None and parameters.fade != self._faded:
            self._faded = parameters.fade
            set_overlay_opacity(self._scene, result, parameters.fade)

    def _result(self) -> Node | None:
        parameters = self._parameters()
        node = None if parameters is None else parameters.result
        return node if node is not None and is_synthetic(node) else None
