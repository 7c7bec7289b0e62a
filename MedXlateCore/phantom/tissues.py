"""Tissues of the phantom and their physical properties at 1.5 T and 3 T.

Relaxation times are rounded literature values:

- grey and white matter, blood, optic nerve: Stanisz et al., Magn Reson Med 54:507 (2005); Wansapura et al., J Magn
  Reson Imaging 9:531 (1999); Lu et al., J Magn Reson Imaging 22:13 (2005). The studies differ (white matter at 3 T: 832
  to 1084 ms); the table takes values between them that keep the usual order white < deep grey < cortex.
- fat, marrow, muscle: Gold et al., AJR 183:343 (2004).
- deep grey nuclei: Gelman et al., Magn Reson Med 45:71 (2001).
- tumour and oedema: Badve et al., AJNR 38:492 (2017), and the ranges in Blystad et al., PLoS One 12:e0177135 (2017).

Values without a published figure (mucosa, skin, dura, lens) are plausible settings and no more. Contrast agent
concentrations are those a few minutes after 0.1 mmol/kg; attenuation and FDG uptake are usual textbook values.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

import numpy as np

__all__ = ["TISSUES", "Tissue", "TissueProperties", "vary"]


class Tissue(enum.IntEnum):
    """Codes of the tissue label map (uint8)."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    BONE = 4
    MARROW = 5
    CSF = 6
    GREY_MATTER = 7
    WHITE_MATTER = 8
    CAUDATE = 9
    PUTAMEN = 10
    PALLIDUM = 11
    THALAMUS = 12
    VENTRICLE = 13
    CEREBELLAR_GREY = 14
    CEREBELLAR_WHITE = 15
    BRAINSTEM = 16
    VITREOUS = 17
    LENS = 18
    OPTIC_NERVE = 19
    VEIN = 20
    ARTERY = 21
    CHOROID_PLEXUS = 22
    SINUS_AIR = 23
    MUCOSA = 24
    DURA = 25
    PITUITARY = 26
    HYPERINTENSITY = 27
    OEDEMA = 28
    ENHANCING_RIM = 29
    NECROTIC_CORE = 30
    SOLID_TUMOUR = 31
    CALCIFICATION = 32

    @property
    def is_brain(self) -> bool:
        """True for brain parenchyma, ventricles and lesions inside the brain."""
        return self in _BRAIN


@dataclass(frozen=True)
class TissueProperties:
    """Physical properties of one tissue.

    Attributes:
        t1_ms: longitudinal relaxation time at (1.5 T, 3 T).
        t2_ms: transverse relaxation time at (1.5 T, 3 T).
        proton_density: relative to CSF, 0 to 1.
        attenuation_hu: CT number.
        uptake_suv: FDG uptake, body-weight SUV.
        agent_mmol_per_l: concentration of the contrast agent after a dose of 0.1 mmol/kg.
        fatty: True where fat suppression acts.
        variation: relative spread of water content inside the tissue; it moves T1, T2 and density together.
        attenuation_spread_hu: spread of the CT number inside the tissue.
    """

    t1_ms: tuple[float, float]
    t2_ms: tuple[float, float]
    proton_density: float
    attenuation_hu: float
    uptake_suv: float
    agent_mmol_per_l: float = 0.0
    fatty: bool = False
    variation: float = 0.02
    attenuation_spread_hu: float = 1.5

    def relaxation_ms(self, field_strength_t: float) -> tuple[float, float]:
        """Return (T1, T2) in ms at 1.5 or 3 T."""
        at = 0 if field_strength_t < 2.25 else 1
        return self.t1_ms[at], self.t2_ms[at]


def _p(
    t1: tuple[float, float], t2: tuple[float, float], pd: float, hu: float, suv: float, agent: float = 0.0
) -> TissueProperties:
    return TissueProperties(t1, t2, pd, hu, suv, agent)


_AIR = TissueProperties((1000.0, 1000.0), (1.0, 1.0), 0.0, -1000.0, 0.0, variation=0.0, attenuation_spread_hu=0.0)
_CSF = TissueProperties((4200.0, 4300.0), (1500.0, 1400.0), 1.0, 7.0, 0.6, variation=0.005)

TISSUES: dict[Tissue, TissueProperties] = {
    Tissue.AIR: _AIR,
    Tissue.SINUS_AIR: _AIR,
    Tissue.SKIN: _p((900, 1000), (40, 35), 0.60, 45, 0.8, 0.10),
    Tissue.FAT: TissueProperties(
        (288, 371), (90, 80), 0.70, -95, 0.3, fatty=True, variation=0.05, attenuation_spread_hu=6
    ),
    Tissue.MUSCLE: TissueProperties(
        (1060, 1415), (40, 36), 0.75, 55, 0.9, 0.06, variation=0.04, attenuation_spread_hu=5
    ),
    Tissue.BONE: TissueProperties((600, 700), (3.0, 2.5), 0.10, 1250, 0.5, variation=0.03, attenuation_spread_hu=150),
    Tissue.MARROW: TissueProperties((300, 380), (75, 65), 0.55, 380, 0.9, 0.02, True, 0.08, 90),
    Tissue.CSF: _CSF,
    Tissue.VENTRICLE: _CSF,
    Tissue.GREY_MATTER: _p((1060, 1360), (95, 92), 0.82, 38, 8.0, 0.015),
    Tissue.WHITE_MATTER: _p((630, 850), (76, 70), 0.69, 29, 2.8, 0.008),
    Tissue.CAUDATE: _p((1000, 1290), (86, 78), 0.82, 39, 8.6, 0.015),
    Tissue.PUTAMEN: _p((930, 1210), (80, 71), 0.81, 39, 9.0, 0.015),
    Tissue.PALLIDUM: _p((740, 960), (66, 54), 0.74, 40, 5.5, 0.012),
    Tissue.THALAMUS: _p((820, 1080), (84, 76), 0.78, 38, 7.8, 0.012),
    Tissue.CEREBELLAR_GREY: _p((1030, 1320), (96, 92), 0.82, 39, 6.6, 0.015),
    Tissue.CEREBELLAR_WHITE: _p((640, 860), (76, 70), 0.70, 30, 2.9, 0.008),
    Tissue.BRAINSTEM: _p((720, 950), (78, 72), 0.73, 31, 4.0, 0.010),
    Tissue.VITREOUS: _p((4000, 4100), (1100, 1000), 0.98, 12, 0.4),
    Tissue.LENS: _p((1000, 1200), (30, 26), 0.60, 75, 0.4),
    Tissue.OPTIC_NERVE: _p((815, 1083), (77, 78), 0.74, 33, 2.0, 0.010),
    # Moving blood gives little signal in spin-echo images; a short effective T2 stands in for the flow void.
    Tissue.VEIN: TissueProperties((1441, 1650), (34, 26), 0.80, 52, 1.5, 0.85, variation=0.05, attenuation_spread_hu=2),
    Tissue.ARTERY: TissueProperties(
        (1441, 1650), (22, 16), 0.75, 48, 1.5, 0.85, variation=0.05, attenuation_spread_hu=2
    ),
    Tissue.CHOROID_PLEXUS: TissueProperties((1250, 1500), (100, 94), 0.85, 42, 2.5, 0.40, variation=0.06),
    Tissue.MUCOSA: TissueProperties((1150, 1400), (105, 100), 0.88, 35, 2.5, 0.30, variation=0.05),
    Tissue.DURA: _p((900, 1100), (40, 34), 0.60, 58, 0.9, 0.22),
    Tissue.PITUITARY: _p((900, 1150), (85, 80), 0.80, 45, 3.0, 0.50),
    Tissue.HYPERINTENSITY: TissueProperties((950, 1250), (125, 118), 0.82, 24, 2.4, 0.008, variation=0.05),
    Tissue.OEDEMA: TissueProperties((1150, 1450), (150, 142), 0.86, 21, 2.2, 0.015, variation=0.05),
    Tissue.ENHANCING_RIM: TissueProperties((1200, 1500), (112, 105), 0.85, 36, 10.0, 0.21, variation=0.08),
    Tissue.NECROTIC_CORE: TissueProperties((2100, 2500), (260, 240), 0.94, 16, 1.2, 0.008, variation=0.07),
    Tissue.SOLID_TUMOUR: TissueProperties((1300, 1620), (150, 140), 0.87, 27, 5.0, 0.012, variation=0.06),
    Tissue.CALCIFICATION: TissueProperties(
        (800, 900), (20, 15), 0.30, 210, 1.0, variation=0.03, attenuation_spread_hu=40
    ),
}

_BRAIN = frozenset(
    {
        Tissue.GREY_MATTER,
        Tissue.WHITE_MATTER,
        Tissue.CAUDATE,
        Tissue.PUTAMEN,
        Tissue.PALLIDUM,
        Tissue.THALAMUS,
        Tissue.VENTRICLE,
        Tissue.CEREBELLAR_GREY,
        Tissue.CEREBELLAR_WHITE,
        Tissue.BRAINSTEM,
        Tissue.CHOROID_PLEXUS,
        Tissue.HYPERINTENSITY,
        Tissue.OEDEMA,
        Tissue.ENHANCING_RIM,
        Tissue.NECROTIC_CORE,
        Tissue.SOLID_TUMOUR,
        Tissue.CALCIFICATION,
    }
)


def vary(properties: TissueProperties, rng: np.random.Generator, spread: float = 0.03) -> TissueProperties:
    """Return the tissue of one person (or one lesion): relaxation, density and uptake moved at random.

    T1 and T2 move together, as they do with water content; ``spread`` is the relative standard deviation.
    """
    water, own, uptake, agent = rng.standard_normal(4).clip(-2.5, 2.5)
    t1, t2 = 1.0 + spread * (0.8 * water + 0.4 * own), 1.0 + spread * (0.8 * water - 0.4 * own)
    return replace(
        properties,
        t1_ms=(properties.t1_ms[0] * t1, properties.t1_ms[1] * t1),
        t2_ms=(properties.t2_ms[0] * t2, properties.t2_ms[1] * t2),
        proton_density=min(1.0, properties.proton_density * (1.0 + 0.3 * spread * water)),
        uptake_suv=properties.uptake_suv * float(np.exp(2.0 * spread * uptake)),
        agent_mmol_per_l=properties.agent_mmol_per_l * float(np.exp(3.0 * spread * agent)),
    )
