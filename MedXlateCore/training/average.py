"""Exponential moving average of a network's weights, which is often better than any single step's."""

from __future__ import annotations

import copy

import torch
from torch import nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """A network whose weights follow another's.

    Args:
        network: the network to follow; it is copied.
        decay: share of the average that stays at each step, below 1. It is smaller during the first steps,
            (1 + n) / (10 + n), so that the average soon forgets the random start (EVA-I2I's and ALDM's code).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._followed = network
        self._decay = decay

    @torch.no_grad()
    def restart(self) -> None:
        """Take the followed weights as they are."""
        self.network.load_state_dict(self._followed.state_dict())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the followed weights after ``step`` optimiser steps; whole numbers (counters) are copied."""
        decay = min(self._decay, (1 + step) / (10 + step))
        weights = self._followed.state_dict()
        for name, mean in self.network.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(weights[name], 1 - decay)
            else:
                mean.copy_(weights[name])
