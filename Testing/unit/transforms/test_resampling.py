"""Resampling: exact copies on lattices, one interpolation otherwise, borders, types and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.transforms import resampling
from MedXlateCore.transforms.resampling import is_lattice_map, resample
from MedXlateCore.volume import Geometry


def grid(shape, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), rotation=(0.0, 0.0, 0.0)) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", rotation, degrees=True).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = origin
    return Geometry(shape, affine)


def noise(shape, seed=0, dtype=np.float32):
    return (np.random.default_rng(seed).random(shape) * 200).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, np.bool_])
@pytest.mark.parametrize("order", [0, 1])
def test_a_whole_voxel_shift_is_copied_with_its_type(dtype, order):
    array = noise((6, 7, 5), dtype=dtype)
    source = grid((6, 7, 5), (1, 2, 3), rotation=(10, 20, 30))
    shift = np.eye(4)
    shift[:3, 3] = (1, -1, 0)
    target = Geometry((4, 9, 5), source.affine_ras @ shift)
    result = resample(array, source, target, order, fill=0)
    expected = np.zeros((4, 9, 5), dtype)
    expected[:, 1:8] = array[1:5]
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, expected)


def test_a_lattice_copy_never_interpolates(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("interpolated")

    monkeypatch.setattr(ndimage, "affine_transform", refuse)
    monkeypatch.setattr(resampling, "_resample_by_axis", refuse)
    array = noise((5, 6, 7))
    source = grid((5, 6, 7), rotation=(0, 0, 15))
    moved = Geometry((5, 6, 7), source.affine_ras + np.array([[0, 0, 0, 5e-4]] + [[0] * 4] * 3))
    np.testing.assert_array_equal(resample(array, source, moved), array)


@pytest.mark.parametrize(("shift_mm", "exact"), [(0.0009, True), (0.0011, False), (0.5, False), (3.0, True)])
def test_the_lattice_tolerance_is_a_thousandth_of_a_voxel(shift_mm, exact):
    assert is_lattice_map(grid((5, 5, 5)), grid((5, 5, 5), origin=(shift_mm, 0, 0))) is exact


def test_a_drift_that_adds_up_across_the_grid_is_no_lattice():
    assert is_lattice_map(grid((10, 4, 4)), grid((10, 4, 4), (1.00005, 1, 1)))
    assert not is_lattice_map(grid((512, 4, 4)), grid((512, 4, 4), (1.00005, 1, 1)))


def test_the_result_is_a_copy_and_the_input_stays_as_it_was():
    array = noise((4, 4, 4))
    before = array.copy()
    result = resample(array, grid((4, 4, 4)), grid((4, 4, 4)))
    result[:] = -1
    resample(array, grid((4, 4, 4)), grid((4, 4, 4), origin=(0.3, 0, 0)))[:] = -1
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("order", [0, 1])
def test_grids_that_do_not_overlap_give_fill(order):
    for target in (grid((3, 3, 3), origin=(50, 0, 0)), grid((3, 3, 3), origin=(50.4, 0, 0), rotation=(5, 0, 0))):
        assert (resample(noise((4, 4, 4)), grid((4, 4, 4)), target, order, fill=-1000.0) == -1000).all()


def test_the_edge_value_reaches_half_a_voxel_beyond_the_outer_centres_and_no_further():
    array = np.array([10.0, 20.0], np.float32).reshape(2, 1, 1)
    target = grid((12, 1, 1), (0.25, 1, 1), origin=(-0.75, 0, 0))
    result = resample(array, grid((2, 1, 1)), target, fill=-5.0)[:, 0, 0]
    np.testing.assert_allclose(result, [-5, 10, 10, 10, 12.5, 15, 17.5, 20, 20, 20, -5, -5], atol=1e-5)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("spacing", [(0.7, 1.3, 2.1), (2.0, 2.0, 0.5), (1.0, 1.0, 0.4)])
def test_axis_by_axis_equals_the_general_path(order, spacing):
    array = noise((9, 8, 11), seed=4)
    source, target = grid((9, 8, 11)), grid((14, 7, 12), spacing, origin=(-1.1, 0.7, 0.3))
    step = np.linalg.solve(source.affine_ras, target.affine_ras)
    by_axis = resampling._resample_by_axis(array, step, target.shape, order, -7.0)
    general = resampling._resample_affine(array, step, target.shape, order, -7.0)
    np.testing.assert_allclose(by_axis, general, rtol=1e-5, atol=1e-5)
    assert (by_axis == -7).any() and not (by_axis == -7).all()
    np.testing.assert_array_equal(resample(array, source, target, order, -7.0), by_axis)


def test_nearest_neighbour_invents_no_label_and_keeps_the_type():
    labels = np.random.default_rng(5).choice(np.array([0, 1, 2, 4], np.uint8), (9, 10, 8))
    result = resample(labels, grid((9, 10, 8)), grid((12, 12, 12), (0.8, 0.7, 0.6), (0.2, 0.1, 1), (20, -10, 30)), 0)
    assert result.dtype == np.uint8
    assert set(np.unique(result)) <= {0, 1, 2, 4}


def test_a_boolean_mask_survives_an_oblique_nearest_neighbour():
    mask = np.zeros((9, 9, 9), bool)
    mask[3:6, 3:6, 3:6] = True
    result = resample(mask, grid((9, 9, 9)), grid((9, 9, 9), rotation=(0, 0, 8)), 0)
    assert result.dtype == bool and result.any() and not result.all()


def test_linear_interpolation_of_whole_numbers_is_float32():
    assert resample(noise((4, 4, 4), dtype=np.int16), grid((4, 4, 4)), grid((4, 4, 4), (0.5, 1, 1))).dtype == np.float32


def test_a_single_slice_is_extended_half_a_slice_only():
    array = noise((4, 4, 1))
    result = resample(array, grid((4, 4, 1), (1, 1, 4)), grid((4, 4, 7), (1, 1, 1), (0, 0, -3)), fill=-1.0)
    np.testing.assert_array_equal(result[:, :, 1:6], np.repeat(array, 5, axis=2))
    assert (result[:, :, [0, 6]] == -1).all()


def test_a_sheared_grid_is_sampled_through_its_true_affine():
    affine = np.eye(4)
    affine[0, 2] = 0.4
    source = Geometry((20, 8, 9), affine)
    ramp = (np.indices(source.shape).T @ affine[:3, :3].T).T[0].astype(np.float32)  # x in mm
    result = resample(ramp, source, grid((8, 6, 6), (0.9, 1, 1), (6, 1, 1)))
    np.testing.assert_allclose(result, np.broadcast_to((6 + 0.9 * np.arange(8))[:, None, None], (8, 6, 6)), atol=1e-4)


def test_antialiasing_averages_noise_where_the_target_is_coarser_and_only_there():
    array = np.random.default_rng(6).normal(100, 10, (24, 24, 24)).astype(np.float32)
    source, coarse = grid((24, 24, 24)), grid((7, 7, 7), (3, 3, 3), (2.2, 2.2, 2.2))
    plain, averaged = resample(array, source, coarse), resample(array, source, coarse, antialias=True)
    assert averaged.std() < 0.6 * plain.std()
    assert averaged.mean() == pytest.approx(100, abs=1)
    fine = grid((24, 24, 24), (0.9, 1.2, 1.4), (0.3, 0, 0))
    np.testing.assert_array_equal(resample(array, source, fine, antialias=True), resample(array, source, fine))


def test_antialiasing_never_touches_an_exact_copy():
    array = noise((5, 5, 5))
    np.testing.assert_array_equal(resample(array, grid((5, 5, 5)), grid((5, 5, 5)), antialias=True), array)


def test_values_beyond_float32_do_not_raise():
    assert np.isfinite(resample(np.full((3, 3, 3), 1e30), grid((3, 3, 3)), grid((3, 3, 3), (0.5, 1, 1)))).all()


@pytest.mark.parametrize(
    ("array", "order", "fill", "error", "code"),
    [
        (np.zeros((3, 3, 4)), 1, 0, InputError, "MX-GEO-004"),
        (np.zeros((3, 3)), 1, 0, InputError, "MX-GEO-004"),
        (np.zeros((3, 3, 3), complex), 1, 0, InputError, "MX-IMG-020"),
        (np.zeros((3, 3, 3), "U1"), 0, 0, InputError, "MX-IMG-020"),
        (np.zeros((3, 3, 3)), 3, 0, UsageError, "MX-USE-061"),
        (np.zeros((3, 3, 3), np.uint8), 0, -1000, UsageError, "MX-USE-062"),
        (np.zeros((3, 3, 3), np.int16), 0, 0.5, UsageError, "MX-USE-062"),
        (np.zeros((3, 3, 3), bool), 0, 2, UsageError, "MX-USE-062"),
        (np.zeros((3, 3, 3), np.uint8), 0, float("nan"), UsageError, "MX-USE-062"),
    ],
)
@pytest.mark.parametrize("origin", [(1.0, 0, 0), (0.4, 0, 0)])
def test_requests_that_cannot_be_met_are_refused_with_a_code(array, order, fill, error, code, origin):
    with pytest.raises(error) as caught:
        resample(array, grid((3, 3, 3)), grid((3, 3, 3), origin=origin), order, fill)
    assert caught.value.code == code


@pytest.mark.parametrize("spacing", [1e-100, 1e100])
def test_grids_of_absurd_scale_are_refused_or_give_fill(spacing):
    array, source, absurd = np.ones((3, 3, 3)), grid((3, 3, 3)), grid((3, 3, 3), (spacing,) * 3)
    for first, second in ((source, absurd), (absurd, source)):
        try:
            result = resample(array, first, second, fill=-1.0)
        except InputError as error:
            assert error.code == "MX-GEO-020"
        else:
            assert set(np.unique(result)) <= {1.0, -1.0}
