"""Orientation codes and reordering of grids."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from MedXlateCore.errors import UsageError
from MedXlateCore.transforms.orientation import (
    AxisOrder,
    axis_codes,
    axis_directions,
    match_axes,
    parse_orientation,
    reorient,
    tilt_degrees,
)
from MedXlateCore.volume import Geometry

ALL_CODES = [
    "".join(pair[side] for pair, side in zip(pairs, sides, strict=True))
    for pairs in permutations(("RL", "AP", "SI"))
    for sides in product((0, 1), repeat=3)
]


def tilted(degrees: float, axis: str = "z", shape: tuple[int, int, int] = (4, 5, 6)) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler(axis, degrees, degrees=True).as_matrix() @ np.diag([1.0, 2.0, 3.0])
    affine[:3, 3] = (11.0, -7.0, 40.0)
    return Geometry(shape, affine)


def test_the_brats_affine_reads_as_lps():
    assert axis_codes(Geometry((240, 240, 155), np.diag([-1.0, -1.0, 1.0, 1.0]))) == "LPS"


@pytest.mark.parametrize("code", ALL_CODES)
def test_a_grid_reoriented_to_any_of_the_48_codes_reads_as_that_code(code):
    assert axis_codes(reorient(tilted(20), code)) == code


@pytest.mark.parametrize("code", ["LPS", "SAR", "PIR"])
def test_reorienting_moves_no_voxel_centre(code):
    geometry = tilted(25)
    values = np.arange(120).reshape(geometry.shape)
    order = match_axes(axis_directions(geometry), parse_orientation(code))
    moved, array = order.apply_to_geometry(geometry), order.apply_to_array(values)
    assert moved.shape == array.shape
    for index in np.ndindex(moved.shape):
        old = np.unravel_index(array[index], geometry.shape)
        np.testing.assert_allclose(moved.affine_ras @ (*index, 1), geometry.affine_ras @ (*old, 1), atol=1e-9)


def test_reordering_an_array_copies_nothing():
    array = np.zeros((3, 4, 5))
    assert AxisOrder((2, 0, 1), (True, False, True)).apply_to_array(array).base is array


def test_agrees_with_nibabel_on_oblique_grids():
    import nibabel

    rng = np.random.default_rng(3)
    for _ in range(50):
        affine = np.eye(4)
        affine[:3, :3] = Rotation.from_rotvec(rng.normal(size=3) * 0.35).as_matrix() @ np.diag(rng.uniform(0.5, 4, 3))
        affine[:3, :3] = affine[:3, rng.permutation(3)] * rng.choice([-1, 1], 3)
        assert axis_codes(Geometry((3, 3, 3), affine)) == "".join(nibabel.aff2axcodes(affine))


def test_a_tie_at_45_degrees_does_not_depend_on_how_the_axes_are_listed():
    geometry = tilted(45)
    wanted = reorient(geometry, "LPS")
    for axes, flips in product(permutations(range(3)), product((False, True), repeat=3)):
        assert reorient(AxisOrder(axes, flips).apply_to_geometry(geometry), "LPS").allclose(wanted, 1e-9)


@pytest.mark.parametrize("code", ["", "LP", "LPSS", "LRS", "XYZ", "LPP", None, 3])
def test_an_impossible_code_is_refused(code):
    with pytest.raises(UsageError) as caught:
        parse_orientation(code)
    assert caught.value.code == "MX-USE-060"
    assert repr(code) in caught.value.found


@pytest.mark.parametrize("degrees", [0.0, 12.0, 44.0])
def test_tilt_is_the_angle_to_the_patient_axes(degrees):
    assert tilt_degrees(tilted(degrees, "x")) == pytest.approx(degrees, abs=1e-5)
