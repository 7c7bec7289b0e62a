"""Checks of a region of interest: whole numbers with a meaning, inside the volume it prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from MedXlateCore.errors import InputError, Warned
from MedXlateCore.io.voxels import no_whole_numbers
from MedXlateCore.overlap import inside
from MedXlateCore.volume import Geometry, Volume

__all__ = ["check_roi"]


def check_roi(roi: Volume, reference: Volume | Geometry, labels: Mapping[str, Sequence[int]]) -> list[Warned]:
    """Check a region of interest (a label map on any grid) against the reference it will prompt.

    Args:
        roi: whole numbers, 0 for background.
        reference: the grid of the result.
        labels: which label values mean what.

    Returns:
        Warnings: ``MX-ROI-015`` (empty: the same as no prompt), ``MX-ROI-012`` (partly outside), ``MX-ROI-014``
        (covers more than half of the volume).

    Raises:
        InputError: ``MX-ROI-001`` (values that are no whole numbers), ``MX-ROI-011`` (wholly outside the reference),
            ``MX-ROI-013`` (label values without a meaning).
    """
    grid = reference.geometry if isinstance(reference, Volume) else reference
    _refuse_fractions(roi)
    marked = np.argwhere(roi.array != 0)
    if not len(marked):
        text = "the region is empty: the result is the same as without a prompt"
        return [Warned("MX-ROI-015", text, roi.name, "paint a region, or leave it out")]
    _refuse_unknown_labels(roi, labels)
    kept = float(inside(marked.astype(np.float64), roi.geometry, grid).mean())
    if kept == 0:
        raise InputError(
            "MX-ROI-011",
            "the region lies wholly outside the reference volume",
            expected="a region inside the volume",
            where=roi.name,
            fix="check that the region was drawn on this patient, and that no transform is missing",
        )
    warnings = []
    if kept < 0.999:
        text = f"{100 * (1 - kept):.1f} % of the region lies outside the reference volume and is ignored"
        warnings.append(Warned("MX-ROI-012", text, roi.name, "check the region's position"))
    covered = len(marked) * kept * roi.geometry.voxel_volume_mm3 / (np.prod(grid.shape) * grid.voxel_volume_mm3)
    if covered > 0.5:
        text = f"the region covers {100 * covered:.0f} % of the volume"
        warnings.append(Warned("MX-ROI-014", text, roi.name, "check that background is 0 and the lesion is not"))
    return warnings


def _refuse_fractions(roi: Volume) -> None:
    array = roi.array
    if array.dtype.kind in "iub":
        return
    wrong = ~np.isfinite(array) | (array != np.rint(array))
    if wrong.any():
        raise no_whole_numbers(array[wrong], roi.name)


def _refuse_unknown_labels(roi: Volume, labels: Mapping[str, Sequence[int]]) -> None:
    found = [int(value) for value in np.unique(roi.array) if value != 0]
    known = {value for values in labels.values() for value in values}
    unknown = [value for value in found if value not in known]
    if unknown:
        meaning = ", ".join(f"{name} = {' or '.join(map(str, values))}" for name, values in labels.items())
        raise InputError(
            "MX-ROI-013",
            f"the region holds the label values {found[:20]}",
            expected=f"0 and {meaning}",
            where=roi.name,
            fix="say what the values mean (labels), or draw the region again",
        )
