"""What a network that computes in many steps is asked for, and what it gives.

A class of networks apart: generative ones whose result is drawn. How it is drawn (sampler, steps, seed) is the
caller's choice; drawn several times, the results' mean is the better estimate and their spread a measure of doubt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from MedXlateCore.errors import UsageError

__all__ = ["SamplerName", "Sampling", "VolumePrediction"]

SamplerName = Literal["default", "ddpm", "ddim", "dpm_solver"]
MAX_STEPS, MAX_SAMPLES, MAX_SEED, MAX_TILE = 10_000, 1000, 2**62, 4096


@dataclass(frozen=True)
class Sampling:
    """How a result is drawn. Where a field is ``default`` or None, the model's own value holds.

    Attributes:
        sampler: ``ddpm``, ``ddim`` or ``dpm_solver``.
        steps: steps of denoising.
        eta: for ``ddim``, how much of the noise is drawn afresh in each step, from 0 to 1.
        samples: how many results are drawn and averaged; more than one also gives their standard deviation.
        seed: of the first sample's noise; the n-th has ``seed + n``.
        tile: encode and decode in slabs of so many planes, to save memory; 0 for whole.

    Raises:
        UsageError: ``MX-USE-205``, a value out of its range.
    """

    sampler: SamplerName = "default"
    steps: int | None = None
    eta: float | None = None
    samples: int = 1
    seed: int = 0
    tile: int | None = None

    def __post_init__(self) -> None:
        names = get_args(SamplerName)
        _check(self.sampler in names, "sampler", self.sampler, f"one of {', '.join(names)}")
        _check(self.steps is None or 1 <= self.steps <= MAX_STEPS, "steps", self.steps, f"1 to {MAX_STEPS}")
        fair = self.eta is None or (math.isfinite(self.eta) and 0 <= self.eta <= 1)
        _check(fair, "eta", self.eta, "0 to 1")
        _check(1 <= self.samples <= MAX_SAMPLES, "samples", self.samples, f"1 to {MAX_SAMPLES}")
        _check(0 <= self.seed <= MAX_SEED, "seed", self.seed, "0 to 2^62")
        _check(self.tile is None or 0 <= self.tile <= MAX_TILE, "tile", self.tile, f"0 to {MAX_TILE}")

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seed of each sample, for the record."""
        return tuple(self.seed + n for n in range(self.samples))


@dataclass(frozen=True)
class VolumePrediction:
    """A synthetic volume.

    Attributes:
        values: [K, H, W] in [-1, 1]: the mean of the samples.
        deviation: their standard deviation [K, H, W], on the scale of the values; None for one sample.
    """

    values: Tensor
    deviation: Tensor | None = None


def _check(possible: bool, where: str, value: object, expected: str) -> None:
    if not possible:
        raise UsageError(
            "MX-USE-205",
            f"the sampling has {where} = {value}",
            expected=expected,
            where=where,
            fix="correct the option, or leave it out for the model's own value",
        )
