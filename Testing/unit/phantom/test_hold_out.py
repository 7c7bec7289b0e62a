"""Rules that keep parameter combinations out of training."""

from __future__ import annotations

import pytest

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.errors import UsageError
from MedXlateCore.phantom.hold_out import HoldOut

T1 = Acquisition(
    modality="MR", sequence="T1", organ="brain", contrast_agent=True, field_strength_t=1.5, scan_options=("FS", "PFP"),
    scanning_sequence=("SE",), echo_time_ms=12.0, repetition_time_ms=500.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ("T1", True),
        ("T1+contrast+fat_suppressed+1.5T", True),
        ("T1 with agent and fat suppression at 1.5 T", True),
        ("T1+contrast+fat_suppressed+3T", False),
        ("T1+no contrast", False),
        ("T2", False),
        ("CT", False),
        ("spin echo", True),
        ("gradient echo", False),
        ("te=10..12", True),
        ("te=12.5..", False),
        ("T1+tr=..500", True),
        ("T1+tr=..400", False),
        ("ti=0..9000", False),  # no inversion time, no match
        ("TE 12 ms", True),
    ],
)
def test_a_rule_matches_where_all_of_its_conditions_hold(rule, matches):
    assert HoldOut.parse(rule).matches(T1) is matches


@pytest.mark.parametrize(
    ("rule", "code"),
    [("", "MX-USE-192"), ("T1+", "MX-USE-192"), ("T1+quirky", "MX-USE-192"), ("te=", "MX-USE-192"),
     ("te=80..60", "MX-USE-192"), ("te=..", "MX-USE-192"), ("size=1..2", "MX-USE-192"), ("T1+T2", "MX-TXT-004"),
     ("CT+fat_suppressed", "MX-TXT-005")],
)  # fmt: skip
def test_a_rule_that_cannot_be_read_is_refused(rule, code):
    with pytest.raises(UsageError) as caught:
        HoldOut.parse(rule)
    assert caught.value.code == code
