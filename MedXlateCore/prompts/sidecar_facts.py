"""Facts about an acquisition from a NIfTI file's sidecar and name, as the Brain Imaging Data Structure has them.

Keys: BIDS specification 1.10, "Magnetic Resonance Imaging" and "Positron Emission Tomography"; CT has none there, and
the keys are those that dcm2niix writes. Times of MR are in seconds there. Keys that identify a patient, a person or an
institution are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.errors import UsageError
from MedXlateCore.files import read_json
from MedXlateCore.io import sidecar_path

__all__ = ["facts_of_nifti"]

_BY_SUFFIX: Mapping[str, dict[str, Any]] = {
    "T1w": {"modality": "MR", "sequence": "T1"},
    "T2w": {"modality": "MR", "sequence": "T2"},
    "FLAIR": {"modality": "MR", "sequence": "FLAIR"},
    "PDw": {"modality": "MR", "sequence": "PD"},
    "T2starw": {"modality": "MR", "sequence": "T2*"},
    "dwi": {"modality": "MR", "sequence": "DWI"},
    "bold": {"modality": "MR", "sequence": "BOLD"},
    "asl": {"modality": "MR", "sequence": "ASL"},
    "ct": {"modality": "CT"},
    "cbct": {"modality": "CBCT"},
    "pet": {"modality": "PET"},
}
_NUMBERS = {
    "MagneticFieldStrength": ("field_strength_t", 1.0),
    "FlipAngle": ("flip_angle_deg", 1.0),
    "EchoTime": ("echo_time_ms", 1000.0),
    "RepetitionTime": ("repetition_time_ms", 1000.0),
    "InversionTime": ("inversion_time_ms", 1000.0),
    "KVP": ("tube_voltage_kv", 1.0),
    "XRayTubeCurrent": ("tube_current_ma", 1.0),
    "ExposureTime": ("exposure_time_ms", 1.0),
}
_CODES = {
    "ScanningSequence": "scanning_sequence",
    "SequenceVariant": "sequence_variant",
    "ScanOptions": "scan_options",
}
_TEXTS = {"ManufacturersModelName": "scanner_model", "ReceiveCoilName": "coil"}
_WITHOUT_AGENT = {"", "none", "no"}


def facts_of_nifti(path: Path) -> Acquisition:
    """Return what the sidecar beside a NIfTI file and its BIDS name say; nothing where they say nothing.

    Raises:
        InputError: ``MX-FIL-*``, the sidecar cannot be read.
    """
    sidecar = sidecar_path(path)
    content = read_json(sidecar) if sidecar.is_file() else {}
    keys = content if isinstance(content, dict) else {}
    name = sidecar.stem
    facts: dict[str, Any] = dict(_BY_SUFFIX.get(name.rpartition("_")[2], {}))
    if "_ce-" in name:
        facts["contrast_agent"] = True
    facts |= _from_keys(keys)
    kept = Acquisition()
    for fact, value in facts.items():
        try:
            kept = kept.with_facts(**{fact: value})
        except UsageError:  # a value that cannot be is no fact
            continue
    return kept


def _from_keys(keys: Mapping[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if (modality := {"PT": "PET"}.get(str(keys.get("Modality")), keys.get("Modality"))) in ("MR", "CT", "PET"):
        facts["modality"] = modality
    for key, (fact, scale) in _NUMBERS.items():
        value = keys.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
            facts[fact] = round(value * scale, 4)
    for key, fact in _CODES.items():
        if codes := _codes(keys.get(key)):
            facts[fact] = codes
    for key, fact in _TEXTS.items():
        if isinstance(value := keys.get(key), str) and value.strip():
            facts[fact] = value.strip()
    body = keys.get("BodyPart", keys.get("BodyPartExamined"))
    if isinstance(body, str) and body.strip():
        facts["organ"] = body.strip().lower()
    if isinstance(agent := keys.get("ContrastBolusIngredient"), str):
        facts["contrast_agent"] = agent.strip().lower() not in _WITHOUT_AGENT
    return facts


def _codes(value: object) -> tuple[str, ...]:
    """Return codes from a list, or from a text with underscores (dcm2niix), backslashes or commas between."""
    parts = value if isinstance(value, list) else re.split(r"[_\\,]", value) if isinstance(value, str) else []
    return tuple(part.strip().upper() for part in parts if isinstance(part, str) and part.strip())
