"""A volumetric autoencoder for latent diffusion: images [B, 1, D, H, W] to latents a few times smaller, and back.

Esser et al., "Taming Transformers", CVPR 2021, and Rombach et al., CVPR 2022, in three dimensions: residual blocks
(group normalisation, SiLU, 3x3x3 convolution, twice), a convolution of stride 2 with zeros behind the last plane to
halve, repetition and a convolution to double, 1x1x1 convolutions around the regulariser, no activation at the end. All
parts can work in slabs (see ``slabs.py``), with the same result; that is for use without gradients.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.attention import GroupNorm32, SpatialAttention
from MedXlateCore.models.blocks.precision import full_precision
from MedXlateCore.models.blocks.slabs import by_slabs, longest_axis, normed_convolution, slabs_of
from MedXlateCore.models.blocks.volume_conv import VolumeConv, volume_conv

__all__ = ["Decoder", "Encoder", "VolumeBlock", "norm32", "patched", "unpatched"]

Middle = Literal["attention", "block", "none"]


def norm32(channels: int) -> GroupNorm32:
    """Return group normalisation of 32 groups, fewer where channels are few."""
    return GroupNorm32(math.gcd(channels, 32 if channels >= 64 else max(1, channels // 4)), channels, eps=1e-6)


def patched(x: Tensor, patch: int) -> Tensor:
    """Return [B, C, D, H, W] as [B, C * patch^3, D/patch, H/patch, W/patch]: what a patch holds becomes channels."""
    if patch == 1:
        return x
    b, c, d, h, w = x.shape
    p = patch
    x = x.view(b, c, d // p, p, h // p, p, w // p, p).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(b, c * p**3, d // p, h // p, w // p)


def unpatched(x: Tensor, patch: int) -> Tensor:
    """Undo ``patched``."""
    if patch == 1:
        return x
    b, c, d, h, w = x.shape
    p = patch
    x = x.view(b, c // p**3, p, p, p, d, h, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(b, c // p**3, d * p, h * p, w * p)


class VolumeBlock(nn.Module):
    """Residual block: norm, SiLU, convolution, twice; [B, C, D, H, W] to [B, out, D, H, W]."""

    def __init__(self, channels: int, out: int, planar: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm32(channels), norm32(out)
        self.conv1, self.conv2 = volume_conv(channels, out, planar), volume_conv(out, out, planar)
        self.shortcut = nn.Conv3d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, tile: int = 0) -> Tensor:
        """Add the convolutions' result; in slabs of ``tile`` planes, or whole (0). In slabs x may be changed."""
        if tile:
            h = normed_convolution(x, self.norm1, self.conv1, tile)
            x = x if isinstance(self.shortcut, nn.Identity) else by_slabs(self.shortcut, x, tile)
            return normed_convolution(h, self.norm2, self.conv2, tile, add_to=x)
        h = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class Halving(nn.Module):
    """3x3x3 convolution of stride 2, zeros behind the last plane of each axis only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor, tile: int = 0) -> Tensor:
        """Halve [B, C, D, H, W]."""
        if not tile:
            return self.conv(F.pad(x, (0, 1, 0, 1, 0, 1)))
        axis = longest_axis(x)
        made = []
        for start, stop in slabs_of(x.shape[axis] // 2, max(1, tile // 2)):
            last = min(2 * stop + 1, x.shape[axis])
            ends = [0, 1, 0, 1, 0, 1]
            ends[2 * (4 - axis) + 1] = 2 * stop + 1 - last
            made.append(self.conv(F.pad(x.narrow(axis, 2 * start, last - 2 * start), ends)))
        return torch.cat(made, dim=axis)


class Doubling(nn.Module):
    """Each voxel repeated twice along each axis, then a 3x3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = VolumeConv(channels, channels)

    def forward(self, x: Tensor, tile: int = 0) -> Tensor:
        """Double [B, C, D, H, W]."""
        return by_slabs(self._doubled, x, max(1, tile // 2), scale=2) if tile else self._doubled(x)

    def _doubled(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Plain(nn.Module):
    """A convolution, as a layer that can work in slabs."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, tile: int = 0) -> Tensor:
        """Convolve."""
        return by_slabs(self.conv, x, tile) if tile else self.conv(x)


class Whole(nn.Module):
    """A layer that looks at the whole map."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, tile: int = 0) -> Tensor:
        """Apply it."""
        return self.layer(x)


class Last(nn.Module):
    """Norm, SiLU and a 3x3x3 convolution, which starts ``scale`` times as large as usual."""

    def __init__(self, channels: int, out: int, scale: float = 1.0, planar: bool = False) -> None:
        super().__init__()
        self.norm, self.conv = norm32(channels), volume_conv(channels, out, planar)
        with torch.no_grad():
            self.conv.get_parameter("weight").mul_(scale)

    def forward(self, x: Tensor, tile: int = 0) -> Tensor:
        """Apply them."""
        return normed_convolution(x, self.norm, self.conv, tile) if tile else self.conv(F.silu(self.norm(x)))


def _middle(kind: Middle, channels: int, planar: bool) -> list[nn.Module]:
    if kind == "none":
        return []
    if kind == "block":
        return [VolumeBlock(channels, channels, planar)]
    attention = SpatialAttention(channels, norm32(channels).num_groups, dimensions=3, bias=True)
    return [VolumeBlock(channels, channels, planar), Whole(attention), VolumeBlock(channels, channels, planar)]


class Layers(nn.Module):
    """Layers in a row; each is one step of ``stepwise``."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.layers)

    def forward(self, x: Tensor) -> Tensor:
        """Apply all."""
        for layer in self.layers:
            x = layer(x)
        return x

    def stepwise(self, x: Tensor, tile: int = 0, precise: bool = False) -> Generator[None, None, Tensor]:
        """Apply all, pausing after each; returns the result.

        Args:
            x: the map.
            tile: planes in a slab; 0 for whole.
            precise: without autocast.
        """
        for layer in self.layers:
            with full_precision(x) if precise else nullcontext():
                x = layer(x, tile)
            yield
        return x


class Encoder(Layers):
    """Image to what the regulariser takes: [B, 1, D, H, W] to [B, out, D/f, H/f, W/f], f = patch * 2^halvings.

    Args:
        widths: channels by resolution, finest first; one halving between each two.
        out: channels at the end.
        blocks: residual blocks a resolution.
        middle: ``attention`` between two residual blocks, one ``block``, or ``none``.
        patch: side of the patches that become channels at first; 1 for none.
        shortcut: to so many channels of the result means over the image are added, the voxels themselves where a place
            has no more voxels; 0 for none.
        planar: convolve with ``PlanarConv`` where that is possible.
    """

    def __init__(
        self,
        widths: Sequence[int],
        out: int,
        blocks: int,
        middle: Middle,
        patch: int = 1,
        shortcut: int = 0,
        planar: bool = False,
    ) -> None:
        layers: list[nn.Module] = [Plain(volume_conv(patch**3, widths[0], planar))]
        now = widths[0]
        for level, width in enumerate(widths):
            for _ in range(blocks):
                layers.append(VolumeBlock(now, width, planar))
                now = width
            if level < len(widths) - 1:
                layers.append(Halving(now))
        last = Last(now, out, 0.1 if shortcut else 1.0, planar)
        super().__init__([*layers, *_middle(middle, now, planar), last, Plain(nn.Conv3d(out, out, 1))])
        self.patch, self.shortcut, self.factor = patch, shortcut, patch * 2 ** (len(widths) - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Encode images in [-1, 1]."""
        return self._shortened(super().forward(patched(x, self.patch)), x)

    def stepwise(self, x: Tensor, tile: int = 0, precise: bool = True) -> Generator[None, None, Tensor]:
        """Encode, pausing after each layer; in fp32, since a rounding can take another entry of a codebook."""
        return self._shortened((yield from super().stepwise(patched(x, self.patch), tile, precise)), x)

    def _shortened(self, made: Tensor, images: Tensor) -> Tensor:
        if not self.shortcut:
            return made
        means = patched(images, self.factor).unflatten(1, (self.shortcut, -1)).mean(dim=2)
        return made + F.pad(means, (0, 0, 0, 0, 0, 0, 0, made.shape[1] - self.shortcut))


class Decoder(Layers):
    """Latents to the image: [B, channels, D/f, H/f, W/f] to [B, 1, D, H, W]; see ``Encoder``.

    Its shortcut gives all voxels that a mean was taken over this mean (Chen et al., DC-AE, ICLR 2025).
    """

    def __init__(
        self,
        widths: Sequence[int],
        channels: int,
        blocks: int,
        middle: Middle,
        patch: int = 1,
        shortcut: int = 0,
        planar: bool = False,
    ) -> None:
        now = widths[-1]
        layers: list[nn.Module] = [Plain(nn.Conv3d(channels, channels, 1))]
        layers += [Plain(volume_conv(channels, now, planar)), *_middle(middle, now, planar)]
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(blocks):
                layers.append(VolumeBlock(now, width, planar))
                now = width
            if level:
                layers.append(Doubling(now))
        super().__init__([*layers, Last(now, patch**3, 0.1 if shortcut else 1.0, planar)])
        self.patch, self.shortcut, self.factor = patch, shortcut, patch * 2 ** (len(widths) - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Decode."""
        return self._shortened(unpatched(super().forward(x), self.patch), x)

    def stepwise(self, x: Tensor, tile: int = 0, precise: bool = False) -> Generator[None, None, Tensor]:
        """Decode, pausing after each layer."""
        return self._shortened(unpatched((yield from super().stepwise(x, tile, precise)), self.patch), x)

    def _shortened(self, made: Tensor, latents: Tensor) -> Tensor:
        if not self.shortcut:
            return made
        means = latents[:, : self.shortcut].repeat_interleave(self.factor**3 // self.shortcut, dim=1)
        return made + unpatched(means, self.factor)
