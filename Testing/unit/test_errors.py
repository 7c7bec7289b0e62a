"""Errors: readable for people, the same facts for machines."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from MedXlateCore.errors import Cancelled, InputError, MedXlateError, ResourceError, UsageError, Warned

FULL = InputError("MX-GEO-003", "shape is (0, 1, 1)", expected="at least 1", where="a.nii.gz", fix="give a volume")


def test_the_text_has_one_fact_a_line_and_begins_with_the_code() -> None:
    assert str(FULL).splitlines() == [
        "MX-GEO-003: shape is (0, 1, 1)",
        "  expected: at least 1",
        "  where: a.nii.gz",
        "  what to do: give a volume",
    ]


def test_facts_that_are_not_known_take_no_line() -> None:
    assert str(UsageError("MX-USE-001", "no command")) == "MX-USE-001: no command"


def test_machines_get_the_same_facts_and_the_exit_code() -> None:
    facts = json.loads(json.dumps(FULL.as_dict()))
    assert facts == {
        "code": "MX-GEO-003",
        "found": "shape is (0, 1, 1)",
        "expected": "at least 1",
        "where": "a.nii.gz",
        "fix": "give a volume",
        "exit_code": 3,
    }


@pytest.mark.parametrize(
    ("kind", "exit_code"), [(UsageError, 2), (InputError, 3), (ResourceError, 4), (MedXlateError, 3)]
)
def test_each_kind_has_its_exit_code(kind: type[MedXlateError], exit_code: int) -> None:
    error = kind("MX-RUN-001", "x")
    assert error.exit_code == error.as_dict()["exit_code"] == exit_code
    assert isinstance(error, MedXlateError)


def test_cancelling_is_not_a_failure_of_the_input() -> None:
    error = Cancelled("slice 7")
    assert error.exit_code == 130 and error.code == "MX-RUN-130" and error.where == "slice 7"
    assert not isinstance(error, (InputError, UsageError, ResourceError))


def test_errors_can_be_shown_by_other_tools() -> None:
    assert "MX-GEO-003" in repr(FULL) and "a.nii.gz" in repr(FULL)
    assert FULL.args[0] == "MX-GEO-003"


def test_a_warning_is_one_line() -> None:
    assert Warned("MX-IMG-002", "3 NaN").as_text() == "MX-IMG-002: 3 NaN"
    full = Warned("MX-IMG-002", "3 NaN", "T1", "look")
    assert full.as_text() == "MX-IMG-002: 3 NaN (T1); look"
    assert full.as_dict() == {"code": "MX-IMG-002", "found": "3 NaN", "where": "T1", "fix": "look"}


def test_warnings_are_values() -> None:
    assert Warned("a", "b") == Warned("a", "b") and len({Warned("a", "b"), Warned("a", "b")}) == 1
    with pytest.raises(AttributeError):
        Warned("a", "b").code = "c"  # type: ignore[misc]


@pytest.mark.parametrize("error", [FULL, ResourceError("MX-FIL-013", "full", fix="free"), Cancelled("x")])
def test_errors_cross_process_borders(error: MedXlateError) -> None:
    for clone in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(clone) is type(error)
        assert clone.as_dict() == error.as_dict()
