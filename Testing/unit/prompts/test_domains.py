"""The nearest known domain is named, and what lies far away is warned about."""

from __future__ import annotations

import pytest

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.errors import UsageError
from MedXlateCore.prompts.acquisition_text import parse
from MedXlateCore.prompts.domains import FAR, domain_warnings, nearest_domain

T1 = Acquisition(modality="MR", sequence="T1", organ="brain", field_strength_t=3.0, echo_time_ms=3.0)
DOMAINS = {
    "T1": T1,
    "T1 with agent": T1.with_facts(contrast_agent=True),
    "T2": T1.with_facts(sequence="T2", echo_time_ms=95.0),
    "CT": Acquisition(modality="CT", organ="head"),
}


@pytest.mark.parametrize(
    ("text", "name"),
    [("T1 brain", "T1"), ("T1 brain, no contrast", "T1"), ("T1 gadolinium fat-suppressed", "T1 with agent"),
     ("T2 at 1.5T TE 80", "T2"), ("CT", "CT"), ("PD brain TE 3", "T1"), ("PD brain TE 90", "T2")],
)  # fmt: skip
def test_the_nearest_domain_is_found(text, name):
    assert nearest_domain(parse(text).facts, DOMAINS).name == name


def test_a_known_domain_has_no_distance_and_no_differences():
    nearest = nearest_domain(DOMAINS["T2"], DOMAINS)
    assert (nearest.name, nearest.distance, nearest.differences) == ("T2", 0.0, ())
    assert domain_warnings(DOMAINS["T2"], DOMAINS) == ()


def test_other_times_are_near_and_another_sequence_is_far():
    assert 0 < nearest_domain(T1.with_facts(echo_time_ms=5.0), DOMAINS).distance < FAR
    far = nearest_domain(T1.with_facts(sequence="SWI"), DOMAINS)
    assert far.distance >= FAR
    assert far.differences[0] == "sequence"
    (warning,) = domain_warnings(T1.with_facts(sequence="SWI"), DOMAINS)
    assert warning.code == "MX-TXT-012"
    assert "T1" in warning.fix


def test_an_organ_never_seen_is_warned_about_with_the_nearest_domain():
    (warning,) = domain_warnings(parse("T2 of the knee").facts, DOMAINS)
    assert warning.code == "MX-TXT-011"
    assert "'knee'" in warning.found
    assert "brain" in warning.found
    assert "nearest known: T2" in warning.fix


def test_the_head_is_no_strange_organ_to_a_model_of_brains():
    assert domain_warnings(T1.with_facts(organ="head"), DOMAINS) == ()


def test_a_model_without_domains_is_refused():
    with pytest.raises(UsageError, match="MX-TXT-008"):
        nearest_domain(T1, {})
