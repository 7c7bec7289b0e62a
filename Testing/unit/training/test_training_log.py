"""The log and the progress line."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from MedXlateCore.training.log import MetricsLog, ProgressLine


def test_values_are_written_in_full_precision(tmp_path: Path):
    log = MetricsLog(tmp_path, tensorboard=False)
    log.write(3, "train", {"l1": 1 / 3, "undefined": None})
    log.close()
    assert (
        tmp_path / "metrics.csv"
    ).read_text() == f"step,split,metric,value\n3,train,l1,{1 / 3!r}\n3,train,undefined,\n"


def test_rows_of_a_lost_stretch_are_dropped_on_resuming(tmp_path: Path):
    log = MetricsLog(tmp_path, tensorboard=False)
    log.write(1, "train", {"l1": 1.0})
    kept = log.rows
    log.write(2, "train", {"l1": 2.0})
    log.close()
    with (tmp_path / "metrics.csv").open("a") as stream:
        stream.write("3,train,l1")  # torn by a crash
    log = MetricsLog(tmp_path, rows=kept, step=1, tensorboard=False)
    log.write(2, "train", {"l1": 2.5})
    log.close()
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1:] == ["1,train,l1,1.0", "2,train,l1,2.5"]
    assert log.rows == 2


def test_tensorboard_files_are_written_on_request(tmp_path: Path):
    log = MetricsLog(tmp_path, tensorboard=True)
    log.write(1, "val", {"mae": 0.5})
    log.close()
    assert list((tmp_path / "tensorboard").glob("events.*"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_shows_loss_and_time_left_on_a_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    line = ProgressLine("training", 10, start=4)
    line.update(5, "l1 0.5")
    line.note("best so far")
    line.close()
    text = sys.stderr.getvalue()
    assert "training 5/10" in text and "left" in text and "l1 0.5" in text
    assert "best so far\n" in text


def test_progress_is_silent_if_quiet_and_only_notes_elsewhere(monkeypatch: pytest.MonkeyPatch):
    for stream, quiet, expected in ((Terminal(), True, ""), (io.StringIO(), False, "note\n")):
        monkeypatch.setattr(sys, "stderr", stream)
        line = ProgressLine("training", 10, quiet=quiet)
        line.update(5)
        line.note("note")
        line.close()
        assert stream.getvalue() == expected
