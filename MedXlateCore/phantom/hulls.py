"""The large surfaces of the head as signed distances (mm) in canonical space: cavity, brain parts, bony ridges."""

from __future__ import annotations

import numpy as np

from MedXlateCore.phantom.fields import Array, Points
from MedXlateCore.phantom.shapes import ellipsoid, smooth_union, step, tube

__all__ = [
    "brainstem",
    "callosal_arch",
    "cavity",
    "cerebellum",
    "cerebrum",
    "joined_core",
    "petrous_ridge",
    "sella_and_clivus",
    "tentorium_height",
]

_STEM_SPACE = [(0, -20, -10, 17), (0, -19, -32, 18), (0, -34, -54, 15), (0, -44, -72, 12), (0, -47, -130, 10)]


def tentorium_height(x: Array, y: Array) -> Array:
    """Return z (mm) of the tentorium: a tent with its ridge at the midline, falling to the sides and backwards."""
    return 3.0 - 0.42 * np.abs(x) + 0.20 * np.minimum(y + 48.0, 0.0)


def _base_height(x: Array, y: Array) -> Array:
    """Return z (mm) of the underside of the cerebrum without its temporal lobes."""
    frontal = -26.0 + 0.30 * np.minimum(np.abs(x), 36.0)
    posterior = tentorium_height(x, y) - 0.5
    base = np.float32(-17.0) + step(y, -14.0, 8.0) * (frontal + 17.0)
    return base + (1.0 - step(y, -60.0, -36.0)) * (posterior - base)


def _smooth_intersection(first: Array, second: Array, blend_mm: float) -> Array:
    return -smooth_union(-first, -second, blend_mm)


def _upper_cerebrum(points: Points) -> Array:
    x, y, z = points
    # The front of the head is narrower than the back.
    width = 68.5 - 5.0 * step(y, 0.0, 70.0) + 1.0 * step(-y, 10.0, 40.0)
    along = (y + 16.0) / 88.0
    blunt = 88.0 * along * np.abs(along) ** np.float32(0.16) - 16.0  # poles blunter than an ellipsoid's
    dome = ellipsoid((x * (68.5 / width), blunt, z), (0, -16, 7), (68.5, 88, 72))
    return _smooth_intersection(dome, _base_height(x, y) - z, 9.0)


def _temporal_lobe(points: Points) -> Array:
    x, y, z = points
    return ellipsoid((np.abs(x), y, z - 0.10 * (y + 16)), (43, -17, -21), (24.5, 40, 25))


def _posterior_fossa(points: Points) -> Array:
    return ellipsoid(points, (0, -56, -34), (57, 43, 32))


def cavity(points: Points) -> Array:
    """Return the signed distance to the cranial cavity (inner side of the skull) and the spinal canal."""
    upper = smooth_union(_upper_cerebrum(points), _temporal_lobe(points), 9.0)
    return smooth_union(smooth_union(upper, _posterior_fossa(points), 18.0), tube(points, _STEM_SPACE), 8.0)


def cerebrum(points: Points, gap_mm: Array | float) -> Array:
    """Return the signed distance to the hull of the cerebrum (sulci closed), ``gap_mm`` inside the skull."""
    lobes = smooth_union(_upper_cerebrum(points) + gap_mm, _temporal_lobe(points) + gap_mm, 6.0)
    x, y, z = points
    ridge = petrous_ridge((np.abs(x), y, z))
    below_tent = np.minimum(tentorium_height(x, y) + 0.8 - z, -47.0 - y)
    lobes = np.maximum(lobes, below_tent)
    return np.maximum(np.maximum(lobes, 1.5 - ridge), 2.5 - sella_and_clivus(points))


def cerebellum(points: Points, gap_mm: float) -> Array:
    """Return the signed distance to the hull of the cerebellum."""
    x, y, z = points
    hemispheres = ellipsoid((np.abs(x), y, z), (24.5, -60, -35), (30, 35, 29))
    vermis = ellipsoid(points, (0, -61, -26), (15, 33, 31))
    hull = smooth_union(hemispheres, vermis, 6.0) + np.float32(gap_mm)
    hull = np.maximum(hull, z - tentorium_height(x, y) + 1.3)
    hull = np.maximum(hull, _posterior_fossa(points) + np.float32(gap_mm))
    return np.maximum(hull, 2.0 - petrous_ridge((np.abs(x), y, z)))


def brainstem(points: Points) -> Array:
    """Return the signed distance to midbrain, pons, medulla and cord."""
    x, y, z = points
    midbrain = ellipsoid(points, (0, -26, -12), (17, 13.5, 14))
    notch = tube(points, [(0, -8, -4, 4.5), (0, -11, -22, 4.5)])  # interpeduncular fossa
    pons = ellipsoid(points, (0, -25, -33), (17.5, 14, 13.5))
    medulla = tube(points, [(0, -35, -42, 9.5), (0, -44, -66, 7.5), (0, -47, -82, 6), (0, -48, -140, 5.5)])
    stem = smooth_union(smooth_union(np.maximum(midbrain, -notch), pons, 4.0), medulla, 5.0)
    arms = tube((np.abs(x), y, z), [(12, -32, -35, 7), (27, -54, -37, 7)])
    return smooth_union(stem, arms, 4.0)


def joined_core(points: Points) -> Array:
    """Return the signed distance to the midline region where the hemispheres are joined: callosum to hypothalamus."""
    _, y, z = points
    return np.minimum(callosal_arch(points), np.maximum(np.abs(y + 13.0) - 24.0, z - 3.0))


def callosal_arch(points: Points) -> Array:
    """Return the signed distance to the region under the outer border of the corpus callosum, for any x."""
    _, y, z = points
    v, w = (y + 5.0) / 37.5, (z - 3.0 - 0.06 * (y + 5.0)) / 25.0
    scaled = np.sqrt(v * v + w * w)
    slope = np.sqrt((v / 37.5) ** 2 + (w / 25.0) ** 2 + np.float32(1e-12))
    return scaled * (scaled - 1.0) / slope


def petrous_ridge(right: Points) -> Array:
    """Return the signed distance to the petrous bone; ``right`` has |x| as its first coordinate."""
    return tube(right, [(60, -36, -38, 11), (40, -27, -37, 8), (15, -13, -36, 5)])


def sella_and_clivus(points: Points) -> Array:
    """Return the signed distance to sphenoid body, dorsum sellae and clivus."""
    body = ellipsoid(points, (0, 12, -34), (13, 15, 10))
    clivus = tube(points, [(0, -5, -26, 3), (0, -2, -40, 6), (0, -20, -70, 5.5)])
    fossa = ellipsoid(points, (0, 4, -22), (8, 5.5, 5))
    return np.maximum(smooth_union(body, clivus, 5.0), -fossa)
