"""Folders in BIDS form: which images a session has, and where a derived image belongs.

Read: ``sub-<label>[/ses-<label>]/<datatype>/sub-<label>[_ses-<label>][_<entity>-<label>...]_<suffix>.nii[.gz]`` with
the suffixes ``T1w``, ``T2w``, ``FLAIR``, ``PDw``, ``ct`` and ``pet``; a T1w with the entity ``ce`` (agent) is T1ce.
Names follow the Brain Imaging Data Structure specification, "Filenames" and "Derivatives".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MedXlateCore import __version__
from MedXlateCore.acquisition import Acquisition
from MedXlateCore.errors import UsageError, Warned
from MedXlateCore.io.dicom_facts import contrast_agent_of, plane_of, tesla
from MedXlateCore.volume import Modality
from MedXlateCore.weighting import weighting_by_parameters

__all__ = ["BidsSession", "dataset_description", "derivative_path", "facts_from_sidecar", "index_bids"]

_NAME = re.compile(r"sub-[A-Za-z0-9+]+(_[a-z]+-[A-Za-z0-9+]+)*_(?P<suffix>[A-Za-z0-9]+)\.nii(\.gz)?")
_SUFFIXES = {
    Modality.T1: ("anat", "T1w"), Modality.T1CE: ("anat", "T1w"), Modality.T2: ("anat", "T2w"),
    Modality.FLAIR: ("anat", "FLAIR"), Modality.PD: ("anat", "PDw"), Modality.PET: ("pet", "pet"),
    Modality.CT: ("ct", "ct"), Modality.CBCT: ("ct", "cbct"),
}  # fmt: skip
_SEQUENCES = {"T1w": "T1", "T2w": "T2", "FLAIR": "FLAIR", "PDw": "PD", "T2starw": "T2*", "dwi": "DWI"}
_SECONDS = {
    "echo_time_ms": ("EchoTime",),
    "repetition_time_ms": ("RepetitionTime", "RepetitionTimeExcitation"),
    "inversion_time_ms": ("InversionTime",),
}
_NUMBERS = {
    "flip_angle_deg": ("FlipAngle",),
    "b_value_s_per_mm2": ("DiffusionBValue",),
    "tube_voltage_kv": ("KVP",),
    "tube_current_ma": ("XRayTubeCurrent",),
    "exposure_time_ms": ("ExposureTime",),
}
_MODALITIES = {"MR": "MR", "CT": "CT", "PT": "PET", "PET": "PET"}


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
    """Return the sessions below a folder, by name. Files with ``desc-synthetic`` are not counted as images."""
    sessions = []
    for subject in _folders(folder, "sub-*"):
        with_sessions = _folders(subject, "ses-*")
        for place in with_sessions or [subject]:
            session = BidsSession(subject.name, place.name if with_sessions else "")
            for path in sorted(place.glob("*/*.nii*")):
                _add(session, path)
            sessions.append(session)
    return sessions


def derivative_path(session: BidsSession, target: Modality) -> Path:
    """Return where a synthetic image of this session belongs, relative to the folder of derivatives."""
    datatype, suffix = _SUFFIXES.get(target, ("anat", target.value))
    agent = "_ce-gadolinium" if target is Modality.T1CE else ""
    name = f"{session.name}{agent}_desc-synthetic_{suffix}.nii.gz"
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
    if match is None or "_desc-synthetic_" in path.name or not path.name.startswith(f"{session.name}_"):
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


# --- how an image was taken ----------------------------------------------------------------------------------------


def facts_from_sidecar(sidecar: Mapping[str, Any], name: str = "") -> tuple[Acquisition, tuple[Warned, ...]]:
    """Read the facts of a BIDS sidecar (the JSON file beside an image; "Metadata" in the specification).

    BIDS gives times in seconds; here they become milliseconds. Texts that people type are not looked at.

    Args:
        sidecar: the JSON object.
        name: the image's file name; its suffix (``T1w``) says the weighting, else the parameters do. An entity ``ce``
            means a contrast agent.

    Returns:
        The facts, and recorded warnings ``MX-DCM-111`` about values that cannot be and were left out.
    """
    match = _NAME.fullmatch(name)
    facts: dict[str, Any] = {
        "modality": _MODALITIES.get(str(sidecar.get("Modality", "")).upper()) or _modality_of_name(match),
        "organ": _word(sidecar, "BodyPart", "BodyPartExamined"),
        "plane": plane_of(_numbers(sidecar, "ImageOrientationPatientDICOM")),
        "contrast_agent": True if "_ce-" in name else contrast_agent_of(_text(sidecar, "ContrastBolusIngredient")),
        "scanner_model": _text(sidecar, "ManufacturersModelName"),
        "field_strength_t": tesla(_number(sidecar, "MagneticFieldStrength")),
        "coil": _text(sidecar, "ReceiveCoilName"),
        "scanning_sequence": _codes(sidecar, "ScanningSequence"),
        "sequence_variant": _codes(sidecar, "SequenceVariant"),
        "scan_options": _codes(sidecar, "ScanOptions"),
    }
    facts |= {fact: _number(sidecar, *keys) for fact, keys in _NUMBERS.items()}
    facts |= {fact: _milliseconds(_number(sidecar, *keys)) for fact, keys in _SECONDS.items()}
    notes = []
    found = Acquisition()
    for fact, value in facts.items():
        try:
            found = found.with_facts(**{fact: value})
        except UsageError as error:
            notes.append(Warned("MX-DCM-111", f"{error.found}: the fact was left out", name))
    suffix = _SEQUENCES.get(match["suffix"]) if match else None
    tracer = "FDG" if "FDG" in str(sidecar.get("TracerName", "")).upper() else None
    by_parameters = weighting_by_parameters(found) if found.modality == "MR" else tracer
    return found.with_facts(sequence=suffix or by_parameters), tuple(notes)


def _modality_of_name(match: re.Match[str] | None) -> str | None:
    suffix = match["suffix"] if match else ""
    return "MR" if suffix in _SEQUENCES else {"ct": "CT", "cbct": "CBCT", "pet": "PET"}.get(suffix)


def _milliseconds(seconds: float | None) -> float | None:
    return None if not seconds else round(1000 * seconds, 6)


def _number(sidecar: Mapping[str, Any], *keys: str) -> float | None:
    values = (sidecar.get(key) for key in keys)
    return next((float(v) for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)), None)


def _numbers(sidecar: Mapping[str, Any], key: str) -> tuple[float, ...] | None:
    value = sidecar.get(key)
    if not isinstance(value, list) or not all(isinstance(item, (int, float)) for item in value):
        return None
    return tuple(value)


def _text(sidecar: Mapping[str, Any], key: str) -> str | None:
    value = sidecar.get(key)
    return (" ".join(value.split())[:64] or None) if isinstance(value, str) else None


def _word(sidecar: Mapping[str, Any], *keys: str) -> str | None:
    texts = (_text(sidecar, key) for key in keys)
    return next((text.lower() for text in texts if text and re.fullmatch(r"[A-Za-z][A-Za-z &-]{1,30}", text)), None)


def _codes(sidecar: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return codes that stand as a list, or as one text with ``\\`` or ``_`` between them, as converters write."""
    value = sidecar.get(key)
    items = re.split(r"[\\_]", value) if isinstance(value, str) else value if isinstance(value, list) else []
    codes = (str(item).strip().upper()[:16] for item in items)
    return tuple(code for code in codes if code not in {"", "NONE"})
