"""Which voxel axis runs along which patient direction, and grids reordered to a wanted orientation.

An orientation code names, per array axis, the side towards which the index grows: ``LPS`` means that i grows to the
Left, j to the Posterior and k to the Superior side. Oblique grids take the code of the closest patient axes; nothing
here ever changes where a voxel lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.errors import UsageError
from MedXlateCore.volume import Geometry

__all__ = ["AxisOrder", "axis_codes", "axis_directions", "match_axes", "parse_orientation", "reorient", "tilt_degrees"]

_DIRECTIONS: dict[str, tuple[int, int]] = {
    "R": (0, 1),
    "L": (0, -1),
    "A": (1, 1),
    "P": (1, -1),
    "S": (2, 1),
    "I": (2, -1),
}


@dataclass(frozen=True)
class AxisOrder:
    """A reordering of array axes: new axis ``b`` is old axis ``axes[b]``, reversed where ``flips[b]``."""

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply_to_array(self, array: NDArray) -> NDArray:
        """Return a reordered view of ``array`` [I, J, K]; no voxel is copied."""
        return array.transpose(self.axes)[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)]

    def apply_to_geometry(self, geometry: Geometry) -> Geometry:
        """Return the grid whose array is :meth:`apply_to_array` of an array on ``geometry``."""
        affine = geometry.affine_ras
        reordered = np.eye(4)
        origin = affine[:3, 3].copy()
        for new, (old, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            reordered[:3, new] = -affine[:3, old] if flip else affine[:3, old]
            if flip:
                origin += affine[:3, old] * (geometry.shape[old] - 1)
        reordered[:3, 3] = origin
        i, j, k = (geometry.shape[old] for old in self.axes)
        return Geometry((i, j, k), reordered)


def axis_directions(geometry: Geometry) -> NDArray[np.float64]:
    """Return the unit vectors of the voxel axes in RAS as the columns of a 3x3 matrix."""
    axes = geometry.affine_ras[:3, :3]
    return axes / np.linalg.norm(axes, axis=0)


def match_axes(own: NDArray[np.float64], wanted: NDArray[np.float64]) -> AxisOrder:
    """Assign own axes (unit columns, 3x3) to wanted axes (unit columns) so that the sum of absolute cosines is largest.

    The choice depends on the directions alone, not on the order or sign in which a grid lists its axes; an exact tie
    (45 degrees) is broken by the side to which the axis leans.
    """
    cosines = own.T @ wanted  # [own axis, wanted axis]

    def closeness(axes: tuple[int, ...]) -> tuple[float, float]:
        """Return the sum of absolute cosines of an assignment, and the lean that breaks a tie."""
        total = sum(abs(cosines[old, new]) for new, old in enumerate(axes))
        lean = sum(cosines[old, new] * cosines[old, (new + 1) % 3] for new, old in enumerate(axes))
        return round(float(total), 6), round(float(lean), 6)

    a, b, c = max(permutations(range(3)), key=closeness)
    return AxisOrder((a, b, c), (bool(cosines[a, 0] < 0), bool(cosines[b, 1] < 0), bool(cosines[c, 2] < 0)))


def parse_orientation(code: str) -> NDArray[np.float64]:
    """Return the patient directions (unit columns in RAS) that a code such as ``LPS`` asks for.

    Raises:
        UsageError: ``MX-USE-060``, not three letters with one of each pair R/L, A/P, S/I.
    """
    letters = code.upper() if isinstance(code, str) else ""
    known = [_DIRECTIONS[letter] for letter in letters if letter in _DIRECTIONS]
    if len(letters) != 3 or sorted(axis for axis, _ in known) != [0, 1, 2]:
        raise UsageError(
            "MX-USE-060",
            f"the orientation {code!r} is not a valid axis code",
            expected="three letters, one each of R/L, A/P and S/I, for example LPS or RAS",
            fix="correct 'orientation' in the grid's settings",
        )
    wanted = np.zeros((3, 3))
    for column, (axis, sign) in enumerate(known):
        wanted[axis, column] = sign
    return wanted


def axis_codes(geometry: Geometry) -> str:
    """Return the closest orientation code of a grid, for example ``LPS``."""
    order = match_axes(axis_directions(geometry), np.eye(3))
    letters = [""] * 3
    for world, (own, flip) in enumerate(zip(order.axes, order.flips, strict=True)):
        letters[own] = ("L", "P", "I")[world] if flip else ("R", "A", "S")[world]
    return "".join(letters)


def reorient(geometry: Geometry, orientation: str = "LPS") -> Geometry:
    """Return the same voxels' grid with axes in the order and sense of ``orientation``; no voxel centre moves.

    Raises:
        UsageError: ``MX-USE-060``, an invalid code.
    """
    return match_axes(axis_directions(geometry), parse_orientation(orientation)).apply_to_geometry(geometry)


def tilt_degrees(geometry: Geometry) -> float:
    """Return the largest angle between a voxel axis and the patient axis it stands for, in degrees."""
    directions = axis_directions(geometry)
    order = match_axes(directions, np.eye(3))
    cosines = [abs(directions[world, own]) for world, own in enumerate(order.axes)]
    return float(np.degrees(np.arccos(np.clip(min(cosines), 0.0, 1.0))))
