"""A target is a modality by its name, words, or an image to be like; what was understood is told and recorded."""

from __future__ import annotations

import numpy as np
import pytest
from speaking import DOMAINS

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.inference.wanted import wanted_image
from MedXlateCore.pipeline import TranslationSession, translate
from MedXlateCore.prompts.acquisition_text import glimpse, parse
from MedXlateCore.volume import Modality

T1_BRAIN, T2_BRAIN, FLAIR_BRAIN, T1CE_BRAIN, CT_HEAD = DOMAINS
T2_FACTS = Acquisition(modality="MR", sequence="T2", organ="brain")


def translated(model, sources, **asked):
    translation = translate(sources, model, device="cpu", **asked)
    return translation.run(), translation


def codes(wanted):
    return [warning.code for warning in wanted.warnings]


@pytest.fixture(autouse=True)
def nobody_judges(monkeypatch):
    """Leave the gate out: it has its own tests, and takes its time."""
    monkeypatch.setattr("MedXlateCore.inference.session.doubts", lambda *_: ())


# --- what is asked for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "modality", "scale_of"),
    [("T2 brain, TE 80 ms", Modality.T2, "T2"), ("T1 brain after gadolinium", Modality.T1CE, "T1ce"),
     ("CT head", Modality.CT, "CT"), ("FLAIR brain", Modality.FLAIR, "T2"), ("SWI brain", Modality.OTHER, "T1")],
)  # fmt: skip
def test_the_result_is_the_modality_that_the_facts_name(speaking_model, text, modality, scale_of):
    wanted = wanted_image(speaking_model, target_text=text)
    assert (wanted.modality, wanted.scale_of) == (modality, scale_of)


def test_words_and_facts_lead_to_the_same(speaking_model):
    told = wanted_image(speaking_model, target_text="T2w brain, coronal")
    alike = wanted_image(speaking_model, target_like=T2_FACTS)
    assert told.facts == alike.facts == T2_FACTS.with_facts(plane="axial")
    assert told.described == {"text": "T2w brain, coronal", **alike.described}
    assert (told.key, told.title) == (alike.key, alike.title)
    assert told.key != wanted_image(speaking_model, target_text="T1 brain").key
    assert codes(told) == ["MX-TXT-014"]


def test_a_named_target_is_not_described(speaking_model):
    wanted = wanted_image(speaking_model, "T2")
    assert (wanted.modality, wanted.described, wanted.key, wanted.title) == (Modality.T2, None, "", "T2")


def test_two_ways_to_name_a_target_are_refused(speaking_model):
    for given in ({"target": "T2", "target_text": "T2"}, {"target_text": "T2", "target_like": T2_FACTS}):
        with pytest.raises(UsageError, match="MX-USE-207"):
            wanted_image(speaking_model, **given)


def test_a_model_that_knows_names_only_refuses_words(tiny_model, speaking_model):
    for given in ({"target_text": "T1 after gadolinium"}, {"target_like": T2_FACTS}):
        with pytest.raises(UsageError, match="MX-USE-208"):
            TranslationSession([], tiny_model, **given)
    with pytest.raises(UsageError, match="MX-USE-208"):
        tiny_model.towards_facts(T2_FACTS)
    assert (tiny_model.card.speaks, speaking_model.card.speaks) == (False, True)


# --- what is unusable, or doubtful ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "nearest"),
    [("", "MX-TXT-001", T1_BRAIN), (" ... ", "MX-TXT-001", T1_BRAIN), ("T2 " * 300, "MX-TXT-002", T2_BRAIN),
     ("T2 脳", "MX-TXT-003", T2_BRAIN), ("T2 and FLAIR", "MX-TXT-004", T2_BRAIN), ("CT, TE 3", "MX-TXT-005", CT_HEAD),
     ("something nice", "MX-TXT-006", T1_BRAIN), ("CT at 999 kV", "MX-USE-200", CT_HEAD)],
)  # fmt: skip
def test_a_text_that_cannot_be_used_is_refused_with_the_nearest_known_image(speaking_model, text, code, nearest):
    with pytest.raises(UsageError, match=code) as caught:
        wanted_image(speaking_model, target_text=text)
    assert caught.value.fix.endswith(nearest)


@pytest.mark.parametrize(
    ("text", "code", "nearest"),
    [("T2 of the knee", "MX-TXT-011", T2_BRAIN), ("SWI brain", "MX-TXT-012", T1_BRAIN),
     ("brain", "MX-TXT-013", T1_BRAIN)],
)  # fmt: skip
def test_what_was_never_seen_is_warned_about_with_the_nearest_known_image(speaking_model, text, code, nearest):
    (warning,) = wanted_image(speaking_model, target_text=text).warnings
    assert warning.code == code
    assert nearest in warning.fix


def test_words_that_were_not_understood_are_told(speaking_model):
    (warning,) = wanted_image(speaking_model, target_text="T2 brain, frobnicated").warnings
    assert warning.code == "MX-TXT-010"
    assert "frobnicated" in warning.found


@pytest.mark.parametrize(
    ("facts", "code", "nearest"),
    [(Acquisition(), "MX-TXT-020", T1_BRAIN), (Acquisition(modality="CT", echo_time_ms=30.0), "MX-TXT-022", CT_HEAD)],
)
def test_an_image_to_be_like_needs_facts_that_agree(speaking_model, facts, code, nearest):
    with pytest.raises(InputError, match=code) as caught:
        wanted_image(speaking_model, target_like=facts)
    assert caught.value.fix.endswith(nearest)


def test_what_can_be_read_of_a_refused_text_is_read():
    assert glimpse("T2 and T1, 脳, TE 99999999 ms, 3T") == Acquisition(sequence="T2", field_strength_t=3.0)
    assert glimpse("T1-weighted MR image of the brain. FLAIR.") == parse(T1_BRAIN).facts


# --- what is made --------------------------------------------------------------------------------------------------


def test_words_decide_what_is_made(speaking_model, patient):
    made = {text: translated(speaking_model, [patient["T1"]], target_text=text)[0] for text in ("T2 brain", "CT head")}
    t2, ct = made.values()
    assert (t2.modality, ct.modality) == (Modality.T2, Modality.CT)
    head = patient["T1"].array > 0
    assert not np.allclose(np.corrcoef(t2.array[head], ct.array[head])[0, 1], 1, atol=1e-3)
    assert ct.array.min() == -1000


def test_a_modality_by_name_and_in_words_is_the_same_image(speaking_model, patient):
    named, _ = translated(speaking_model, [patient["T1"]], target="T2")
    told, translation = translated(speaking_model, [patient["T1"]], target_text="T2-weighted image of the brain")
    assert np.array_equal(named.array, told.array)
    record = translation.record.as_dict()
    assert record["target"] == "T2"
    assert record["described"]["sentence"] == "T2-weighted MR image of the brain. Axial plane."
    assert record["described"]["nearest_known"]["name"] == T2_BRAIN


def test_nothing_has_to_be_known_of_the_source(speaking_model, patient):
    flair = patient["T1"].with_array(patient["T1"].array)
    object.__setattr__(flair, "modality", Modality.FLAIR)
    result, translation = translated(speaking_model, [flair], target_text="T2 brain")
    assert [source["role"] for source in translation.record.inputs] == ["FLAIR"]
    assert result.array.max() > 0
    pd = patient["T1"].with_array(patient["T1"].array)
    object.__setattr__(pd, "modality", Modality.PD)
    with pytest.raises(InputError, match="MX-MOD-090"):
        translated(speaking_model, [pd], target_text="T2 brain")


def test_an_image_of_the_source_s_own_modality_has_its_intensities_and_is_no_reconstruction(speaking_model, patient):
    _, translation = translated(speaking_model, [patient["T1"]], target_text="T1 brain, fat-suppressed")
    scales = translation.record.intensity
    assert scales["result"]["high"] == scales["sources"]["T1"]["high"]
    assert translation.warnings == []
    _, named = translated(speaking_model, [patient["T1"]], target="T1")
    assert [warning.code for warning in named.warnings] == ["MX-MOD-098"]


def test_of_several_sources_the_one_with_a_direction_is_used(speaking_model, patient):
    _, translation = translated(speaking_model, [patient["T1"], patient["T2"]], target_text="T1 brain")
    assert [source["role"] for source in translation.record.inputs] == ["T2"]
    assert [warning.code for warning in translation.warnings] == ["MX-IMG-032"]


def test_warnings_about_words_are_told_at_every_update(speaking_model, patient):
    session = TranslationSession([patient["T1"]], speaking_model, target_text="T2 of the knee", device="cpu")
    for _ in range(2):
        translation = session.update()
        translation.run()
        assert [warning.code for warning in translation.warnings] == ["MX-TXT-011"]
    assert session.changed_slices == 0
