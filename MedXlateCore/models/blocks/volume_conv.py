"""A 3x3x3 convolution that is also fast on a CPU where maps are small."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["VolumeConv"]

SLOW_BELOW = 20481  # channels * depth * height, of a single map


class VolumeConv(nn.Conv3d):
    """``nn.Conv3d`` of size 3, stride 1 and zeros beyond the border: [B, C, D, H, W] to [B, out, D, H, W].

    PyTorch passes its fast CPU kernels by for a single map of few channels and places, and takes several times as long.
    Here such a map is cut in two, which are convolved as a batch, each with the planes beside it that it needs.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        axis = max((2, 3, 4), key=lambda n: x.shape[n] if x.shape[n] % 2 == 0 else 0)
        length = x.shape[axis]
        whole = len(x) != 1 or x.device.type != "cpu" or x.shape[1:4].numel() >= SLOW_BELOW
        if whole or length < 4 or length % 2:
            return super().forward(x)
        ends, inside = [0] * 6, [1, 1, 1]
        ends[2 * (4 - axis)] = ends[2 * (4 - axis) + 1] = 1
        inside[axis - 2] = 0
        half = length // 2
        padded = F.pad(x, ends)
        pair = torch.cat((padded.narrow(axis, 0, half + 2), padded.narrow(axis, half, half + 2)))
        made = F.conv3d(pair, self.weight, self.bias, padding=tuple(inside))
        return torch.cat((made[:1], made[1:]), dim=axis)
