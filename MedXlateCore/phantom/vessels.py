"""Dura folds, dural sinuses, large arteries and the veins over the cortex: what the contrast agent lights up."""

from __future__ import annotations

import numpy as np

from MedXlateCore.phantom import hulls
from MedXlateCore.phantom.canvas import Canvas
from MedXlateCore.phantom.cortex import Cortex
from MedXlateCore.phantom.fields import Array, BandNoise, generator, gradient
from MedXlateCore.phantom.shapes import Tube, coverage, curved
from MedXlateCore.phantom.tissues import Tissue

__all__ = ["paint_vessels"]

# Internal carotid, middle, anterior, basilar, vertebral and posterior cerebral artery: stations x, y, z, radius.
_ARTERIES: list[list[tuple[float, float, float, float]]] = [
    [(26, -10, -110, 2.6), (25, -8, -50, 2.6), (13, 2, -28, 2.4), (13, 5, -17, 2.0)],
    [(13, 5, -17, 1.7), (26, 9, -14, 1.6), (38, 6, -6, 1.4), (41, -8, 2, 1.2), (42, -24, 9, 1.0)],
    [(12, 6, -16, 1.4), (1.8, 13, -13, 1.2), (1.6, 36, 2, 1.1), (1.6, 28, 27, 1.0), (1.6, -5, 34, 0.8)],
    [(0, -9, -22, 1.8), (0, -9, -40, 1.9)],
    [(1, -9, -41, 1.5), (9, -32, -68, 1.6), (12, -34, -120, 1.7)],
    [(0.5, -9, -21, 1.4), (18, -24, -13, 1.2), (14, -50, -3, 1.0)],
]


def paint_vessels(canvas: Canvas, seed: int, inside: Array, cortex: Cortex) -> None:
    """Falx and tentorium, dural sinuses, large arteries and the veins that run over the cortex."""
    edge = canvas.grid.edge_mm
    x, y, z = canvas.points
    below = -inside  # depth under the skull
    falx = np.maximum(np.abs(x) - 0.45, np.maximum(3.0 - hulls.joined_core(canvas.points), 2.0 - z))
    tent = np.abs(z - hulls.tentorium_height(x, y) + 0.6) - 0.45
    tent = np.maximum(tent, np.maximum(y + 42.0 - 0.5 * np.abs(x), 14.0 - np.hypot(x, y + 34.0)))
    canvas.lay(Tissue.DURA, coverage(np.maximum(np.minimum(falx, tent), inside), edge), canvas.whole)
    sagittal = np.maximum(np.abs(x) - np.maximum(4.6 - 0.75 * below, 0.0), np.maximum(-4.0 - z, y - 66.0))
    sagittal = np.maximum(np.maximum(sagittal, below - 6.0), inside + 0.8)
    canvas.lay(Tissue.VEIN, coverage(sagittal, edge), canvas.whole)
    transverse = Tube([(2, -97, -8, 3.0), (22, -93, -13, 3.2), (42, -78, -19, 3.4), (54, -56, -22, 3.4)])
    canvas.paint(Tissue.VEIN, transverse, mirrored=True, within=lambda p: hulls.cavity(p) + 0.5)
    canvas.paint(Tissue.VEIN, Tube([(54, -56, -22, 3.4), (46, -42, -50, 4.0), (26, -40, -66, 3.5)]), mirrored=True)
    canvas.paint(Tissue.VEIN, Tube([(0, -38, 6, 2.0), (0, -52, 2, 2.2), (0, -92, -9, 2.2)]))
    for stations in _ARTERIES:
        canvas.paint(Tissue.ARTERY, Tube(curved(stations)), mirrored=stations[0][0] != 0)
    _paint_surface_veins(canvas, seed, cortex)


def _paint_surface_veins(canvas: Canvas, seed: int, cortex: Cortex) -> None:
    """Thin veins that meander through the subarachnoid space of the convexity."""
    box = cortex.box
    grid = canvas.grid.part(box)
    values = BandNoise(generator(seed, "veins"), 30.0).at(canvas.at(box))
    slope = gradient(values, grid)
    lines = np.abs(values) / np.maximum(np.sqrt(sum(s * s for s in slope)), np.float32(0.01))
    z = canvas.points[2][box]
    veins = np.maximum(np.hypot(lines, cortex.hull + 0.9) - 0.95, 6.0 - z)
    canvas.lay(Tissue.VEIN, coverage(veins, canvas.grid.edge_mm), box)
