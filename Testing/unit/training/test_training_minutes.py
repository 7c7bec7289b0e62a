"""Runs of given minutes: they stop at their time, the schedule follows the clock, resuming spends what is left."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from training_cases import StopAtCheck

from MedXlateCore.errors import Cancelled
from MedXlateCore.models import tlp
from MedXlateCore.training import checkpoint, loop
from MedXlateCore.training.config import TrainingConfig, load_config
from MedXlateCore.training.length import Length
from MedXlateCore.training.run import train

Configure = Callable[..., TrainingConfig]
TEN_STEPS = ("training.steps=none", "training.minutes=0.5", "training.validate_every=0", "training.checkpoint_every=0")


class Clock:
    """A clock on which every step takes three seconds, as it is read before and after each."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Return the time, three seconds later with each reading."""
        self.now += 3.0
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)
    return clock


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_a_run_of_given_minutes_stops_at_its_time(configure: Configure, tmp_path: Path, clock: Clock):
    train(configure(*TEN_STEPS), tmp_path / "run", quiet=True)
    newest, _ = checkpoint.load_newest(tmp_path / "run" / "checkpoints")
    assert newest is not None
    assert (newest.progress.step, newest.seconds) == (10, 30.0)


def test_the_learning_rate_follows_the_elapsed_fraction(
    configure: Configure, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    seen: list[float] = []
    original = tlp.TlpRecipe.learning_rate_factor

    def factor(self, progress: float) -> float:
        seen.append(progress)
        return original(self, progress)

    monkeypatch.setattr(tlp.TlpRecipe, "learning_rate_factor", factor)
    train(configure(*TEN_STEPS), tmp_path / "run", quiet=True)
    assert seen == pytest.approx([n / 10 for n in range(10)])


def test_it_is_validated_after_each_quarter(configure: Configure, tmp_path: Path, clock: Clock):
    train(configure(*TEN_STEPS), tmp_path / "run", quiet=True)
    steps = sorted({int(row["step"]) for row in rows_of(tmp_path / "run") if row["metric"] == "score"})
    assert steps == [3, 5, 8, 10]


def test_resuming_spends_the_minutes_that_are_left(configure: Configure, tmp_path: Path, clock: Clock):
    folder = tmp_path / "run"
    with pytest.raises(Cancelled, match="minutes"):
        train(configure(*TEN_STEPS), folder, quiet=True, interruption=StopAtCheck(10))
    stopped, _ = checkpoint.load_newest(folder / "checkpoints")
    assert stopped is not None
    assert 0 < stopped.progress.step < 10
    train(configure(*TEN_STEPS), folder, quiet=True, resume=True)
    newest, _ = checkpoint.load_newest(folder / "checkpoints")
    assert newest is not None
    assert (newest.progress.step, newest.seconds) == (10, 30.0)


def test_the_record_says_that_it_cannot_be_repeated(configure: Configure, tmp_path: Path, clock: Clock):
    train(configure(*TEN_STEPS), tmp_path / "run", quiet=True)
    warnings = json.loads((tmp_path / "run" / "run.json").read_text())["warnings"]
    assert [w["code"] for w in warnings if w["code"] == "MX-TRN-016"] == ["MX-TRN-016"]
    assert json.loads((tmp_path / "run/model/model.json").read_text())["training"]["steps_planned"] is None


def test_at_least_one_step_is_done():
    length = Length(seconds=1e-9)
    assert not length.is_over(0, 0.0)
    assert length.is_over(1, 0.5)


def test_minutes_take_the_place_of_epochs():
    config = load_config(preset="tlp-code", overrides=["training.minutes=5"])
    assert (config.training.steps, config.training.epochs, config.training.minutes) == (None, None, 5.0)
