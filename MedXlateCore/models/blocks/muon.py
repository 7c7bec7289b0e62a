"""Muon: momentum whose matrices are made orthogonal, for networks that have few steps to learn in.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; its scale is that of Liu et al., "Muon
is scalable for LLM training", 2025, section 2.2: the same learning rates as AdamW's suit. ``torch.optim.Muon`` takes
matrices only, and works in bfloat16, which many CPUs do slowly; here weights of convolutions are taken too, as matrices
of [out, in * size], and all is in the weights' own precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Muon", "layer_matrices", "orthogonal"]

QUINTIC = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration: steepest at 0, singular values end near 1
ITERATIONS = 5
LEAST = 8  # with fewer rows or columns there is little to make orthogonal
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
RMS = 0.2  # of AdamW's usual updates, as a part of the learning rate


def orthogonal(matrix: Tensor) -> Tensor:
    """Return the matrix [A, B] with all singular values brought near 1, by Newton and Schulz's iteration.

    Every iterate is a polynomial of X X^T times X, so all but the first and last product are of the shorter side only.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    # the iteration enlarges roundings of the products: no harm in single precision, which a card may be told to shorten
    exact = x.double() if x.device.type == "cuda" else x
    first, third, fifth = QUINTIC
    gram, factor = exact @ exact.T, torch.eye(len(x), dtype=exact.dtype, device=x.device)
    for left in reversed(range(ITERATIONS)):  # polynomials of the first gram, all of them: their order does not matter
        power = third * gram + fifth * gram @ gram
        power.diagonal().add_(first)
        factor = power @ factor
        gram = power @ gram @ power if left else gram
    x = (factor @ exact).to(x.dtype)
    return x.T if tall else x


def layer_matrices(modules: Iterable[nn.Module]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return linear layers' and convolutions' weights that are matrices of at least 8 x 8, and all other parameters.

    Embeddings and codebooks are among the others: most of their rows have no gradient at a step, and would move as far
    as those that have one.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for layer in (layer for module in modules for layer in module.modules()):
        for name, parameter in layer.named_parameters(recurse=False):
            weight = isinstance(layer, LAYERS) and name == "weight"
            wide = weight and min(parameter.shape[0], parameter[0].numel()) >= LEAST
            (matrices if wide else others).append(parameter)
    return matrices, others


class Muon(torch.optim.Optimizer):
    """Nesterov momentum of matrices, made orthogonal.

    Args:
        params: weights of two or more dimensions, or groups of such.
        lr: learning rate, on AdamW's scale.
        momentum: how much of the mean gradient stays at each step.
        weight_decay: decoupled, as AdamW's.

    Raises:
        ValueError: a parameter is no matrix.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for weight in (weight for group in self.param_groups for weight in group["params"]):
            if weight.ndim < 2:
                raise ValueError(f"Muon is for matrices, not for a parameter of shape {tuple(weight.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every weight that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)
        return loss

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, rate, momentum = self.state[weight], group["lr"], group["momentum"]
        if not state:
            state["mean"] = torch.zeros_like(weight)
        mean = state["mean"].lerp_(gradient, 1 - momentum)
        ahead = gradient.lerp(mean, momentum).flatten(1)
        step = rate * RMS * max(ahead.shape) ** 0.5
        weight.mul_(1 - rate * group["weight_decay"]).add_(orthogonal(ahead).view_as(weight), alpha=-step)
