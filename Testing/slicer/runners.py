"""A runner that does what the test says, for states that a real one passes too quickly."""

from __future__ import annotations

from typing import Any

import numpy as np

from MedXlateCore.errors import Cancelled
from MedXlateCore.inference.events import Finished, Progress, Started
from MedXlateCore.volume import Modality, Source, Volume
from MedXlateCore.worker import Result


class ScriptedRunner:
    """Holds a run until the test carries it on; `calls` tells what was asked."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.busy = self.has_session = False
        self._job = self._hear = self._end = None

    def start(self, job: Any, on_event: Any, on_done: Any) -> None:
        """Take a job."""
        self.calls.append(("start", job))
        self._job, self._hear, self._end, self.busy = job, on_event, on_done, True

    def update(self, roi: Any, on_event: Any, on_done: Any) -> None:
        """Take another region."""
        self.calls.append(("update", roi))
        self._hear, self._end, self.busy = on_event, on_done, True

    def poll(self) -> None:
        """Do nothing: the test carries the run on."""

    def cancel(self) -> None:
        """Stop."""
        self.calls.append("cancel")
        self.busy = self.has_session = False
        self._end(None, Cancelled("translation"))

    def close(self) -> None:
        """Remember it."""
        self.calls.append("close")
        self.busy = self.has_session = False

    def progress(self, done: int, total: int) -> None:
        """Tell of slices."""
        if done == 0:
            self._hear(Started(total, "T1ce from T1, T2"))
        self._hear(Progress(done, total))

    def hear(self, event: Any) -> None:
        """Tell of an event."""
        self._hear(event)

    def finish(self, value: float = 1.0, recomputed: int = 5, reused: int = 0) -> None:
        """End with a constant image; with a tenth of it as the spread where several samples were asked for."""
        grid = self._job.sources[0].geometry
        self._hear(Finished(1.5, recomputed, reused))
        self.busy, self.has_session = False, True
        volume = Volume(
            np.full(grid.shape, value, np.float32), grid, Modality.T1CE, Source("SYNTHETIC T1ce (starter)"), True
        )
        record = {"target": "T1ce", "model": {"name": "starter", "version": "1.0.0", "sha256": "0" * 64}}
        spread = None
        if self._job.sampling is not None and self._job.sampling.samples > 1:
            source = Source("SYNTHETIC T1ce (starter), standard deviation")
            spread = Volume(volume.array * np.float32(0.1), grid, Modality.OTHER, source, True)
        self._end(Result(volume, record, spread), None)

    def fail(self, error: Any) -> None:
        """End with an error."""
        self.busy = False
        self._end(None, error)


class AtOnce(ScriptedRunner):
    """Ends at the first poll, for those who wait."""

    def poll(self) -> None:
        """End."""
        self.finish()
