"""Folders in BIDS form: which images a session has, and where a derived image belongs.

Read: ``sub-<label>[/ses-<label>]/<datatype>/sub-<label>[_ses-<label>][_<entity>-<label>...]_<suffix>.nii[.gz]`` with
the suffixes ``T1w``, ``T2w``, ``FLAIR``, ``PDw``, ``ct`` and ``pet``; a T1w with the entity ``ce`` (agent) is T1ce.
Names follow the Brain Imaging Data Structure specification, "Filenames" and "Derivatives".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MedXlateCore import __version__
from MedXlateCore.volume import Modality

__all__ = ["BidsSession", "dataset_description", "derivative_path", "index_bids"]

_NAME = re.compile(r"sub-[A-Za-z0-9+]+(_[a-z]+-[A-Za-z0-9+]+)*_(?P<suffix>[A-Za-z0-9]+)\.nii(\.gz)?")
_SUFFIXES = {
    Modality.T1: ("anat", "T1w"), Modality.T1CE: ("anat", "T1w"), Modality.T2: ("anat", "T2w"),
    Modality.FLAIR: ("anat", "FLAIR"), Modality.PD: ("anat", "PDw"), Modality.PET: ("pet", "pet"),
    Modality.CT: ("ct", "ct"), Modality.CBCT: ("ct", "cbct"),
}  # fmt: skip


@dataclass(frozen=True)
class BidsSession:
    """One visit of one person.

    Attributes:
        subject: ``sub-01``.
        session: ``ses-02``, or empty.
        images: files of each modality; more than one if there are several runs or acquisitions.
        others: files of every other suffix, such as ``dseg`` or ``mask``.
    """

    subject: str
    session: str = ""
    images: dict[Modality, list[Path]] = field(default_factory=dict)
    others: dict[str, list[Path]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``sub-01_ses-02``: the start of all names of this session."""
        return "_".join(filter(None, (self.subject, self.session)))


def index_bids(folder: Path) -> list[BidsSession]:
    """Return the sessions below a folder, by name. Files with ``desc-synthetic...`` are not counted as images."""
    sessions = []
    for subject in _folders(folder, "sub-*"):
        with_sessions = _folders(subject, "ses-*")
        for place in with_sessions or [subject]:
            session = BidsSession(subject.name, place.name if with_sessions else "")
            for path in sorted(place.glob("*/*.nii*")):
                _add(session, path)
            sessions.append(session)
    return sessions


def derivative_path(session: BidsSession, target: Modality, key: str = "") -> Path:
    """Return where a synthetic image of this session belongs, relative to the folder of derivatives.

    Args:
        session: the session.
        target: modality of the image.
        key: letters and digits that tell images of one modality apart.
    """
    datatype, suffix = _SUFFIXES.get(target, ("anat", target.value))
    agent = "_ce-gadolinium" if target is Modality.T1CE else ""
    name = f"{session.name}{agent}_desc-synthetic{key}_{suffix}.nii.gz"
    return Path(*filter(None, (session.subject, session.session)), datatype, name)


def dataset_description() -> dict[str, Any]:
    """Return the contents of ``dataset_description.json`` that a folder of derivatives must have."""
    return {
        "Name": "Synthetic images made by MedXlate; research use only, not for diagnosis",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "MedXlate", "Version": __version__}],
    }


def _folders(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_dir())


def _add(session: BidsSession, path: Path) -> None:
    match = _NAME.fullmatch(path.name)
    if match is None or "_desc-synthetic" in path.name or not path.name.startswith(f"{session.name}_"):
        return
    modality = _modality(match["suffix"], "_ce-" in path.name)
    if modality is None:
        session.others.setdefault(match["suffix"], []).append(path)
    else:
        session.images.setdefault(modality, []).append(path)


def _modality(suffix: str, contrast_agent: bool) -> Modality | None:
    known: Iterator[Modality] = (modality for modality, (_, name) in _SUFFIXES.items() if name == suffix)
    modality = next(known, None)
    return Modality.T1CE if modality is Modality.T1 and contrast_agent else modality
