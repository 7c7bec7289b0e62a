"""Row bands: a map is worked through a few rows at a time, so that wide intermediate maps stay small.

Most memory and, on a CPU, much of the time of a Restormer block goes into maps of two to three times its width. In
bands these are never whole: they stay in the processor's cache, and the peak of memory falls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["BAND_BYTES", "bands_also_on", "map_bands", "row_bands", "with_halo"]

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


def row_bands(x: Tensor, widest: int) -> list[tuple[int, int]]:
    """Return the bands (first row, row after the last) to work a map [B, C, H, W] through.

    The whole map is one band while gradients are recorded (all of it is kept then anyway) and on devices other than
    the CPU, where large calls pay.

    Args:
        x: the map.
        widest: channels of the widest intermediate map.
    """
    batch, _, height, width = x.shape
    if torch.is_grad_enabled() or x.device.type not in _banded_devices:
        return [(0, height)]
    rows = max(8, BAND_BYTES // (4 * batch * widest * width))
    rows = -(-height // -(-height // rows))  # bands of like size: a thin last one is slow
    return [(start, min(start + rows, height)) for start in range(0, height, rows)]


def with_halo(x: Tensor, bands: list[tuple[int, int]]) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield, for each band: its rows, where they lie in the piece, and the piece with a row more on either side.

    A 3x3 convolution of a piece with zero padding is right in the band's own rows: where the map ends the zeros are the
    map's own padding, elsewhere they only meet the row that is dropped.
    """
    height = x.shape[2]
    for start, stop in bands:
        first, last = max(start - 1, 0), min(stop + 1, height)
        yield slice(start, stop), slice(start - first, stop - first), x[:, :, first:last]


def map_bands(function: Callable[[Tensor], Tensor], x: Tensor, widest: int) -> Tensor:
    """Return ``x + function(x)``, band by band; the function keeps the shape and sees one row beyond each pixel."""
    bands = row_bands(x, widest)
    if len(bands) == 1:
        return x + function(x)
    result = torch.empty_like(x)
    for rows, inner, piece in with_halo(x, bands):
        torch.add(x[:, :, rows], function(piece)[:, :, inner], out=result[:, :, rows])
    return result
