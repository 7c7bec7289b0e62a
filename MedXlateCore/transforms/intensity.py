"""Intensity normalisation to [-1, 1] that can be undone: rules (``Normaliser``) and their finds (``FittedNormaliser``).

Rules: ``minmax`` (TLP: per volume, after the crop), ``percentile`` (ALDM: 0.5 and 99.5, unclipped) and ``window``
(fixed limits, e.g. HU for CT). Statistics use sorted values in float64, so they do not depend on the order of voxels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.config import nearest, read_dataclass, to_mapping
from MedXlateCore.errors import InputError, UsageError

__all__ = ["FittedNormaliser", "MinMax", "Normaliser", "Percentile", "Window", "normaliser_from_dict"]

_SMALLEST_RELATIVE_RANGE = 1e-6  # below this, float32 voxels carry no usable contrast


@dataclass(frozen=True)
class FittedNormaliser:
    """The linear map ``low`` → -1, ``high`` → +1, in the volume's own unit; ``clip`` limits :meth:`apply` to [-1, 1].

    Raises:
        InputError: ``MX-IMG-021``, the range is empty, not finite or too narrow for float32.
    """

    low: float
    high: float
    clip: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))
        smallest = _SMALLEST_RELATIVE_RANGE * max(abs(self.low), abs(self.high))
        if not math.isfinite(self.high - self.low) or self.high - self.low <= smallest:
            raise InputError(
                "MX-IMG-021",
                f"the intensities span no usable range: low {self.low:g}, high {self.high:g}",
                expected="a finite range with low below high",
                fix="check that the volume is not constant or blank; for sparse images widen the percentiles",
            )

    def apply(self, array: NDArray) -> NDArray[np.float32]:
        """Map intensities (any shape, the volume's unit) to the network's range; float32."""
        scaled = np.array(array, dtype=np.float64)
        scaled -= self.low
        scaled *= 2.0 / (self.high - self.low)
        scaled -= 1.0
        if self.clip:
            np.clip(scaled, -1.0, 1.0, out=scaled)
        return scaled.astype(np.float32)

    def invert(self, array: NDArray) -> NDArray[np.float32]:
        """Map network values back to the volume's unit; float32. Never clips: values beyond ±1 extrapolate."""
        intensity = np.array(array, dtype=np.float64)
        intensity += 1.0
        intensity *= (self.high - self.low) / 2.0
        intensity += self.low
        return intensity.astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able facts."""
        return dict(to_mapping(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FittedNormaliser:
        """Read what :meth:`to_dict` wrote.

        Raises:
            UsageError: ``MX-USE-040`` to ``MX-USE-043`` (unknown or missing key, wrong type or value).
        """
        return read_dataclass(cls, data, "fitted normaliser")


@dataclass(frozen=True)
class Normaliser(ABC):
    """Base of the rules; :meth:`fit` looks at one volume and returns the map for it."""

    kind: ClassVar[str] = ""

    @abstractmethod
    def fit(self, array: NDArray, mask: NDArray | None = None) -> FittedNormaliser:
        """Find the map for one volume.

        Args:
            array: intensities, any shape.
            mask: voxels to take the statistics from (same shape, true = use); all voxels by default.

        Raises:
            InputError: ``MX-IMG-021`` (no usable range), ``MX-IMG-022`` (no voxel to look at, or the mask has another
                shape), ``MX-IMG-023`` (values that are not finite).
        """

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able settings with their ``kind``."""
        return {"kind": self.kind, **to_mapping(self)}


@dataclass(frozen=True)
class MinMax(Normaliser):
    """Smallest value → -1, largest → +1."""

    kind: ClassVar[str] = "minmax"

    def fit(self, array: NDArray, mask: NDArray | None = None) -> FittedNormaliser:
        """See :meth:`Normaliser.fit`."""
        values = _values(array, mask)
        return FittedNormaliser(float(values.min()), float(values.max()), clip=False)


@dataclass(frozen=True)
class Percentile(Normaliser):
    """Two percentiles (linear between ranks) → -1 and +1; values beyond them are kept unless ``clip``.

    Attributes:
        lower, upper: the percentiles.
        clip: limit values to [-1, 1].
        reach: how far beyond the lower percentile +1 lies, in distances of the two. Above 1 there is room for values
            above the upper percentile, which can then be one that normal tissue decides, not a bright lesion.

    Raises:
        UsageError: ``MX-USE-063``, not 0 <= lower < upper <= 100, or ``reach`` is not from 0.1 to 10.
    """

    lower: float = 0.5
    upper: float = 99.5
    clip: bool = False
    reach: float = 1.0
    kind: ClassVar[str] = "percentile"

    def __post_init__(self) -> None:
        if not 0.1 <= self.reach <= 10:
            raise _unusable(f"the percentiles' reach is {self.reach}", "0.1 to 10")
        if not 0 <= self.lower < self.upper <= 100:
            raise _unusable(f"the percentiles are {self.lower} and {self.upper}", "0 <= lower < upper <= 100")

    def fit(self, array: NDArray, mask: NDArray | None = None) -> FittedNormaliser:
        """See :meth:`Normaliser.fit`."""
        low, high = np.percentile(_values(array, mask).astype(np.float64), [self.lower, self.upper])
        return FittedNormaliser(float(low), float(high + (self.reach - 1) * (high - low)), self.clip)


@dataclass(frozen=True)
class Window(Normaliser):
    """Fixed limits in the modality's unit (HU for CT) → -1 and +1; independent of the volume.

    Raises:
        UsageError: ``MX-USE-063``, low is not below high.
    """

    low: float
    high: float
    clip: bool = True
    kind: ClassVar[str] = "window"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise _unusable(f"the window is {self.low} to {self.high}", "two finite numbers with low below high")

    def fit(self, array: NDArray, mask: NDArray | None = None) -> FittedNormaliser:
        """See :meth:`Normaliser.fit`; the values are checked for being finite only."""
        _values(array, mask)
        return FittedNormaliser(self.low, self.high, self.clip)


_RULES: dict[str, type[Normaliser]] = {rule.kind: rule for rule in (MinMax, Percentile, Window)}


def normaliser_from_dict(data: Mapping[str, Any]) -> Normaliser:
    """Build a rule from settings such as ``{"kind": "percentile", "lower": 0.5, "upper": 99.5, "clip": False}``.

    Raises:
        UsageError: ``MX-USE-040`` to ``MX-USE-043`` (unknown or missing key, wrong type or value), ``MX-USE-063`` (an
            unknown kind, or values that make no range).
    """
    settings = dict(data)
    kind = settings.pop("kind", None)
    if not isinstance(kind, str) or kind not in _RULES:
        guess = nearest(kind, _RULES) if isinstance(kind, str) else ""
        raise _unusable(f"the normaliser's kind is {kind!r}", f"one of {', '.join(_RULES)}", guess)
    return read_dataclass(_RULES[kind], settings, f"normaliser '{kind}'")


def _values(array: NDArray, mask: NDArray | None) -> NDArray:
    """Return the voxels to take statistics from, all finite."""
    if mask is not None and mask.shape != array.shape:
        raise _no_values(f"the mask has shape {mask.shape}, the volume {array.shape}")
    values = array.ravel() if mask is None else array[mask.astype(bool)]
    if values.size == 0:
        raise _no_values("there is no voxel inside the mask" if mask is not None else "the array has no voxel")
    if not (math.isfinite(float(values.min())) and math.isfinite(float(values.max()))):
        raise InputError(
            "MX-IMG-023",
            f"{int((~np.isfinite(values)).sum())} of {values.size} voxels are not finite (NaN or infinite)",
            expected="finite intensities",
            fix="repair the volume; see the notes of the reader for what it replaced",
        )
    return values


def _no_values(found: str) -> InputError:
    return InputError(
        "MX-IMG-022",
        found,
        expected="a mask of the volume's shape with at least one voxel",
        fix="check the mask, or leave it out to use all voxels",
    )


def _unusable(found: str, expected: str, guess: str = "") -> UsageError:
    return UsageError(
        "MX-USE-063",
        found,
        expected=expected,
        fix=f"did you mean '{guess}'?" if guess else "correct the intensity settings",
    )
