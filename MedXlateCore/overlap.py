"""How far one grid covers another in patient space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.transforms.foreground import Box
from MedXlateCore.volume import Geometry

__all__ = ["inside", "overlap"]

_POINTS = 64
_ROUNDING = 1e-6  # voxels


def overlap(reference: Geometry, other: Geometry, box: Box | None = None) -> float:
    """Return the fraction (0 to 1) of a grid's volume that lies inside another grid's outer surface.

    Args:
        reference: the grid whose volume is looked at, at evenly spread points (up to 64 along each axis).
        other: the grid they should lie in.
        box: first and one past the last index, to look at a part of the reference only.
    """
    start, stop = box if box is not None else ((0, 0, 0), reference.shape)
    axes = []
    for first, end in zip(start, stop, strict=True):
        count = min(_POINTS, 2 * (end - first))
        axes.append(first - 0.5 + (np.arange(count) + 0.5) * ((end - first) / count))
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return float(inside(points, reference, other).mean())


def inside(points: NDArray[np.float64], own: Geometry, other: Geometry) -> NDArray[np.bool_]:
    """Say which index points [N, 3] of one grid lie within another grid's voxels (half a voxel beyond its centres)."""
    to_other = np.linalg.inv(other.affine_ras) @ own.affine_ras
    index = points @ to_other[:3, :3].T + to_other[:3, 3]
    margin = 0.5 + _ROUNDING
    within: NDArray[np.bool_] = np.all((index >= -margin) & (index <= np.array(other.shape) - 1 + margin), axis=1)
    return within
