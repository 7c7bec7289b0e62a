"""Training that is killed again and again: whole checkpoints only, and the same bits at the end.

More kills: ``make test-slow``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from training_cases import state_of
from warm import Run, WarmProcess, kill_at_random_moments, warm_process

from MedXlateCore.files import read_json
from MedXlateCore.models.package import load_package
from MedXlateCore.training import checkpoint

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL and fork")


class KilledTraining:
    """Training in one folder after the other: whatever a killed run left is resumed until it comes to its end."""

    def __init__(self, warm: WarmProcess, finished_run, folder: Path) -> None:
        self.warm, self.folder, self.finished = warm, folder, 0
        self.config, self.expected = finished_run.folder / "config.toml", state_of(finished_run.folder)
        self.checkpoints = 0

    @property
    def run_folder(self) -> Path:
        return self.folder / str(self.finished)

    def start(self, **settings: object) -> Run:
        """Start a run, or resume the one that was killed."""
        given = ["--resume"] if (self.run_folder / "config.toml").exists() else [str(self.config)]
        return self.warm.start(
            "train", *given, "--out", str(self.run_folder), "--quiet", folder=self.run_folder, **settings
        )

    def look(self, run: Run, status: int) -> None:
        """Every checkpoint and package that is there is whole; a run that came to its end has the same bits."""
        assert status in (0, -9), run.output
        for path in (self.run_folder / "checkpoints").glob("step-*.json"):
            checkpoint._load(path)
            self.checkpoints += 1
        if (self.run_folder / "model/model.json").exists():
            load_package(self.run_folder / "model")
        for name in ("config.toml", "run.json"):
            assert not (self.run_folder / name).exists() or (self.run_folder / name).stat().st_size > 0
        if status == 0:
            assert state_of(self.run_folder) == self.expected
            hidden = [p.name for p in self.run_folder.rglob(".*")]
            assert hidden == []  # neither temporary files nor locks
            assert len(list((self.run_folder / "model").iterdir())) == 2
            warnings = read_json(self.run_folder / "run.json")["warnings"]
            assert "MX-TRN-010" not in [warning["code"] for warning in warnings]  # no damaged checkpoint on the way
            self.finished += 1


def kill_training(finished_run, folder: Path, count: int) -> None:
    with warm_process(folder / "logs") as warm:
        training = KilledTraining(warm, finished_run, folder)
        totals = kill_at_random_moments(training.start, training.look, count)
        while (training.run_folder / "config.toml").exists():  # bring the last one to its end
            run = training.start()
            training.look(run, run.wait())
    print({"runs finished": training.finished, "checkpoints looked at": training.checkpoints})
    assert totals["while writing"] >= count // 6
    assert training.finished >= 1
    assert training.checkpoints > count // 2


def test_3_kills_of_training_change_nothing(finished_run, tmp_path: Path) -> None:
    kill_training(finished_run, tmp_path, 3)


@pytest.mark.slow
def test_25_kills_of_training_change_nothing(finished_run, tmp_path: Path) -> None:
    kill_training(finished_run, tmp_path, 25)
