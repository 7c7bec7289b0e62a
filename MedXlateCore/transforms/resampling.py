"""One resample from grid to grid: an exact copy where the grids share a lattice, one linear interpolation otherwise.

Conventions. A target voxel takes the value at its centre. The field of view of a source reaches half a voxel beyond its
outer voxel centres: inside it values beyond the outer centres are the edge values, outside it they are ``fill``. Linear
sampling alone would alias when the target is much coarser; ``antialias=True`` averages first (see :func:`resample`).
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.transforms.orientation import AxisOrder, axis_directions, match_axes
from MedXlateCore.volume import Geometry

__all__ = ["LATTICE_TOLERANCE_VOXELS", "is_lattice_map", "resample"]

LATTICE_TOLERANCE_VOXELS = 1e-3
"""Largest displacement, in source voxels, below which a map counts as a copy of voxels."""

_SEPARABLE_TOLERANCE_VOXELS = 1e-6
# Exact ties are decided here, not by the rounding of an affine: a centre just half a voxel outside belongs to the field
# of view, and of two equally near voxels the lower one (along the target's axis) is taken.
_EDGE_TOLERANCE_VOXELS = 1e-5
_TIE_SHIFT_VOXELS = 1e-6
_ANTIALIAS_RATIO = 1.5


def is_lattice_map(source: Geometry, target: Geometry) -> bool:
    """True if every voxel centre of ``target`` falls on the lattice of ``source`` to 1e-3 voxel, at the same spacing.

    Such maps (axis permutation, flips, whole-voxel shifts) are copied, never interpolated. The grids need not overlap.
    """
    aligned = _alignment(source, target).apply_to_geometry(source)
    return _lattice_offset(_index_map(aligned, target), target.shape) is not None


def resample(
    array: NDArray,
    source: Geometry,
    target: Geometry,
    order: int = 1,
    fill: float = 0.0,
    *,
    antialias: bool = False,
) -> NDArray:
    """Bring an array from one grid to another with one map, ``inv(A_source) @ A_target``.

    Args:
        array: voxels [I, J, K] on ``source``; any integer, boolean or floating type.
        source: grid of ``array``; may be oblique or sheared.
        target: grid of the result.
        order: 1 for linear interpolation, 0 for the nearest voxel (labels).
        fill: value outside the source's field of view.
        antialias: before a linear interpolation, average along every source axis that is sampled more coarsely than
            1.5 voxels, with a Gaussian of sigma (step - 1) / 2 source voxels. Off: plain linear sampling.

    Returns:
        A new array of ``target.shape``. Lattice maps and order 0 keep the type of ``array``; otherwise float32.

    Raises:
        InputError: ``MX-GEO-004`` (array and source differ in shape), ``MX-GEO-020`` (no usable map between the grids),
            ``MX-IMG-020`` (voxels are not real numbers).
        UsageError: ``MX-USE-061`` (order is not 0 or 1), ``MX-USE-062`` (the type cannot hold ``fill``).
    """
    _check_request(array, source, order)
    alignment = _alignment(source, target)
    array = alignment.apply_to_array(array)
    step = _index_map(alignment.apply_to_geometry(source), target)
    offset = _lattice_offset(step, target.shape)
    if offset is not None:
        return _shifted_copy(array, offset, target.shape, fill)
    if order == 1:
        array = np.ascontiguousarray(array, dtype=np.float32)
        array = _averaged(array, step) if antialias else array
    else:
        _check_fill(array.dtype, fill)
    if _is_separable(step, target.shape):
        return _resample_by_axis(array, step, target.shape, order, fill)
    return _resample_affine(array, step, target.shape, order, fill)


def _alignment(source: Geometry, target: Geometry) -> AxisOrder:
    """Return the reordering that gives a source's axes the order and sense of the target's.

    Everything after this step sees the same numbers however the source was stored, so results do not depend on it.
    """
    return match_axes(axis_directions(source), axis_directions(target))


def _index_map(source: Geometry, target: Geometry) -> NDArray[np.float64]:
    """Return the 4x4 matrix from target index to source index."""
    step = np.full((4, 4), np.nan)
    with np.errstate(all="ignore"), suppress(np.linalg.LinAlgError):
        step = np.linalg.solve(source.affine_ras, target.affine_ras).astype(np.float64)
    if not np.isfinite(step).all():
        raise InputError(
            "MX-GEO-020",
            f"the grids cannot be related: spacings {source.spacing_mm} mm and {target.spacing_mm} mm",
            expected="spacings and origins of a patient's size",
            fix="repair the headers (spacing, origin)",
        )
    return step


def _lattice_offset(step: NDArray[np.float64], shape: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """Return the whole-voxel shift that ``step`` is, or None where it is more than a shift."""
    offset = np.round(step[:3, 3])
    shift = np.eye(4)
    shift[:3, 3] = offset
    if _largest_displacement(step - shift, shape) > LATTICE_TOLERANCE_VOXELS:
        return None
    return int(offset[0]), int(offset[1]), int(offset[2])


def _largest_displacement(difference: NDArray[np.float64], shape: tuple[int, int, int]) -> float:
    """Return the largest absolute component of an affine difference over a grid; it is reached at a corner."""
    corners = Geometry(shape, np.eye(4)).corners_ras()
    return float(np.abs(corners @ difference[:3, :3].T + difference[:3, 3]).max())


def _is_separable(step: NDArray[np.float64], shape: tuple[int, int, int]) -> bool:
    """True if each target axis moves along one source axis only."""
    mixed = step - np.eye(4) * np.diag(step)
    mixed[:3, 3] = 0
    return _largest_displacement(mixed, shape) <= _SEPARABLE_TOLERANCE_VOXELS


def _shifted_copy(array: NDArray, offset: tuple[int, int, int], shape: tuple[int, int, int], fill: float) -> NDArray:
    """Copy ``array[index + offset]`` for every index of ``shape``; ``fill`` where there is no such voxel."""
    into, out_of = [], []
    for shift, length, available in zip(offset, shape, array.shape, strict=True):
        first, last = max(0, -shift), min(length, available - shift)
        last = max(first, last)
        into.append(slice(first, last))
        out_of.append(slice(first + shift, last + shift))
    if all((part.start, part.stop) == (0, length) for part, length in zip(into, shape, strict=True)):
        return np.array(array[tuple(out_of)], order="C")
    _check_fill(array.dtype, fill)
    result = np.full(shape, fill, dtype=array.dtype)
    if all(part.stop > part.start for part in into):
        result[tuple(into)] = array[tuple(out_of)]
    return result


def _resample_by_axis(
    array: NDArray, step: NDArray[np.float64], shape: tuple[int, int, int], order: int, fill: float
) -> NDArray:
    """Interpolate axis by axis, the most reducing axis first; equals the general path, several times faster."""
    coordinates = [step[axis, axis] * np.arange(shape[axis]) + step[axis, 3] for axis in range(3)]
    outside = [_beyond(c, n) for c, n in zip(coordinates, array.shape, strict=True)]
    for axis in sorted(range(3), key=lambda a: shape[a] / array.shape[a]):
        array = _sample_axis(array, axis, coordinates[axis], order)
    result = np.array(array, order="C")
    for axis in range(3):
        result[(slice(None),) * axis + (outside[axis],)] = fill
    return result


def _sample_axis(array: NDArray, axis: int, coordinate: NDArray[np.float64], order: int) -> NDArray:
    """Sample one axis at (clamped) coordinates; whole-number coordinates are taken as they are."""
    last = array.shape[axis] - 1
    nearest = np.clip(np.floor(coordinate + (0.5 - _TIE_SHIFT_VOXELS)), 0, last)
    clamped = np.clip(coordinate, 0, last)
    if order == 0 or np.abs(clamped - nearest).max() <= LATTICE_TOLERANCE_VOXELS:
        return array.take(nearest.astype(np.intp), axis=axis)
    lower = np.minimum(np.floor(clamped), max(last - 1, 0)).astype(np.intp)
    weight = (clamped - lower).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    below = array.take(lower, axis=axis)
    above = array.take(np.minimum(lower + 1, last), axis=axis)
    above -= below
    above *= weight
    above += below
    return above


def _resample_affine(
    array: NDArray, step: NDArray[np.float64], shape: tuple[int, int, int], order: int, fill: float
) -> NDArray:
    """Interpolate under any affine map, edges extended; then write ``fill`` outside the field of view."""
    kind = array.dtype
    shift = _TIE_SHIFT_VOXELS if order == 0 else 0.0
    result = ndimage.affine_transform(
        array.view(np.uint8) if kind == np.bool_ else array,
        step[:3, :3],
        offset=step[:3, 3] - shift,
        output_shape=shape,
        order=order,
        mode="nearest",
        prefilter=False,
    ).astype(kind, copy=False)
    _fill_outside(result, step, array.shape, fill)
    return result


def _fill_outside(result: NDArray, step: NDArray[np.float64], source_shape: tuple[int, ...], fill: float) -> None:
    """Write ``fill`` in place where a voxel's centre lies outside the source's field of view."""
    corners = Geometry(result.shape, np.eye(4)).corners_ras() @ step[:3, :3].T + step[:3, 3]
    if not any(_beyond(corners[:, axis], source_shape[axis]).any() for axis in range(3)):
        return  # the grid is convex: with all corners inside, so is every voxel
    j = np.arange(result.shape[1])[:, None]
    k = np.arange(result.shape[2])[None, :]
    planes = [row[1] * j + row[2] * k + row[3] for row in step[:3]]
    for i, slab in enumerate(result):
        outside = np.zeros(slab.shape, dtype=bool)
        for axis in range(3):
            outside |= _beyond(planes[axis] + step[axis, 0] * i, source_shape[axis])
        slab[outside] = fill


def _beyond(coordinate: NDArray[np.float64], length: int) -> NDArray[np.bool_]:
    """True where a source coordinate lies more than half a voxel beyond the outer voxel centres."""
    reach = 0.5 + _EDGE_TOLERANCE_VOXELS
    return (coordinate < -reach) | (coordinate > length - 1 + reach)


def _averaged(array: NDArray, step: NDArray[np.float64]) -> NDArray:
    """Blur along the axes that the target samples more coarsely than 1.5 source voxels."""
    ratio = np.linalg.norm(step[:3, :3], axis=1)
    sigma = [(r - 1) / 2 if r > _ANTIALIAS_RATIO else 0.0 for r in ratio]
    return ndimage.gaussian_filter(array, sigma, mode="nearest", truncate=3.0) if any(sigma) else array


def _check_request(array: NDArray, source: Geometry, order: int) -> None:
    """Refuse arrays and orders that cannot be resampled."""
    if tuple(array.shape) != source.shape:
        raise InputError(
            "MX-GEO-004",
            f"the array has shape {tuple(array.shape)}",
            expected=f"the geometry's shape {source.shape}",
            fix="pass the array together with its own geometry",
        )
    if array.dtype.kind not in "biuf":
        raise InputError(
            "MX-IMG-020",
            f"the voxels are of type {array.dtype}",
            expected="real numbers (integer, boolean or floating)",
            fix="take the magnitude of complex data, or one channel of colour data",
        )
    if order not in (0, 1):
        raise UsageError(
            "MX-USE-061",
            f"interpolation of order {order!r} was asked for",
            expected="1 (linear) or 0 (nearest voxel)",
            fix="use 1 for images and 0 for label maps",
        )


def _check_fill(kind: np.dtype, fill: float) -> None:
    """Refuse a fill value that the array's type cannot hold; it would wrap around silently."""
    if kind.kind == "f":
        return
    limits = (0, 1) if kind.kind == "b" else (np.iinfo(kind).min, np.iinfo(kind).max)
    if not (limits[0] <= fill <= limits[1] and float(fill).is_integer()):
        raise UsageError(
            "MX-USE-062",
            f"the fill value {fill} does not fit voxels of type {kind}",
            expected=f"a whole number from {limits[0]} to {limits[1]}",
            fix="convert the array to float32 first, or choose another fill value",
        )
