"""Inside the brain: cerebellum and brainstem, ventricles, deep grey nuclei. All positions canonical RAS mm."""

from __future__ import annotations

import numpy as np

from MedXlateCore.phantom import hulls
from MedXlateCore.phantom.canvas import Canvas
from MedXlateCore.phantom.fields import Array, Points, generator, smooth_noise
from MedXlateCore.phantom.shapes import Ellipsoid, Formula, Shape, Tube, coverage, step
from MedXlateCore.phantom.tissues import Tissue
from MedXlateCore.phantom.traits import Traits

__all__ = ["paint_cerebellum", "paint_deep_grey", "paint_ventricles"]

_HORNS = [
    (9, 31, 0, 2.2),
    (8.5, 20, 8, 4.4),
    (8.5, 0, 18, 4.6),
    (13, -24, 19, 5.2),
    (23, -40, 10, 6.4),
    (23, -66, 5, 2),
]
_TEMPORAL_HORN = [(24, -41, 8, 5.0), (33, -30, -9, 2.2), (33, -10, -19, 2.0)]
_PLEXUS: list[list[tuple[float, float, float, float]]] = [
    [(22, -37, 11, 2.2), (25, -42, 3, 3.2)],
    [(7, -4, 13.5, 1.1), (14, -26, 14.5, 1.5)],
    [(2, -46, -38, 1.2), (6, -45, -39, 1.2)],
]


def paint_cerebellum(canvas: Canvas, seed: int, traits: Traits) -> None:
    """Cerebellum with folia that fan out from the fourth ventricle, and the brainstem."""
    gap = 0.9 + 1.3 * traits.atrophy
    box = canvas.box((-58, -100, -72), (58, -28, 2))
    if box is not None:
        points = canvas.at(box)
        x, y, z = points
        grid = canvas.grid.part(box)
        hull = -hulls.cerebellum(points, gap)
        angle = np.arctan2(z + 33.0 - 0.12 * np.abs(x), -(y + 42.0))
        radius = np.hypot(z + 33.0, y + 42.0)
        bend = 0.9 * smooth_noise(generator(seed, "folia"), grid, 14.0)
        fissures = np.abs(np.sin(angle * 8.5 + bend)) * np.maximum(radius, 6.0) / 8.5
        fissures = np.maximum(fissures - 0.25 - 0.35 * traits.atrophy, hull - 13.0)
        fine = np.abs(np.sin(angle * 19.0 + 2.0 * bend)) * np.maximum(radius, 6.0) / 19.0
        fissures = np.minimum(fissures, np.maximum(fine - 0.12 - 0.2 * traits.atrophy, hull - 5.0))
        pial = np.minimum(hull, fissures)
        core = np.maximum(1.9 - pial, 0.4 * (4.0 - hull))
        canvas.lay(Tissue.CEREBELLAR_GREY, coverage(-pial, canvas.grid.edge_mm), box)
        canvas.lay(Tissue.CEREBELLAR_WHITE, coverage(core, canvas.grid.edge_mm), box)
    dentate = Ellipsoid((15, -58, -37), (8, 7, 5))
    ribbon = Formula(lambda p: np.abs(dentate.distance(p)) - 0.7, *dentate.bounds)
    canvas.paint(Tissue.PALLIDUM, ribbon, mirrored=True)
    canvas.paint(Tissue.BRAINSTEM, Formula(hulls.brainstem, (-34, -62, -140), (34, -8, -1)))
    canvas.paint(Tissue.PALLIDUM, Ellipsoid((6.5, -21, -10), (3, 3, 3.5)), mirrored=True)  # red nucleus, nigra


def _lateral_ventricle(points: Points, widen: float) -> Array:
    horns, temporal = Tube(_HORNS, widen), Tube(_TEMPORAL_HORN, 0.5 + 0.5 * widen)
    return np.maximum(np.minimum(horns.distance(points), temporal.distance(points)), 0.6 - points[0])


def paint_ventricles(canvas: Canvas, traits: Traits) -> None:
    """Lateral, third and fourth ventricle, aqueduct, septum, fornix, choroid plexus and the pineal gland."""
    for side, widen in zip((1.0, -1.0), traits.ventricle_scale, strict=True):
        low, high = sorted((side * 0.0, side * 44.0))
        box = canvas.box((low, -76, -26), (high, 40, 32))
        if box is not None:
            x, y, z = canvas.at(box)
            distance = _lateral_ventricle((np.float32(side) * x, y, z), widen)
            canvas.lay(Tissue.VENTRICLE, coverage(distance, canvas.grid.edge_mm), box)
    _paint_septum(canvas, traits)
    half = 1.0 + 2.0 * traits.atrophy
    canvas.paint(Tissue.VENTRICLE, Ellipsoid((0, -11, -2), (14, 15, 10)), within=lambda p: np.abs(p[0]) - half)
    wide = 0.85 + 0.3 * traits.atrophy
    fourth = Tube([(0, -30, -6, 1.0), (0, -36, -20, 1.2), (0, -43, -33, 5.0), (0, -48, -48, 1.4)], wide)
    flat = Formula(lambda p: fourth.distance((p[0] * np.float32(0.75), p[1], p[2])), (-9, -55, -52), (9, -26, -3))
    canvas.paint(Tissue.VENTRICLE, flat)
    canvas.paint(Tissue.WHITE_MATTER, Tube([(2, 4, 2, 1.5), (2.5, -4, 13, 1.7), (4, -26, 14, 2.0)]), mirrored=True)
    for path in _PLEXUS:
        canvas.paint(Tissue.CHOROID_PLEXUS, Tube(path), mirrored=True)
    # The pineal gland has no barrier either, so it takes the pituitary's properties; its centre is often calcified.
    canvas.paint(Tissue.PITUITARY, Ellipsoid((0, -32, 1), (3.4, 4.5, 3.4)))
    canvas.paint(Tissue.CALCIFICATION, Ellipsoid((0.4, -33, 1), (1.7, 1.7, 1.7)))


def _paint_septum(canvas: Canvas, traits: Traits) -> None:
    """The ventricles' midline parts under the callosum, above the fornix, and the septum that parts them."""
    reach = max(2.0, 9.4 - 4.4 * min(traits.ventricle_scale))  # as far as the frontal horns' medial walls

    def between(points: Points) -> Array:
        """Return the distance to the space under the callosum and above the fornix, negative inside (mm)."""
        x, y, z = points
        fornix = 1.0 + 14.0 * step(-y, -4.0, 6.0)
        under_callosum = hulls.callosal_arch(points) + 6.0
        return np.maximum(np.maximum(np.abs(x) - np.float32(reach), fornix - z), np.maximum(under_callosum, -32.0 - y))

    space = Formula(between, (-8, -34, 0), (8, 30, 26))
    canvas.paint(Tissue.VENTRICLE, space)
    canvas.paint(Tissue.WHITE_MATTER, space, within=lambda p: np.abs(p[0]) - 0.6)


def paint_deep_grey(canvas: Canvas) -> None:
    """Caudate, putamen, pallidum, thalamus, claustrum, hippocampus and amygdala, on both sides."""
    putamen = Ellipsoid((26.5, 1, 2), (4.8, 17, 11.5), lean=0.36)

    def claustrum(points: Points) -> Array:
        """A thin sheet lateral to the putamen."""
        x, y, _ = points
        return np.maximum(np.abs(putamen.distance(points) - 3.2) - 0.55, 29.0 - x - 0.36 * (y - 1.0))

    caudate = Tube([(13.5, 16, 2, 4.5), (13.5, 14, 9, 5.2), (15.5, 2, 18, 3.4), (19, -18, 21, 2.2), (30, -34, 12, 1.4)])
    hippocampus = Tube([(24, -6, -19, 6.0), (27, -16, -18, 4.6), (30, -28, -9, 4.0), (24, -38, -1, 2.6)])
    shapes: list[tuple[Tissue, Shape]] = [
        (Tissue.CAUDATE, caudate),
        (Tissue.PUTAMEN, putamen),
        (Tissue.PALLIDUM, Ellipsoid((18.5, -4, 0), (3.8, 10, 7), lean=0.5)),
        (Tissue.THALAMUS, Ellipsoid((10.5, -18, 7), (8.2, 14, 8.5), lean=0.32)),
        (Tissue.GREY_MATTER, Formula(claustrum, (25, -16, -10), (42, 18, 14))),
        (Tissue.GREY_MATTER, hippocampus),
    ]
    for tissue, shape in shapes:
        canvas.paint(tissue, shape, mirrored=True)
