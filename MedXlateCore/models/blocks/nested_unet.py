"""U-Nets for latents that learn in minutes: as MS-SPADE, and as what a diffusion predicts with (ours).

The published networks normalise before they convolve and end with 3x3x3 convolutions that nothing follows: what they
give is blurred until a long training has sharpened it. Here normalisation and activation follow the convolutions, every
second normalisation is told what is wanted, and a last 1x1x1 convolution of the target's own sees the finest maps and
the input. Maps are [B, C, D, H, W].
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.autoencoder import norm32
from MedXlateCore.models.blocks.diffusion import time_embedding
from MedXlateCore.models.blocks.ms_spade import SwitchedSpade
from MedXlateCore.models.blocks.norms import InstanceNorm
from MedXlateCore.models.blocks.volume_conv import volume_conv

__all__ = ["NestedUnet", "SpadeUnet", "TimedUnet"]

Layer = Callable[[int], nn.Module]


class Stage(nn.Module):
    """Convolution, normalisation, convolution, normalisation that is told something; LeakyReLU 0.2 after each."""

    def __init__(self, channels: int, out: int, norm: Layer, told: Layer, planar: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(volume_conv(n, out, planar) for n in (channels, out))
        self.norm, self.told = norm(out), told(out)

    def forward(self, x: Tensor, word: Any) -> Tensor:
        """Apply, with ``word`` for the second normalisation."""
        x = F.leaky_relu(self.norm(self.convs[0](x)), 0.2)
        return F.leaky_relu(self.told(self.convs[1](x), word), 0.2)


class NestedUnet(nn.Module):
    """Maps [B, channels, D, H, W] to [B, out, D, H, W]; sizes are multiples of 2^(len(widths) - 1).

    Args:
        channels: C.
        out: channels of the result.
        classes: number of targets; each has a last convolution of its own.
        widths: channels by resolution, finest first; one halving between each two.
        norm: makes the first normalisation of a stage, of so many channels.
        told: makes the second, which is called with what ``maps`` passes on.
        planar: convolve with ``PlanarConv``.
    """

    def __init__(
        self, channels: int, out: int, classes: int, widths: Sequence[int], norm: Layer, told: Layer, planar: bool
    ) -> None:
        super().__init__()
        finer, layers = list(itertools.pairwise(widths)), (norm, told, planar)
        self.downs = nn.ModuleList(Stage(a, b, *layers) for a, b in [(channels, widths[0]), *finer])
        self.lifts = nn.ModuleList(nn.Conv3d(b, a, 1) for a, b in finer)
        self.ups = nn.ModuleList(Stage(2 * a, a, *layers) for a, _ in finer)
        self.ends = nn.ModuleList(nn.Conv3d(widths[0] + channels, out, 1) for _ in range(classes))

    def maps(self, x: Tensor, word: Any) -> Tensor:
        """Return what the ends see: the finest maps and the input. ``word`` is for every stage."""
        seen, kept = x, []
        for level, down in enumerate(self.downs):
            if level:
                kept.append(x)
                x = F.avg_pool3d(x, 2)
            x = down(x, word)
        for lift, up in zip(reversed(self.lifts), reversed(self.ups), strict=True):
            raised = F.interpolate(lift(x), scale_factor=2, mode="nearest")
            x = up(torch.cat((kept.pop(), raised), dim=1), word)
        return torch.cat((x, seen), dim=1)


class SpadeUnet(NestedUnet):
    """MS-SPADE in this shape: source latents to target-like latents, both [B, channels, D, H, W].

    Args:
        classes: number of targets.
        channels: of the latents.
        widths: see ``NestedUnet``.
        hidden: see ``Spade``.
        planar: see ``NestedUnet``.
    """

    def __init__(self, classes: int, channels: int, widths: Sequence[int], hidden: int, planar: bool = False) -> None:
        def switched(n: int) -> nn.Module:
            """Return what is told the target."""
            return SwitchedSpade(classes, n, hidden, planar)

        super().__init__(channels, channels, classes, widths, InstanceNorm, switched, planar)

    def forward(self, x: Tensor, target: int) -> Tensor:
        """Make latents like those of class ``target``."""
        return self.ends[target](self.maps(x, target))


def _pointwise(sizes: Sequence[int]) -> nn.Sequential:
    """Return 1x1x1 convolutions from each size to the next, with LeakyReLU 0.2 between them."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Conv3d(a, b, 1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


class TimedNorm(nn.Module):
    """Group normalisation, times one plus a gain, plus a shift, both from an embedding [B, E]."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm, self.affine = norm32(channels), nn.Linear(embedding, 2 * channels)
        with torch.no_grad():
            self.affine.weight.mul_(0.1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Normalise."""
        gain, shift = self.affine(F.silu(embedding))[:, :, None, None, None].chunk(2, dim=1)
        return torch.addcmul(shift, self.norm(x), 1 + gain)


class TimedUnet(NestedUnet):
    """The diffusion's U-Net in this shape: noisy latents and conditions to a prediction; called as ``LatentUnet``.

    Its ends see its input at all levels alike: it wants noisy latents times alpha, or noise comes through.

    Args:
        channels: noisy latents and conditions.
        out: channels of the prediction.
        widths: see ``NestedUnet``.
        classes: number of targets.
        planar: see ``NestedUnet``.
        doubt: tell also the logarithm of what each value of the prediction may be wrong by, in ``out`` channels more.
            What an error depends on is not linear in the maps (an edge, of either sign), so layers lie between.
    """

    def __init__(
        self, channels: int, out: int, widths: Sequence[int], classes: int, planar: bool = False, doubt: bool = False
    ) -> None:
        embedding = 4 * widths[0]
        super().__init__(channels, out, classes, widths, norm32, lambda n: TimedNorm(n, embedding), planar)
        self.width = widths[0]
        self.time = nn.Sequential(nn.Linear(self.width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.kinds = nn.Embedding(classes, embedding)
        sizes = (widths[0] + channels, 2 * widths[0], 2 * widths[0], out)
        self.doubts = nn.ModuleList(_pointwise(sizes) for _ in range(classes if doubt else 0))

    def forward(self, x: Tensor, steps: Tensor, target: int) -> Tensor:
        """Predict; see ``LatentUnet.forward``."""
        embedding = self.time(time_embedding(steps, self.width)) + self.kinds.weight[target]
        maps = self.maps(x, embedding)
        made = self.ends[target](maps)
        return torch.cat((made, self.doubts[target](maps)), dim=1) if self.doubts else made
