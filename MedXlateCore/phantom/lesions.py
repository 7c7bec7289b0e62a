"""Lesions: tumours with core, rim and oedema, their mass effect, and white-matter hyperintensities that never enhance.

Label maps use the BraTS codes: 0 background, 1 necrotic or non-enhancing core, 2 oedema, 4 enhancing tumour (Menze et
al., IEEE Trans Med Imaging 34:1993, 2015). Hyperintensities carry no label: bright in T2 is not always a tumour.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import ndimage

from MedXlateCore.phantom import hulls
from MedXlateCore.phantom.canvas import Canvas
from MedXlateCore.phantom.cortex import Cortex, cortex_limits
from MedXlateCore.phantom.fields import Array, Box, Grid, Points, generator, smooth_noise
from MedXlateCore.phantom.shapes import coverage, ellipsoid, step
from MedXlateCore.phantom.tissues import TISSUES, Tissue, vary
from MedXlateCore.phantom.traits import Traits, canonical_points

__all__ = [
    "CORE",
    "ENHANCING",
    "OEDEMA",
    "Lesion",
    "LesionKind",
    "draw_lesions",
    "paint_hyperintensities",
    "paint_lesions",
    "push",
]

CORE, OEDEMA, ENHANCING = 1, 2, 4


class LesionKind(enum.StrEnum):
    """How a tumour looks."""

    RING = "ring"
    SOLID = "solid"
    NON_ENHANCING = "non_enhancing"


@dataclass(frozen=True)
class Lesion:
    """One tumour, in the subject's space.

    Attributes:
        kind: ring-enhancing with necrotic core, solid enhancing, or non-enhancing.
        centre_mm: RAS position.
        radius_mm: mean radius of core and rim together.
        stretch: relative lengths of its axes along x, y, z (product about 1).
        rim_mm: mean thickness of the enhancing rim.
        oedema_ratio: volume of oedema relative to the tumour's.
        mass_effect: displacement at the tumour's surface relative to its radius.
    """

    kind: LesionKind
    centre_mm: tuple[float, float, float]
    radius_mm: float
    stretch: tuple[float, float, float]
    rim_mm: float
    oedema_ratio: float
    mass_effect: float

    def to_dict(self) -> dict[str, object]:
        """Return the facts for JSON."""
        return {**asdict(self), "kind": self.kind.value}


def draw_lesions(seed: int, traits: Traits, count: int | None = None) -> tuple[Lesion, ...]:
    """Draw the tumours of a subject: one to three unless ``count`` says how many.

    Diameters run from 8 to 45 mm, large ones alone, several ones small as metastases are.
    """
    rng = generator(seed, "lesions")
    drawn = int(rng.choice([1, 2, 3], p=[0.62, 0.24, 0.14]))
    total = drawn if count is None else count
    lesions: list[Lesion] = []
    for _ in range(total):
        radius = float(rng.uniform(8.0, 22.5) if total == 1 else rng.uniform(4.0, 14.0))
        centre = _place(rng, seed, traits, radius, lesions)
        if centre is not None:
            lesions.append(_draw_one(rng, centre, radius))
    return tuple(lesions)


def _draw_one(rng: np.random.Generator, centre: tuple[float, float, float], radius: float) -> Lesion:
    chances = [0.62, 0.20, 0.18] if radius > 9 else [0.45, 0.40, 0.15]
    kind = LesionKind(rng.choice([k.value for k in LesionKind], p=chances))
    stretch = np.exp(rng.normal(0.0, 0.13, 3))
    stretch /= stretch.prod() ** (1 / 3)
    oedema = (
        rng.uniform(0.2, 0.9) if kind is LesionKind.NON_ENHANCING else rng.uniform(0.8, 4.0) * (14.0 / (radius + 5.0))
    )
    return Lesion(
        kind=kind,
        centre_mm=centre,
        radius_mm=radius,
        stretch=(float(stretch[0]), float(stretch[1]), float(stretch[2])),
        rim_mm=float(rng.uniform(1.8, 2.4 + 0.16 * radius)),
        oedema_ratio=float(oedema),
        mass_effect=float(rng.uniform(0.10, 0.38)),
    )


def _place(
    rng: np.random.Generator, seed: int, traits: Traits, radius: float, others: Sequence[Lesion]
) -> tuple[float, float, float] | None:
    """Return a position in white matter or at the grey-white junction, away from the midline and other tumours."""
    low, high = cortex_limits()
    wanted_depth = rng.uniform(0.45, 1.05) * radius + rng.uniform(2.0, 10.0)
    for _ in range(400):
        candidate = rng.uniform(low, high)
        spot = canonical_points(seed, traits, Grid(tuple(np.array([c], np.float32) for c in candidate)))  # type: ignore[arg-type]
        x, y, z = (float(p[0, 0, 0]) for p in spot)
        depth = -float(hulls.cerebrum(spot, 2.5)[0, 0, 0])
        nuclei = float(ellipsoid((np.abs(spot[0]), spot[1], spot[2]), (16, -8, 8), (16, 32, 20))[0, 0, 0])
        low_and_central = abs(x) < 24 and z < -4 and -50 < y < 20
        apart = all(np.linalg.norm(candidate - o.centre_mm) > 1.3 * (radius + o.radius_mm) + 6 for o in others)
        fits = abs(depth - wanted_depth) < 3.0 and abs(x) > 0.55 * radius + 6 and nuclei > 0.35 * radius
        if fits and apart and not low_and_central:
            return float(candidate[0]), float(candidate[1]), float(candidate[2])
    return None


def push(points: Points, grid: Grid, lesions: Sequence[Lesion], inside: Array) -> Points:
    """Return canonical coordinates with the tissue around each tumour pushed outwards (mass effect).

    Args:
        points: canonical coordinates before the tumours grew, mm.
        grid: where they are.
        lesions: the tumours.
        inside: signed distance to the cranial cavity, mm; nothing moves at the skull, which does not yield.
    """
    x, y, z = (p.copy() for p in points)
    hold = step(-inside, 1.0, 16.0)
    axes = np.meshgrid(*grid.axes, indexing="ij", copy=False)
    for lesion in lesions:
        offset = [a - np.float32(c) for a, c in zip(axes, lesion.centre_mm, strict=True)]
        distance = np.sqrt(sum(o * o for o in offset)) + np.float32(1e-3)
        r = np.float32(lesion.radius_mm)
        # Grows linearly to the surface, then decays over about one and a half radii: monotonic, so nothing folds.
        reach = np.where(distance < r, distance / r, np.exp(-(((distance - r) / (1.5 * r)) ** 2)))
        shift = np.float32(lesion.mass_effect) * r * reach * hold / distance
        for p, o in zip((x, y, z), offset, strict=True):
            p -= shift * o
    return x, y, z


def paint_lesions(canvas: Canvas, cortex: Cortex, seed: int, lesions: Sequence[Lesion]) -> np.ndarray:
    """Paint tumours over the brain and return their label map.

    Returns:
        uint8 ``[I, J, K]`` with 0, 1 (core), 2 (oedema), 4 (enhancing).
    """
    labels = np.zeros(canvas.grid.shape, np.uint8)
    rooms = [_Room.around(lesion, canvas, cortex) for lesion in lesions]
    fields = [
        None if room is None else _tumour_field(room, lesion, seed, n)
        for n, (room, lesion) in enumerate(zip(rooms, lesions, strict=True))
    ]
    for paint in (_paint_oedema, _paint_tumour):  # every oedema lies under every tumour
        for number, (room, lesion, tumour) in enumerate(zip(rooms, lesions, fields, strict=True)):
            if room is not None and tumour is not None:
                paint(canvas, room, lesion, tumour, labels, seed, number)
    return labels


@dataclass(frozen=True, eq=False)
class _Room:
    """The surroundings of one tumour: part of the grid with the cortex's distances there."""

    box: Box
    grid: Grid
    hull: Array
    pial: Array
    tissue: np.ndarray
    allowed: Array

    @classmethod
    def around(cls, lesion: Lesion, canvas: Canvas, cortex: Cortex) -> _Room | None:
        """Return the surroundings of a lesion; None where it lies outside the brain's part of the grid."""
        reach = 1.7 * lesion.radius_mm + 26.0
        spans = []
        for axis, centre, limit in zip(canvas.grid.axes, lesion.centre_mm, cortex.box, strict=True):
            near = np.flatnonzero(np.abs(axis - centre) < reach)
            first, last = (int(near[0]), int(near[-1]) + 1) if len(near) else (0, 0)
            spans.append(slice(max(first, limit.start), min(last, limit.stop)))
        if any(s.stop - s.start < 2 for s in spans):
            return None
        box = (spans[0], spans[1], spans[2])
        within = tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(spans, cortex.box, strict=True))
        hull, pial = cortex.hull[within], cortex.pial[within]
        tissue = canvas.labels[box]
        x = canvas.points[0][box]
        side = np.float32(np.sign(lesion.centre_mm[0]))
        blocked = np.isin(tissue, [Tissue.VENTRICLE, Tissue.BRAINSTEM, Tissue.CEREBELLAR_GREY, Tissue.CEREBELLAR_WHITE])
        blocked |= np.isin(tissue, [Tissue.DURA, Tissue.BONE, Tissue.MUSCLE, Tissue.FAT, Tissue.CHOROID_PLEXUS])
        open_space = ndimage.gaussian_filter((~blocked).astype(np.float32), 0.6)
        allowed = coverage(0.8 - hull, canvas.grid.edge_mm) * step(side * x, -1.5, 1.0) * open_space
        return cls(box, canvas.grid.part(box), hull, pial, tissue, allowed)


def _tumour_field(room: _Room, lesion: Lesion, seed: int, number: int) -> Array:
    """Return the signed distance to the tumour's surface, mm: an ellipsoid with lobes and a rough border."""
    offset = np.meshgrid(*room.grid.axes, indexing="ij", copy=False)
    square = sum(
        ((o - np.float32(c)) / np.float32(s)) ** 2
        for o, c, s in zip(offset, lesion.centre_mm, lesion.stretch, strict=True)
    )
    r = lesion.radius_mm
    lobes = smooth_noise(generator(seed, "lobes", number), room.grid, max(0.65 * r, 4.0))
    rough = smooth_noise(generator(seed, "rough", number), room.grid, max(0.25 * r, 2.5))
    return (np.sqrt(square) - r * (1.0 + 0.15 * lobes + 0.045 * rough)).astype(np.float32)


def _paint_oedema(
    canvas: Canvas, room: _Room, lesion: Lesion, tumour: Array, labels: np.ndarray, seed: int, number: int
) -> None:
    """Oedema spreads from the tumour along white matter, spares the cortex and stops at fluid: finger-like."""
    edge = canvas.grid.edge_mm
    white = np.isin(room.tissue, [Tissue.WHITE_MATTER, Tissue.HYPERINTENSITY, Tissue.OEDEMA])
    grey = np.isin(room.tissue, [Tissue.GREY_MATTER, Tissue.PUTAMEN, Tissue.CAUDATE, Tissue.THALAMUS, Tissue.PALLIDUM])
    conduct = np.where(white, 1.0, np.where(grey, 0.45, 0.0)).astype(np.float32) * np.minimum(room.allowed * 1.3, 1.0)
    conduct = np.maximum(ndimage.gaussian_filter(conduct, 0.5), 0.0)
    source = coverage(tumour, edge)
    spread = source.copy()
    sigma = [2.4 / s for s in room.grid.spacing_mm]
    for _ in range(12):
        spread = np.maximum(source, ndimage.gaussian_filter(spread, sigma, truncate=2.5) * conduct)
    patchy = smooth_noise(generator(seed, "oedema", number), room.grid, 9.0)
    level = np.log(np.maximum(spread, 1e-6)) + 0.35 * patchy
    around = (white | grey) & (tumour > 0)
    wanted = lesion.oedema_ratio * float(source.sum())
    if not around.any() or wanted < 1:
        return
    ranked = np.sort(level[around])[::-1]
    threshold = max(float(ranked[min(int(wanted), len(ranked) - 1)]), -5.5)
    shape = np.clip((level - threshold) * 1.6 + 0.5, 0.0, 1.0) * step(conduct, 0.35, 0.75)
    strength = np.clip(0.62 + 0.10 * (level - threshold), 0.62, 0.98).astype(np.float32)
    own = vary(TISSUES[Tissue.OEDEMA], generator(seed, "oedema tissue", number), 0.05)
    canvas.lay(Tissue.OEDEMA, (shape * strength).astype(np.float32), room.box, own)
    labels[room.box][shape > 0.5] = OEDEMA


def _paint_tumour(
    canvas: Canvas, room: _Room, lesion: Lesion, tumour: Array, labels: np.ndarray, seed: int, number: int
) -> None:
    """Rim and core of a ring, or the whole of a solid tumour."""
    edge = canvas.grid.edge_mm
    rng = generator(seed, "tumour tissue", number)
    outer = Tissue.SOLID_TUMOUR if lesion.kind is LesionKind.NON_ENHANCING else Tissue.ENHANCING_RIM
    cover = coverage(tumour, edge) * room.allowed
    canvas.lay(outer, cover, room.box, vary(TISSUES[outer], rng, 0.07))
    labels[room.box][cover > 0.5] = CORE if outer is Tissue.SOLID_TUMOUR else ENHANCING
    if lesion.kind is LesionKind.RING:
        ragged = smooth_noise(generator(seed, "rim", number), room.grid, 4.5)
        inner = tumour + lesion.rim_mm * (1.0 + 0.35 * ragged)
    elif lesion.kind is LesionKind.SOLID and lesion.radius_mm > 8.0:
        holes = smooth_noise(generator(seed, "cysts", number), room.grid, 5.0)  # small cysts in solid tissue
        inner = np.maximum(tumour + 2.5, 4.0 * (1.15 - holes))
    else:
        return
    core = coverage(inner, edge) * room.allowed
    canvas.lay(Tissue.NECROTIC_CORE, core, room.box, vary(TISSUES[Tissue.NECROTIC_CORE], rng, 0.09))
    labels[room.box][core > 0.5] = CORE


def paint_hyperintensities(canvas: Canvas, cortex: Cortex, seed: int, traits: Traits) -> float:
    """Paint white-matter hyperintensities: caps at the ventricles, spots in deep white matter.

    Returns:
        The burden drawn, 0 (none, in about half of the subjects) to 1.
    """
    rng = generator(seed, "hyperintensities")
    burden = float(max(0.0, rng.uniform(-0.55, 0.55) + 0.45 * traits.atrophy))
    if burden == 0.0:
        return 0.0
    grid = canvas.grid.part(cortex.box)
    tissue = canvas.labels[cortex.box]
    white = (tissue == Tissue.WHITE_MATTER) & (canvas.points[2][cortex.box] > -4)
    from_ventricle = ndimage.distance_transform_edt(tissue != Tissue.VENTRICLE, sampling=grid.spacing_mm).astype(
        np.float32
    )
    patchy = smooth_noise(generator(seed, "caps"), grid, 7.0)
    caps = from_ventricle - 6.5 * burden * (0.55 + 0.6 * patchy)
    spots = smooth_noise(generator(seed, "spots"), grid, 4.5) + 0.4 * patchy
    spots = 5.0 * (2.75 - 1.1 * burden - spots)
    room = np.maximum(4.5 - cortex.pial, 0.0) * 2.0  # the fibres just under the cortex are spared
    cover = coverage(np.minimum(caps, spots + room), 1.3 * canvas.grid.edge_mm) * ndimage.gaussian_filter(
        white.astype(np.float32), 0.5
    )
    own = vary(TISSUES[Tissue.HYPERINTENSITY], rng, 0.05)
    canvas.lay(Tissue.HYPERINTENSITY, (0.9 * cover).astype(np.float32), cortex.box, own)
    return burden
