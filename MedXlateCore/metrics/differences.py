"""What a picture or plot of one comparison shows: the signed error map and the voxels' pairs of intensities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.metrics import pictures
from MedXlateCore.metrics.result import EvaluationResult, intensity_map
from MedXlateCore.volume import Volume

__all__ = ["ErrorMap", "error_map", "plot_values"]

BoolArray = NDArray[np.bool_]

_PLOT_VOXELS = 200_000


@dataclass(frozen=True)
class ErrorMap:
    """A signed error map: positive where the synthetic image is brighter.

    Attributes:
        volume: the differences.
        reach: a round number that 99 % of the mask's voxels do not exceed, for the ends of a colour bar.
        unit: unit for a colour bar.
        words: the unit in words.
    """

    volume: Volume
    reach: float
    unit: str
    words: str


def error_map(result: EvaluationResult, reference: Volume, synthetic: Volume, brain: BoolArray) -> ErrorMap:
    """Return synthetic minus reference: in HU or SUV, or else in percent of the reference's range in the mask.

    Args:
        result: of ``evaluate`` on the same volumes; its intensity matching is applied.
        reference, synthetic: the compared images, on one grid.
        brain: where it was measured, shape [I, J, K].

    Raises:
        InputError: ``MX-MET-010``, the grids differ.
    """
    factor, offset = intensity_map(result)
    scale, unit, words = _error_unit(reference, brain)
    error = pictures.difference(reference, synthetic, scale=scale, factor=factor, offset=offset)
    reach = _rounded_up(float(np.percentile(np.abs(error.array[brain]), 99)))
    return ErrorMap(error, reach, unit, words)


def plot_values(
    result: EvaluationResult, reference: Volume, synthetic: Volume, brain: BoolArray
) -> tuple[NDArray[np.floating], NDArray[np.floating], str]:
    """Return both images' intensities in the mask, evenly sampled (below 400 000 voxels), and the unit."""
    factor, offset = intensity_map(result)
    values = reference.array[brain].astype(np.float64)
    made = synthetic.array[brain].astype(np.float64) * factor + offset
    step = max(1, values.size // _PLOT_VOXELS)
    unit = reference.modality.unit
    return values[::step], made[::step], unit if unit != "arbitrary" else "arbitrary unit"


def _error_unit(reference: Volume, brain: BoolArray) -> tuple[float, str, str]:
    """Return the factor for the error map, its unit for the colour bar and in words."""
    unit = reference.modality.unit
    if unit != "arbitrary":
        return 1.0, unit, unit
    low, high = (float(v) for v in np.percentile(reference.array[brain], (0.5, 99.5)))
    words = "percent of the reference's range in the mask (percentiles 0.5 to 99.5)"
    return 100.0 / (high - low if high > low else 1.0), "% of reference range", words


def _rounded_up(value: float) -> float:
    """Return the next of 1, 2, 5 times a power of ten, for a readable colour bar."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9)))
