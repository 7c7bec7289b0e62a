"""Which segments serve as the region of interest, and as which part of the lesion."""

from __future__ import annotations

from collections.abc import Mapping

from MedXlateSlicerLib.nodes import Node
from MedXlateSlicerLib.texts import tr as _

__all__ = [
    "REGION_LABELS",
    "USES",
    "empty_segments",
    "segment_names",
    "segments_by_region",
    "suggested_use",
    "use_text",
]

USES = ("none", "region", "core", "oedema")
"""What a segment can be used as. A plain region counts as core: models know no third part."""

REGION_LABELS: dict[str, tuple[int, ...]] = {"oedema": (2,), "core": (1, 3, 4)}
"""Label values of the map that is handed to the model, as in BraTS."""

_CORE_WORDS = ("core", "enhanc", "tumor", "tumour", "necro")
_OEDEMA_WORDS = ("oedema", "edema")


def use_text(use: str) -> str:
    """Return the name of a use, for the user."""
    return {"none": _("not used"), "region": _("region"), "core": _("core"), "oedema": _("oedema")}[use]


def segment_names(segmentation: Node | None) -> dict[str, str]:
    """Return the names of a segmentation's segments by identifier, in its order."""
    if segmentation is None:
        return {}
    parts = segmentation.GetSegmentation()
    ids = [parts.GetNthSegmentID(index) for index in range(parts.GetNumberOfSegments())]
    return {segment_id: parts.GetSegment(segment_id).GetName() or segment_id for segment_id in ids}


def suggested_use(name: str, position: int, count: int) -> str:
    """Return a use for a segment that the user has not assigned: by its name; a single segment is the region."""
    words = name.lower()
    if any(word in words for word in _OEDEMA_WORDS):
        return "oedema"
    if any(word in words for word in _CORE_WORDS):
        return "core"
    return "region" if count == 1 and position == 0 else "none"


def full_uses(segmentation: Node | None, stored: Mapping[str, str]) -> dict[str, str]:
    """Return the use of every segment: as the user chose, else as its name suggests."""
    names = segment_names(segmentation)
    return {
        segment_id: stored.get(segment_id) or suggested_use(name, position, len(names))
        for position, (segment_id, name) in enumerate(names.items())
    }


def segments_by_region(segmentation: Node | None, uses: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the segments of each part (``core``, ``oedema``); those that exist no more are passed over."""
    found: dict[str, list[str]] = {"oedema": [], "core": []}
    for segment_id in segment_names(segmentation):
        use = uses.get(segment_id, "none")
        if use != "none":
            found["oedema" if use == "oedema" else "core"].append(segment_id)
    return {part: ids for part, ids in found.items() if ids}


def empty_segments(segmentation: Node | None, uses: Mapping[str, str]) -> int:
    """Return how many of the used segments have never been drawn."""
    used = [segment_id for ids in segments_by_region(segmentation, uses).values() for segment_id in ids]
    return sum(_is_empty(segmentation.GetSegmentation().GetSegment(segment_id)) for segment_id in used)


def _is_empty(segment: Node) -> bool:
    import slicer

    painted = segment.GetRepresentation(slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName())
    if painted is not None:
        return bool(painted.IsEmpty())
    surface = segment.GetRepresentation(slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName())
    return surface is None or surface.GetNumberOfPoints() == 0
