"""What the panel shows for every combination of models and sources; no panel needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from MedXlateCore.models.card import read_card
from MedXlateCore.models.catalogue import InstalledPackage, bundled_models_folder


@pytest.fixture
def starter() -> InstalledPackage:
    folder = bundled_models_folder() / "starter"
    return InstalledPackage("starter", folder, card=read_card(folder))


def another(entry: InstalledPackage, name: str, **changes) -> InstalledPackage:
    """Return a package that differs from the starter."""
    card = replace(entry.card, name=name, **changes)
    return InstalledPackage(name, Path("/models") / name, card=card)


def flair_model(starter: InstalledPackage) -> InstalledPackage:
    normalisers = {**starter.card.normalisers, "FLAIR": starter.card.normalisers["T2"]}
    return another(starter, "three", sources=("T1", "T2", "FLAIR"), normalisers=normalisers, prompts="none")


def state_of(*arguments, **keywords):
    from MedXlateSlicerLib.panel_state import panel_state

    return panel_state(*arguments, **keywords)


def test_without_sources_both_are_missing_and_the_hint_names_them(starter):
    state = state_of([starter], ())
    assert [(row.role, row.state) for row in state.roles] == [("T1", "missing"), ("T2", "missing")]
    assert state.hint == "Choose a volume for T1 and T2."
    assert not state.can_apply
    assert state.offered == ()
    assert state.target == "T1ce"


def test_with_all_sources_the_model_is_offered_and_nothing_is_missing(starter):
    state = state_of([starter], ("T1", "T2"))
    assert [row.text for row in state.roles] == ["used", "used"]
    assert state.can_apply
    assert state.hint == ""
    assert state.model.name == "starter"
    assert state.model_text == ""


def test_a_model_that_lacks_a_source_is_not_offered_and_says_why(starter):
    state = state_of([starter, flair_model(starter)], ("T1", "T2"))
    assert [choice.name for choice in state.offered] == ["starter"]
    assert state.model_text == "Not offered: three also needs FLAIR."
    assert [(row.role, row.state) for row in state.roles] == [("T1", "used"), ("T2", "used"), ("FLAIR", "unused")]


def test_of_two_that_fit_the_one_with_more_sources_is_suggested_and_the_users_choice_wins(starter):
    entries = [starter, flair_model(starter)]
    assert state_of(entries, ("T1", "T2", "FLAIR")).model.name == "three"
    assert state_of(entries, ("T1", "T2", "FLAIR"), model="starter").model.name == "starter"


def test_a_chosen_model_that_no_longer_fits_gives_way(starter):
    assert state_of([starter, flair_model(starter)], ("T1", "T2"), model="three").model.name == "starter"


def test_a_target_that_is_at_hand_already_is_suggested_last(starter):
    other = another(starter, "to-pd", targets=("PD",), output={"PD": starter.card.output["T1ce"]})
    assert state_of([starter, other], ("T1", "T2", "T1ce")).target == "PD"
    assert state_of([starter, other], ("T1", "T2", "T1ce"), target="T1ce").target == "T1ce"


def test_an_optional_source_is_called_optional(starter):
    normalisers = {**starter.card.normalisers, "PD": starter.card.normalisers["T2"]}
    entry = another(starter, "opt", optional_sources=("PD",), normalisers=normalisers)
    assert {row.role: row.state for row in state_of([entry], ("T1", "T2")).roles}["PD"] == "optional"


def test_without_any_model_the_panel_says_where_to_add_one():
    broken = InstalledPackage("broken", Path("/models/broken"))
    state = state_of([broken], ("T1", "T2"))
    assert state.hint == "No model is installed: add one under Models."
    assert not state.can_apply
    assert state.roles == ()


@pytest.mark.parametrize(
    ("used", "empty", "text"),
    [
        (0, 0, "No segment is used: the image is made without a region."),
        (2, 0, "The region is used as drawn (segments: 2)."),
        (2, 1, "1 of 2 used segments are empty."),
    ],
)
def test_the_panel_says_what_the_region_will_do(starter, used, empty, text):
    assert state_of([starter], ("T1", "T2"), used_segments=used, empty_segments=empty).region_text == text


def test_a_model_without_regions_says_that_segments_are_not_used(starter):
    state = state_of([flair_model(starter)], ("T1", "T2", "FLAIR"), used_segments=1)
    assert not state.takes_region
    assert state.region_text == "The model three takes no region of interest. The segments will not be used."


def test_the_panel_knows_from_the_card_whether_a_model_draws_samples(starter):
    entry = another(starter, "aldm", draws_samples=True)
    assert not state_of([starter], ("T1", "T2")).draws_samples
    assert state_of([entry], ("T1", "T2")).draws_samples
    assert state_of([entry], ("T1",)).samples_text == ""


def many_directions(starter: InstalledPackage) -> InstalledPackage:
    directions = ("T1->CT", "T2->CT", "CT->T1")
    normalisers = dict.fromkeys(("T1", "T2", "CT"), starter.card.normalisers["T1"])
    output = dict.fromkeys(directions, starter.card.output["T1ce"])
    return another(
        starter, "many", directions=directions, sources=("T1", "T2", "CT"), targets=("CT", "T1"), prompts="none",
        normalisers=normalisers, output=output,
    )  # fmt: skip


def test_a_model_for_many_directions_needs_the_sources_of_one_of_them(starter):
    entry = many_directions(starter)
    to_ct = state_of([entry], ("T2",), target="CT")
    assert to_ct.can_apply
    assert to_ct.model.sources == ("T2",)
    assert {row.role: row.state for row in to_ct.roles} == {"T1": "unused", "T2": "used", "CT": "unused"}
    assert not state_of([entry], ("T2",), target="T1").can_apply
    assert state_of([entry], ("T2",), target="T1").hint == "Choose a volume for CT."
    assert state_of([entry], ("CT",), target="T1").can_apply
