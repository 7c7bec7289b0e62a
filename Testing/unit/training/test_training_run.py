"""Whole runs: files, exact resuming, refusals, the exported package."""

from __future__ import annotations

import csv
import hashlib
import json
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from training_cases import StopAtCheck, read_rows, state_of, write_table

from MedXlateCore.errors import Cancelled, InputError, MedXlateError, ResourceError
from MedXlateCore.inference.prepare import unstack
from MedXlateCore.io import read_volume
from MedXlateCore.models import tlp
from MedXlateCore.models.package import load_package
from MedXlateCore.pipeline import output_scale, translate
from MedXlateCore.training import checkpoint
from MedXlateCore.training.config import TrainingConfig
from MedXlateCore.training.data import prepare_data
from MedXlateCore.training.interruption import Interrupted, Interruption
from MedXlateCore.training.loop import step_seed
from MedXlateCore.training.run import config_of_run, train
from MedXlateCore.training.validation import Predictor, validate_case

Configure = Callable[..., TrainingConfig]


def refused(call: Callable[[], object]) -> MedXlateError:
    with pytest.raises(MedXlateError) as caught:
        call()
    return caught.value


# --- a run ---------------------------------------------------------------------------------------------------------


def test_a_run_leaves_its_files(finished_run):
    names = {path.name for path in finished_run.folder.iterdir() if not path.name.startswith(".")}
    assert {"config.toml", "run.json", "metrics.csv", "checkpoints", "previews", "model"} <= names
    assert len(list((finished_run.folder / "previews").glob("*.png"))) == 2
    assert config_of_run(finished_run.folder) == finished_run.config


def test_the_log_has_losses_baselines_and_all_conditions(finished_run):
    with (finished_run.folder / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    found = {(int(row["step"]), row["split"], row["metric"]) for row in rows}
    assert {
        (2, "train", "l1"),
        (6, "train", "adversarial"),
        (0, "val", "identity.mae"),
        (0, "val", "mean.mae"),
    } <= found
    for condition in ("none", "given", "sham"):
        assert {(step, "val", f"{condition}.mae") for step in (3, 6)} <= found
    assert (6, "val", "sham.change") in found
    assert len(found) == len(rows)


def test_two_runs_are_the_same_to_the_bit(finished_run, tmp_path: Path):
    train(finished_run.config, tmp_path / "run", quiet=True)
    assert state_of(tmp_path / "run") == state_of(finished_run.folder)


def test_another_seed_is_another_run(configure: Configure, finished_run, tmp_path: Path):
    train(configure("training.seed=1"), tmp_path / "run", quiet=True)
    assert state_of(tmp_path / "run")["tensors"] != state_of(finished_run.folder)["tensors"]


# --- stopping and resuming -----------------------------------------------------------------------------------------


# A run of six steps asks 51 times whether to stop: for each of 5 cases that it prepares, before each step, and between
# the passes of the validations after steps 3 and 6.
STOPS = (1, 4, 6, 7, 8, 9, 11, 13, 17, 20, 24, 28, 30, 31, 32, 33, 35, 40, 45, 49)


def traced(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """Have every step note a hash of its batch and of the random generators before and after it."""
    trace: dict[int, str] = {}
    original = tlp.TlpRecipe.step

    def step(self, batch, state):
        generators = [state.generator.get_state(), torch.get_rng_state()]
        losses = original(self, batch, state)
        generators += [state.generator.get_state(), torch.get_rng_state()]
        parts = [batch.images, batch.target, batch.regions, batch.foreground, *generators]
        trace[state.step] = hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()
        return losses

    monkeypatch.setattr(tlp.TlpRecipe, "step", step)
    return trace


@pytest.fixture(scope="module")
def uninterrupted(finished_run, tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Return the trace of a run that nothing interrupts."""
    with pytest.MonkeyPatch.context() as patch:
        trace = traced(patch)
        train(finished_run.config, tmp_path_factory.mktemp("traced") / "run", quiet=True)
    return trace


@pytest.mark.parametrize(
    "at", [pytest.param(at, marks=pytest.mark.slow) if n % 3 else at for n, at in enumerate(STOPS)]
)
def test_an_interrupted_and_resumed_run_ends_with_the_same_bits(
    finished_run, uninterrupted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
):
    """Weights, optimisers, moving average, log with its validation rows, package; batches and random generators too."""
    trace, folder = traced(monkeypatch), tmp_path / "run"
    with pytest.raises(Cancelled):
        train(finished_run.config, folder, quiet=True, interruption=StopAtCheck(at))
    started = (folder / "config.toml").exists()
    assert started == (at > 5)  # while cases are prepared, there is no run yet
    train(finished_run.config, folder, resume=started, quiet=True)
    assert state_of(folder) == state_of(finished_run.folder)
    assert trace == uninterrupted


def test_stopping_says_how_to_go_on(finished_run, tmp_path: Path):
    with pytest.raises(Cancelled) as caught:
        train(finished_run.config, tmp_path / "run", quiet=True, interruption=StopAtCheck(7))
    assert "--resume" in caught.value.fix
    assert config_of_run(tmp_path / "run") == finished_run.config


def test_the_stops_are_spread_over_the_whole_run(finished_run, tmp_path: Path):
    counter = StopAtCheck(10**6)
    train(finished_run.config, tmp_path / "run", quiet=True, interruption=counter)
    asked = 10**6 - counter.left
    assert len(set(STOPS)) == 20
    assert 0.9 * asked < max(STOPS) < asked


def test_a_run_that_is_interrupted_again_and_again_ends_with_the_same_bits(finished_run, tmp_path: Path):
    folder, attempts = tmp_path / "run", 0
    while True:
        attempts += 1
        try:  # each attempt gets a little further: 5 cases and 21 passes are checked before the next step
            train(finished_run.config, folder, resume=attempts > 1, quiet=True, interruption=StopAtCheck(28))
            break
        except Cancelled:
            assert attempts < 20
    assert attempts > 2
    assert state_of(folder) == state_of(finished_run.folder)


def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint_with_an_exact_log(
    finished_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Killed(BaseException):
        pass

    original = tlp.TlpRecipe.step

    def step(self, batch, state):
        if state.step == 5:
            raise Killed
        return original(self, batch, state)

    monkeypatch.setattr(tlp.TlpRecipe, "step", step)
    with pytest.raises(Killed):
        train(finished_run.config, tmp_path / "run", quiet=True)
    monkeypatch.undo()
    assert max((tmp_path / "run/checkpoints").glob("*.json")).name == "step-00000004.json"
    train(finished_run.config, tmp_path / "run", resume=True, quiet=True)
    assert state_of(tmp_path / "run") == state_of(finished_run.folder)


def test_a_damaged_newest_checkpoint_costs_some_steps_only(configure: Configure, tmp_path: Path):
    config, folder = configure(), tmp_path / "run"
    train(config, folder, quiet=True)
    expected = state_of(folder)
    newest = max((folder / "checkpoints").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    train(config, folder, resume=True, quiet=True)
    assert state_of(folder) == expected
    codes = [warning["code"] for warning in json.loads((folder / "run.json").read_text())["warnings"]]
    assert "MX-TRN-010" in codes


def test_a_finished_run_can_be_resumed_and_nothing_changes(configure: Configure, tmp_path: Path):
    config, folder = configure("training.steps=2"), tmp_path / "run"
    train(config, folder, quiet=True)
    before = state_of(folder)
    train(config, folder, resume=True, quiet=True)
    assert state_of(folder) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_stops_after_the_step(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    original = tlp.TlpRecipe.step

    def step(self, batch, state):
        if state.step == 1:
            signal.raise_signal(number)
        return original(self, batch, state)

    monkeypatch.setattr(tlp.TlpRecipe, "step", step)
    handler = signal.getsignal(number)
    with pytest.raises(Cancelled) as caught:
        train(configure("training.checkpoint_every=100"), tmp_path / "run", quiet=True)
    assert caught.value.exit_code == 130
    found, _ = checkpoint.load_newest(tmp_path / "run/checkpoints")
    assert found.progress.step == 2
    assert signal.getsignal(number) == handler


def test_interruption_works_from_another_thread():
    interruption = Interruption()
    outcome = []

    def work():
        with interruption:
            interruption.request()
            try:
                interruption.check()
            except Interrupted:
                outcome.append("stopped")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert outcome == ["stopped"]


def test_randomness_is_a_function_of_seed_step_and_process():
    seeds = {step_seed(seed, step, rank) for seed in range(3) for step in range(50) for rank in range(2)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)


# --- refusals ------------------------------------------------------------------------------------------------------


def test_a_folder_with_a_run_is_not_overwritten(finished_run):
    before = state_of(finished_run.folder)
    assert refused(lambda: train(finished_run.config, finished_run.folder, quiet=True)).code == "MX-TRN-001"
    assert state_of(finished_run.folder) == before


def test_nothing_to_resume_is_said(configure: Configure, tmp_path: Path):
    assert refused(lambda: config_of_run(tmp_path)).code == "MX-TRN-002"


def test_resuming_with_another_configuration_names_what_changed(configure: Configure, finished_run):
    error = refused(lambda: train(configure("recipe.l1_weight=10"), finished_run.folder, resume=True, quiet=True))
    assert error.code == "MX-TRN-003"
    assert "recipe.l1_weight was 100.0, is 10.0" in error.found


def test_resuming_with_other_data_is_refused(configure: Configure, cohort: Path, finished_run, tmp_path: Path):
    rows = read_rows(cohort)
    for row in rows:
        for column in ("T1", "T2", "T1ce", "seg"):
            row[column] = str(cohort.parent / row[column])
    config = configure(table=write_table(tmp_path / "cases.csv", rows[1:]))
    error = refused(lambda: train(config, finished_run.folder, resume=True, quiet=True))
    assert error.code == "MX-TRN-004"


def test_two_processes_cannot_train_in_one_folder(configure: Configure, tmp_path: Path):
    from MedXlateCore.files import folder_lock

    refusals = []

    def attempt():
        refusals.append(refused(lambda: train(configure(), tmp_path / "run", quiet=True)).code)

    with folder_lock(tmp_path / "run"):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    assert refusals == ["MX-FIL-015"]


def test_a_loss_that_is_not_finite_stops_and_saves_nothing_bad(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original = tlp.TlpRecipe.step

    def step(self, batch, state):
        losses = original(self, batch, state)
        return {**losses, "l1": float("nan")} if state.step == 3 else losses

    monkeypatch.setattr(tlp.TlpRecipe, "step", step)
    with pytest.raises(InputError) as caught:
        train(configure(), tmp_path / "run", quiet=True)
    assert caught.value.code == "MX-TRN-007"
    assert "'l1' is nan" in caught.value.found
    found, _ = checkpoint.load_newest(tmp_path / "run/checkpoints")
    assert found.progress.step == 2


def test_a_lack_of_memory_says_what_to_change(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def step(self, batch, state):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(tlp.TlpRecipe, "step", step)
    with pytest.raises(ResourceError) as caught:
        train(configure(), tmp_path / "run", quiet=True)
    assert caught.value.code == "MX-RES-001"
    assert "batch_size" in caught.value.fix


def test_a_missing_training_library_is_named(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    error = refused(lambda: train(configure(), tmp_path / "run", quiet=True))
    assert (error.code, error.exit_code) == ("MX-TRN-012", 4)
    assert "medxlate[train]" in error.fix


def test_a_card_that_cannot_be_is_refused_before_training(configure: Configure, tmp_path: Path):
    config = configure("package.version='new'")
    assert refused(lambda: train(config, tmp_path / "run", quiet=True)).code == "MX-MOD-012"


# --- the package ---------------------------------------------------------------------------------------------------


def test_the_package_says_what_it_is(finished_run):
    card = load_package(finished_run.folder / "model").card
    assert (card.sources, card.targets, card.prompts) == (("T1", "T2"), ("T1ce",), "region")
    assert card.grid == finished_run.config.grid.to_dict()
    assert card.output["T1ce"]["kind"] == "relative"
    assert card.training["train"] == {"cases": 3, "patients": 3, "annotated_cases": 3}
    assert card.metrics["figures"]["none.mae"]["count"] == 2
    assert card.metrics["figures"]["none.mae"]["interval"]["low"] is not None
    assert "identity.mae" in card.metrics["baselines"]
    assert "arXiv" in card.citation


def test_the_package_tells_nothing_of_cases_and_paths(finished_run, cohort: Path):
    text = (finished_run.folder / "model/model.json").read_text()
    assert str(cohort.parent) not in text
    assert "Pa" not in json.loads(text)["training"].values()
    assert "nii" not in text


def test_the_exported_network_is_the_moving_average_of_the_best_step(finished_run):
    found, _ = checkpoint.load_newest(finished_run.folder / "checkpoints")
    card = load_package(finished_run.folder / "model").card
    assert card.training["steps"] == found.progress.best_step
    if found.progress.best_step == found.progress.step:
        weights = load_package(finished_run.folder / "model").network.state_dict()
        assert all(torch.equal(found.tensors[f"network/average/{key}"], value) for key, value in weights.items())


@pytest.mark.parametrize("prompted", [False, True])
def test_validation_and_translation_give_the_same_bits(finished_run, shared_cache: Path, prompted: bool):
    case = prepare_data(finished_run.config, shared_cache).val[0]
    model = load_package(finished_run.folder / "model")
    result = validate_case(Predictor(model.network, torch.device("cpu")), case)
    sources = [read_volume(case.row.images[name], name) for name in ("T1", "T2")]
    roi = read_volume(case.row.regions, "label") if prompted else None
    synthetic = translate(sources, model, roi=roi, device="cpu").run()
    scale = output_scale(model.card, 0, case.fitted["T1"])
    predicted = result.predictions["given" if prompted else "none"]
    assert np.array_equal(synthetic.array, scale.invert(unstack(predicted)))


def test_without_validation_cases_the_last_state_is_exported(configure: Configure, cohort: Path, tmp_path: Path):
    rows = [row for row in read_rows(cohort) if row["split"] == "train"]
    for row in rows:
        for column in ("T1", "T2", "T1ce", "seg"):
            row[column] = str(cohort.parent / row[column])
    config = configure("training.steps=2", table=write_table(tmp_path / "cases.csv", rows))
    train(config, tmp_path / "run", quiet=True)
    card = load_package(tmp_path / "run/model").card
    assert card.training["steps"] == 2
    assert card.metrics == {}


def test_a_run_of_one_source_without_annotations_works(configure: Configure, cohort: Path, tmp_path: Path):
    config = configure(
        "training.steps=2", "data.sources=['T2']", "data.roi=none", "model.config.inputs=1", "training.ema_decay=0"
    )
    train(config, tmp_path / "run", quiet=True)
    card = load_package(tmp_path / "run/model").card
    assert card.sources == ("T2",)
    assert "given.mae" not in card.metrics["figures"]
    assert "sham.change" in card.metrics["figures"]


def test_half_precision_trains(configure: Configure, tmp_path: Path):
    train(configure("training.steps=1", "training.precision=bf16-mixed"), tmp_path / "run", quiet=True)
    assert (tmp_path / "run/model/model.json").exists()
