"""Reading nodes of a MRML scene: are they there, which transforms lie above them, their matrices and voxels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.errors import InputError, UsageError

__all__ = [
    "Node",
    "image_voxels",
    "is_linear",
    "linear_to_world",
    "local_affine",
    "matrix_array",
    "require_node",
    "require_volume",
    "voxels_of",
    "vtk_matrix",
]

Node = Any
"""An object of the MRML or VTK class that the text names: the bindings have no types."""


def require_node(node: Node, scene: Node, what: str) -> None:
    """Check that a node is chosen and in the scene (None: in any scene).

    Raises:
        UsageError: ``MX-SLI-001``, the node is None.
        InputError: ``MX-SLI-002``, it is no longer in the scene.
    """
    if node is None:
        raise UsageError("MX-SLI-001", f"no {what} is chosen", expected=f"a {what} of the scene", fix="choose one")
    if node.GetScene() is None or (scene is not None and node.GetScene() is not scene):
        raise InputError(
            "MX-SLI-002",
            f"the {what} is no longer in the scene",
            expected=f"a {what} of the scene",
            where=f"'{node.GetName()}'",
            fix="choose another, or load it again",
        )


def require_volume(node: Node, scene: Node) -> None:
    """Check that a node is a volume with one number per voxel, in the scene (None: in any scene).

    Raises:
        UsageError: ``MX-SLI-001``, the node is None.
        InputError: ``MX-SLI-002`` (no longer in the scene), ``MX-SLI-003`` (another kind of node), ``MX-SLI-004`` (no
            voxels).
    """
    require_node(node, scene, "volume")
    where = f"'{node.GetName()}' ({node.GetClassName()})"
    image = node.GetImageData() if node.IsA("vtkMRMLVolumeNode") else None
    single = node.GetClassName() in {"vtkMRMLScalarVolumeNode", "vtkMRMLLabelMapVolumeNode"}
    if not single or (image is not None and image.GetNumberOfScalarComponents() > 1):
        raise InputError(
            "MX-SLI-003",
            "this is not a volume with one number per voxel",
            expected="a scalar volume",
            where=where,
            fix="choose a scalar volume; from colour or vector volumes extract one component (Vector to Scalar Volume)",
        )
    if image is None or image.GetPointData().GetScalars() is None or min(image.GetDimensions()) < 1:
        raise InputError(
            "MX-SLI-004",
            "the volume holds no voxels",
            expected="an image",
            where=where,
            fix="load the image again, or choose another volume",
        )


def is_linear(node: Node) -> bool:
    """True if all transforms between a node and the world are linear, or there is none."""
    parent = node.GetParentTransformNode()
    return parent is None or bool(parent.IsTransformToWorldLinear())


def linear_to_world(node: Node) -> NDArray[np.float64]:
    """Return the product of the linear transforms between a node and the world; non-linear ones are passed over."""
    matrix, transform = np.eye(4), node.GetParentTransformNode()
    while transform is not None:
        if transform.IsLinear():
            matrix = matrix_array(transform.GetMatrixTransformToParent) @ matrix
        transform = transform.GetParentTransformNode()
    return matrix


def voxels_of(node: Node) -> NDArray:
    """Return a volume node's voxels [K, J, I] as they are in the node's memory."""
    from slicer.util import arrayFromVolume

    array: NDArray = arrayFromVolume(node)
    return array


def image_voxels(image: Node) -> NDArray:
    """Return an image's voxels [K, J, I] as they are in its memory."""
    from vtk.util.numpy_support import vtk_to_numpy

    array: NDArray = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    return array


def local_affine(node: Node) -> NDArray[np.float64]:
    """Return a volume node's own IJK-to-RAS matrix, without transforms."""
    return matrix_array(node.GetIJKToRASMatrix)


def matrix_array(fill: Callable[[Node], object]) -> NDArray[np.float64]:
    """Return the matrix that a VTK method writes into its argument."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    fill(matrix)
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def vtk_matrix(array: NDArray[np.float64]) -> Node:
    """Return a 4x4 array as ``vtkMatrix4x4``."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy([float(value) for value in np.asarray(array).ravel()])
    return matrix
