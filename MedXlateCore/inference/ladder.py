"""Prediction that lives with the memory there is: smaller batches, then bf16 where the model allows it, then the CPU.

A network that sees whole volumes has no batches to make smaller; where it can, it works part by part first.

Every step down is a recorded warning, and after it all slices are computed again, so that a result always equals, bit
for bit, that of a run with the settings it names.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.devices import CPU, Device, cpu_name, empty_cache, first_line, is_out_of_memory
from MedXlateCore.errors import ResourceError, Warned, size_text
from MedXlateCore.inference.available import available_memory
from MedXlateCore.inference.events import Outcome, Progress
from MedXlateCore.inference.memory import estimate_model_memory
from MedXlateCore.inference.prepare import PreparedSources
from MedXlateCore.inference.slices import predict_slices
from MedXlateCore.inference.volumes import PredictedVolume, predict_volume
from MedXlateCore.models.package import LoadedModel
from MedXlateCore.models.sampling import Sampling

__all__ = ["Ladder", "Predicted", "Rung", "Settings"]

Float32Array = NDArray[np.float32]

LARGEST_BATCH = 32
FREE_SHARE = 0.5  # of a GPU's free memory, for the batch that is chosen automatically


@dataclass(frozen=True)
class Rung:
    """One step down: why, from where, to where."""

    reason: str
    before: str
    after: str

    def warning(self) -> Warned:
        """Return the step as a recorded warning."""
        return Warned(
            "MX-RES-025",
            f"memory did not suffice for {self.before}: {self.reason}",
            fix=f"everything is computed again with {self.after}",
        )


@dataclass(frozen=True)
class Settings:
    """How slices are computed.

    Attributes:
        device: where, and in which precision.
        batch_size: slices a pass; 1 for a whole volume.
        rungs: the steps down that led here.
        tiled: a whole volume is computed part by part.
    """

    device: Device
    batch_size: int
    rungs: tuple[Rung, ...] = ()
    tiled: bool = False

    def __str__(self) -> str:
        part = "part by part" if self.tiled else f"batch size {self.batch_size}"
        return f"{self.device.torch_device} in {self.device.precision}, {part}"

    def lower(
        self, reason: str, *, bf16_allowed: bool, weights_fit: bool = True, can_tile: bool = False
    ) -> Settings | None:
        """Return the next settings down, or None where nothing is left.

        Args:
            reason: why the step is taken.
            bf16_allowed: the model's card allows bf16.
            weights_fit: False if the device has no room for the weights, so that only the CPU is left.
            can_tile: the network can compute a volume part by part.
        """
        device = self.device
        if weights_fit and can_tile and not self.tiled:
            changed = replace(self, tiled=True)
        elif weights_fit and self.batch_size > 1:
            changed = replace(self, batch_size=self.batch_size // 2)
        elif device.is_cpu:
            return None
        elif weights_fit and bf16_allowed and device.has_bf16 and device.precision == "fp32":
            changed = replace(self, device=replace(device, precision="bf16"))
        else:
            cpu = Device(CPU, "fp32", cpu_name(), device.warnings)
            changed = replace(self, device=cpu, batch_size=1)
        return replace(changed, rungs=(*self.rungs, Rung(reason, str(self), str(changed))))

    def describe(self) -> dict[str, Any]:
        """Return the settings for the run record."""
        return {
            "device": str(self.device.torch_device),
            "device_name": self.device.name,
            "precision": self.device.precision,
            "batch_size": self.batch_size,
            **({"tiled": True} if self.tiled else {}),
            "ladder": [asdict(rung) for rung in self.rungs],
        }


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predicted slices, and what they were predicted with.

    Attributes:
        stack: [K, H, W], float32; -1 where the sources show nothing.
        prompt: [K, H, W], or None.
        settings: the settings in force at the end.
        recomputed: how many slices went through the network in the end.
        deviation: [K, H, W], standard deviation of several samples on the same scale; None where one was drawn.
        facts: how samples were drawn; empty for networks that draw none.
    """

    stack: Float32Array
    prompt: Float32Array | None
    settings: Settings
    recomputed: int
    deviation: Float32Array | None = None
    facts: dict[str, Any] = field(default_factory=dict)


class Ladder:
    """Predicts the slices of one set of prepared sources.

    Args:
        model: the model; its network is moved to the device in use.
        prepared: its inputs.
        direction: position of the direction of translation among those of the model's card.
        sampling: how samples are drawn; None for the model's own way.
        facts: of the image to make, where it was described; None for the direction's target.
    """

    def __init__(
        self,
        model: LoadedModel,
        prepared: PreparedSources,
        direction: int = 0,
        sampling: Sampling | None = None,
        facts: Acquisition | None = None,
    ) -> None:
        self._facts = facts
        self._model = model
        self._sampling = sampling
        self._whole = model.method.volumetric
        self._can_tile = bool(getattr(model.network, "can_tile", False))
        self._direction = direction
        self._prepared = prepared
        self._occupied = prepared.occupied_slices

    def first_settings(self, device: Device, batch_size: int | str) -> Settings:
        """Return the settings to begin with; ``auto`` is one slice on the CPU, so that results agree everywhere.

        On GPUs it is the largest power of two, at most 32, whose estimate fits into half of the free memory.
        """
        if self._whole:
            return Settings(device, 1)
        if batch_size != "auto":
            return Settings(device, int(batch_size))
        settings = Settings(device, 1)
        free = None if device.is_cpu else available_memory(device.torch_device)
        while free is not None and 2 * settings.batch_size <= min(LARGEST_BATCH, len(self._occupied)):
            larger = replace(settings, batch_size=2 * settings.batch_size)
            need = self.needed_memory(larger)
            if need is None or need > FREE_SHARE * free:
                break
            settings = larger
        return settings

    def needed_memory(self, settings: Settings) -> int | None:
        """Return the bytes estimated to be needed on the device; None if unknown."""
        if settings.tiled:
            return None  # what is left of it depends on the parts
        depth, height, width = self._prepared.images.shape[1:]
        device = settings.device
        need = estimate_model_memory(
            self._model, height, width, settings.batch_size, device.precision, device.torch_device.type, depth
        )
        return None if need is None else need + (self._volumes() if device.is_cpu else 0)

    def fitting(self, settings: Settings, outcome: Outcome) -> Generator[Warned, None, Settings]:
        """Step down, before anything is computed, until the estimate fits into the memory there is.

        Raises:
            ResourceError: ``MX-RES-002``, not even the smallest settings fit.
        """
        while True:
            need, have = self.needed_memory(settings), available_memory(settings.device.torch_device)
            if need is None or have is None or need <= have:
                return settings
            reason = f"about {size_text(need)} are needed, {size_text(have)} are free"
            lower = settings.lower(reason, bf16_allowed=self._model.card.bf16_allowed, can_tile=self._can_tile)
            if lower is None:
                raise ResourceError(
                    "MX-RES-002",
                    f"the translation needs about {size_text(need)} of memory and {size_text(have)} are free",
                    expected=f"at least {size_text(need)}",
                    where=f"{settings}, slices of {' x '.join(map(str, self._prepared.images.shape[2:]))} pixels",
                    fix="close other programs, crop the volume, or use a computer with more memory",
                )
            yield from outcome.warn([lower.rungs[-1].warning()])
            settings = lower

    def changed_slices(self, prompt: Float32Array | None, last: Predicted | None) -> list[int]:
        """Return the slices that have to be predicted: those whose prompt differs from the last prediction's."""
        if last is None:
            return self._occupied
        if prompt is None and last.prompt is None:
            return []
        before, after = (np.float32(0) if p is None else p for p in (last.prompt, prompt))
        differs = (before != after).any(axis=(1, 2))
        if self._whole:
            return self._occupied if differs.any() else []
        return [k for k in self._occupied if differs[k]]

    def predict(
        self, prompt: Float32Array | None, settings: Settings, last: Predicted | None, outcome: Outcome
    ) -> Generator[Progress | Warned, None, Predicted]:
        """Predict what changed since ``last``, or everything; go down the ladder where memory runs out.

        Args:
            prompt: [K, H, W], or None.
            settings: how to compute; those of ``last`` if there is one.
            last: the last good prediction, left as it is.
            outcome: records the warnings.

        Raises:
            ResourceError: ``MX-RES-002``, the CPU is all that is left and its memory will not do.
            MemoryError, RuntimeError: memory ran out with the smallest settings, or the device failed.
        """
        while True:
            slices = self.changed_slices(prompt, last)
            weights_fit = not slices
            try:
                if slices:
                    network = self._network(settings.device.torch_device)
                    weights_fit = True
                    if self._whole:
                        return (yield from self._attempt_volume(network, prompt, settings))
                    stack = yield from self._attempt(network, prompt, settings, last, slices)
                elif last is not None:
                    return replace(last, prompt=prompt, recomputed=0)
                else:
                    stack = self._background()
                return Predicted(stack, prompt, settings, len(slices))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                allowed = self._model.card.bf16_allowed
                lower = settings.lower(
                    first_line(error), bf16_allowed=allowed, weights_fit=weights_fit, can_tile=self._can_tile
                )
                if lower is None:
                    raise
            # here the exception, and with it what its frames held in memory, is gone
            empty_cache(settings.device.torch_device)
            yield from outcome.warn([lower.rungs[-1].warning()])
            settings, last = (yield from self.fitting(lower, outcome)) if lower.device.is_cpu else lower, None

    def _network(self, device: torch.device) -> nn.Module:
        """Return the network for what is to be made; moved first, so that a target in words is read there."""
        self._model.network.to(device)
        if self._facts is not None:
            return self._model.towards_facts(self._facts).to(device)
        return self._model.towards(self._direction).to(device)

    def _attempt(
        self,
        network: nn.Module,
        prompt: Float32Array | None,
        settings: Settings,
        last: Predicted | None,
        slices: list[int],
    ) -> Generator[Progress, None, Float32Array]:
        stack = self._background() if last is None else last.stack.copy()
        batches = predict_slices(
            network, self._prepared.images, prompt, slices=slices, device=settings.device.torch_device,
            precision=settings.device.precision, batch_size=settings.batch_size, context=self._model.context_slices,
        )  # fmt: skip
        done = 0
        with closing(batches):
            for batch in batches:
                stack[list(batch.indices)] = batch.values
                done += len(batch.indices)
                yield Progress(done, len(slices))
        return stack

    def _attempt_volume(
        self, network: nn.Module, prompt: Float32Array | None, settings: Settings
    ) -> Generator[Progress, None, Predicted]:
        """Predict the whole volume; what lies above and below all that is seen stays background."""
        steps = predict_volume(
            network, self._prepared.images, prompt, device=settings.device.torch_device,
            precision=settings.device.precision, sampling=self._sampling, tiled=settings.tiled,
        )  # fmt: skip
        with closing(steps):
            while True:
                try:
                    done, total = next(steps)
                except StopIteration as end:
                    volume: PredictedVolume = end.value
                    break
                yield Progress(done, total)
        stack, deviation = self._background(), None
        stack[self._occupied] = volume.values[self._occupied]
        if volume.deviation is not None:
            deviation = np.zeros_like(stack)
            deviation[self._occupied] = volume.deviation[self._occupied]
        return Predicted(stack, prompt, settings, len(self._occupied), deviation, volume.facts)

    def _background(self) -> Float32Array:
        return np.full(self._prepared.foreground.shape, -1.0, dtype=np.float32)

    def _volumes(self) -> int:
        """Return the bytes of the arrays that are still to come: the stack, scaled, and on the reference's grid."""
        grid, reference = self._prepared.plan.grid, self._prepared.plan.reference
        return 4 * int(2 * np.prod(grid.shape) + 2 * np.prod(reference.shape))
