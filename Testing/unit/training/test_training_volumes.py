"""Whole volumes as training examples: their order, their size, and where their voxels come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from training_cases import blob_case, config_for, write_table

from MedXlateCore.errors import InputError
from MedXlateCore.training.config import TrainingConfig
from MedXlateCore.training.data import prepare_data
from MedXlateCore.training.volumes import VolumeData


@pytest.fixture(scope="module")
def cases(configure: Callable[..., TrainingConfig], shared_cache: Path):
    return prepare_data(configure(), shared_cache).train


def test_every_case_is_one_example_with_all_its_slices(cases):
    data = VolumeData(cases)
    batch = data.batch([0, 2])
    assert len(data) == 3
    assert batch.images.shape == (2, 2, 6, 32, 32)
    assert (batch.target.shape, batch.regions.shape, batch.foreground.shape) == (
        (2, 1, 6, 32, 32),
        (2, 2, 6, 32, 32),
        (2, 1, 6, 32, 32),
    )
    assert np.array_equal(batch.images[1, 0], cases[2].images[:, 0])
    assert np.array_equal(batch.target[0, 0], cases[0].images[:, -1])
    assert np.array_equal(batch.regions[1], cases[2].masks[:, :2].swapaxes(0, 1))


def test_mirroring_turns_images_and_masks_left_to_right(cases):
    data = VolumeData(cases)
    plain, mirrored = data.batch([1]), data.batch([1], mirrored=[True])
    assert np.array_equal(mirrored.images[0].numpy(), plain.images[0].numpy()[..., ::-1])
    assert np.array_equal(mirrored.regions[0].numpy(), plain.regions[0].numpy()[..., ::-1])


def test_unpaired_volumes_take_another_cases_target(cases, configure):
    data = VolumeData(cases, unpaired=True)
    batch = data.batch([0], targets=[2])
    assert np.array_equal(batch.images[0, 0], cases[0].images[:, 0])
    assert np.array_equal(batch.target[0, 0], cases[2].images[:, -1])
    config = configure()
    steps = [data.at_step(step, config) for step in range(8)]
    assert any(
        not any(np.array_equal(target[0], case.images[:, -1]) and np.array_equal(image[0], case.images[:, 0])
                for case in cases)
        for step in steps for image, target in zip(step.images, step.target, strict=True)
    )  # fmt: skip


def test_the_order_is_a_function_of_seed_and_step(cases, configure):
    config, other = configure(), configure("training.seed=5")
    data, again = VolumeData(cases), VolumeData(cases)
    assert all(np.array_equal(data.at_step(n, config).images, again.at_step(n, config).images) for n in range(4))
    assert any(not np.array_equal(data.at_step(n, config).images, data.at_step(n, other).images) for n in range(4))


def test_smaller_volumes_are_padded_around_the_middle_with_background(tmp_path: Path):
    rows = [blob_case(tmp_path, "a", seed=0), blob_case(tmp_path, "b", seed=1, shape=(32, 32, 10))]
    cases = prepare_data(config_for(write_table(tmp_path / "cases.csv", rows)), tmp_path / "cache").train
    data = VolumeData(cases)
    assert data.size == (10, 32, 32)
    small = data.batch([0])
    assert (small.images[:, :, :2] == -1).all()
    assert (small.foreground[:, :, 8:] == 0).all()
    assert np.array_equal(small.images[0, :, 2:8], cases[0].images[:, :-1].swapaxes(0, 1))


def test_only_the_window_of_slices_is_read_and_an_empty_one_is_refused(cases):
    data = VolumeData(cases, (1, 5))
    assert data.size == (4, 32, 32)
    assert np.array_equal(data.batch([0]).target[0, 0], cases[0].images[1:5, -1])
    with pytest.raises(InputError, match="MX-DAT-011"):
        VolumeData(cases, (40, 50))
