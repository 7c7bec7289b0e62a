"""Pictures of slices: images side by side, a signed error map, region outlines, side marks and a scale in mm.

Volumes are shown on their own voxels, turned to the closest patient axes (never resampled), in radiological convention:
the patient's right side is on the left of axial and coronal pictures, the front is on the left of sagittal ones.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from MedXlateCore.metrics.drawing import (
    NORMAL_AXIS,
    BoolArray,
    Colour,
    Crop,
    Frame,
    Outline,
    Plane,
    Tile,
    display_order,
    draw_colour_bar,
    draw_legend,
    draw_text,
    draw_tile,
    fitting,
)
from MedXlateCore.metrics.inputs import require_same_grid
from MedXlateCore.volume import Geometry, Modality, Volume

if TYPE_CHECKING:  # where pictures are drawn: windows and colours are used without Pillow too
    from PIL import Image

__all__ = [
    "Outline",
    "Plane",
    "Tile",
    "crop_to",
    "difference",
    "display_window",
    "png_data_uri",
    "region_colour",
    "slice_caption",
    "slice_panel",
    "slices_of_interest",
    "stack_panels",
    "to_display",
]

_OUTLINE_COLOURS: tuple[Colour, ...] = ((255, 193, 7), (0, 200, 150), (230, 60, 180), (80, 160, 255), (255, 120, 40))
_LEAST_APART_MM = 6.0
_DARKEST_CT_HU = -200.0
_GAP, _TITLE, _FOOT, _BAR = 8, 24, 26, 104


def to_display(volume: Volume) -> Volume:
    """Return the volume turned to the closest LPS axes (i to the Left, j to the Posterior, k to the Superior side).

    Nothing is resampled: oblique grids keep their voxels and are shown along their own axes.
    """
    order = display_order(volume.geometry)
    array, geometry = order.apply_to_array(volume.array), order.apply_to_geometry(volume.geometry)
    return Volume(array, geometry, volume.modality, volume.source, volume.synthetic, volume.notes)


def display_window(
    volume: Volume, inside: BoolArray | None = None, percentiles: tuple[float, float] = (0.5, 99.5)
) -> tuple[float, float]:
    """Return the intensities to show as black and white: percentiles inside the mask, black no higher than background.

    CT is shown from -200 HU at the lowest, as everything below is lung, fat's edge or air.
    """
    values = volume.array[inside] if inside is not None and inside.any() else volume.array
    low, high = (float(value) for value in np.percentile(values, percentiles))
    if volume.modality.unit == "HU":
        low = max(low, _DARKEST_CT_HU)
    else:
        low = min(low, float(np.percentile(volume.array, 1)))
    return (low, high) if high > low else (low, low + 1.0)


def difference(
    reference: Volume, synthetic: Volume, *, scale: float = 1.0, factor: float = 1.0, offset: float = 0.0
) -> Volume:
    """Return ``(synthetic * factor + offset - reference) * scale``: positive where the synthetic image is brighter.

    Raises:
        InputError: ``MX-MET-010``, the grids differ.
    """
    require_same_grid(reference.geometry, synthetic)
    error = (synthetic.array.astype(np.float32) * factor + offset - reference.array.astype(np.float32)) * scale
    return Volume(error.astype(np.float32), reference.geometry, Modality.OTHER)


def slices_of_interest(
    geometry: Geometry, foreground: BoolArray, lesion: BoolArray | None = None, plane: Plane = "axial"
) -> list[int]:
    """Return slice numbers worth showing, in display order: the lesion's largest slice and the foreground's quartiles.

    Quartiles closer than 6 mm to a slice already chosen are left out.
    """
    order, normal = display_order(geometry), NORMAL_AXIS[plane]
    others = tuple(axis for axis in range(3) if axis != normal)
    area = np.count_nonzero(order.apply_to_array(foreground), axis=others)
    chosen: list[int] = []
    if lesion is not None and lesion.any():
        chosen.append(int(np.argmax(np.count_nonzero(order.apply_to_array(lesion), axis=others))))
    if not area.any():
        return chosen or [len(area) // 2]
    volume = np.cumsum(area) / area.sum()
    apart = _LEAST_APART_MM / order.apply_to_geometry(geometry).spacing_mm[normal]
    for quarter in (0.25, 0.5, 0.75):
        index = int(np.searchsorted(volume, quarter))
        if all(abs(index - other) >= apart for other in chosen):
            chosen.append(index)
    return chosen


def crop_to(geometry: Geometry, foreground: BoolArray, margin_mm: float = 6.0) -> Crop:
    """Return the part of the display grid around the foreground, to leave out empty borders."""
    order = display_order(geometry)
    turned = order.apply_to_array(foreground)
    spacing = order.apply_to_geometry(geometry).spacing_mm
    slices = []
    for axis in range(3):
        filled = np.flatnonzero(turned.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = round(margin_mm / spacing[axis])
        first, last = (filled[0], filled[-1]) if filled.size else (0, turned.shape[axis] - 1)
        slices.append(slice(max(int(first) - margin, 0), min(int(last) + margin + 1, turned.shape[axis])))
    return slices[0], slices[1], slices[2]


def region_colour(number: int) -> Colour:
    """Return the outline colour of the n-th region."""
    return _OUTLINE_COLOURS[number % len(_OUTLINE_COLOURS)]


def slice_caption(geometry: Geometry, index: int, plane: Plane = "axial") -> str:
    """Return where a slice lies, such as ``axial slice 78 of 155, S 12.5 mm`` (at the slice's centre)."""
    shown = display_order(geometry).apply_to_geometry(geometry)
    normal = NORMAL_AXIS[plane]
    centre = np.append((np.array(shown.shape) - 1) / 2, 1.0)
    centre[normal] = index
    position = float((shown.affine_ras @ centre)[normal])
    letter = "RAS"[normal] if position >= 0 else "LPI"[normal]
    return f"{plane} slice {index + 1} of {shown.shape[normal]}, {letter} {abs(position):.1f} mm"


def slice_panel(
    tiles: Sequence[Tile],
    index: int,
    plane: Plane = "axial",
    *,
    outlines: Sequence[Outline] = (),
    crop: Crop | None = None,
    height: int = 300,
) -> Image.Image:
    """Draw one slice of several volumes side by side.

    Args:
        tiles: what to show, from left to right, all on one grid.
        index: slice number in display order (see ``to_display``).
        plane: which plane.
        outlines: regions drawn as lines, with a legend.
        crop: part of the display grid, from ``crop_to``.
        height: height of a picture in pixels.

    Returns:
        An RGB picture on white, ``height`` plus titles and legend high.

    Raises:
        InputError: ``MX-MET-010``, the tiles lie on different grids.
    """
    from PIL import Image, ImageDraw

    geometry = tiles[0].volume.geometry
    require_same_grid(geometry, *(tile.volume for tile in tiles))
    frame = Frame.of(geometry, plane, index, crop, height)
    drawn = [(tile, draw_tile(tile, frame, outlines)) for tile in tiles]
    widths = [picture.width + (_BAR if tile.colours == "difference" else 0) for tile, picture in drawn]
    canvas = Image.new("RGB", (sum(widths) + _GAP * (len(tiles) + 1), drawn[0][1].height + _TITLE + _FOOT), "white")
    draw = ImageDraw.Draw(canvas)
    left = _GAP
    for (tile, picture), width in zip(drawn, widths, strict=True):
        draw_text(draw, (left, 3), fitting(draw, tile.title, width))
        canvas.paste(picture, (left, _TITLE))
        if tile.colours == "difference":
            draw_colour_bar(draw, (left + picture.width + 6, _TITLE), picture.height, tile)
        left += width + _GAP
    draw_legend(draw, outlines, (_GAP, canvas.height - _FOOT + 5))
    return canvas


def stack_panels(panels: Sequence[Image.Image], captions: Sequence[str] = ()) -> Image.Image:
    """Return panels below each other on white, each under its caption."""
    from PIL import Image, ImageDraw

    head = _TITLE if captions else 0
    canvas = Image.new("RGB", (max(p.width for p in panels), sum(p.height + head for p in panels)), "white")
    draw = ImageDraw.Draw(canvas)
    top = 0
    for number, panel in enumerate(panels):
        if captions:
            draw_text(draw, (_GAP, top + 4), captions[number], 14)
        canvas.paste(panel, (0, top + head))
        top += panel.height + head
    return canvas


def png_data_uri(picture: Image.Image) -> str:
    """Return the picture as a ``data:`` address with a PNG inside."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
