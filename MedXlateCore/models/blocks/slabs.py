"""Slabs: a volume is worked through a few planes at a time, with the same result as whole.

Most memory of a volumetric autoencoder goes into copies of its finest maps: normalised, activated, convolved. Worked
through in slabs along the longest axis, each with the planes beside it that the convolution looks at, these are never
whole. The statistics of group normalisation are taken over the whole map all the same, so that there are no seams; what
differs is the rounding of sums. Maps are [B, C, D, H, W].
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["by_slabs", "group_affine", "longest_axis", "normed_convolution", "slabs_of"]


def longest_axis(x: Tensor) -> int:
    """Return the dimension (2, 3 or 4) along which a map is longest."""
    return max((2, 3, 4), key=lambda axis: x.shape[axis])


def slabs_of(length: int, planes: int) -> Iterator[tuple[int, int]]:
    """Return starts and ends of slabs of like size with at most ``planes`` planes that cover ``length``."""
    count = max(1, -(-length // max(1, planes)))
    edges = [round(n * length / count) for n in range(count + 1)]
    return itertools.pairwise(edges)


def group_affine(x: Tensor, norm: nn.GroupNorm, planes: int) -> tuple[Tensor, Tensor]:
    """Return gain and shift [B, C, 1, 1, 1] that normalise a whole map as ``norm`` would, without a copy of the map."""
    batch, channels = x.shape[:2]
    axis = longest_axis(x)
    sums = torch.zeros(2, batch, norm.num_groups, dtype=torch.float64, device=x.device)
    for start, stop in slabs_of(x.shape[axis], planes):
        piece = x.narrow(axis, start, stop - start).reshape(batch, norm.num_groups, -1).double()
        sums += torch.stack((piece.sum(dim=2), piece.square().sum(dim=2)))
    mean, square = sums / (x[0].numel() // norm.num_groups)
    rate = (square - mean.square()).clamp(min=0).add(norm.eps).rsqrt()
    each = channels // norm.num_groups
    gain = rate.repeat_interleave(each, dim=1).float() * norm.weight.float()
    shift = norm.bias.float() - mean.repeat_interleave(each, dim=1).float() * gain
    return gain[..., None, None, None], shift[..., None, None, None]


def by_slabs(
    function: Callable[[Tensor], Tensor], x: Tensor, planes: int, add_to: Tensor | None = None, scale: int = 1
) -> Tensor:
    """Return ``function(x)`` for a function that looks one plane to either side and pads with zeros.

    Args:
        function: from a slab to a map of the same shape but for its channels, or ``scale`` times as large.
        x: the map.
        planes: at most so many of x's planes in a slab.
        add_to: a map to which the result is added, in place.
        scale: what the function multiplies sizes by.
    """
    axis = longest_axis(x)
    length, result = x.shape[axis], add_to
    for start, stop in slabs_of(length, planes):
        low, high = max(0, start - 1), min(length, stop + 1)
        made = function(x.narrow(axis, low, high - low))
        made = made.narrow(axis, (start - low) * scale, (stop - start) * scale)
        if result is None:
            shape = list(made.shape)
            shape[axis] = length * scale
            result = made.new_empty(shape)
        own = result.narrow(axis, start * scale, (stop - start) * scale)
        if add_to is None:
            own.copy_(made)
        else:
            own.add_(made)
    return x if result is None else result


def normed_convolution(
    x: Tensor, norm: nn.GroupNorm, conv: nn.Module, planes: int, add_to: Tensor | None = None
) -> Tensor:
    """Return ``conv(silu(norm(x)))``, added to a map if one is given (which is changed in place).

    Args:
        x: the map.
        norm: its normalisation.
        conv: a 3x3x3 convolution, zeros beyond the border.
        planes: planes in a slab.
        add_to: [B, C', D, H, W] or None.
    """
    gain, shift = group_affine(x, norm, planes)

    def convolved(piece: Tensor) -> Tensor:
        """Normalise, activate, convolve."""
        return conv(F.silu(torch.addcmul(shift, piece.float(), gain).to(piece.dtype)))

    return by_slabs(convolved, x, planes, add_to)
