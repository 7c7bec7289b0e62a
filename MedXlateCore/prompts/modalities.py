"""Names of modalities as facts about an acquisition, and back."""

from __future__ import annotations

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.errors import UsageError
from MedXlateCore.volume import Modality

__all__ = ["facts_of_modality", "modality_of_facts"]


def facts_of_modality(name: str) -> Acquisition:
    """Return what the name of a modality says about an acquisition.

    Args:
        name: as in ``Modality``: ``T1ce`` is T1 with a contrast agent, ``CT`` is CT, ``other`` says nothing.

    Raises:
        UsageError: ``MX-USE-010``, no such modality.
    """
    modality = Modality.parse(name)
    if modality is Modality.T1CE:
        return Acquisition(modality="MR", sequence="T1", contrast_agent=True)
    if modality in (Modality.CT, Modality.CBCT, Modality.PET):
        return Acquisition(modality=modality.value)  # type: ignore[arg-type]
    return Acquisition(modality="MR", sequence=modality.value) if modality.is_mr else Acquisition()


def modality_of_facts(facts: Acquisition) -> Modality:
    """Return the modality that an image with these facts is; ``other`` for a sequence without a name of its own."""
    if facts.modality in ("CT", "CBCT", "PET"):
        return Modality(facts.modality)
    if facts.sequence == "T1" and facts.contrast_agent:
        return Modality.T1CE
    try:
        named = Modality.parse(facts.sequence or "other")
    except UsageError:  # DWI, SWI and others, which have no normaliser of their own
        return Modality.OTHER
    return named if named.is_mr else Modality.OTHER
