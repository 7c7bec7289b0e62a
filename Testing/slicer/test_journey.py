"""A user's way through both panels, on a phantom patient, with the real core, worker process and MRML nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mrml import voxels_of
from patients import (
    MODULES,
    apply_and_wait,
    load_volumes,
    new_segmentation,
    open_panel,
    paint,
    phantom_files,
    portraits,
)

from MedXlateCore.cli import main
from MedXlateCore.io import read_volume, write_volume
from MedXlateCore.volume import Geometry, Modality, Volume


def ball(shape: tuple[int, int, int], centre: tuple[int, int, int], radius: int) -> np.ndarray:
    index = np.indices(shape)
    return sum((index[axis] - centre[axis]) ** 2 for axis in range(3)) <= radius**2


def by_command_line(files: dict[str, Path], mask: np.ndarray, folder: Path) -> np.ndarray:
    """Return the voxels that `medxlate translate` makes of the same files and region."""
    geometry = read_volume(files["T1"], "T1").geometry
    region = Volume(mask.astype(np.uint8), Geometry(mask.shape, geometry.affine_ras), Modality.LABEL)
    write_volume(region, folder / "region.nrrd")
    arguments = ["translate", "--source", f"T1={files['T1']}", "--source", f"T2={files['T2']}", "--model", "starter"]
    arguments += ["--target", "T1ce", "--device", "cpu", "--roi", str(folder / "region.nrrd"), "--quiet"]
    assert main([*arguments, "--output", str(folder / "out.nrrd")]) == 0
    return read_volume(folder / "out.nrrd", "T1ce").array


def test_a_user_makes_overlays_repaints_and_evaluates_an_image(slicer_app, tmp_path):
    scene = slicer_app.scene
    files = phantom_files(tmp_path)
    nodes = load_volumes(scene, files, ("T1", "T2", "T1ce"))
    segmentation, segment = new_segmentation(scene, nodes["T1"])
    shape = voxels_of(nodes["T1"]).shape
    first = ball(shape, tuple(n // 2 for n in shape), 4)
    paint(segmentation, segment, first, nodes["T1"])

    panel = open_panel(slicer_app)
    parameters = panel.panel.parameters
    assert parameters.sourceT1 is nodes["T1"]
    assert parameters.sourceT2 is nodes["T2"]
    panel.ui.segmentation.setCurrentNode(segmentation)
    panel.ui.deviceCombo.setCurrentIndex(1)
    assert parameters.device == "cpu"
    assert panel.ui.applyButton.enabled
    mine = [*nodes.values(), segmentation]
    before, cameras = portraits(scene, mine), views(scene)

    status = apply_and_wait(slicer_app, panel)
    assert status.error is None
    result = status.result
    assert result.GetName() == "SYNTHETIC T1ce (starter)"
    np.testing.assert_array_equal(voxels_of(result), by_command_line(files, first, tmp_path))
    assert layers(scene) == {(nodes["T1"].GetID(), result.GetID(), 0.5)}
    panel.ui.fadeSlider.value = 0.75
    assert layers(scene) == {(nodes["T1"].GetID(), result.GetID(), 0.75)}
    assert portraits(scene, mine) == before

    second = first.copy()
    second[:, :, shape[2] // 2] = ball(shape, tuple(n // 2 for n in shape), 6)[:, :, shape[2] // 2]
    paint(segmentation, segment, second, nodes["T1"])
    before = portraits(scene, mine)
    count = scene.GetNumberOfNodes()
    status = apply_and_wait(slicer_app, panel)
    assert status.error is None
    assert status.result is result
    assert status.record["compute"]["slices_recomputed"] == 1
    assert f"1 of {status.record['compute']['slices']} slices changed" in panel.ui.statusText.text
    np.testing.assert_array_equal(voxels_of(result), by_command_line(files, second, tmp_path))
    assert portraits(scene, mine) == before
    assert scene.GetNumberOfNodes() == count
    assert views(scene) == cameras

    slicer_app.leave(panel)
    evaluate = slicer_app.enter(slicer_app.load_module(MODULES / "MedXlateEvaluate" / "MedXlateEvaluate.py"))
    assert evaluate.panel.parameters.synthetic is result
    evaluate.ui.reference.setCurrentNode(nodes["T1ce"])
    evaluate.ui.segmentation.setCurrentNode(segmentation)
    evaluate.ui.applyButton.click()
    comparison = evaluate.panel.comparison
    assert comparison is not None, evaluate.ui.errorText.plainText
    assert evaluate.ui.tableView.mrmlTableNode().GetTable().GetValue(0, 0).ToString() == "whole"
    assert set(comparison.result.regions) >= {"brain", "lesion", "healthy"}
    assert portraits(scene, mine) == before


def layers(scene) -> set[tuple]:
    views = scene.GetNodesByClass("vtkMRMLSliceCompositeNode")
    views.UnRegister(None)
    found = [views.GetItemAsObject(index) for index in range(views.GetNumberOfItems())]
    return {(v.GetBackgroundVolumeID(), v.GetForegroundVolumeID(), v.GetForegroundOpacity()) for v in found}


def views(scene) -> list[tuple]:
    """Return where the slice views look: plane, field of view, layout."""
    found = [scene.GetFirstNodeByClass("vtkMRMLLayoutNode").GetViewArrangement()]
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")):
        node = scene.GetNthNodeByClass(index, "vtkMRMLSliceNode")
        matrix = [node.GetSliceToRAS().GetElement(i, j) for i in range(4) for j in range(4)]
        found.append((node.GetID(), matrix, node.GetFieldOfView(), node.GetOrientation()))
    return found
