"""What the panels remember: typed parameters in a node of the scene, saved and restored with it.

Annotations are read when the application sets the classes up, therefore they are no strings here.
"""

from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

__all__ = ["ROLES", "EvaluateParameters", "TranslateParameters", "chosen_sources"]

ROLES = ("T1", "T2", "FLAIR", "T1ce", "PD", "CT", "CBCT", "PET")
"""Sequences that have a row in the panel, in its order."""


@parameterNodeWrapper
class TranslateParameters:
    """Parameters of the module MedXlate.

    ``segmentRoles`` names what segments are used as (core, oedema, region), by segment identifier; a dictionary
    changed in place is not stored, so a new one is assigned. ``gridOf`` is empty for the model's first source.
    """

    sourceT1: vtkMRMLScalarVolumeNode
    sourceT2: vtkMRMLScalarVolumeNode
    sourceFLAIR: vtkMRMLScalarVolumeNode
    sourceT1ce: vtkMRMLScalarVolumeNode
    sourcePD: vtkMRMLScalarVolumeNode
    sourceCT: vtkMRMLScalarVolumeNode
    sourceCBCT: vtkMRMLScalarVolumeNode
    sourcePET: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    segmentRoles: dict[str, str]
    target: str
    model: str
    gridOf: str
    device: str = "auto"
    precision: str = "auto"
    runIn: str = "worker"
    result: vtkMRMLScalarVolumeNode
    fade: Annotated[float, WithinRange(0.0, 1.0)] = 0.5


@parameterNodeWrapper
class EvaluateParameters:
    """Parameters of the module MedXlateEvaluate; ``segmentRoles`` as in ``TranslateParameters``."""

    synthetic: vtkMRMLScalarVolumeNode
    reference: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    segmentRoles: dict[str, str]
    protocol: str = "volume3d"
    plot: str = "histogram"


def chosen_sources(parameters) -> dict[str, object]:
    """Return the chosen volume nodes by role, in the order of ``ROLES``."""
    nodes = {role: getattr(parameters, f"source{role}") for role in ROLES}
    return {role: node for role, node in nodes.items() if node is not None}
