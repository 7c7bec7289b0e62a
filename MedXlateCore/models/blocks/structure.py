"""EVA-I2I's structure encoder and its decoder: an image to a code that says where things are, a code to an image.

Images are [B, 1, H, W], codes [B, C, H/4, W/4]; there are no skips between the two.

The published blocks are ConvNeXt's. Two others are there for the ablation, of which nothing but the names is published;
they take the blocks' places at the same widths: ``resnet`` has two 3x3 convolutions (He et al., CVPR 2016), ``swin``
attention in windows of 8 x 8, shifted in every second block (Liu et al., ICCV 2021).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.convnext import KERNEL, BorderedConv, ConvNextBlock, PixelAttention
from MedXlateCore.models.blocks.hyper import HyperStage
from MedXlateCore.models.blocks.resnet import ResidualBlock
from MedXlateCore.models.blocks.restormer import LayerNorm2d

__all__ = ["STRIDE", "Backbone", "Decoder", "StructureEncoder", "WindowBlock"]

Backbone = Literal["convnext", "resnet", "swin"]
STRIDE = 4
WINDOW = 8
HEAD_WIDTH = 32


class WindowBlock(nn.Module):
    """Attention between the pixels of a window, and two 1x1 convolutions; both added. [B, C, H, W] to the same shape.

    Args:
        channels: C.
        shifted: windows start half a window further.
        layer_scale: at which the learned gains start.
    """

    def __init__(self, channels: int, shifted: bool, layer_scale: float) -> None:
        super().__init__()
        self.heads = max(n for n in range(1, max(1, channels // HEAD_WIDTH) + 1) if channels % n == 0)
        self.shift = WINDOW // 2 if shifted else 0
        self.first_norm, self.second_norm = LayerNorm2d(channels), LayerNorm2d(channels)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)
        self.widen, self.narrow = nn.Conv2d(channels, 4 * channels, 1), nn.Conv2d(4 * channels, channels, 1)
        self.bias = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, self.heads))
        self.first_gain, self.second_gain = (nn.Parameter(torch.full((channels, 1, 1), layer_scale)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        x = x + self.first_gain * self._attended(self.first_norm(x))
        return x + self.second_gain * self.narrow(F.gelu(self.widen(self.second_norm(x))))

    def _attended(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        before = self.shift
        bottom, right = (-(side + before) % WINDOW for side in (height, width))
        padded = F.pad(self.qkv(x), (before, right, before, bottom))
        inside = F.pad(torch.ones_like(x[:1, :1]), (before, right, before, bottom))
        rows, columns = padded.shape[2] // WINDOW, padded.shape[3] // WINDOW

        def windows(maps: Tensor) -> Tensor:
            """Return maps [N, D, H, W] as [N * windows, pixels, D]."""
            cut = maps.unflatten(2, (rows, WINDOW)).unflatten(4, (columns, WINDOW))
            return cut.permute(0, 2, 4, 3, 5, 1).reshape(-1, WINDOW * WINDOW, maps.shape[1])

        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in windows(padded).chunk(3, dim=2))
        outside = torch.where(windows(inside) > 0, 0.0, -1e4).to(x.dtype)  # [windows, pixels, 1]
        mask = self._positions().to(x.dtype) + outside.repeat(n, 1, 1).transpose(1, 2)[:, None]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        whole = attended.view(n, rows, columns, WINDOW, WINDOW, channels).permute(0, 5, 1, 3, 2, 4)
        whole = whole.reshape(n, channels, rows * WINDOW, columns * WINDOW)
        return self.out(whole[:, :, before : before + height, before : before + width])

    def _positions(self) -> Tensor:
        """Return the learned bias of each pair of pixels, [1, heads, pixels, pixels]."""
        place = torch.arange(WINDOW * WINDOW, device=self.bias.device)
        rows = place[:, None] // WINDOW - place[None] // WINDOW + WINDOW - 1
        columns = place[:, None] % WINDOW - place[None] % WINDOW + WINDOW - 1
        return self.bias[rows * (2 * WINDOW - 1) + columns].permute(2, 0, 1)[None]


def _block(kind: Backbone, channels: int, number: int, layer_scale: float) -> nn.Module:
    if kind == "resnet":
        return ResidualBlock(channels, "instance")
    if kind == "swin":
        return WindowBlock(channels, number % 2 == 1, layer_scale)
    return ConvNextBlock(channels, layer_scale)


class StructureEncoder(nn.Module):
    """Image [B, 1, H, W] to code [B, C, H/4, W/4].

    A 7x7 convolution, two of 2x2 with stride 2 and blocks after each; at the last level attention between the blocks.

    Args:
        widths: channels at full, half and quarter resolution.
        blocks: number of blocks at half and at quarter resolution.
        backbone: their kind.
        layer_scale: of the blocks.
    """

    def __init__(
        self, widths: tuple[int, int, int], blocks: tuple[int, int], backbone: Backbone, layer_scale: float
    ) -> None:
        super().__init__()
        self.stem = BorderedConv(1, widths[0], KERNEL)
        self.downs = nn.ModuleList(nn.Conv2d(widths[n], widths[n + 1], 2, 2) for n in range(2))
        self.half_blocks, self.quarter_blocks = (
            nn.ModuleList(_block(backbone, width, n, layer_scale) for n in range(count))
            for width, count in zip(widths[1:], blocks, strict=True)
        )
        self.attentions = nn.ModuleList(PixelAttention(widths[2]) for _ in range(blocks[1] - 1))

    def forward(self, images: Tensor) -> Tensor:
        """Encode images in [-1, 1]."""
        x = self.downs[0](self.stem(images))
        for block in self.half_blocks:
            x = block(x)
        x = self.downs[1](x)
        for n, block in enumerate(self.quarter_blocks):
            x = block(self.attentions[n - 1](x) if n else x)
        return x


class Decoder(nn.Module):
    """Code [B, C, H/4, W/4] and what is wanted, [B, D] or [1, D], to an image [B, 1, H, W].

    Hyper-blocks with attention at quarter resolution, upsampling, hyper-blocks at half, upsampling. The result is
    2 LeakyReLU((x + 1) / 2) - 1, published with slope 0.01: hardly below -1 (black), free above. There the error's
    gradient is the slope's part of what it is elsewhere, and most of an image is black: a short training that begins
    by making all black may not come back before its end. ``slope`` gives it more.

    Args:
        widths: channels at full, half and quarter resolution.
        blocks: number of hyper-blocks at half and at quarter resolution.
        vector: D.
        rank: of the dynamic convolutions.
        layer_scale: of the hyper-blocks.
        slope: of the result below black.
    """

    def __init__(
        self,
        widths: tuple[int, int, int],
        blocks: tuple[int, int],
        vector: int,
        rank: int,
        layer_scale: float,
        slope: float = 0.01,
    ) -> None:
        super().__init__()
        fine, half, quarter = widths
        self.slope = slope
        self.stage = HyperStage(blocks[1], quarter, vector, rank, layer_scale)
        self.norms = nn.ModuleList(LayerNorm2d(width) for width in (quarter, half, fine))
        self.ups = nn.ModuleList((BorderedConv(quarter, half, 3), BorderedConv(half, fine, 3)))
        self.half_stage = nn.ModuleList(
            HyperStage(1, half, vector, rank, layer_scale) for _ in range(blocks[0])
        )  # without attention, which is too dear there
        self.output = BorderedConv(fine, 1, KERNEL)

    def forward(self, code: Tensor, vectors: Tensor) -> Tensor:
        """Decode."""
        x = self.stage(code, vectors)
        x = self.ups[0](F.interpolate(self.norms[0](x), scale_factor=2, mode="nearest"))
        for stage in self.half_stage:
            x = stage(x, vectors)
        x = self.ups[1](F.interpolate(self.norms[1](x), scale_factor=2, mode="nearest"))
        image = self.output(self.norms[2](x)).float()
        return 2 * F.leaky_relu((image + 1) / 2, self.slope) - 1
