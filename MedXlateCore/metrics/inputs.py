"""What is checked before two volumes are compared."""

from __future__ import annotations

import numpy as np

from MedXlateCore.errors import InputError, Warned
from MedXlateCore.metrics.protocols import Protocol
from MedXlateCore.volume import Geometry, Volume

__all__ = ["pair_warnings", "require_finite", "require_same_grid", "warn_if_unused"]


def require_same_grid(geometry: Geometry, *volumes: Volume | None) -> None:
    """Check that all volumes lie on one grid (corners within 0.001 mm); None is passed over.

    Raises:
        InputError: ``MX-MET-010``.
    """
    for volume in volumes:
        if volume is not None and not geometry.allclose(volume.geometry):
            raise InputError(
                "MX-MET-010",
                f"the grids differ: {_how_they_differ(geometry, volume.geometry)}",
                expected="one grid for all volumes (same shape, corners within 0.001 mm)",
                where=volume.name,
                fix="resample it onto the reference's grid first",
            )


def require_finite(*volumes: Volume) -> None:
    """Check that no voxel is NaN or infinite: figures over the rest would not be comparable.

    Raises:
        InputError: ``MX-MET-011``.
    """
    for volume in volumes:
        if volume.array.dtype.kind not in "fc":
            continue
        bad = int(volume.array.size - np.count_nonzero(np.isfinite(volume.array)))
        if bad:
            raise InputError(
                "MX-MET-011",
                f"{bad} of {volume.array.size} voxels are NaN or infinite",
                expected="finite intensities",
                where=volume.name,
                fix="repair the image; figures over a part of it would not be comparable",
            )


def pair_warnings(reference: Volume, synthetic: Volume) -> list[Warned]:
    """Return ``MX-MET-101`` (the images are identical), ``MX-MET-112`` (the synthetic image is constant) and
    ``MX-MET-109`` (the reference is marked synthetic).
    """
    warnings = []
    if np.array_equal(reference.array, synthetic.array):
        text = "both images are identical, voxel by voxel"
        warnings.append(Warned("MX-MET-101", text, synthetic.name, "check that the right files were given"))
    elif synthetic.array.min() == synthetic.array.max():
        text = f"every voxel of the synthetic image has the value {synthetic.array.flat[0]:g}"
        warnings.append(Warned("MX-MET-112", text, synthetic.name, "the figures say nothing about a translation"))
    if reference.synthetic:
        text = "the reference is itself marked as synthetic"
        warnings.append(Warned("MX-MET-109", text, reference.name, "check that the two files are not exchanged"))
    return warnings


def warn_if_unused(protocol: Protocol, mask: Volume | None, regions: Volume | None) -> list[Warned]:
    """Return ``MX-MET-111`` for a mask or a segmentation that the protocol has no use for."""
    used = {
        "none": (False, False),
        "inside": (True, False),
        "product": (regions is None, True),
        "regions": (True, True),
    }
    return [
        Warned(
            "MX-MET-111",
            f"the protocol '{protocol.name}' does not use the {what} that was given",
            volume.name,
            "its figures are those without it",
        )
        for what, volume, is_used in zip(
            ("mask", "segmentation"), (mask, regions), used[protocol.mask_use], strict=True
        )
        if volume is not None and not is_used
    ]


def _how_they_differ(first: Geometry, second: Geometry) -> str:
    if first.shape != second.shape:
        return f"shape {second.shape} against {first.shape}"
    apart = float(np.abs(first.corners_ras() - second.corners_ras()).max())
    return f"the same shape, but corners up to {apart:.3g} mm apart"
