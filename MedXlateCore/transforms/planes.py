"""Slices of a stack [K, H, W] (K to the head, H to the back, W to the left) in the three viewing planes.

Axial slices are [H, W]; coronal ones [K, W] and sagittal ones [K, H] have the head at the top.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.acquisition import Plane

__all__ = ["PLANES", "centred", "middle_part", "plane_sizes", "plane_slice"]

PLANES: tuple[Plane, ...] = get_args(Plane)
_AXES = {"axial": 0, "coronal": 1, "sagittal": 2}


def plane_slice(stack: NDArray, plane: Plane, index: int) -> NDArray:
    """Return one slice of a stack [K, H, W]; a view."""
    axis = _AXES[plane]
    taken = stack[(slice(None),) * axis + (index,)]
    return taken if plane == "axial" else taken[::-1]


def plane_sizes(shape: tuple[int, int, int]) -> dict[Plane, tuple[int, int]]:
    """Return height and width of the slices in each plane, for stacks [K, H, W]."""
    depth, height, width = shape
    return {"axial": (height, width), "coronal": (depth, width), "sagittal": (depth, height)}


def middle_part(foreground: NDArray[np.bool_], plane: Plane, low: float = 0.2, high: float = 0.8) -> range:
    """Return the slices of a plane between two parts of the foreground's extent; empty without foreground.

    Args:
        foreground: [K, H, W].
        plane: whose slices.
        low, high: parts of the extent, from 0 to 1.
    """
    axis = _AXES[plane]
    occupied = np.flatnonzero(foreground.any(axis=tuple(n for n in range(3) if n != axis)))
    if not occupied.size:
        return range(0)
    first, last = int(occupied[0]), int(occupied[-1])
    return range(first + round(low * (last - first)), first + round(high * (last - first)) + 1)


def centred(size: Sequence[int], within: Sequence[int]) -> tuple[slice, ...]:
    """Return where an image or volume of ``size`` lies in the middle of a larger one."""
    starts = [(outer - inner) // 2 for inner, outer in zip(size, within, strict=True)]
    return tuple(slice(start, start + inner) for start, inner in zip(starts, size, strict=True))
