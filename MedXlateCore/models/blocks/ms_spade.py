"""MS-SPADE: latents of one modality made like another's by normalisations that are switched by the target.

Kim and Park, "Adaptive Latent Diffusion Model for 3D Medical Image to Image Translation", WACV 2024, section 3.2 and
table B. Each class has its own spatially adaptive normalisation (Park et al., CVPR 2019) whose gain and shift are made
from the features themselves, not from a segmentation. Maps are [B, C, D, H, W].
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.norms import InstanceNorm
from MedXlateCore.models.blocks.volume_conv import VolumeConv, volume_conv

__all__ = ["MsSpade", "Spade", "SpadeBlock", "SwitchedSpade"]


def _conv(channels: int, out: int, size: int = 3, bias: bool = True) -> nn.Conv3d:
    if size == 3 and bias:
        return VolumeConv(channels, out)
    return nn.Conv3d(channels, out, size, padding=size // 2, bias=bias)


class Spade(nn.Module):
    """Instance normalisation, times one plus a gain, plus a shift, both made from the features (equation 1).

    Args:
        channels: C.
        hidden: channels between the features and gain and shift.
        planar: convolve with ``PlanarConv``.
    """

    def __init__(self, channels: int, hidden: int, planar: bool = False) -> None:
        super().__init__()
        self.norm = InstanceNorm(channels, affine=False)
        pairs = ((channels, hidden), (hidden, channels), (hidden, channels))
        self.shared, self.gain, self.shift = (volume_conv(a, b, planar) for a, b in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        seen = F.relu(self.shared(x))
        return self.norm(x) * (1 + self.gain(seen)) + self.shift(seen)


class SwitchedSpade(nn.Module):
    """One ``Spade`` a class; only the chosen one is computed."""

    def __init__(self, classes: int, channels: int, hidden: int, planar: bool = False) -> None:
        super().__init__()
        self.classes = nn.ModuleList(Spade(channels, hidden, planar) for _ in range(classes))

    def forward(self, x: Tensor, target: int) -> Tensor:
        """Normalise as class ``target`` does."""
        return self.classes[target](x)


class SpadeBlock(nn.Module):
    """Residual block of two switched normalisations, each followed by LeakyReLU 0.2 and a 3x3x3 convolution."""

    def __init__(self, classes: int, channels: int, out: int, hidden: int) -> None:
        super().__init__()
        middle = min(channels, out)
        self.norms = nn.ModuleList(SwitchedSpade(classes, n, hidden) for n in (channels, middle))
        self.convs = nn.ModuleList((_conv(channels, middle), _conv(middle, out)))
        self.shortcut = _conv(channels, out, 1, bias=False) if channels != out else nn.Identity()

    def forward(self, x: Tensor, target: int) -> Tensor:
        """Add the convolutions' result."""
        h = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = conv(F.leaky_relu(norm(h, target), 0.2))
        return self.shortcut(x) + h


class InstanceBlock(nn.Module):
    """Residual block of convolution, ReLU, instance normalisation, twice (table B)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a in (channels, out):
            layers += [_conv(a, out), nn.ReLU(), InstanceNorm(out, affine=False)]
        self.layers = nn.Sequential(*layers)
        self.shortcut = _conv(channels, out, 1, bias=False) if channels != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Add the convolutions' result."""
        return self.shortcut(x) + self.layers(x)


class MsSpade(nn.Module):
    """Source latents to target-like latents, both [B, channels, D, H, W].

    Args:
        classes: number of targets.
        channels: of the latents.
        widths: channels after each switched block.
        hidden: see ``Spade``.
        stem: channels after the first convolution and instance normalisation; 0 for neither these nor the last
            convolution: the last width must then be that of the latents.
        residual: channels after each unswitched block behind the stem.
        size: side of the first and the last convolution.
    """

    def __init__(
        self,
        classes: int,
        channels: int,
        widths: Sequence[int],
        hidden: int = 64,
        stem: int = 0,
        residual: Sequence[int] = (),
        size: int = 7,
    ) -> None:
        super().__init__()
        before: list[nn.Module] = []
        if stem:
            before = [_conv(channels, stem, size), InstanceNorm(stem, affine=False), nn.ReLU()]
        plain = (stem or channels, *residual)
        before += [InstanceBlock(*pair) for pair in itertools.pairwise(plain)]
        self.before = nn.Sequential(*before)
        steps = itertools.pairwise((plain[-1], *widths))
        self.blocks = nn.ModuleList(SpadeBlock(classes, a, b, hidden) for a, b in steps)
        self.last = _conv(widths[-1], channels, size) if stem else nn.Identity()

    def forward(self, x: Tensor, target: int) -> Tensor:
        """Make latents like those of class ``target``."""
        x = self.before(x)
        for block in self.blocks:
            x = block(x, target)
        return self.last(x)
