"""Pictures of a validation case: sources, synthetic images, the reference, the error and the given region."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.files import atomic_write_bytes
from MedXlateCore.inference.prepare import unstack
from MedXlateCore.metrics.pictures import Outline, Tile, difference, region_colour, slice_panel, stack_panels
from MedXlateCore.training.config import TrainingConfig
from MedXlateCore.training.data import used_slices
from MedXlateCore.training.validation import CaseResult
from MedXlateCore.transforms.orientation import axis_codes
from MedXlateCore.volume import Geometry, Modality, Volume

__all__ = ["write_preview"]

_PLANES = {"L": "sagittal", "R": "sagittal", "P": "coronal", "A": "coronal", "S": "axial", "I": "axial"}
_RANGE = (-1.0, 1.0)


def write_preview(result: CaseResult, config: TrainingConfig, step: int, folder: Path) -> Path:
    """Write a PNG of the slice with the largest lesion, or of the middle one, in the network's intensities.

    Args:
        result: the case's predictions.
        config: the run's configuration, of the case's direction only.
        step: optimiser steps so far.
        folder: of the pictures.

    Raises:
        ResourceError: ``MX-FIL-010`` to ``-016``, the picture cannot be written.
    """
    case, target = result.case, config.data.target
    images = {name: np.asarray(case.images[:, n], dtype=np.float32) for n, name in enumerate(config.modalities)}
    shown = result.predictions.get("given", result.predictions["none"])
    tiles = [Tile(name, _volume(images[name], case.grid), _RANGE) for name in config.data.sources]
    names = {"none": f"SYNTHETIC {target}, no prompt", "given": f"SYNTHETIC {target}, given prompt"}
    tiles += [
        Tile(title, _volume(result.predictions[name], case.grid), _RANGE)
        for name, title in names.items()
        if name in result.predictions
    ]
    tiles.append(Tile(f"{target}, acquired", _volume(images[target], case.grid), _RANGE))
    error = difference(_volume(images[target], case.grid), _volume(shown, case.grid))
    tiles.append(Tile("synthetic - acquired", error, (-0.5, 0.5), "difference"))
    lesion = case.masks[:, :2].max(axis=1) > 0
    outlines = [Outline("annotated region", unstack(lesion), region_colour(0))] if lesion.any() else []
    normal = axis_codes(case.grid)[2]
    k = _slice_to_show(case.masks, used_slices(case, config.data.slices))
    index = k if normal in "LPS" else case.shape[0] - 1 - k
    panel = slice_panel(tiles, index, _PLANES[normal], outlines=outlines, height=220)  # type: ignore[arg-type]
    caption = f"step {step}, validation case {case.row.case}, slice {k}: research use only, not for diagnosis"
    buffer = io.BytesIO()
    stack_panels([panel], [caption]).save(buffer, format="PNG", optimize=True)
    path = folder / f"step-{step:08d}-{case.key[:8]}.png"
    atomic_write_bytes(path, buffer.getvalue())
    return path


def _volume(slices: NDArray, grid: Geometry) -> Volume:
    return Volume(unstack(slices), grid, Modality.OTHER)


def _slice_to_show(masks: NDArray[np.uint8], slices: list[int]) -> int:
    if not slices:
        return masks.shape[0] // 2
    lesion = np.count_nonzero(masks[slices, :2], axis=(1, 2, 3))
    return slices[int(lesion.argmax())] if lesion.any() else slices[len(slices) // 2]
