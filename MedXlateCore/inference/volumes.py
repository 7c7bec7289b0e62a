"""Prediction of a whole volume at once, in short steps, by networks that see all slices."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from MedXlateCore.inference.slices import autocast
from MedXlateCore.models.sampling import Sampling, VolumePrediction

__all__ = ["PredictedVolume", "predict_volume"]

Float32Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PredictedVolume:
    """A predicted volume.

    Attributes:
        values: [K, H, W], float32, in [-1, 1].
        deviation: [K, H, W], standard deviation of several samples on the same scale; None where one was drawn.
        facts: how samples were drawn; empty for networks that draw none.
    """

    values: Float32Array
    deviation: Float32Array | None
    facts: dict[str, Any]


def predict_volume(
    network: nn.Module,
    images: Float32Array,
    roi: Float32Array | None = None,
    *,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    sampling: Sampling | None = None,
    tiled: bool = False,
) -> Generator[tuple[int, int], None, PredictedVolume]:
    """Predict a volume; yields (done, total) after each step and returns the prediction.

    Args:
        network: forward(images [1, S, K, H, W], roi [1, 1, K, H, W]) -> [1, 1, K, H, W], or with ``translate``, see
            :mod:`MedXlateCore.models.sampling`; its weights already on ``device``.
        images: source channels [S, K, H, W] in [-1, 1].
        roi: prompt [K, H, W] (0, 0.5, 1), or None for no prompt.
        device: where to compute.
        precision: ``fp32`` or ``bf16`` (autocast; statistics of norms stay in fp32).
        sampling: how samples are drawn; None for the model's own way.
        tiled: part by part, for less memory, where the network can.
    """
    volume = torch.from_numpy(np.ascontiguousarray(images[None], dtype=np.float32)).to(device)
    was_training = network.training
    network.eval()

    def one_step(step: Callable[[], Any]) -> Any:
        """Do one step without gradients, in the precision wanted; both are off again when the caller has control."""
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(autocast(device, precision))
            return step()

    try:
        translate: Callable[..., Generator[tuple[int, int], None, VolumePrediction]] | None
        translate = getattr(network, "translate", None)
        if translate is None:
            prompt = torch.zeros_like(volume[:, :1]) if roi is None else _as_batch(roi, device)
            output = one_step(lambda: network(volume, prompt))
            yield 1, 1
            return _on_cpu(VolumePrediction(output[0, 0]))
        steps = translate(volume, sampling or Sampling(), tiled)
        while True:
            try:
                done, total = one_step(lambda: next(steps))
            except StopIteration as end:
                return _on_cpu(end.value)
            yield done, total
    finally:
        network.train(was_training)


def _as_batch(roi: Float32Array, device: torch.device | str) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(roi[None, None], dtype=np.float32)).to(device)


def _on_cpu(prediction: VolumePrediction) -> PredictedVolume:
    deviation = prediction.deviation
    return PredictedVolume(
        prediction.values.float().cpu().numpy(),
        None if deviation is None else deviation.float().cpu().numpy(),
        prediction.facts or {},
    )
