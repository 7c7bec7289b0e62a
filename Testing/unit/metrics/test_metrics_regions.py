"""Regions add up, and what is outside or empty is said."""

import numpy as np
import pytest

from MedXlateCore.errors import InputError
from MedXlateCore.metrics.regions import evaluation_mask, grow, region_label_values, region_masks


def test_brain_is_lesion_plus_healthy(head):
    reference, _, labels = head
    brain = evaluation_mask(reference, None)
    masks, warnings = region_masks(brain, labels, None)
    np.testing.assert_array_equal(masks["lesion"] | masks["healthy"], masks["brain"])
    assert not (masks["lesion"] & masks["healthy"]).any()
    assert warnings == []


def test_brats_labels_make_oedema_core_and_enhancing_by_default(head):
    labels = head[2].array
    assert region_label_values(labels, None) == {"oedema": (2,), "core": (1, 3, 4), "enhancing": (4,)}
    newer = np.where(labels == 4, 3, labels)
    assert region_label_values(newer, None)["enhancing"] == (3,)


def test_a_map_of_one_value_has_no_parts_and_other_maps_one_region_a_value():
    assert region_label_values(np.array([0, 1, 1]), None) == {}
    assert region_label_values(np.array([0, 1, 7]), None) == {"label 1": (1,), "label 7": (7,)}


def test_the_lesion_is_the_union_of_the_named_labels(head):
    reference, _, labels = head
    brain = evaluation_mask(reference, None)
    masks, _ = region_masks(brain, labels, {"core": [1, 4]})
    np.testing.assert_array_equal(masks["lesion"], np.isin(labels.array, (1, 4)))
    assert masks["healthy"][labels.array == 2].all()


def test_a_margin_around_the_lesion_counts_millimetres(volume_of):
    mask = np.zeros((21, 21, 21), bool)
    mask[10, 10, 10] = True
    grown = grow(mask, 4.0, (1.0, 2.0, 5.0))
    assert grown[14, 10, 10]
    assert not grown[15, 10, 10]
    assert grown[10, 12, 10]
    assert not grown[10, 13, 10]
    assert not grown[10, 10, 11]


def test_the_mask_is_whatever_is_above_zero(volume_of, head):
    mask = np.zeros(head[0].array.shape, np.int16)
    mask[3:5, 3:5, 3:5] = 9
    assert np.count_nonzero(evaluation_mask(head[0], volume_of(mask, "label"))) == 8


def test_an_empty_mask_is_refused(volume_of, head):
    empty = volume_of(np.zeros(head[0].array.shape, np.uint8), "label")
    with pytest.raises(InputError, match="MX-MET-012"):
        evaluation_mask(head[0], empty)


def test_lesion_voxels_outside_the_brain_are_counted_in_a_warning(volume_of, head):
    labels = head[2].array.copy()
    labels[0, 0, :5] = 2
    masks, warnings = region_masks(evaluation_mask(head[0], None), volume_of(labels, "label"), None)
    assert [warning.code for warning in warnings] == ["MX-MET-103"]
    assert "5 lesion voxels" in warnings[0].found
    assert not masks["lesion"][0, 0, 0]


def test_a_region_without_voxels_is_said(head):
    masks, warnings = region_masks(evaluation_mask(head[0], None), head[2], {"core": [1, 4], "cyst": [9]})
    assert not masks["cyst"].any()
    assert [(w.code, "cyst" in w.found) for w in warnings] == [("MX-MET-102", True)]
