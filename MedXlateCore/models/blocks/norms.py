"""Normalisation layers by name, for convolutional networks. Maps are [B, C, H, W], or [B, C, K, H, W] of volumes."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.attention import GroupNorm32

__all__ = ["EPS", "InstanceNorm", "Norm", "norm_layer"]

Norm = Literal["batch", "instance", "group", "none"]
EPS = 1e-5
GROUPS = 4


class InstanceNorm(nn.GroupNorm):
    """Instance normalisation with statistics in fp32 whatever the input's precision: one group a channel.

    PyTorch's own instance normalisation copies maps that are stored pixel by pixel, and raises for maps of one pixel;
    here such a map, which has no spread, becomes the bias.
    """

    def __init__(self, channels: int, eps: float = EPS, affine: bool = True) -> None:
        super().__init__(channels, channels, eps, affine)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of each image over space."""
        weight, bias = (None if p is None else p.float() for p in (self.weight, self.bias))
        if x.ndim == 5 and x.device.type == "cpu" and x.shape[2:].numel() > 1:
            # the same for a batch of one, and several times as fast for a volume that is stored voxel by voxel
            alone = (F.batch_norm(v, None, None, weight, bias, training=True, eps=self.eps) for v in x.float().split(1))
            return torch.cat(list(alone)).to(x.dtype)
        if x.shape[2:].numel() > 1:
            return F.group_norm(x.float(), self.num_groups, weight, bias, self.eps).to(x.dtype)
        flat = x - x
        return flat if bias is None else flat + bias.to(x.dtype).view(-1, *[1] * (x.ndim - 2))


def norm_layer(kind: Norm, channels: int, affine: bool = True, eps: float = EPS, dimensions: int = 2) -> nn.Module:
    """Return a normalisation of ``channels`` channels.

    Args:
        kind: ``batch`` (running statistics in evaluation), ``instance`` (each image's own statistics, a channel at a
            time), ``group`` (each image's own, a quarter of the channels at a time: steadier where maps have few
            pixels; Wu and He, ECCV 2018), or ``none``.
        channels: C.
        affine: for ``instance``, learn a gain and a bias; ``batch`` and ``group`` always do.
        eps: added to the variance.
        dimensions: 2 for images, 3 for volumes.
    """
    if kind == "batch":
        return (nn.BatchNorm2d if dimensions == 2 else nn.BatchNorm3d)(channels, eps=eps)
    if kind == "instance":
        return InstanceNorm(channels, eps=eps, affine=affine)
    return GroupNorm32(math.gcd(GROUPS, channels), channels, eps=eps) if kind == "group" else nn.Identity()
