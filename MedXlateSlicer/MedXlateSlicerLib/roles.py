"""Which volume of a scene is which sequence: from DICOM, or from names (BraTS, BIDS, everyday).

The vocabulary is :meth:`MedXlateCore.volume.Modality.parse`; this file only knows how names are put together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from MedXlateCore.errors import UsageError
from MedXlateCore.volume import Modality
from MedXlateSlicerLib.bridge import is_synthetic
from MedXlateSlicerLib.nodes import Node

__all__ = ["Role", "detect_roles", "role_from_name", "role_of"]

# words that go with a T1 and make it one with contrast agent
_CONTRAST = frozenset(
    {"ce", "gd", "gad", "gado", "gadolinium", "contrast", "kontrast", "post", "postcontrast", "postgd"}
)
_CONTRAST |= {"postgd", "km", "dotarem", "gadovist", "c+", "+c", "+gd"}
_NO_CONTRAST = frozenset({"pre", "precontrast", "native", "nativ", "without", "no", "non", "w/o", "ohne", "plain"})
# volumes that are no plain image of the sequence their name also holds: derived maps, other techniques, masks
_OTHER_KINDS = frozenset(
    {"map", "mapping", "adc", "dwi", "dti", "trace", "swi", "swan", "star", "t2star", "tof", "angio"}
)
_OTHER_KINDS |= {
    "perfusion",
    "dsc",
    "dce",
    "cbf",
    "cbv",
    "rcbv",
    "mtt",
    "spectroscopy",
    "localizer",
    "localiser",
    "scout",
}
_OTHER_KINDS |= {"mask", "seg", "segmentation", "label", "labels", "dseg", "roi", "difference", "error", "subtraction"}
_OTHER_KINDS |= {"angio", "scout", "survey", "fused"}
_DICOM_MODALITIES = {"CT": Modality.CT, "PT": Modality.PET}
_SERIES_DESCRIPTION, _MODALITY, _CONTRAST_AGENT, _PROTOCOL = "0008,103e", "0008,0060", "0018,0010", "0018,1030"


@dataclass(frozen=True)
class Role:
    """What was found for one sequence.

    Attributes:
        state: ``found`` (one volume), ``missing`` (none) or ``ambiguous`` (several: the user chooses).
        node: the volume, where exactly one was found.
        candidates: all that fit, in the order given.
    """

    state: Literal["found", "missing", "ambiguous"]
    node: Node | None = None
    candidates: tuple[Node, ...] = ()


def detect_roles(
    nodes: Iterable[Node], wanted: Sequence[Modality | str], database: Node | None = None
) -> dict[Modality, Role]:
    """Say for every wanted sequence which volume it is.

    Synthetic volumes and label maps are passed over: a result must not slip in as a source.

    Args:
        nodes: volume nodes of one scene.
        wanted: sequences that a model takes.
        database: the application's DICOM database, asked where a volume came from it; None to go by names alone.
    """
    found: dict[Modality, list[Node]] = {Modality.parse(name): [] for name in wanted}
    for node in nodes:
        role = role_of(node, database)
        if role in found:
            found[role].append(node)
    return {role: _state(candidates) for role, candidates in found.items()}


def role_of(node: Node, database: Node | None = None) -> Modality | None:
    """Return what a volume shows, by DICOM or its name; None for synthetic volumes, labels and the unknown."""
    if node.GetClassName() != "vtkMRMLScalarVolumeNode" or is_synthetic(node):
        return None
    return _role_from_dicom(node, database) or role_from_name(node.GetName() or "")


def role_from_name(name: str) -> Modality | None:
    """Return the sequence that a file's or series' name holds; None where it holds none, or more than one.

    ``BraTS-GLI-00001-000-t1c``, ``sub-01_ce-gad_T1w``, ``AX T2 FLAIR``, ``T1 MPRAGE +C``: T2 with FLAIR is FLAIR, T1
    with FLAIR is T1, T1 with a word for contrast agent is T1ce.
    """
    words = [word for word in re.split(r"[^a-z0-9+*/]+", name.lower()) if word]
    if _OTHER_KINDS.intersection(words) or any("*" in word for word in words):
        return None
    roles = _roles_in(words)
    if Modality.FLAIR in roles and len(roles) == 2:
        roles = {Modality.T1: {Modality.T1}, Modality.T1CE: {Modality.T1CE}}.get(
            next(iter(roles - {Modality.FLAIR})), roles - {Modality.T2}
        )
    if {Modality.T1, Modality.T1CE} == roles:
        roles = {Modality.T1CE}
    if roles == {Modality.T1} and _CONTRAST.intersection(words) and not _NO_CONTRAST.intersection(words):
        return Modality.T1CE
    if roles == {Modality.T1CE} and _NO_CONTRAST.intersection(words):
        return Modality.T1
    return next(iter(roles)) if len(roles) == 1 else None


def _roles_in(words: Sequence[str]) -> set[Modality]:
    """Return every sequence named by one to three neighbouring words; the longest names count first."""
    roles: set[Modality] = set()
    position = 0
    while position < len(words):
        for length in (3, 2, 1):
            role = _parsed("".join(words[position : position + length])) if position + length <= len(words) else None
            if role is not None:
                roles.add(role)
                position += length - 1
                break
        position += 1
    return roles


def _parsed(text: str) -> Modality | None:
    try:
        role = Modality.parse(text)
    except UsageError:
        return None
    return None if role in {Modality.LABEL, Modality.OTHER} else role


def _role_from_dicom(node: Node, database: Node | None) -> Modality | None:
    """Return the role of a volume that was loaded from a DICOM database, from its first instance's attributes."""
    instances = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    if database is None or not instances:
        return None

    def value(tag: str) -> str:
        return str(database.instanceValue(instances[0], tag) or "").strip()

    described = f"{value(_SERIES_DESCRIPTION)} {value(_PROTOCOL)}"
    if value(_MODALITY) in _DICOM_MODALITIES:
        known = _DICOM_MODALITIES[value(_MODALITY)]
        return Modality.CBCT if known is Modality.CT and role_from_name(described) is Modality.CBCT else known
    role = role_from_name(value(_SERIES_DESCRIPTION)) or role_from_name(described)
    agent = value(_CONTRAST_AGENT).lower()
    if role is Modality.T1 and agent not in {"", "none", "no", "n"}:
        return Modality.T1CE
    return role


def _state(candidates: Sequence[Node]) -> Role:
    if len(candidates) == 1:
        return Role("found", candidates[0], tuple(candidates))
    return Role("ambiguous" if candidates else "missing", None, tuple(candidates))
