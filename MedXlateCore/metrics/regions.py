"""Where metrics are taken: the brain (or body), the lesion, its parts, and the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from MedXlateCore.errors import InputError, Warned
from MedXlateCore.transforms.foreground import foreground_mask
from MedXlateCore.volume import Volume

__all__ = ["BRAIN", "HEALTHY", "LESION", "evaluation_mask", "grow", "region_label_values", "region_masks"]

BoolArray = NDArray[np.bool_]

BRAIN, LESION, HEALTHY = "brain", "lesion", "healthy"


def evaluation_mask(reference: Volume, mask: Volume | None) -> BoolArray:
    """Return the voxels that count, shape [I, J, K]: the mask above zero, or else the foreground of the reference.

    The foreground is everything that is not background: above the background value for images whose background is
    constant (skull-stripped), or else above an estimated threshold, and the body for CT. It is called ``brain`` in the
    results because that is what it is in skull-stripped data; give a mask where it is not.

    Raises:
        InputError: ``MX-MET-012``, no voxel is left.
    """
    inside = mask.array > 0 if mask is not None else foreground_mask(reference.array, reference.modality)
    if inside.any():
        return np.asarray(inside, dtype=np.bool_)
    what = f"the mask {mask.name} has no voxel above 0" if mask is not None else "the reference has no foreground"
    raise InputError(
        "MX-MET-012",
        what,
        expected="at least one voxel to measure in",
        where=(mask or reference).name,
        fix="give a mask that covers the brain or body of the reference",
    )


def region_label_values(labels: NDArray, named: Mapping[str, Sequence[int]] | None) -> dict[str, tuple[int, ...]]:
    """Return which label values make up which part of the lesion.

    ``named`` is used as given. Without it, BraTS labels are assumed where a map holds nothing but values from 1 to 4
    and more than one of them: oedema 2; core 1, 3 and 4; enhancing 4, or 3 where there is no 4 (labelling of 2023).
    A map of other values has one region a value; a map of a single value has no parts.
    """
    if named:
        return {name: tuple(int(value) for value in values) for name, values in named.items()}
    values = sorted(int(value) for value in np.unique(labels) if value > 0)
    if len(values) < 2:
        return {}
    if values[-1] <= 4:
        return {"oedema": (2,), "core": (1, 3, 4), "enhancing": (4,) if 4 in values else (3,)}
    return {f"label {value}": (value,) for value in values}


def region_masks(
    brain: BoolArray, labels: Volume | None, named: Mapping[str, Sequence[int]] | None, margin_mm: float = 0.0
) -> tuple[dict[str, BoolArray], list[Warned]]:
    """Return the regions to measure in, by name: brain, lesion, its parts, healthy.

    The lesion is the union of all labels (of the named ones, where labels are named). Every region is cut to the brain,
    so that brain = lesion + healthy, voxel by voxel, with a margin of zero.

    Args:
        brain: mask [I, J, K].
        labels: label map on the same grid, or None for the brain alone.
        named: label values of the lesion's parts, see ``region_label_values``.
        margin_mm: distance around the lesion that counts as neither lesion nor healthy.

    Returns:
        The masks and the warnings ``MX-MET-102`` (a region without a voxel in the brain) and ``MX-MET-103`` (lesion
        voxels outside the brain, which are not counted).
    """
    if labels is None:
        return {BRAIN: brain}, []
    parts = region_label_values(labels.array, named)
    wanted = sorted({value for values in parts.values() for value in values}) if named else None
    lesion = np.isin(labels.array, wanted) if wanted is not None else labels.array > 0
    regions = {BRAIN: brain, LESION: lesion & brain}
    regions.update({name: np.isin(labels.array, values) & brain for name, values in parts.items()})
    regions[HEALTHY] = brain & ~grow(lesion, margin_mm, labels.geometry.spacing_mm)
    return regions, _region_warnings(regions, int(np.count_nonzero(lesion & ~brain)), labels.name)


def grow(mask: BoolArray, margin_mm: float, spacing_mm: tuple[float, float, float]) -> BoolArray:
    """Return the mask with every voxel whose centre lies within ``margin_mm`` of it."""
    if margin_mm <= 0 or not mask.any():
        return mask
    return np.asarray(ndimage.distance_transform_edt(~mask, sampling=spacing_mm) <= margin_mm, dtype=np.bool_)


def _region_warnings(regions: Mapping[str, BoolArray], outside: int, where: str) -> list[Warned]:
    warnings = [
        Warned("MX-MET-102", f"the region '{name}' has no voxel inside the brain mask", where, "it has no values")
        for name, mask in regions.items()
        if not mask.any()
    ]
    if outside:
        warnings.append(
            Warned(
                "MX-MET-103",
                f"{outside} lesion voxels lie outside the brain mask and are not counted",
                where,
                "check the mask and the segmentation if that is not expected",
            )
        )
    return warnings
