"""How one slice of one volume becomes a picture: orientation, true proportions, colours, outlines, marks and text."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.transforms.orientation import AxisOrder, axis_directions, match_axes, parse_orientation
from MedXlateCore.volume import Geometry, Volume

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "NORMAL_AXIS",
    "BoolArray",
    "Colour",
    "Crop",
    "Frame",
    "Outline",
    "Plane",
    "Tile",
    "display_order",
    "diverging_colours",
    "draw_colour_bar",
    "draw_legend",
    "draw_text",
    "draw_tile",
    "fitting",
]

Plane = Literal["axial", "coronal", "sagittal"]
BoolArray = NDArray[np.bool_]
Colour = tuple[int, int, int]
Crop = tuple[slice, slice, slice]

NORMAL_AXIS = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Axis of the display grid (LPS) across the slices of a plane."""

_SIDES = {"axial": ("R", "L"), "coronal": ("R", "L"), "sagittal": ("A", "P")}
# blue - white - red: told apart with colour-deficient vision, and its white centre is clear in grey print
_DIVERGING = np.array([(5, 48, 97), (67, 147, 195), (247, 247, 247), (214, 96, 77), (103, 0, 31)], dtype=np.float64)
_INK: Colour = (25, 25, 25)
_BLACK: Colour = (0, 0, 0)
_WHITE: Colour = (255, 255, 255)
_OUTSIDE: Colour = (225, 225, 225)
_TITLE_SIZE = 15


@dataclass(frozen=True)
class Tile:
    """One picture of a panel.

    Attributes:
        title: words above the picture.
        volume: what is shown.
        window: intensities shown as black and white, or as the two ends of the colour scale.
        colours: grey, or the diverging scale for signed differences (with a colour bar).
        unit: unit written at the colour bar.
        inside: voxels to show, shape [I, J, K]; the rest is neutral. None shows all.
        outlined: whether the panel's outlines are drawn on it.
    """

    title: str
    volume: Volume
    window: tuple[float, float]
    colours: Literal["grey", "difference"] = "grey"
    unit: str = ""
    inside: BoolArray | None = None
    outlined: bool = True


@dataclass(frozen=True)
class Outline:
    """A region drawn as a line on the tiles: its name, mask [I, J, K] and colour."""

    name: str
    mask: BoolArray
    colour: Colour


@dataclass(frozen=True)
class Frame:
    """How the arrays of one grid become pictures: turned to LPS, cropped, one slice taken, scaled to square pixels."""

    order: AxisOrder
    spacing_mm: tuple[float, float, float]
    plane: Plane
    index: int
    crop: Crop | None
    height: int

    @classmethod
    def of(cls, geometry: Geometry, plane: Plane, index: int, crop: Crop | None, height: int) -> Frame:
        """Return the frame for the arrays of a grid."""
        order = display_order(geometry)
        return cls(order, order.apply_to_geometry(geometry).spacing_mm, plane, index, crop, height)

    def slice_of(self, array: NDArray) -> NDArray:
        """Return rows from top to bottom, columns from left to right."""
        turned = self.order.apply_to_array(array)
        normal = NORMAL_AXIS[self.plane]
        keep = [self.crop[axis] if self.crop else slice(None) for axis in range(3)]
        picture = turned[tuple(self.index if axis == normal else keep[axis] for axis in range(3))].T
        return picture if self.plane == "axial" else picture[::-1]

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Size of a voxel in the picture, (down, across), in mm."""
        across, down = (axis for axis in range(3) if axis != NORMAL_AXIS[self.plane])
        return self.spacing_mm[down], self.spacing_mm[across]

    def size(self, picture: NDArray) -> tuple[int, int]:
        """Return (width, height) in pixels that show a slice in true proportion, at most twice as wide as high."""
        down, across = self.pixel_mm
        height_mm, width_mm = picture.shape[0] * down, picture.shape[1] * across
        scale = min(self.height / height_mm, 2 * self.height / width_mm)
        return max(round(width_mm * scale), 1), max(round(height_mm * scale), 1)


def display_order(geometry: Geometry) -> AxisOrder:
    """Return the axis order that turns arrays of a grid to the closest LPS axes, without resampling."""
    return match_axes(axis_directions(geometry), parse_orientation("LPS"))


def draw_tile(tile: Tile, frame: Frame, outlines: Sequence[Outline]) -> Image.Image:
    """Return the picture of one slice with outlines, side marks and scale, in true proportion."""
    from PIL import Image

    values = frame.slice_of(tile.volume.array).astype(np.float64)
    low, high = tile.window
    unit = np.clip((values - low) / (high - low), 0.0, 1.0)
    signed = tile.colours == "difference"
    pixels = diverging_colours(unit) if signed else np.repeat((unit * 255).astype(np.uint8)[..., None], 3, axis=2)
    if tile.inside is not None:
        neutral = np.array(_OUTSIDE if signed else _BLACK, dtype=np.uint8)
        pixels = np.where(frame.slice_of(tile.inside)[..., None], pixels, neutral)
    picture = Image.fromarray(pixels).resize(frame.size(values), Image.Resampling.BICUBIC)
    for outline in outlines if tile.outlined else ():
        _draw_outline(picture, frame.slice_of(outline.mask), outline.colour)
    ink, halo = (_INK, _WHITE) if signed else (_WHITE, _BLACK)
    _draw_marks(picture, frame.plane, frame.pixel_mm[1] * values.shape[1], ink, halo)
    return picture


def draw_colour_bar(draw: ImageDraw.ImageDraw, corner: tuple[int, int], height: int, tile: Tile) -> None:
    """Draw the diverging scale with its ends, its middle and its unit."""
    left, top = corner
    for row, colour in enumerate(diverging_colours(np.linspace(1.0, 0.0, height))):
        draw.line((left, top + row, left + 14, top + row), fill=(int(colour[0]), int(colour[1]), int(colour[2])))
    low, high = tile.window
    for share, value in ((0.0, high), (0.5, (low + high) / 2), (1.0, low)):
        row = min(top + round(share * height), top + height - 1)
        draw.line((left + 14, row, left + 18, row), fill=_INK)
        number = f"{value:+.3g}" if value else "0"
        draw_text(draw, (left + 21, min(max(row - 8, top - 2), top + height - 14)), number, 12)
    for line, word in enumerate(tile.unit.split()):
        draw_text(draw, (left + 21, top + height // 4 - 16 + 14 * line), word, 12)


def draw_legend(draw: ImageDraw.ImageDraw, outlines: Sequence[Outline], corner: tuple[int, int]) -> None:
    """Name the outlines' colours in one line."""
    left, top = corner
    for outline in outlines:
        draw.line((left, top + 8, left + 18, top + 8), fill=outline.colour, width=3)
        draw_text(draw, (left + 24, top), outline.name, 13)
        left += 24 + int(draw.textlength(_drawable(outline.name), font=_font(13))) + 18


def draw_text(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    size: int = _TITLE_SIZE,
    colour: Colour = _INK,
    halo: Colour | None = None,
) -> None:
    """Write text in the letters that the built-in font has; others lose their accents or are left out."""
    draw.text(corner, _drawable(text), fill=colour, font=_font(size), stroke_width=1 if halo else 0, stroke_fill=halo)


def fitting(draw: ImageDraw.ImageDraw, title: str, width: int) -> str:
    """Return a title, cut short where it is wider than ``width`` pixels."""
    title = _drawable(title)
    while len(title) > 4 and draw.textlength(title, font=_font(_TITLE_SIZE)) > width:
        title = title[:-4] + "..."
    return title


def diverging_colours(unit: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the colours [..., 3] of the scale for signed differences, from blue (0) over white (0.5) to red (1)."""
    position = unit * (len(_DIVERGING) - 1)
    stops = np.arange(len(_DIVERGING))
    channels = [np.interp(position, stops, _DIVERGING[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def _draw_outline(picture: Image.Image, mask: BoolArray, colour: Colour) -> None:
    """Draw a line just outside the region, so that even a region of one voxel stays visible."""
    from PIL import Image

    if not mask.any():
        return
    scaled = Image.fromarray(mask.astype(np.uint8) * 255).resize(picture.size, Image.Resampling.NEAREST)
    inside = np.pad(np.asarray(scaled) > 0, 1)
    around = inside[:-2, 1:-1] | inside[2:, 1:-1] | inside[1:-1, :-2] | inside[1:-1, 2:]
    edge = around & ~inside[1:-1, 1:-1]
    picture.paste(colour, mask=Image.fromarray(edge.astype(np.uint8) * 255))


def _draw_marks(picture: Image.Image, plane: Plane, width_mm: float, ink: Colour, halo: Colour) -> None:
    """Write the sides and draw a scale whose length is a round number of mm."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(picture)
    middle = picture.height // 2 - 8
    for text, left in zip(_SIDES[plane], (4, picture.width - 14), strict=True):
        draw_text(draw, (left, middle), text, 14, ink, halo)
    length_mm = next((mm for mm in (50, 20, 10, 5, 2) if mm <= width_mm / 3), 1)
    length = round(length_mm * picture.width / width_mm)
    bottom = picture.height - 8
    draw.line((5, bottom, 7 + length, bottom), fill=halo, width=4)
    draw.line((6, bottom, 6 + length, bottom), fill=ink, width=2)
    draw_text(draw, (6, bottom - 18), f"{length_mm} mm", 12, ink, halo)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _drawable(text: str) -> str:
    for sign, plain in (("−", "-"), ("–", "-"), ("—", "-"), ("×", "x"), ("ß", "ss"), ("µ", "u")):
        text = text.replace(sign, plain)
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii") or "?"
