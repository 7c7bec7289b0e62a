"""Mixed fusion of the feature maps of several sources, and the convolutions around it. Maps are [B, C, H, W].

Zhou et al., "Hi-Net: Hybrid-fusion Network for Multi-modal MR Image Synthesis", IEEE TMI 2020, section III.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.norms import EPS, Norm, norm_layer

__all__ = ["MixedFusion", "conv_unit", "double", "two_units"]

SLOPE = 0.2


def conv_unit(channels: int, out: int, norm: Norm, eps: float = EPS) -> list[nn.Module]:
    """Return a 3x3 convolution, normalisation and LeakyReLU 0.2: [B, C, H, W] to [B, out, H, W]."""
    conv = nn.Conv2d(channels, out, 3, padding=1, bias=norm == "none")
    return [conv, norm_layer(norm, out, eps=eps), nn.LeakyReLU(SLOPE, True)]


def two_units(channels: int, out: int, norm: Norm, eps: float = EPS) -> nn.Sequential:
    """Return two of them, one after the other."""
    return nn.Sequential(*conv_unit(channels, out, norm, eps), *conv_unit(out, out, norm, eps))


def double(x: Tensor) -> Tensor:
    """Double height and width, bilinearly."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class MixedFusion(nn.Module):
    """Sum, product and maximum over the sources, mixed by a 3x3 convolution, then joined with what was fused before.

    Args:
        channels: C of each source's map.
        previous: channels of the map fused before; 0 for none.
        out: channels of the result.
        norm: the normalisation.
        eps: added to its variance.
    """

    def __init__(self, channels: int, previous: int, out: int, norm: Norm, eps: float = EPS) -> None:
        super().__init__()
        self.mix = nn.Sequential(*conv_unit(3 * channels, channels, norm, eps))
        self.join = nn.Sequential(*conv_unit(channels + previous, out, norm, eps))

    def forward(self, features: Sequence[Tensor], previous: Tensor | None = None) -> Tensor:
        """Fuse one map [B, C, H, W] a source, and the previous map [B, P, H, W], to [B, out, H, W]."""
        total = product = largest = features[0]
        for feature in features[1:]:
            total, product, largest = total + feature, product * feature, torch.maximum(largest, feature)
        mixed = self.mix(torch.cat((total, product, largest), dim=1))
        return self.join(mixed if previous is None else torch.cat((mixed, previous), dim=1))
