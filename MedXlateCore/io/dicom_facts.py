"""Facts about an acquisition from DICOM attributes (PS3.3, C.7.6.3, C.8.2, C.8.3, C.8.13).

Of what identifies a patient, a person or an institution nothing is looked at. Texts that people type are used for one
thing only: a series description that names a weighting, where the acquisition's parameters do not tell it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.acquisition import Acquisition, Plane
from MedXlateCore.errors import UsageError, Warned
from MedXlateCore.io.dicom_tags import FrameTags, codes, element_value, first_item, number, text
from MedXlateCore.weighting import named_weighting, weighting_by_parameters

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["TagFacts", "contrast_agent_of", "facts_of_frame", "plane_of", "tesla"]

_TIMING = "MRTimingAndRelatedParametersSequence"
_MODIFIER = "MRModifierSequence"
_CONTRASTS = {
    "T1": "T1", "T2": "T2", "PROTON_DENSITY": "PD", "DIFFUSION": "DWI", "FLUID_ATTENUATED": "FLAIR", "STIR": "STIR",
    "T2_STAR": "T2*", "PERFUSION": "perfusion", "TIME_OF_FLIGHT": "TOF angiography", "FLOW_ENCODED": "flow",
}  # fmt: skip
"""Weighting by Acquisition Contrast (0008,9209), which enhanced objects state."""

_MAPS = {"ADC": "ADC", "EADC": "ADC", "FA": "FA", "PERFUSION": "perfusion", "SWI": "T2*"}
_WITHOUT = {"", "NONE", "NO", "N", "0", "FALSE", "WITHOUT", "NATIVE", "NIL"}
_FAT = {"FS", "SFS", "FATSAT", "FAT_SAT", "FATSAT_GEMS"}
_B_VALUE_SIEMENS, _B_VALUE_GE = (0x0019, 0x100C), (0x0043, 0x1039)
_GAUSS_PER_TESLA = 10_000.0


@dataclass(frozen=True)
class TagFacts:
    """What the attributes of one frame say.

    Attributes:
        acquisition: the facts. ``sequence`` is empty where only a description names it.
        described: the weighting that the series description names, if any.
        notes: recorded warnings ``MX-DCM-111``: facts that cannot be and were left out.
    """

    acquisition: Acquisition
    described: str | None = None
    notes: tuple[Warned, ...] = ()


def facts_of_frame(dataset: Dataset, frame: int, where: str) -> TagFacts:
    """Read the facts of one frame.

    Args:
        dataset: the file's header.
        frame: which frame, from 0.
        where: folder or file for messages.
    """
    tags = FrameTags(dataset, frame)
    modality = {"PT": "PET"}.get(name := text(dataset, "Modality").upper(), name)
    facts: dict[str, Any] = {
        "modality": modality if modality in {"MR", "CT", "PET"} else None,
        "organ": _organ(tags),
        "plane": plane_of(tags.numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6)),
        "contrast_agent": _contrast_agent(dataset),
        "scanner_model": text(dataset, "ManufacturerModelName") or None,
    }
    facts |= {"MR": _mr, "CT": _ct, "PET": _pet}.get(modality, _nothing)(tags)
    acquisition, notes = _possible(facts, where)
    described = None
    if modality == "MR":
        sequence = facts.get("sequence") or weighting_by_parameters(acquisition)
        acquisition = acquisition.with_facts(sequence=sequence)
        described = named_weighting(text(dataset, "SeriesDescription"), text(dataset, "ProtocolName"))
    return TagFacts(acquisition, described, notes)


def _possible(facts: dict[str, Any], where: str) -> tuple[Acquisition, tuple[Warned, ...]]:
    """Leave out facts that cannot be, each with a remark."""
    notes = []
    kept = Acquisition()
    for name, value in facts.items():
        try:
            kept = kept.with_facts(**{name: value})
        except UsageError as error:
            notes.append(Warned("MX-DCM-111", f"{error.found}: the fact was left out", where))
    te, tr = kept.echo_time_ms, kept.repetition_time_ms
    if te and tr and te > tr and "RM" not in kept.scanning_sequence:
        text_ = f"the echo time of {te:g} ms is longer than the repetition time of {tr:g} ms: both were left out"
        notes.append(Warned("MX-DCM-111", text_, where))
        kept = kept.with_facts(echo_time_ms=None, repetition_time_ms=None)
    return kept, tuple(notes)


# --- facts that several readers share ------------------------------------------------------------------------------


def plane_of(orientation: tuple[float, ...] | NDArray | None) -> Plane | None:
    """Return the viewing plane nearest to slices with these direction cosines (of a row, then of a column)."""
    if orientation is None or len(orientation) != 6 or not np.isfinite(orientation).all():
        return None
    normal = np.cross(orientation[:3], orientation[3:])
    if np.linalg.norm(normal) < 0.5:
        return None
    planes: tuple[Plane, ...] = ("sagittal", "coronal", "axial")
    return planes[int(np.abs(normal).argmax())]


def contrast_agent_of(agent: str | None) -> bool | None:
    """Say whether a named contrast agent means that one was given; None where there is no name at all."""
    return None if agent is None else agent.strip().upper() not in _WITHOUT


def tesla(strength: float | None) -> float | None:
    """Return a field strength in tesla; numbers above 100 are taken as gauss, which some scanners write."""
    return strength / _GAUSS_PER_TESLA if strength is not None and strength > 100 else strength


# --- by modality ---------------------------------------------------------------------------------------------------


def _nothing(_: FrameTags) -> dict[str, Any]:
    return {}


def _organ(tags: FrameTags) -> str | None:
    part = text(tags.dataset, "BodyPartExamined").lower()
    region = first_item(tags.group("FrameAnatomySequence", "AnatomicRegionSequence"), "AnatomicRegionSequence")
    part = part or text(region, "CodeMeaning").lower()
    return part if re.fullmatch(r"[a-z][a-z &-]{1,30}", part) else None


def _contrast_agent(dataset: Dataset) -> bool | None:
    if element_value(dataset, "ContrastBolusAgentSequence") is not None:
        return True
    return contrast_agent_of(text(dataset, "ContrastBolusAgent") or None)


def _mr(tags: FrameTags) -> dict[str, Any]:
    dataset = tags.dataset
    kinds = (tags.codes("MRImageFrameTypeSequence", "FrameType") or ()) + codes(dataset, "ImageType")
    derived = next((_MAPS[kind] for kind in kinds if kind in _MAPS), None)
    stated = tags.codes("MRImageFrameTypeSequence", "AcquisitionContrast")
    diffusion = "DWI" if {"DIFFUSION", "TRACEW"} & set(kinds) else None
    b_value = _b_value(tags)
    sequence = derived or diffusion or next((_CONTRASTS[c] for c in stated if c in _CONTRASTS), None)
    return {
        "sequence": sequence,
        "b_value_s_per_mm2": b_value if b_value or sequence == "DWI" else None,  # 0 is written in any image
        "field_strength_t": tesla(number(dataset, "MagneticFieldStrength")),
        "coil": tags.text("MRReceiveCoilSequence", "ReceiveCoilName") or None,
        "scanning_sequence": codes(dataset, "ScanningSequence") or _enhanced_sequence(dataset),
        "sequence_variant": codes(dataset, "SequenceVariant") or _enhanced_variant(dataset),
        "scan_options": _options(tags),
        "flip_angle_deg": tags.number(_TIMING, "FlipAngle"),
        "echo_time_ms": _above_0(tags.number("MREchoSequence", "EffectiveEchoTime", "EchoTime")),
        "repetition_time_ms": _above_0(tags.number(_TIMING, "RepetitionTime")),
        "inversion_time_ms": _above_0(tags.number(_MODIFIER, "InversionTimes", "InversionTime")),
    }


def _above_0(value: float | None) -> float | None:
    """Return None for 0, which scanners write where a time does not apply."""
    return None if value == 0 else value


def _b_value(tags: FrameTags) -> float | None:
    value = tags.number("MRDiffusionSequence", "DiffusionBValue")
    if value is None:
        value = number(tags.dataset, _B_VALUE_SIEMENS)
    if value is None:
        value = number(tags.dataset, _B_VALUE_GE)
        value = value if value is None else value % 1e9  # GE adds 1e9 in some releases
    return value


def _options(tags: FrameTags) -> tuple[str, ...]:
    options = codes(tags.dataset, "ScanOptions")
    fat = bool(_FAT & set(options)) or bool(
        {"FAT", "FAT_AND_WATER"} & set(tags.codes(_MODIFIER, "SpectrallySelectedSuppression"))
    )
    return (*options, "FS") if fat and "FS" not in options else options


def _enhanced_sequence(dataset: Dataset) -> tuple[str, ...]:
    """Return the codes of classic objects for what enhanced ones say in several attributes."""
    echo = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}.get(text(dataset, "EchoPulseSequence"), ())
    inverted = ("IR",) if text(dataset, "InversionRecovery") == "YES" else ()
    planar = ("EP",) if text(dataset, "EchoPlanarPulseSequence") == "YES" else ()
    return (*echo, *inverted, *planar)


def _enhanced_variant(dataset: Dataset) -> tuple[str, ...]:
    variant = []
    if text(dataset, "SegmentedKSpaceTraversal") == "PARTIAL":
        variant.append("SK")
    if text(dataset, "SteadyStatePulseSequence") not in {"", "NONE"}:
        variant.append("SS")
    if text(dataset, "Spoiling") not in {"", "NONE"}:
        variant.append("SP")
    return tuple(variant)


def _ct(tags: FrameTags) -> dict[str, Any]:
    dataset = tags.dataset
    exposure = "CTExposureSequence"
    return {
        "scan_options": codes(dataset, "ScanOptions"),
        "tube_voltage_kv": _above_0(tags.number("CTXRayDetailsSequence", "KVP")),
        "tube_current_ma": _above_0(tags.number(exposure, "XRayTubeCurrentInmA", "XRayTubeCurrent")),
        "exposure_time_ms": _above_0(tags.number(exposure, "ExposureTimeInms", "ExposureTime")),
    }


def _pet(tags: FrameTags) -> dict[str, Any]:
    drug = first_item(tags.dataset, "RadiopharmaceuticalInformationSequence")
    code = first_item(drug, "RadiopharmaceuticalCodeSequence")
    names = f"{text(drug, 'Radiopharmaceutical')} {text(code, 'CodeMeaning')}".upper()
    known: dict[str, Callable[[str], bool]] = {
        "FDG": lambda name: "FDG" in name or "FLUORODEOXYGLUCOSE" in name,
        "PSMA": lambda name: "PSMA" in name,
        "FLT": lambda name: "FLUOROTHYMIDINE" in name or "FLT" in name,
    }
    return {"sequence": next((tracer for tracer, is_it in known.items() if is_it(names)), None)}
