"""Model cards: fields, what they refuse, what the architecture hash covers."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json

import pytest

from MedXlateCore.config import to_mapping
from MedXlateCore.errors import InputError
from MedXlateCore.models.card import card_text, read_card, sealed


def test_the_card_comes_back_as_it_was(package, make_card, small_config):
    card = read_card(package)
    assert dataclasses.replace(card, weights={}, spec_sha256="", card_sha256="") == dataclasses.replace(
        make_card(), config=card.config, grid=card.grid
    )
    assert card.config == to_mapping(small_config)
    assert card.not_for


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "two words"}, "name"),
        ({"name": "../up"}, "name"),
        ({"version": "latest"}, "version"),
        ({"sources": ()}, "sources"),
        ({"sources": ("T1", "T1")}, "sources"),
        ({"sources": ("t1n",)}, "sources"),
        ({"sources": ("label",)}, "sources"),
        ({"targets": ()}, "targets"),
        ({"prompts": "text"}, "prompts"),
        ({"normalisers": {}}, "normalisers"),
        ({"normalisers": {"T1": {"kind": "zscore"}}}, "kind"),
        ({"grid": {"spacing": 1}}, "spacing"),
        ({"grid": {"crop": {"kind": "fixed", "size": [10**6, 10**6, 10**6]}}}, "grid"),
        ({"grid": {"spacing_mm": [1e-6, None, None]}}, "spacing_mm"),
        ({"output": {}}, "output"),
        ({"output": {"T2": {"kind": "relative", "low": 0, "high": 1}}}, "output"),
        ({"output": {"T1ce": {"kind": "relative", "low": 1, "high": 0}}}, "output"),
        ({"output": {"T1ce": {"kind": "relative", "low": 0, "high": float("inf")}}}, "output"),
        ({"licence": "x" * 10_000}, "licence"),
        ({"citation": "\x1b[2J"}, "citation"),
        ({"intended_use": "good \u202e use"}, "intended_use"),
        ({"training": {"value": float("nan")}}, "training"),
        ({"metrics": {"value": object()}}, "metrics"),
        ({"weights": {"file": "model.safetensors"}}, "weights"),
        ({"weights": {"file": "model.safetensors", "sha256": "abc"}}, "sha256"),
        ({"spec_sha256": "0" * 63}, "spec_sha256"),
        ({"card_sha256": "g" * 64}, "card_sha256"),
        ({"format": 2}, "format"),
    ],
)
def test_a_card_with_a_wrong_field_is_refused_by_name(changes, field, make_card):
    with pytest.raises(InputError, match="MX-MOD-012") as caught:
        make_card(**changes)
    assert field in caught.value.as_text()


def test_the_architecture_hash_covers_what_the_weights_mean_and_nothing_else(make_card):
    card = make_card()
    for changes in ({"config": {**card.config, "gf": False}}, {"prompts": "none"}, {"targets": ("T2",)}):
        if "targets" in changes:
            changes["output"] = {"T2": {"kind": "relative", "low": 0, "high": 1}}
        assert make_card(**changes).architecture_sha256() != card.architecture_sha256()
    assert make_card(licence="MIT", name="other").architecture_sha256() == card.architecture_sha256()


def leaves(value, path=()):
    """Yield the path of every value in plain data that is no table and no list."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path


def test_a_change_of_any_value_of_a_saved_card_is_refused(package):
    text = (package / "model.json").read_text()
    paths = list(leaves(json.loads(text)))
    assert len(paths) > 30
    for path in paths:
        data = json.loads(text)
        parent = functools.reduce(lambda part, key: part[key], path[:-1], data)
        value = parent[path[-1]]
        parent[path[-1]] = value + 1 if type(value) in (int, float) else value + "x" if isinstance(value, str) else 7
        (package / "model.json").write_text(json.dumps(data))
        with pytest.raises(InputError, match=r"MX-MOD-0(12|14|22)"):
            read_card(package)


def test_a_card_from_before_models_said_whether_they_draw_samples_is_read_and_draws_none(package):
    data = json.loads((package / "model.json").read_text())
    assert data.pop("draws_samples") is False
    del data["card_sha256"]
    data["card_sha256"] = hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    (package / "model.json").write_text(json.dumps(data))
    assert read_card(package).draws_samples is False


def test_another_layout_of_the_same_values_is_the_same_card(package):
    card = read_card(package)
    data = json.loads((package / "model.json").read_text())
    (package / "model.json").write_text(json.dumps(dict(reversed(data.items())), indent=7))
    assert read_card(package) == card


def test_a_loaded_card_can_be_changed_and_sealed_again(package):
    card = sealed(dataclasses.replace(read_card(package), licence="MIT"))
    (package / "model.json").write_text(card_text(card))
    assert read_card(package).licence == "MIT"


@pytest.mark.parametrize(
    ("deviation", "allowed"), [(None, False), (0.0, True), (0.0005, True), (0.001, True), (0.0011, False), (1.0, False)]
)
def test_a_card_allows_bf16_where_it_says_that_it_changes_little(deviation, allowed, make_card):
    assert make_card(bf16_deviation=deviation).bf16_allowed is allowed


@pytest.mark.parametrize("deviation", [-0.1, 1.5, float("nan"), float("inf")])
def test_a_deviation_that_is_no_fraction_is_refused(deviation, make_card):
    with pytest.raises(InputError, match="MX-MOD-012"):
        make_card(bf16_deviation=deviation)
