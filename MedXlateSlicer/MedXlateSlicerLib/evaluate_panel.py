"""The panel of the module MedXlateEvaluate: figures, error map and plot of a synthetic image against its reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from MedXlateCore.errors import InternalError, MedXlateError
from MedXlateCore.metrics.protocols import PROTOCOLS
from MedXlateSlicerLib.bridge import is_synthetic, roi_from_segmentation
from MedXlateSlicerLib.evaluation import (
    Comparison,
    add_error_map,
    add_plots,
    add_table,
    compare_nodes,
    export_csv,
    export_html,
    remove_nodes,
)
from MedXlateSlicerLib.nodes import Node
from MedXlateSlicerLib.panel_region import SegmentsTable
from MedXlateSlicerLib.placement import (
    ViewState,
    capture_views,
    is_uncertainty,
    place_under,
    restore_views,
    show_overlay,
)
from MedXlateSlicerLib.regions import REGION_LABELS, full_uses, segments_by_region
from MedXlateSlicerLib.texts import tr as _
from MedXlateSlicerLib.widgets import chosen, details, fill_combo, set_text

__all__ = ["EvaluatePanel", "compare"]


def compare(
    scene: Node,
    synthetic: Node,
    reference: Node,
    segmentation: Node | None = None,
    uses: Mapping[str, str] | None = None,
    protocol: str = "volume3d",
) -> Comparison:
    """Compare two volume nodes, inside and outside the used segments where there are some. Adds no node.

    Raises:
        MedXlateError: see ``bridge.roi_from_segmentation`` and ``evaluation.compare_nodes``.
    """
    parts = segments_by_region(segmentation, full_uses(segmentation, {}) if uses is None else uses)
    if not parts:
        return compare_nodes(reference, synthetic, scene=scene, protocol=protocol)
    regions = roi_from_segmentation(segmentation, parts, reference, REGION_LABELS, scene)
    named = {part: REGION_LABELS[part] for part in parts}
    return compare_nodes(reference, synthetic, scene=scene, protocol=protocol, regions=regions, region_labels=named)


class EvaluatePanel:
    """What the widget class drives.

    Args:
        ui: the widgets of MedXlateEvaluate.ui by name.
        scene: the scene.
        application_logic: the application's vtkSlicerApplicationLogic, whose selection plot and table views follow.
        copy: puts a text on the clipboard.
    """

    def __init__(self, ui: Any, scene: Node, application_logic: Any, copy: Callable[[str], None]) -> None:
        self._ui = ui
        self._scene = scene
        self._application_logic = application_logic
        self._before: ViewState | None = None
        self._error: MedXlateError | None = None
        self._status = ""
        self._nodes: list[Node] = []  # of the last comparison: table, error map, charts and theirs
        self.parameters: Any = None
        self.comparison: Comparison | None = None
        self.segments = SegmentsTable(ui.segmentsTable, self._set_uses)
        fill_combo(ui.protocolCombo, [(name, name) for name in PROTOCOLS], "volume3d")
        fill_combo(ui.plotCombo, [(_("histogram"), "histogram"), (_("Bland-Altman"), "differences")], "histogram")
        ui.protocolCombo.connect("currentIndexChanged(int)", lambda index: self._store("protocol", ui.protocolCombo))
        ui.plotCombo.connect("currentIndexChanged(int)", lambda index: self._store("plot", ui.plotCombo))
        ui.applyButton.connect("clicked()", self.apply)
        ui.showErrorButton.connect("clicked()", self.show_error_map)
        ui.showPlotButton.connect("clicked()", self.show_plot)
        ui.restoreButton.connect("clicked()", self.restore_views)
        ui.exportCsvButton.connect("clicked()", lambda: self._export(_("Table (*.csv)"), ".csv", export_csv))
        ui.exportHtmlButton.connect("clicked()", lambda: self._export(_("Page (*.html)"), ".html", export_html))
        ui.copyErrorButton.connect("clicked()", lambda: copy(details(self._error) if self._error else ""))

    # --- showing ----------------------------------------------------------------------------------------------------

    def set_parameters(self, parameters: Any) -> None:
        """Show these parameters from now on; None without a scene."""
        self.parameters = parameters
        self.refresh()

    def enter(self) -> None:
        """The module is shown: suggest the newest synthetic image where none is chosen."""
        parameters = self.parameters
        if parameters is not None and parameters.synthetic is None:
            count = self._scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
            nodes = (self._scene.GetNthNodeByClass(index, "vtkMRMLScalarVolumeNode") for index in range(count))
            images = [node for node in nodes if is_synthetic(node) and not is_uncertainty(node)]
            newest = [node for node in images if node not in self._nodes]
            if newest:
                parameters.synthetic = newest[-1]
        self.refresh()

    def refresh(self) -> None:
        """Show everything anew."""
        parameters, ui = self.parameters, self._ui
        if parameters is None:
            return
        self.segments.show(parameters.segmentation, self._uses(), True)
        ui.segmentsLabel.visible = ui.segmentsTable.rowCount > 0  # "visible" is False in a panel not shown yet
        fill_combo(ui.protocolCombo, [(name, name) for name in PROTOCOLS], parameters.protocol)
        ui.protocolCombo.toolTip = "\n".join(PROTOCOLS[chosen(ui.protocolCombo)].describe())
        hint = self._hint()
        ui.applyButton.enabled = not hint
        set_text(ui.statusText, self._status or hint or _("Ready."))
        ui.errorBox.visible = self._error is not None
        set_text(ui.errorText, self._error.as_text() if self._error else "")
        for button in (ui.showErrorButton, ui.showPlotButton, ui.exportCsvButton, ui.exportHtmlButton):
            button.enabled = self.comparison is not None
        ui.restoreButton.enabled = self._before is not None
        warnings = self.comparison.result.warnings if self.comparison else ()
        set_text(ui.warningsText, "\n".join(warning.as_text() for warning in warnings) or _("none"))

    def _hint(self) -> str:
        parameters = self.parameters
        if parameters.synthetic is None or parameters.reference is None:
            return _("Choose a synthetic image and its reference.")
        if parameters.synthetic is parameters.reference:
            return _("Synthetic image and reference are the same volume.")
        return ""

    def _uses(self) -> dict[str, str]:
        return full_uses(self.parameters.segmentation, self.parameters.segmentRoles)

    def _set_uses(self, uses: dict[str, str]) -> None:
        if self.parameters is not None:
            self.parameters.segmentRoles = uses

    def _store(self, parameter: str, combo: Any) -> None:
        if self.parameters is not None:
            setattr(self.parameters, parameter, chosen(combo))

    # --- comparing --------------------------------------------------------------------------------------------------

    def apply(self) -> None:
        """Compare, and put table, error map and plots into the scene in place of the last ones."""
        self._error, self._status = None, ""
        try:
            self._compare()
        except MedXlateError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001 - the edge of the panel: told, not thrown into the event loop
            self._error = InternalError.from_exception(error)
        if self._error is not None:
            self._status = _("It did not work: {found}.").format(found=self._error.found)
        self.refresh()

    def _compare(self) -> None:
        parameters = self.parameters
        synthetic, reference = parameters.synthetic, parameters.reference
        comparison = compare(
            self._scene, synthetic, reference, parameters.segmentation, self._uses(), parameters.protocol
        )
        remove_nodes(self._scene, self._nodes)
        name = f"{synthetic.GetName()} - {reference.GetName()}"
        self.comparison = comparison
        self._nodes = [add_table(self._scene, comparison, f"{name} figures")]
        self._nodes.append(add_error_map(self._scene, comparison, reference, f"{name} error"))
        self._nodes += add_plots(self._scene, comparison, name)
        for node in self._nodes[:4]:
            place_under(self._scene, node, reference)
        self._ui.tableView.setMRMLTableNode(self._nodes[0])
        self._ui.tableView.resizeColumnsToContents()
        self._status = _("Compared under the protocol {name}.").format(name=comparison.result.protocol.name)

    # --- views and files --------------------------------------------------------------------------------------------

    def show_error_map(self) -> None:
        """Show the error map over the reference."""
        if self._still_there(1):
            self._remember()
            show_overlay(self._scene, self._nodes[1], self.parameters.reference, 0.7)
            self.refresh()

    def show_plot(self) -> None:
        """Show the chosen plot beside the slice views."""
        import slicer

        index = 3 if chosen(self._ui.plotCombo) == "differences" else 2
        layout = self._scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        if not self._still_there(index) or layout is None:
            return
        self._remember()
        layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalPlotView)
        selection = self._application_logic.GetSelectionNode()
        selection.SetActivePlotChartID(self._nodes[index].GetID())
        self._application_logic.PropagatePlotChartSelection()
        self.refresh()

    def restore_views(self) -> None:
        """Show what was shown before."""
        if self._before is not None:
            restore_views(self._scene, self._before)
            self._before = None
        self.refresh()

    def forget_scene(self) -> None:
        """The scene is being closed."""
        self._nodes, self.comparison, self._before, self._error, self._status = [], None, None, None, ""
        self._ui.tableView.setMRMLTableNode(None)  # it would go on showing the figures

    def _still_there(self, index: int) -> bool:
        """True if a node of the last comparison has not been deleted by the user."""
        return len(self._nodes) > index and self._nodes[index].GetScene() is self._scene

    def _remember(self) -> None:
        if self._before is None:
            self._before = capture_views(self._scene)

    def _export(self, kind: str, suffix: str, write: Callable[[Path, Comparison], None]) -> None:
        import qt

        if self.comparison is None:
            return
        path = qt.QFileDialog.getSaveFileName(self._ui.resultsSection, _("Export"), f"evaluation{suffix}", kind)
        if not path:
            return
        self._error, target = None, Path(path) if Path(path).suffix else Path(path).with_suffix(suffix)
        try:
            write(target, self.comparison)
            self._status = _("Written: {path}").format(path=target)
        except MedXlateError as error:
            self._error, self._status = error, _("It was not written: {found}.").format(found=error.found)
        self.refresh()
