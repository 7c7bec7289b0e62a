"""Cases and runs: what is trained together, what is skipped and why, what the table of cases must not have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from experiment_cases import conduct, experiment_for, mapping_for, write_table
from training_cases import read_rows

from MedXlateCore.errors import MedXlateError
from MedXlateCore.experiment.cases import survey
from MedXlateCore.experiment.config import Experiment, experiment_from_mapping
from MedXlateCore.experiment.plan import make_plan

Tiny = Callable[..., Experiment]


def refused(call: Callable[[], object]) -> MedXlateError:
    with pytest.raises(MedXlateError) as caught:
        call()
    return caught.value


def keys(experiment: Experiment) -> list[str]:
    return [run.key for run in make_plan(experiment).runs]


def test_a_method_for_several_directions_is_trained_once_and_others_once_for_each(tiny: Tiny):
    assert keys(tiny()) == [
        "identity/t1-to-t2",
        "mean-image/t1-to-t2",
        "identity/t2-to-t1",
        "mean-image/t2-to-t1",
        "one-by-one/t1-to-t2/seed-0",
        "one-by-one/t2-to-t1/seed-0",
        "all-at-once/t1-to-t2+t2-to-t1/seed-0",
    ]


def test_each_seed_is_a_run_of_its_own(tiny: Tiny):
    runs = make_plan(tiny("experiment.seeds=[3, 5]")).runs
    assert sorted({run.seed for run in runs if not run.baseline}) == [3, 5]
    assert len([run for run in runs if not run.baseline]) == 6


def test_directions_with_other_numbers_of_sources_are_learned_apart(tiny: Tiny):
    plan = make_plan(tiny("experiment.directions=['T1->T2', 'T1,T2->T1ce', 'T2->T1']"))
    groups = [run.directions for run in plan.runs if run.name == "All at once"]
    assert [[len(direction.sources) for direction in group] for group in groups] == [[1, 1], [2]]
    assert [run.config.architecture().inputs for run in plan.runs if not run.baseline] == [1, 2, 1, 1, 2]


def test_every_training_has_the_budget_and_the_shared_settings(tiny: Tiny):
    runs = [run for run in make_plan(tiny()).runs if not run.baseline]
    assert {(run.config.training.steps, run.config.training.batch_size) for run in runs} == {(2, 2)}


def test_what_a_method_cannot_take_is_skipped_with_the_reason(blobs: Path, tmp_path: Path):
    mapping = mapping_for(blobs, tmp_path, "experiment.directions=['T1->T2', 'T1,T2->T1ce']")
    mapping["method"][0]["config"] = {"inputs": 1}
    plan = make_plan(experiment_from_mapping(mapping))
    assert [(skip.name, str(skip.directions[0]), skip.error["code"]) for skip in plan.skips] == [
        ("One by one", "T1,T2->T1ce", "MX-TRN-013")
    ]


def test_an_unknown_method_is_passed_over_if_the_file_says_so(blobs: Path, tmp_path: Path):
    mapping = mapping_for(blobs, tmp_path, "experiment.skip_unknown=true")
    mapping["method"][0]["method"] = "no_such_method"
    plan = make_plan(experiment_from_mapping(mapping))
    assert [(skip.name, skip.error["code"]) for skip in plan.skips] == [("One by one", "MX-MOD-001")]


def test_an_experiment_without_any_method_left_is_refused(blobs: Path, tmp_path: Path):
    mapping = mapping_for(blobs, tmp_path, "experiment.skip_unknown=true")
    mapping["method"] = [{"method": "no_such_method"}]
    assert refused(lambda: make_plan(experiment_from_mapping(mapping))).code == "MX-EXP-010"


# --- cases ---------------------------------------------------------------------------------------------------------


def changed(table: Path, **cells: dict[str, str]) -> Path:
    rows = read_rows(table)
    for row in rows:
        row.update(cells.get(row["case"], {}))
    return write_table(table, rows)


@pytest.mark.parametrize(
    ("cells", "code"),
    [
        ({"d": {"patient": "Pa"}}, "MX-DAT-006"),
        ({"d": {"T1": "a_T1.nii.gz"}}, "MX-DAT-006"),
        ({case: {"split": "val"} for case in "def"}, "MX-EXP-005"),
        ({case: {"T2": ""} for case in "abcdef"}, "MX-DAT-009"),
        ({"e": {"T2": "nowhere.nii.gz"}}, "MX-DAT-007"),
        ({"e": {"split": "tset"}}, "MX-DAT-005"),
    ],
    ids=["a patient in two splits", "an image in two splits", "no test case", "nobody has T2", "no file", "no split"],
)
def test_a_table_that_cannot_be_used_is_refused_before_anything_runs(own_blobs: Path, tiny: Tiny, cells, code: str):
    assert refused(lambda: survey(tiny(table=changed(own_blobs, **cells)))).code == code


def test_a_patient_whose_cases_serve_different_directions_must_not_be_in_two_splits(own_blobs: Path, tiny: Tiny):
    table = changed(own_blobs, a={"T1ce": ""}, d={"T2": "", "patient": "Pa"})
    error = refused(lambda: survey(tiny("experiment.directions=['T1->T2', 'T1->T1ce']", table=table)))
    assert error.code == "MX-DAT-006"


def test_a_direction_without_a_column_names_the_direction(tiny: Tiny):
    error = refused(lambda: survey(tiny("experiment.directions=['T1->CT']", "intensity.CT={ kind = 'minmax' }")))
    assert (error.code, "T1->CT" in error.where) == ("MX-DAT-003", True)


def test_cases_that_lack_a_modality_are_left_out_and_named(own_blobs: Path, tiny: Tiny):
    cohort = survey(tiny(table=changed(own_blobs, b={"T2": ""}, e={"T1": ""})))
    assert sorted(w.found for w in cohort.warnings if w.code == "MX-DAT-008") == [
        "the case 'b' has no T2",
        "the case 'e' has no T1",
    ]
    assert cohort.counts(tiny().directions[0]) == {"train": (1, 1), "val": (1, 1), "test": (2, 2)}


def test_a_target_of_another_place_is_found_and_named(own_blobs: Path, tmp_path: Path):
    """In training it ends the runs that need it, with its code; in the test it is left out, with its code."""
    from MedXlateCore.io import read_volume, write_volume
    from MedXlateCore.volume import Geometry, Volume

    for case in ("a", "e"):
        path = own_blobs.with_name(f"{case}_T2.nii.gz")
        volume = read_volume(path, "T2")
        affine = volume.geometry.affine_ras.copy()
        affine[0, 3] += 12.0
        path.unlink()
        write_volume(Volume(volume.array, Geometry(volume.geometry.shape, affine), volume.modality), path)
    found = conduct(experiment_for(own_blobs, tmp_path / "out", "experiment.directions=['T1->T2', 'T1->T1ce']"))
    failed = found.outcome("one-by-one/t1-to-t2/seed-0").error
    assert failed is not None
    assert (failed["code"], "case 'a'" in failed["where"]) == ("MX-GEO-030", True)
    assert found.outcome("one-by-one/t1-to-t1ce/seed-0").status == "finished"
