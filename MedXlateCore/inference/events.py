"""What a translation tells on its way, and the iterator that tells it.

The command line drives a :class:`Translation` with a progress bar, a script with a plain ``for``, a graphical program
with a timer; each ``next`` is one short step, so cancelling takes effect within a step and nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

from MedXlateCore.errors import Cancelled, UsageError, Warned
from MedXlateCore.provenance import RunRecord
from MedXlateCore.volume import Volume

__all__ = ["Event", "Finished", "Outcome", "Progress", "Started", "Translation"]


@dataclass(frozen=True)
class Started:
    """Inputs are accepted; ``total`` slices follow.

    Attributes:
        total: slices to predict; 0 where nothing changed since the session's last update.
        text: what is made from what.
        memory_bytes: memory the network is estimated to need on its device, weights included; None if unknown.
    """

    total: int
    text: str
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` slices are predicted. After a lack of memory (``MX-RES-025``) the count starts again."""

    done: int
    total: int


@dataclass(frozen=True)
class Finished:
    """The result stands in ``Translation.result``.

    Attributes:
        seconds: of the whole update.
        slices_recomputed: slices that went through the network.
        slices_reused: slices taken from the session's last update.
    """

    seconds: float
    slices_recomputed: int = 0
    slices_reused: int = 0


Event = Started | Progress | Warned | Finished


@dataclass
class Outcome:
    """What a translation has come to; filled by its steps, read through :class:`Translation`."""

    result: Volume | None = None
    uncertainty: Volume | None = None
    record: RunRecord | None = None
    warnings: list[Warned] = field(default_factory=list)

    def warn(self, warnings: Sequence[Warned]) -> Iterator[Warned]:
        """Record warnings and give those that are new."""
        for warning in warnings:
            if warning not in self.warnings:
                self.warnings.append(warning)
                yield warning

    def require_result(self) -> Volume:
        """Return the result.

        Raises:
            UsageError: ``MX-RUN-001``, there is none yet.
        """
        if self.result is None:
            raise _not_finished()
        return self.result

    def require_record(self) -> RunRecord:
        """Return the run record.

        Raises:
            UsageError: ``MX-RUN-001``, there is none yet.
        """
        if self.record is None:
            raise _not_finished()
        return self.record


class Translation(Iterator[Event]):
    """A translation under way: iterate it to the end, then read ``result`` and ``record``.

    Raises (while iterating):
        InputError: an input cannot be used; see ``checks``.
        ResourceError: the device does not work (``MX-RES-020``) or fails on the way (``MX-RES-023``), memory will not
            do (``MX-RES-002``) or ran out where no smaller setting is left (``MX-RES-001``).
        Cancelled: ``cancel`` was called.
    """

    def __init__(self, steps: Generator[Event, None, None], outcome: Outcome) -> None:
        self._steps = steps
        self._outcome = outcome
        self._cancelled = False

    def __next__(self) -> Event:
        from MedXlateCore.devices import device_errors  # torch; the events themselves do without

        if self._cancelled:
            self._steps.close()
            raise Cancelled("translation")
        with device_errors("translation", "close other programs, crop the volume, or use a computer with more memory"):
            return next(self._steps)

    def cancel(self) -> None:
        """Ask to stop; the next step raises :class:`Cancelled`."""
        self._cancelled = True

    def run(self) -> Volume:
        """Iterate to the end and return the result."""
        for _ in self:
            pass
        return self.result

    @property
    def warnings(self) -> list[Warned]:
        """The warnings so far, each once."""
        return self._outcome.warnings

    @property
    def result(self) -> Volume:
        """The synthetic volume, on the reference source's grid.

        Raises:
            UsageError: ``MX-RUN-001``, the translation has not finished.
        """
        return self._outcome.require_result()

    @property
    def uncertainty(self) -> Volume | None:
        """Standard deviation of each voxel over the samples, on the result's grid, in its unit; None for one sample.

        Raises:
            UsageError: ``MX-RUN-001``, the translation has not finished.
        """
        self._outcome.require_result()
        return self._outcome.uncertainty

    @property
    def record(self) -> RunRecord:
        """How the result came about.

        Raises:
            UsageError: ``MX-RUN-001``, the translation has not finished.
        """
        return self._outcome.require_record()


def _not_finished() -> UsageError:
    return UsageError(
        "MX-RUN-001", "the translation has not finished", fix="iterate it to its end before reading the result"
    )
