"""One test result against its reference: on the reference's own voxels, where the source shows anything of them.

The acquired image is never interpolated. Where the result lies on another grid (that of the source), the result is
interpolated linearly onto the reference's, and only voxels inside the source's field of view count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from MedXlateCore.errors import Warned
from MedXlateCore.metrics.evaluation import evaluate
from MedXlateCore.metrics.protocols import Protocol
from MedXlateCore.metrics.regions import BRAIN, LESION, evaluation_mask
from MedXlateCore.metrics.report import on_grid
from MedXlateCore.metrics.result import EvaluationResult
from MedXlateCore.transforms.resampling import resample
from MedXlateCore.volume import Modality, Volume

__all__ = ["FOREGROUND", "WHOLE", "Comparison", "compare", "figures_of"]

FOREGROUND, WHOLE = "foreground", "whole image"
Figures = dict[str, dict[str, float | None]]  # by region, then by metric


@dataclass(frozen=True, eq=False)
class Comparison:
    """A result and its reference on one grid.

    Attributes:
        result: the figures under the protocol.
        synthetic: the synthetic volume on the reference's grid.
        mask: where it was measured; None for protocols without a mask.
        warnings: what a reader of the figures should know.
    """

    result: EvaluationResult
    synthetic: Volume
    mask: Volume | None
    warnings: tuple[Warned, ...]


def compare(
    synthetic: Volume,
    reference: Volume,
    protocol: Protocol,
    regions: Volume | None,
    labels: Mapping[str, Sequence[int]],
) -> Comparison:
    """Measure a synthetic volume.

    Args:
        synthetic: on the source's grid.
        reference: the acquired image.
        protocol: how to measure.
        regions: label map of the lesion on any grid, or None.
        labels: its label values by part.

    Raises:
        MedXlateError: see :func:`MedXlateCore.metrics.evaluation.evaluate`.
    """
    moved = on_grid(synthetic, reference)
    warnings: list[Warned] = []
    mask = None
    if protocol.mask_use in ("regions", "inside"):
        mask, warnings = _inside_view(synthetic, reference)
    drawn = None
    if regions is not None and protocol.mask_use in ("regions", "product"):
        array = resample(regions.array, regions.geometry, reference.geometry, 0, 0)
        drawn = Volume(array, reference.geometry, Modality.LABEL, regions.source)
    # a part without label values is one that these data do not have
    named = {name: values for name, values in labels.items() if values} if drawn is not None else None
    result = evaluate(reference, moved, protocol, mask=mask, regions=drawn, region_labels=named)
    return Comparison(result, moved, mask, (*warnings, *result.warnings))


def figures_of(result: EvaluationResult) -> Figures:
    """Return the figures by region: the reference's foreground (head or body), the lesion and its parts, the rest.

    A part that is the whole lesion is left out.
    """
    names = result.protocol.metrics
    if not result.regions:
        return {WHOLE: {name: result.metrics[name] for name in names}}
    return {
        FOREGROUND if region == BRAIN else region: {name: figures.get(name) for name in names}
        for region, figures in result.regions.items()
        if region == LESION or figures != result.regions.get(LESION)
    }


def _inside_view(synthetic: Volume, reference: Volume) -> tuple[Volume, list[Warned]]:
    """Return the reference's foreground inside the synthetic volume's grid, and a remark where that leaves out some."""
    inside = evaluation_mask(reference, None)
    warnings: list[Warned] = []
    if not synthetic.geometry.allclose(reference.geometry):
        ones = np.ones(synthetic.geometry.shape, dtype=np.uint8)
        view = resample(ones, synthetic.geometry, reference.geometry, 0, 0) > 0
        lost = 1 - np.count_nonzero(inside & view) / np.count_nonzero(inside)
        inside = inside & view
        if lost > 0.001:
            text = f"{lost:.1%} of the reference's foreground lie outside the source's field of view"
            warnings.append(Warned("MX-EXP-101", text, reference.name, "they are not measured"))
    return Volume(inside.astype(np.uint8), reference.geometry, Modality.LABEL), warnings
