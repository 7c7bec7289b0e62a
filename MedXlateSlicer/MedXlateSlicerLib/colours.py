"""Colour tables of a scene, made where they are not there yet: for signed differences, and for sizes from 0 upwards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.metrics.drawing import diverging_colours
from MedXlateSlicerLib.nodes import Node

__all__ = ["difference_colours", "sequential_colours"]

DIFFERENCE = "MedXlate difference"
SEQUENTIAL = "MedXlate standard deviation"
_COLOURS = 255  # an odd number: the middle of the differences is exactly white
_DARK_TO_BRIGHT = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))  # brighter is always more


def difference_colours(scene: Node) -> Node:
    """Return the scene's colour table for signed differences: blue below, white at 0, red above."""
    return _table(scene, DIFFERENCE, diverging_colours(np.linspace(0.0, 1.0, _COLOURS)) / 255.0, -1.0)


def sequential_colours(scene: Node) -> Node:
    """Return the scene's colour table for values from 0 upwards: dark to bright, readable in grey as well."""
    at = np.linspace(0.0, 1.0, _COLOURS)
    knots = np.linspace(0.0, 1.0, len(_DARK_TO_BRIGHT))
    channels = [np.interp(at, knots, channel) for channel in zip(*_DARK_TO_BRIGHT, strict=True)]
    return _table(scene, SEQUENTIAL, np.stack(channels, axis=1) / 255.0, 0.0)


def _table(scene: Node, name: str, colours: NDArray[np.float64], lowest: float) -> Node:
    """Return the table of that name; its entries are named by their place from ``lowest`` to 1."""
    import slicer

    node = scene.GetFirstNode(name, "vtkMRMLColorTableNode")
    if node is not None:
        return node
    node = slicer.vtkMRMLColorTableNode()
    node.SetName(name)
    node.SetTypeToUser()
    node.SetNumberOfColors(len(colours))
    for index, (place, colour) in enumerate(zip(np.linspace(lowest, 1.0, len(colours)), colours.tolist(), strict=True)):
        node.SetColor(index, f"{place:+.2f}" if lowest < 0 else f"{place:.2f}", *colour, 1.0)
    scene.AddNode(node)
    return node
