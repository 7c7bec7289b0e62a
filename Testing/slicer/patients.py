"""What the tests of the panels share: a phantom patient, painting, waiting, portraits of nodes."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
from mrml import voxels_of

ROOT = Path(__file__).resolve().parents[2]
MODULES = ROOT / "MedXlateSlicer"
SPACING = (3.0, 3.0, 6.0)
SEED = 900


def phantom_files(folder: Path) -> dict[str, Path]:
    """Return the files of a small phantom patient by role; `region` is a label map."""
    from MedXlateSlicerLib.sample_data import phantom_case

    return phantom_case(folder, SEED, SPACING)


def load_volumes(scene: Any, files: dict[str, Path], roles: tuple[str, ...]) -> dict[str, Any]:
    """Add volumes to the scene, named after their files."""
    from MedXlateSlicerLib.bridge import node_from_volume

    from MedXlateCore.io import read_volume

    return {role: node_from_volume(read_volume(files[role], role), scene, files[role].stem) for role in roles}


def new_segmentation(scene: Any, reference: Any, name: str = "lesion") -> tuple[Any, str]:
    """Add a segmentation with one empty segment on a volume's grid; return the node and the segment's identifier."""
    from mrml import add_segmentation

    node = add_segmentation(scene, name)
    node.SetReferenceImageGeometryParameterFromVolumeNode(reference)
    return node, node.GetSegmentation().AddEmptySegment("", "painted")


def paint(segmentation: Any, segment_id: str, mask: np.ndarray, reference: Any) -> None:
    """Make a mask [I, J, K] on the reference's grid the segment, as painting does."""
    import slicer

    array = np.ascontiguousarray(mask.transpose(2, 1, 0)).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, segmentation, segment_id, reference)


def open_panel(app: Any) -> Any:
    """Load the module MedXlate and open its panel."""
    return app.enter(app.load_module(MODULES / "MedXlate" / "MedXlate.py"))


def phase(panel: Any) -> str:
    """Return how the panel's run stands."""
    return panel.panel.translator.status.phase


def apply_and_wait(app: Any, panel: Any, seconds: float = 120.0) -> Any:
    """Press Apply and wait for the end; return the status."""
    panel.ui.applyButton.click()
    app.wait_until(lambda: phase(panel) != "running", seconds)
    return panel.panel.translator.status


def portraits(scene: Any, nodes: list[Any]) -> dict[str, Any]:
    """Return all that is saved of some nodes and of their display and storage nodes, and their voxels, bit for bit."""
    scene.SetSaveToXMLString(1)
    scene.Commit()
    saved = {element.get("id"): dict(element.attrib) for element in ElementTree.fromstring(scene.GetSceneXMLString())}
    found: dict[str, Any] = {}
    for node in nodes:
        displays = [node.GetNthDisplayNode(index) for index in range(node.GetNumberOfDisplayNodes())]
        for part in (node, *displays, node.GetStorageNode()):
            if part is not None:
                found[part.GetID()] = saved[part.GetID()]
        if node.IsA("vtkMRMLVolumeNode"):
            found[f"{node.GetID()} voxels"] = (voxels_of(node).tobytes(), node.GetImageData().GetMTime())
        else:
            found[f"{node.GetID()} segments"] = node.GetSegmentation().GetMTime()
    return found
