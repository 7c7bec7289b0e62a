"""`slicer.app.coreIOManager()`: volumes and segmentations by the scene's own storage nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

SEGMENTATION = ".seg.nrrd"


class IoManager:
    """What slicer.util.loadVolume, loadSegmentation, loadNodeFromFile and saveNode need."""

    def __init__(self, scene: Any) -> None:
        self._scene = scene

    def fileType(self, path: str) -> str:
        """Return the kind of file."""
        return "SegmentationFile" if path.endswith(SEGMENTATION) else "VolumeFile"

    def fileWriterFileType(self, node: Any) -> str:
        """Return the kind of file that a node is written to."""
        return "SegmentationFile" if node.IsA("vtkMRMLSegmentationNode") else "VolumeFile"

    def loadNodes(self, kind: str, properties: dict[str, Any], loaded: Any, messages: Any) -> bool:
        """Read a file into the scene."""
        path = str(properties["fileName"])
        if not Path(path).is_file():
            return False
        name = properties.get("name") or Path(path).name.split(".")[0]
        if kind == "VolumeFile":
            options = 1 if properties.get("labelmap") else 0
            node = self._scene.module_logics["Volumes"].AddArchetypeVolume(path, name, options)
        elif kind == "SegmentationFile":
            node = self._scene.module_logics["Segmentations"].LoadSegmentationFromFile(path, True, name)
        else:
            raise NotImplementedError(f"the stand-in for Slicer does not read {kind}")
        if node is not None:
            loaded.AddItem(node)
        return node is not None

    def saveNodes(self, kind: str, properties: dict[str, Any], messages: Any) -> bool:
        """Write a node to a file."""
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode()
        node.GetStorageNode().SetFileName(str(properties["fileName"]))
        return bool(node.GetStorageNode().WriteData(node))
