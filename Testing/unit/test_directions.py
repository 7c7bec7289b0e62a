"""Directions of translation as texts and choices."""

from __future__ import annotations

import pytest

from MedXlateCore.directions import Direction, choose_direction, modalities_of, parse_direction
from MedXlateCore.errors import UsageError


@pytest.mark.parametrize("text", ["T1,T2->T1ce", " t1w , T2w → T1c "])
def test_spellings_are_welcome(text):
    direction = parse_direction(text)
    assert direction == Direction(("T1", "T2"), "T1ce")
    assert str(direction) == "T1,T2->T1ce"


@pytest.mark.parametrize("text", ["", "T1", "->T2", "T1->", "T1->T2->CT", "T1,T2->T1", "T1,T1->T2", "T1,->T2"])
def test_other_texts_are_refused(text):
    with pytest.raises(UsageError, match="MX-USE-050"):
        parse_direction(text, "[data] directions")


def test_a_modality_may_lead_to_itself_alone():
    assert parse_direction("T1->T1").is_reconstruction
    assert not parse_direction("T1->T2").is_reconstruction


def test_an_unknown_modality_is_refused():
    with pytest.raises(UsageError, match="MX-USE-010"):
        parse_direction("T1->T9")


def test_modalities_are_listed_once_in_order():
    directions = [parse_direction(text) for text in ("T2->T1", "T1->CT", "T2->CT")]
    assert modalities_of(directions) == (("T2", "T1"), ("T1", "CT"))


def test_what_is_there_decides_between_directions_to_one_target():
    directions = [parse_direction(text) for text in ("T1->CT", "T2->CT", "T1->T2")]
    assert choose_direction(directions, "CT", {"T2"}) == 1
    assert choose_direction(directions, "CT", {"T1", "T2"}) == 0
    assert choose_direction(directions, "CT", set()) == 0
    assert choose_direction(directions, "T2", {"T2"}) == 2
    with pytest.raises(ValueError, match="PET"):
        choose_direction(directions, "PET", {"T1"})
