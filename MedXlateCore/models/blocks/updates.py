"""What recipes with several networks share: a step of some of them, holding others still, figures for the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from MedXlateCore.models.method import TrainingState

__all__ = ["constant_then_linear", "descend", "figures", "held"]


def descend(state: TrainingState, names: Iterable[str], loss: Tensor) -> None:
    """Do one step of the named networks' optimisers down the gradient of ``loss`` (a scalar)."""
    optimisers = [state.optimisers[name] for name in names]
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    state.backward(loss)
    for optimiser in optimisers:
        optimiser.step()


@contextmanager
def held(*networks: nn.Module) -> Iterator[None]:
    """Within this block the networks' weights get no gradients, while gradients go through to what they judge."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)


def figures(losses: Mapping[str, Tensor]) -> dict[str, float]:
    """Return losses (scalars) as numbers for the log; waits for the device once."""
    values = torch.stack([loss.detach().float() for loss in losses.values()]).tolist()
    return dict(zip(losses, values, strict=True))


def constant_then_linear(progress: float, constant: float) -> float:
    """Return the factor of a learning rate that is constant for a part of the training, then falls to zero.

    Args:
        progress: 0 at the start of the training, 1 at its end.
        constant: the part, from 0 to 1.
    """
    return 1.0 if progress <= constant else max(0.0, (1.0 - progress) / (1.0 - constant))
