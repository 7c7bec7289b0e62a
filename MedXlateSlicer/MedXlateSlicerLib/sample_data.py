"""Sample cases: a phantom patient made on this machine, and public BraTS cases with four sequences.

The public cases are those that the MONAIAuto3DSeg extension registers (its release ``TestingData``): one each of the
BraTS challenges for glioma, meningioma, metastases, children and sub-Saharan Africa. Addresses and SHA-256 are theirs.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedXlateCore.errors import InputError
from MedXlateCore.files import read_json, sha256_file, write_json
from MedXlateCore.io import read_volume
from MedXlateCore.locks import path_lock
from MedXlateCore.volume import Modality
from MedXlateSlicerLib.bridge import node_from_volume
from MedXlateSlicerLib.nodes import Node
from MedXlateSlicerLib.placement import set_window

__all__ = [
    "CATEGORY",
    "PHANTOM_SEEDS",
    "PUBLIC_CASES",
    "PublicCase",
    "load_phantom_case",
    "phantom_case",
    "register_sample_data",
    "remove_phantom_cases",
]

CATEGORY = "MedXlate"
PHANTOM_SEEDS = (7_500_021, 7_500_022)
"""Heads that no cohort of ``medxlate phantom`` holds, and so no training saw (see ``MedXlateCore.demo``)."""

_ADDRESS = "https://github.com/lassoan/SlicerMONAIAuto3DSeg/releases/download/TestingData/"
_PHANTOM_MODALITIES = (Modality.T1, Modality.T1CE, Modality.T2, Modality.FLAIR)
_PHANTOM_SPACING_MM = (1.5, 1.5, 3.0)
_LIST = "phantom.json"
_FOLDER = re.compile(r"phantom-\d+")


@dataclass(frozen=True)
class PublicCase:
    """A public patient: its name and the SHA-256 of its files, by the suffix of the sequence (``t1c``, ``t1n`` ...)."""

    name: str
    sha256: Mapping[str, str]

    @property
    def files(self) -> tuple[str, ...]:
        """File names, in the order of ``sha256``."""
        return tuple(f"{self.name}-{sequence}.nii.gz" for sequence in self.sha256)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the files are."""
        return tuple(_ADDRESS + name for name in self.files)


PUBLIC_CASES = (
    PublicCase(
        "BraTS-GLI-00001-000",
        {
            "t1c": "4399faadcc45c8a4541313cdf88aced7d835ed59ac3078d950e0eac293d603f5",
            "t1n": "e860924b936e301ddeba20409fbb59dde322475cb49328f1b46a9235c792e73e",
            "t2f": "82aed8546af5e6d8d94fd91c56227abdcf6120130390d1556c4342a208980604",
            "t2w": "4cd389cc57d12134a30a898c66532228126b9a7d0600ee578e82a32144528b51",
        },
    ),
    PublicCase(
        "BraTS-MEN-00000-000",
        {
            "t1c": "4cb970e92edcec52c5c4d72568a17c41006a663391ab76cb871a5054f76c4e37",
            "t1n": "794d184402972c78a8a4be2b889f3683c80878f748912704fd23edc3ce6fa9dd",
            "t2f": "e82bf0f3e1870e61500de40d834d92da64021c634e146d225597c2ff3a682cbd",
            "t2w": "4d6d7aa361be09cb2b8d2e411fa26499301b5edf454acae1cd442f5c53904f75",
        },
    ),
    PublicCase(
        "BraTS-MET-00002-000",
        {
            "t1c": "360b294b428d335c90f340ca727d8fbce4a7ae3aaac9fc61929f4cd71a0aa90b",
            "t1n": "bc8dcc7e2ae37b1ef6a231c1ee9e1fc355a21322f95572a78b59773c18459654",
            "t2f": "863838bfc13259ee9de1cf31e9cb6db1a3a6489863bbe7efd1238f630dce08bf",
            "t2w": "3076031451a334c29242cbab9b65017c6acd89d5dda9a7566bb79d2325c51df9",
        },
    ),
    PublicCase(
        "BraTS-PED-00030-000",
        {
            "t1c": "9fd304f9a7c691266b22efeb2610b879c454e0e31df758c32ec039ad2c1acde7",
            "t1n": "8c801c464b548b9acd49244db3e31895945c7a26abc1c7bbb34aac72706b7b9d",
            "t2f": "7c69f8a39b722f3bdd8ed943f5c6aa2aa20aec011727bc237d074aef01c774ff",
            "t2w": "88914c9e4aafacb21c642132a46c7f12096af958d8b915a80e023d5924fff8d8",
        },
    ),
    PublicCase(
        "BraTS-SSA-00002-000",
        {
            "t1c": "b980aab6d6fb2e95f01e6f6c964d94a89ef32e717448e1b1c101e163219042b1",
            "t1n": "cd78460e4225a1f145756c7fcda12a517ab3d13f62c52d8b287d78310e520cf7",
            "t2f": "b7067abe232daafbf5c46c9707462edc961cdb30cb5eb445e5d4407e0da70c08",
            "t2w": "4d9810cd217a9504f8aa4313a0edec4a091ecb145bad09dab5b7955688639420",
        },
    ),
)


# --- the phantom ----------------------------------------------------------------------------------------------------


def phantom_case(
    cache_folder: Path, seed: int = PHANTOM_SEEDS[0], spacing_mm: tuple[float, float, float] = _PHANTOM_SPACING_MM
) -> dict[str, Path]:
    """Return the files of a phantom patient, made on the first call and kept in a folder of its own.

    Args:
        cache_folder: where the folder ``phantom-<seed>`` is made.
        seed: of the head; one lesion.
        spacing_mm: voxel size.

    Returns:
        Paths (NRRD) by ``T1``, ``T1ce``, ``T2``, ``FLAIR`` and ``region`` (BraTS labels).

    Raises:
        ResourceError: the folder cannot be written, or another process is making the same patient.
    """
    from MedXlateCore.phantom.patient import write_patient

    folder = Path(cache_folder) / f"phantom-{seed}"
    with path_lock(folder, timeout_s=120.0):
        known = _known_files(folder, spacing_mm)
        if known is None:
            known = write_patient(folder, seed, _PHANTOM_MODALITIES, spacing_mm, suffix=".nrrd")
            files = {role: {"file": path.name, "sha256": sha256_file(path)} for role, path in known.items()}
            write_json(folder / _LIST, {"seed": seed, "spacing_mm": list(spacing_mm), "files": files})  # last: complete
    return known


def _known_files(folder: Path, spacing_mm: tuple[float, float, float]) -> dict[str, Path] | None:
    """Return the files of a patient made earlier, if they are all as they were written; otherwise None."""
    try:
        made = read_json(folder / _LIST)
        if made["spacing_mm"] != list(spacing_mm):
            return None
        paths = {role: folder / Path(entry["file"]).name for role, entry in made["files"].items()}
        sound = all(sha256_file(path) == made["files"][role]["sha256"] for role, path in paths.items())
    except (InputError, OSError, KeyError, TypeError, AttributeError):  # absent, cut off or edited: made again
        return None
    return paths if sound else None


def load_phantom_case(
    scene: Node, cache_folder: Path, seed: int = PHANTOM_SEEDS[0], spacing_mm: tuple[float, float, float] | None = None
) -> dict[str, Node]:
    """Add a phantom patient to a scene: volumes by sequence, and ``region`` as a segmentation of the lesion's parts.

    Raises:
        ResourceError: see ``phantom_case``.
    """
    nodes = {}
    for role, path in phantom_case(cache_folder, seed, spacing_mm or _PHANTOM_SPACING_MM).items():
        volume = read_volume(path, "label" if role == "region" else role)
        node = node_from_volume(volume, scene, f"phantom-{seed}-{role}")
        if role == "region":
            node = _as_segmentation(scene, node, f"phantom-{seed}-region")
        else:
            set_window(node, volume)
        nodes[role] = node
    nodes["region"].SetReferenceImageGeometryParameterFromVolumeNode(nodes["T1"])
    return nodes


def _as_segmentation(scene: Node, label_node: Node, name: str) -> Node:
    """Turn a label map of BraTS labels into a segmentation with named segments; the label map is removed."""
    import slicer

    segmentation = slicer.vtkMRMLSegmentationNode()
    scene.AddNode(segmentation)
    segmentation.CreateDefaultDisplayNodes()
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(label_node, segmentation)
    segmentation.SetName(label_node.GetName())
    parts = segmentation.GetSegmentation()
    names = {1: "core", 2: "oedema", 4: "enhancing"}
    for index in range(parts.GetNumberOfSegments()):
        segment = parts.GetNthSegment(index)
        segment.SetName(names.get(int(segment.GetLabelValue()), segment.GetName()))
    scene.RemoveNode(label_node)
    segmentation.SetName(name)
    return segmentation


def remove_phantom_cases(cache_folder: Path) -> int:
    """Delete all phantom patients made earlier in a cache folder; return how many. Other folders stay."""
    folder = Path(cache_folder)
    cases = [path for path in folder.iterdir() if _FOLDER.fullmatch(path.name)] if folder.is_dir() else []
    for path in cases:
        with path_lock(path):
            shutil.rmtree(path)
    return len(cases)


# --- registration ---------------------------------------------------------------------------------------------------


def register_sample_data(logic: Any, load_phantom: Callable[[int], Any], icons: Path | None = None) -> None:
    """Offer all cases in Slicer's Sample Data module; nothing is made or downloaded before the user asks.

    Args:
        logic: ``SampleData.SampleDataLogic``.
        load_phantom: called with a seed when the user chooses a phantom; returns the nodes.
        icons: folder of thumbnails ``<case>.png``; None for none.
    """
    for number, seed in enumerate(PHANTOM_SEEDS, start=1):
        name = f"Phantom head {number} (made on this machine)"
        logic.registerCustomSampleDataSource(
            category=CATEGORY,
            sampleName=name,
            # not fetched from there, but without these texts the application refuses the source
            uris=f"phantom:{seed}",
            fileNames=f"phantom-{seed}",
            nodeNames=f"phantom-{seed}",
            customDownloader=lambda source=None, seed=seed: load_phantom(seed),
            thumbnailFileName=_thumbnail(icons, f"phantom-{number}"),
        )
    for case in PUBLIC_CASES:
        logic.registerCustomSampleDataSource(
            category=CATEGORY,
            sampleName=case.name,
            uris=list(case.addresses),
            fileNames=list(case.files),
            nodeNames=[name.removesuffix(".nii.gz") for name in case.files],
            checksums=[f"SHA256:{digest}" for digest in case.sha256.values()],
            thumbnailFileName=_thumbnail(icons, case.name),
        )


def _thumbnail(icons: Path | None, name: str) -> str | None:
    path = icons / f"{name}.png" if icons else None
    return str(path) if path and path.is_file() else None
