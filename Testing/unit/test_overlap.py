"""How much of one grid lies in another, by volume."""

from __future__ import annotations

import numpy as np
import pytest

from MedXlateCore.overlap import inside, overlap
from MedXlateCore.volume import Geometry


def grid(shape: tuple[int, int, int], shift: tuple[float, float, float] = (0, 0, 0), size: float = 1.0) -> Geometry:
    affine = np.diag([size, size, size, 1.0])
    affine[:3, 3] = shift
    return Geometry(shape, affine)


def test_a_grid_lies_wholly_in_itself_and_not_at_all_far_away() -> None:
    assert overlap(grid((5, 6, 7)), grid((5, 6, 7))) == 1.0
    assert overlap(grid((5, 6, 7)), grid((5, 6, 7), (100, 0, 0))) == 0.0


@pytest.mark.parametrize("shift", [-15.0, -2.5, 0.0, 3.0, 10.0, 19.0])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_shift_costs_its_share_of_the_length(shift: float, axis: int) -> None:
    moved = [0.0, 0.0, 0.0]
    moved[axis] = shift
    found = overlap(grid((20, 20, 20)), grid((20, 20, 20), (moved[0], moved[1], moved[2])))
    assert found == pytest.approx(1 - abs(shift) / 20, abs=0.0126)


def test_the_outer_half_voxels_count() -> None:
    fine = grid((20, 20, 20), size=0.5)
    coarse = Geometry((10, 10, 10), np.diag([1.0, 1, 1, 1]) + np.array([[0, 0, 0, 0.25]] * 3 + [[0] * 4]))
    assert overlap(fine, coarse) == overlap(coarse, fine) == 1.0


def test_a_box_limits_the_question() -> None:
    small = grid((10, 10, 10), (5, 5, 5))
    assert overlap(grid((20, 20, 20)), small) == pytest.approx(1 / 8, abs=0.02)
    assert overlap(grid((20, 20, 20)), small, ((5, 5, 5), (15, 15, 15))) == 1.0
    assert overlap(grid((20, 20, 20)), small, ((0, 5, 5), (5, 15, 15))) == 0.0


def test_one_slice_and_turned_grids_are_handled() -> None:
    turned = Geometry((20, 20, 20), np.array([[0, 0, 1.0, 0], [-1, 0, 0, 19], [0, 1, 0, 0], [0, 0, 0, 1]]))
    assert overlap(grid((20, 20, 20)), turned) == 1.0
    assert overlap(grid((20, 20, 1), (0, 0, 7)), turned) == 1.0


def test_points_on_the_surface_are_inside() -> None:
    points = np.array([[-0.5, 0, 0], [4.5, 0, 0], [-0.51, 0, 0], [4.51, 0, 0]])
    assert inside(points, grid((5, 5, 5)), grid((5, 5, 5))).tolist() == [True, True, False, False]
