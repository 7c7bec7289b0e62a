"""Facts about acquisitions: what can be said, what is refused, and how they travel."""

from __future__ import annotations

import json

import pytest

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.errors import UsageError


def test_facts_survive_json_and_only_known_ones_are_written():
    facts = Acquisition(
        modality="MR", sequence="T1", scan_options=("FS", "PFF"), echo_time_ms=2.5, contrast_agent=False
    )
    written = json.loads(json.dumps(facts.to_dict()))
    assert set(written) == {"modality", "sequence", "scan_options", "echo_time_ms", "contrast_agent"}
    assert Acquisition.from_dict(written) == facts


def test_fat_suppression_is_read_from_the_scan_options():
    assert Acquisition(scan_options=("PFF", "FS")).fat_suppressed
    assert not Acquisition(scan_options=("PFF",)).fat_suppressed


@pytest.mark.parametrize(
    ("name", "value"),
    [("echo_time_ms", -1.0), ("flip_angle_deg", float("nan")), ("field_strength_t", 0.0), ("plane", "oblique"),
     ("modality", "XR"), ("dynamic_phase", -1)],
)  # fmt: skip
def test_a_value_that_cannot_be_is_refused(name, value):
    with pytest.raises(UsageError, match="MX-USE-200") as caught:
        Acquisition(**{name: value})
    assert caught.value.where == name


def test_an_unknown_fact_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="MX-USE-040") as caught:
        Acquisition.from_dict({"echo_tim_ms": 5})
    assert "echo_time_ms" in caught.value.fix
