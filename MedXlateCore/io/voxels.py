"""Stored numbers made voxels: scaling, float32 for images, integers for label maps, one frame of a series."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.errors import InputError, Warned
from MedXlateCore.volume import Geometry, Modality

__all__ = ["FLOAT32_INTEGERS", "frame_index", "make_geometry", "no_whole_numbers", "voxels"]

FLOAT32_INTEGERS = 2**24
"""Integers up to this size are exact in float32."""

_CHUNK = 2**22


def voxels(
    stored: NDArray, modality: Modality, slope: float, intercept: float, where: str
) -> tuple[NDArray, list[Warned]]:
    """Turn stored numbers into voxels in native byte order and file index order.

    Images become float32; label maps stay integers of their own width (scaled or floating-point ones become the
    smallest of uint8, int16, int32 that holds them).

    Args:
        stored: the numbers as stored, Fortran order (first index fastest).
        modality: ``Modality.LABEL`` asks for integers.
        slope: scale, 1 for none.
        intercept: offset, 0 for none.
        where: file name for messages.

    Raises:
        InputError: ``MX-IMG-015`` (beyond the range of float32), ``MX-ROI-001`` (a label that is no integer),
            ``MX-ROI-002`` (a label beyond the range of int32).
    """
    if modality is Modality.LABEL:
        return _labels(stored, slope, intercept, where), []
    return _image(stored, slope, intercept, where)


def _native(stored: NDArray) -> NDArray:
    """Return the numbers in native byte order and aligned, copied only where needed."""
    native = stored.astype(stored.dtype.newbyteorder("="), order="F", copy=False)
    return native if native.flags.aligned else native.copy(order="F")


def _image(stored: NDArray, slope: float, intercept: float, where: str) -> tuple[NDArray, list[Warned]]:
    if stored.dtype.kind == "f" and stored.dtype.itemsize == 4 and (slope, intercept) == (1.0, 0.0):
        return _native(stored), []
    flat = stored.ravel(order="F")
    out = np.empty(flat.shape, np.float32)
    largest = 0.0
    for start in range(0, flat.size, _CHUNK):  # piece by piece: float64 copies of whole volumes cost memory
        piece = flat[start : start + _CHUNK].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            if (slope, intercept) != (1.0, 0.0):
                piece = piece * slope + intercept
            out[start : start + _CHUNK] = piece
        if not np.array_equal(np.isfinite(piece), np.isfinite(out[start : start + _CHUNK])):
            raise InputError(
                "MX-IMG-015",
                f"a voxel has the value {np.abs(piece[np.isfinite(piece)]).max():.6g}",
                expected="values within the range of 32-bit floating point (3.4e38)",
                where=where,
                fix="rescale the image, or repair its scale factors",
            )
        largest = max(largest, float(np.abs(piece).max(initial=0.0)))
    notes = []
    if stored.dtype.kind in "iu" and (slope, intercept) == (1.0, 0.0) and largest > FLOAT32_INTEGERS:
        notes.append(Warned("MX-IMG-016", f"integers up to {largest:.0f} were rounded to 24 significant bits", where))
    return out.reshape(stored.shape, order="F"), notes


def no_whole_numbers(values: NDArray, where: str) -> InputError:
    """Return the error (``MX-ROI-001``) for the values of a label map that are no whole numbers, at least one."""
    return InputError(
        "MX-ROI-001",
        f"a label map has the value {values[0]:g} ({len(values)} voxels are no whole numbers)",
        expected="whole numbers",
        where=where,
        fix="give the label map, not a probability map or an interpolated mask",
    )


def _labels(stored: NDArray, slope: float, intercept: float, where: str) -> NDArray:
    if stored.dtype.kind in "iu" and (slope, intercept) == (1.0, 0.0):
        return _native(stored)
    with np.errstate(over="ignore", invalid="ignore"):
        values = stored.astype(np.float64, order="F") * slope + intercept
        # scale factors are stored as float32: a label counts as integer within its rounding
        rounded = np.rint(values)
        wrong = ~(np.abs(values - rounded) <= 1e-4)
    if wrong.any():
        raise no_whole_numbers(values[wrong], where)
    low, high = float(rounded.min()), float(rounded.max())
    for dtype in (np.uint8, np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return rounded.astype(dtype, order="F")
    raise InputError(
        "MX-ROI-002",
        f"a label map has values from {low:g} to {high:g}",
        expected="labels within the range of 32-bit integers",
        where=where,
        fix="give the label map, not an image",
    )


def frame_index(shape: tuple[int, ...], frame: int | None, where: str) -> int:
    """Return which frame to take from an array of ``shape``; axes of length 1 behind the third do not count.

    Raises:
        InputError: ``MX-FIL-038`` (several frames and none chosen), ``MX-FIL-039`` (no such frame), ``MX-FIL-046``
            (channels or tensors beside the three dimensions and time).
    """
    frames = math.prod(shape[3:])
    if math.prod(shape[4:]) > 1:
        raise several_channels(f"an array of shape {shape}", where)
    if frame is None and frames > 1:
        raise InputError(
            "MX-FIL-038",
            f"the file holds {frames} frames (shape {shape})",
            expected="one 3D volume",
            where=where,
            fix=f"choose a frame from 0 to {frames - 1}, or split the file",
        )
    if frame is not None and not 0 <= frame < frames:
        raise InputError(
            "MX-FIL-039",
            f"frame {frame} was asked for",
            expected=f"a frame from 0 to {frames - 1}",
            where=where,
            fix="choose another frame",
        )
    return frame or 0


def several_channels(found: str, where: str) -> InputError:
    """Return the error for colour, vector and tensor images (``MX-FIL-046``)."""
    return InputError(
        "MX-FIL-046",
        f"the file holds {found}",
        expected="one number per voxel",
        where=where,
        fix="extract one channel and give that",
    )


def make_geometry(shape: tuple[int, int, int], affine_ras: NDArray, where: str) -> Geometry:
    """Build a geometry whose errors name the file. Raises as :class:`MedXlateCore.volume.Geometry`."""
    try:
        return Geometry(shape, affine_ras)
    except InputError as error:
        raise InputError(error.code, error.found, expected=error.expected, where=where, fix=error.fix) from error
