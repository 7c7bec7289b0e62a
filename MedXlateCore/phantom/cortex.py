"""The cerebrum: a folded cortex over white matter.

The cortex is a level set. Sulci are thin sheets of CSF where a random field with one dominant wavelength changes sign;
the field is read at the nearest point of the hull, so that the sheets stand on the surface as real sulci do. Grey
matter is what lies within the cortical thickness of hull or sulcus, white matter the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from MedXlateCore.phantom import hulls
from MedXlateCore.phantom.canvas import Canvas
from MedXlateCore.phantom.fields import Array, BandNoise, Box, Grid, Points, generator, gradient, smooth_noise
from MedXlateCore.phantom.shapes import coverage, ellipsoid, step
from MedXlateCore.phantom.tissues import Tissue
from MedXlateCore.phantom.traits import Traits

__all__ = ["Cortex", "cortex_limits", "paint_cortex"]

_LIMITS = ((-74.0, -110.0, -50.0), (74.0, 78.0, 84.0))


@dataclass(frozen=True, eq=False)
class Cortex:
    """Distances kept for the lesions, on a part of the grid.

    Attributes:
        box: the part of the grid that holds the cerebrum.
        hull: depth below the hull with sulci closed (mm, positive inside).
        pial: depth below hull, fissures and sulci (mm, positive in grey and white matter).
    """

    box: Box
    hull: Array
    pial: Array


def cortex_limits() -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the canonical bounds (mm) of the cerebrum."""
    return _LIMITS


def paint_cortex(canvas: Canvas, seed: int, traits: Traits) -> Cortex | None:
    """Paint grey and white matter into the CSF; returns the cortex's distances, or None if the grid sees no brain.

    Args:
        canvas: the head painted so far.
        seed: subject seed.
        traits: the subject's anatomy.
    """
    box = canvas.box(*_LIMITS)
    if box is None:
        return None
    cortex = _fold_cortex(canvas, seed, traits, box)
    edge = canvas.grid.edge_mm
    thickness = np.float32(traits.cortex_mm) * (
        1.0 + 0.10 * smooth_noise(generator(seed, "thickness"), canvas.grid.part(box), 12.0)
    )
    canvas.lay(Tissue.GREY_MATTER, coverage(-cortex.pial, edge), box)
    canvas.lay(Tissue.WHITE_MATTER, coverage(thickness - cortex.pial, edge), box)
    return cortex


def _fold_cortex(canvas: Canvas, seed: int, traits: Traits, box: Box) -> Cortex:
    """Return the distances to the closed hull and to the folded pial surface."""
    points = canvas.at(box)
    grid = canvas.grid.part(box)
    x, y, z = points
    patchy = smooth_noise(generator(seed, "gap"), grid, 30.0)
    gap = 1.2 + 2.0 * traits.atrophy + (0.5 + 0.5 * traits.atrophy) * np.maximum(patchy, -1.0) + step(z, 40, 75) * 0.8
    gap = gap * (0.4 + 0.6 * step(z, -25.0, 5.0))  # the brain rests on its base
    outer = -hulls.cerebrum(points, gap)
    fissure = _midline_fissure(points, traits)
    hull = np.minimum(outer, np.where(fissure > 40, 40, fissure))
    depth_limit = 1.0 + 0.28 * smooth_noise(generator(seed, "depth"), grid, 14.0)
    core = ellipsoid((np.abs(x), y, z), (21, -6, 9), (21, 38, 21))
    sulci = np.full_like(hull, 50.0)
    inward = _inward(hull, grid)
    for name, wavelength, depth in (("primary", traits.fold_mm, 19.0), ("secondary", 0.74 * traits.fold_mm, 9.0)):
        sheet = _sheets(points, hull, inward, grid, BandNoise(generator(seed, name), wavelength))
        width = 0.25 + 0.55 * traits.atrophy + (0.45 + 0.5 * traits.atrophy) * np.exp(-np.maximum(hull, 0) / 5.0)
        end = np.maximum(hull - depth * np.maximum(depth_limit, 0.25), 4.0 - core)
        sulci = np.minimum(sulci, np.maximum(sheet - width, end))
    bend = 3.5 * smooth_noise(generator(seed, "sylvian"), grid, 16.0)
    bend += 1.2 * smooth_noise(generator(seed, "insula"), grid, 7.0)
    pial = np.minimum(np.minimum(hull, sulci), _sylvian((x + 0.5 * bend, y + bend, z + bend), traits))
    return Cortex(box, hull, pial)


def _inward(hull: Array, grid: Grid) -> Points:
    """Return the unit direction into the brain at each voxel, from the smoothed depth."""
    smooth = ndimage.gaussian_filter(hull, [3.0 / s for s in grid.spacing_mm], truncate=2.5)
    x, y, z = gradient(smooth, grid)
    length = np.sqrt(x * x + y * y + z * z) + np.float32(1e-3)
    return x / length, y / length, z / length


def _sheets(points: Points, hull: Array, inward: Points, grid: Grid, noise: BandNoise) -> Array:
    """Return the distance (mm) to the sheets on which ``noise``, read near the hull, changes sign."""
    # 0.85: sheets lean and curve a little with depth instead of being strictly radial.
    depth = np.clip(hull, -2.0, 24.0) * np.float32(0.85)
    x, y, z = (p - depth * d for p, d in zip(points, inward, strict=True))
    values = noise.at((x, y, z))
    slope = gradient(values, grid)
    steepness = np.sqrt(sum(s * s for s in slope))
    return np.abs(values) / np.maximum(steepness, np.float32(0.02))


def _midline_fissure(points: Points, traits: Traits) -> Array:
    """Return the distance (mm) from the interhemispheric fissure, which ends at the corpus callosum."""
    x, _, _ = points
    half_width = 0.5 + 0.7 * traits.atrophy
    joined = hulls.joined_core(points)
    # Inside the joined core the fissure's influence fades fast: the callosum carries no cortex.
    return np.maximum(np.abs(x) - np.float32(half_width), -4.0 * joined)


def _sylvian(points: Points, traits: Traits) -> Array:
    """Return the distance (mm) from the Sylvian fissure and the cleft over the insula."""
    x, y, z = points
    right = np.abs(x)
    line = -4.0 - 0.42 * (y - 8.0)
    half_width = 0.45 + 0.85 * traits.atrophy
    medial = 38.0 - 17.0 * step(y, 8.0, 22.0)
    stem = np.maximum(np.abs(z - line) * np.float32(0.92) - half_width, medial - right)
    stem = np.maximum(stem, np.maximum(y - 27.0, -46.0 - y))
    bowl = np.sqrt(((y - 2.0) / 25.0) ** 2 + ((z - line - 1.0) / 15.0) ** 2)
    cleft = np.abs(right - 38.0 - 2.0 * bowl) - half_width
    cleft = np.maximum(cleft, (bowl - 1.0) * 16.0)
    return np.minimum(stem, cleft)
