"""The voxel grid in millimetres and smooth random fields on it: the dice of the phantom.

Random fields are drawn on a lattice fixed in space: one seed gives one head at any resolution.
No BLAS is used; the bytes do not depend on the number of threads.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["Array", "BandNoise", "Box", "Grid", "Points", "generator", "gradient", "smooth_noise"]

Array = NDArray[np.floating[Any]]  # float32 throughout; mypy sees numpy promote to float64
Points = tuple[Array, Array, Array]
Box = tuple[slice, slice, slice]

_REGION_MM = np.array([[-150.0, -170.0, -150.0], [150.0, 150.0, 150.0]])
# A cubic B-spline of unit white noise has this standard deviation per axis, averaged over positions.
_SPLINE_DEVIATION = 0.6924


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return the random generator of one named part of one subject; parts never share random numbers."""
    return np.random.default_rng([seed, *(zlib.crc32(str(name).encode()) for name in names)])


@dataclass(frozen=True)
class Grid:
    """A right-angled voxel grid: the coordinates of its voxel centres along each axis, in RAS mm.

    Attributes:
        axes: three 1D arrays, x of index I, y of index J, z of index K, in mm.
    """

    axes: tuple[Array, Array, Array]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along I, J, K."""
        return len(self.axes[0]), len(self.axes[1]), len(self.axes[2])

    @property
    def steps_mm(self) -> tuple[float, float, float]:
        """Signed distance between neighbouring voxels along I, J, K (1 for an axis of one voxel)."""
        i, j, k = (float(a[1] - a[0]) if len(a) > 1 else 1.0 for a in self.axes)
        return i, j, k

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along I, J, K in mm (1 for an axis of one voxel)."""
        i, j, k = self.steps_mm
        return abs(i), abs(j), abs(k)

    @property
    def edge_mm(self) -> float:
        """Width of a soft edge: the mean voxel size."""
        return sum(self.spacing_mm) / 3.0

    def part(self, box: Box) -> Grid:
        """Return the grid of a box of indices."""
        i, j, k = (axis[s] for axis, s in zip(self.axes, box, strict=True))
        return Grid((i, j, k))


def gradient(values: Array, grid: Grid) -> Points:
    """Return the derivatives of a field along x, y and z, per mm."""
    i, j, k = (
        np.gradient(values, step_mm, axis=axis) if values.shape[axis] > 1 else np.zeros_like(values)
        for axis, step_mm in enumerate(grid.steps_mm)
    )
    return i, j, k


def smooth_noise(rng: np.random.Generator, grid: Grid, scale_mm: float) -> Array:
    """Return a smooth random field of about unit variance on ``grid``.

    Args:
        rng: generator; the lattice it fills covers a fixed region, so the field does not depend on the grid.
        grid: where to evaluate.
        scale_mm: spacing of the control points, about half the typical size of a blob.
    """
    counts = np.ceil((_REGION_MM[1] - _REGION_MM[0]) / scale_mm).astype(int) + 4
    lattice = rng.standard_normal(tuple(counts), dtype=np.float32)
    lattice /= np.float32(_SPLINE_DEVIATION**3)
    for dimension in (2, 1, 0):
        lattice = _spline_along(lattice, grid.axes[dimension], dimension, scale_mm)
    return lattice


def _spline_along(lattice: Array, axis: Array, dimension: int, scale_mm: float) -> Array:
    """Evaluate a cubic B-spline along one dimension at the positions ``axis`` (mm): four taps, no matrix."""
    last = lattice.shape[dimension] - 4
    position = np.clip((axis - _REGION_MM[0, dimension]) / scale_mm, 0.0, last + 0.999)
    base = np.floor(position).astype(int)
    t = (position - base).astype(np.float32)
    u = 1.0 - t
    weights = (u**3, 3 * t**3 - 6 * t**2 + 4, 3 * u**3 - 6 * u**2 + 4, t**3)
    form = [1, 1, 1]
    form[dimension] = -1
    taps = (
        np.take(lattice, base + tap, axis=dimension) * (w / np.float32(6)).reshape(form)
        for tap, w in enumerate(weights)
    )
    total = next(taps)
    for tap_values in taps:
        total += tap_values
    return total


class BandNoise:
    """A random field with one dominant wavelength, to be read at any points: its zero set folds like a cortex.

    Args:
        rng: generator.
        wavelength_mm: dominant wavelength; along a line, zero crossings lie sqrt(3)/2 of it apart.
        step_mm: spacing of the table, read with linear interpolation.
    """

    def __init__(self, rng: np.random.Generator, wavelength_mm: float, step_mm: float = 3.0) -> None:
        self._step = step_mm
        counts = np.ceil((_REGION_MM[1] - _REGION_MM[0]) * 0.75 / step_mm).astype(int)
        white = rng.standard_normal(tuple(counts), dtype=np.float32)
        # A difference of Gaussians of nearly equal width passes one band; 1.35 sets its zero crossings (measured).
        sigma = 1.35 * wavelength_mm / (2.0 * np.pi) / step_mm
        table = ndimage.gaussian_filter(white, sigma * 1.33, mode="wrap")
        table -= ndimage.gaussian_filter(white, sigma * 1.6, mode="wrap")
        self._table = (table / table.std()).astype(np.float32)
        self._origin = _REGION_MM[0] * 0.75

    def at(self, points: Points) -> Array:
        """Return the field at ``points`` (canonical mm), wrapping around far outside the head."""
        index = np.stack(
            [(p - np.float32(o)) / np.float32(self._step) for p, o in zip(points, self._origin, strict=True)]
        )
        return ndimage.map_coordinates(self._table, index, order=1, mode="grid-wrap", output=np.float32)
