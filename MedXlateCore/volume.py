"""Volumes and where they lie in space: ``Volume``, ``Geometry``, ``Modality``.

Space is patient space in millimetres, RAS (x to the Right, y to the Anterior, z to the Superior side), as in NIfTI and
3D Slicer. Arrays are indexed ``[I, J, K]`` as on the NIfTI grid; ``affine_ras`` maps an index to its voxel *centre*.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.errors import InputError, UsageError, Warned

__all__ = ["Geometry", "Modality", "Source", "Volume"]

FloatArray = NDArray[np.floating]


class Modality(enum.StrEnum):
    """The sequences and modalities MedXlate knows, by their usual names."""

    T1 = "T1"
    T1CE = "T1ce"
    T2 = "T2"
    FLAIR = "FLAIR"
    PD = "PD"
    CT = "CT"
    CBCT = "CBCT"
    PET = "PET"
    LABEL = "label"
    OTHER = "other"

    @classmethod
    def parse(cls, text: str | Modality) -> Modality:
        """Read a modality from its name or an alias (BraTS, BIDS, everyday spelling; case and punctuation are free).

        Raises:
            UsageError: ``MX-USE-010``, the name is not known.
        """
        if isinstance(text, Modality):
            return text
        key = re.sub(r"[^a-z0-9+]", "", text.lower())
        if key not in _ALIASES:
            known = ", ".join(m.value for m in cls)
            raise UsageError(
                "MX-USE-010",
                f"the modality '{text}' is not known",
                expected=f"one of {known}, or a usual alias such as t1n, t1c, t2w, t2f, T1Gd, ceT1w, PDw",
                fix="correct the name before the '=' sign or in the table's header",
            )
        return _ALIASES[key]

    @property
    def is_mr(self) -> bool:
        """True for magnetic resonance images, whose intensities have no unit."""
        return self in {Modality.T1, Modality.T1CE, Modality.T2, Modality.FLAIR, Modality.PD}

    @property
    def unit(self) -> str:
        """Unit of the intensities: ``HU``, ``SUV`` or ``arbitrary``."""
        return {Modality.CT: "HU", Modality.CBCT: "HU", Modality.PET: "SUV"}.get(self, "arbitrary")

    @property
    def air_value(self) -> float:
        """Intensity of air, used where a result has no data: -1000 HU for CT and CBCT, 0 otherwise."""
        return -1000.0 if self in {Modality.CT, Modality.CBCT} else 0.0


_ALIASES: dict[str, Modality] = {
    alias: modality
    for modality, names in {
        Modality.T1: "t1 t1w t1n t1native t1pre t1weighted mprage t1mprage spgr",
        Modality.T1CE: "t1ce t1c t1gd t1c+ t1+c t1+ t1gad t1post t1contrast t1cew cet1 cet1w t1wce t1km",
        Modality.T2: "t2 t2w t2tse t2weighted",
        Modality.FLAIR: "flair t2f t2flair fl",
        Modality.PD: "pd pdw protondensity",
        Modality.CT: "ct",
        Modality.CBCT: "cbct conebeamct",
        Modality.PET: "pet fdgpet suv fdg",
        Modality.LABEL: "label labels seg segmentation mask roi dseg",
        Modality.OTHER: "other unknown",
    }.items()
    for alias in names.split()
}


@dataclass(frozen=True, eq=False)
class Geometry:
    """A voxel grid in patient space, without voxels.

    Attributes:
        shape: number of voxels along I, J, K.
        affine_ras: 4x4 matrix from voxel index to RAS millimetres (float64, read-only).

    Raises:
        InputError: ``MX-GEO-001`` (affine not 4x4, not finite or last row not 0 0 0 1), ``MX-GEO-002`` (an axis has no
            length, or two axes coincide), ``MX-GEO-003`` (a dimension below 1).
    """

    shape: tuple[int, int, int]
    affine_ras: NDArray[np.float64]

    def __post_init__(self) -> None:
        affine = np.array(self.affine_ras, dtype=np.float64)
        well_formed = affine.shape == (4, 4) and np.isfinite(affine).all() and np.array_equal(affine[3], [0, 0, 0, 1])
        if not well_formed:
            raise InputError(
                "MX-GEO-001",
                f"the affine is not usable: {affine.round(4).tolist()}",
                expected="a finite 4x4 matrix whose last row is 0 0 0 1",
                fix="repair the file's header (sform/qform, direction cosines, origin)",
            )
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        degenerate = lengths.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / lengths.clip(1e-300))) < 1e-6
        if degenerate:
            raise InputError(
                "MX-GEO-002",
                f"the grid has a voxel axis of no length, or two axes that coincide (axis lengths {lengths} mm)",
                expected="three independent axes with spacing above 0 mm",
                fix="repair the file's header (pixdim, sform, direction cosines)",
            )
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise InputError(
                "MX-GEO-003",
                f"the grid's shape is {tuple(self.shape)}",
                expected="three dimensions of at least one voxel",
                fix="give a 3D volume",
            )
        affine.setflags(write=False)
        object.__setattr__(self, "affine_ras", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along I, J, K, in mm."""
        i, j, k = np.linalg.norm(self.affine_ras[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in cubic millimetres."""
        return float(abs(np.linalg.det(self.affine_ras[:3, :3])))

    @property
    def shear(self) -> float:
        """Largest cosine between two voxel axes: 0 for a right-angled grid."""
        axes = self.affine_ras[:3, :3] / np.linalg.norm(self.affine_ras[:3, :3], axis=0)
        return float(np.abs(axes.T @ axes - np.eye(3)).max())

    def allclose(self, other: Geometry, tolerance_mm: float = 1e-3) -> bool:
        """True if both grids have one shape and no corner lies more than ``tolerance_mm`` apart."""
        if self.shape != other.shape:
            return False
        return bool(np.abs(self.corners_ras() - other.corners_ras()).max() <= tolerance_mm)

    def corners_ras(self) -> NDArray[np.float64]:
        """Return the centres of the eight corner voxels, shape [8, 3], in RAS mm."""
        ends = [(0, n - 1) for n in self.shape]
        index = np.array([(i, j, k, 1) for i in ends[0] for j in ends[1] for k in ends[2]], dtype=np.float64)
        return (index @ self.affine_ras.T)[:, :3]


@dataclass(frozen=True)
class Source:
    """Where a volume came from: a path (or a node's name) and the SHA-256 of the file, where known."""

    name: str = ""
    path: Path | None = None
    sha256: str = ""


@dataclass(frozen=True, eq=False)
class Volume:
    """One image (or label map) with its geometry. Frozen; the array is made read-only.

    Attributes:
        array: voxels ``[I, J, K]``.
        geometry: the grid, with ``geometry.shape == array.shape``.
        modality: what the voxels show.
        source: where they came from.
        synthetic: True for anything MedXlate (or another tool that says so) made.
        notes: remarks made while reading, as recorded warnings (repairs, assumptions).
        acquisition: how the image was taken, where the file says so.

    Raises:
        InputError: ``MX-GEO-004``, array and geometry differ in shape.
    """

    array: NDArray
    geometry: Geometry
    modality: Modality = Modality.OTHER
    source: Source = field(default_factory=Source)
    synthetic: bool = False
    notes: tuple[Warned, ...] = ()
    acquisition: Acquisition | None = None

    def __post_init__(self) -> None:
        if tuple(self.array.shape) != self.geometry.shape:
            raise InputError(
                "MX-GEO-004",
                f"the array has shape {tuple(self.array.shape)}",
                expected=f"the geometry's shape {self.geometry.shape}",
                where=self.name,
                fix="build the volume from an array and a geometry that belong together",
            )
        view = self.array.view()  # the caller's own array stays writeable for the caller
        view.setflags(write=False)
        object.__setattr__(self, "array", view)

    @property
    def name(self) -> str:
        """A short name for messages: the modality and the source's name."""
        return f"{self.modality.value} '{self.source.name}'" if self.source.name else self.modality.value

    def with_array(self, array: NDArray, **changes: object) -> Volume:
        """Return a volume on the same grid with other voxels."""
        return replace(self, array=array, **changes)  # type: ignore[arg-type]
