"""ConvNeXt blocks, an attention between all pixels, and an image encoder with CLIP's attention pooling.

The blocks are those of Liu et al., "A ConvNet for the 2020s", CVPR 2022, section 2; the pooling is that of Radford et
al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, section 2.4. Sizes are those of
EVA-I2I's code. Maps are [B, C, H, W]. Borders are mirrored; where a map is too small to be mirrored, its last pixel is
repeated.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.attention import attend
from MedXlateCore.models.blocks.restormer import LayerNorm2d

__all__ = ["AttentionPool", "ConvNextBlock", "ImageEncoder", "PixelAttention", "bordered"]

KERNEL = 7


def bordered(x: Tensor, width: int) -> Tensor:
    """Return maps [B, C, H, W] with a mirrored border on all sides; repeated where there is too little to mirror."""
    small = min(x.shape[2:]) <= width
    return F.pad(x, (width,) * 4, mode="replicate" if small else "reflect")


class BorderedConv(nn.Conv2d):
    """A convolution of stride 1 with mirrored borders, so that height and width stay."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [B, C, H, W] to [B, out, H, W]."""
        return super().forward(bordered(x, self.kernel_size[0] // 2))


class ConvNextBlock(nn.Module):
    """Depthwise 7x7, norm over channels, 1x1 to four times the channels, GELU, 1x1 back, scaled, added to the input.

    Args:
        channels: C.
        layer_scale: at which the learned gain of each channel starts.
    """

    def __init__(self, channels: int, layer_scale: float = 1e-6) -> None:
        super().__init__()
        self.depthwise = BorderedConv(channels, channels, KERNEL, groups=channels)
        self.norm = LayerNorm2d(channels, 1e-6)
        self.widen = nn.Conv2d(channels, 4 * channels, 1)
        self.narrow = nn.Conv2d(4 * channels, channels, 1)
        self.gain = nn.Parameter(torch.full((channels, 1, 1), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block; shape is kept."""
        return x + self.gain * self.narrow(F.gelu(self.widen(self.norm(self.depthwise(x)))))


class PixelAttention(nn.Module):
    """EVA-I2I's self-attention between all pixels: one head, keys and values of 3x3 convolutions, residual.

    Norm over channels; 1x1 to queries; 3x3 to keys and to values; 1x1 after it; none has a bias. (The 1x1 after it is
    not in the method's description; with it the published numbers of parameters come out.)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(channels)
        self.query = nn.Conv2d(channels, channels, 1, bias=False)
        self.key_value = BorderedConv(channels, 2 * channels, 3, bias=False)
        self.out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend; shape is kept."""
        normed = self.norm(x)
        keys, values = self.key_value(normed).chunk(2, dim=1)
        return x + self.out(attend(self.query(normed), keys, values))


class AttentionPool(nn.Module):
    """CLIP's pooling: the mean over the map asks all its pixels. [B, C, h, w] to [B, out].

    Args:
        channels: C.
        out: length of the result.
        heads: attention heads.
        size: of the learned positions, ``size`` x ``size``; for other maps they are interpolated (bilinear).
    """

    def __init__(self, channels: int, out: int, heads: int, size: int) -> None:
        super().__init__()
        self.heads = heads
        self.mean_position = nn.Parameter(torch.empty(1, channels))
        self.positions = nn.Parameter(torch.empty(1, channels, size, size))
        for positions in (self.mean_position, self.positions):
            nn.init.normal_(positions, std=channels**-0.5)
        self.query, self.key, self.value = (nn.Linear(channels, channels) for _ in range(3))
        self.out = nn.Linear(channels, out)

    def forward(self, x: Tensor) -> Tensor:
        """Pool."""
        positions: Tensor = self.positions
        if positions.shape[2:] != x.shape[2:]:
            positions = F.interpolate(positions, x.shape[2:], mode="bilinear", align_corners=False)
        mean = (x.mean(dim=(2, 3)) + self.mean_position)[:, None]
        tokens = torch.cat((mean, (x + positions).flatten(2).transpose(1, 2)), dim=1)
        q, k, v = (
            t.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for t in (self.query(mean), self.key(tokens), self.value(tokens))
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(1))


class ImageEncoder(nn.Module):
    """DCLIP's image encoder: a ConvNeXt with attention pooling. Images [B, 1, H, W] of any size to [B, out].

    A 7x7 convolution of stride 1, a 4x4 one of stride 4, then a norm and a 2x2 convolution of stride 2 before each
    further level. Images whose sides are no multiple of the whole stride are padded (below and on the right) with -1.

    Args:
        widths: channels of the levels.
        depths: ConvNeXt blocks of the levels.
        out: length of the result.
        heads: of the pooling.
        pool_size: side of the pooling's learned positions.
        layer_scale: of the blocks.
    """

    def __init__(
        self, widths: Sequence[int], depths: Sequence[int], out: int, heads: int, pool_size: int, layer_scale: float
    ) -> None:
        super().__init__()
        self.stride = 4 * 2 ** (len(widths) - 1)
        layers: list[nn.Module] = [
            BorderedConv(1, widths[0], KERNEL),
            nn.Conv2d(widths[0], widths[0], 4, 4),
            LayerNorm2d(widths[0], 1e-6),
        ]
        for n, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            if n:
                layers += [LayerNorm2d(widths[n - 1], 1e-6), nn.Conv2d(widths[n - 1], width, 2, 2)]
            layers += [ConvNextBlock(width, layer_scale) for _ in range(depth)]
        self.layers = nn.Sequential(*layers)
        self.pool = AttentionPool(widths[-1], out, heads, pool_size)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images in [-1, 1]; the result is not of unit length yet."""
        bottom, right = (-side % self.stride for side in images.shape[2:])
        padded = F.pad(images, (0, right, 0, bottom), value=-1.0) if bottom or right else images
        return self.pool(self.layers(padded))
