"""The panel's target in words: typed, or read from a file like which the target is to be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from MedXlateCore.errors import InternalError, MedXlateError
from MedXlateCore.prompts.facts import text_like
from MedXlateSlicerLib.panel_state import PanelState
from MedXlateSlicerLib.texts import tr as _
from MedXlateSlicerLib.widgets import Section, set_text

__all__ = ["WordsSection"]


class WordsSection(Section):
    """Shows whether the model may be told in words, and describes files. The field itself is bound to the parameters.

    Errors are written below the field, until its text changes.
    """

    def __init__(self, ui: Any, parameters: Callable[[], Any]) -> None:
        super().__init__(ui, parameters)
        ui.likeButton.connect("clicked()", self.choose)
        ui.targetText.connect("textChanged(QString)", lambda text: set_text(ui.likeText, ""))
        set_text(ui.likeText, "")

    def show(self, state: PanelState, enabled: bool) -> None:
        """Show whether the model speaks."""
        for widget in (self._ui.targetText, self._ui.likeButton):
            widget.enabled = enabled and state.speaks
        if not state.speaks:
            set_text(self._ui.likeText, "")

    def text(self, state: PanelState) -> str:
        """Return the target in words; empty for none, and for a model that is told names only."""
        return self._parameters().targetText.strip() if state.speaks else ""

    def choose(self) -> None:
        """Ask for a file and describe the target like it."""
        import qt

        kinds = ";;".join([_("NIfTI and DICOM (*.nii *.nii.gz *.dcm *.ima)"), _("All files (*)")])
        path = qt.QFileDialog.getOpenFileName(self._ui.translationSection, _("Image like the target"), "", kinds)
        if path and self._parameters() is not None:
            self._describe(Path(path))

    def _describe(self, path: Path) -> None:
        """Put what a file's facts say into the field; an error leaves the field as it is."""
        ui = self._ui
        set_text(ui.likeText, "")
        try:
            self._parameters().targetText = text_like(path)
        except MedXlateError as error:
            set_text(ui.likeText, error.as_text())
        except Exception as error:  # noqa: BLE001 - the edge of the panel: told, not thrown into the event loop
            set_text(ui.likeText, InternalError.from_exception(error).as_text())
        else:
            ui.targetText.cursorPosition = 0  # the beginning says most
