"""A session: sources prepared once, then one translation after another as the region of interest is edited."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.devices import choose_device
from MedXlateCore.errors import Warned
from MedXlateCore.inference.events import Event, Finished, Outcome, Started, Translation
from MedXlateCore.inference.gate import doubts
from MedXlateCore.inference.inputs import (
    AcceptedSources,
    Prompt,
    accept_prompt,
    accept_sources,
    check_batch_size,
    check_sampling,
)
from MedXlateCore.inference.ladder import Ladder, Predicted, Settings
from MedXlateCore.inference.result import check_output, output_scale, synthetic_volume, uncertainty_volume
from MedXlateCore.inference.wanted import wanted_image
from MedXlateCore.models.package import LoadedModel
from MedXlateCore.models.sampling import Sampling
from MedXlateCore.provenance import RunRecord, warnings_as_dicts
from MedXlateCore.transforms.intensity import FittedNormaliser
from MedXlateCore.volume import Modality, Volume

__all__ = ["TranslationSession"]


class TranslationSession:
    """Translates the same sources again and again, with a region of interest that changes.

    The first update is a full run. Later ones predict only the slices whose prompt changed; the result equals, bit for
    bit, a full run with that region and the same settings. An update that is cancelled or fails leaves the session as
    the last good one left it. Nothing is computed before an update is iterated.

    Args:
        sources: volumes with their modality set, in any order.
        model: a loaded model package.
        target: modality wanted; None if the model makes only one.
        reference: which source's grid the result gets; None for the first source.
        roi_labels: label values by region; None for BraTS's, ``{"oedema": [2], "core": [1, 3, 4]}``, so that a map
            with the single label 1 is one core region.
        device: see :func:`MedXlateCore.devices.choose_device`.
        precision: ``auto`` (bf16 on GPUs where the model's card allows it, else fp32), ``fp32`` or ``bf16``.
        batch_size: slices a pass, or ``auto``: 1 on the CPU; on GPUs what half of the free memory holds, at most 32.
        sampling: how samples are drawn, for models that draw samples; None for the model's own way.
        target_text: the target in words, for models that speak, in place of a modality.
        target_like: facts of an image that the target is to be like, for models that speak.

    Raises:
        UsageError: ``MX-MOD-091`` (the model does not make this target), ``MX-USE-010`` (no such modality),
            ``MX-USE-023`` (a batch size below 1), ``MX-USE-206`` (the model draws no samples), ``MX-USE-207`` (several
            targets), ``MX-USE-208`` (the model does not speak), ``MX-TXT-001`` to ``-006`` (the text cannot be used).
        InputError: ``MX-TXT-020`` (no facts of the image that the target is to be like), ``MX-TXT-022``.
    """

    def __init__(
        self,
        sources: Sequence[Volume],
        model: LoadedModel,
        *,
        target: Modality | str | None = None,
        reference: Modality | str | None = None,
        roi_labels: Mapping[str, Sequence[int]] | None = None,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | str = "auto",
        sampling: Sampling | None = None,
        target_text: str | None = None,
        target_like: Acquisition | None = None,
    ) -> None:
        check_batch_size(batch_size)
        check_sampling(sampling, model)
        self._sources = tuple(sources)
        self._model = model
        self._wanted = wanted_image(model, target, target_text, target_like)
        self._reference = None if reference is None else Modality.parse(reference)
        self._roi_labels = dict(roi_labels or {})
        self._device, self._precision, self._batch_size = device, precision, batch_size
        self._sampling = sampling
        self._base: _Base | None = None
        self._last: Predicted | None = None
        self._outcome = Outcome()

    def update(self, roi: Volume | None = None) -> Translation:
        """Return the translation with this region; it runs as it is iterated.

        Args:
            roi: label map of suspected lesions, on any grid; used as drawn. None for no prompt.
        """
        outcome = Outcome()
        return Translation(self._steps(roi, outcome), outcome)

    @property
    def result(self) -> Volume:
        """The last finished update's synthetic volume.

        Raises:
            UsageError: ``MX-RUN-001``, no update has finished.
        """
        return self._outcome.require_result()

    @property
    def record(self) -> RunRecord:
        """The last finished update's run record.

        Raises:
            UsageError: ``MX-RUN-001``, no update has finished.
        """
        return self._outcome.require_record()

    @property
    def changed_slices(self) -> int:
        """How many slices the last finished update predicted; 0 before the first."""
        return 0 if self._last is None else self._last.recomputed

    def _steps(self, roi: Volume | None, outcome: Outcome) -> Generator[Event, None, None]:
        clock = _Clock()
        base = yield from self._accepted(outcome)
        prompt = accept_prompt(roi, self._model, base.sources.prepared, self._roi_labels)
        yield from outcome.warn(prompt.warnings)
        clock.lap("prepare")

        last = self._last
        settings = base.settings if last is None else last.settings
        yield from outcome.warn([rung.warning() for rung in settings.rungs])
        total = len(base.ladder.changed_slices(prompt.array, last))
        roles = ", ".join(source["role"] for source in base.sources.described)
        yield Started(total, f"{self._wanted.title} from {roles}", base.ladder.needed_memory(settings))
        predicted = yield from base.ladder.predict(prompt.array, settings, last, outcome)
        clock.lap("predict")

        prepared, card = base.sources.prepared, self._model.card
        yield from outcome.warn(check_output(predicted.stack, prepared.occupied_slices))
        scale = output_scale(card, base.sources.direction, prepared.fitted[0], base.sources.described[0]["role"])
        made = self._wanted.modality
        result = synthetic_volume(predicted.stack, prepared, scale, made, card)
        if predicted.deviation is not None:
            outcome.uncertainty = uncertainty_volume(predicted.deviation, prepared, scale, made, card)
        clock.lap("restore")
        outcome.record = self._record(base, prompt, predicted, scale, clock.seconds, outcome.warnings)
        outcome.result = result
        self._last, self._outcome = predicted, outcome
        reused = len(prepared.occupied_slices) - predicted.recomputed
        yield Finished(sum(clock.seconds.values()), predicted.recomputed, reused)

    def _accepted(self, outcome: Outcome) -> Generator[Warned, None, _Base]:
        """Check and prepare what does not depend on the region, once; tell its warnings every time."""
        if self._base is not None:
            told = (*self._wanted.warnings, *self._base.settings.device.warnings, *self._base.sources.warnings)
            yield from outcome.warn(told)
            return self._base
        yield from outcome.warn(self._wanted.warnings)
        device = choose_device(self._device, self._precision, bf16_allowed=self._model.card.bf16_allowed)
        yield from outcome.warn(device.warnings)
        wanted = self._wanted
        sources = accept_sources(
            self._sources, self._model.card, Modality(wanted.scale_of), self._reference,
            any_source=self._model.method.speaks, in_words=wanted.facts is not None,
        )  # fmt: skip
        sources = replace(sources, warnings=(*sources.warnings, *doubts(sources.volumes, self._model)))
        yield from outcome.warn(sources.warnings)
        ladder = Ladder(self._model, sources.prepared, sources.direction, self._sampling, wanted.facts)
        settings = yield from ladder.fitting(ladder.first_settings(device, self._batch_size), outcome)
        self._base = _Base(sources, ladder, settings)
        return self._base

    def _record(
        self,
        base: _Base,
        prompt: Prompt,
        predicted: Predicted,
        scale: FittedNormaliser,
        seconds: dict[str, float],
        warnings: list[Warned],
    ) -> RunRecord:
        card, prepared = self._model.card, base.sources.prepared
        slices = len(prepared.occupied_slices)
        roles = [source["role"] for source in base.sources.described]
        asked = (self._sampling or Sampling()).to_dict()
        sampled = {"sampling": {**predicted.facts, "asked": asked}} if predicted.facts else {}
        return RunRecord(
            target=self._wanted.modality.value,
            described=self._wanted.described,
            model={"name": card.name, "version": card.version, "method": card.method,
                   "sha256": card.weights["sha256"]},
            inputs=list(base.sources.described),
            prompt=prompt.described,
            grid=prepared.plan.describe(),
            intensity={
                "sources": {role: fit.to_dict() for role, fit in zip(roles, prepared.fitted, strict=True)},
                "result": scale.to_dict(),
            },
            compute={
                **predicted.settings.describe(), **sampled,
                "slices": slices, "slices_on_grid": int(prepared.foreground.shape[0]),
                "slices_recomputed": predicted.recomputed, "slices_reused": slices - predicted.recomputed,
                "estimated_memory_bytes": base.ladder.needed_memory(predicted.settings), "seconds": seconds,
            },
            warnings=warnings_as_dicts(warnings),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Base:
    """What no edit of the region changes."""

    sources: AcceptedSources
    ladder: Ladder
    settings: Settings


class _Clock:
    """Seconds per named stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Count the time since the last lap as this stage's."""
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, 4)
        self._last = now
