"""The canvas a head is painted on: canonical coordinates of every voxel, and layers of tissue laid over each other.

A layer covers what lies beneath it by its soft coverage, so an image is the repeated mixture
``image += coverage * (value - image)``: partial volume at every border, whatever is rendered.

Canonical space is a standard head in RAS mm with the origin at the anterior commissure (positions as in the MNI atlas);
a subject's coordinates are the canonical ones seen through a smooth random deformation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from MedXlateCore.phantom.fields import Array, Box, Grid, Points
from MedXlateCore.phantom.shapes import Shape, coverage
from MedXlateCore.phantom.tissues import Tissue, TissueProperties

__all__ = ["Canvas", "Layer"]

_SIDES = (1.0, -1.0)


@dataclass(frozen=True, eq=False)
class Layer:
    """One tissue laid over part of the grid.

    Attributes:
        tissue: what it is.
        box: the part of the grid.
        coverage: 0 to 1 (float16 ``[i, j, k]`` of the box), how much of each voxel the layer takes.
        properties: physical properties of this very layer; None for the subject's properties of the tissue.
    """

    tissue: Tissue
    box: Box
    coverage: np.ndarray
    properties: TissueProperties | None = None


@dataclass(eq=False)
class Canvas:
    """Grid, canonical coordinates (mm) and the layers painted so far.

    Attributes:
        grid: the voxel grid.
        points: canonical x, y, z of every voxel, float32 ``[I, J, K]`` each.
        layers: painted layers, bottom first.
        labels: the tissue that dominates each voxel, uint8 ``[I, J, K]``.
    """

    grid: Grid
    points: Points
    layers: list[Layer] = field(default_factory=list)
    labels: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.labels = np.zeros(self.grid.shape, np.uint8)
        self._coarse = tuple(p[::4, ::4, ::4] for p in self.points)

    @property
    def whole(self) -> Box:
        """The box of the whole grid."""
        i, j, k = (slice(0, n) for n in self.grid.shape)
        return i, j, k

    def box(self, low: Sequence[float], high: Sequence[float], margin_mm: float = 7.0) -> Box | None:
        """Return the part of the grid that sees the canonical box ``low``..``high`` (mm), None if nothing does."""
        edges = [4.0 * s for s in self.grid.spacing_mm]
        inside = np.ones(self._coarse[0].shape, bool)
        for p, a, b in zip(self._coarse, low, high, strict=True):
            pad = margin_mm + max(edges)
            inside &= (p > a - pad) & (p < b + pad)
        if not inside.any():
            return None
        spans = []
        for axis, n in enumerate(self.grid.shape):
            others = tuple(d for d in range(3) if d != axis)
            hit = np.flatnonzero(inside.any(axis=others))
            spans.append(slice(max(0, int(hit[0]) * 4 - 4), min(n, int(hit[-1]) * 4 + 5)))
        return spans[0], spans[1], spans[2]

    def at(self, box: Box) -> Points:
        """Return the canonical coordinates in a box."""
        x, y, z = self.points
        return x[box], y[box], z[box]

    def lay(self, tissue: Tissue, cover: Array, box: Box, properties: TissueProperties | None = None) -> None:
        """Lay ``cover`` (0 to 1, shape of ``box``) of a tissue over what is there."""
        covered = cover > 0.5
        hit = cover > 0
        if not hit.any():
            return
        trimmed, inner = _trim(hit, box)
        self.layers.append(Layer(tissue, trimmed, cover[inner].astype(np.float16), properties))
        self.labels[box][covered] = tissue

    def paint(
        self,
        tissue: Tissue,
        shape: Shape,
        *,
        grow_mm: float = 0.0,
        mirrored: bool = False,
        within: Callable[[Points], Array] | None = None,
    ) -> None:
        """Paint a shape, on both sides if ``mirrored``.

        A mirrored shape is described on the right (x above 0); its twin on the left uses the same shape of -x.

        Args:
            tissue: what to paint.
            shape: where.
            grow_mm: thickness added all around (negative: taken away).
            mirrored: True to paint the twin on the left too.
            within: signed distance to a region that the shape must not leave.
        """
        low, high = shape.bounds
        for side in _SIDES if mirrored else _SIDES[:1]:
            ends = sorted((side * low[0], side * high[0]))
            box = self.box((ends[0], low[1], low[2]), (ends[1], high[1], high[2]), 7.0 + max(grow_mm, 0.0))
            if box is None:
                continue
            x, y, z = self.at(box)
            points: Points = (np.float32(side) * x, y, z)
            distance = shape.distance(points) - np.float32(grow_mm)
            if within is not None:
                distance = np.maximum(distance, within(points))
            self.lay(tissue, coverage(distance, self.grid.edge_mm), box)


def _trim(hit: np.ndarray, box: Box) -> tuple[Box, Box]:
    """Return the part of ``box`` that is hit, in indices of the grid and of the box."""
    inner, outer = [], []
    for axis, span in enumerate(box):
        others = tuple(d for d in range(3) if d != axis)
        index = np.flatnonzero(hit.any(axis=others))
        first, last = int(index[0]), int(index[-1]) + 1
        inner.append(slice(first, last))
        outer.append(slice(span.start + first, span.start + last))
    return (outer[0], outer[1], outer[2]), (inner[0], inner[1], inner[2])
