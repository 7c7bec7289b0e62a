"""Which texts fit which images."""

from __future__ import annotations

import random

import pytest
from acquisitions import ANY
from hypothesis import given, settings
from hypothesis import strategies as st

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.prompts.acquisition_text import describe
from MedXlateCore.prompts.compatibility import compatible, compatible_pairs

SHORT = Acquisition(modality="MR", sequence="T1", organ="brain", plane="axial")
LONG = SHORT.with_facts(field_strength_t=3.0, echo_time_ms=2.5, repetition_time_ms=250.0, scanner_model="Skyra")


@given(ANY, st.randoms(use_true_random=False), st.sampled_from(["full", "varied"]))
@settings(max_examples=150, deadline=None)
def test_every_image_fits_its_own_texts(facts, rng, detail):
    assert compatible(describe(facts), facts)
    assert compatible(describe(facts, optional="none"), facts)
    assert compatible(describe(facts, rng=rng, detail=detail), facts)


def test_the_relation_is_not_symmetric_once_optional_sentences_are_dropped():
    texts = [describe(SHORT, optional="none"), describe(LONG)]
    assert compatible_pairs(texts, [SHORT, LONG]).tolist() == [[True, True], [False, True]]


def test_with_all_sentences_both_directions_fail_where_a_time_differs():
    other = LONG.with_facts(echo_time_ms=5.0)
    assert not compatible(describe(LONG), other)
    assert not compatible(describe(other), LONG)
    assert compatible(describe(LONG, optional="none"), other)


@pytest.mark.parametrize(
    "change",
    [{"sequence": "T2"}, {"organ": "breast"}, {"plane": "coronal"}, {"contrast_agent": True}, {"modality": "CT"},
     {"scan_options": ("FS",)}, {"preprocessing": ("skull removed",)}, {"dynamic_phase": 0}],
    ids=str,
)  # fmt: skip
def test_a_mandatory_sentence_that_differs_or_lacks_parts_two_images(change):
    other = SHORT.with_facts(**change)
    assert not compatible(describe(SHORT, optional="none"), other)
    assert not compatible(describe(other, optional="none"), SHORT)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("T1w MRI scan of the brain. Transverse slice.", True),
        ("T1-weighted MR image of the head. Axial plane.", True),
        ("T1-weighted MR image. Axial plane.", True),
        ("T1-weighted MR image of the brain. Acquired at 3.0 T. Axial plane.", True),
        ("T1-weighted MR image of the brain. TE 2.5 ms. Axial plane.", True),
        ("T1-weighted MR image of the abdomen. Axial plane.", False),
        ("T1-weighted image of the brain. Axial plane.", False),  # the modality is not optional
        ("T1-weighted MR image of the brain.", False),  # the plane is missing
        ("T1-weighted MR image of the brain. Acquired at 1.5 T. Axial plane.", False),
        ("T1-weighted MR image of the brain. Dynamic series. Axial plane.", False),
        ("T1-weighted MR image of the brain. A lovely one. Axial plane.", False),
        ("", False),
    ],
)
def test_allowed_variants(text, fits):
    assert compatible(text, LONG) is fits


def test_the_general_organ_does_not_stand_for_the_special_one():
    head = SHORT.with_facts(organ="head")
    assert not compatible(describe(SHORT), head)
    assert compatible(describe(head), SHORT)


def test_the_diagonal_of_a_batch_is_true():
    cases = [LONG.with_facts(echo_time_ms=float(te), plane=plane) for te in (2, 3) for plane in ("axial", "coronal")]
    rng = random.Random(0)
    matrix = compatible_pairs([describe(case, rng=rng, detail="varied") for case in cases], cases)
    assert matrix.diagonal().all()
    assert not matrix.all()
