"""Which weighting an acquisition has, by its parameters, and by a name that a person gave."""

from __future__ import annotations

import pytest

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.volume import Modality
from MedXlateCore.weighting import facts_of_role, named_weighting, role_of, weighting_by_parameters


@pytest.mark.parametrize(
    ("kinds", "te", "tr", "ti", "flip", "weighting"),
    [
        (("SE",), 10, 500, None, 90, "T1"),
        (("SE",), 25, 700, 0, 150, "T1"),
        (("SE",), 100, 5000, None, 150, "T2"),
        (("SE",), 380, 2500, None, 120, "T2"),  # variable flip angles, 3D
        (("SE",), 15, 3000, None, 150, "PD"),
        (("SE",), 45, 1500, None, 150, None),  # between the weightings
        (("SE", "IR"), 120, 9000, 2500, 150, "FLAIR"),
        (("IR",), 390, 4800, 1650, None, "FLAIR"),
        (("SE", "IR"), 30, 4000, 150, 150, "STIR"),
        (("SE", "IR"), 20, 2000, 800, 150, "T1"),  # T1-FLAIR
        (("SE", "IR"), 20, 9000, 2500, 150, None),
        (("GR", "IR"), 3, 2300, 900, 9, "T1"),
        (("GR",), 4, 20, None, 25, "T1"),
        (("GR",), 4, 250, None, 70, "T1"),
        (("GR",), 4, 20, None, 3, "PD"),
        (("GR",), 20, 600, None, 20, "T2*"),
        (("GR",), 4, 20, None, None, None),
        (("RM",), 4.2, 8.2, None, 20, "T1"),  # vendors write RM for their own gradient echoes
        (("RM",), 90, 4000, None, 90, None),
        (("EP",), 60, 4000, None, 90, None),
        (("SE",), None, 500, None, 90, None),
        ((), 100, 5000, None, 90, None),
    ],
)
def test_parameters_tell_the_weighting_or_nothing(kinds, te, tr, ti, flip, weighting):
    facts = Acquisition(
        modality="MR", scanning_sequence=kinds, echo_time_ms=te, repetition_time_ms=tr, inversion_time_ms=ti,
        flip_angle_deg=flip,
    )  # fmt: skip
    assert weighting_by_parameters(facts) == weighting


def test_a_b_value_above_0_is_diffusion_weighting_and_an_mprage_needs_no_inversion_time():
    assert weighting_by_parameters(Acquisition(b_value_s_per_mm2=800.0)) == "DWI"
    mprage = Acquisition(
        scanning_sequence=("GR", "IR"), sequence_variant=("SP", "MP"), echo_time_ms=2.0, repetition_time_ms=2300.0
    )
    assert weighting_by_parameters(mprage) == "T1"


@pytest.mark.parametrize(
    ("text", "weighting"),
    [
        ("AX T1 SE", "T1"), ("t1_mprage_sag", "T1"), ("T2_TSE tra", "T2"), ("t2_flair_dark", "FLAIR"), ("PDw fs", "PD"),
        ("ep2d_diff_b1000", "DWI"), ("STIR cor", "STIR"), ("T2* hemo", "T2*"), ("localizer", None), ("", None),
        ("T1 and T2", None), ("FT12 patient", None),
    ],
)  # fmt: skip
def test_a_name_tells_one_weighting_or_none(text, weighting):
    assert named_weighting(text) == weighting


def test_roles_follow_from_sequence_and_contrast_agent():
    assert role_of(None) is Modality.OTHER
    assert role_of(Acquisition(modality="MR", sequence="T1")) is Modality.T1
    assert role_of(Acquisition(modality="MR", sequence="T1", contrast_agent=True)) is Modality.T1CE
    assert role_of(Acquisition(modality="MR", sequence="FLAIR", contrast_agent=True)) is Modality.FLAIR
    assert role_of(Acquisition(modality="MR", sequence="ADC")) is Modality.OTHER
    assert role_of(Acquisition(modality="PET", sequence="FDG")) is Modality.PET


def test_the_names_of_roles_are_facts():
    assert facts_of_role("t1c") == Acquisition(modality="MR", sequence="T1", contrast_agent=True)
    assert facts_of_role("CT") == Acquisition(modality="CT")
    assert facts_of_role("FLAIR").sequence == "FLAIR"


@pytest.mark.parametrize("role", [m for m in Modality if m is not Modality.LABEL])
def test_a_role_survives_the_way_to_facts_and_back(role):
    assert role_of(facts_of_role(role)) is role
