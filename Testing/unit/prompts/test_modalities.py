"""Names of modalities as facts, and back."""

from __future__ import annotations

import pytest

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.prompts.modalities import facts_of_modality, modality_of_facts
from MedXlateCore.volume import Modality


def test_the_names_of_modalities_are_facts():
    assert facts_of_modality("t1c") == Acquisition(modality="MR", sequence="T1", contrast_agent=True)
    assert facts_of_modality("CT") == Acquisition(modality="CT")
    assert facts_of_modality("FLAIR").sequence == "FLAIR"


@pytest.mark.parametrize("modality", [m for m in Modality if m not in (Modality.LABEL, Modality.OTHER)])
def test_a_name_survives_the_way_there_and_back(modality):
    assert modality_of_facts(facts_of_modality(modality)) is modality


def test_a_sequence_without_a_name_of_its_own_is_other():
    assert modality_of_facts(Acquisition(modality="MR", sequence="DWI")) is Modality.OTHER
    assert modality_of_facts(Acquisition(modality="MR", sequence="CT")) is Modality.OTHER
    assert modality_of_facts(Acquisition(modality="MR")) is Modality.OTHER
