"""Normalisation layers by name, for convolutional networks. Maps are [B, C, H, W]."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn

from MedXlateCore.models.blocks.attention import GroupNorm32

__all__ = ["EPS", "InstanceNorm", "Norm", "norm_layer"]

Norm = Literal["batch", "instance", "group", "none"]
EPS = 1e-5
GROUPS = 4


class InstanceNorm(nn.InstanceNorm2d):
    """Instance normalisation with statistics in fp32 whatever the input's precision.

    A map of one pixel has no spread and becomes the bias, where PyTorch's own layer raises.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of each image over space."""
        if x.shape[2:].numel() > 1:
            return super().forward(x.float()).to(x.dtype)
        flat = x - x
        return flat if self.bias is None else flat + self.bias.to(x.dtype)[:, None, None]


def norm_layer(kind: Norm, channels: int, affine: bool = True, eps: float = EPS) -> nn.Module:
    """Return a normalisation of ``channels`` channels.

    Args:
        kind: ``batch`` (running statistics in evaluation), ``instance`` (each image's own statistics, a channel at a
            time), ``group`` (each image's own, a quarter of the channels at a time: steadier where maps have few
            pixels; Wu and He, ECCV 2018), or ``none``.
        channels: C.
        affine: for ``instance``, learn a gain and a bias; ``batch`` and ``group`` always do.
        eps: added to the variance.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels, eps=eps)
    if kind == "instance":
        return InstanceNorm(channels, eps=eps, affine=affine)
    return GroupNorm32(math.gcd(GROUPS, channels), channels, eps=eps) if kind == "group" else nn.Identity()
