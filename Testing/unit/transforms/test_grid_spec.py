"""Grid settings: round trips and refusals."""

from __future__ import annotations

import json

import pytest

from MedXlateCore.config import parse_toml, to_toml
from MedXlateCore.errors import UsageError
from MedXlateCore.transforms.grid_spec import CropPolicy, GridSpec

FULL = GridSpec(
    "RAS", (1.0, None, 2.5), CropPolicy("fixed", (160, 192, None), 2.0, "grid", (0, 10, 0), grow=False), (16, 16, 1)
)


@pytest.mark.parametrize("spec", [GridSpec(), FULL, GridSpec(crop=CropPolicy("none"))])
def test_settings_survive_json_and_toml(spec):
    assert GridSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert GridSpec.from_dict(parse_toml(to_toml(spec.to_dict()).encode(), "test")) == spec
    assert CropPolicy.from_dict(spec.crop.to_dict()) == spec.crop


def test_an_empty_table_gives_the_defaults():
    assert GridSpec.from_dict({}) == GridSpec()


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"orientaton": "LPS"}, "MX-USE-040"),
        ({"crop": {"margin": 3}}, "MX-USE-040"),
        ({"size_multiple": [8, 8]}, "MX-USE-041"),
        ({"spacing_mm": 1.0}, "MX-USE-041"),
        ({"crop": {"kind": "centre"}}, "MX-USE-042"),
        ({"spacing_mm": [1.0, float("nan"), 1.0]}, "MX-USE-042"),
        ({"orientation": "LPX"}, "MX-USE-060"),
        ({"spacing_mm": [1.0, 0.0, 1.0]}, "MX-USE-064"),
        ({"size_multiple": [8, 0, 1]}, "MX-USE-064"),
        ({"crop": {"kind": "fixed"}}, "MX-USE-064"),
        ({"crop": {"kind": "foreground", "size": [10, 10, 10]}}, "MX-USE-064"),
        ({"crop": {"kind": "fixed", "size": [10, 0, 10]}}, "MX-USE-064"),
        ({"crop": {"margin_mm": -1.0}}, "MX-USE-064"),
    ],
)
def test_unusable_settings_are_refused_with_a_code(settings, code):
    with pytest.raises(UsageError) as caught:
        GridSpec.from_dict(settings)
    assert caught.value.code == code


def test_a_misspelt_key_names_the_nearest_valid_one():
    with pytest.raises(UsageError) as caught:
        GridSpec.from_dict({"size_multiples": [8, 8, 1]})
    assert "'size_multiple'" in caught.value.fix
