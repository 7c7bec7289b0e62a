"""A folder of cases."""

import csv
import json

import numpy as np
import pytest

from MedXlateCore.errors import UsageError
from MedXlateCore.io import read_volume
from MedXlateCore.phantom import cohort
from MedXlateCore.phantom.cohort import CohortPlan, write_cohort
from MedXlateCore.phantom.fields import generator
from MedXlateCore.phantom.physics import acquisition_for, vary_acquisition
from MedXlateCore.volume import Modality

SMALL = {"shape": (24, 30, 20), "modalities": (Modality.T1, Modality.T1CE)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort") / "new"
    plan = CohortPlan(cases=4, seed=3, splits=(2, 1, 1), lesion_free_fraction=0.25, write_mask=True, **SMALL)
    return folder, plan, list(write_cohort(plan, folder))


def rows(folder):
    with (folder / "cases.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_table_names_files_that_exist_with_their_splits(made):
    folder, _, _ = made
    table = rows(folder)
    assert list(table[0]) == ["case", "patient", "split", "T1", "T1ce", "seg", "mask"]
    assert [row["split"] for row in table] == ["train", "train", "val", "test"]
    assert len({row["patient"] for row in table}) == 4
    for row in table:
        for column in ("T1", "T1ce", "seg", "mask"):
            assert (folder / row[column]).is_file()


def test_files_read_back_on_one_grid(made):
    folder, _, _ = made
    row = rows(folder)[0]
    image, labels = read_volume(folder / row["T1"], "T1"), read_volume(folder / row["seg"], "label")
    assert image.array.dtype == np.float32
    assert image.geometry.allclose(labels.geometry, 1e-4)
    assert set(np.unique(labels.array)) <= {0, 1, 2, 4}


def test_events_count_up_and_the_description_holds_seeds_and_settings(made):
    folder, _, events = made
    assert [(e.number, e.total) for e in events] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    facts = json.loads((folder / "phantom.json").read_text())
    assert facts["seed"] == 3
    assert "not for diagnosis" in facts["what"]
    assert [case["seed"] for case in facts["cases"]] == [3_000_000, 3_000_001, 3_000_002, 3_000_003]
    assert facts["cases"][0]["acquisitions"]["T1ce"]["agent_dose_mmol_per_kg"] == 0.1


def test_heads_without_tumour_are_as_many_as_asked_for(made):
    _, _, events = made
    assert sum(not event.facts["lesions"] for event in events) == 1


def test_the_table_serves_training(made):
    table = pytest.importorskip("MedXlateCore.training.table")
    config = pytest.importorskip("MedXlateCore.training.config")
    folder, _, _ = made
    data = config.DataTable(table=str(folder / "cases.csv"), sources=("T1",), target="T1ce", roi="seg")
    assert [row.split for row in table.read_table(data).rows] == ["train", "train", "val", "test"]


def test_a_folder_with_content_is_refused_unless_overwritten(made):
    folder, plan, _ = made
    with pytest.raises(UsageError, match="MX-USE-186"):
        next(write_cohort(plan, folder))


def test_overwriting_removes_the_earlier_cases_and_nothing_else(tmp_path):
    list(write_cohort(CohortPlan(cases=2, seed=1, splits=(1, 0, 0), **SMALL), tmp_path))
    (tmp_path / "notes.txt").write_text("mine")
    list(write_cohort(CohortPlan(cases=1, seed=2, splits=(1, 0, 0), **SMALL), tmp_path, overwrite=True))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cases.csv", "notes.txt", "phantom.json", "phantom_s2_0001"]


def test_overwriting_that_is_stopped_leaves_no_table_of_cases_that_are_gone(tmp_path):
    list(write_cohort(CohortPlan(cases=1, seed=1, splits=(1, 0, 0), **SMALL), tmp_path))
    run = write_cohort(CohortPlan(cases=2, seed=2, splits=(1, 0, 0), **SMALL), tmp_path, overwrite=True)
    next(run)
    run.close()
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_run_leaves_nothing(tmp_path):
    run = write_cohort(CohortPlan(cases=3, splits=(1, 0, 0), **SMALL), tmp_path / "out")
    next(run)
    run.close()
    assert not (tmp_path / "out").exists()


def test_a_failed_case_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk gone")

    monkeypatch.setattr(cohort, "atomic_write_text", fail)
    with pytest.raises(OSError, match="disk gone"):
        list(write_cohort(CohortPlan(cases=1, splits=(1, 0, 0), **SMALL), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_worker_processes_make_the_same_bytes(tmp_path):
    plan = CohortPlan(cases=2, seed=4, splits=(1, 0, 0), **SMALL)
    list(write_cohort(plan, tmp_path / "one"))
    list(write_cohort(plan, tmp_path / "two", jobs=2))
    assert (tmp_path / "one/cases.csv").read_text() == (tmp_path / "two/cases.csv").read_text()
    for row in rows(tmp_path / "one"):
        first, second = (read_volume(tmp_path / side / row["T1"]).array for side in ("one", "two"))
        assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize(
    ("cases", "splits", "expected"),
    [
        (10, (0.8, 0.1, 0.1), (8, 1, 1)),
        (7, (0.6, 0.2, 0.2), (4, 2, 1)),
        (1, (0.8, 0.1, 0.1), (1, 0, 0)),
        (6, (3, 2, 1), (3, 2, 1)),
        (5, (1, 0, 0), (5, 0, 0)),
    ],
)
def test_splits_are_fractions_or_counts(cases, splits, expected):
    assert CohortPlan(cases=cases, splits=splits).split_counts() == expected


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("MX-USE-184", {"cases": 0}),
        ("MX-USE-184", {"cases": 10**9}),
        ("MX-USE-185", {"cases": 4, "splits": (0.5, 0.1, 0.1)}),
        ("MX-USE-185", {"cases": 4, "splits": (2, 1, 0)}),
        ("MX-USE-185", {"cases": 4, "splits": (1.5, -0.5, 0.0)}),
        ("MX-USE-185", {"cases": 4, "splits": (float("nan"), 0.5, 0.5)}),
        ("MX-USE-188", {"cases": 4, "lesion_free_fraction": 1.5}),
        ("MX-USE-183", {"cases": 4, "seed": -2}),
        ("MX-USE-182", {"cases": 4, "shape": (2, 2, 2)}),
        ("MX-USE-180", {"cases": 4, "modalities": (Modality.LABEL,)}),
        ("MX-USE-180", {"cases": 4, "modalities": ()}),
        ("MX-USE-181", {"cases": 4, "field_strength_t": 7.0}),
        ("MX-USE-181", {"cases": 4, "acquisitions": {Modality.T1: {"echo_time_ms": 1e5}}}),
    ],
)
def test_impossible_plans_are_refused_before_anything_is_made(code, arguments):
    with pytest.raises(UsageError, match=code):
        CohortPlan(**arguments)


def test_an_impossible_number_of_jobs_is_refused(tmp_path):
    with pytest.raises(UsageError, match="MX-USE-189"):
        next(write_cohort(CohortPlan(cases=1, **SMALL), tmp_path / "out", jobs=0))


def test_varied_settings_differ_between_cases_and_stay_possible():
    base = acquisition_for(Modality.FLAIR)
    varied = [vary_acquisition(base, generator(n, "acquisition")) for n in range(50)]
    assert len({scan.echo_time_ms for scan in varied}) > 40
    assert all(abs(scan.inversion_time_ms / base.inversion_time_ms - 1) < 0.03 for scan in varied)
    assert all(abs(np.log(scan.repetition_time_ms / base.repetition_time_ms)) < 0.16 for scan in varied)
    assert vary_acquisition(base, generator(0, "acquisition")) == varied[0]
