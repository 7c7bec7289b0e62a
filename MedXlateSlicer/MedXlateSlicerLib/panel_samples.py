"""The panel's samples: how many a model that draws samples is to draw, from which seed, and whether they differ."""

from __future__ import annotations

from MedXlateCore.models.sampling import SAMPLES_FOR_UNCERTAINTY, Sampling
from MedXlateSlicerLib.panel_state import PanelState
from MedXlateSlicerLib.widgets import Section, quiet, set_text

__all__ = ["SamplesSection"]

_FEWEST_THAT_DIFFER = 2


class SamplesSection(Section):
    """Shows the settings for models that draw samples. The widgets themselves are bound to the parameters."""

    def show(self, state: PanelState, enabled: bool) -> None:
        """Show whether the model draws samples."""
        ui, parameters = self._ui, self._parameters()
        if parameters.uncertaintyMap and parameters.samples < _FEWEST_THAT_DIFFER:
            parameters.samples = SAMPLES_FOR_UNCERTAINTY  # one sample differs from nothing
        for widget in (ui.samplesSpin, ui.uncertaintyCheck, ui.seedSpin):
            widget.enabled = enabled and state.draws_samples
        set_text(ui.samplesText, state.samples_text)
        with quiet(ui.samplesSpin):
            ui.samplesSpin.minimum = _FEWEST_THAT_DIFFER if parameters.uncertaintyMap else 1
            ui.samplesSpin.value = parameters.samples

    def sampling(self, state: PanelState) -> Sampling | None:
        """Return how samples are to be drawn; None for a model that draws none."""
        if not state.draws_samples:
            return None
        parameters = self._parameters()
        return Sampling(samples=parameters.samples, seed=parameters.seed)
