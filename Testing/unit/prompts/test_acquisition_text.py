"""Facts become sentences, and sentences become facts."""

from __future__ import annotations

import random

import pytest
from acquisitions import ANY
from hypothesis import given, settings
from hypothesis import strategies as st

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.errors import UsageError
from MedXlateCore.prompts import tokens
from MedXlateCore.prompts.acquisition_text import as_told, describe, parse, sentences
from MedXlateCore.prompts.wordings import KINDS, read_sentence

FULL = Acquisition(
    modality="MR", sequence="T1", organ="brain", plane="axial", contrast_agent=True, scanner_model="Skyra",
    field_strength_t=3.0, coil="Head 32", dynamic_phase=2, dynamic_seconds=60.0, scanning_sequence=("GR", "IR"),
    sequence_variant=("SP", "MP"), scan_options=("FS", "PFP"), flip_angle_deg=9.0, echo_time_ms=2.5,
    repetition_time_ms=1900.0, inversion_time_ms=900.0, preprocessing=("skull removed",), b_value_s_per_mm2=0.0,
)  # fmt: skip


def test_all_facts_are_told_in_the_order_of_the_published_prompts():
    assert [sentence.text for sentence in sentences(FULL)] == [
        "T1-weighted MR image of the brain, b-value 0 s/mm2.",
        "Contrast-enhanced.",
        "Acquired on a Skyra scanner at 3.0 T.",
        "Dynamic series, second post-contrast phase, 60.0 seconds after injection.",
        'Receive coil "Head 32".',
        "Pulse sequence: gradient recalled echo, inversion recovery.",
        "Sequence variant: spoiled, magnetisation prepared.",
        "Scan options: fat saturation, partial Fourier in phase.",
        "Flip angle 9.0 degrees, echo time 2.5 ms, repetition time 1900.0 ms, inversion time 900.0 ms.",
        "Preprocessing: skull removed.",
        "Axial plane.",
    ]
    assert describe(FULL) == " ".join(sentence.text for sentence in sentences(FULL))


def test_settings_of_a_ct_are_told():
    facts = Acquisition(modality="CT", organ="head", tube_voltage_kv=120.0, tube_current_ma=200.0, exposure_time_ms=750)
    assert describe(facts) == "CT image of the head. X-ray tube at 120 kV with 200 mA for 750 ms."


def test_without_optional_sentences_the_mandatory_ones_stay():
    assert describe(FULL, optional="none") == (
        "T1-weighted MR image of the brain, b-value 0 s/mm2. Contrast-enhanced. Dynamic series, second post-contrast "
        "phase, 60.0 seconds after injection. Scan options: fat saturation, partial Fourier in phase. "
        "Preprocessing: skull removed. Axial plane."
    )


def test_scan_options_need_not_be_said_where_they_do_not_mention_fat():
    plain = FULL.with_facts(scan_options=("PFP",))
    assert "options" not in {s.kind for s in sentences(plain) if s.mandatory}
    assert "options" in {s.kind for s in sentences(FULL) if s.mandatory}


def test_a_plane_given_takes_the_place_of_the_facts_own():
    assert describe(FULL, plane="sagittal").endswith("Sagittal plane.")


def test_nothing_known_still_makes_a_sentence():
    assert describe(Acquisition()) == "Image."
    assert parse("Image.").facts == Acquisition()


@given(ANY)
@settings(max_examples=150, deadline=None)
def test_what_is_described_is_read_back(facts):
    parsed = parse(describe(facts), context=10_000)
    assert parsed.facts == as_told(facts)
    assert parsed.not_understood == ()


@given(ANY, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_what_is_described_in_any_wording_is_read_back(facts, rng):
    assert parse(describe(facts, optional="all", rng=rng), context=10_000).facts == as_told(facts)


@given(ANY)
@settings(max_examples=100, deadline=None)
def test_telling_twice_changes_no_more(facts):
    assert as_told(as_told(facts)) == as_told(facts)


def test_facts_with_one_decimal_are_told_exactly():
    assert as_told(FULL) == FULL
    assert as_told(FULL.with_facts(echo_time_ms=2.46)).echo_time_ms == 2.5
    assert as_told(FULL.with_facts(echo_time_ms=0.03)).echo_time_ms == 0.03  # ultrashort, not 0


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_wording_of_a_sentence_is_read_as_this_sentence(kind):
    known = kind.known(FULL.with_facts(tube_voltage_kv=120.0, tube_current_ma=200.0, exposure_time_ms=750.0))
    for wording in kind.wordings:
        said = kind.say(known, lambda names, wording=wording: wording if wording in names else names[-1])
        assert read_sentence(said[:-1]) == (kind, known)


def test_wordings_and_optional_sentences_are_drawn_and_the_seed_repeats_them():
    texts = {describe(FULL, rng=random.Random(seed)) for seed in range(40)}
    assert len(texts) > 35
    assert describe(FULL, rng=random.Random(3)) == describe(FULL, rng=random.Random(3))
    told = sum("coil" in describe(FULL, rng=random.Random(seed)) for seed in range(200))
    assert 70 < told < 130  # one half, within four standard deviations


def test_texts_that_say_less_generalise_or_leave_out_the_organ():
    organs = {parse(describe(FULL, rng=random.Random(seed), detail="varied")).facts.organ for seed in range(40)}
    assert organs == {"brain", "head", None}


def test_chance_needs_a_source():
    for wrong in ({"optional": "some"}, {"detail": "varied"}):
        with pytest.raises(UsageError, match="MX-TXT-007"):
            describe(FULL, **wrong)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (
            "T1 after gadolinium, fat suppressed, TE 3 ms at 3T, axial",
            {"modality": "MR", "sequence": "T1", "contrast_agent": True, "scan_options": ["FS"], "echo_time_ms": 3.0,
             "field_strength_t": 3.0, "plane": "axial"},
        ),
        ("FLAIR brain sagittal", {"modality": "MR", "sequence": "FLAIR", "organ": "brain", "plane": "sagittal"}),
        ("t2-FLAIR", {"modality": "MR", "sequence": "FLAIR"}),
        (
            "T2w TSE, TR 4.5 s, TE=95 msec",
            {"modality": "MR", "sequence": "T2", "scanning_sequence": ["SE"], "sequence_variant": ["SK"],
             "repetition_time_ms": 4500.0, "echo_time_ms": 95.0},
        ),
        ("T1ce", {"modality": "MR", "sequence": "T1", "contrast_agent": True}),
        ("T1 without contrast", {"modality": "MR", "sequence": "T1", "contrast_agent": False}),
        ("non-contrast CT head 120 kVp", {"modality": "CT", "contrast_agent": False, "organ": "head",
                                          "tube_voltage_kv": 120.0}),
        ("cone beam CT", {"modality": "CBCT"}),
        ("PET, FDG", {"modality": "PET", "sequence": "FDG"}),
        ("T1 at 1.5 tesla, 70° flip angle", {"modality": "MR", "sequence": "T1", "field_strength_t": 1.5,
                                             "flip_angle_deg": 70.0}),
        ("DWI b1000", {"modality": "MR", "sequence": "DWI", "b_value_s_per_mm2": 1000.0}),
        ("skull-stripped T1", {"modality": "MR", "sequence": "T1", "preprocessing": ["skull removed"]}),
        ("inversion time 2.4 seconds FLAIR", {"modality": "MR", "sequence": "FLAIR", "inversion_time_ms": 2400.0}),
        ("first phase 60 s after injection", {"dynamic_phase": 1, "dynamic_seconds": 60.0, "contrast_agent": True}),
        ("T1-weighted MR image of the brain. At 3T, please.", {"modality": "MR", "sequence": "T1", "organ": "brain",
                                                               "field_strength_t": 3.0}),
    ],
)  # fmt: skip
def test_free_text_is_understood(text, facts):
    parsed = parse(text)
    assert parsed.facts == Acquisition.from_dict(facts)
    assert parsed.not_understood == () == parsed.warnings


def test_what_is_not_understood_is_said_aloud():
    parsed = parse("a crisp T1 of the brain, with sparkling grey matter")
    assert parsed.facts == Acquisition(modality="MR", sequence="T1", organ="brain")
    assert parsed.not_understood == ("crisp", "sparkling grey matter")
    assert [warning.code for warning in parsed.warnings] == ["MX-TXT-010"]
    assert "'sparkling grey matter'" in parsed.warnings[0].found


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "MX-TXT-001"),
        (" .,\n- ", "MX-TXT-001"),
        ("T1 " * 128, "MX-TXT-002"),
        ("T" * 20_000, "MX-TXT-002"),
        ("T1 脑", "MX-TXT-003"),
        ("Т1 мозг", "MX-TXT-003"),
        ("T1 and T2 of the brain", "MX-TXT-004"),
        ("FLAIR with and without contrast", "MX-TXT-004"),
        ("T1 with gadolinium, no contrast", "MX-TXT-004"),
        ("T1, fat-suppressed, without fat suppression", "MX-TXT-004"),
        ("TE 3 ms, TE 5 ms", "MX-TXT-004"),
        ("T1-weighted MR image. Axial plane. Coronal plane.", "MX-TXT-004"),
        ("CT, TE 3 ms", "MX-TXT-005"),
        ("T2 CT", "MX-TXT-005"),
        ("fat-suppressed CT", "MX-TXT-005"),
        ("PET at 3T", "MX-TXT-005"),
        ("MR at 120 kV", "MX-TXT-005"),
        ("hello world", "MX-TXT-006"),
        ("T1 at 300 T", "MX-USE-200"),
    ],
)
def test_a_text_that_cannot_be_used_is_refused(text, code):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.code == code
    assert caught.value.fix


def test_the_context_is_an_argument():
    assert parse("T1 brain", context=5).facts.organ == "brain"  # t, 1, brain, start, end
    with pytest.raises(UsageError, match="MX-TXT-002"):
        parse("T1 brain", context=4)


@given(st.text(st.sampled_from('T1 2FLAIRbrain.,"\n-+=()°µé*/0359msTEctg') | st.characters(max_codepoint=0x24F)))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_or_refused_with_a_code(text):
    try:
        assert isinstance(parse(text).facts, Acquisition)
    except UsageError as error:
        assert error.code.startswith(("MX-TXT-", "MX-USE-200"))


@given(ANY)
@settings(max_examples=60, deadline=None)
def test_only_quoted_names_hold_words_outside_the_vocabulary(facts):
    named = facts.with_facts(sequence="T2", organ="brain", coil=None, scanner_model=None, scanning_sequence=(),
                             sequence_variant=(), scan_options=("FS",), preprocessing=(), modality=None)  # fmt: skip
    assert tokens.UNKNOWN not in tokens.encode(describe(named))
