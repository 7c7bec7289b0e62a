"""Signed distances and soft edges."""

import numpy as np
import pytest

from MedXlateCore.phantom.shapes import Ellipsoid, Formula, Tube, coverage, curved, smooth_union, step


def points(*triples):
    return tuple(np.array(axis, np.float32) for axis in zip(*triples, strict=True))


def test_a_sphere_has_its_exact_distance():
    distance = Ellipsoid((1, 2, 3), (5, 5, 5)).distance(points((1, 2, 3.5), (9, 2, 3), (1, 2, 8)))
    np.testing.assert_allclose(distance, [-4.5, 3.0, 0.0], atol=1e-4)


def test_a_tube_is_rounded_and_tapered():
    tube = Tube([(0, 0, 0, 2), (10, 0, 0, 4)])
    np.testing.assert_allclose(tube.distance(points((0, 3, 0), (10, 3, 0), (-3, 0, 0))), [1.0, -1.0, 1.0], atol=1e-5)


def test_bounds_hold_the_shape():
    for shape in (Ellipsoid((1, 2, 3), (4, 5, 6), lean=0.5), Tube([(0, 0, 0, 2), (9, 1, 4, 3)], widen=1.5)):
        low, high = (np.array(b, float) for b in shape.bounds)
        spread = np.random.default_rng(0).uniform(low - 8, high + 8, (4000, 3)).astype(np.float32)
        inside = shape.distance((spread[:, 0], spread[:, 1], spread[:, 2])) < 0
        assert inside.any()
        assert (spread[inside] >= low - 1e-4).all()
        assert (spread[inside] <= high + 1e-4).all()


def test_coverage_is_one_half_on_the_border():
    np.testing.assert_allclose(coverage(np.array([-2.0, 0.0, 0.25, 2.0], np.float32), 1.0), [1.0, 0.5, 0.25, 0.0])


def test_a_smooth_union_never_lies_inside_neither_shape_by_more_than_the_fillet():
    a, b = np.float32([-1.0, 3.0, 0.0]), np.float32([2.0, 3.0, 9.0])
    joined = smooth_union(a, b, 2.0)
    assert (joined <= np.minimum(a, b)).all()
    assert (joined >= np.minimum(a, b) - 0.5).all()
    assert joined[2] == 0.0


def test_a_curve_passes_through_its_stations():
    stations = [(0.0, 0.0, 0.0, 1.0), (5.0, 5.0, 0.0, 2.0), (9.0, 0.0, 3.0, 1.0)]
    chain = np.array(curved(stations, pieces=4))
    for station in stations:
        assert np.abs(chain - station).sum(axis=1).min() < 1e-9


def test_a_formula_keeps_its_bounds():
    shape = Formula(lambda p: p[0], (0, 1, 2), (3, 4, 5))
    assert shape.bounds == ((0, 1, 2), (3, 4, 5))


@pytest.mark.parametrize(("x", "expected"), [(-1.0, 0.0), (0.5, 0.5), (2.0, 1.0)])
def test_the_step_is_smooth_and_bounded(x, expected):
    assert step(np.float32([x]), 0.0, 1.0)[0] == pytest.approx(expected)
