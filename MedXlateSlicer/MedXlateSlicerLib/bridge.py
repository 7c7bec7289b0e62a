"""Nodes of a MRML scene to volumes and back.

Nodes are only read: a volume is a copy; transforms are composed, or applied to a copy outside the scene. A result lies
on exactly the grid of its reference node. The scene and the nodes are arguments throughout; ``slicer`` and ``vtk`` are
imported where they are used, so that this file can be read (and its errors raised) without either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.checks_roi import check_roi
from MedXlateCore.errors import InputError, UsageError, Warned
from MedXlateCore.io.voxels import make_geometry, voxels
from MedXlateCore.overlap import inside
from MedXlateCore.transforms.foreground import foreground_mask
from MedXlateCore.transforms.resampling import resample
from MedXlateCore.volume import Geometry, Modality, Source, Volume
from MedXlateSlicerLib.nodes import (
    Node,
    image_voxels,
    is_linear,
    linear_to_world,
    local_affine,
    matrix_array,
    require_node,
    require_volume,
    voxels_of,
    vtk_matrix,
)

__all__ = [
    "GRID_ATTRIBUTE",
    "SYNTHETIC_ATTRIBUTE",
    "WORLD_GRID",
    "is_synthetic",
    "node_from_volume",
    "roi_from_segmentation",
    "update_node",
    "volume_from_node",
    "world_geometry",
]

SYNTHETIC_ATTRIBUTE = "MedXlate.synthetic"
GRID_ATTRIBUTE = "MedXlate.grid"
REFERENCE_GRID = "reference volume"
WORLD_GRID = "world"

_MOVED_POINTS = 2000
_LOST_SHARE = 0.005
_STORABLE = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64)


# --- volumes --------------------------------------------------------------------------------------------------------


def volume_from_node(node: Node, modality: Modality | str, scene: Node | None = None) -> Volume:
    """Return a copy of a scalar volume node's voxels in world space (RAS mm).

    Linear parent transforms are composed into the affine, without interpolation. With a non-linear parent transform the
    voxels are resampled once (linear; labels: nearest) onto the volume's own grid, carried along by the linear
    transforms of the chain, and a note says so. (Slicer's own hardening may enlarge the grid, by version.) The node
    itself is not touched.

    Args:
        node: a ``vtkMRMLScalarVolumeNode`` or ``vtkMRMLLabelMapVolumeNode``.
        modality: what it shows. Images become float32, label maps keep their integers.
        scene: the scene the node should be in; None to take any.

    Raises:
        UsageError: ``MX-SLI-001`` (no volume chosen), ``MX-USE-010`` (no such modality).
        InputError: ``MX-SLI-002`` (no longer in the scene), ``MX-SLI-003`` (not a volume of single numbers),
            ``MX-SLI-004`` (no voxels), ``MX-GEO-001`` to ``-003`` (unusable grid), ``MX-IMG-015``, ``MX-ROI-001``,
            ``MX-ROI-002`` (unusable values).
    """
    role = Modality.parse(modality)
    require_volume(node, scene)
    where = f"{role} '{node.GetName()}'"
    geometry = world_geometry(node)
    still, bent = (node, []) if is_linear(node) else _hardened(node, geometry, role, where)
    stored = voxels_of(still).transpose(2, 1, 0).copy(order="F")
    array, found = voxels(stored, role, 1.0, 0.0, where)
    return Volume(array, geometry, role, Source(name=node.GetName() or ""), is_synthetic(node), (*bent, *found))


def world_geometry(node: Node) -> Geometry:
    """Return a volume node's grid in world space, all linear parent transforms included (RAS mm).

    Raises:
        InputError: ``MX-GEO-001`` to ``-003``, the grid is not usable.
    """
    affine = linear_to_world(node) @ local_affine(node)
    return make_geometry(node.GetImageData().GetDimensions(), affine, f"'{node.GetName()}'")


def is_synthetic(node: Node) -> bool:
    """True for a node that MedXlate marked as synthetic."""
    return node.GetAttribute(SYNTHETIC_ATTRIBUTE) == "1"


def node_from_volume(volume: Volume, scene: Node, name: str, reference_node: Node | None = None) -> Node:
    """Add a volume to a scene as a node and return it.

    The node gets the reference node's own IJK-to-RAS matrix and parent transform, so that it lies on exactly the same
    grid and moves with it. Where the volume does not lie on that grid (the reference's transform is not linear, was
    changed, or there is no reference any more) it is placed in world space, without a parent transform; the attribute
    ``MedXlate.grid`` says which.

    Args:
        volume: what to add; a label map becomes a ``vtkMRMLLabelMapVolumeNode``.
        scene: where to.
        name: name wanted; a number is added if the scene has it already.
        reference_node: the volume node whose grid it is, or None.

    Raises:
        InputError: ``MX-SLI-008``, a label beyond 32 bits.
    """
    import slicer

    is_label = volume.modality is Modality.LABEL
    node = slicer.vtkMRMLLabelMapVolumeNode() if is_label else slicer.vtkMRMLScalarVolumeNode()
    node.SetName(scene.GenerateUniqueName(name))
    _set_voxels(node, volume)
    if reference_node is not None and _lies_on(volume.geometry, reference_node, scene):
        node.CopyOrientation(reference_node)
        node.SetAndObserveTransformNodeID(reference_node.GetTransformNodeID())
        node.SetAttribute(GRID_ATTRIBUTE, REFERENCE_GRID)
    else:
        node.SetIJKToRASMatrix(vtk_matrix(volume.geometry.affine_ras))
        node.SetAttribute(GRID_ATTRIBUTE, WORLD_GRID)
    if volume.synthetic:
        node.SetAttribute(SYNTHETIC_ATTRIBUTE, "1")
    scene.AddNode(node)  # complete by now: whoever observes the scene sees no half-made node
    node.CreateDefaultDisplayNodes()
    return node


def update_node(node: Node, volume: Volume) -> None:
    """Replace the voxels of a node that ``node_from_volume`` made; grid, display and place in the scene stay.

    Raises:
        UsageError: ``MX-SLI-001`` (no node).
        InputError: ``MX-SLI-002`` (no longer in the scene), ``MX-SLI-003``, ``MX-SLI-004``, ``MX-SLI-007`` (the volume
            lies on another grid), ``MX-SLI-008`` (a label beyond 32 bits).
    """
    require_volume(node, None)
    if not is_linear(node) or not world_geometry(node).allclose(volume.geometry):
        raise InputError(
            "MX-SLI-007",
            f"the new voxels do not lie on the grid of '{node.GetName()}'",
            expected="the grid the node was made for",
            where=volume.name,
            fix="make a new volume instead: the old one or its transform was changed",
        )
    _set_voxels(node, volume)


# --- regions --------------------------------------------------------------------------------------------------------


def roi_from_segmentation(
    segmentation_node: Node,
    segment_ids: Mapping[str, Sequence[str]],
    reference_node: Node,
    labels: Mapping[str, Sequence[int]],
    scene: Node | None = None,
) -> Volume:
    """Return chosen segments as a label map on a reference volume's grid, in world space.

    Every segment counts as drawn, whether it is shown or hidden. Brought to the reference's grid, a voxel belongs to a
    region where the (linearly interpolated) segment covers more than half of it, as the pipeline does with label maps
    on other grids; on the same grid it is a copy. Where regions overlap, ``core`` wins.

    Args:
        segmentation_node: a ``vtkMRMLSegmentationNode``; binary label maps or closed surfaces.
        segment_ids: segments by region, such as ``{"core": ["Segment_1"], "oedema": []}``.
        reference_node: the volume node whose grid the result gets.
        labels: label values by region, such as ``{"oedema": [2], "core": [1, 4]}``; the first value is written.
        scene: the scene both nodes should be in; None to take any.

    Returns:
        A label map; its notes hold ``MX-ROI-012`` (partly outside) and ``MX-SLI-103`` (a segment too small for the
        grid).

    Raises:
        UsageError: ``MX-SLI-001`` (no segmentation or reference chosen), ``MX-ROI-032`` (a region without a label).
        InputError: ``MX-SLI-002`` to ``-004`` (see ``volume_from_node``), ``MX-SLI-005`` (no such segment),
            ``MX-SLI-006`` (a segment that cannot become a label map), ``MX-ROI-011`` (wholly outside).
    """
    require_volume(reference_node, scene)
    require_node(segmentation_node, scene, "segmentation")
    grid = world_geometry(reference_node)
    array = np.zeros(
        grid.shape,
        np.uint8 if max((value for values in labels.values() for value in values), default=0) < 256 else np.int32,
    )
    names, notes = [], []
    for region in sorted(segment_ids, key=lambda name: name == "core"):  # core last: it overwrites
        for segment_id in segment_ids[region]:
            drawn = _segment_volume(segmentation_node, segment_id)
            names.append(drawn.source.name)
            mask, found = _on_grid(drawn, grid)
            array[mask] = _label_of(region, labels)
            notes += found
    name = f"{segmentation_node.GetName()}: {', '.join(names)}" if names else segmentation_node.GetName()
    return Volume(array, grid, Modality.LABEL, Source(name=name), notes=tuple(notes))


def _on_grid(drawn: Volume, grid: Geometry) -> tuple[NDArray[np.bool_], list[Warned]]:
    """Return a segment's mask on the reference grid, with what is lost on the way."""
    if not drawn.array.any():
        return np.zeros(grid.shape, dtype=np.bool_), []
    notes = [note for note in check_roi(drawn, grid, {"segment": (1,)}) if note.code == "MX-ROI-012"]
    mask = resample(drawn.array.astype(np.float32), drawn.geometry, grid, order=1) > 0.5
    if not mask.any():
        text = f"the segment ({int(drawn.array.sum())} voxels) is too small for the reference's grid and has no effect"
        notes.append(Warned("MX-SLI-103", text, drawn.name, "paint it on the reference volume's own grid"))
    return mask, notes


def _segment_volume(segmentation_node: Node, segment_id: str) -> Volume:
    """Return one segment as a mask (uint8) on its own grid in world space, with a border of zeros."""
    import slicer

    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    if segment is None:
        raise InputError(
            "MX-SLI-005",
            f"there is no segment '{segment_id}'",
            expected="a segment of the segmentation",
            where=f"segmentation '{segmentation_node.GetName()}'",
            fix="choose the segment again; it may have been deleted",
        )
    name = segment.GetName() or segment_id
    painted = segment.GetRepresentation(slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName())
    source = segment.GetRepresentation(segmentation_node.GetSegmentation().GetSourceRepresentationName())
    if painted is None and source is None:
        return _nothing(name)
    image = _segment_image(segmentation_node, segment_id, name)
    extent = image.GetExtent()
    if any(extent[2 * axis + 1] < extent[2 * axis] for axis in range(3)):
        return _nothing(name)
    layer = image_voxels(image).transpose(2, 1, 0)
    # segments share a layer: each has its own value there; what was made from a surface has a layer of its own
    mask = np.pad(layer == int(segment.GetLabelValue()) if painted is not None else layer > 0, 1)
    affine = matrix_array(image.GetImageToWorldMatrix)
    affine[:3, 3] += affine[:3, :3] @ (np.array(extent[::2]) - 1.0)  # the border begins one voxel before the image
    if is_linear(segmentation_node):
        affine = linear_to_world(segmentation_node) @ affine
    grid = make_geometry(mask.shape, affine, f"segment '{name}'")
    return Volume(mask.astype(np.uint8), grid, Modality.LABEL, Source(name=name))


def _segment_image(segmentation_node: Node, segment_id: str, name: str) -> Node:
    """Return a copy of a segment's layer as an oriented image; the non-linear part of its transforms is applied."""
    import slicer

    logic = slicer.vtkSlicerSegmentationsModuleLogic
    image = slicer.vtkOrientedImageData()
    done = logic.GetSegmentBinaryLabelmapRepresentation(segmentation_node, segment_id, image, False)
    if done and not is_linear(segmentation_node):
        done = logic.ApplyParentTransformToOrientedImageData(segmentation_node, image, False)
    if not done:
        raise InputError(
            "MX-SLI-006",
            f"the segment '{name}' cannot be made into a label map",
            expected="a binary label map, or a closed surface",
            where=f"segmentation '{segmentation_node.GetName()}'",
            fix="create its binary label map in the Segmentations module, or draw it again",
        )
    return image


def _nothing(name: str) -> Volume:
    return Volume(np.zeros((1, 1, 1), np.uint8), Geometry((1, 1, 1), np.eye(4)), Modality.LABEL, Source(name=name))


def _label_of(region: str, labels: Mapping[str, Sequence[int]]) -> int:
    if not labels.get(region):
        raise UsageError(
            "MX-ROI-032",
            f"the region '{region}' is not known",
            expected=f"one of {', '.join(labels)}",
            fix="choose the segments of a region that the model knows",
        )
    return int(labels[region][0])


# --- voxels ----------------------------------------------------------------------------------------------------------


def _lies_on(geometry: Geometry, reference_node: Node, scene: Node) -> bool:
    """True if a node with the reference's matrix and parent transform gets this geometry."""
    if reference_node.GetScene() is not scene or reference_node.GetImageData() is None:
        return False
    return is_linear(reference_node) and world_geometry(reference_node).allclose(geometry)


def _hardened(node: Node, geometry: Geometry, role: Modality, where: str) -> tuple[Node, list[Warned]]:
    """Return a copy of a volume node, outside the scene, with the non-linear part of its transforms applied."""
    import slicer
    import vtk

    carried = geometry.affine_ras @ np.linalg.inv(local_affine(node))
    bend = vtk.vtkGeneralTransform()
    node.GetParentTransformNode().GetTransformToWorld(bend)
    bend.PostMultiply()
    bend.Concatenate(vtk_matrix(np.linalg.inv(carried)))
    copy = getattr(slicer, node.GetClassName())()
    copy.CopyContent(node)
    copy.ApplyNonLinearTransform(bend)
    text = "the volume's transform is not linear: it was resampled, once more than otherwise"
    notes = [Warned("MX-SLI-101", text, where, "the result lies in world space, without a transform")]
    lost = _share_lost(voxels_of(node).transpose(2, 1, 0), role, local_affine(node), bend)
    if lost > _LOST_SHARE:
        text = f"the transform moves {100 * lost:.0f} % of the image's content off the volume's grid"
        notes.append(Warned("MX-SLI-102", text, where, "that part is missing; resample the volume onto a larger grid"))
    return copy, notes


def _share_lost(array: NDArray, role: Modality, affine: NDArray[np.float64], bend: Node) -> float:
    """Return the share (0 to 1) of the tissue (or labels) that a transform moves off the grid, by sample."""
    try:
        content = np.argwhere(array > 0 if role is Modality.LABEL else foreground_mask(array, role)).astype(np.float64)
    except InputError:  # nothing stands out: nothing is lost
        return 0.0
    if not len(content):
        return 0.0
    sample = content[:: max(1, len(content) // _MOVED_POINTS)] @ affine[:3, :3].T + affine[:3, 3]
    moved = np.array([bend.TransformPoint(point) for point in sample])
    own = Geometry(array.shape, affine)
    return 1.0 - float(inside(moved, Geometry((1, 1, 1), np.eye(4)), own).mean())


def _set_voxels(node: Node, volume: Volume) -> None:
    from slicer.util import updateVolumeFromArray

    updateVolumeFromArray(node, np.ascontiguousarray(_storable(volume).transpose(2, 1, 0)))


def _storable(volume: Volume) -> NDArray:
    """Return the voxels in a type that MRML volumes take: not boolean, half precision or 64-bit integers."""
    array = volume.array
    if array.dtype in _STORABLE:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind == "f":
        return array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    limits = np.iinfo(np.int32)
    if array.size and not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
        raise InputError(
            "MX-SLI-008",
            f"the volume has values from {array.min()} to {array.max()}",
            expected="integers of up to 32 bits",
            where=volume.name,
            fix="renumber the labels",
        )
    return array.astype(np.int32)
