"""What a run tells: ``metrics.csv`` (exact after a resume), TensorBoard files, and a progress line on stderr."""

from __future__ import annotations

import csv
import io
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from MedXlateCore.files import atomic_write_text

__all__ = ["MetricsLog", "ProgressLine"]

HEADER = ("step", "split", "metric", "value")


class MetricsLog:
    """Losses and validation figures, one value a row, in ``metrics.csv`` and, if wished and installed, TensorBoard.

    The CSV holds nothing but what the run computes, so an interrupted and resumed run writes the same bytes as an
    uninterrupted one. Values are written in full precision.

    Args:
        folder: the run's folder.
        rows: rows to keep of a file that is there; what a lost stretch of the run wrote after them is dropped.
        step: the step the run goes on from.
        tensorboard: write TensorBoard files too.
    """

    def __init__(self, folder: Path, *, rows: int = 0, step: int = 0, tensorboard: bool = True) -> None:
        path = folder / "metrics.csv"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        kept = lines[1 : 1 + rows]
        atomic_write_text(path, "\n".join([",".join(HEADER), *kept]) + "\n")
        self.rows = len(kept)
        self._stream = path.open("a", encoding="utf-8", newline="")
        self._board = _summary_writer(folder / "tensorboard", step) if tensorboard else None

    def write(self, step: int, split: str, values: Mapping[str, float | None]) -> None:
        """Append one row a value; a value that is not defined leaves its cell empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for name, value in values.items():
            writer.writerow((step, split, name, "" if value is None else repr(float(value))))
            if self._board is not None and value is not None:
                self._board.add_scalar(f"{split}/{name}", value, step)
        self._stream.write(text.getvalue())
        self._stream.flush()
        self.rows += len(values)

    def sync(self) -> None:
        """Bring everything to disk; done before a checkpoint counts on it."""
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the files."""
        self.sync()
        self._stream.close()
        if self._board is not None:
            self._board.close()


def _summary_writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # TensorBoard is an extra; the CSV has everything
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


class ProgressLine:
    """One line on stderr: work done, loss, time left. Silent if ``quiet``; only notes where stderr is no terminal."""

    def __init__(self, title: str, total: int, *, start: int = 0, quiet: bool = False) -> None:
        self._title, self._total, self._start, self._quiet = title, total, start, quiet
        self._live = sys.stderr.isatty() and not quiet
        self._began = time.monotonic()
        self._shown = 0.0
        self._width = 0

    def update(self, done: int, text: str = "") -> None:
        """Show where the work stands, at most five times a second."""
        now = time.monotonic()
        if not self._live or (now - self._shown < 0.2 and done < self._total):
            return
        self._shown = now
        passed, fresh = now - self._began, done - self._start
        left = f", {_clock(passed / fresh * (self._total - done))} left" if fresh else ""
        self._write(f"{self._title} {done}/{self._total}{left}" + (f", {text}" if text else ""))

    def note(self, text: str) -> None:
        """Show a line that stays."""
        if not self._quiet:
            self._clear()
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def close(self) -> None:
        """Leave the line clean."""
        self._clear()

    def _clear(self) -> None:
        if self._live and self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            self._width = 0

    def _write(self, line: str) -> None:
        sys.stderr.write("\r" + line.ljust(self._width))
        sys.stderr.flush()
        self._width = max(self._width, len(line))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
