"""Restormer blocks: channel attention and gated depthwise feed-forward, with the published down- and upsampling.

Written from Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022, section
3 (equations 1 to 3), and pinned by ``Testing/golden/restormer_block_dim16.npz``. Maps are [B, C, H, W]. TLP's own
feed-forward, which stands in for Restormer's in the same block, is here too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.bands import Band, map_bands, pointwise, row_bands

__all__ = [
    "ChannelAttention",
    "DenseFeedForward",
    "Downsample",
    "FeedForward",
    "GatedFeedForward",
    "LayerNorm2d",
    "TransformerBlock",
    "Upsample",
]

NORM_FLOOR = 1e-12  # shortest length that a query or key is divided by
KEEP_KERNEL_BELOW = 20  # pixels for each hidden channel: there, making the kernel is a twentieth of the work or more


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
        self.channels, self.heads = channels, heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_depthwise = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=bias)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        """Attend between the channels of each head; with ``norm`` return ``x + attention(norm(x))``.

        Two passes over the rows: the first gathers the small products of queries and keys, the second applies them.
        """
        prepare = norm if norm is not None else nn.Identity()
        sums = [self._products(prepare(band.piece(x)), band) for band in row_bands(x, 2 * self.channels)]
        matrix = self._matrix(torch.stack([p for p, _ in sums]).sum(0), torch.stack([s for _, s in sums]).sum(0))
        return map_bands(
            lambda piece, band: self._applied(prepare(piece), band, matrix), x, self.channels, add=norm is not None
        )

    def _part(self, x: Tensor, band: Band, start: int, stop: int) -> Tensor:
        """Return channels ``start`` to ``stop`` of the queries, keys and values of x [B, C, H, W], as [B, H, W, n]."""
        mix, spread = self.qkv, self.qkv_depthwise
        biases = [None if conv.bias is None else conv.bias[start:stop] for conv in (mix, spread)]
        mixed = pointwise(x, mix.weight[start:stop], biases[0])
        part = band.conv3x3(mixed, spread.weight[start:stop], biases[1], groups=stop - start)
        return part.permute(0, 2, 3, 1)

    def _products(self, x: Tensor, band: Band) -> tuple[Tensor, Tensor]:
        """Return, over the pixels of a band, queries times keys [B, heads, C', C'] and squares [B, 2, heads, C'].

        Both in fp32. The lengths divide the small product instead of every pixel: that saves a pass over all of them.
        """
        pixels = self._part(x, band, 0, 2 * self.channels).flatten(1, 2)
        q, k = pixels.unflatten(-1, (2, self.heads, self.channels // self.heads)).unbind(2)
        squares = pixels.float().square().sum(1).unflatten(-1, (2, *q.shape[2:]))
        return (q.permute(0, 2, 3, 1) @ k.permute(0, 2, 1, 3)).float(), squares

    def _matrix(self, products: Tensor, squares: Tensor) -> Tensor:
        """Return the heads' attention and the output convolution as one matrix [B, C, C]; both are linear."""
        q_length, k_length = squares.clamp_min(NORM_FLOOR**2).sqrt().unbind(1)
        cosine = products / q_length.unsqueeze(-1) / k_length.unsqueeze(-2)
        weights = (cosine * self.temperature.float()).softmax(dim=-1)
        output = self.project_out.weight.flatten(1).float().unflatten(1, weights.shape[1:3])
        return torch.einsum("ohc,bhcd->bohd", output, weights).flatten(2)

    def _applied(self, x: Tensor, band: Band, matrix: Tensor) -> Tensor:
        values = self._part(x, band, 2 * self.channels, 3 * self.channels)
        attended = values.flatten(1, 2) @ matrix.to(values.dtype).transpose(1, 2)
        if self.project_out.bias is not None:
            attended = attended + self.project_out.bias
        return attended.unflatten(1, values.shape[1:3]).permute(0, 3, 1, 2)


class FeedForward(nn.Module, ABC):
    """A feed-forward network of convolutions that look at most one pixel far. [B, C, H, W] to the same shape."""

    widest: int  # channels of the widest map inside

    def forward(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        """Mix channels and neighbourhoods; with ``norm`` return ``x + feed_forward(norm(x))``."""
        mix, prepare = self.mixer(x), norm if norm is not None else nn.Identity()
        return map_bands(lambda piece, band: mix(prepare(piece), band), x, self.widest, add=norm is not None)

    @abstractmethod
    def mixer(self, x: Tensor) -> Callable[[Tensor, Band], Tensor]:
        """Return the function of a piece and its band, see ``map_bands``, with what all bands share computed once.

        Args:
            x: the whole map [B, C, H, W].
        """


class GatedFeedForward(FeedForward):
    """Gated-Dconv feed-forward network (GDFN): 1x1, depthwise 3x3, ``GELU(a) * b``, 1x1. Restormer, section 3.2.

    Hidden width ``int(C * expansion)``.
    """

    def __init__(self, channels: int, expansion: float = 2.66, bias: bool = False) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.widest = 2 * hidden
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=bias)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=bias)

    def mixer(self, x: Tensor) -> Callable[[Tensor, Band], Tensor]:
        """Gate one half of the hidden channels by the other."""

        def mix(x: Tensor, band: Band) -> Tensor:
            """Gate the piece's hidden channels."""
            conv, hidden = self.depthwise, pointwise(x, self.project_in.weight, self.project_in.bias)
            gate, value = band.conv3x3(hidden, conv.weight, conv.bias, conv.groups).chunk(2, dim=1)
            return pointwise(F.gelu(gate) * value, self.project_out.weight, self.project_out.bias)

        return mix


class DenseFeedForward(FeedForward):
    """TLP's feed-forward: 1x1, dense 3x3, GELU, 1x1; neither gated nor depthwise (arXiv 2503.01265, the authors' code).

    Hidden width ``int(C * expansion)``. Nothing lies between the first two convolutions and neither has a bias, so that
    they are one 3x3 convolution from C to the hidden width; its kernel costs little to make, and the convolution of the
    wide map, which is most of the network's arithmetic, is halved.
    """

    def __init__(self, channels: int, expansion: float = 2.0) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.widest = hidden
        self.project_in = nn.Conv2d(channels, hidden, 1, bias=False)
        self.conv = nn.Conv2d(hidden, hidden, 3, padding=1, bias=False)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=False)
        self._kept: tuple[object, Tensor] | None = None

    def mixer(self, x: Tensor) -> Callable[[Tensor, Band], Tensor]:
        """Mix each pixel's neighbourhood."""
        kernel = self._kernel(x)
        return lambda piece, band: pointwise(F.gelu(band.conv3x3(piece, kernel)), self.project_out.weight)

    def _kernel(self, x: Tensor) -> Tensor:
        """Return the merged kernel; kept on a CPU, without gradients, where maps are so small that making it tells."""
        weights = (self.conv.weight, self.project_in.weight)
        few = x.shape[0] * x.shape[2] * x.shape[3] < KEEP_KERNEL_BELOW * self.widest
        keep = few and x.device.type == "cpu" and not torch.is_grad_enabled()
        if not keep or any(weight.is_inference() for weight in weights):
            return self._merged()
        version = (torch.is_autocast_enabled("cpu"), *((weight._version, weight.data_ptr()) for weight in weights))
        if self._kept is None or self._kept[0] != version:
            self._kept = (version, self._merged())
        return self._kept[1]

    def _merged(self) -> Tensor:
        kernel = torch.einsum("ohyx,hi->oiyx", self.conv.weight, self.project_in.weight.flatten(1))
        return kernel.contiguous(memory_format=torch.channels_last)


class TransformerBlock(nn.Module):
    """Pre-norm block: ``x + attention(norm1(x))``, then ``+ feed_forward(norm2(.))``. [B, C, H, W] to the same shape.

    Args:
        channels: C.
        heads: heads of the channel attention; divides ``channels``.
        feed_forward: None for a ``GatedFeedForward`` of expansion 2.66.
    """

    def __init__(self, channels: int, heads: int, feed_forward: FeedForward | None = None) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(channels)
        self.attention = ChannelAttention(channels, heads)
        self.norm2 = LayerNorm2d(channels)
        self.feed_forward = feed_forward if feed_forward is not None else GatedFeedForward(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply attention and feed-forward, each with its residual."""
        return self.feed_forward(self.attention(x, self.norm1), self.norm2)


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
