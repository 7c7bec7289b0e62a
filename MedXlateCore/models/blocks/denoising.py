"""Gaussian diffusion in many small steps: its noise, what a network may predict of it, and ways back in fewer steps.

Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020; Song et al., "Denoising Diffusion Implicit
Models", ICLR 2021; Salimans and Ho, "Progressive Distillation", ICLR 2022 (v); Lu et al., "DPM-Solver++",
arXiv 2211.01095, algorithm 2 (the multistep solver of second order for data prediction). Written from the papers.

A level n from 0 to T - 1 has signal ``alpha_n`` and noise ``sigma_n``, squares summing to 1; level -1 is clean.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Denoiser", "GaussianSchedule", "Prediction", "Sampler", "denoise"]

Prediction = Literal["epsilon", "v", "x0"]
Sampler = Literal["ddpm", "ddim", "dpm_solver"]
Denoiser = Callable[[Tensor, int], Tensor]


class GaussianSchedule:
    """Variances of the noise on a "scaled linear" line: linear in the square roots of the variances of the steps.

    Args:
        levels: T.
        low, high: variance of the first and of the last step.
        prediction: what networks predict.
    """

    def __init__(
        self, levels: int = 1000, low: float = 0.0015, high: float = 0.0195, prediction: Prediction = "epsilon"
    ) -> None:
        self.levels, self.prediction = levels, prediction
        line = [math.sqrt(low) + (math.sqrt(high) - math.sqrt(low)) * n / max(1, levels - 1) for n in range(levels)]
        self.rates = [value**2 for value in line]
        self.kept: list[float] = []  # of the image's variance, at each level
        kept = 1.0
        for rate in self.rates:
            self.kept.append(kept := kept * (1 - rate))

    def signal(self, level: int) -> float:
        """Return ``alpha`` of a level; 1 for level -1."""
        return math.sqrt(self.kept[level]) if level >= 0 else 1.0

    def noise(self, level: int) -> float:
        """Return ``sigma`` of a level; 0 for level -1."""
        return math.sqrt(1 - self.kept[level]) if level >= 0 else 0.0

    def _both(self, levels: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        kept = torch.tensor(self.kept, dtype=torch.float64, device="cpu")[levels.cpu()].view(-1, *[1] * (like.ndim - 1))
        return kept.sqrt().to(like), (1 - kept).sqrt().to(like)

    def noised(self, clean: Tensor, levels: Tensor, noise: Tensor) -> Tensor:
        """Return images [B, C, ...] at levels [B]."""
        alpha, sigma = self._both(levels, clean)
        return alpha * clean + sigma * noise

    def expected(self, noisy: Tensor, levels: Tensor) -> Tensor:
        """Return ``alpha`` times images at levels [B]: the mean of what is behind them, were that standard normal."""
        alpha = torch.tensor(self.kept, device=levels.device).sqrt()[levels]
        return alpha.view(-1, *[1] * (noisy.ndim - 1)).to(noisy.dtype) * noisy

    def wanted(self, clean: Tensor, levels: Tensor, noise: Tensor) -> Tensor:
        """Return what a network is to predict: the noise, the clean image, or ``v = alpha noise - sigma clean``."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "x0":
            return clean
        alpha, sigma = self._both(levels, clean)
        return alpha * noise - sigma * clean

    def clean(self, predicted: Tensor, noisy: Tensor, level: int) -> Tensor:
        """Return the clean image that a prediction at a level means."""
        alpha, sigma = self.signal(level), self.noise(level)
        if self.prediction == "epsilon":
            return (noisy - sigma * predicted) / alpha
        return predicted if self.prediction == "x0" else alpha * noisy - sigma * predicted

    def error(self, level: int) -> float:
        """Return how wrong the clean image is that a prediction at a level means, for a prediction wrong by 1."""
        if self.prediction == "epsilon":
            return self.noise(level) / self.signal(level)
        return 1.0 if self.prediction == "x0" else self.noise(level)

    def path(self, steps: int, start: int | None = None) -> list[int]:
        """Return ``steps`` levels from ``start`` (T - 1 by default) downwards, evenly apart, and -1 at the end.

        The first is the start itself, so that the chain begins where its noise belongs (Lin et al., WACV 2024).
        """
        top = self.levels if start is None else start + 1
        steps = min(steps, top)
        return [round(top * (steps - n) / steps) - 1 for n in range(steps)] + [-1]

    def ddim(
        self, clean: Tensor, noisy: Tensor, level: int, following: int, eta: float, noise: Tensor | None
    ) -> Tensor:
        """Return images of level ``following`` < ``level`` (equation 12 of DDIM).

        ``eta`` 0 draws nothing; with 1 it is a step of DDPM over levels that may be apart.

        Args:
            clean: what is behind the noise, as predicted.
            noisy: images of level ``level``.
            level, following: where they are and are to be.
            eta: part of the noise that is drawn afresh.
            noise: standard normal; only looked at with ``eta`` > 0.
        """
        epsilon = (noisy - self.signal(level) * clean) / self.noise(level)
        rest = self.noise(following)
        drawn = 0.0
        if eta > 0 and following >= 0 and noise is not None:
            ratio = self.signal(level) / self.signal(following)
            drawn = eta * rest / self.noise(level) * math.sqrt(max(0.0, 1 - ratio**2))
        made = self.signal(following) * clean + math.sqrt(max(0.0, rest**2 - drawn**2)) * epsilon
        return made + drawn * noise if drawn and noise is not None else made

    def log_snr(self, level: int) -> float:
        """Return half the logarithm of the signal-to-noise ratio of a level >= 0: lambda."""
        return math.log(self.signal(level) / self.noise(level))

    def solver_step(self, clean: Tensor, before: Tensor | None, noisy: Tensor, levels: tuple[int, int, int]) -> Tensor:
        """Return images one step on by DPM-Solver++(2M).

        Args:
            clean: prediction at the present level.
            before: prediction at the level before; None at the first step, which is of first order.
            noisy: images of the present level.
            levels: the level before (not looked at without ``before``), the present, the following.
        """
        earlier, level, following = levels
        if following < 0:
            return clean  # the step to no noise at all ends at the prediction
        step = self.log_snr(following) - self.log_snr(level)
        if before is not None:
            ratio = (self.log_snr(level) - self.log_snr(earlier)) / step
            clean = (1 + 1 / (2 * ratio)) * clean - 1 / (2 * ratio) * before
        shrunk = self.noise(following) / self.noise(level) * noisy
        return shrunk - self.signal(following) * math.expm1(-step) * clean


def denoise(
    schedule: GaussianSchedule,
    network: Denoiser,
    noisy: Tensor,
    path: list[int],
    sampler: Sampler,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Generator[None, None, Tensor]:
    """Lead from noise to an image, pausing after each step; returns the image.

    Args:
        schedule: the noise.
        network: from images and their level to the prediction.
        noisy: images of the level ``path[0]``.
        path: levels, the last -1.
        sampler: ``ddpm`` draws noise at each step, ``ddim`` as much as ``eta`` says, ``dpm_solver`` none.
        eta: for ``ddim``.
        generator: of the noise, on the CPU; needed where noise is drawn.
    """
    eta = 1.0 if sampler == "ddpm" else eta
    before: Tensor | None = None
    for n, (level, following) in enumerate(itertools.pairwise(path)):
        clean = schedule.clean(network(noisy, level).float(), noisy, level)
        if sampler == "dpm_solver":
            noisy = schedule.solver_step(clean, before, noisy, (path[max(0, n - 1)], level, following))
            before = clean
        else:
            noise = None
            if eta > 0 and following >= 0:
                noise = torch.randn(noisy.shape[1:], generator=generator).to(noisy.device)
            noisy = schedule.ddim(clean, noisy, level, following, eta, noise)
        yield
    return noisy
