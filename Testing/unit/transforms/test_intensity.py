"""Intensity rules: values, inverses, statistics, round trips and refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.transforms.intensity import FittedNormaliser, MinMax, Percentile, Window, normaliser_from_dict

RULES = [
    MinMax(),
    Percentile(),
    Percentile(1.0, 99.0, True, 1.3),
    Window(-1000.0, 2000.0),
    Window(-160.0, 240.0, False),
]


def image(seed=0, shape=(13, 11, 7)):
    return np.random.default_rng(seed).gamma(2, 150, shape).astype(np.float32)


def test_minmax_puts_the_extremes_at_plus_and_minus_one():
    array = image()
    result = MinMax().fit(array).apply(array)
    assert (result.min(), result.max(), result.dtype) == (-1.0, 1.0, np.float32)


def test_percentiles_are_those_of_all_voxels_and_are_not_clipped_by_default():
    array = image()
    fitted = Percentile(0.5, 99.5).fit(array)
    low, high = np.percentile(array.astype(np.float64), [0.5, 99.5])
    assert (fitted.low, fitted.high) == (low, high)
    result = fitted.apply(array)
    assert result.min() < -1 and result.max() > 1
    np.testing.assert_allclose(result, (array - low) / (high - low) * 2 - 1, atol=1e-5)


def test_percentiles_leave_room_for_what_is_brighter_where_they_reach_further():
    array = image()
    near, far = Percentile(0.5, 95).fit(array), Percentile(0.5, 95, reach=1.5).fit(array)
    assert far.low == near.low
    assert far.high - far.low == pytest.approx(1.5 * (near.high - near.low), rel=1e-12)
    assert far.apply(np.float32([near.high])) == pytest.approx([-1 + 2 / 1.5], abs=1e-6)
    clipped = Percentile(0.5, 95, True, 1.5).fit(array)
    beyond = np.float32([0.9 * far.high + 0.1 * far.low, 2 * far.high - far.low])
    assert clipped.apply(beyond) == pytest.approx([0.8, 1.0], abs=1e-5)


def test_clipping_limits_the_range():
    array = image()
    result = Percentile(5, 95, clip=True).fit(array).apply(array)
    assert (result.min(), result.max()) == (-1.0, 1.0)


def test_a_window_does_not_depend_on_the_volume():
    assert Window(-1000, 2000).fit(image(1)) == Window(-1000, 2000).fit(image(2)) == FittedNormaliser(-1000, 2000, True)


def test_a_mask_restricts_the_statistics():
    array = image()
    mask = array > 100
    assert MinMax().fit(array, mask).low == array[mask].min()
    assert MinMax().fit(array, mask.astype(np.uint8)) == MinMax().fit(array, mask)


@pytest.mark.parametrize("rule", RULES)
def test_invert_undoes_apply_where_nothing_was_clipped(rule):
    array = image() - 100
    fitted = rule.fit(array)
    normalised = fitted.apply(array)
    kept = np.abs(normalised) < 1 if fitted.clip else np.ones(array.shape, bool)
    assert kept.mean() > 0.3
    error = np.abs(fitted.invert(normalised) - array)[kept].max()
    assert error <= 1e-6 * max(fitted.high - fitted.low, float(np.abs(array).max()))
    again = fitted.apply(fitted.invert(normalised))
    np.testing.assert_allclose(again, normalised, atol=1e-6 * max(1.0, float(np.abs(normalised).max())))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float16, np.float64])
def test_every_numeric_type_is_accepted_and_left_as_it_was(dtype):
    array = (image() / 10).astype(dtype)
    before = array.copy()
    result = MinMax().fit(array).apply(array)
    assert result.dtype == np.float32 and result.min() == -1 and result.max() == 1
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_voxels_changes_nothing(rule):
    array = image()
    shuffled = np.random.default_rng(9).permutation(array.ravel()).reshape(7, 13, 11)
    fortran = np.asfortranarray(array.transpose(2, 0, 1)[::-1])
    assert rule.fit(array) == rule.fit(shuffled) == rule.fit(fortran)


@pytest.mark.parametrize("rule", RULES)
def test_rules_and_fits_survive_json(rule):
    assert normaliser_from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
    fitted = rule.fit(image())
    assert FittedNormaliser.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted


def test_the_kind_is_part_of_the_dictionary():
    facts = {"kind": "percentile", "lower": 0.5, "upper": 99.5, "clip": False, "reach": 1.0}
    assert Percentile(0.5, 99.5).to_dict() == facts
    del facts["reach"]
    assert normaliser_from_dict(facts) == Percentile(0.5, 99.5)
    assert normaliser_from_dict({"kind": "window", "low": 0, "high": 80}) == Window(0.0, 80.0, True)


@pytest.mark.parametrize("rule", [MinMax(), Percentile()])
@pytest.mark.parametrize("value", [0.0, -3.5, 1e6, 1e30])
def test_a_constant_volume_has_no_range(rule, value):
    with pytest.raises(InputError) as caught:
        rule.fit(np.full((5, 5, 5), value, np.float32))
    assert caught.value.code == "MX-IMG-021"


def test_contrast_below_float32_precision_is_no_range():
    array = np.full((5, 5, 5), 1e6)
    array[0] += 0.5
    with pytest.raises(InputError) as caught:
        MinMax().fit(array)
    assert caught.value.code == "MX-IMG-021"


def test_a_sparse_image_whose_percentiles_coincide_is_refused():
    array = np.zeros((20, 20, 20))
    array[0, 0, :5] = 9
    with pytest.raises(InputError) as caught:
        Percentile().fit(array)
    assert caught.value.code == "MX-IMG-021"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rule", RULES)
def test_values_that_are_not_finite_are_refused_and_counted(rule, bad):
    array = image()
    array[0, 0, :2] = bad
    with pytest.raises(InputError) as caught:
        rule.fit(array)
    assert caught.value.code == "MX-IMG-023"
    assert caught.value.found.startswith("2 of")
    rule.fit(array, np.isfinite(array))  # outside the mask they do not matter


@pytest.mark.parametrize(
    ("array", "mask"),
    [(np.ones((3, 3, 3)), np.zeros((3, 3, 3), bool)), (np.ones((3, 3, 3)), np.ones((3, 3), bool)), (np.ones(0), None)],
)
def test_nothing_to_look_at_is_refused(array, mask):
    with pytest.raises(InputError) as caught:
        MinMax().fit(array, mask)
    assert caught.value.code == "MX-IMG-022"


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({}, "MX-USE-063"),
        ({"kind": "percentiles"}, "MX-USE-063"),
        ({"kind": 3}, "MX-USE-063"),
        ({"kind": "percentile", "lower": 99, "upper": 1}, "MX-USE-063"),
        ({"kind": "percentile", "upper": 101}, "MX-USE-063"),
        ({"kind": "percentile", "reach": 0.05}, "MX-USE-063"),
        ({"kind": "percentile", "reach": 11}, "MX-USE-063"),
        ({"kind": "window", "low": 5, "high": 5}, "MX-USE-063"),
        ({"kind": "window", "low": 5}, "MX-USE-043"),
        ({"kind": "minmax", "lower": 1}, "MX-USE-040"),
        ({"kind": "percentile", "lower": "0.5"}, "MX-USE-041"),
        ({"kind": "percentile", "clip": 1}, "MX-USE-041"),
        ({"kind": "window", "low": float("-inf"), "high": 5}, "MX-USE-042"),
    ],
)
def test_unusable_settings_are_refused_with_a_code(settings, code):
    with pytest.raises(UsageError) as caught:
        normaliser_from_dict(settings)
    assert caught.value.code == code


def test_a_misspelt_kind_names_the_nearest_valid_one():
    with pytest.raises(UsageError) as caught:
        normaliser_from_dict({"kind": "min-max"})
    assert "'minmax'" in caught.value.fix


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_a_fit_without_a_usable_range_cannot_exist(low, high):
    with pytest.raises(InputError) as caught:
        FittedNormaliser(low, high)
    assert caught.value.code == "MX-IMG-021"
