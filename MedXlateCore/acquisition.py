"""How an image was taken: the facts from which text prompts are made, and by which an image can be judged.

The list of facts is that of EVA-I2I (Cell Reports Methods; section "Data and prompts"); names of attributes are DICOM's
where DICOM has one (PS3.3, C.7.6, C.8.2 and C.8.3). Nothing here identifies a patient, a person or an institution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from MedXlateCore.config import read_dataclass, to_mapping
from MedXlateCore.errors import UsageError

__all__ = ["Acquisition", "Plane"]

Plane = Literal["axial", "coronal", "sagittal"]

_RANGES = {
    "b_value_s_per_mm2": (0.0, 50_000.0),
    "field_strength_t": (0.01, 30.0),
    "tube_voltage_kv": (10.0, 400.0),
    "tube_current_ma": (0.0, 5_000.0),
    "exposure_time_ms": (0.0, 600_000.0),
    "dynamic_phase": (0, 10_000),
    "dynamic_seconds": (0.0, 36_000.0),
    "flip_angle_deg": (0.0, 360.0),
    "echo_time_ms": (0.0, 10_000.0),
    "repetition_time_ms": (0.0, 1_000_000.0),
    "inversion_time_ms": (0.0, 100_000.0),
}


@dataclass(frozen=True)
class Acquisition:
    """Facts about one image; None, or an empty tuple, where a fact is not known.

    Attributes:
        modality: ``MR``, ``CT``, ``CBCT`` or ``PET``.
        sequence: weighting or tracer, such as ``T1``, ``T2``, ``FLAIR``, ``PD``, ``DWI``, ``FDG``.
        organ: body part in lower case, such as ``brain``, ``head``, ``breast``.
        plane: viewing plane of the slices.
        contrast_agent: True with, False without an agent.
        b_value_s_per_mm2: diffusion weighting.
        dynamic_phase: of a dynamic contrast-enhanced series: 0 before the agent, then 1, 2, ...
        dynamic_seconds: seconds from the injection to this phase.
        scanner_model: manufacturer's model name.
        field_strength_t: magnetic field, tesla.
        tube_voltage_kv, tube_current_ma, exposure_time_ms: of CT.
        coil: receive coil.
        scanning_sequence: DICOM codes (0018,0020): SE, IR, GR, EP, RM.
        sequence_variant: DICOM codes (0018,0021): SK, MTC, SS, TRSS, SP, MP, OSP.
        scan_options: DICOM codes (0018,0022): PER, RG, CG, PPG, FC, PFF, PFP, SP, FS and vendors' own.
        flip_angle_deg, echo_time_ms, repetition_time_ms, inversion_time_ms: of MR.
        preprocessing: what was done to the image since, such as ``skull removed``.

    Raises:
        UsageError: ``MX-USE-200``, a value that cannot be.
    """

    modality: Literal["MR", "CT", "CBCT", "PET"] | None = None
    sequence: str | None = None
    organ: str | None = None
    plane: Plane | None = None
    contrast_agent: bool | None = None
    b_value_s_per_mm2: float | None = None
    dynamic_phase: int | None = None
    dynamic_seconds: float | None = None
    scanner_model: str | None = None
    field_strength_t: float | None = None
    tube_voltage_kv: float | None = None
    tube_current_ma: float | None = None
    exposure_time_ms: float | None = None
    coil: str | None = None
    scanning_sequence: tuple[str, ...] = ()
    sequence_variant: tuple[str, ...] = ()
    scan_options: tuple[str, ...] = ()
    flip_angle_deg: float | None = None
    echo_time_ms: float | None = None
    repetition_time_ms: float | None = None
    inversion_time_ms: float | None = None
    preprocessing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.plane is not None and self.plane not in get_args(Plane):
            raise _refused("plane", self.plane, " or ".join(get_args(Plane)))
        if self.modality not in (None, "MR", "CT", "CBCT", "PET"):
            raise _refused("modality", self.modality, "MR, CT, CBCT or PET")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:  # also refuses NaN
                raise _refused(name, value, f"{low:g} to {high:g}")

    @property
    def fat_suppressed(self) -> bool:
        """True where the scan options name fat saturation (``FS``)."""
        return "FS" in self.scan_options

    def known(self) -> dict[str, Any]:
        """Return the facts that are known, by name, in the order of the attributes."""
        return {name: value for name in _NAMES if (value := getattr(self, name)) is not None and value != ()}

    def with_facts(self, **facts: Any) -> Acquisition:
        """Return the acquisition with some facts changed."""
        return replace(self, **facts)

    def to_dict(self) -> dict[str, Any]:
        """Return the known facts as JSON data."""
        every = to_mapping(self)
        return {name: every[name] for name in self.known()}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any], where: str = "") -> Acquisition:
        """Build from JSON data.

        Raises:
            UsageError: ``MX-USE-040`` (an unknown fact, with the nearest known), ``MX-USE-041`` (a value of the wrong
                type), ``MX-USE-200``.
        """
        return read_dataclass(cls, facts, where)


_NAMES = tuple(field.name for field in fields(Acquisition))  # asked for once: sentences ask for facts very often


def _refused(name: str, value: object, expected: str) -> UsageError:
    return UsageError(
        "MX-USE-200",
        f"the acquisition's {name} is {value!r}",
        expected=expected,
        where=name,
        fix="correct the value, or leave the fact out",
    )
