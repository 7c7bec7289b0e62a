"""Residual blocks of StarGAN v2 (Choi et al., CVPR 2020, appendix), with styles, plain norms or none.

Written from the paper. Maps are [B, C, H, W].
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.norms import InstanceNorm

__all__ = ["AdaptiveNorm", "StyleBlock", "init_he"]


def init_he(network: nn.Module) -> None:
    """Draw weights as published: He's initialisation, biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class AdaptiveNorm(nn.Module):
    """Instance normalisation of [B, C, H, W] with a gain and a bias that are made from a style [B or 1, D]."""

    def __init__(self, style: int, channels: int) -> None:
        super().__init__()
        self.norm = InstanceNorm(channels, affine=False)
        self.affine = nn.Linear(style, 2 * channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Normalise; the gain starts near 1."""
        gain, bias = self.affine(style)[:, :, None, None].chunk(2, dim=1)
        return (1 + gain) * self.norm(x) + bias


class StyleBlock(nn.Module):
    """Residual block before whose convolutions there is a norm, or none: [B, C, H, W] to [B, out, ...].

    Args:
        channels: C.
        out: channels of the result.
        style: length of the style, for adaptive norms; 0 for learned ones, -1 for no norms.
        scale: 2 doubles height and width, 0.5 halves them.
    """

    def __init__(self, channels: int, out: int, style: int = -1, scale: float = 1) -> None:
        super().__init__()
        self.scale, self.adaptive = scale, style > 0
        sizes = (channels, channels if scale < 1 else out)  # widths grow after a halving, shrink before a doubling
        self.norms = nn.ModuleList(AdaptiveNorm(style, n) if style > 0 else _plain_norm(style, n) for n in sizes)
        self.convs = nn.ModuleList((nn.Conv2d(sizes[0], sizes[1], 3, 1, 1), nn.Conv2d(sizes[1], out, 3, 1, 1)))
        self.shortcut = nn.Conv2d(channels, out, 1, bias=False) if channels != out else nn.Identity()

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Add both ways, keeping the variance."""
        return (self._resized(self.shortcut(x)) + self._residual(x, style)) / math.sqrt(2)

    def _residual(self, x: Tensor, style: Tensor | None) -> Tensor:
        h = self._normed(0, x, style)
        h = self.convs[0](self._resized(h) if self.scale > 1 else h)
        h = self._normed(1, self._resized(h) if self.scale < 1 else h, style)
        return self.convs[1](h)

    def _normed(self, n: int, x: Tensor, style: Tensor | None) -> Tensor:
        return F.leaky_relu(self.norms[n](x, style) if self.adaptive else self.norms[n](x), 0.2)

    def _resized(self, x: Tensor) -> Tensor:
        if self.scale < 1:
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2, mode="nearest") if self.scale > 1 else x


def _plain_norm(style: int, channels: int) -> nn.Module:
    return InstanceNorm(channels, affine=True) if style == 0 else nn.Identity()
