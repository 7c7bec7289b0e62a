"""Build a subject from a seed, and its images: the phantom's front door.

Example:
    >>> subject = build_subject(7, shape=(64, 80, 52))
    >>> volumes = render_subject(subject, [Modality.T1, Modality.T1CE])
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from MedXlateCore.errors import ResourceError, UsageError
from MedXlateCore.phantom import render
from MedXlateCore.phantom.canvas import Canvas, Layer
from MedXlateCore.phantom.cortex import paint_cortex
from MedXlateCore.phantom.deep import paint_cerebellum, paint_deep_grey, paint_ventricles
from MedXlateCore.phantom.fields import Array, Grid, generator
from MedXlateCore.phantom.hulls import cavity
from MedXlateCore.phantom.lesions import Lesion, draw_lesions, paint_hyperintensities, paint_lesions, push
from MedXlateCore.phantom.physics import MRAcquisition, acquisition_for
from MedXlateCore.phantom.skull import paint_head_outside_brain
from MedXlateCore.phantom.tissues import TISSUES, Tissue, TissueProperties, vary
from MedXlateCore.phantom.traits import Traits, canonical_points, draw_traits
from MedXlateCore.phantom.vessels import paint_vessels
from MedXlateCore.volume import Geometry, Modality, Source, Volume

__all__ = [
    "DEFAULT_SHAPE",
    "MODALITIES",
    "Subject",
    "build_subject",
    "check_modalities",
    "phantom_geometry",
    "render_subject",
]

DEFAULT_SHAPE = (128, 160, 104)
FIELD_OF_VIEW_MM = (192.0, 240.0, 182.0)
MODALITIES = (
    Modality.T1,
    Modality.T1CE,
    Modality.T2,
    Modality.FLAIR,
    Modality.PD,
    Modality.CT,
    Modality.CBCT,
    Modality.PET,
)
_CENTRE_RAS = (0.0, -8.0, 5.0)
_SMALLEST, _LARGEST_VOXELS = 8, 60_000_000
_SPACING_LIMITS_MM = (0.3, 20.0)


@dataclass(frozen=True, eq=False)
class Subject:
    """One numerical head.

    Attributes:
        seed: the seed it was built from.
        geometry: the grid all its images share.
        tissues: dominant tissue per voxel (``Tissue`` codes), uint8 ``[I, J, K]``.
        labels: tumour label map, 0, 1 (core), 2 (oedema), 4 (enhancing), uint8 ``[I, J, K]``.
        traits: individual anatomy.
        lesions: the tumours.
        hyperintensity_burden: white-matter hyperintensities, 0 (none) to 1.
        properties: this subject's tissue properties.
        layers: painted layers, bottom first.
        grain: local water content, float32 ``[I, J, K]``.
    """

    seed: int
    geometry: Geometry
    tissues: np.ndarray
    labels: np.ndarray
    traits: Traits
    lesions: tuple[Lesion, ...]
    hyperintensity_burden: float
    properties: Mapping[Tissue, TissueProperties]
    layers: tuple[Layer, ...]
    grain: Array

    @property
    def grid(self) -> Grid:
        """Positions of the voxels along each axis, RAS mm."""
        return _grid(self.geometry)

    @property
    def brain_mask(self) -> np.ndarray:
        """True in brain parenchyma, ventricles and lesions, bool ``[I, J, K]``."""
        return np.isin(self.tissues, np.array([t for t in Tissue if t.is_brain], np.uint8)) | (self.labels > 0)

    @property
    def skull_strip_mask(self) -> np.ndarray:
        """True in the brain and the CSF close to it, as a skull-stripping program leaves it, bool ``[I, J, K]``."""
        near = ndimage.gaussian_filter(self.brain_mask.astype(np.float32), [2.5 / s for s in self.geometry.spacing_mm])
        outside = [Tissue.BONE, Tissue.MARROW, Tissue.MUSCLE, Tissue.FAT, Tissue.SKIN, Tissue.AIR, Tissue.SINUS_AIR]
        return (near > 0.35) & ~np.isin(self.tissues, np.array(outside, np.uint8))

    def label_volume(self) -> Volume:
        """Return the tumour label map as a volume."""
        return Volume(self.labels, self.geometry, Modality.LABEL, Source(name=f"phantom {self.seed}"))

    def tissue_volume(self) -> Volume:
        """Return the tissue label map as a volume."""
        return Volume(self.tissues, self.geometry, Modality.LABEL, Source(name=f"phantom {self.seed} tissues"))


def phantom_geometry(shape: Sequence[int] | None = None, spacing_mm: Sequence[float] | None = None) -> Geometry:
    """Return the grid of a phantom: I to the Left, J to the Posterior, K to the Superior side, centred on the head.

    Args:
        shape: voxels along I, J, K; by default what the spacing needs to hold the head, or 128 x 160 x 104.
        spacing_mm: voxel size in mm; by default what the shape needs, so that every phantom holds the whole head.

    Raises:
        UsageError: ``MX-USE-182``, fewer than 8 voxels along an axis, or a spacing outside 0.3 to 20 mm.
        ResourceError: ``MX-RES-180``, more than 60 million voxels.
    """
    low, high = _SPACING_LIMITS_MM
    if spacing_mm is not None and (len(spacing_mm) != 3 or not all(low <= s <= high for s in spacing_mm)):
        raise _cannot_make(shape, spacing_mm)
    if shape is None:
        wanted = DEFAULT_SHAPE if spacing_mm is None else _shape_for(spacing_mm)
    else:
        wanted = tuple(int(n) for n in shape)
    if math.prod(wanted) > _LARGEST_VOXELS:
        raise ResourceError(
            "MX-RES-180",
            f"a phantom of {wanted} voxels would take too much memory",
            expected=f"at most {_LARGEST_VOXELS} voxels",
            where="size",
            fix=f"ask for fewer or larger voxels; the usual size is {DEFAULT_SHAPE}",
        )
    if spacing_mm is None:
        spacing_mm = [f / max(n, 1) for f, n in zip(FIELD_OF_VIEW_MM, wanted, strict=False)]
    if len(wanted) != 3 or min(wanted) < _SMALLEST or any(not low <= s <= high for s in spacing_mm):
        raise _cannot_make(wanted, spacing_mm)
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    middle = affine[:3, :3] @ ((np.array(wanted) - 1) / 2.0)
    affine[:3, 3] = np.array(_CENTRE_RAS) - middle
    return Geometry((wanted[0], wanted[1], wanted[2]), affine)


def _shape_for(spacing_mm: Sequence[float]) -> tuple[int, ...]:
    return tuple(max(_SMALLEST, round(f / s)) for f, s in zip(FIELD_OF_VIEW_MM, spacing_mm, strict=True))


def _cannot_make(shape: Sequence[int] | None, spacing_mm: Sequence[float]) -> UsageError:
    low, high = _SPACING_LIMITS_MM
    size = "voxels" if shape is None else f"{tuple(shape)} voxels"
    return UsageError(
        "MX-USE-182",
        f"a phantom of {size} of {tuple(round(float(s), 3) for s in spacing_mm)} mm cannot be made",
        expected=f"three dimensions of at least {_SMALLEST} voxels, spacing {low} to {high} mm",
        where="size and spacing",
        fix=f"the usual size is {DEFAULT_SHAPE}",
    )


def build_subject(
    seed: int,
    shape: Sequence[int] | None = None,
    spacing_mm: Sequence[float] | None = None,
    *,
    lesion: bool = True,
    lesion_count: int | None = None,
) -> Subject:
    """Build the head of subject ``seed``: the same seed gives the same head, at any resolution.

    Args:
        seed: 0 or above.
        shape: voxels along I, J, K; see ``phantom_geometry``.
        spacing_mm: voxel size, mm.
        lesion: False for a head without a tumour (hyperintensities may still occur).
        lesion_count: how many tumours to try to place, 0 to 3; None draws one to three.

    Raises:
        UsageError: ``MX-USE-182`` (size or spacing), ``MX-USE-183`` (seed below 0, or a count outside 0 to 3).
        ResourceError: ``MX-RES-180``, too many voxels.
    """
    if seed < 0 or (lesion_count is not None and not 0 <= lesion_count <= 3):
        raise UsageError(
            "MX-USE-183",
            f"seed {seed} with {lesion_count} lesions cannot be built",
            expected="a seed of 0 or above and 0 to 3 lesions",
            where="build_subject",
            fix="correct the value",
        )
    geometry = phantom_geometry(shape, spacing_mm)
    grid = _grid(geometry)
    traits = draw_traits(seed)
    lesions = draw_lesions(seed, traits, lesion_count) if lesion and lesion_count != 0 else ()
    points = canonical_points(seed, traits, grid)
    if lesions:
        points = push(points, grid, lesions, cavity(points))
    canvas = Canvas(grid, points)
    inside = paint_head_outside_brain(canvas, seed, traits)
    cortex = paint_cortex(canvas, seed, traits)
    paint_cerebellum(canvas, seed, traits)
    paint_ventricles(canvas, traits)
    paint_deep_grey(canvas)
    burden, labels = 0.0, np.zeros(grid.shape, np.uint8)
    if cortex is not None:
        paint_vessels(canvas, seed, inside, cortex)
        burden = paint_hyperintensities(canvas, cortex, seed, traits)
        labels = paint_lesions(canvas, cortex, seed, lesions)
    rng = generator(seed, "tissues")
    properties = {tissue: vary(TISSUES[tissue], rng) for tissue in Tissue}
    properties[Tissue.VENTRICLE] = properties[Tissue.CSF]
    return Subject(
        seed, geometry, canvas.labels, labels, traits, lesions, burden, properties, tuple(canvas.layers),
        render.texture(seed, grid),
    )  # fmt: skip


def _grid(geometry: Geometry) -> Grid:
    i, j, k = (
        (geometry.affine_ras[a, 3] + geometry.affine_ras[a, a] * np.arange(n)).astype(np.float32)
        for a, n in enumerate(geometry.shape)
    )
    return Grid((i, j, k))


def check_modalities(names: Sequence[Modality | str]) -> tuple[Modality, ...]:
    """Return the modalities named, each once, in the order given.

    Raises:
        UsageError: ``MX-USE-010`` (unknown name), ``MX-USE-180`` (one the phantom cannot make, or none at all).
    """
    wanted = tuple(dict.fromkeys(Modality.parse(name) for name in names))
    other = [m.value for m in wanted if m not in MODALITIES]
    if other or not wanted:
        raise UsageError(
            "MX-USE-180",
            f"the phantom cannot make {', '.join(other) or 'an empty list of modalities'}",
            expected=f"some of {', '.join(m.value for m in MODALITIES)}",
            where="modalities",
            fix="correct the list",
        )
    return wanted


def render_subject(
    subject: Subject,
    modalities: Sequence[Modality | str] = MODALITIES,
    acquisitions: Mapping[Modality, MRAcquisition] | None = None,
    *,
    brain_only: bool = False,
) -> dict[Modality, Volume]:
    """Render images of one subject, all on its grid: float32, MR in arbitrary units, CT in HU, PET in SUV.

    Args:
        subject: the head.
        modalities: what to render.
        acquisitions: settings per MR modality; the usual ones at 3 T where missing.
        brain_only: True to set everything outside ``subject.skull_strip_mask`` to the value of air.

    Raises:
        UsageError: ``MX-USE-010`` (unknown name), ``MX-USE-180`` (a modality the phantom cannot make).
    """
    wanted = check_modalities(modalities)
    chosen = acquisitions or {}
    volumes = {m: _render_one(subject, m, chosen.get(m)) for m in wanted}
    if not brain_only:
        return volumes
    mask = subject.skull_strip_mask
    return {m: v.with_array(np.where(mask, v.array, np.float32(m.air_value))) for m, v in volumes.items()}


def _render_one(subject: Subject, modality: Modality, scan: MRAcquisition | None) -> Volume:
    rng = generator(subject.seed, "scan", modality.value)
    grid = subject.grid
    head = (subject.layers, subject.properties, subject.grain)
    if modality is Modality.CT:
        array = render.ct(*head, rng)
    elif modality is Modality.CBCT:
        array = render.cone_beam_ct(*head, grid, rng)
    elif modality is Modality.PET:
        array = render.pet(*head, grid, rng)
    else:
        array = render.mr_image(*head, grid, scan or acquisition_for(modality), rng)
    source = Source(name=f"phantom {subject.seed}")
    return Volume(array.astype(np.float32, copy=False), subject.geometry, modality, source)
