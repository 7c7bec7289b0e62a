"""Foreground masks and boxes: background values, noise, specks, holes, independence of axis order."""

from __future__ import annotations

import numpy as np
import pytest

from MedXlateCore.errors import InputError
from MedXlateCore.transforms.foreground import (
    background_value,
    foreground_box,
    foreground_mask,
    mask_box,
    tissue_mask,
)
from MedXlateCore.transforms.orientation import AxisOrder
from MedXlateCore.volume import Modality

SHAPE = (40, 44, 36)
BRAIN_BOX = ((10, 8, 6), (30, 37, 29))


def ellipsoid(shape=SHAPE, box=BRAIN_BOX) -> np.ndarray:
    index = np.indices(shape).astype(float)
    radius = 0.0
    for axis in range(3):
        low, high = box[0][axis], box[1][axis]
        radius = radius + ((index[axis] - (low + high - 1) / 2) / ((high - low) / 2)) ** 2
    return radius <= 1


def head(seed=0, noise=0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    tissue = np.where(ellipsoid(), rng.uniform(60, 100, SHAPE), 0)
    return np.abs(tissue + rng.normal(0, noise, SHAPE)).astype(np.float32) if noise else tissue.astype(np.float32)


def test_a_skull_stripped_head_is_everything_above_zero():
    image = head()
    np.testing.assert_array_equal(tissue_mask(image), ellipsoid())
    assert foreground_box([image]) == BRAIN_BOX


def test_dim_tissue_of_a_skull_stripped_t2_belongs_to_the_foreground():
    image = head()
    image[ellipsoid() & (np.indices(SHAPE)[0] > 18)] *= 12  # bright fluid pulls Otsu's threshold above white matter
    np.testing.assert_array_equal(tissue_mask(image, Modality.T2), ellipsoid())


def test_a_z_scored_image_with_background_zero_amid_negative_values():
    image = np.where(ellipsoid(), np.random.default_rng(1).normal(0, 1, SHAPE), 0).astype(np.float32)
    np.testing.assert_array_equal(tissue_mask(image), image != 0)
    assert background_value(image) == 0


def test_a_stripped_brain_that_the_faces_cut_is_not_taken_for_noise():
    image = head()[12:, :, 8:]
    tissue = ellipsoid()[12:, :, 8:]
    image[tissue & (np.indices(image.shape)[0] > 8)] *= 4
    np.testing.assert_array_equal(tissue_mask(image, Modality.T2), tissue)


def test_a_few_dim_voxels_on_a_face_are_not_taken_for_noise():
    image = head()
    image[ellipsoid() & (np.indices(SHAPE)[0] > 18)] *= 12
    image[5:8, 5:8, 0] = 1
    assert tissue_mask(image, Modality.T2)[ellipsoid()].all()


def test_a_z_scored_brain_that_the_faces_cut_keeps_its_negative_values():
    image = np.where(ellipsoid(), np.random.default_rng(1).normal(0, 1, SHAPE), 0).astype(np.float32)[14:, :, 10:]
    np.testing.assert_array_equal(tissue_mask(image), image != 0)


def test_dim_tissue_in_noisy_air_is_found_beside_bright_tissue_and_brighter_vessels():
    rng = np.random.default_rng(7)
    image = np.where(ellipsoid(), 100.0, 0.0)
    dim = ellipsoid() & (np.indices(SHAPE)[1] > 24)
    image[dim] = 38.0
    image = np.abs(image + rng.normal(0, 2, SHAPE))
    image[20, 20:25, 15:20] = 20000
    mask = tissue_mask(image)
    assert mask[dim].mean() > 0.99
    assert foreground_box([image]) == BRAIN_BOX


def test_tissue_at_half_the_threshold_between_air_and_tissue_still_counts():
    rng = np.random.default_rng(8)
    image = np.where(ellipsoid(), rng.uniform(35, 150, SHAPE), rng.rayleigh(5, SHAPE))
    assert tissue_mask(image)[ellipsoid()].mean() > 0.98


@pytest.mark.parametrize("noise", [1.0, 4.0, 8.0])
def test_noise_in_air_does_not_widen_the_box(noise):
    assert foreground_box([head(noise=noise)]) == BRAIN_BOX


def test_noise_beside_a_masked_out_background_does_not_widen_the_box():
    image = head(noise=3.0)
    image[:14, :, :] = np.where(ellipsoid()[:14], image[:14], 0)  # a third of the air was set to zero
    assert foreground_box([image]) == BRAIN_BOX


def test_specks_do_not_widen_the_box_nor_enter_the_mask():
    image = head()
    for corner in [(1, 1, 1), (38, 2, 34), (2, 40, 3)]:
        image[corner] = 500
    assert foreground_box([image]) == BRAIN_BOX
    np.testing.assert_array_equal(foreground_mask(image), ellipsoid())


def test_muscle_counts_although_fat_is_much_brighter():
    rng = np.random.default_rng(2)
    inner = ellipsoid(box=((12, 10, 8), (28, 35, 27)))
    image = np.where(ellipsoid(), 900.0, 0.0)
    image[inner] = 180.0
    image = np.abs(image + rng.normal(0, 8, SHAPE))
    assert (tissue_mask(image, Modality.T1) & inner).sum() > 0.99 * inner.sum()


def test_pet_finds_the_body_beside_a_hot_tumour():
    rng = np.random.default_rng(3)
    image = np.where(ellipsoid(), rng.gamma(8, 0.08, SHAPE), rng.gamma(1, 0.01, SHAPE))
    image[18:23, 20:25, 15:20] = 15.0
    found = foreground_mask(image, Modality.PET)
    assert 2 * (found & ellipsoid()).sum() / (found.sum() + ellipsoid().sum()) > 0.95


def test_ct_air_is_below_minus_500_hu():
    image = np.where(ellipsoid(), 30.0, -1000.0) + np.random.default_rng(4).normal(0, 20, SHAPE)
    np.testing.assert_array_equal(tissue_mask(image, Modality.CT), ellipsoid())
    assert background_value(image, Modality.CT) == -1000


def test_a_ct_without_air_falls_back_to_its_own_background():
    image = np.where(ellipsoid(), 40.0, 0.0)
    np.testing.assert_array_equal(tissue_mask(image, Modality.CT), ellipsoid())
    assert background_value(image, Modality.CT) == 0


def test_the_background_value_never_widens_the_range():
    image = np.where(ellipsoid(), 30.0, -900.0)
    assert background_value(image, Modality.CBCT) == -900
    assert background_value(head() + 5) == 5
    assert background_value(np.random.default_rng(5).random((5, 5, 5)) + 1) >= 1


def test_labels_are_foreground_where_they_are_not_zero():
    labels = np.zeros((5, 5, 5), np.uint8)
    labels[2, 2, 2] = 4
    assert tissue_mask(labels, Modality.LABEL).sum() == 1


def test_enclosed_holes_are_filled_and_open_ones_are_not():
    image = head()
    image[18:22, 20:24, 14:18] = 0
    np.testing.assert_array_equal(foreground_mask(image), ellipsoid())
    image[18:22, 20:24, 14:] = 0  # now a shaft to the outside
    assert not foreground_mask(image)[20, 22, 16]


def test_holes_of_a_single_slice_are_filled_in_its_plane():
    image = head()[:, :, 16:17].copy()
    image[19:21, 21:23] = 0
    np.testing.assert_array_equal(foreground_mask(image), ellipsoid()[:, :, 16:17])


@pytest.mark.parametrize("noise", [0.0, 5.0])
def test_axis_order_flips_and_memory_layout_change_nothing(noise):
    image = head(noise=noise)
    image[0, 0, 0] = 300
    mask = foreground_mask(image)
    for axes, flips in [((2, 0, 1), (True, False, True)), ((1, 0, 2), (False, True, False))]:
        order = AxisOrder(axes, flips)
        moved = order.apply_to_array(image)
        for layout in (moved, np.ascontiguousarray(moved), np.asfortranarray(moved)):
            np.testing.assert_array_equal(foreground_mask(layout), order.apply_to_array(mask))
            assert background_value(layout) == background_value(image)


def test_padding_the_grid_moves_the_box_and_nothing_else():
    padded = np.pad(head(), 9)
    (low, high), (start, stop) = BRAIN_BOX, foreground_box([padded])
    assert start == tuple(n + 9 for n in low) and stop == tuple(n + 9 for n in high)


def test_several_arrays_give_the_union_and_blank_ones_add_nothing():
    other = np.where(ellipsoid(box=((4, 12, 10), (20, 40, 20))), 50.0, 0.0)
    assert foreground_box([head(), other, np.zeros(SHAPE)]) == ((4, 8, 6), (30, 40, 29))


def test_non_finite_voxels_are_not_foreground():
    image = head()
    image[0, :3, 0] = np.nan
    image[1, 1, 1] = np.inf
    mask = tissue_mask(image)
    assert not mask[0, :3, 0].any()
    assert foreground_box([image]) == BRAIN_BOX


@pytest.mark.parametrize("value", [0.0, -1000.0, 7.5, np.nan])
@pytest.mark.parametrize("modality", [Modality.T1, Modality.CT, Modality.PET, Modality.LABEL])
def test_a_blank_volume_has_no_foreground(value, modality):
    image = np.full((6, 6, 6), value)
    if modality is Modality.LABEL:
        image = np.zeros((6, 6, 6), np.int16)
    with pytest.raises(InputError) as caught:
        foreground_mask(image, modality)
    assert caught.value.code == "MX-IMG-024"
    with pytest.raises(InputError):
        foreground_box([image], modality)


def test_a_blank_boolean_array_has_no_foreground_either():
    with pytest.raises(InputError) as caught:
        foreground_mask(np.zeros((4, 4, 4), bool))
    assert "0 to 0" in caught.value.found


def test_no_array_at_all_has_no_foreground():
    with pytest.raises(InputError) as caught:
        foreground_box([])
    assert caught.value.code == "MX-IMG-024"


def test_an_empty_mask_has_no_box():
    assert mask_box(np.zeros((3, 3, 3), bool)) is None
