"""Convolutions over volumes that are fast on a CPU: of 3x3x3, and within slices that see the ones beside them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PlanarConv", "VolumeConv", "volume_conv"]

SLOW_BELOW = 20481  # channels * depth * height, of a single map
BESIDE = 8  # one channel in so many comes from the slice before, as many from the slice behind


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


class PlanarConv(nn.Conv2d):
    """3x3 convolution of each slice, in which some channels come from the slices beside it; shapes as ``VolumeConv``.

    One channel in eight is taken from the slice before and one from the slice behind, zeros beyond the border (the
    temporal shift of Lin et al., ICCV 2019, along the depth). It looks as far as a 3x3x3 convolution for a third of its
    work, and suits slices that are further apart than pixels are. With less than eight channels it sees one slice only.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 3, padding=1)
        self.beside = channels // BESIDE

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        batch, depth, n = len(x), x.shape[2], self.beside
        if n:
            before = F.pad(x[:, :n, :-1], (0, 0, 0, 0, 1, 0))
            behind = F.pad(x[:, n : 2 * n, 1:], (0, 0, 0, 0, 0, 1))
            x = torch.cat((before, behind, x[:, 2 * n :]), dim=1)
        # voxel by voxel in memory, volumes are stacks of slices pixel by pixel: nothing is copied
        return super().forward(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (batch, depth)).transpose(1, 2)


def volume_conv(channels: int, out: int, planar: bool = False) -> nn.Module:
    """Return a ``PlanarConv`` or a ``VolumeConv``."""
    return PlanarConv(channels, out) if planar else VolumeConv(channels, out)
