"""How a network that draws samples is to draw them, and what comes of it.

A network that computes a volume in several steps has, beside ``forward``,

    translate(images [1, S, K, H, W], sampling, tiled) -> Generator[(done, total), None, VolumePrediction]

which yields after each short step, so that a caller can show progress and stop. Nothing may stay switched on between
the steps (no ``with torch.no_grad()`` around a ``yield``): the caller sets gradients and precision at each step.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from MedXlateCore.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SAMPLES_FOR_UNCERTAINTY", "Sampling", "VolumePrediction"]

SAMPLERS = ("default", "ddpm", "ddim", "dpm_solver")
SAMPLES_FOR_UNCERTAINTY = 8  # where an uncertainty map is asked for and their number is not given
_MOST = {"steps": 1000, "samples": 256, "seed": 2**63 - 1}


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn; what is left alone is the model's own choice.

    Attributes:
        sampler: ``ddpm``, ``ddim`` or ``dpm_solver``; ``default`` for the model's.
        steps: denoising steps a sample; None for the model's.
        eta: randomness of DDIM, 0 (deterministic) to 1 (as DDPM); None for the model's.
        samples: samples that are averaged; from two on there is a standard deviation of every voxel.
        seed: of the noise. The same seed gives the same volume.

    Raises:
        UsageError: ``MX-USE-205``, a value that cannot be.
    """

    sampler: Literal["default", "ddpm", "ddim", "dpm_solver"] = "default"
    steps: int | None = None
    eta: float | None = None
    samples: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.sampler in SAMPLERS, "sampler", self.sampler, f"one of {', '.join(SAMPLERS)}")
        for name, least in (("steps", 1), ("samples", 1), ("seed", 0)):
            value, most = getattr(self, name), _MOST[name]
            whole = isinstance(value, int) and not isinstance(value, bool)
            _require((value is None and name == "steps") or (whole and least <= value <= most), name, value,
                     f"a whole number from {least} to {most}")  # fmt: skip
        _require(self.eta is None or 0 <= self.eta <= 1, "eta", self.eta, "0 to 1")

    @property
    def is_default(self) -> bool:
        """True if nothing was asked for."""
        return self == Sampling()

    def to_dict(self) -> dict[str, Any]:
        """Return what was asked for as plain data."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, eq=False)
class VolumePrediction:
    """A predicted volume.

    Attributes:
        values: [K, H, W] in [-1, 1]; the mean where several samples were drawn.
        deviation: [K, H, W], the samples' standard deviation on the same scale; None for one sample.
        facts: what the run record says of how it was drawn, as JSON data (sampler, steps, eta, samples,
            seeds, and whether the last step was drawn with a learned variance).
    """

    values: Tensor
    deviation: Tensor | None = None
    facts: dict[str, Any] | None = None


def _require(good: bool, name: str, value: object, expected: str) -> None:
    if not good:
        raise UsageError(
            "MX-USE-205",
            f"the sampling's {name} is {value!r}",
            expected=expected,
            where=name,
            fix="correct the value, or leave it out",
        )
