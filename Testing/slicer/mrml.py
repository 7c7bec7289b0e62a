"""What the tests of the MRML side are made of: volumes, transforms, segmentations, and a picture of the whole scene."""

from __future__ import annotations

import itertools

import numpy as np

SHAPE = (12, 10, 8)
SPACING = (0.9, 1.3, 2.5)


def orientations() -> list[np.ndarray]:
    """Return the 48 matrices that permute and flip three axes, left-handed ones included."""
    turns = []
    for order, signs in itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)):
        turn = np.zeros((3, 3))
        turn[list(order), range(3)] = signs
        turns.append(turn)
    return turns


def affine(turn: np.ndarray | None = None, tilt: tuple[float, float, float] = (0, 0, 0), shear: float = 0.0):
    """Return a 4x4 matrix with SPACING: an axis turn, then tilts (degrees about x, y, z), off the origin."""
    import scipy.spatial.transform as spatial

    matrix = np.eye(4)
    rotation = spatial.Rotation.from_euler("xyz", tilt, degrees=True).as_matrix()
    slanted = np.eye(3)
    slanted[0, 1] = shear
    matrix[:3, :3] = rotation @ (np.eye(3) if turn is None else turn) @ slanted @ np.diag(SPACING)
    matrix[:3, 3] = (-31.7, 12.3, 5.1)
    return matrix


def pattern(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    """Return voxels [I, J, K], float32: a textured block in zeros, unlike in all directions."""
    array = np.zeros(shape, np.float32)
    inner = tuple(slice(n // 4, n - n // 5) for n in shape)
    array[inner] = np.random.default_rng(seed).uniform(50, 200, array[inner].shape)
    return array


def vtk_matrix(array: np.ndarray):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy([float(value) for value in array.ravel()])
    return matrix


def as_array(fill) -> np.ndarray:
    """Return the matrix that a VTK method writes into its argument."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    fill(matrix)
    return np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])


def add_volume(
    scene, array: np.ndarray | None = None, matrix: np.ndarray | None = None, name: str = "T1", kind="Scalar"
):
    """Add a volume node with voxels [I, J, K]."""
    import slicer
    from slicer.util import updateVolumeFromArray

    node = getattr(slicer, f"vtkMRML{kind}VolumeNode")()
    node.SetName(name)
    updateVolumeFromArray(node, np.ascontiguousarray((pattern() if array is None else array).transpose(2, 1, 0)))
    node.SetIJKToRASMatrix(vtk_matrix(affine() if matrix is None else matrix))
    scene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    return node


def voxels_of(node) -> np.ndarray:
    """Return a node's voxels [I, J, K], not a copy."""
    from slicer.util import arrayFromVolume

    return arrayFromVolume(node).transpose(2, 1, 0)


def add_linear(scene, matrix: np.ndarray, child, name: str = "registration"):
    """Put a linear transform above a node, under the transform it had."""
    import slicer

    node = slicer.vtkMRMLLinearTransformNode()
    node.SetName(name)
    node.SetMatrixTransformToParent(vtk_matrix(matrix))
    return _above(scene, node, child)


def add_bend(scene, child, shift: tuple[float, float, float] = (0, 0, 0), bulge: float = 3.0):
    """Put a non-linear transform above a node: a shift in mm, plus a bulge along x that changes with y."""
    import slicer
    import vtk

    points, targets = vtk.vtkPoints(), vtk.vtkPoints()
    for x, y, z in itertools.product((-60, 0, 60), repeat=3):
        points.InsertNextPoint(x, y, z)
        targets.InsertNextPoint(x + shift[0] + bulge * (y == 0), y + shift[1], z + shift[2])
    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetBasisToR()
    spline.SetSourceLandmarks(points)
    spline.SetTargetLandmarks(targets)
    node = slicer.vtkMRMLTransformNode()
    node.SetName("warp")
    node.SetAndObserveTransformToParent(spline)
    return _above(scene, node, child)


def _above(scene, node, child):
    scene.AddNode(node)
    node.SetAndObserveTransformNodeID(child.GetTransformNodeID())
    child.SetAndObserveTransformNodeID(node.GetID())
    return node


def add_segmentation(scene, name: str = "lesion"):
    import slicer

    node = slicer.vtkMRMLSegmentationNode()
    node.SetName(name)
    scene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    return node


def add_segment(segmentation, mask: np.ndarray, matrix: np.ndarray, name: str) -> str:
    """Add a segment from a mask [I, J, K] and return its identifier."""
    import slicer
    from vtk.util.numpy_support import numpy_to_vtk

    image = slicer.vtkOrientedImageData()
    image.SetDimensions(mask.shape)
    flat = np.ascontiguousarray(mask.transpose(2, 1, 0)).astype(np.uint8).ravel()
    image.GetPointData().SetScalars(numpy_to_vtk(flat, deep=True))
    image.SetImageToWorldMatrix(vtk_matrix(matrix))
    return segmentation.AddSegmentFromBinaryLabelmapRepresentation(image, name)


def nodes_of(scene) -> list:
    return [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]


def picture(scene) -> dict[str, object]:
    """Return all a scene holds: its XML (matrices, display, attributes, references), every voxel, time stamps."""
    scene.SetSaveToXMLString(1)
    scene.Commit()
    found: dict[str, object] = {"xml": scene.GetSceneXMLString(), "count": scene.GetNumberOfNodes()}
    for node in nodes_of(scene):
        found[f"{node.GetID()} time"] = node.GetMTime()
        if node.IsA("vtkMRMLVolumeNode") and node.GetImageData():
            found[f"{node.GetID()} voxels"] = (voxels_of(node).tobytes(), node.GetImageData().GetMTime())
        if node.IsA("vtkMRMLSegmentationNode"):
            found[f"{node.GetID()} segments"] = node.GetSegmentation().GetMTime()
    return found


def content(scene) -> dict[str, object]:
    """Return the picture without the nodes' own time stamps, which MRML also touches when a neighbour comes or goes."""
    return {name: value for name, value in picture(scene).items() if not name.endswith(" time")}


def parent_of(scene, node):
    """Return the node that a node stands under in the subject hierarchy, or None."""
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    return hierarchy.GetItemDataNode(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)))
