"""From any source grid to the model grid and back to the reference: one resample in, one out, none where grids agree.

The model grid is the reference grid reoriented to the closest patient axes (voxels stay where they are, oblique grids
stay oblique), respaced where the settings ask for it, then cropped and padded. Only its affine and shape are computed
here; voxels move once, straight between a volume's own grid and the model grid.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.errors import InputError, UsageError, Warned
from MedXlateCore.transforms.foreground import Box, background_value, foreground_box, mask_box, tissue_mask, union_box
from MedXlateCore.transforms.grid_spec import CropPolicy, GridSpec
from MedXlateCore.transforms.orientation import axis_codes, reorient, tilt_degrees
from MedXlateCore.transforms.resampling import is_lattice_map, resample
from MedXlateCore.volume import Geometry, Volume

__all__ = [
    "CropPolicy",
    "GridSpec",
    "SpatialPlan",
    "axis_codes",
    "foreground_box",
    "is_lattice_map",
    "reorient",
    "resample",
    "respace",
]

MAX_GRID_VOXELS = 1 << 30
_SAME_SPACING = 0.01
_TILT_WARNING_DEGREES = 30.0
_ROUNDING = 1e-6  # voxels; keeps boxes the same whatever the rounding of an affine


@dataclass(frozen=True, eq=False)
class SpatialPlan:
    """How volumes reach the model grid and how results return; made by :meth:`make`.

    Attributes:
        reference: the grid that results return to.
        spec: the settings the plan follows.
        grid: the model grid.
        box: first index and one past the last of the model grid on the oriented, respaced reference grid; it may
            reach outside it.
        warnings: what the user should know: ``MX-GEO-024`` (the crop cuts foreground off), ``MX-GEO-025`` (the
            reference is tilted by more than 30 degrees against the patient axes).
    """

    reference: Geometry
    spec: GridSpec
    grid: Geometry
    box: Box
    warnings: tuple[Warned, ...] = ()

    @classmethod
    def make(cls, reference: Geometry, spec: GridSpec, foreground: Sequence[Volume] = ()) -> SpatialPlan:
        """Plan the model grid.

        Args:
            reference: grid of the reference source.
            spec: the model's settings.
            foreground: volumes (any grids) whose united foreground guides the crop; not looked at for crop ``none``.

        Raises:
            InputError: ``MX-IMG-024`` (no foreground within the reference grid), ``MX-GEO-021`` (the model grid would
                be absurdly large), ``MX-GEO-020`` (grids that cannot be related).
            UsageError: ``MX-USE-065``, the crop needs a foreground but no volume was given.
        """
        oriented = reorient(reference, spec.orientation)
        spaced = respace(oriented, spec.spacing_mm)
        tissue = _tissue_box(oriented, spaced, foreground, spec.crop)
        box = _padded(_cropped(spaced, tissue, spec.crop), spec.size_multiple)
        _check_size(box, spec)
        warnings = (*_tilt_warning(reference), *_cut_warning(box, tissue))
        return cls(reference, spec, _sub_grid(spaced, box), box, warnings)

    @property
    def is_exact(self) -> bool:
        """True if model grid and reference share a lattice: voxels are copied, not interpolated."""
        return is_lattice_map(self.grid, self.reference)

    def to_model(self, volume: Volume, fill: float | None = None) -> NDArray[np.float32]:
        """Return an image's voxels on the model grid, float32 [I, J, K]; linear, straight from the volume's own grid.

        Where the model grid is coarser than 1.5 voxels of the volume, the volume is averaged first. ``fill`` (outside
        the volume) defaults to its background value.

        Raises:
            InputError: ``MX-IMG-020`` (voxels are not real numbers), ``MX-GEO-020``.
        """
        outside = background_value(volume.array, volume.modality) if fill is None else fill
        on_grid = resample(_as_float(volume.array), volume.geometry, self.grid, order=1, fill=outside, antialias=True)
        return on_grid.astype(np.float32, copy=False)

    def labels_to_model(self, volume: Volume) -> NDArray:
        """Return a label map on the model grid by nearest neighbour, its type kept; 0 outside."""
        return resample(volume.array, volume.geometry, self.grid, order=0, fill=0)

    def mask_to_model(self, volume: Volume, labels: Collection[int] | None = None) -> NDArray[np.bool_]:
        """Return a mask on the model grid: linear interpolation, then above one half; smoother than nearest neighbour.

        Args:
            volume: a binary or soft (0 to 1) mask, or a label map together with ``labels``.
            labels: the labels that make up the mask.
        """
        inside = volume.array if labels is None else np.isin(volume.array, list(labels))
        return resample(_as_float(inside), volume.geometry, self.grid, order=1, fill=0.0) > 0.5

    def to_reference(self, array: NDArray, fill: float) -> NDArray[np.float32]:
        """Return a model-grid array on the reference grid, float32; ``fill`` where the model grid has no voxel.

        Raises:
            InputError: ``MX-GEO-004``, the array does not have the model grid's shape.
        """
        return resample(_as_float(array), self.grid, self.reference, order=1, fill=fill).astype(np.float32, copy=False)

    def describe(self) -> dict[str, Any]:
        """Return the plan as JSON-able facts, for run records and cache keys."""
        return {
            "spec": self.spec.to_dict(),
            "reference": _facts(self.reference),
            "grid": _facts(self.grid),
            "box": [list(self.box[0]), list(self.box[1])],
            "exact": self.is_exact,
            "warnings": [warning.as_dict() for warning in self.warnings],
        }


def respace(geometry: Geometry, spacing_mm: Sequence[float | None]) -> Geometry:
    """Return a grid with the same axes and centre of the field of view, and another spacing (mm; None keeps it).

    A wish within 1 % of the grid's own spacing keeps it. The number of voxels is rounded up, so that the new field of
    view covers the old one.
    """
    lengths, factors = [], []
    for length, own, wish in zip(geometry.shape, geometry.spacing_mm, spacing_mm, strict=True):
        factor = 1.0 if wish is None or abs(wish - own) <= _SAME_SPACING * own else wish / own
        factors.append(factor)
        lengths.append(min(max(1, math.ceil(length / factor - 1e-3)), MAX_GRID_VOXELS))
    if factors == [1.0, 1.0, 1.0]:
        return geometry
    affine = geometry.affine_ras.copy()
    affine[:3, :3] *= factors
    old_centre = (np.array(geometry.shape) - 1) / 2
    new_centre = (np.array(lengths) - 1) / 2
    affine[:3, 3] += geometry.affine_ras[:3, :3] @ old_centre - affine[:3, :3] @ new_centre
    return Geometry((lengths[0], lengths[1], lengths[2]), affine)


def _tissue_box(oriented: Geometry, spaced: Geometry, volumes: Sequence[Volume], crop: CropPolicy) -> Box | None:
    """Return the volumes' united foreground box on ``spaced``; None where the crop has no use for it."""
    if crop.kind == "none" or not (volumes or crop.needs_foreground):
        return None
    if not volumes:
        raise UsageError(
            "MX-USE-065",
            f"the crop ('{crop.kind}', centre '{crop.centre}') follows the foreground, but no volume was given",
            expected="at least one source volume",
            fix="pass the sources, or crop with kind 'none' or centre 'grid'",
        )
    masks = [_tissue_on(oriented, volume) for volume in volumes]
    boxes = [box for box in map(mask_box, masks) if box is not None]
    if not boxes:
        raise InputError(
            "MX-IMG-024",
            "nothing stands out from the background within the reference grid",
            expected="volumes that show a head or body and overlap the reference",
            where=", ".join(volume.name for volume in volumes),
            fix="check that the right volumes were chosen and that they are not blank",
        )
    return _carried(union_box(boxes), oriented, spaced)


def _tissue_on(grid: Geometry, volume: Volume) -> NDArray[np.bool_]:
    """Return a volume's tissue mask on another grid by nearest neighbour."""
    return resample(tissue_mask(volume.array, volume.modality), volume.geometry, grid, order=0, fill=0)


def _carried(box: Box, oriented: Geometry, spaced: Geometry) -> Box:
    """Carry a box between two grids that share axes and centre, rounding outwards."""
    if spaced is oriented:
        return box
    start, stop = [], []
    for axis in range(3):
        factor = oriented.spacing_mm[axis] / spaced.spacing_mm[axis]
        low, high = (
            (edge - oriented.shape[axis] / 2) * factor + spaced.shape[axis] / 2 for edge in (box[0][axis], box[1][axis])
        )
        start.append(max(0, math.floor(low + _ROUNDING)))
        stop.append(min(spaced.shape[axis], math.ceil(high - _ROUNDING)))
    return (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])


def _cropped(grid: Geometry, tissue: Box | None, crop: CropPolicy) -> Box:
    """Return the box that the crop policy asks for, before padding."""
    whole: Box = ((0, 0, 0), grid.shape)
    if crop.kind == "none":
        return whole
    roomy = whole if tissue is None else _with_margin(grid, tissue, crop.margin_mm)
    if crop.kind == "foreground":
        return roomy
    start, stop = [0, 0, 0], [0, 0, 0]
    for axis, wish in enumerate(crop.size or (None, None, None)):
        around = whole if crop.centre == "grid" or tissue is None else roomy if wish is None else tissue
        low, high = around[0][axis], around[1][axis]
        length = wish or high - low
        start[axis] = (low + high - length) // 2 + crop.offset_voxels[axis]
        stop[axis] = start[axis] + length
        if crop.grow and tissue is not None:
            start[axis] = min(start[axis], tissue[0][axis])
            stop[axis] = max(stop[axis], tissue[1][axis])
    return (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])


def _with_margin(grid: Geometry, box: Box, margin_mm: float) -> Box:
    """Widen a box by a margin (rounded up to voxels), within the grid."""
    margin = [math.ceil(margin_mm / spacing - _ROUNDING) for spacing in grid.spacing_mm]
    start = [max(0, low - m) for low, m in zip(box[0], margin, strict=True)]
    stop = [min(n, high + m) for n, high, m in zip(grid.shape, box[1], margin, strict=True)]
    return (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])


def _padded(box: Box, multiple: Sequence[int]) -> Box:
    """Widen a box on both sides to multiples; an odd remainder goes to the far side."""
    start, stop = list(box[0]), list(box[1])
    for axis, step in enumerate(multiple):
        missing = -(stop[axis] - start[axis]) % step
        start[axis] -= missing // 2
        stop[axis] += missing - missing // 2
    return (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])


def _sub_grid(grid: Geometry, box: Box) -> Geometry:
    """Return the grid of a box of another grid's lattice."""
    affine = grid.affine_ras.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array(box[0], dtype=np.float64)
    i, j, k = (high - low for low, high in zip(*box, strict=True))
    return Geometry((i, j, k), affine)


def _check_size(box: Box, spec: GridSpec) -> None:
    """Refuse grids that no computer holds, before anything is allocated."""
    size = [high - low for low, high in zip(*box, strict=True)]
    if math.prod(size) > MAX_GRID_VOXELS:
        raise InputError(
            "MX-GEO-021",
            f"the model grid would have {size[0]} x {size[1]} x {size[2]} voxels",
            expected=f"at most {MAX_GRID_VOXELS} voxels",
            where=f"spacing {spec.spacing_mm} mm, crop {spec.crop.kind}",
            fix="check the spacing in the volume's header and in the model's grid settings",
        )


def _cut_warning(box: Box, tissue: Box | None) -> tuple[Warned, ...]:
    """Say how many voxels of foreground the box cuts off, if it does."""
    if tissue is None:
        return ()
    low = [max(0, b - t) for b, t in zip(box[0], tissue[0], strict=True)]
    high = [max(0, t - b) for b, t in zip(box[1], tissue[1], strict=True)]
    if not any(low) and not any(high):
        return ()
    return (
        Warned(
            "MX-GEO-024",
            f"the model's crop leaves out part of the foreground: {low} voxels before and {high} after its box",
            where="model grid, axes I J K",
            fix="those parts of the result are filled with background; allow the crop to grow to include them",
        ),
    )


def _tilt_warning(reference: Geometry) -> tuple[Warned, ...]:
    """Say that slices are far from the plane the model was trained on, if they are."""
    tilt = tilt_degrees(reference)
    if tilt <= _TILT_WARNING_DEGREES:
        return ()
    return (
        Warned(
            "MX-GEO-025",
            f"the reference grid is tilted by {tilt:.0f} degrees against the patient axes",
            where="reference geometry",
            fix="the model sees tilted slices; a reference closer to the patient axes may give a better result",
        ),
    )


def _as_float(array: NDArray) -> NDArray:
    """Return real voxels as float32 (other types are left for the resampler to refuse)."""
    return array.astype(np.float32, copy=False) if array.dtype.kind in "biuf" else array


def _facts(geometry: Geometry) -> dict[str, Any]:
    return {
        "shape": list(geometry.shape),
        "affine_ras": geometry.affine_ras.tolist(),
        "spacing_mm": list(geometry.spacing_mm),
        "orientation": axis_codes(geometry),
    }
