"""The panel of the module MedXlate: joins its sections with the parameters and the translator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from MedXlateCore.errors import MedXlateError
from MedXlateSlicerLib.estimates import Store, duration_text
from MedXlateSlicerLib.nodes import Node
from MedXlateSlicerLib.panel_models import ModelsSection
from MedXlateSlicerLib.panel_region import SegmentEditor, SegmentsTable
from MedXlateSlicerLib.panel_result import ResultSection
from MedXlateSlicerLib.panel_run import RunSection
from MedXlateSlicerLib.panel_samples import SamplesSection
from MedXlateSlicerLib.panel_sources import SourcesSection
from MedXlateSlicerLib.panel_state import PanelState, panel_state
from MedXlateSlicerLib.panel_words import WordsSection
from MedXlateSlicerLib.parameters import chosen_sources
from MedXlateSlicerLib.regions import empty_segments, full_uses, segments_by_region
from MedXlateSlicerLib.runner import Runner
from MedXlateSlicerLib.texts import tr as _
from MedXlateSlicerLib.translator import Request, Translator
from MedXlateSlicerLib.widgets import set_text

__all__ = ["Panel"]

POLL_MS = {"worker": 30, "panel": 0}


class Panel:
    """What the widget class drives.

    Args:
        ui: the widgets of MedXlate.ui by name.
        scene: the scene.
        make_runner: returns the driver for ``worker`` or ``panel``.
        prepare: makes sure that what a run in ``worker`` or ``panel`` needs is installed; raises MedXlateError where it
            is not.
        store: the application's settings.
        copy: puts a text on the clipboard.
    """

    def __init__(
        self,
        ui: Any,
        scene: Node,
        make_runner: Callable[[str], Runner],
        prepare: Callable[[str], None],
        store: Store,
        copy: Callable[[str], None],
    ) -> None:
        import qt

        self._ui = ui
        self._prepare = prepare
        self._shown_result: str | None = None
        self.parameters: Any = None
        self.translator = Translator(scene, make_runner, store, self._status_changed)
        self.sources = SourcesSection(ui, lambda: self.parameters)
        self.segments = SegmentsTable(ui.segmentsTable, self._set_uses)
        self.editor = SegmentEditor(ui.segmentEditor, scene)
        self.run = RunSection(ui, lambda: self.parameters, self.apply_or_cancel, copy)
        self.words = WordsSection(ui, lambda: self.parameters)
        self.samples = SamplesSection(ui, lambda: self.parameters)
        self.result = ResultSection(ui, scene, lambda: self.parameters, copy)
        self.models = ModelsSection(ui, self.refresh)
        self.timer = qt.QTimer()
        self.timer.connect("timeout()", self._poll)
        ui.segmentation.connect("nodeAddedByUser(vtkMRMLNode*)", self._new_segmentation)
        ui.editorBox.connect("toggled(bool)", lambda on: self.refresh())
        self.models.reload()

    # --- showing ----------------------------------------------------------------------------------------------------

    def set_parameters(self, parameters: Any) -> None:
        """Show these parameters from now on; None without a scene."""
        self.parameters = parameters
        self.refresh()

    def refresh(self) -> None:
        """Show everything anew."""
        parameters = self.parameters
        if parameters is None:
            return
        idle = not self.translator.busy
        state = self._state()
        self.words.show(state, idle)
        self.samples.show(state, idle)
        request = self._request()
        self.sources.show(state, idle)
        self.segments.show(parameters.segmentation, self._uses(), idle)
        self._ui.segmentation.enabled = idle
        set_text(self._ui.regionLabel, state.region_text)
        opened = not self._ui.editorBox.collapsed
        self.editor.edit(parameters.segmentation, self._grid_node(request), opened)
        self._ui.editorBox.visible = parameters.segmentation is not None
        expected = duration_text(self.translator.expected_seconds(request)) if request else _("known when a model fits")
        self.run.show(state, idle, expected)
        self.result.show(self.translator.status)
        self.models.set_busy(not idle)

    def state(self) -> PanelState:
        """Return what the choices lead to."""
        return self._state()

    def _state(self) -> PanelState:
        parameters, uses = self.parameters, self._uses()
        parts = segments_by_region(parameters.segmentation, uses)
        return panel_state(
            self.models.entries,
            chosen_sources(parameters),
            target=parameters.target,
            model=parameters.model,
            used_segments=sum(len(ids) for ids in parts.values()),
            empty_segments=empty_segments(parameters.segmentation, uses),
        )

    def _request(self) -> Request | None:
        """Return what Apply would make, or None."""
        parameters, state = self.parameters, self._state()
        if state.model is None:
            return None
        return Request(
            sources=chosen_sources(parameters), model=state.model, target=state.target, grid_of=parameters.gridOf,
            segmentation=parameters.segmentation, uses=self._uses(), device=parameters.device,
            precision=parameters.precision, sampling=self.samples.sampling(state), run_in=parameters.runIn,
            uncertainty=state.draws_samples and parameters.uncertaintyMap,
            target_text=self.words.text(state),
        )  # fmt: skip

    def _uses(self) -> dict[str, str]:
        return full_uses(self.parameters.segmentation, self.parameters.segmentRoles)

    def _set_uses(self, uses: dict[str, str]) -> None:
        if self.parameters is not None:
            self.parameters.segmentRoles = uses  # a new dictionary: changes in place are not stored

    def _grid_node(self, request: Request | None) -> Node | None:
        if request is not None:
            return request.sources[request.reference]
        return next(iter(chosen_sources(self.parameters).values()), None)

    def _new_segmentation(self, node: Node) -> None:
        """Prepare a segmentation that the user made here: shown, on the source's grid, with one segment to paint."""
        node.CreateDefaultDisplayNodes()
        grid = self._grid_node(self._request())
        if grid is not None:
            node.SetReferenceImageGeometryParameterFromVolumeNode(grid)
        node.GetSegmentation().AddEmptySegment()
        self._ui.editorBox.collapsed = False

    # --- running ----------------------------------------------------------------------------------------------------

    def apply_or_cancel(self) -> None:
        """Start a run, or stop the one under way."""
        if self.translator.busy:
            self.translator.cancel()
            return
        request = self._request()
        if request is None:
            return
        try:
            self._prepare(request.run_in)
        except MedXlateError as error:
            self.translator.refuse(error)
            return
        self.timer.setInterval(POLL_MS[request.run_in])
        self.timer.start()
        self.translator.start(request)

    def _poll(self) -> None:
        self.translator.poll()
        if not self.translator.busy:
            self.timer.stop()

    def _status_changed(self) -> None:
        status = self.translator.status
        self.run.show_status(status)
        if status.phase == "running" and status.total:
            return  # called for every slice: only the progress changes
        if status.phase == "done" and self.parameters is not None and status.result is not None:
            self._show_new(status.result)
        self.refresh()

    def _show_new(self, result: Node) -> None:
        """Show a new result over its source; an updated one is in the views already."""
        self.parameters.result = result
        if result.GetID() != self._shown_result:
            self._shown_result = result.GetID()
            self.result.overlay()

    # --- coming and going -------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """The module is shown."""
        self.models.reload()
        self.sources.detect_if_empty()
        self.editor.enter()
        self.refresh()

    def leave(self) -> None:
        """Another module is shown; a run goes on."""
        self.editor.leave()

    def forget_scene(self) -> None:
        """The scene is being closed."""
        self.timer.stop()
        self.editor.forget()
        self.translator.forget_scene()
        self.result.forget()
        self._shown_result = None
        self.run.show_status(self.translator.status)

    def close(self) -> None:
        """The panel is taken down."""
        self.timer.stop()
        self.parameters = None
        self.translator.close()  # first: whatever happens to the widgets, no worker stays behind
        self.editor.leave()
        self.editor.forget()
