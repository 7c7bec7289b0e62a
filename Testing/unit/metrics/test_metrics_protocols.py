"""Protocols state what decides a number, and are never mixed."""

import dataclasses
import json
from types import SimpleNamespace

import pytest

from MedXlateCore.errors import UsageError
from MedXlateCore.metrics.protocols import PROTOCOLS, get_protocol, require_same_protocol, with_matched_intensity


def test_every_preset_of_the_design_exists():
    assert list(PROTOCOLS) == ["volume3d", "tlp", "medprompt", "hinet", "synthrad2025", "brasyn"]


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_every_protocol_says_where_it_comes_from_and_goes_into_json(name):
    protocol = get_protocol(name)
    words = " ".join(protocol.describe())
    assert protocol.origin in words
    assert protocol.reading in words
    assert json.loads(json.dumps(protocol.to_dict()))["name"] == name


def test_a_mistyped_protocol_is_answered_with_the_nearest_name():
    with pytest.raises(UsageError, match="MX-MET-001") as caught:
        get_protocol("synthrad25")
    assert "synthrad2025" in caught.value.fix


def test_results_of_one_protocol_share_it():
    results = [SimpleNamespace(protocol=get_protocol("tlp")), SimpleNamespace(protocol=get_protocol("tlp"))]
    assert require_same_protocol(results) is PROTOCOLS["tlp"]


@pytest.mark.parametrize("names", [("tlp", "medprompt"), ("volume3d", "brasyn", "volume3d"), ()])
def test_results_of_several_protocols_or_none_are_not_compared(names):
    with pytest.raises(UsageError, match="MX-MET-002"):
        require_same_protocol([SimpleNamespace(protocol=get_protocol(name)) for name in names])


def test_a_changed_protocol_is_another_one_even_under_the_same_name():
    changed = dataclasses.replace(PROTOCOLS["volume3d"], healthy_margin_mm=5.0)
    with pytest.raises(UsageError, match="MX-MET-002"):
        require_same_protocol([SimpleNamespace(protocol=p) for p in (changed, PROTOCOLS["volume3d"])])


def test_matching_intensities_makes_another_protocol():
    matched = with_matched_intensity(PROTOCOLS["volume3d"])
    assert matched.name == "volume3d+matched"
    assert with_matched_intensity(matched) is matched
    with pytest.raises(UsageError, match="MX-MET-002"):
        require_same_protocol([SimpleNamespace(protocol=p) for p in (matched, PROTOCOLS["volume3d"])])


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "volume3d"])
def test_other_protocols_prescribe_their_own_scaling(name):
    with pytest.raises(UsageError, match="MX-MET-003"):
        with_matched_intensity(PROTOCOLS[name])
