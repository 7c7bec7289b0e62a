"""From source volumes to network input."""

from __future__ import annotations

import numpy as np
import pytest

from MedXlateCore.errors import InputError
from MedXlateCore.inference.prepare import normalise, prepare_roi, prepare_sources, slice_stack, unstack
from MedXlateCore.transforms.spatial import GridSpec
from MedXlateCore.volume import Modality

RULES = {name: {"kind": "minmax"} for name in ("T1", "T2")}
SPEC = GridSpec(size_multiple=(4, 4, 1))


def test_slices_are_axial_with_rows_to_the_back_and_columns_to_the_left():
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    slices = slice_stack(array)
    assert slices.shape == (4, 3, 2)
    assert slices[3, 2, 1] == array[1, 2, 3]
    assert slices.flags["C_CONTIGUOUS"]
    assert np.array_equal(unstack(slices), array)


def test_sources_become_channels_from_minus_one_to_one_in_the_order_given(patient):
    sources = [patient["T2"], patient["T1"]]
    prepared = prepare_sources(sources, patient["T1"].geometry, SPEC, RULES)
    _, depth, height, width = prepared.images.shape
    assert prepared.images.shape[:1] == (2,)
    assert (width, height, depth) == prepared.plan.grid.shape
    assert height % 4 == width % 4 == 0
    assert prepared.images.dtype == np.float32
    for channel, volume, fit in zip(prepared.images, sources, prepared.fitted, strict=True):
        assert (channel.min(), channel.max()) == (-1.0, 1.0)
        assert (fit.low, fit.high) == (0.0, pytest.approx(float(volume.array.max())))
    assert prepared.plan.is_exact


def test_occupied_slices_are_those_with_tissue(patient):
    prepared = prepare_sources([patient["T1"], patient["T2"]], patient["T1"].geometry, SPEC, RULES)
    kept = [k for k in range(prepared.images.shape[1]) if (prepared.images[:, k] > -1).any()]
    assert prepared.occupied_slices == kept == list(range(kept[0], kept[-1] + 1))


def test_foreground_of_one_source_is_enough(patient):
    top = patient["T2"].array.copy()
    top[:, :, 5:] = 0
    prepared = prepare_sources([patient["T1"], patient["T2"].with_array(top)], patient["T1"].geometry, SPEC, RULES)
    whole = prepare_sources([patient["T1"], patient["T2"]], patient["T1"].geometry, SPEC, RULES)
    assert prepared.occupied_slices == whole.occupied_slices


def test_a_modality_without_a_normaliser_is_refused(patient):
    with pytest.raises(InputError, match="MX-MOD-090") as caught:
        normalise(patient["T1"].array, Modality.FLAIR, RULES, where="x")
    assert caught.value.expected == "one of T1, T2"


def test_a_region_is_encoded_where_it_was_drawn(patient):
    plan = prepare_sources([patient["T1"], patient["T2"]], patient["T1"].geometry, SPEC, RULES).plan
    drawn = slice_stack(plan.labels_to_model(patient["region"]))
    prompt = prepare_roi(patient["region"], plan, {"oedema": [2], "core": [1]}, "two_region")
    assert np.array_equal(prompt, np.select([drawn == 1, drawn == 2], [1.0, 0.5], 0.0).astype(np.float32))
    assert np.count_nonzero(prompt) == np.count_nonzero(patient["region"].array)
    binary = prepare_roi(patient["region"], plan, {"oedema": [2], "core": [1]}, "binary")
    assert np.array_equal(binary, (drawn > 0).astype(np.float32))
