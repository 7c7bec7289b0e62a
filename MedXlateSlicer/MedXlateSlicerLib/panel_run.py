"""The panel's choices of target, model and device, the Apply button, and what a run tells."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from MedXlateSlicerLib.panel_state import PanelState
from MedXlateSlicerLib.texts import tr as _
from MedXlateSlicerLib.translator import RunStatus
from MedXlateSlicerLib.widgets import chosen, details, fill_combo, set_text

__all__ = ["RunSection"]

# name in the panel: parameter
_COMBOS = {
    "targetCombo": "target",
    "modelCombo": "model",
    "deviceCombo": "device",
    "qualityCombo": "precision",
    "gridCombo": "gridOf",
    "runnerCombo": "runIn",
}
_TOLD = ("targetText", "samples", "uncertaintyMap", "seed")


class RunSection:
    """Shows choices and status; tells what the user wants.

    Args:
        ui: the panel's widgets by name.
        parameters: returns the parameters, or None without a scene.
        on_apply: called by Apply, or by Cancel while a run is under way.
        copy: puts a text on the clipboard.
    """

    def __init__(
        self, ui: Any, parameters: Callable[[], Any], on_apply: Callable[[], None], copy: Callable[[str], None]
    ) -> None:
        self._ui = ui
        self._parameters = parameters
        self._status = RunStatus()
        for name, parameter in _COMBOS.items():
            getattr(ui, name).connect("currentIndexChanged(int)", self._setter(name, parameter))
        ui.applyButton.connect("clicked()", on_apply)
        ui.copyErrorButton.connect("clicked()", lambda: copy(self._error_details()))
        self.show_status(self._status)

    def show(self, state: PanelState, enabled: bool, expected: str) -> None:
        """Show what can be made, by which models, and how long it will take."""
        ui, parameters = self._ui, self._parameters()
        fill_combo(ui.targetCombo, [(target, target) for target in state.targets], state.target)
        offered = [(f"{choice.name} {choice.card.version}", choice.name) for choice in state.offered]
        fill_combo(ui.modelCombo, offered or [(_("none fits"), "")], state.model.name if state.model else "")
        set_text(ui.modelText, state.model_text)
        fill_combo(ui.deviceCombo, _devices(), parameters.device)
        fill_combo(ui.qualityCombo, _qualities(), parameters.precision)
        fill_combo(ui.gridCombo, self._grids(state), parameters.gridOf)
        fill_combo(ui.runnerCombo, _places(), parameters.runIn)
        set_text(ui.timeText, expected)
        for name in _COMBOS:
            getattr(ui, name).enabled = enabled and getattr(ui, name).count > 0
        ui.modelCombo.enabled = enabled and bool(offered)
        ui.gridCombo.enabled = enabled and state.model is not None
        ui.applyButton.enabled = state.can_apply or not enabled
        if enabled and self._status.phase == "idle":
            set_text(ui.statusText, state.hint or _("Ready."))
        elif enabled and state.hint:
            set_text(ui.statusText, f"{self._status.text} {state.hint}".strip())

    def show_status(self, status: RunStatus) -> None:
        """Show how the run stands."""
        self._status = status
        ui, running = self._ui, status.phase == "running"
        ui.applyButton.text = _("Cancel") if running else _("Apply")
        ui.applyButton.toolTip = _("Stop at once; nothing is changed.") if running else _("Make the synthetic image.")
        ui.progressBar.visible = running
        ui.progressBar.maximum = status.total  # 0: it moves without a figure
        ui.progressBar.value = status.done
        set_text(ui.statusText, status.text)
        ui.errorBox.visible = status.error is not None
        set_text(ui.errorText, status.error.as_text() if status.error else "")

    def _grids(self, state: PanelState) -> list[tuple[str, str]]:
        if state.model is None:
            return [(_("first source"), "")]
        first = state.model.sources[0]
        return [(_("{role} (first source)").format(role=first), "")] + [
            (role.role, role.role) for role in state.roles if role.state == "used" and role.role != first
        ]

    def _setter(self, name: str, parameter: str) -> Callable[[int], None]:
        def store(index: int = 0) -> None:
            parameters = self._parameters()
            if parameters is not None:
                setattr(parameters, parameter, chosen(getattr(self._ui, name)))

        return store

    def _error_details(self) -> str:
        if self._status.error is None:
            return ""
        settings = [f"{parameter}: {chosen(getattr(self._ui, name))}" for name, parameter in _COMBOS.items()]
        parameters = self._parameters()
        settings += [f"{name}: {getattr(parameters, name)}" for name in _TOLD if parameters is not None]
        return details(self._status.error, [*settings, *(warning.as_text() for warning in self._status.warnings)])


def _devices() -> list[tuple[str, str]]:
    found = [(_("Automatic"), "auto"), (_("Processor (CPU)"), "cpu")]
    other = (_("Apple graphics (MPS)"), "mps") if sys.platform == "darwin" else (_("Graphics card (CUDA)"), "cuda")
    return [*found, other]


def _qualities() -> list[tuple[str, str]]:
    return [(_("Automatic"), "auto"), (_("Full precision (32 bit)"), "fp32"), (_("Fast (16 bit, GPU)"), "bf16")]


def _places() -> list[tuple[str, str]]:
    return [(_("a process of its own"), "worker"), (_("Slicer itself"), "panel")]
