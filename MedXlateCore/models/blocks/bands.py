"""Row bands: a map is worked through a few rows at a time, so that wide intermediate maps stay small.

Most memory and, on a CPU, much of the time of a Restormer block goes into maps of two to three times its width. In
bands these are never whole: they stay in the processor's cache, and the peak of memory falls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["BAND_BYTES", "Band", "bands_also_on", "map_bands", "pointwise", "row_bands"]

BAND_BYTES = 4 * 2**20  # of the widest map in a band; measured, see Docs/results/speed
_banded_devices = {"cpu"}  # on others large calls pay


@contextmanager
def bands_also_on(device_type: str) -> Iterator[None]:
    """Work in bands on another kind of device for a while: the memory estimate follows a CPU's pass on ``meta``."""
    added = {device_type} - _banded_devices
    _banded_devices.update(added)
    try:
        yield
    finally:
        _banded_devices.difference_update(added)


@dataclass(frozen=True)
class Band:
    """Rows ``start`` to ``stop`` of a map of ``height`` rows, worked on with one row more on either side."""

    start: int
    stop: int
    height: int

    @property
    def rows(self) -> slice:
        """The band's own rows."""
        return slice(self.start, self.stop)

    def piece(self, x: Tensor) -> Tensor:
        """Return the band's rows of a map [B, C, H, W] with those beside them, where the map has them; a view."""
        return x[:, :, max(self.start - 1, 0) : min(self.stop + 1, self.height)]

    def conv3x3(self, x: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1) -> Tensor:
        """Convolve what was made of a piece; the result has the band's own rows only.

        Zeros are put where the map ends, as a convolution of the whole map does.
        """
        top, bottom = self.start == 0, self.stop == self.height
        if not (top or bottom):
            return F.conv2d(x, weight, bias, padding=(0, 1), groups=groups)
        # padding on both sides, and a row too many where the map goes on, is cheaper than a padded copy
        convolved = F.conv2d(x, weight, bias, padding=1, groups=groups)
        return convolved[:, :, 0 if top else 1 : None if bottom else -1]


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve [B, C, H, W] with a 1x1 kernel [C', C, 1, 1], as one matrix product over the pixels.

    With channels last in memory that needs no copies; PyTorch's own 1x1 convolution is slow with few channels, or with
    one thread.
    """
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


def row_bands(x: Tensor, widest: int) -> list[Band]:
    """Return the bands to work a map [B, C, H, W] through.

    The whole map is one band while gradients are recorded (all of it is kept then anyway) and on devices other than
    the CPU, where large calls pay.

    Args:
        x: the map.
        widest: channels of the widest intermediate map.
    """
    batch, _, height, width = x.shape
    if torch.is_grad_enabled() or x.device.type not in _banded_devices:
        return [Band(0, height, height)]
    rows = max(8, BAND_BYTES // (4 * batch * widest * width))
    rows = -(-height // -(-height // rows))  # bands of like size: a thin last one is slow
    return [Band(start, min(start + rows, height), height) for start in range(0, height, rows)]


def map_bands(function: Callable[[Tensor, Band], Tensor], x: Tensor, widest: int, *, add: bool) -> Tensor:
    """Return ``function(x)``, or ``x + function(x)``, band by band.

    Args:
        function: from a piece of x and its band to the band's own rows, with as many channels.
        x: the map [B, C, H, W].
        widest: channels of the widest map inside the function.
        add: add x.
    """
    bands = row_bands(x, widest)
    if len(bands) == 1:
        result = function(x, bands[0])
        return x + result if add else result
    result = torch.empty_like(x)
    for band in bands:
        made, rows = function(band.piece(x), band), result[:, :, band.rows]
        if add:
            torch.add(x[:, :, band.rows], made, out=rows)
        else:
            rows.copy_(made)
    return result
