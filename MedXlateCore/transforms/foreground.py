"""Where the head or body is: background value, foreground mask, foreground box.

All decisions rest on counts, sorted values and faces of the array, so they do not depend on how a volume's axes are
ordered or flipped.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from MedXlateCore.errors import InputError
from MedXlateCore.volume import Modality

__all__ = ["Box", "background_value", "foreground_box", "foreground_mask", "mask_box", "tissue_mask"]

Box = tuple[tuple[int, int, int], tuple[int, int, int]]
"""First index and one past the last index along I, J, K."""

_AIR_HU = -500.0  # halfway between air (-1000 HU) and water (0 HU)
_EXACT_BACKGROUND_SHARE = 0.2  # one exact value in so many voxels is a background that was written, not measured
_NOISY_FACE_SHARE = 0.05  # faces with more than this share of other values may show noise
_DIM_SHARE = 0.2  # ... and do, if those are dimmer than this share of bright tissue
_SECOND_TISSUE_SEPARATION = 0.9
_SPECK_SHARE = 0.01  # components smaller than this share of the largest are specks
_THIN_SLAB_SHARE = 0.002  # slabs with less than this share of the fullest slab hold specks only
_BINS = 256


def background_value(array: NDArray, modality: Modality = Modality.OTHER) -> float:
    """Return the intensity to write where a volume has no data.

    -1000 HU for CT and CBCT that contain air, otherwise the value that fills the background exactly (skull-stripped or
    masked images, also z-scored ones), otherwise the minimum. It never widens the volume's range.
    """
    lowest = _lowest(array)
    if modality.air_value < 0 and lowest <= _AIR_HU:
        return max(modality.air_value, lowest)
    exact = _exact_background(array)
    return lowest if exact is None else exact


def tissue_mask(array: NDArray, modality: Modality = Modality.OTHER) -> NDArray[np.bool_]:
    """Return the voxels [I, J, K] that are not background, by value alone: specks and holes stay.

    - CT and CBCT with air: above -500 HU. Label maps: not 0.
    - An exact background (one value in at least 20 % of the voxels, the commonest on the array's faces): every other
      value, unless the rest of the faces shows dim noise; then as follows, on the rest.
    - Otherwise above half of Otsu's threshold; lower where a second, dimmer tissue stands out below it.
    """
    if modality is Modality.LABEL:
        return array != 0
    lowest = _lowest(array)
    if modality.air_value < 0 and lowest <= _AIR_HU:
        return array > _AIR_HU
    exact = _exact_background(array)
    if exact is None:
        return array > _tissue_threshold(array, lowest, modality)
    mask = (array != exact) & np.isfinite(array)
    if exact > lowest or not mask.any() or not _faces_show_noise(array, exact, array[mask]):
        return mask
    return array > _tissue_threshold(array[mask], lowest, modality)


def foreground_mask(array: NDArray, modality: Modality = Modality.OTHER) -> NDArray[np.bool_]:
    """Return the head or body mask [I, J, K]: :func:`tissue_mask` without specks and with enclosed holes filled.

    Raises:
        InputError: ``MX-IMG-024``, nothing stands out from the background.
    """
    mask = tissue_mask(array, modality)
    labels, count = ndimage.label(mask)
    if count == 0:
        raise _no_foreground(array)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept = (sizes >= _SPECK_SHARE * sizes.max())[labels]
    return _with_holes_filled(kept)


def mask_box(mask: NDArray[np.bool_]) -> Box | None:
    """Return the box of a mask, ignoring specks; None for an empty mask.

    Only blocks of 2x2x2 voxels count (unless the mask has none), and only slabs that hold at least 0.2 % of the blocks
    of the fullest slab along that axis: of a head, that trims less than one voxel of the vertex.
    """
    blocks, reach = mask, [1, 1, 1]
    for axis in range(3):
        if mask.shape[axis] > 2:
            before = (slice(None),) * axis
            blocks = blocks[(*before, slice(1, None))] & blocks[(*before, slice(None, -1))]
            reach[axis] = 2
    if not blocks.any():
        blocks, reach = mask, [1, 1, 1]
    start, stop = [], []
    for axis in range(3):
        filled = np.count_nonzero(blocks, axis=tuple(a for a in range(3) if a != axis))
        kept = np.flatnonzero(filled >= max(1.0, _THIN_SLAB_SHARE * filled.max()))
        if kept.size == 0:
            return None
        start.append(int(kept[0]))
        stop.append(int(kept[-1]) + reach[axis])
    return (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])


def foreground_box(arrays: Iterable[NDArray], modality: Modality = Modality.OTHER) -> Box:
    """Return the smallest box that holds the foregrounds of all arrays of one grid.

    Raises:
        InputError: ``MX-IMG-024``, no array has a foreground.
    """
    boxes, seen = [], None
    for array in arrays:
        seen = array
        box = mask_box(tissue_mask(array, modality))
        boxes += [box] if box else []
    if not boxes:
        raise _no_foreground(seen)
    return union_box(boxes)


def union_box(boxes: Iterable[Box]) -> Box:
    """Return the smallest box around some boxes (at least one)."""
    starts, stops = zip(*boxes, strict=True)
    start, stop = np.min(starts, axis=0), np.max(stops, axis=0)
    return (int(start[0]), int(start[1]), int(start[2])), (int(stop[0]), int(stop[1]), int(stop[2]))


def _no_foreground(array: NDArray | None) -> InputError:
    span = "no array was given"
    if array is not None and array.size:
        span = f"values {float(array.min()):g} to {float(array.max()):g}"
    return InputError(
        "MX-IMG-024",
        f"nothing stands out from the background ({span})",
        expected="a volume that shows a head or body",
        fix="check that the right volume was chosen and that it is not blank",
    )


def _lowest(array: NDArray) -> float:
    """Return the smallest finite value, 0 where there is none."""
    lowest = float(array.min()) if array.size else 0.0
    if np.isfinite(lowest):
        return lowest
    finite = array[np.isfinite(array)]
    return float(finite.min()) if finite.size else 0.0


def _faces(array: NDArray) -> NDArray:
    """Return the values on the six faces of an array."""
    return np.concatenate([array.take(end, axis=axis).ravel() for axis in range(3) for end in (0, -1)])


def _exact_background(array: NDArray) -> float | None:
    """Return the value that the background was set to: one exact value that fills enough of the faces and the array."""
    values, counts = np.unique(_faces(array), return_counts=True)
    value = values[np.argmax(counts)]  # the smallest of equally common values: np.unique sorts
    if not np.isfinite(value) or np.count_nonzero(array == value) < _EXACT_BACKGROUND_SHARE * array.size:
        return None
    return float(value)


def _faces_show_noise(array: NDArray, exact: float, rest: NDArray) -> bool:
    """True if the faces hold dim values beside the exact background: air with noise, not tissue that was cut off."""
    faces = _faces(array)
    other = faces[(faces != exact) & np.isfinite(faces)]
    if other.size < _NOISY_FACE_SHARE * faces.size:
        return False
    return float(np.median(other)) - exact < _DIM_SHARE * (float(np.percentile(rest, 90)) - exact)


def _tissue_threshold(array: NDArray, lowest: float, modality: Modality) -> float:
    """Return the intensity above which voxels count as tissue.

    Half of Otsu's threshold keeps air out, also where tissues differ little. Where they differ a lot the threshold lies
    between two tissues (fat and muscle in T1). Such a second tissue shows as two well separated classes below the
    threshold, which noise alone does not give (Rayleigh noise separates by about 0.7). PET, whose uptake spans orders
    of magnitude, is split on the fourth root instead.
    """
    values = array[np.isfinite(array)] if array.dtype.kind == "f" else array.ravel()
    if values.size == 0:
        return lowest
    if modality is Modality.PET:
        root, _ = _otsu((values - np.float64(lowest)) ** 0.25, 0.0, (float(values.max()) - lowest) ** 0.25)
        return lowest + root**4
    # the histogram ends at the 99.5th percentile, so that a few bright voxels (vessels, metal) do not stretch it
    first, _ = _otsu(values, lowest, float(np.percentile(values, 99.5)))
    half = lowest + 0.5 * (first - lowest)
    second, separation = _otsu(values[values <= half], lowest, half)
    return second if separation >= _SECOND_TISSUE_SEPARATION else half


def _otsu(values: NDArray, lowest: float, highest: float) -> tuple[float, float]:
    """Return Otsu's threshold between two limits (256 bins; Otsu 1979) and its separation, between/total variance.

    The threshold is taken midway between the two class means, as it is at a sharp optimum; where the classes lie far
    apart the optimum is flat and its first bin would touch the lower class.
    """
    if not highest > lowest or values.size == 0:
        return lowest, 0.0
    position = (values - np.float64(lowest)) * (_BINS / (highest - lowest))
    counts = np.bincount(np.clip(position, 0, _BINS - 1).astype(np.uint8), minlength=_BINS).astype(np.float64)
    moments = counts * (np.arange(_BINS) + 0.5)
    below, sum_below = np.cumsum(counts)[:-1], np.cumsum(moments)[:-1]
    above, sum_above = counts.sum() - below, moments.sum() - sum_below
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_below, mean_above = sum_below / below, sum_above / above
    between = np.where((below > 0) & (above > 0), below * above * (mean_above - mean_below) ** 2, 0.0) / counts.sum()
    best = int(np.argmax(between))
    if between[best] <= 0:
        return lowest, 0.0
    mean = moments.sum() / counts.sum()
    variance = (counts * (np.arange(_BINS) + 0.5 - mean) ** 2).sum()
    threshold = lowest + 0.5 * float(mean_below[best] + mean_above[best]) * (highest - lowest) / _BINS
    return threshold, float(between[best] / variance)


def _with_holes_filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill background that is enclosed. Axes of one or two voxels count as closed off at neither end."""
    labels, count = ndimage.label(~mask)
    if count == 0:
        return mask
    open_to_outside = np.zeros(count + 1, dtype=bool)
    for axis in range(3):
        if mask.shape[axis] > 2:
            for end in (0, -1):
                open_to_outside[labels.take(end, axis=axis).ravel()] = True
    open_to_outside[0] = False
    return ~open_to_outside[labels]
