"""Shapes as signed distances in mm, negative inside: the brush of the phantom.

A soft edge of one voxel around the zero level gives the partial volume of a border without supersampling.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from MedXlateCore.phantom.fields import Array, Points

__all__ = [
    "Ellipsoid",
    "Formula",
    "Shape",
    "Tube",
    "coverage",
    "curved",
    "ellipsoid",
    "smooth_union",
    "step",
    "tube",
]

Triple = tuple[float, float, float]
Path = Sequence[Sequence[float]]


class Shape(Protocol):
    """Something with a signed distance and canonical bounds, which can be painted."""

    @property
    def bounds(self) -> tuple[Triple, Triple]:
        """Lowest and highest corner of a box that holds the shape, mm."""

    def distance(self, points: Points) -> Array:
        """Return the signed distance at ``points``, mm."""


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid along the axes; ``lean`` shears x by y (mm per mm), as the deep nuclei lie."""

    centre: Triple
    radii: Triple
    lean: float = 0.0

    @property
    def bounds(self) -> tuple[Triple, Triple]:
        """Lowest and highest corner, mm."""
        (x, y, z), (a, b, c) = self.centre, self.radii
        a += abs(self.lean) * b
        return (x - a, y - b, z - c), (x + a, y + b, z + c)

    def distance(self, points: Points) -> Array:
        """Return the signed distance, mm."""
        x, y, z = points
        if self.lean:
            x = x + np.float32(self.lean) * (y - np.float32(self.centre[1]))
        return ellipsoid((x, y, z), self.centre, self.radii)


@dataclass(frozen=True)
class Tube:
    """A chain of round cones through ``path``, each station (x, y, z, radius); ``widen`` scales the radii."""

    path: Path
    widen: float = 1.0

    @property
    def bounds(self) -> tuple[Triple, Triple]:
        """Lowest and highest corner, mm."""
        stations = np.array(self.path, float)
        radius = stations[:, 3].max() * self.widen
        (x, y, z), (a, b, c) = stations[:, :3].min(axis=0) - radius, stations[:, :3].max(axis=0) + radius
        return (float(x), float(y), float(z)), (float(a), float(b), float(c))

    def distance(self, points: Points) -> Array:
        """Return the signed distance, mm."""
        return tube(points, self.path, self.widen)


@dataclass(frozen=True)
class Formula:
    """Any signed distance, with its bounds given by hand."""

    function: Callable[[Points], Array]
    low: Triple
    high: Triple

    @property
    def bounds(self) -> tuple[Triple, Triple]:
        """Lowest and highest corner, mm."""
        return self.low, self.high

    def distance(self, points: Points) -> Array:
        """Return the signed distance, mm."""
        return self.function(points)


def coverage(distance: Array, edge_mm: float) -> Array:
    """Return how much of a voxel lies inside a shape, 0 to 1, from the signed distance at its centre (mm)."""
    return np.clip(np.float32(0.5) - distance / np.float32(edge_mm), 0.0, 1.0)


def step(x: Array, low: float, high: float) -> Array:
    """Return a smooth step: 0 below ``low``, 1 above ``high``."""
    t = np.clip((x - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def smooth_union(first: Array, second: Array, blend_mm: float) -> Array:
    """Return the signed distance of two shapes joined with a fillet of ``blend_mm`` (polynomial smooth minimum)."""
    overlap = np.maximum(np.float32(blend_mm) - np.abs(first - second), 0.0)
    return np.minimum(first, second) - overlap * overlap * np.float32(0.25 / blend_mm)


def ellipsoid(points: Points, centre: Sequence[float], radii: Sequence[float]) -> Array:
    """Return the (first-order) signed distance to an ellipsoid; axes along x, y, z; mm."""
    scaled = np.zeros(points[0].shape, np.float32)
    slope = np.full(points[0].shape, 1e-12, np.float32)
    for axis, c, r in zip(points, centre, radii, strict=True):
        u = axis - np.float32(c)
        u *= np.float32(1.0 / r)
        u *= u
        scaled += u
        u *= np.float32(1.0 / (r * r))
        slope += u
    np.sqrt(scaled, out=scaled)
    np.sqrt(slope, out=slope)
    distance = scaled - np.float32(1.0)
    distance *= scaled
    distance /= slope
    return distance


def tube(points: Points, path: Sequence[Sequence[float]], widen: float = 1.0) -> Array:
    """Return the signed distance to a chain of round cones; ``path`` lists ``(x, y, z, radius)`` in mm."""
    best = np.full(points[0].shape, 1e3, np.float32)
    for start, end in itertools.pairwise(path):
        np.minimum(
            best, _round_cone(points, np.asarray(start, np.float32), np.asarray(end, np.float32), widen), out=best
        )
    return best


def _round_cone(points: Points, start: Array, end: Array, widen: float) -> Array:
    """Return the signed distance to one straight piece of a tube; ``start`` and ``end`` are (x, y, z, radius)."""
    along = end[:3] - start[:3]
    length = np.float32(along @ along)
    t = points[0] * (along[0] / length)
    t += points[1] * (along[1] / length)
    t += points[2] * (along[2] / length)
    t -= np.float32(start[:3] @ along) / length
    np.clip(t, 0.0, 1.0, out=t)
    distance = np.zeros_like(t)
    for p, a, d in zip(points, start[:3], along, strict=True):
        offset = p - a
        offset -= t * d
        offset *= offset
        distance += offset
    np.sqrt(distance, out=distance)
    t *= np.float32(widen) * (end[3] - start[3])
    distance -= t
    distance -= np.float32(widen) * start[3]
    return distance


def curved(path: Sequence[Sequence[float]], pieces: int = 4) -> list[tuple[float, ...]]:
    """Return a chain for ``tube`` that passes through the stations of ``path`` in a smooth curve (Catmull-Rom)."""
    stations = np.array([path[0], *path, path[-1]], float)
    chain = []
    for a, b, c, d in zip(stations[:-3], stations[1:-2], stations[2:-1], stations[3:], strict=True):
        for t in np.arange(pieces) / pieces:
            bend = 2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
            chain.append(tuple(bend / 2))
    return [*chain, tuple(stations[-1])]
