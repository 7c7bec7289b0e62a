"""What grid a model works on: orientation, spacing, crop and size multiples, as settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from MedXlateCore.config import read_dataclass, to_mapping
from MedXlateCore.errors import UsageError
from MedXlateCore.transforms.orientation import parse_orientation

__all__ = ["CropPolicy", "GridSpec"]


@dataclass(frozen=True)
class CropPolicy:
    """Which part of the oriented (and respaced) reference grid a model sees.

    Attributes:
        kind: ``foreground``: the sources' foreground box and ``margin_mm``, within the grid; ``fixed``: ``size``
            voxels; ``none``: the whole grid.
        size: voxels along the model grid's axes, for ``fixed``. None for an axis means the whole axis, or with
            ``centre="foreground"`` the foreground and its margin.
        margin_mm: room around the foreground, in mm.
        centre: for ``fixed``: the middle of the foreground box or of the grid. An odd remainder goes to the far side.
        offset_voxels: shift of a ``fixed`` box towards larger indices, in voxels of the model grid.
        grow: for ``fixed``: extend the box wherever the foreground reaches beyond it; otherwise the foreground is cut
            and the plan carries a warning.

    Raises:
        UsageError: ``MX-USE-064``, settings that contradict each other or cannot be met.
    """

    kind: Literal["foreground", "fixed", "none"] = "foreground"
    size: tuple[int | None, int | None, int | None] | None = None
    margin_mm: float = 3.0
    centre: Literal["foreground", "grid"] = "foreground"
    offset_voxels: tuple[int, int, int] = (0, 0, 0)
    grow: bool = True

    def __post_init__(self) -> None:
        _require(self.kind in ("foreground", "fixed", "none"), f"crop kind {self.kind!r}", "foreground, fixed or none")
        _require(self.centre in ("foreground", "grid"), f"crop centre {self.centre!r}", "foreground or grid")
        if (self.kind == "fixed") != (self.size is not None):
            raise _unusable(
                f"crop kind {self.kind!r} with size {self.size}", "a size with kind 'fixed', and only there"
            )
        for length in self.size or ():
            _require(
                length is None or length >= 1, f"crop size {self.size}", "numbers of voxels of at least 1, or none"
            )
        _require(math.isfinite(self.margin_mm) and self.margin_mm >= 0, f"margin_mm {self.margin_mm}", "0 mm or more")

    @property
    def needs_foreground(self) -> bool:
        """True if the box cannot be placed without knowing the foreground."""
        return self.kind == "foreground" or (self.kind == "fixed" and self.centre == "foreground")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able settings."""
        return dict(to_mapping(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CropPolicy:
        """Read settings, for example from TOML.

        Raises:
            UsageError: ``MX-USE-040`` to ``MX-USE-043`` (unknown key, wrong type or value), ``MX-USE-064``.
        """
        return read_dataclass(cls, data, "crop")


@dataclass(frozen=True)
class GridSpec:
    """The grid a model works on.

    Attributes:
        orientation: axis code of the model grid; ``LPS`` for axial models.
        spacing_mm: wanted voxel size along the model grid's axes; None keeps the reference's, as does a wish within 1 %
            of it (so that voxels are copied instead of interpolated).
        crop: which part is used.
        size_multiple: the box is padded on both sides until its size is a multiple of these.

    Raises:
        UsageError: ``MX-USE-060`` (orientation), ``MX-USE-064`` (spacing or multiples not above 0).
    """

    orientation: str = "LPS"
    spacing_mm: tuple[float | None, float | None, float | None] = (None, None, None)
    crop: CropPolicy = field(default_factory=CropPolicy)
    size_multiple: tuple[int, int, int] = (1, 1, 1)

    def __post_init__(self) -> None:
        parse_orientation(self.orientation)
        for wish in self.spacing_mm:
            positive = wish is None or (math.isfinite(wish) and wish > 0)
            _require(positive, f"spacing_mm {self.spacing_mm}", "millimetres above 0, or none for the reference's own")
        _require(min(self.size_multiple) >= 1, f"size_multiple {self.size_multiple}", "whole numbers of at least 1")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able settings."""
        return dict(to_mapping(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GridSpec:
        """Read settings, for example a model card's ``grid``.

        Raises:
            UsageError: ``MX-USE-040`` to ``MX-USE-043`` (unknown key, wrong type or value), ``MX-USE-060``,
                ``MX-USE-064``.
        """
        return read_dataclass(cls, data, "grid")


def _require(condition: bool, found: str, expected: str) -> None:
    if not condition:
        raise _unusable(found, expected)


def _unusable(found: str, expected: str) -> UsageError:
    return UsageError("MX-USE-064", found, expected=expected, fix="correct the grid settings")
