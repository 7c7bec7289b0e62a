"""The registry finds methods by itself and names what it knows."""

from __future__ import annotations

import pytest

from MedXlateCore.errors import UsageError
from MedXlateCore.models.method import Method
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset, list_methods, register_model


def test_tlp_is_found_without_being_imported_by_anyone():
    assert "tlp" in list_methods()
    assert get_method("tlp").name == "tlp"


def test_an_unknown_method_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="MX-MOD-001") as caught:
        get_method("tpl")
    assert "tlp" in caught.value.fix


def test_an_unknown_preset_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="MX-MOD-003") as caught:
        get_preset(get_method("tlp"), "tinny")
    assert "tiny" in caught.value.fix


def test_overrides_replace_single_fields_of_a_preset():
    config = get_preset(get_method("tlp"), "tiny", {"inputs": 1})
    assert (config.inputs, config.dim) == (1, 8)


def test_an_unknown_override_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="MX-USE-040") as caught:
        get_preset(get_method("tlp"), "tiny", {"bottelneck_attention": False})
    assert "bottleneck_attention" in caught.value.fix


def test_recipes_follow_their_preset():
    method = get_method("tlp")
    assert get_recipe_preset(method, "code").fpg_per_sample is False
    assert get_recipe_preset(method, "paper").fpg_t_edema == 5
    assert get_recipe_preset(method, "code", {"fpg_q": 0.2}).fpg_q == 0.2


def test_two_methods_of_one_name_are_refused():
    with pytest.raises(UsageError, match="MX-MOD-002"):

        @register_model("tlp")
        class Another(Method):
            build = recipe = n_sources = size_multiple = None
