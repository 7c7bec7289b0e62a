"""Mappings to dataclasses and back."""

from __future__ import annotations

import enum
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from MedXlateCore.config import nearest, parse_toml, read_dataclass, read_toml, set_value, to_mapping, to_toml
from MedXlateCore.errors import UsageError


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    width: int = 3
    rate: float = 0.5


@dataclass(frozen=True)
class Outer:
    name: str
    mode: Literal["fast", "slow"] = "fast"
    colour: Colour = Colour.RED
    flag: bool = False
    size: tuple[int | None, int | None] | None = None
    sources: tuple[str, ...] = ()
    labels: dict[str, tuple[int, ...]] = field(default_factory=dict)
    inner: Inner = Inner()
    free: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None


def refused(mapping: dict[str, Any], kind: type = Outer) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_dataclass(kind, mapping, "file.toml")
    return caught.value


def test_an_unknown_key_is_refused_with_the_nearest_valid_one():
    error = refused({"name": "a", "sorces": ["T1"]})
    assert error.code == "MX-USE-040"
    assert "'sorces'" in error.found
    assert "'sources'" in error.fix
    assert error.where == "file.toml"


def test_an_unknown_key_in_an_inner_table_is_found_there():
    error = refused({"name": "a", "inner": {"widht": 4}})
    assert (error.code, error.where) == ("MX-USE-040", "file.toml.inner")
    assert "'width'" in error.fix


@pytest.mark.parametrize(
    ("mapping", "where"),
    [
        ({"name": 3}, "file.toml.name"),
        ({"name": "a", "flag": 1}, "file.toml.flag"),
        ({"name": "a", "inner": {"width": 1.5}}, "file.toml.inner.width"),
        ({"name": "a", "inner": {"width": True}}, "file.toml.inner.width"),
        ({"name": "a", "inner": {"rate": "0.5"}}, "file.toml.inner.rate"),
        ({"name": "a", "inner": {"rate": True}}, "file.toml.inner.rate"),
        ({"name": "a", "inner": 3}, "file.toml.inner"),
        ({"name": "a", "size": [1, 2, 3]}, "file.toml.size"),
        ({"name": "a", "sources": "T1"}, "file.toml.sources"),
        ({"name": "a", "sources": ["T1", 2]}, "file.toml.sources[1]"),
        ({"name": "a", "labels": {"core": [1, "4"]}}, "file.toml.labels.core[1]"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_where_it_stands(mapping: dict[str, Any], where: str):
    error = refused(mapping)
    assert (error.code, error.where) == ("MX-USE-041", where)


def test_a_value_that_is_not_among_the_choices_is_refused_with_the_nearest():
    assert refused({"name": "a", "mode": "fsat"}).code == "MX-USE-042"
    assert "'fast'" in refused({"name": "a", "mode": "fsat"}).fix
    assert "'blue'" in refused({"name": "a", "colour": "blau"}).fix


def test_a_number_that_is_not_finite_is_refused():
    assert refused({"name": "a", "inner": {"rate": float("nan")}}).code == "MX-USE-042"


def test_a_missing_key_is_named():
    error = refused({})
    assert error.code == "MX-USE-043"
    assert "'name'" in error.found


def test_whole_numbers_are_accepted_for_floats_and_none_stands_for_null():
    outer = read_dataclass(Outer, {"name": "a", "inner": {"rate": 1}, "size": ["none", 4], "path": "none"})
    assert outer.inner.rate == 1.0 and isinstance(outer.inner.rate, float)
    assert outer.size == (None, 4)
    assert outer.path is None


def test_what_the_mapping_leaves_out_comes_from_the_base():
    base = Outer("base", mode="slow", inner=Inner(width=9, rate=0.1))
    outer = read_dataclass(Outer, {"inner": {"rate": 0.2}}, base=base)
    assert outer == Outer("base", mode="slow", inner=Inner(width=9, rate=0.2))


def test_toml_text_reads_back_to_the_same_object():
    outer = Outer(
        "a \"quoted\" näme\\\n\x7f", mode="slow", colour=Colour.BLUE, flag=True, size=(None, 7), sources=("T1", "T2"),
        labels={"core": (1, 4), "odd key.": ()}, inner=Inner(2, 1e-7), free={"deep": {"x": [1.5, None]}},
        path=Path("a/b"),
    )  # fmt: skip
    mapping = tomllib.loads(to_toml(to_mapping(outer)))
    mapping["free"]["deep"]["x"][1] = None  # free data has no type that says what "none" means
    assert read_dataclass(Outer, mapping) == outer


PLAIN = st.one_of(
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.text(max_size=20),
    st.lists(st.integers(-9, 9), max_size=3),
)


@given(st.dictionaries(st.text(max_size=8), PLAIN, max_size=5))
def test_any_plain_table_survives_toml(table: dict[str, Any]):
    assert tomllib.loads(to_toml({"t": table}))["t"] == table


def test_overrides_reach_into_tables_and_are_read_as_toml_or_text():
    mapping: dict[str, Any] = {"training": {"steps": 5}}
    set_value(mapping, "training.steps=100")
    set_value(mapping, "data.sources=['T1', 'T2']")
    set_value(mapping, "data.target=T1ce")
    assert mapping == {"training": {"steps": 100}, "data": {"sources": ["T1", "T2"], "target": "T1ce"}}


@pytest.mark.parametrize("text", ["training.steps", "=3", "a..b=3", "training.steps.more=1"])
def test_an_override_that_cannot_be_read_is_refused(text: str):
    with pytest.raises(UsageError) as caught:
        set_value({"training": {"steps": 5}}, text)
    assert caught.value.code == "MX-USE-045"


def test_a_byte_order_mark_is_no_fault():
    assert parse_toml(b"\xef\xbb\xbfsteps = 3\n", "x") == {"steps": 3}


def test_text_that_is_not_toml_is_refused(tmp_path: Path):
    path = tmp_path / "config.toml"
    path.write_bytes(b"steps = \n")
    with pytest.raises(UsageError) as caught:
        read_toml(path)
    assert (caught.value.code, caught.value.where) == ("MX-USE-044", str(path))
    with pytest.raises(UsageError):
        parse_toml(b"\xff\xfe", "x")
    with pytest.raises(UsageError):
        read_toml(tmp_path / "missing.toml")


def test_the_nearest_word_ignores_case_and_far_words_are_not_guessed():
    assert nearest("SOURCES", ["sources", "target"]) == "sources"
    assert nearest("zzz", ["sources", "target"]) == ""
