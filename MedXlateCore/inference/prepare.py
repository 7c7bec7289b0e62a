"""From source volumes to network input: one plan, one interpolation, one normalisation per source.

Translation, sessions and the training cache all prepare their inputs here, so that a model sees at run time what it saw
in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.errors import InputError, Warned
from MedXlateCore.prompts.roi import encode_labels
from MedXlateCore.transforms.foreground import foreground_mask
from MedXlateCore.transforms.intensity import FittedNormaliser, normaliser_from_dict
from MedXlateCore.transforms.spatial import GridSpec, SpatialPlan
from MedXlateCore.volume import Geometry, Modality, Volume

__all__ = ["PreparedSources", "normalise", "prepare_roi", "prepare_sources", "slice_stack", "unstack"]

Float32Array = NDArray[np.float32]


def slice_stack(array: NDArray) -> NDArray:
    """Turn a model-grid array [I, J, K] into axial slices [K, H, W] with H = J (anterior to posterior), W = I."""
    return np.ascontiguousarray(array.transpose(2, 1, 0))


def unstack(slices: NDArray) -> NDArray:
    """Undo :func:`slice_stack`: [K, H, W] to [I, J, K] (a view)."""
    return slices.transpose(2, 1, 0)


@dataclass(frozen=True)
class PreparedSources:
    """Sources on the model grid.

    Attributes:
        plan: the spatial plan, made from the reference grid.
        images: [S, K, H, W], float32 in [-1, 1].
        foreground: [K, H, W] bool, the union of the sources' foregrounds.
        fitted: fitted normaliser of each source, in channel order.
        warnings: what was noticed on the way.
    """

    plan: SpatialPlan
    images: Float32Array
    foreground: NDArray[np.bool_]
    fitted: tuple[FittedNormaliser, ...]
    warnings: tuple[Warned, ...] = ()

    @property
    def occupied_slices(self) -> list[int]:
        """Positions of the slices that show anything."""
        return [int(k) for k in np.flatnonzero(self.foreground.any(axis=(1, 2)))]


def prepare_sources(
    sources: Sequence[Volume], reference: Geometry, grid: GridSpec, normalisers: Mapping[str, Mapping[str, object]]
) -> PreparedSources:
    """Bring checked sources to the model grid and into [-1, 1].

    Args:
        sources: volumes in channel order, each on its own grid.
        reference: the grid that the model grid is made from and the result returns to.
        grid: the model's grid specification.
        normalisers: by modality name, a normaliser's dictionary.

    Raises:
        InputError: from the plan (no foreground) or a normaliser (no range).
    """
    plan = SpatialPlan.make(reference, grid, sources)
    channels, masks, fitted = [], [], []
    for volume in sources:
        array = plan.to_model(volume)
        normalised, fit = normalise(array, volume.modality, normalisers, where=volume.name)
        channels.append(slice_stack(normalised))
        masks.append(slice_stack(foreground_mask(array, volume.modality)))
        fitted.append(fit)
    return PreparedSources(plan, np.stack(channels), np.logical_or.reduce(masks), tuple(fitted), tuple(plan.warnings))


def normalise(
    array: Float32Array, modality: Modality, normalisers: Mapping[str, Mapping[str, object]], where: str = ""
) -> tuple[Float32Array, FittedNormaliser]:
    """Fit the modality's normaliser on a model-grid array [I, J, K] and apply it.

    Raises:
        InputError: ``MX-MOD-090``, the model has no normaliser for this modality.
    """
    if modality.value not in normalisers:
        raise InputError(
            "MX-MOD-090",
            f"the model has no intensity normaliser for {modality.value}",
            expected=f"one of {', '.join(normalisers)}",
            where=where,
            fix="give volumes of the modalities that the model's card lists",
        )
    fit = normaliser_from_dict(normalisers[modality.value]).fit(array)
    return fit.apply(array), fit


def prepare_roi(roi: Volume, plan: SpatialPlan, labels: Mapping[str, Sequence[int]], encoding: str) -> Float32Array:
    """Bring a drawn region to the model grid by nearest neighbour and encode it, exactly as drawn.

    Args:
        roi: label map on any grid.
        plan: the sources' plan.
        labels: label values by region, ``{"oedema": [2], "core": [1, 4]}``.
        encoding: the model's prompt encoding, ``two_region`` or ``binary``.

    Returns:
        Prompt [K, H, W]: 0 background, 0.5 oedema, 1.0 core.
    """
    return slice_stack(encode_labels(plan.labels_to_model(roi), labels, encoding))
