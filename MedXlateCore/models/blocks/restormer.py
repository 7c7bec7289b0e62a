"""Restormer blocks: channel attention and gated depthwise feed-forward, with the published down- and upsampling.

Written from Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022, section
3 (equations 1 to 3), and pinned by ``Testing/golden/restormer_block_dim16.npz``. Maps are [B, C, H, W]. TLP's own
feed-forward, which stands in for Restormer's in the same block, is here too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "ChannelAttention",
    "DenseFeedForward",
    "Downsample",
    "GatedFeedForward",
    "LayerNorm2d",
    "TransformerBlock",
    "Upsample",
]

NORM_FLOOR = 1e-12  # shortest length that a query or key is divided by


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of each pixel, with gain and bias; [B, C, H, W] to the same shape.

    Statistics are taken in fp32 whatever the input's precision: in half precision they overflow.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over channels."""
        pixels = x.permute(0, 2, 3, 1).float()
        normed = F.layer_norm(pixels, self.weight.shape, self.weight.float(), self.bias.float(), self.eps)
        return normed.permute(0, 3, 1, 2).to(x.dtype)


class ChannelAttention(nn.Module):
    """Multi-Dconv head transposed attention (MDTA): attention between channels, so cost is linear in pixels.

    Queries, keys and values come from a 1x1 and a depthwise 3x3 convolution; queries and keys are scaled to unit length
    over space; each head has a learned temperature (1 at the start). Restormer, section 3.1. Shape is kept.
    """

    def __init__(self, channels: int, heads: int, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_depthwise = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=bias)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Attend between the channels of each head."""
        batch, channels, height, width = x.shape
        per_head = (batch, 3, self.heads, channels // self.heads, height * width)
        q, k, v = self.qkv_depthwise(self.qkv(x)).reshape(per_head).unbind(1)
        # |q| and |k| in fp32. The keys' lengths divide the small C x C product, which saves one pass over all pixels.
        q_length = torch.linalg.vector_norm(q, dim=-1, keepdim=True, dtype=torch.float32).clamp_min(NORM_FLOOR)
        k_length = torch.linalg.vector_norm(k, dim=-1, keepdim=True, dtype=torch.float32).clamp_min(NORM_FLOOR)
        cosine = ((q / q_length).to(k.dtype) @ k.transpose(-2, -1)).float() / k_length.transpose(-2, -1)
        weights = (cosine * self.temperature.float()).softmax(dim=-1).to(v.dtype)
        return self.project_out((weights @ v).reshape(batch, channels, height, width))


class GatedFeedForward(nn.Module):
    """Gated-Dconv feed-forward network (GDFN): 1x1, depthwise 3x3, ``GELU(a) * b``, 1x1. Restormer, section 3.2.

    [B, C, H, W] to the same shape; hidden width ``int(C * expansion)``.
    """

    def __init__(self, channels: int, expansion: float = 2.66, bias: bool = False) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=bias)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Gate one half of the hidden channels by the other."""
        gate, value = self.depthwise(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


class DenseFeedForward(nn.Module):
    """TLP's feed-forward: 1x1, dense 3x3, GELU, 1x1; neither gated nor depthwise (arXiv 2503.01265, the authors' code).

    [B, C, H, W] to the same shape; hidden width ``int(C * expansion)``.
    """

    def __init__(self, channels: int, expansion: float = 2.0, bias: bool = False) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.project_in = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.conv = nn.Conv2d(hidden, hidden, 3, padding=1, bias=bias)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Mix each pixel's neighbourhood."""
        return self.project_out(F.gelu(self.conv(self.project_in(x))))


class TransformerBlock(nn.Module):
    """Pre-norm block: ``x + attention(norm1(x))``, then ``+ feed_forward(norm2(.))``. [B, C, H, W] to the same shape.

    Args:
        channels: C.
        heads: heads of the channel attention; divides ``channels``.
        feed_forward: module from [B, C, H, W] to the same shape; None for a ``GatedFeedForward`` of expansion 2.66.
    """

    def __init__(self, channels: int, heads: int, feed_forward: nn.Module | None = None) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(channels)
        self.attention = ChannelAttention(channels, heads)
        self.norm2 = LayerNorm2d(channels)
        self.feed_forward = feed_forward if feed_forward is not None else GatedFeedForward(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply attention and feed-forward, each with its residual."""
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class Downsample(nn.Module):
    """3x3 convolution C to C/2, then pixel-unshuffle: [B, C, H, W] to [B, 2C, H/2, W/2]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Reduce height and width by 2."""
        return F.pixel_unshuffle(self.conv(x), 2)


class Upsample(nn.Module):
    """3x3 convolution C to 2C, then pixel-shuffle: [B, C, H, W] to [B, C/2, 2H, 2W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge height and width by 2."""
        return F.pixel_shuffle(self.conv(x), 2)
