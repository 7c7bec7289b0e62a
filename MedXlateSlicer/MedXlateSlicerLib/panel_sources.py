"""The panel's sources: one row a sequence, filled by hand or by names and DICOM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from MedXlateCore.volume import Modality
from MedXlateSlicerLib.panel_state import PanelState
from MedXlateSlicerLib.parameters import ROLES
from MedXlateSlicerLib.roles import detect_roles
from MedXlateSlicerLib.texts import tr as _
from MedXlateSlicerLib.widgets import Section, set_text

__all__ = ["SourcesSection"]


class SourcesSection(Section):
    """Shows the state of every role and finds sources. The selectors themselves are bound to the parameters."""

    def __init__(self, ui: Any, parameters: Callable[[], Any]) -> None:
        super().__init__(ui, parameters)
        self._wanted: tuple[str, ...] = ()
        ui.detectButton.connect("clicked()", self.detect)

    def show(self, state: PanelState, enabled: bool) -> None:
        """Show the roles that models take, and what is missing."""
        states = {row.role: row for row in state.roles}
        self._wanted = tuple(states)
        for role in ROLES:
            row = states.get(role)
            widgets = [getattr(self._ui, f"{kind}{role}") for kind in ("label", "source", "state")]
            for widget in widgets:
                widget.visible = row is not None
            widgets[1].enabled = enabled
            widgets[2].text = row.text if row else ""
        self._ui.detectButton.enabled = enabled and bool(self._wanted)

    def detect(self) -> None:
        """Fill the empty rows with the volumes that names or DICOM tell; what the user chose stays."""
        import slicer

        parameters = self._parameters()
        if parameters is None or not self._wanted:
            return
        nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        found = detect_roles(nodes, self._wanted, getattr(slicer, "dicomDatabase", None))
        texts = []
        for role in self._wanted:
            state = found[Modality.parse(role)]
            if getattr(parameters, f"source{role}") is not None:
                continue
            if state.state == "found":
                setattr(parameters, f"source{role}", state.node)
                texts.append(_("{role} found").format(role=role))
            elif state.state == "ambiguous":
                texts.append(_("{n} volumes may be {role}").format(n=len(state.candidates), role=role))
            else:
                texts.append(_("no {role} found").format(role=role))
        set_text(self._ui.detectLabel, ", ".join(texts))

    def detect_if_empty(self) -> None:
        """Find sources where none is chosen yet."""
        parameters = self._parameters()
        if parameters is not None and all(getattr(parameters, f"source{role}") is None for role in ROLES):
            self.detect()
