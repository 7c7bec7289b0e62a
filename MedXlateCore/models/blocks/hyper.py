"""EVA-I2I's dynamic convolutions: kernels made for each image from a vector that says what is wanted.

W_eff[o, i, k] = W[o, i, k] (A(s) B(s))[o, i] K(s)[k] for output channel o, input channel i and place k in the kernel:
A (out x rank), B (rank x in) and K are linear in the vector s. There is no bias. (The published weight demodulation is
disabled there, and absent here.) The authors' code loops over the images of a batch; here one grouped convolution (or
one batched matrix product, for 1x1 kernels) does all. Where one vector serves the whole batch, its kernel is made once.

How the linear maps start is not published. Ours start where A(s) B(s) and K(s) are near 1, so that the first kernels
are near W for every vector.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.convnext import KERNEL, PixelAttention, bordered
from MedXlateCore.models.blocks.precision import full_precision
from MedXlateCore.models.blocks.restormer import LayerNorm2d

__all__ = ["DynamicConv", "HyperBlock", "HyperStage"]


class DynamicConv(nn.Module):
    """A convolution whose kernel depends on a vector; [B, C, H, W] to [B, out, H, W].

    Args:
        channels: C.
        out: channels of the result.
        size: of the kernel, an odd number; borders are mirrored.
        vector: length of the vector.
        rank: of the change of channels.
        depthwise: each channel by itself; ``out`` is then C.
    """

    def __init__(
        self, channels: int, out: int, size: int, vector: int, rank: int = 16, *, depthwise: bool = False
    ) -> None:
        super().__init__()
        inner = 1 if depthwise else channels
        self.groups, self.rank = channels if depthwise else 1, rank
        self.weight = nn.Parameter(torch.empty(out, inner, size, size))
        nn.init.normal_(self.weight, std=(inner * size * size) ** -0.5)
        self.rows, self.columns = nn.Linear(vector, out * rank), nn.Linear(vector, rank * inner)
        self.places = nn.Linear(vector, size * size)
        for linear, start in ((self.rows, rank**-0.5), (self.columns, rank**-0.5), (self.places, 1.0)):
            nn.init.constant_(linear.bias, start)

    def kernels(self, vectors: Tensor) -> Tensor:
        """Return the kernels [B, out, C, size, size] (C is 1 if depthwise) for vectors [B, D], in full precision."""
        out, inner, size, _ = self.weight.shape
        with full_precision(vectors):
            vectors = vectors.to(self.weight.dtype)
            rows = self.rows(vectors).view(-1, out, self.rank)
            change = rows @ self.columns(vectors).view(-1, self.rank, inner)
            places = self.places(vectors).view(-1, 1, 1, size, size)
            return self.weight * change[..., None, None] * places

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        """Convolve each image with its own kernel.

        Args:
            x: maps [B, C, H, W].
            vectors: [B, D], or [1, D] for all.
        """
        kernels = self.kernels(vectors).to(x.dtype)
        n, out, inner, size, _ = kernels.shape
        if n == 1:
            return F.conv2d(bordered(x, size // 2) if size > 1 else x, kernels[0], groups=self.groups)
        if size == 1 and self.groups == 1:
            return (kernels.view(n, out, inner) @ x.flatten(2)).unflatten(2, x.shape[2:])
        padded = bordered(x, size // 2) if size > 1 else x
        joined = padded.reshape(1, -1, *padded.shape[2:])
        result = F.conv2d(joined, kernels.reshape(n * out, inner, size, size), groups=n * self.groups)
        return result.view(n, out, *x.shape[2:])


class HyperBlock(nn.Module):
    """A ConvNeXt block whose three convolutions are dynamic; [B, C, H, W] to the same shape.

    Args:
        channels: C.
        vector: length of the vector.
        rank: of the dynamic convolutions.
        layer_scale: at which the learned gain of each channel starts.
    """

    def __init__(self, channels: int, vector: int, rank: int = 16, layer_scale: float = 1e-6) -> None:
        super().__init__()
        self.depthwise = DynamicConv(channels, channels, KERNEL, vector, rank, depthwise=True)
        self.norm = LayerNorm2d(channels, 1e-6)
        self.widen = DynamicConv(channels, 4 * channels, 1, vector, rank)
        self.narrow = DynamicConv(4 * channels, channels, 1, vector, rank)
        self.gain = nn.Parameter(torch.full((channels, 1, 1), layer_scale))

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        """Apply the block for vectors [B, D] or [1, D]."""
        hidden = F.gelu(self.widen(self.norm(self.depthwise(x, vectors)), vectors))
        return x + self.gain * self.narrow(hidden, vectors)


class HyperStage(nn.Module):
    """Hyper-blocks with an attention between each two; [B, C, H, W] to the same shape. Arguments as ``HyperBlock``."""

    def __init__(self, blocks: int, channels: int, vector: int, rank: int, layer_scale: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(HyperBlock(channels, vector, rank, layer_scale) for _ in range(blocks))
        self.attentions = nn.ModuleList(PixelAttention(channels) for _ in range(blocks - 1))

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        """Apply blocks and attentions in turn."""
        for n, block in enumerate(self.blocks):
            x = block(self.attentions[n - 1](x) if n else x, vectors)
        return x
