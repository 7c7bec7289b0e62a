"""Full spatial attention over feature maps, within one branch and across two. Maps are [B, C, H, W];
self-attention also takes volumes [B, C, D, H, W].

All use ``scaled_dot_product_attention``, which needs no (HW) x (HW) matrix in memory on the devices that have a fused
kernel. One head; scale 1/sqrt(C) unless said otherwise.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CrossAttention", "GatedAttention", "GroupNorm32", "SpatialAttention", "attend"]

Residual = Literal["raw", "normalised"]


class GroupNorm32(nn.GroupNorm):
    """Group normalisation whose statistics are taken in fp32 whatever the input's precision."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each group of channels over its channels and space."""
        normed = F.group_norm(x.float(), self.num_groups, self.weight.float(), self.bias.float(), self.eps)
        return normed.to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """Single-head attention between all pixels; q, k, v and the result are [B, C, H, W] or [B, C, D, H, W]."""
    # pixels first, channels contiguous: with other strides the fused kernels are passed over for one that builds the
    # whole matrix
    queries, keys, values = (t.movedim(1, -1).flatten(1, -2).contiguous().unsqueeze(1) for t in (q, k, v))
    attended = F.scaled_dot_product_attention(queries, keys, values, scale=scale)
    return attended.squeeze(1).unflatten(1, v.shape[2:]).movedim(-1, 1)


class SpatialAttention(nn.Module):
    """Self-attention between all pixels: group norm, 1x1 to q, k, v, attention, 1x1, residual on the raw input.

    Args:
        channels: C.
        groups: groups of the normalisation.
        dimensions: 2 for images, 3 for volumes.
        bias: of the convolution to q, k and v.
    """

    def __init__(self, channels: int, groups: int = 16, dimensions: int = 2, bias: bool = False) -> None:
        super().__init__()
        conv = nn.Conv2d if dimensions == 2 else nn.Conv3d
        self.norm = GroupNorm32(groups, channels)
        self.qkv = conv(channels, 3 * channels, 1, bias=bias)
        self.out = conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Attend between the pixels of one map; [B, C, H, W] to the same shape."""
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=1)
        return x + self.out(attend(q, k, v))


class CrossAttention(nn.Module):
    """TLP's global fusion (equations 3 to 5): two branches exchange their queries, each keeps its keys and values.

    Args:
        channels: C of both branches.
        groups: groups of the normalisation.
        residual: what is added to the attention's result. ``normalised`` (the authors' code) adds the group-normed
            features, ``raw`` the features as they came in.
    """

    def __init__(self, channels: int, groups: int = 16, residual: Residual = "normalised") -> None:
        super().__init__()
        self.residual = residual
        self.norms = nn.ModuleList(GroupNorm32(groups, channels) for _ in range(2))
        self.qkvs = nn.ModuleList(nn.Conv2d(channels, 3 * channels, 1, bias=False) for _ in range(2))
        self.outs = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(2))

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Let each branch be asked by the other; two [B, C, H, W] maps to two of the same shape."""
        raw = (first, second)
        normed = [norm(x) for norm, x in zip(self.norms, raw, strict=True)]
        (q1, k1, v1), (q2, k2, v2) = (qkv(x).chunk(3, dim=1) for qkv, x in zip(self.qkvs, normed, strict=True))
        kept1, kept2 = normed if self.residual == "normalised" else raw
        return kept1 + self.outs[0](attend(q2, k1, v1)), kept2 + self.outs[1](attend(q1, k2, v2))


class GatedAttention(nn.Module):
    """Self-attention between all pixels with few keys and a gate that starts closed. [B, C, H, W] to the same shape.

    Zhang et al., "Self-Attention Generative Adversarial Networks", ICML 2019, section 3: 1x1 convolutions (here without
    bias) to queries and keys of C/8 channels and values of C, no scale, times a learned gate, added to the input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.keys = max(1, channels // 8)
        self.qkv = nn.Conv2d(channels, 2 * self.keys + channels, 1, bias=False)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Attend between the pixels of one map."""
        q, k, v = self.qkv(x).split((self.keys, self.keys, x.shape[1]), dim=1)
        missing = (
            0,
            0,
            0,
            0,
            0,
            x.shape[1] - self.keys,
        )  # fused kernels want q, k and v of one width; zeros add nothing
        return x + self.gate * attend(F.pad(q, missing), F.pad(k, missing), v, scale=1.0)
