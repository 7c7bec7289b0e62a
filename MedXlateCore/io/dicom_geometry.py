"""Where the slices of a stack lie: order along the normal, gaps, tilt, and the affine in RAS mm.

Positions and direction cosines decide (DICOM PS3.3, C.7.6.2.1.1); SliceLocation and SpacingBetweenSlices, which many
writers get wrong, do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.errors import InputError, Warned
from MedXlateCore.io.dicom_files import Frame
from MedXlateCore.volume import Geometry

__all__ = ["SAME_PLACE_MM", "check_place", "continues", "projections", "same_plane", "stack_geometry"]

SAME_PLACE_MM = 0.01
"""Frames closer than this lie at one place."""

_SAME_DIRECTION = 1e-3
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_UNIT_TOLERANCE = 1e-2
_EVEN, _UNEVEN = 0.01, 0.1  # of a slice distance
_GAP = 1.5  # times the usual distance of slices
_TILT_DEG = 0.05
_CLAIM = 1.8  # slices this much further apart than the header claims


def check_place(frame: Frame, where: str) -> InputError | None:
    """Return what is wrong with a frame's position, directions or voxel size; None if nothing is.

    Returns:
        ``MX-DCM-010`` (one of them is missing) or ``MX-DCM-011`` (one of them cannot be).
    """
    given = {
        "ImagePositionPatient": frame.position,
        "ImageOrientationPatient": frame.orientation,
        "PixelSpacing": frame.spacing,
    }
    missing = [keyword for keyword, value in given.items() if value is None]
    name = frame.header.path.name
    if missing:
        return InputError(
            "MX-DCM-010",
            f"the image '{name}' has no usable {' and no '.join(missing)}",
            expected="a position, an orientation and a voxel size in every image",
            where=where,
            fix="export the series again from the PACS or scanner, with these attributes",
        )
    for keyword, value in given.items():
        if value is not None and not _possible(keyword, np.array(value)):
            return InputError(
                "MX-DCM-011",
                f"the image '{name}' has the {keyword} {_listed(value)}",
                expected=_EXPECTED[keyword],
                where=where,
                fix="export the series again from the PACS or scanner; do not use this image",
            )
    return None


_EXPECTED = {
    "ImagePositionPatient": "three finite numbers, in mm",
    "ImageOrientationPatient": "two directions of length 1 at right angles",
    "PixelSpacing": "two numbers above 0, in mm",
}


def _possible(keyword: str, value: NDArray[np.float64]) -> bool:
    if not np.isfinite(value).all() or np.abs(value).max() > 1e6:
        return False
    if keyword == "PixelSpacing":
        return bool(value.min() > 0)
    if keyword == "ImageOrientationPatient":
        row, column = value[:3], value[3:]
        axes = np.array([row, column])
        return bool(np.abs(axes @ axes.T - np.eye(2)).max() <= 2 * _UNIT_TOLERANCE)
    return True


def _listed(values: Sequence[float]) -> str:
    return "\\".join(f"{value:g}" for value in values)


def same_plane(first: Frame, second: Frame) -> bool:
    """Say whether two frames have one matrix, one voxel size and one orientation, so that they may form a stack."""
    if first.size != second.size or first.group != second.group:
        return False
    turned = np.abs(np.subtract(first.orientation, second.orientation)).max() > _SAME_DIRECTION  # type: ignore[arg-type]
    return not turned and bool(np.allclose(first.spacing, second.spacing, rtol=_SAME_DIRECTION, atol=0))  # type: ignore[arg-type]


def _directions(frame: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return unit vectors along a row, along a column, and their normal, in LPS."""
    cosines = np.array(frame.orientation, dtype=np.float64)
    row = cosines[:3] / np.linalg.norm(cosines[:3])
    column = cosines[3:] / np.linalg.norm(cosines[3:])
    normal = np.cross(row, column)
    return row, column, normal / np.linalg.norm(normal)


def projections(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Return each frame's place along the normal of the first one, in mm."""
    normal = _directions(frames[0])[2]
    return np.array([frame.position for frame in frames], dtype=np.float64) @ normal


def continues(frames: Sequence[Frame], single: Frame, where: str) -> bool:
    """Say whether a single image lies where the next slice before or after a stack would, in the same plane."""
    if single.size != frames[0].size or len(frames) < 2 or check_place(single, where) is not None:
        return False
    if np.abs(np.subtract(frames[0].orientation, single.orientation)).max() > _SAME_DIRECTION:  # type: ignore[arg-type]
        return False
    first, last = (np.array(frame.position, dtype=np.float64) for frame in (frames[0], frames[-1]))
    step = (last - first) / (len(frames) - 1)
    off_mm = min(np.linalg.norm(single.position - place) for place in (first - step, last + step))  # type: ignore[operator]
    return bool(off_mm < 0.5 * np.linalg.norm(step))


def stack_geometry(frames: Sequence[Frame], where: str) -> tuple[list[Frame], Geometry, list[Warned]]:
    """Order frames of one plane along their normal, and say on which grid they lie.

    Args:
        frames: of one plane (:func:`same_plane`), each at its own place.
        where: file or folder for messages.

    Returns:
        The frames in order of slices (index k; the normal is row times column, so that voxel axes are right-handed);
        the grid ``[I, J, K]`` with i along a row and j along a column; recorded warnings ``MX-DCM-104`` (tilted),
        ``MX-DCM-105`` (slices a little uneven), ``MX-DCM-106`` (slices further apart than claimed), ``MX-GEO-015``.

    Raises:
        InputError: ``MX-DCM-012`` (slices are missing), ``MX-DCM-013`` (slices uneven), ``MX-DCM-020`` (no matrix).
    """
    _check_matrix(frames[0], where)
    order = np.argsort(projections(frames), kind="stable")
    ordered = [frames[k] for k in order]
    row, column, normal = _directions(ordered[0])
    positions = np.array([frame.position for frame in ordered], dtype=np.float64)
    notes: list[Warned] = []
    if len(ordered) == 1:
        thickness = ordered[0].slice_distance or ordered[0].thickness or 0.0
        if not thickness > 0:
            notes.append(Warned("MX-GEO-015", "a single slice without thickness: 1 mm was assumed", where))
            thickness = 1.0
        step = normal * thickness
    else:
        step = (positions[-1] - positions[0]) / (len(ordered) - 1)
        _check_gaps(ordered, positions @ normal, where)
        notes += _evenness(positions, step, where) + _tilt(step, normal, where) + _claim(ordered[0], step, where)
    between_rows, between_columns = ordered[0].spacing or (1.0, 1.0)
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([row * between_columns, column * between_rows, step])
    affine[:3, 3] = positions[0]
    rows, columns = ordered[0].size
    return ordered, Geometry((columns, rows, len(ordered)), _LPS_TO_RAS @ affine), notes


def _check_matrix(frame: Frame, where: str) -> None:
    if min(frame.size) < 1 or max(frame.size) > 65535:
        raise InputError(
            "MX-DCM-020",
            f"the image '{frame.header.path.name}' has {frame.size[0]} rows and {frame.size[1]} columns",
            expected="1 to 65535 rows and columns",
            where=where,
            fix="export the series again; the header is damaged",
        )


def _check_gaps(frames: Sequence[Frame], along: NDArray[np.float64], where: str) -> None:
    distances = np.diff(along)
    usual = float(np.median(distances))
    if len(distances) == 2:  # no majority: the smaller one is the step, the larger one a multiple
        usual = float(distances.min())
    gaps = np.flatnonzero(distances > _GAP * usual)
    if not gaps.size:
        return
    k = int(gaps[0])
    whole = distances[gaps] / usual
    if np.abs(whole - np.rint(whole)).max() > 0.1 + _EVEN:
        raise _uneven(float(distances.min()), float(distances.max()), where)
    lost = int((np.rint(whole) - 1).sum())
    raise InputError(
        "MX-DCM-012",
        f"{lost} of {len(frames) + lost} slices are missing: after '{frames[k].header.path.name}' comes nothing for "
        f"{distances[k]:.4g} mm",
        expected=f"a slice every {usual:.4g} mm",
        where=where,
        fix="copy or export the whole series again; voxels between slices are not invented",
    )


def _evenness(positions: NDArray[np.float64], step: NDArray[np.float64], where: str) -> list[Warned]:
    even = positions[0] + np.arange(len(positions))[:, None] * step
    off_mm = float(np.linalg.norm(positions - even, axis=1).max())
    distance = float(np.linalg.norm(step))
    if off_mm <= max(_EVEN * distance, SAME_PLACE_MM):
        return []
    if off_mm > _UNEVEN * distance:
        between = np.linalg.norm(np.diff(positions, axis=0), axis=1)
        raise _uneven(float(between.min()), float(between.max()), where)
    text = f"slices lie up to {off_mm:.3g} mm beside an even grid of {distance:.4g} mm, which was assumed"
    return [Warned("MX-DCM-105", text, where)]


def _uneven(low: float, high: float, where: str) -> InputError:
    return InputError(
        "MX-DCM-013",
        f"the distance of slices changes from {low:.4g} to {high:.4g} mm, or they do not lie on one line",
        expected="evenly spaced slices on one line",
        where=where,
        fix="resample the series to even slices first (in 3D Slicer: acquisition geometry regularization)",
    )


def _tilt(step: NDArray[np.float64], normal: NDArray[np.float64], where: str) -> list[Warned]:
    cosine = float(abs(step @ normal) / np.linalg.norm(step))
    degrees = math.degrees(math.acos(min(1.0, cosine)))
    if degrees <= _TILT_DEG:
        return []
    text = f"the slices are shifted against each other: the stack is tilted by {degrees:.2f} degrees (gantry tilt)"
    return [Warned("MX-DCM-104", text, where, "the grid is sheared accordingly")]


def _claim(frame: Frame, step: NDArray[np.float64], where: str) -> list[Warned]:
    claimed, found = abs(frame.slice_distance or 0.0), float(np.linalg.norm(step))
    if not 0 < claimed < found / _CLAIM:
        return []
    text = f"slices lie {found:.4g} mm apart, but the header says {claimed:.4g} mm: slices may be missing"
    return [Warned("MX-DCM-106", text, where, "compare the number of images with the PACS or scanner")]
