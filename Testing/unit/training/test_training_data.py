"""Slices, their order, batches, baselines' mean image, and the output scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from training_cases import blob_case, config_for, read_rows, write_table

from MedXlateCore.errors import InputError
from MedXlateCore.training.config import TrainingConfig
from MedXlateCore.training.data import SliceData, mean_image, output_scale, prepare_data, stream_positions
from MedXlateCore.transforms.intensity import FittedNormaliser


@pytest.fixture(scope="module")
def data(configure: Callable[..., TrainingConfig], shared_cache: Path) -> SliceData:
    return SliceData(prepare_data(configure(), shared_cache).train)


def test_cases_are_split_and_every_occupied_slice_counts(
    configure: Callable[..., TrainingConfig], shared_cache: Path, data: SliceData
):
    prepared = prepare_data(configure(), shared_cache)
    assert [case.row.case for case in prepared.train] == ["a", "b", "c"]
    assert [case.row.case for case in prepared.val] == ["d", "e"]
    assert len(data) == sum(len(case.slices) for case in prepared.train)


def test_at_most_so_many_validation_cases_are_used(configure: Callable[..., TrainingConfig], shared_cache: Path):
    assert len(prepare_data(configure("training.validation_cases=1"), shared_cache).val) == 1


def test_slices_without_foreground_are_left_out(tmp_path: Path):
    rows = [blob_case(tmp_path, "a", seed=0, shape=(32, 32, 12))]
    config = config_for(write_table(tmp_path / "cases.csv", rows), "grid.size_multiple=[4, 4, 16]")
    case = prepare_data(config, tmp_path / "cache").train[0]
    assert case.images.shape[0] == 16
    assert len(SliceData([case])) == len(case.slices) < 16


def test_a_window_of_slices_is_kept_to_and_an_empty_one_is_refused(data: SliceData):
    assert len(SliceData(data.cases, (2, 4))) == 6
    with pytest.raises(InputError) as caught:
        SliceData(data.cases, (40, 50))
    assert caught.value.code == "MX-DAT-011"


def test_a_batch_holds_sources_target_regions_and_foreground(data: SliceData):
    batch = data.batch([0, 7])
    case, k = data.cases[1], data.cases[1].slices[7 - len(data.cases[0].slices)]
    assert batch.images.shape == (2, 2, 32, 32)
    assert (batch.target.shape, batch.regions.shape, batch.foreground.shape) == (
        (2, 1, 32, 32),
        (2, 2, 32, 32),
        (2, 1, 32, 32),
    )
    assert np.array_equal(batch.images[1].numpy(), case.images[k, :2])
    assert np.array_equal(batch.target[1, 0].numpy(), case.images[k, 2])
    assert np.array_equal(batch.regions[1].numpy(), case.masks[k, :2])
    assert all(t.dtype == torch.float32 for t in (batch.images, batch.target, batch.regions, batch.foreground))


def test_a_mirrored_slice_is_mirrored_in_all_its_parts(data: SliceData):
    plain, mirrored = data.batch([3]), data.batch([3], [True])
    for part in ("images", "target", "regions", "foreground"):
        assert torch.equal(getattr(mirrored, part), getattr(plain, part).flip(-1))


def test_smaller_slices_are_padded_in_the_middle_with_background(tmp_path: Path):
    rows = [blob_case(tmp_path, "a", seed=0), blob_case(tmp_path, "b", seed=1, shape=(24, 28, 6))]
    table = write_table(tmp_path / "cases.csv", rows)
    slices = SliceData(prepare_data(config_for(table, "grid.crop={ kind = 'none' }"), tmp_path / "cache").train)
    batch = slices.batch([len(slices) - 1])
    small = slices.cases[1]
    assert slices.size == (32, 32)
    assert np.array_equal(batch.images[0, :, 2:30, 4:28].numpy(), small.images[small.slices[-1], :2])
    assert torch.all(batch.images[0, :, :2] == -1) and torch.all(batch.target[0, 0, :, 28:] == -1)
    assert torch.all(batch.foreground[0, 0, :, :4] == 0)


def test_every_epoch_shows_each_slice_once_in_an_order_of_its_own():
    first, second = stream_positions(10, 0, 0, 10), stream_positions(10, 0, 10, 10)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert stream_positions(10, 1, 0, 10) != first


def test_the_stream_depends_on_the_position_only():
    whole = stream_positions(7, 3, 0, 40)
    assert [number for start in range(0, 40, 4) for number in stream_positions(7, 3, start, 4)] == whole


def test_processes_share_the_stream_without_overlap(data: SliceData, configure: Callable[..., TrainingConfig]):
    config = configure("training.flip=false")
    together = data.batch(stream_positions(len(data), 0, 8, 4)).images
    shares = [data.at_step(2, config, rank, world_size=2).images for rank in (0, 1)]
    assert torch.equal(torch.cat(shares), together)


def test_the_same_step_gives_the_same_batch(data: SliceData, configure: Callable[..., TrainingConfig]):
    config = configure()
    assert torch.equal(data.at_step(5, config).images, data.at_step(5, config).images)
    assert not torch.equal(data.at_step(5, config).images, data.at_step(6, config).images)


def test_one_image_in_two_splits_is_refused_under_whatever_name(cohort: Path, tmp_path: Path):
    rows = read_rows(cohort)
    copy = tmp_path / "renamed.nii.gz"
    copy.write_bytes((cohort.parent / rows[0]["T1"]).read_bytes())
    for row in rows:
        for column in ("T1", "T2", "T1ce", "seg"):
            row[column] = str(cohort.parent / row[column])
    rows[3]["T1"] = str(copy)
    with pytest.raises(InputError) as caught:
        prepare_data(config_for(write_table(tmp_path / "cases.csv", rows)), tmp_path / "cache")
    assert caught.value.code == "MX-DAT-006"
    assert "train (a)" in caught.value.found and "val (d)" in caught.value.found


def test_several_threads_prepare_the_same(configure: Callable[..., TrainingConfig], shared_cache: Path, tmp_path: Path):
    one = prepare_data(configure(), shared_cache)
    four = prepare_data(configure("data.workers=4"), tmp_path)
    assert four.fingerprint() == one.fingerprint()
    assert all(np.array_equal(a.images, b.images) for a, b in zip(one.train, four.train, strict=True))


def test_the_fingerprint_follows_the_cases(configure: Callable[..., TrainingConfig], shared_cache: Path):
    prepared = prepare_data(configure(), shared_cache)
    assert dataclasses.replace(prepared, val=prepared.val[:1]).fingerprint() != prepared.fingerprint()


def test_the_mean_image_is_the_mean_of_the_targets(data: SliceData):
    expected = np.mean([data.batch([n]).target[0, 0].numpy() for n in range(len(data))], axis=0)
    assert np.allclose(mean_image(data), expected, atol=1e-6)


def test_mr_is_scaled_by_the_first_source_and_ct_in_its_unit(data: SliceData):
    def case(high_source: float, low: float, high: float):
        fitted = {"T1": FittedNormaliser(0, high_source), "X": FittedNormaliser(low, high)}
        return dataclasses.replace(data.cases[0], fitted={"T1": fitted["T1"], "T1ce": fitted["X"], "CT": fitted["X"]})

    cases = [case(100, 0, 150), case(200, 0, 400), case(400, -40, 1000)]
    assert output_scale(cases, "T1", "T1ce") == {"kind": "relative", "low": 0.0, "high": 2.0}
    assert output_scale(cases, "T1", "CT") == {"kind": "absolute", "low": 0.0, "high": 400.0}


def test_a_source_without_positive_intensities_gives_an_absolute_scale(data: SliceData):
    fitted = {"T1": FittedNormaliser(-5, 0), "T1ce": FittedNormaliser(1, 2)}
    case = dataclasses.replace(data.cases[0], fitted=fitted)
    assert output_scale([case], "T1", "T1ce")["kind"] == "absolute"
