"""Which weighting an MR image has, judged by how it was taken: T1, T2, FLAIR, PD, T2*, STIR, DWI.

The limits are those in which textbooks and clinical protocols agree for 0.5 to 3 tesla; where an acquisition lies
between them the answer is that it is not known. A name given by a person (series description) is never part of it.
"""

from __future__ import annotations

import re

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.volume import Modality

__all__ = ["facts_of_role", "named_weighting", "role_of", "weighting_by_parameters"]

_FLAIR_MIN_TI_MS, _FLAIR_MIN_TE_MS = 1300.0, 60.0
_STIR_MAX_TI_MS = 300.0
_T1_MAX_TI_MS = 1300.0
_SHORT_TE_MS, _LONG_TE_MS = 35.0, 60.0
_SPIN_ECHO_T1_MAX_TR_MS, _LONG_TR_MS, _T2_MIN_TR_MS = 1200.0, 1800.0, 1000.0
_GRADIENT_T1_MAX_TR_MS, _GRADIENT_MAX_TE_MS, _T2STAR_MIN_TE_MS = 500.0, 10.0, 12.0
_T1_MIN_FLIP_DEG, _PD_MAX_FLIP_DEG = 9.0, 5.0
_ONLY_GRADIENT_TR_MS = 50.0

_NAMES = (
    ("DWI", r"dwi|diff(usion)?|trace|ep2d_diff|b[0-9]{3,4}"),
    ("FLAIR", r"(t2)?_?flair|dark_?fluid|tirm"),
    ("STIR", r"stir"),
    ("T2*", r"t2\*|t2_?star|swi|swan|hemo"),
    ("T1", r"t1w?|mprage|mp_?rage|bravo|spgr|vibe|mprg"),
    ("T2", r"t2w?"),
    ("PD", r"pdw?|proton"),
)


def weighting_by_parameters(facts: Acquisition) -> str | None:
    """Return the weighting that echo, repetition and inversion times, flip angle and pulse sequence imply.

    Args:
        facts: of an MR image; ``sequence`` is not looked at.

    Returns:
        ``T1``, ``T2``, ``FLAIR``, ``PD``, ``T2*``, ``STIR``, ``DWI``; None where they do not say.
    """
    te, tr, ti = facts.echo_time_ms, facts.repetition_time_ms, facts.inversion_time_ms or 0.0
    kinds = set(facts.scanning_sequence)
    if facts.b_value_s_per_mm2:
        return "DWI"
    if "EP" in kinds or te is None or tr is None or te > max(tr, 1e-9):
        return None
    gradient = "GR" in kinds or (not kinds & {"SE"} and tr < _ONLY_GRADIENT_TR_MS)
    if gradient and "IR" in kinds and "MP" in facts.sequence_variant and not ti:
        return "T1" if te <= _GRADIENT_MAX_TE_MS else None  # MPRAGE whose inversion time was not written
    if ti > 0:
        return _with_inversion(te, tr, ti, gradient)
    if gradient:
        return _gradient_echo(te, tr, facts.flip_angle_deg)
    return _spin_echo(te, tr) if "SE" in kinds else None


def _with_inversion(te: float, tr: float, ti: float, gradient: bool) -> str | None:
    if ti >= _FLAIR_MIN_TI_MS and te >= _FLAIR_MIN_TE_MS:
        return "FLAIR"
    if ti <= _STIR_MAX_TI_MS and not gradient and tr > _SPIN_ECHO_T1_MAX_TR_MS:
        return "STIR"
    return "T1" if te <= _SHORT_TE_MS and _STIR_MAX_TI_MS < ti < _T1_MAX_TI_MS else None


def _gradient_echo(te: float, tr: float, flip: float | None) -> str | None:
    if te >= _T2STAR_MIN_TE_MS:
        return "T2*"
    if flip is None or te > _GRADIENT_MAX_TE_MS or tr > _GRADIENT_T1_MAX_TR_MS:
        return None
    if flip >= _T1_MIN_FLIP_DEG:
        return "T1"
    return "PD" if flip <= _PD_MAX_FLIP_DEG else None


def _spin_echo(te: float, tr: float) -> str | None:
    if te <= _SHORT_TE_MS and tr <= _SPIN_ECHO_T1_MAX_TR_MS:
        return "T1"
    if te >= _LONG_TE_MS and tr >= _T2_MIN_TR_MS:
        return "T2"
    return "PD" if te <= _SHORT_TE_MS and tr >= _LONG_TR_MS else None


def named_weighting(*texts: str) -> str | None:
    """Return the weighting that texts such as a series description name, if they name one only."""
    words = " ".join(re.sub(r"[^a-z0-9*_+]+", " ", text.lower()) for text in texts)
    found = {name for name, pattern in _NAMES if re.search(rf"(?<![a-z0-9])({pattern})(?![a-z0-9*])", words)}
    for stronger, weaker in (("FLAIR", {"T2", "T1"}), ("STIR", {"T2", "T1"}), ("T2*", {"T2"}), ("DWI", {"T2", "T1"})):
        if stronger in found:
            found -= weaker
    return found.pop() if len(found) == 1 else None


def role_of(facts: Acquisition | None) -> Modality:
    """Return the role that an image with these facts can have as a source; ``OTHER`` where they do not say.

    T1 with a contrast agent is T1ce. Maps (ADC), diffusion-weighted and other images have no role.
    """
    if facts is None:
        return Modality.OTHER
    if facts.modality in {"CT", "CBCT", "PET"}:
        return Modality(facts.modality)
    if facts.sequence == "T1":
        return Modality.T1CE if facts.contrast_agent else Modality.T1
    return Modality(facts.sequence) if facts.sequence in {"T2", "FLAIR", "PD"} else Modality.OTHER


def facts_of_role(role: Modality | str) -> Acquisition:
    """Return what the name of a role says about an acquisition: ``T1ce`` is T1 with a contrast agent, ``CT`` is CT.

    Raises:
        UsageError: ``MX-USE-010``, no such modality.
    """
    modality = Modality.parse(role)
    if modality is Modality.T1CE:
        return Acquisition(modality="MR", sequence="T1", contrast_agent=True)
    if modality in (Modality.CT, Modality.CBCT, Modality.PET):
        return Acquisition(modality=modality.value)  # type: ignore[arg-type]
    return Acquisition(modality="MR", sequence=modality.value) if modality.is_mr else Acquisition()
