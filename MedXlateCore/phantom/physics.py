"""From tissues to MR signal: acquisition settings, sequence equations, contrast agent, coil shading and noise.

Equations (Bernstein, King and Zhou, Handbook of MRI Pulse Sequences, 2004, ch. 14; Haacke et al., Magnetic Resonance
Imaging, 1999, ch. 8):

- spin echo: ``S = PD (1 - exp(-TR/T1)) exp(-TE/T2)``
- inversion recovery: ``S = |PD (1 - 2 exp(-TI/T1) + exp(-TR/T1)) exp(-TE/T2)|``
- spoiled gradient echo: ``S = PD sin a (1 - E1) / (1 - cos a E1) exp(-TE/T2*)`` with ``E1 = exp(-TR/T1)``

The contrast agent shortens both times, ``1/T = 1/T0 + r C``; r1 and r2 of gadobutrol in plasma at 37 degrees C are
those of Rohrer et al., Invest Radiol 40:715 (2005).
"""

from __future__ import annotations

import enum
import math
from dataclasses import asdict, dataclass, replace

import numpy as np

from MedXlateCore.errors import UsageError
from MedXlateCore.phantom.tissues import TissueProperties
from MedXlateCore.volume import Modality

__all__ = [
    "FIELD_STRENGTHS_T",
    "MRAcquisition",
    "Sequence",
    "acquisition_for",
    "inversion_recovery",
    "signal",
    "spin_echo",
    "spoiled_gradient_echo",
    "vary_acquisition",
    "vary_quality",
]

FIELD_STRENGTHS_T = (1.5, 3.0)
# Relaxivities of gadobutrol in plasma, L/(mmol s), at 1.5 and 3 T (Rohrer et al. 2005, table 2).
_R1 = {1.5: 5.2, 3.0: 5.0}
_R2 = {1.5: 6.1, 3.0: 7.1}
# R2' = 1/T2* - 1/T2 of brain in 1/s, from T2 and T2* of Wansapura et al. (1999) at 3 T, halved at 1.5 T.
_R2_PRIME = {1.5: 4.0, 3.0: 8.0}
_FAT_LEFT_AFTER_SUPPRESSION = 0.07
_STANDARD_DOSE = 0.1


class Sequence(enum.StrEnum):
    """The MR sequences the phantom knows."""

    SPIN_ECHO = "spin_echo"
    INVERSION_RECOVERY = "inversion_recovery"
    SPOILED_GRADIENT_ECHO = "spoiled_gradient_echo"


@dataclass(frozen=True)
class MRAcquisition:
    """How one MR image is taken.

    Attributes:
        sequence: pulse sequence.
        repetition_time_ms: TR.
        echo_time_ms: TE.
        inversion_time_ms: TI; used by inversion recovery only.
        flip_angle_deg: used by the spoiled gradient echo only.
        field_strength_t: 1.5 or 3.
        agent_dose_mmol_per_kg: contrast agent given; 0 for none, 0.1 is the usual dose.
        fat_suppressed: True if the signal of fat is suppressed.
        noise: standard deviation of the complex noise, relative to the strongest brain signal.
        bias_field: relative amplitude of the coil shading.

    Raises:
        UsageError: ``MX-USE-181``, a value cannot be: a time not above 0, TE not below TR, TI not below TR, a flip
            angle outside 0..180 degrees, a field strength other than 1.5 or 3 T, dose, noise or bias outside 0..1.
    """

    sequence: Sequence
    repetition_time_ms: float
    echo_time_ms: float
    inversion_time_ms: float = 0.0
    flip_angle_deg: float = 90.0
    field_strength_t: float = 3.0
    agent_dose_mmol_per_kg: float = 0.0
    fat_suppressed: bool = False
    noise: float = 0.012
    bias_field: float = 0.15

    def __post_init__(self) -> None:
        inverted = self.sequence is Sequence.INVERSION_RECOVERY
        faults = [
            (self.repetition_time_ms > 0, f"TR is {self.repetition_time_ms} ms", "TR above 0 ms"),
            (
                0 < self.echo_time_ms < self.repetition_time_ms,
                f"TE is {self.echo_time_ms} ms",
                "TE between 0 ms and TR",
            ),
            (
                not inverted or 0 < self.inversion_time_ms < self.repetition_time_ms,
                f"TI is {self.inversion_time_ms} ms",
                "TI between 0 ms and TR for inversion recovery",
            ),
            (0 < self.flip_angle_deg <= 180, f"the flip angle is {self.flip_angle_deg} degrees", "0 to 180 degrees"),
            (
                self.field_strength_t in FIELD_STRENGTHS_T,
                f"the field strength is {self.field_strength_t} T",
                "1.5 or 3",
            ),
            (0 <= self.agent_dose_mmol_per_kg <= 1, f"the dose is {self.agent_dose_mmol_per_kg} mmol/kg", "0 to 1"),
            (0 <= self.noise <= 1, f"the noise is {self.noise}", "0 to 1, relative to the strongest brain signal"),
            (0 <= self.bias_field <= 1, f"the bias field is {self.bias_field}", "0 to 1, a relative amplitude"),
        ]
        for good, found, expected in faults:
            if not good:
                raise UsageError("MX-USE-181", found, expected=expected, where="acquisition", fix="correct the value")

    def to_dict(self) -> dict[str, str | float | bool]:
        """Return the settings for JSON."""
        return {**asdict(self), "sequence": self.sequence.value}


_DEFAULTS: dict[Modality, MRAcquisition] = {
    Modality.T1: MRAcquisition(Sequence.SPOILED_GRADIENT_ECHO, 250.0, 2.6, flip_angle_deg=70.0),
    Modality.T1CE: MRAcquisition(
        Sequence.SPOILED_GRADIENT_ECHO, 250.0, 2.6, flip_angle_deg=70.0, agent_dose_mmol_per_kg=_STANDARD_DOSE
    ),
    Modality.T2: MRAcquisition(Sequence.SPIN_ECHO, 4500.0, 95.0),
    Modality.FLAIR: MRAcquisition(Sequence.INVERSION_RECOVERY, 9000.0, 115.0, inversion_time_ms=2480.0),
    Modality.PD: MRAcquisition(Sequence.SPIN_ECHO, 3500.0, 15.0),
}
_DEFAULTS_1_5_T: dict[Modality, dict[str, object]] = {
    Modality.T1: {"sequence": Sequence.SPIN_ECHO, "repetition_time_ms": 550.0, "echo_time_ms": 11.0},
    Modality.T1CE: {"sequence": Sequence.SPIN_ECHO, "repetition_time_ms": 550.0, "echo_time_ms": 11.0},
    Modality.FLAIR: {"inversion_time_ms": 2440.0},
}


def acquisition_for(modality: Modality, field_strength_t: float = 3.0, **changes: object) -> MRAcquisition:
    """Return the usual settings of an MR sequence with some of them changed.

    Raises:
        UsageError: ``MX-USE-180`` (not an MR modality the phantom makes), ``MX-USE-181`` (a value cannot be).
    """
    if modality not in _DEFAULTS:
        known = ", ".join(m.value for m in _DEFAULTS)
        raise UsageError(
            "MX-USE-180",
            f"there are no MR settings for {modality.value}",
            expected=f"one of {known}",
            fix="give acquisition settings for MR modalities only",
        )
    base = _DEFAULTS[modality]
    if field_strength_t == 1.5:
        base = replace(base, **_DEFAULTS_1_5_T.get(modality, {}))  # type: ignore[arg-type]
    return replace(base, field_strength_t=field_strength_t, **changes)  # type: ignore[arg-type]


def vary_acquisition(scan: MRAcquisition, rng: np.random.Generator) -> MRAcquisition:
    """Return settings as another site might use them: times within about 15 percent (TI 2), other noise and shading."""
    times = np.exp(rng.uniform(-0.15, 0.15, 3))
    echo = min(scan.echo_time_ms * float(times[1]), 0.5 * scan.repetition_time_ms)
    varied = replace(
        scan,
        repetition_time_ms=round(scan.repetition_time_ms * float(times[0]), 1),
        echo_time_ms=round(echo, 2),
        # TI follows TR in practice and is tuned to null CSF; it varies little.
        inversion_time_ms=round(scan.inversion_time_ms * float(1 + 0.13 * np.log(times[2])), 1),
        flip_angle_deg=round(min(90.0, scan.flip_angle_deg * float(times[2])), 1),
    )
    return vary_quality(varied, rng)


def vary_quality(scan: MRAcquisition, rng: np.random.Generator) -> MRAcquisition:
    """Return settings with the noise and shading of another coil: noise by 0.5 to 2.2, shading by 0.4 to 1.8."""
    return replace(
        scan,
        noise=round(scan.noise * float(np.exp(rng.uniform(-0.7, 0.8))), 4),
        bias_field=round(min(1.0, scan.bias_field * float(rng.uniform(0.4, 1.8))), 3),
    )


def spin_echo(proton_density: float, t1_ms: float, t2_ms: float, tr_ms: float, te_ms: float) -> float:
    """Return the spin-echo signal, relative to fully relaxed CSF."""
    return proton_density * (1.0 - math.exp(-tr_ms / t1_ms)) * math.exp(-te_ms / t2_ms)


def inversion_recovery(
    proton_density: float, t1_ms: float, t2_ms: float, tr_ms: float, te_ms: float, ti_ms: float
) -> float:
    """Return the magnitude of the inversion-recovery signal; null at ``TI = T1 ln 2`` for TR much above T1."""
    recovered = 1.0 - 2.0 * math.exp(-ti_ms / t1_ms) + math.exp(-tr_ms / t1_ms)
    return abs(proton_density * recovered) * math.exp(-te_ms / t2_ms)


def spoiled_gradient_echo(
    proton_density: float, t1_ms: float, t2_star_ms: float, tr_ms: float, te_ms: float, flip_deg: float
) -> float:
    """Return the steady-state signal of a spoiled gradient echo (Ernst's equation)."""
    e1, angle = math.exp(-tr_ms / t1_ms), math.radians(flip_deg)
    return proton_density * math.sin(angle) * (1.0 - e1) / (1.0 - math.cos(angle) * e1) * math.exp(-te_ms / t2_star_ms)


def signal(tissue: TissueProperties, scan: MRAcquisition, water: float = 0.0) -> float:
    """Return the relative MR signal of a tissue.

    Args:
        tissue: its properties.
        scan: the acquisition.
        water: how many spreads the local water content lies above the tissue's mean; more water lengthens T1 and T2,
            raises the density and, in leaky tissue, dilutes the agent.
    """
    t1, t2 = tissue.relaxation_ms(scan.field_strength_t)
    excess = tissue.variation * water
    t1, t2 = t1 * (1.0 + excess), t2 * (1.0 + 1.2 * excess)
    density = min(1.0, tissue.proton_density * (1.0 + 0.5 * excess))
    dose = scan.agent_dose_mmol_per_kg / _STANDARD_DOSE
    concentration = tissue.agent_mmol_per_l * dose * max(0.0, 1.0 - 2.5 * excess)
    t1 = 1e3 / (1e3 / t1 + _R1[scan.field_strength_t] * concentration)
    t2 = 1e3 / (1e3 / t2 + _R2[scan.field_strength_t] * concentration)
    value = _equation(scan, density, t1, t2)
    return value * _FAT_LEFT_AFTER_SUPPRESSION if scan.fat_suppressed and tissue.fatty else value


def _equation(scan: MRAcquisition, density: float, t1: float, t2: float) -> float:
    tr, te = scan.repetition_time_ms, scan.echo_time_ms
    if scan.sequence is Sequence.SPIN_ECHO:
        return spin_echo(density, t1, t2, tr, te)
    if scan.sequence is Sequence.INVERSION_RECOVERY:
        return inversion_recovery(density, t1, t2, tr, te, scan.inversion_time_ms)
    t2_star = 1e3 / (1e3 / t2 + _R2_PRIME[scan.field_strength_t])
    return spoiled_gradient_echo(density, t1, t2_star, tr, te, scan.flip_angle_deg)
