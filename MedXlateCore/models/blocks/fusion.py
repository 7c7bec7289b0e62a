"""Local fusion of the feature maps of two sources, [B, C, H, W] each, into one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ConcatFusion", "LocalFusion"]


class LocalFusion(nn.Module):
    """TLP's local fusion (equation 2): 3x3 convolution of both maps and their maximum. Two [B, C, H, W] to one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3 * channels, channels, 3, padding=1)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Fuse two maps."""
        return self.conv(torch.cat((first, second, torch.maximum(first, second)), dim=1))


class ConcatFusion(nn.Module):
    """Ablation of the local fusion: 1x1 convolution of both maps. Two [B, C, H, W] to one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, channels, 1, bias=False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Fuse two maps."""
        return self.conv(torch.cat((first, second), dim=1))
