"""Slice-wise prediction: a stack of slices goes through a 2D network in batches of one fixed size."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["SliceBatch", "autocast", "predict_slices", "with_neighbours"]

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class SliceBatch:
    """Predicted slices.

    Attributes:
        indices: their positions along the slice axis.
        values: predictions [n, H, W], float32, in [-1, 1].
    """

    indices: tuple[int, ...]
    values: Float32Array


def predict_slices(
    network: nn.Module,
    images: Float32Array,
    roi: Float32Array | None = None,
    *,
    slices: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    batch_size: int = 1,
    context: int = 1,
) -> Generator[SliceBatch, None, None]:
    """Predict slices batch by batch; each ``next`` is one forward pass.

    Every pass has exactly ``batch_size`` slices (the last one is filled up by repetition), so that a slice's result
    does not depend on how many others are computed with it: a partial run equals a full run bit for bit.

    Args:
        network: forward(images [B, S * context, H, W], roi [B, 1, H, W]) -> [B, 1, H, W]; its weights already on
            ``device``.
        images: source channels [S, K, H, W] in [-1, 1].
        roi: prompt [K, H, W] (0, 0.5, 1), or None for no prompt.
        slices: positions along K to predict; None for all.
        device: where to compute.
        precision: ``fp32`` or ``bf16`` (autocast; statistics of norms stay in fp32).
        batch_size: slices a pass.
        context: neighbouring slices of each source that the network sees.
    """
    wanted = list(range(images.shape[1])) if slices is None else [int(k) for k in slices]
    was_training = network.training
    network.eval()
    try:
        for start in range(0, len(wanted), batch_size):
            indices = wanted[start : start + batch_size]
            padded = indices + [indices[-1]] * (batch_size - len(indices))
            values = _forward(network, _gather(images, roi, padded, context, device), device, precision)
            yield SliceBatch(tuple(indices), values[: len(indices)])
    finally:
        network.train(was_training)


def with_neighbours(images: NDArray, indices: Sequence[int], context: int, axis: int) -> NDArray:
    """Return slices with their neighbours as channels: for each source its slices from below to above.

    Args:
        images: [S, K, H, W] or [K, S, H, W].
        indices: positions along K.
        context: slices a source, an odd number; beyond the ends the last slice stands for its neighbours.
        axis: of K, 1 or 0.

    Returns:
        [n, S * context, H, W].
    """
    around = np.arange(context) - context // 2
    positions = np.clip(np.asarray(indices)[:, None] + around, 0, images.shape[axis] - 1)  # [n, context]
    picked = images[:, positions].transpose(1, 0, 2, 3, 4) if axis else images[positions].swapaxes(1, 2)
    return picked.reshape(len(indices), -1, *images.shape[2:])


def _gather(
    images: Float32Array, roi: Float32Array | None, indices: list[int], context: int, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    channels = with_neighbours(images, indices, context, axis=1)
    stack = torch.from_numpy(np.ascontiguousarray(channels, dtype=np.float32))
    if roi is None:
        prompt = torch.zeros((len(indices), 1, *images.shape[2:]))
    else:
        prompt = torch.from_numpy(np.ascontiguousarray(roi[indices][:, None], dtype=np.float32))
    return stack.to(device), prompt.to(device)


def _forward(
    network: nn.Module, inputs: tuple[Tensor, Tensor], device: torch.device | str, precision: str
) -> Float32Array:
    with torch.inference_mode(), autocast(device, precision):
        output = network(*inputs)
    return output[:, 0].float().cpu().numpy()


def autocast(device: torch.device | str, precision: str) -> AbstractContextManager:
    """Return the context of a pass in ``fp32`` or ``bf16``."""
    if precision == "bf16":
        return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)
    return nullcontext()
