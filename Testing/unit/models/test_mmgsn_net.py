"""MMgSN-Net: size by hand, five maps that make the output, attention behind a gate, a detached synthetic image."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from comparators import count, make_batch, make_state

from MedXlateCore.errors import UsageError
from MedXlateCore.models.mmgsn_net import MmgsnConfig, MmgsnNetwork, MmgsnRecipeConfig
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset

MMGSN = get_method("mmgsn_net")
SMALL = MmgsnConfig(width=8, norm="group")


def unit(channels, out):
    """Return the parameters of a 3x3 convolution without bias and of its norm."""
    return 9 * channels * out + 2 * out


def pair(channels, out):
    return unit(channels, out) + unit(out, out)


def fusion(channels, before, out):
    return unit(3 * channels, channels) + unit(channels + before, out)


def by_hand(inputs, w):
    encoders = inputs * (pair(1, w) + pair(2 * w, 2 * w) + pair(4 * w, 4 * w))
    fusions = fusion(w, 0, w) + fusion(2 * w, w, 2 * w) + fusion(4 * w, 2 * w, 4 * w)
    decoder = pair(4 * w, 4 * w) + fusion(4 * w, 4 * w, 2 * w) + fusion(2 * w, 2 * w, w) + fusion(w, w, w)
    attention = w * (w // 8 + w // 8 + w) + 1
    return encoders + fusions + decoder + attention + 9 * w + 1


@pytest.mark.parametrize(("inputs", "width"), [(2, 64), (3, 64), (2, 8)])
def test_it_has_the_number_of_parameters_of_its_parts(inputs, width):
    with torch.device("meta"):
        assert count(MmgsnNetwork(MmgsnConfig(inputs=inputs, width=width))) == by_hand(inputs, width)


@pytest.mark.parametrize(("preset", "parameters"), [("paper", 10_815_810), ("tiny", 170_042)])
def test_the_presets_have_the_stated_number_of_parameters(preset, parameters):
    with torch.device("meta"):
        assert count(MMGSN.build(get_preset(MMGSN, preset))) == parameters


def test_the_output_sees_nine_times_the_width():
    with torch.device("meta"):
        assert MMGSN.build(get_preset(MMGSN, "paper")).output.weight.shape == (1, 9 * 64, 1, 1)


def test_every_one_of_the_five_maps_reaches_the_output():
    torch.manual_seed(0)
    network = MmgsnNetwork(SMALL).eval()
    images = make_batch().images
    before = network(images)
    edges = [0, 32, 48, 56, 64, 72]
    for low, high in pairwise(edges):
        weight = network.output.weight.detach().clone()
        network.output.weight.data[:, low:high] = 0
        assert not torch.equal(before, network(images))
        network.output.weight.data = weight


def test_the_attention_acts_at_half_of_the_resolution_and_not_before_its_gate_opens():
    torch.manual_seed(0)
    network, seen = MmgsnNetwork(SMALL).eval(), []
    network.attention.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    images = make_batch().images
    network(images)
    network.attention.gate.data.fill_(1.0)
    network(images)
    (x, closed), (_, opened) = seen
    assert x.shape[2:] == (16, 16)
    assert torch.equal(x, closed)
    assert not torch.equal(x, opened)


def test_fused_maps_are_fed_back_into_the_encoders():
    torch.manual_seed(0)
    network, seen = MmgsnNetwork(SMALL).eval(), []
    network.encoders[1].register_forward_hook(lambda _, inputs, output: seen.append(output[0]))
    images = make_batch().images
    network(images)
    network(torch.cat((images[:, :1], -images[:, 1:]), dim=1))
    assert not torch.equal(*seen)  # the first source's second level knows of the second source


def test_without_attention_there_are_no_weights_of_it():
    network = MmgsnNetwork(MmgsnConfig(width=8, attention=False, norm="group"))
    assert not [key for key in network.state_dict() if "attention" in key]
    assert network(make_batch().images).shape == (2, 1, 32, 32)


def test_the_recipe_has_the_published_constants_and_no_reconstruction():
    config = get_recipe_preset(MMGSN, "paper")
    assert (config.learning_rate, config.l1_weight, config.adversarial_weight) == (2e-4, 100, 1)
    assert (config.adversarial, config.constant_part) == ("least_squares", 0.5)
    recipe = MMGSN.recipe(SMALL, MmgsnRecipeConfig(discriminator_width=4))
    assert set(recipe.step(make_batch(), make_state(recipe))) == {"discriminator", "generator", "l1", "adversarial"}


def test_its_discriminator_is_normalised_from_the_first_convolution_on():
    recipe = MMGSN.recipe(SMALL, MmgsnRecipeConfig())
    # HiNet's has 390,593: the first convolution's 32 biases give way to a norm's 64
    assert count(recipe.networks()["discriminator"]) == 390_593 - 32 + 64


def test_the_generator_gets_no_gradient_from_the_discriminators_step():
    recipe = MMGSN.recipe(SMALL, MmgsnRecipeConfig(discriminator_width=4))
    state, calls = make_state(recipe), []

    def backward(loss):
        loss.backward()
        calls.append([p.grad is None for p in recipe.networks()["generator"].parameters()])

    state.backward = backward
    recipe.step(make_batch(), state)
    assert len(calls) == 2
    assert all(calls[0])
    assert not any(calls[1])


@pytest.mark.parametrize("changes", [{"inputs": 1}, {"inputs": 5}, {"width": 0}, {"width": 257}])
def test_a_size_that_cannot_be_is_refused(changes):
    with pytest.raises(UsageError, match="MX-MOD-005"):
        MmgsnConfig(**changes)


def test_sizes_are_multiples_of_8():
    assert MMGSN.size_multiple(SMALL) == 8
    assert MmgsnNetwork(SMALL)(make_batch(size=(8, 24)).images).shape == (2, 1, 8, 24)
