"""Runs: what they leave, going on, what is done again and what is not, runs that fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from experiment_cases import Conducted, Ended, InProcess, conduct, experiment_for, mapping_for
from training_cases import StopAtCheck, read_rows, write_table

from MedXlateCore.errors import Cancelled, MedXlateError
from MedXlateCore.experiment import running, worker
from MedXlateCore.experiment.cases import survey
from MedXlateCore.experiment.config import Experiment, experiment_from_mapping
from MedXlateCore.experiment.plan import make_plan
from MedXlateCore.experiment.running import choose_slots, do_runs
from MedXlateCore.experiment.testing import volume_path
from MedXlateCore.experiment.worker import main as stage
from MedXlateCore.io import read_volume
from MedXlateCore.training.interruption import Interruption
from MedXlateCore.training.run import train

Tiny = Callable[..., Experiment]
ONE = "experiment.directions=['T1->T2']"


def refused(call: Callable[[], object]) -> MedXlateError:
    with pytest.raises(MedXlateError) as caught:
        call()
    return caught.value


@pytest.fixture
def copied(done: Conducted, blobs: Path, tmp_path: Path) -> Callable[..., Experiment]:
    """Return a function to the finished experiment, in a copy of its folder, with other settings."""
    shutil.copytree(done.experiment.folder, tmp_path / "out")
    for path in (tmp_path / "out" / "runs").rglob("task.json"):
        path.write_text(path.read_text().replace(str(done.experiment.folder), str(tmp_path / "out")))

    def make(*overrides: str, table: Path = blobs) -> Experiment:
        settings = ("experiment.pictures=true", "experiment.seeds=[0, 1]", *overrides)
        return experiment_for(table, tmp_path / "out", *settings)

    return make


# --- a run ---------------------------------------------------------------------------------------------------------


def test_every_run_is_finished_and_measured_on_every_test_case(done: Conducted):
    assert {outcome.status for outcome in done.outcomes} == {"finished"}
    for outcome in done.outcomes:
        assert outcome.results is not None
        cases = [(case["direction"], case["case"]) for case in outcome.results["cases"]]
        assert cases == [(str(direction), case) for direction in outcome.run.directions for case in "def"]


def test_time_memory_and_parameters_are_measured(done: Conducted):
    facts = done.outcome("one-by-one/t1-to-t2/seed-0").results
    assert facts is not None
    assert facts["parameters"] == 2
    assert facts["memory"]["peak_bytes"] >= facts["memory"]["before_bytes"] > 10 << 20
    assert all(0 < case["seconds"] < 10 for case in facts["cases"])
    assert facts["training"]["steps"] == 2
    assert facts["training"]["minutes"] > 0


def test_the_identity_is_the_source_on_the_scale_of_a_model(done: Conducted):
    """On images normalised by their own range, the identity's result is the source, scaled to the target's range."""
    experiment = done.experiment
    direction = experiment.directions[0]
    row = done.cohort.test(direction)[0]
    made = read_volume(volume_path(experiment.folder / "runs/identity/t1-to-t2", direction, row.case), "T2")
    source = read_volume(row.images["T1"], "T1")
    ratio = made.array[source.array > 100] / source.array[source.array > 100]
    assert ratio.std() < 1e-3 * ratio.mean()
    assert made.geometry.allclose(source.geometry)


def test_only_the_shown_case_of_the_first_seed_is_kept(done: Conducted):
    kept = sorted(path.name for path in (done.experiment.folder / "runs").rglob("*.nii.gz"))
    assert kept == ["d.nii.gz"] * 2 * 4  # two directions; two methods and two baselines
    assert not list((done.experiment.folder / "runs").rglob("seed-1/volumes"))


# --- going on ------------------------------------------------------------------------------------------------------


def test_nothing_is_done_twice(copied):
    again = conduct(copied())
    assert again.stages == []
    assert {outcome.status for outcome in again.outcomes} == {"earlier"}
    assert all(outcome.results for outcome in again.outcomes)


def test_another_protocol_is_another_test_but_no_other_training(copied):
    again = conduct(copied("evaluation.protocol=medprompt", ONE))
    key = "one-by-one/t1-to-t2/seed-0"
    results = again.outcome(key).results
    assert results is not None
    assert set(results["cases"][0]["figures"]) == {"whole image"}
    assert results["training"]["steps"] == 2


@pytest.mark.parametrize("override", ["budget.steps=3", "training.batch_size=1", "intensity.T1.kind=percentile"])
def test_other_settings_are_refused_where_a_training_is(copied, override: str):
    error = refused(lambda: conduct(copied(override)))
    assert (error.code, "configuration" in error.found) == ("MX-EXP-006", True)


def test_other_data_are_refused_where_a_training_is(copied, own_blobs: Path):
    rows = [row for row in read_rows(own_blobs) if row["case"] != "b"]
    error = refused(lambda: conduct(copied(table=write_table(own_blobs, rows))))
    assert (error.code, "data" in error.found) == ("MX-EXP-006", True)


def test_a_model_that_changed_is_not_taken_for_the_one_that_was_tested(copied):
    experiment = copied(ONE)
    weights = next((experiment.folder / "runs/one-by-one/t1-to-t2/seed-0/training/model").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    again = conduct(experiment)
    error = again.outcome("one-by-one/t1-to-t2/seed-0").error
    assert error is not None
    assert error["code"].startswith("MX-MOD")


def test_an_interrupted_training_goes_on(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    experiment = tiny(ONE, "budget.steps=4")

    def stopped(config, folder, **settings):
        return train(config, folder, **settings, interruption=StopAtCheck(6))

    with monkeypatch.context() as patch:
        patch.setattr(worker, "train", stopped)
        assert refused(lambda: conduct(experiment)).code == "MX-RUN-130"
    folder = experiment.folder / "runs/one-by-one/t1-to-t2/seed-0/training"
    reached = max(int(path.stem[5:]) for path in (folder / "checkpoints").glob("*.json"))
    assert 0 < reached < 4
    seen: list[bool] = []

    def resumed(config, folder, **settings):
        seen.append(settings["resume"])
        return train(config, folder, **settings)

    monkeypatch.setattr(worker, "train", resumed)
    again = conduct(experiment)
    assert [outcome.status for outcome in again.outcomes] == ["earlier", "earlier", "finished", "finished"]
    assert seen == [True, False]


def test_ctrl_c_stops_what_is_under_way_and_says_how_to_go_on(tiny: Tiny):
    stop, stopped = Interruption(), []

    class Working:
        def poll(self) -> int | None:
            stop.request()
            return -15 if stopped else None

        def terminate(self) -> None:
            stopped.append(True)

    experiment = tiny(ONE)
    runs = do_runs(experiment, make_plan(experiment), survey(experiment), ["cpu"], start=lambda words: Working(),
                   interruption=stop)  # fmt: skip
    with pytest.raises(Cancelled) as caught:
        list(runs)
    assert stopped == [True]
    assert "same command" in caught.value.fix


# --- runs that fail ------------------------------------------------------------------------------------------------


def test_a_training_that_diverges_is_on_record_and_the_others_go_on(blobs: Path, tmp_path: Path):
    mapping = mapping_for(blobs, tmp_path / "out", ONE)
    mapping["method"][0]["recipe"] = {"nan_at": 1}
    found = conduct(experiment_from_mapping(mapping))
    assert [outcome.status for outcome in found.outcomes] == ["finished", "finished", "failed", "finished"]
    error = found.outcome("one-by-one/t1-to-t2/seed-0").error
    assert error is not None
    assert (error["code"], error["exit_code"]) == ("MX-TRN-007", 3)
    assert json.loads((tmp_path / "out/runs/one-by-one/t1-to-t2/seed-0/failure.json").read_text()) == error


def test_a_process_that_dies_is_on_record(tiny: Tiny):
    class Dying(InProcess):
        def __call__(self, arguments: Sequence[str]) -> Ended:
            return Ended(-9) if arguments[1] == "train" else Ended(stage([*arguments, "--quiet"]))

    found = conduct(tiny(ONE), Dying())
    errors = [outcome.error for outcome in found.outcomes if outcome.error is not None]
    assert [error["code"] for error in errors] == ["MX-EXP-007", "MX-EXP-007"]
    assert "-9" in errors[0]["found"]


def test_a_test_case_that_cannot_be_used_is_on_record_and_the_others_are_measured(own_blobs: Path, tiny: Tiny):
    own_blobs.with_name("e_T2.nii.gz").write_bytes(own_blobs.with_name("e_T2.nii.gz").read_bytes()[:300])
    found = conduct(tiny(ONE, table=own_blobs))
    for outcome in found.outcomes:
        assert outcome.results is not None
        assert [case["case"] for case in outcome.results["cases"]] == ["d", "f"]
        assert [case["case"] for case in outcome.results["failed"]] == ["e"]
        assert outcome.results["failed"][0]["error"]["code"].startswith("MX-FIL")


# --- devices -------------------------------------------------------------------------------------------------------


def test_a_cpu_takes_one_run_at_a_time_and_more_with_a_remark():
    assert choose_slots("cpu", None) == (["cpu"], [])
    slots, warnings = choose_slots("cpu", 2)
    assert (slots, [w.code for w in warnings]) == (["cpu", "cpu"], ["MX-EXP-102"])


def test_each_gpu_takes_one_run(monkeypatch: pytest.MonkeyPatch):
    device = replace(running.choose_device("cpu"), torch_device=running.torch.device("cuda:0"))
    monkeypatch.setattr(running, "choose_device", lambda name: device)
    monkeypatch.setattr(running.torch.cuda, "device_count", lambda: 3)
    assert choose_slots("auto", None)[0] == ["cuda:0", "cuda:1", "cuda:2"]
    assert choose_slots("auto", 2)[0] == ["cuda:0", "cuda:1"]
    slots, warnings = choose_slots("auto", 5)
    assert (len(slots), [w.code for w in warnings]) == (3, ["MX-EXP-103"])
    assert choose_slots("cuda:0", None)[0] == ["cuda:0"]


def test_no_run_at_a_time_is_refused():
    assert refused(lambda: choose_slots("cpu", 0)).code == "MX-EXP-011"
