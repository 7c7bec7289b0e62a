"""Model cards: fields, what they refuse, what the architecture hash covers."""

from __future__ import annotations

import dataclasses

import pytest

from MedXlateCore.config import to_mapping
from MedXlateCore.errors import InputError
from MedXlateCore.models.card import read_card


def test_the_card_comes_back_as_it_was(package, make_card, small_config):
    card = read_card(package)
    assert dataclasses.replace(card, weights={}, spec_sha256="") == dataclasses.replace(
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
