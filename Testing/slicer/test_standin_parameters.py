"""The stand-in's parameter node wrapper keeps typed values in the node, as the application's does."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Optional

import pytest


class Device(enum.Enum):
    """Where to compute."""

    AUTO = 1
    CPU = 2


@pytest.fixture
def wrapped(slicer_app):
    """Return a parameter node wrapper with fields of many types, and its node."""
    import slicer
    from slicer.parameterNodeWrapper import Choice, Maximum, Minimum, parameterNodeWrapper, parameterPack

    class Prompt:
        __annotations__ = {"used": bool, "weight": float}
        weight = 0.5

    class Parameters:
        __annotations__ = {
            "device": Device,
            "folder": Path,
            "planes": Annotated[str, Choice(["axial", "all"])],
            "opacity": Annotated[float, Minimum(0), Maximum(1)],
            "reference": Optional[slicer.vtkMRMLVolumeNode],  # noqa: UP045
            "sources": dict[str, slicer.vtkMRMLScalarVolumeNode],
            "names": list[str],
            "prompt": parameterPack(Prompt),
        }
        planes = "axial"
        opacity = 0.5

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    return parameterNodeWrapper(Parameters), node


def test_values_stay_in_the_node(slicer_app, wrapped, tmp_path):
    import slicer

    cls, node = wrapped
    first = cls(node)
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T1")
    first.device, first.folder, first.opacity = Device.CPU, tmp_path, 1
    first.sources = {"T1": volume}
    first.names.append("a")
    first.prompt.used = True
    first.reference = volume
    again = cls(node)
    assert (again.device, again.folder, again.opacity) == (Device.CPU, tmp_path, 1.0)
    assert again.sources["T1"] is volume
    assert again.names == ["a"]
    assert (again.prompt.used, again.prompt.weight) == (True, 0.5)
    assert again.reference is volume
    assert node.GetParameter("device") == "CPU"


def test_a_node_that_leaves_the_scene_is_none(slicer_app, wrapped):
    import slicer

    cls, node = wrapped
    parameters = cls(node)
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T1")
    parameters.reference = volume
    slicer.mrmlScene.RemoveNode(volume)
    assert parameters.reference is None


def test_values_of_other_types_or_out_of_range_are_refused_and_change_nothing(slicer_app, wrapped):
    parameters = wrapped[0](wrapped[1])
    with pytest.raises(ValueError, match="less than or equal to 1"):
        parameters.opacity = 1.5
    with pytest.raises(ValueError, match="must be in"):
        parameters.planes = "coronal"
    with pytest.raises(TypeError):
        parameters.names = [1]
    with pytest.raises(ValueError, match="not be None"):
        parameters.device = None
    assert (parameters.opacity, parameters.planes, parameters.names) == (0.5, "axial", [])


def test_a_disconnected_panel_no_longer_follows(slicer_app, wrapped):
    import qt

    parameters = wrapped[0](wrapped[1])
    box, used = qt.QComboBox(), qt.QCheckBox()
    observed = wrapped[1].HasObserver("ModifiedEvent")
    tag = parameters.connectParametersToGui({"device": box, "prompt.used": used})
    box.setCurrentIndex(1)
    used.checked = True
    assert (parameters.device, parameters.prompt.used) == (Device.CPU, True)
    parameters.disconnectGui(tag)
    assert not observed
    assert not wrapped[1].HasObserver("ModifiedEvent")
    box.setCurrentIndex(0)
    assert parameters.device is Device.CPU
    parameters.prompt.used = False
    assert used.checked


def test_pairs_of_widget_and_type_that_the_application_lacks_are_refused(slicer_app, wrapped):
    import ctk
    import qt

    parameters = wrapped[0](wrapped[1])
    for name, widget in (("opacity", qt.QSpinBox()), ("device", qt.QLineEdit()), ("folder", qt.QLineEdit())):
        with pytest.raises(RuntimeError, match="Unable to create GUI connector"):
            parameters.connectParametersToGui({name: widget})
    with pytest.raises(ValueError, match="Cannot find a param"):
        parameters.connectParametersToGui({"nosuch": qt.QCheckBox()})
    slider = ctk.ctkSliderWidget()
    parameters.connectParametersToGui({"opacity": slider})
    assert (slider.value, slider.minimum, slider.maximum) == (0.5, 0.0, 1.0)
