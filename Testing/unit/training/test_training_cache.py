"""Prepared cases: content, reuse, invalidation, memory mapping."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from training_cases import blob_case, config_for, write_table

from MedXlateCore.errors import InputError, ResourceError
from MedXlateCore.inference.prepare import prepare_sources, slice_stack
from MedXlateCore.io import read_volume, write_volume
from MedXlateCore.training import cache
from MedXlateCore.training.cache import open_case
from MedXlateCore.training.data import SliceData
from MedXlateCore.training.table import CaseRow, read_table
from MedXlateCore.volume import Volume


def row_of(table: Path, case: str = "a") -> CaseRow:
    return next(row for row in read_table(config_for(table).data).rows if row.case == case)


@pytest.fixture
def own_table(tmp_path: Path) -> Path:
    """Return the table of one case, which the test may change."""
    return write_table(tmp_path / "cases.csv", [blob_case(tmp_path, "a", seed=0)])


def test_a_case_holds_what_translation_would_prepare(cohort: Path, tmp_path: Path):
    config, row = config_for(cohort), row_of(cohort)
    case = open_case(row, config, tmp_path)
    sources = [read_volume(row.images[name], name) for name in config.data.sources]
    prepared = prepare_sources(sources, sources[0].geometry, config.grid, config.intensity)
    assert case.images.shape == (6, 3, 32, 32)
    assert np.array_equal(case.images[:, :2], prepared.images.swapaxes(0, 1))
    assert np.array_equal(case.masks[:, 2], prepared.foreground)
    assert list(case.slices) == prepared.occupied_slices
    assert (case.fitted["T1"], case.fitted["T2"]) == prepared.fitted
    target = read_volume(row.images["T1ce"], "T1ce").array
    assert np.allclose(case.fitted["T1ce"].invert(case.images[:, 2]), slice_stack(target), atol=1e-3)


def test_regions_are_told_apart_by_label(cohort: Path, tmp_path: Path):
    row = row_of(cohort)
    case = open_case(row, config_for(cohort), tmp_path)
    labels = slice_stack(read_volume(row.regions, "label").array)
    assert np.array_equal(case.masks[:, 0], labels == 2)
    assert np.array_equal(case.masks[:, 1], labels == 4)


def test_label_values_without_a_meaning_are_refused_unless_they_are_to_be_ignored(cohort: Path, tmp_path: Path):
    row, core_only = row_of(cohort), "data.labels={ core = [4] }"
    with pytest.raises(InputError) as caught:
        open_case(row, config_for(cohort, core_only), tmp_path)
    assert caught.value.code == "MX-ROI-013"
    case = open_case(row, config_for(cohort, core_only, "data.ignored_labels=[2]"), tmp_path)
    assert not case.masks[:, 0].any()
    assert case.masks[:, 1].any()


def test_arrays_are_mapped_from_the_disk_and_read_only(cohort: Path, tmp_path: Path):
    case = open_case(row_of(cohort), config_for(cohort), tmp_path)
    for array in (case.images, case.masks):
        assert isinstance(array, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_a_second_opening_prepares_nothing(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config, row = config_for(cohort), row_of(cohort)
    first = open_case(row, config, tmp_path)
    monkeypatch.setattr(cache, "_prepare", lambda *_: pytest.fail("prepared again"))
    second = open_case(row, config, tmp_path)
    assert second.key == first.key
    assert second.fitted == first.fitted


@pytest.mark.parametrize(
    "override",
    [
        "intensity.T2.upper=99.0",
        "grid.crop.size=[28, 32, 'none']",
        "data.labels={ core = [2, 4] }",
        "data.cache_dtype=float16",
    ],
)
def test_other_settings_make_another_entry(cohort: Path, tmp_path: Path, override: str):
    row = row_of(cohort)
    assert (
        open_case(row, config_for(cohort), tmp_path).key != open_case(row, config_for(cohort, override), tmp_path).key
    )


def test_other_content_under_the_same_name_makes_another_entry(own_table: Path, tmp_path: Path):
    config, row = config_for(own_table), row_of(own_table)
    before = open_case(row, config, tmp_path / "cache")
    volume = read_volume(row.images["T1ce"], "T1ce")
    write_volume(Volume(volume.array * 2, volume.geometry, volume.modality), row.images["T1ce"])
    after = open_case(row, config, tmp_path / "cache")
    assert after.key != before.key
    assert after.fitted["T1ce"].high == pytest.approx(2 * before.fitted["T1ce"].high)


def test_the_data_file_of_a_header_counts_as_content(own_table: Path, tmp_path: Path):
    import SimpleITK as sitk

    header = tmp_path / "a_T1.mhd"
    image = sitk.ReadImage(str(tmp_path / "a_T1.nii.gz"))
    sitk.WriteImage(image, str(header))
    own_table.write_text(own_table.read_text().replace("a_T1.nii.gz", "a_T1.mhd"))
    config, row = config_for(own_table), row_of(own_table)
    before = open_case(row, config, tmp_path / "cache")
    sitk.WriteImage(image * 2, str(header))
    assert open_case(row, config, tmp_path / "cache").key != before.key


@pytest.mark.parametrize("damage", ["json", "images", "masks"])
def test_a_damaged_entry_is_made_again(cohort: Path, tmp_path: Path, damage: str):
    config, row = config_for(cohort), row_of(cohort)
    first = open_case(row, config, tmp_path)
    expected = np.array(first.images)
    suffix = "json" if damage == "json" else f"{damage}.npy"
    path = tmp_path / f"{first.key}.{suffix}"
    path.write_bytes(path.read_bytes()[:-40])
    again = open_case(row, config, tmp_path)
    assert np.array_equal(again.images, expected)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".mxtmp")]


def test_half_precision_halves_the_images(cohort: Path, tmp_path: Path):
    row = row_of(cohort)
    full = open_case(row, config_for(cohort), tmp_path)
    half = open_case(row, config_for(cohort, "data.cache_dtype=float16"), tmp_path)
    assert half.images.nbytes * 2 == full.images.nbytes
    assert np.abs(half.images.astype(np.float32) - full.images).max() <= 5e-4


def test_an_error_names_the_case(own_table: Path, tmp_path: Path):
    row = row_of(own_table)
    volume = read_volume(row.images["T2"], "T2")
    write_volume(Volume(np.full_like(volume.array, 7.0), volume.geometry, volume.modality), row.images["T2"])
    with pytest.raises(InputError) as caught:
        open_case(row, config_for(own_table), tmp_path / "cache")
    assert "case 'a'" in caught.value.where
    assert not list((tmp_path / "cache").glob("*.npy"))


def test_too_little_disk_space_is_noticed_before_writing(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ResourceError) as caught:
        open_case(row_of(cohort), config_for(cohort), tmp_path)
    assert caught.value.code == "MX-FIL-013"


def test_a_single_slice_is_a_case(tmp_path: Path):
    table = write_table(tmp_path / "cases.csv", [blob_case(tmp_path, "a", seed=1, shape=(32, 32, 1))])
    case = open_case(row_of(table), config_for(table), tmp_path / "cache")
    assert case.images.shape == (1, 3, 32, 32)
    assert case.slices == (0,)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads Linux's list of maps")
def test_no_file_stays_open_or_mapped_after_it_was_read(cohort: Path, tmp_path: Path):
    """Pages of maps would count as the process's memory, and open files are few."""

    def held() -> list[str]:
        maps = Path("/proc/self/maps").read_text().splitlines()
        files = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        return [text for text in (*maps, *files) if str(tmp_path) in text]

    config = config_for(cohort)
    cases = [open_case(row, config, tmp_path) for row in read_table(config.data).rows]
    assert held() == []  # opening a case opens no file
    images = cases[0].images
    assert len(held()) > 0
    del images
    sums = [float(case.images.sum()) for case in cases]
    batch = SliceData(cases).batch(range(4))
    assert batch.images.isfinite().all()
    assert held() == []
    assert [float(case.images.sum()) for case in cases] == sums
