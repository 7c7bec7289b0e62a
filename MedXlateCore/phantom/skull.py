"""Everything outside the brain: scalp, face, skull, orbits, air sinuses, dura and the large vessels.

All positions are canonical RAS mm. Functions paint onto a ``Canvas`` from the skin inwards.
"""

from __future__ import annotations

import numpy as np

from MedXlateCore.phantom import hulls
from MedXlateCore.phantom.canvas import Canvas
from MedXlateCore.phantom.fields import Array, Points, generator, smooth_noise
from MedXlateCore.phantom.shapes import Ellipsoid, Formula, Shape, Tube, coverage, ellipsoid, smooth_union, tube
from MedXlateCore.phantom.tissues import Tissue
from MedXlateCore.phantom.traits import Traits

__all__ = ["paint_head_outside_brain"]


def paint_head_outside_brain(canvas: Canvas, seed: int, traits: Traits) -> Array:
    """Paint skin, fat, muscle, bone, orbits and sinuses, then fill the skull with CSF.

    Returns:
        The signed distance to the cranial cavity (dura), mm, ``[I, J, K]``, negative inside.
    """
    inside = hulls.cavity(canvas.points)
    vault = np.float32(traits.skull_mm) * (1.0 + 0.18 * smooth_noise(generator(seed, "skull"), canvas.grid, 28.0))
    vault = np.clip(vault, 2.6, 11.0)
    _paint_soft_tissue(canvas, seed, traits, inside, vault)
    _paint_facial_bones(canvas)
    _paint_skull(canvas, seed, inside, vault)
    _paint_air_spaces(canvas, seed, traits)
    _paint_orbits(canvas)
    _fill_skull(canvas, inside)
    return inside


def _paint_soft_tissue(canvas: Canvas, seed: int, traits: Traits, inside: Array, vault: Array) -> None:
    """Skin over fat over muscle; the face and the neck are muscle with planes of fat."""
    grid, edge = canvas.grid, canvas.grid.edge_mm
    x, y, z = canvas.points
    scalp = np.float32(traits.scalp_mm) * (1.0 + 0.12 * smooth_noise(generator(seed, "scalp"), grid, 45.0))
    skin = smooth_union(inside - vault - scalp, _face(canvas.points, traits), 14.0)
    canvas.lay(Tissue.SKIN, coverage(skin, edge), canvas.whole)
    canvas.lay(Tissue.FAT, coverage(skin + 1.8, edge), canvas.whole)
    # Temporal and neck muscles lie under the fat; over the vault only the thin galea remains.
    galea = inside - vault - 1.0
    temporal = ellipsoid((np.abs(x), y, z), (70, 22, -8), (15, 32, 42))
    below = smooth_union(z + 30.0 - 0.12 * np.abs(y), temporal, 8.0)
    flesh = np.maximum(skin + 5.5 + np.float32(0.3) * scalp, below)
    canvas.lay(Tissue.MUSCLE, coverage(np.minimum(flesh, galea), edge), canvas.whole)
    planes = smooth_noise(generator(seed, "planes"), grid, 15.0) + 0.3 * smooth_noise(
        generator(seed, "septa"), grid, 6.0
    )
    fat_planes = np.abs(planes) / 0.09 - 0.9  # thin sheets where the noise changes sign
    deep = np.maximum(np.maximum(fat_planes, flesh + 2.0), 1.5 * (z + 26.0))
    canvas.lay(Tissue.FAT, coverage(deep, edge), canvas.whole)


def _face(points: Points, traits: Traits) -> Array:
    """Return the signed distance to face, nose, ears and neck."""
    x, y, z = points
    right = (np.abs(x), y, z)
    face = ellipsoid(points, (0, 38, -42), (60, 53, 58))
    chin = ellipsoid(points, (0, 48, -84), (44, 44, 40))
    nose = tube(points, [(0, 84, -16, 8), (0, 101, -46, 9)])
    neck = np.hypot(x / 1.0, (y + 34.0) * np.float32(0.92)) - np.float32(traits.neck_mm)
    neck = np.maximum(neck, z + 34.0)
    ears = ellipsoid(right, (80, -30, -32), (5, 15, 26))
    cheek = ellipsoid(right, (38, 60, -48), (25, 27, 28))
    result = smooth_union(smooth_union(face, chin, 16.0), smooth_union(nose, cheek, 8.0), 10.0)
    return np.minimum(smooth_union(result, neck, 22.0), ears)


def _paint_skull(canvas: Canvas, seed: int, inside: Array, vault: Array) -> None:
    """The cranium: two tables of cortical bone with diploe between, dense skull base, then CSF within."""
    edge = canvas.grid.edge_mm
    x, y, z = canvas.points
    base = (np.abs(x), y, z)
    petrous, clivus = hulls.petrous_ridge(base), hulls.sella_and_clivus(canvas.points)
    shell = np.maximum(inside - vault, -np.minimum(1.2 * (z + 78.0), 50.0))
    canvas.lay(Tissue.BONE, coverage(np.minimum(shell, np.minimum(petrous, clivus)), edge), canvas.whole)
    table = 1.3 + 0.12 * vault
    patchy = 0.5 * smooth_noise(generator(seed, "diploe"), canvas.grid, 9.0)
    diploe = (
        np.abs(inside - 0.5 * vault) - (0.5 * vault - table) + np.maximum(patchy, -0.4) + 0.06 * np.maximum(-z - 5, 0)
    )
    marrow = np.minimum(np.maximum(diploe, -petrous), np.maximum(clivus + 1.9, z + 27.0))
    canvas.lay(Tissue.MARROW, coverage(marrow, edge), canvas.whole)
    spine = Formula(_vertebrae, (-40, -70, -130), (40, 12, -74))
    canvas.paint(Tissue.BONE, spine)
    canvas.paint(Tissue.MARROW, spine, grow_mm=-2.2)


def _fill_skull(canvas: Canvas, inside: Array) -> None:
    """Dura and CSF within the skull, and what lies in the sella."""
    edge = canvas.grid.edge_mm
    x, y, z = canvas.points
    bone = np.minimum(hulls.petrous_ridge((np.abs(x), y, z)), hulls.sella_and_clivus(canvas.points))
    fluid = np.maximum(inside, -bone)
    canvas.lay(Tissue.DURA, coverage(fluid, edge), canvas.whole)
    canvas.lay(Tissue.CSF, coverage(fluid + 0.7, edge), canvas.whole)
    canvas.paint(Tissue.PITUITARY, Ellipsoid((0, 4, -23.5), (6.5, 4.5, 3.6)))
    canvas.paint(Tissue.VEIN, Ellipsoid((12, 3, -25), (3.5, 8, 5)), mirrored=True)  # cavernous sinus


def _vertebrae(points: Points) -> Array:
    """Return the signed distance to the upper cervical spine: a ring around the canal, the dens in front."""
    x, y, z = points
    around = np.hypot(x, y + 47.0)
    ring = np.abs(around - 16.5) - 4.5 + 1.5 * np.cos(z / 2.6)
    dens = tube(points, [(0, -24, -76, 5.5), (0, -27, -130, 8)])
    masses = ellipsoid((np.abs(x), y, z), (22, -40, -92), (9, 10, 12))
    return np.maximum(np.minimum(np.minimum(ring, dens), masses), z + 76.0)


def _paint_facial_bones(canvas: Canvas) -> None:
    """Maxilla, zygoma with its arch, mandible; marrow inside the thick ones; tongue."""
    bones: list[tuple[Shape, bool]] = [
        (Ellipsoid((0, 60, -66), (34, 24, 17)), False),
        (Tube([(44, 62, -38, 6), (54, 48, -36, 4.5), (66, 22, -34, 3), (66, -6, -33, 3.5)]), True),
        (Tube([(54, 0, -42, 4.5), (50, 8, -80, 6), (40, 40, -104, 7), (0, 76, -112, 8)]), True),
    ]
    for bone, mirrored in bones:
        canvas.paint(Tissue.BONE, bone, mirrored=mirrored)
        canvas.paint(Tissue.MARROW, bone, grow_mm=-2.4, mirrored=mirrored)
    canvas.paint(Tissue.MUSCLE, Ellipsoid((0, 38, -92), (24, 32, 16)))


def _paint_air_spaces(canvas: Canvas, seed: int, traits: Traits) -> None:
    """Nasal cavity with septum and turbinates, paranasal sinuses and mastoid cells, all lined with mucosa or bone."""
    s = traits.sinus_scale
    maxillary = Ellipsoid((27, 52, -49), (13 * s, 15 * s, 14 * s))
    sphenoid = Ellipsoid((7.5, 13, -33), (7.5 * s, 10 * s, 9 * s))
    for sinus in (maxillary, sphenoid, _frontal_sinus(traits)):
        canvas.paint(Tissue.BONE, sinus, grow_mm=1.5, mirrored=True)
        canvas.paint(Tissue.MUCOSA, sinus, mirrored=True)
        canvas.paint(Tissue.SINUS_AIR, sinus, grow_mm=-traits.mucosa_mm, mirrored=True)
    _paint_nose(canvas)
    _paint_air_cells(canvas, seed, Ellipsoid((8, 42, -24), (7, 22, 11)))  # ethmoid
    _paint_air_cells(canvas, seed, Ellipsoid((56, -38, -44), (9 * s, 12 * s, 14 * s)))  # mastoid


def _frontal_sinus(traits: Traits) -> Shape:
    """Return an air space between the tables of the frontal bone, clipped to what the bone leaves."""
    outside = traits.skull_mm + traits.scalp_mm - 4.0
    body = Ellipsoid((11, 76, -9), (12 * traits.sinus_scale, 14, 9 * traits.sinus_scale))

    def clipped(points: Points) -> Array:
        """Return the distance to the ellipsoid's part between the tables, negative inside (mm)."""
        from_dura = hulls.cavity(points)
        return np.maximum(body.distance(points), np.maximum(1.4 - from_dura, from_dura - outside))

    return Formula(clipped, *body.bounds)


def _paint_air_cells(canvas: Canvas, seed: int, region: Ellipsoid) -> None:
    """Fill a region of bone, on both sides, with small air cells parted by thin walls of mucosa."""
    canvas.paint(Tissue.BONE, region, grow_mm=2.0, mirrored=True)
    canvas.paint(Tissue.MUCOSA, region, mirrored=True)
    low, high = region.bounds
    for side in (1.0, -1.0):
        ends = sorted((side * low[0], side * high[0]))
        box = canvas.box((ends[0], low[1], low[2]), (ends[1], high[1], high[2]))
        if box is None:
            continue
        x, y, z = canvas.at(box)
        cells = np.abs(smooth_noise(generator(seed, "cells"), canvas.grid.part(box), 4.0))
        walls = 3.0 * np.maximum(0.0, 0.45 - cells)
        inside = region.distance((np.float32(side) * x, y, z)) + 0.8 + walls
        canvas.lay(Tissue.SINUS_AIR, coverage(inside, canvas.grid.edge_mm), box)


def _paint_nose(canvas: Canvas) -> None:
    """The nasal cavity, the pharynx, and what stands in the air: septum and turbinates; the ear canals."""
    cavity = Ellipsoid((0, 54, -47), (14, 34, 17))
    canvas.paint(Tissue.MUCOSA, cavity)
    canvas.paint(Tissue.SINUS_AIR, cavity, grow_mm=-1.5)
    for z, r in ((-54.0, 4.2), (-42.0, 3.4)):
        canvas.paint(Tissue.MUCOSA, Tube([(7.0, 30.0, z, r), (7.5, 76.0, z, r)]), mirrored=True)
    canvas.paint(Tissue.MUCOSA, cavity, within=lambda p: np.abs(p[0]) - 1.2)
    pharynx = Tube([(0, 20, -50, 8), (0, 8, -75, 8), (0, 2, -130, 8.5)])
    canvas.paint(Tissue.MUCOSA, pharynx, grow_mm=2.0)
    canvas.paint(Tissue.SINUS_AIR, pharynx)
    canvas.paint(Tissue.SINUS_AIR, Tube([(84, -24, -36, 3.5), (56, -23, -36, 3.0)]), mirrored=True)


def _paint_orbits(canvas: Canvas) -> None:
    """Bony cone, fat, muscles, optic nerve in its CSF sheath, eyeball with lens."""
    cone = Tube([(13, 20, -22, 4), (31, 58, -27, 19)])
    canvas.paint(Tissue.BONE, cone, grow_mm=2.2, mirrored=True, within=lambda p: p[1] - 65.0)
    canvas.paint(Tissue.FAT, cone, mirrored=True, within=lambda p: p[1] - 69.0)
    for dx, dz in ((9.5, 0.0), (-9.5, 0.0), (0.0, 10.0), (0.0, -10.0)):
        belly, insertion = (25 + dx, 46, -25.5 + dz, 2.3), (33 + 1.25 * dx, 64, -27 + 1.15 * dz, 1.2)
        canvas.paint(Tissue.MUSCLE, Tube([(15, 24, -22, 1.6), belly, insertion]), mirrored=True)
    nerve = [(3, 9, -16, 2.0), (14, 22, -21, 1.8), (31, 52, -26.5, 1.9)]
    canvas.paint(Tissue.CSF, Tube(nerve[1:]), grow_mm=1.0, mirrored=True)
    canvas.paint(Tissue.OPTIC_NERVE, Tube(nerve), mirrored=True)
    eye = (33.0, 62.5, -27.0)
    canvas.paint(Tissue.DURA, Ellipsoid(eye, (12.6, 12.4, 12.4)), mirrored=True)  # sclera
    canvas.paint(Tissue.VITREOUS, Ellipsoid(eye, (11.4, 11.4, 11.4)), mirrored=True)
    canvas.paint(Tissue.LENS, Ellipsoid((33, 70, -27), (4.8, 2.2, 4.8)), mirrored=True)
