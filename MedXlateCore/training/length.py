"""How long a run is: a number of optimiser steps, or minutes of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from MedXlateCore.training.config import TrainingTable

__all__ = ["QUARTERS", "Length", "length_of", "steps_of"]

QUARTERS = 4  # a run of given minutes is validated after each quarter of them, unless validate_every says otherwise


@dataclass(frozen=True)
class Length:
    """The length of a run, in one of two units.

    Attributes:
        steps: optimiser steps; None where the time decides.
        seconds: time spent on optimiser steps, waiting for their data included; validations, checkpoints and the
            preparation of cases do not count. None where the number of steps decides.
    """

    steps: int | None = None
    seconds: float | None = None

    def fraction(self, step: int, seconds: float) -> float:
        """Return how much of the run is done, 0 to 1, after so many steps that took so many seconds."""
        done = step / self.steps if self.steps is not None else seconds / float(self.seconds or 0.0)
        return min(done, 1.0)

    def is_over(self, step: int, seconds: float) -> bool:
        """Return True if the run is at its end; it never is before its first step."""
        if self.steps is not None:
            return step >= self.steps
        return step > 0 and seconds >= float(self.seconds or 0.0)

    def quarter(self, step: int, seconds: float) -> int:
        """Return how many quarters of the run are done."""
        return int(QUARTERS * self.fraction(step, seconds))

    def __str__(self) -> str:
        return f"{self.steps} steps" if self.steps is not None else f"{float(self.seconds or 0.0) / 60:g} minutes"


def length_of(training: TrainingTable, n_slices: int, devices: int = 1) -> Length:
    """Return the length of a run over ``n_slices`` training slices."""
    if training.minutes is not None:
        return Length(seconds=60 * training.minutes)
    return Length(steps=steps_of(training, n_slices, devices))


def steps_of(training: TrainingTable, n_slices: int, devices: int = 1) -> int:
    """Return the number of optimiser steps of a run over ``n_slices`` training slices, given in steps or epochs."""
    if training.steps is not None:
        return training.steps
    return max(1, math.ceil(float(training.epochs or 0) * n_slices / (training.batch_size * devices)))
