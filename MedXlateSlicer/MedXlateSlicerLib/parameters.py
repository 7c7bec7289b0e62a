"""What the panels remember: typed parameters in a node of the scene, saved and restored with it.

Annotations are read when the application sets the classes up, therefore they are no strings here.
"""

from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

__all__ = ["MOST_SAMPLES", "MOST_SEED", "ROLES", "EvaluateParameters", "TranslateParameters", "chosen_sources"]

ROLES = ("T1", "T2", "FLAIR", "T1ce", "PD", "CT", "CBCT", "PET")
"""Sequences that have a row in the panel, in its order."""

MOST_SAMPLES = 64
MOST_SEED = 2**31 - 1  # what a spin box holds


@parameterNodeWrapper
class TranslateParameters:
    """Parameters of the module MedXlate.

    ``segmentRoles`` names what segments are used as (core, oedema, region), by segment identifier; a dictionary
    changed in place is not stored, so a new one is assigned. ``gridOf`` is empty for the model's first source.
    ``samples``, ``uncertaintyMap`` and ``seed`` count for models that draw samples.
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
    samples: Annotated[int, WithinRange(1, MOST_SAMPLES)] = 1
    uncertaintyMap: bool = False
    seed: Annotated[int, WithinRange(0, MOST_SEED)] = 0
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
