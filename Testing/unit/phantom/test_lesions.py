"""Tumours: number, size, place, mass effect."""

import numpy as np
import pytest

from MedXlateCore.phantom.fields import Grid
from MedXlateCore.phantom.lesions import Lesion, LesionKind, draw_lesions, push
from MedXlateCore.phantom.traits import draw_traits


@pytest.fixture(scope="module")
def drawn():
    return [draw_lesions(seed, draw_traits(seed)) for seed in range(25)]


def test_numbers_sizes_and_kinds_vary(drawn):
    tumours = [lesion for lesions in drawn for lesion in lesions]
    assert {len(lesions) for lesions in drawn} >= {1, 2}
    assert max(len(lesions) for lesions in drawn) <= 3
    assert all(8 <= 2 * lesion.radius_mm <= 45 for lesion in tumours)
    assert {lesion.kind for lesion in tumours} == set(LesionKind)


def test_tumours_of_one_head_do_not_overlap(drawn):
    for lesions in drawn:
        for n, first in enumerate(lesions):
            for second in lesions[n + 1 :]:
                apart = np.linalg.norm(np.subtract(first.centre_mm, second.centre_mm))
                assert apart > first.radius_mm + second.radius_mm


def test_the_count_can_be_chosen():
    assert len(draw_lesions(1, draw_traits(1), 1)) == 1


def test_mass_effect_pushes_outwards_and_folds_nothing():
    axis = np.linspace(-90, 90, 181, dtype=np.float32)
    grid = Grid((axis, axis[90:91], axis[90:91]))
    x, y, z = np.meshgrid(*grid.axes, indexing="ij")
    lesion = Lesion(LesionKind.SOLID, (0.0, 0.0, 0.0), 20.0, (1, 1, 1), 3.0, 1.0, 0.38)
    inside = np.full(x.shape, -50.0, np.float32)
    moved, _, _ = push((x, y, z), grid, [lesion], inside)
    line = moved[:, 0, 0]
    assert (np.diff(line) > 0).all()  # no fold
    assert line[115] < x[115, 0, 0]  # tissue seen at 25 mm came from nearer the centre
    assert abs(line[0] - x[0, 0, 0]) < 0.1  # far away nothing moves


def test_nothing_moves_at_the_skull():
    axis = np.linspace(-30, 30, 31, dtype=np.float32)
    grid = Grid((axis, axis, axis))
    points = np.meshgrid(*grid.axes, indexing="ij")
    lesion = Lesion(LesionKind.RING, (5.0, 0.0, 0.0), 15.0, (1, 1, 1), 3.0, 1.0, 0.3)
    at_the_skull = np.zeros(points[0].shape, np.float32)
    for before, after in zip(points, push(tuple(points), grid, [lesion], at_the_skull), strict=True):
        np.testing.assert_array_equal(before, after)
