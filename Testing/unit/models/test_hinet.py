"""HiNet: size by hand, the two presets, fusion of all sources, sources given back in training only."""

from __future__ import annotations

import pytest
import torch
from comparators import count, make_batch, make_state
from torch import nn

from MedXlateCore.errors import UsageError
from MedXlateCore.models.hinet import HinetConfig, HinetNetwork, HinetRecipe, HinetRecipeConfig
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset

HINET = get_method("hinet")
SMALL = HinetConfig(width=4, norm="group")


def unit(channels, out):
    """Return the parameters of a 3x3 convolution without bias and of its norm."""
    return 9 * channels * out + 2 * out


def encoder(inputs, a, b, c):
    return sum(unit(x, y) + unit(y, y) for x, y in ((inputs, a), (a, b), (b, c)))


def self_decoder(a, b, c):
    return sum(unit(x, y) + unit(y, y) for x, y in ((c, c), (c, b), (b, a))) + 9 * a + 1


def fusion(channels, before):
    """Sum, product and maximum to the level's channels, then with the map before to the level's channels."""
    return unit(3 * channels, channels) + unit(channels + before, channels)


def fused(a, b, c):
    downwards = fusion(a, 0) + fusion(b, a) + fusion(c, b)
    upwards = fusion(c, c) + fusion(b, c) + fusion(a, b)
    return downwards + upwards + 9 * a + 1


@pytest.mark.parametrize("inputs", [2, 3])
@pytest.mark.parametrize("width", [8, 32])
def test_it_has_the_number_of_parameters_of_its_parts(inputs, width):
    widths = (width, 2 * width, 4 * width)  # 32, 64, 128 as published
    expected = inputs * (encoder(1, *widths) + self_decoder(*widths)) + fused(*widths)
    with torch.device("meta"):
        assert count(HinetNetwork(HinetConfig(inputs=inputs, width=width))) == expected


@pytest.mark.parametrize(("preset", "parameters"), [("paper", 3_324_579), ("code", 3_324_579), ("tiny", 209_067)])
def test_the_presets_have_the_stated_number_of_parameters(preset, parameters):
    with torch.device("meta"):
        assert count(HINET.build(get_preset(HINET, preset))) == parameters


@pytest.mark.parametrize(("preset", "eps"), [("paper", 1e-5), ("code", 0.8)])
def test_the_released_code_adds_its_momentum_to_the_variance_and_the_paper_preset_does_not(preset, eps):
    with torch.device("meta"):
        networks = HINET.recipe(get_preset(HINET, preset), get_recipe_preset(HINET, preset)).networks()
    for network in networks.values():
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms
        assert {m.eps for m in norms} == {eps}
        assert {m.momentum for m in norms} == {0.1}


def test_the_code_and_the_paper_preset_differ_in_nothing_else():
    paper, code = (get_preset(HINET, name) for name in ("paper", "code"))
    assert (paper.inputs, paper.width, paper.norm) == (code.inputs, code.width, code.norm) == (2, 32, "batch")
    assert get_recipe_preset(HINET, "paper") == get_recipe_preset(HINET, "code")


def test_the_paper_recipe_has_the_released_constants():
    config = get_recipe_preset(HINET, "paper")
    assert (config.learning_rate, config.l1_weight, config.adversarial_weight) == (1e-3, 100, 1)
    assert (config.reconstruction_weight, config.adversarial) == (20, "least_squares")
    factor = HINET.recipe(SMALL, HinetRecipeConfig(adversarial_weight=0)).learning_rate_factor
    assert [factor(epoch / 400) for epoch in (0, 100, 250, 400)] == [1, 1, 0.5, 0]


def test_sources_are_given_back_on_request_each_from_itself_alone():
    network = HinetNetwork(SMALL).eval()
    images = make_batch().images
    made = network(images, give_back=True)
    assert made.shape == (2, 3, 32, 32)
    assert torch.equal(made[:, :1], network(images))
    changed = network(torch.cat((images[:, :1], -images[:, 1:]), dim=1), give_back=True)
    assert torch.equal(made[:, 1], changed[:, 1])
    assert not torch.equal(made[:, 2], changed[:, 2])
    assert not torch.equal(made[:, 0], changed[:, 0])


def test_a_step_gives_the_published_losses():
    torch.manual_seed(0)
    recipe = HinetRecipe(SMALL, HinetRecipeConfig(discriminator_width=4))
    generator, discriminator = recipe.networks().values()
    batch, state = make_batch(), make_state(recipe)
    made = generator(batch.images, give_back=True).detach()
    real, fake = discriminator(batch.target), discriminator(made[:, :1])
    losses = recipe.step(batch, state)
    assert losses["discriminator"] == pytest.approx(((real - 1).square().mean() + fake.square().mean()).item() / 2)
    assert losses["l1"] == pytest.approx((made[:, :1] - batch.target).abs().mean().item(), rel=1e-5)
    of_each = [(made[:, n + 1] - batch.images[:, n]).abs().mean().item() for n in (0, 1)]
    assert losses["reconstruction"] == pytest.approx(sum(of_each), rel=1e-5)
    total = losses["adversarial"] + 100 * losses["l1"] + 20 * losses["reconstruction"]
    assert losses["generator"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("inputs", [3, 4])
def test_more_than_two_sources_are_fused_and_their_order_alone_does_not_make_the_fusion(inputs):
    network = HinetNetwork(HinetConfig(inputs=inputs, width=4, norm="group")).eval()
    for n in range(1, inputs):
        network.encoders[n].load_state_dict(network.encoders[0].state_dict())
    images = make_batch(sources=inputs).images
    assert torch.allclose(network(images), network(images.flip(1)), atol=1e-5)


def test_sizes_are_multiples_of_8():
    network = HinetNetwork(SMALL).eval()
    assert HINET.size_multiple(SMALL) == 8
    assert network(make_batch(size=(8, 40)).images).shape == (2, 1, 8, 40)


@pytest.mark.parametrize(
    "changes", [{"inputs": 1}, {"inputs": 5}, {"width": 0}, {"width": 257}, {"norm_eps": 0.0}, {"norm_eps": 2.0}]
)
def test_a_size_that_cannot_be_is_refused(changes):
    with pytest.raises(UsageError, match="MX-MOD-005"):
        HinetConfig(**changes)


def test_a_normalisation_that_is_not_offered_is_refused():
    with pytest.raises(UsageError, match="MX-MOD-004"):
        HinetConfig(norm="layer")


def test_a_weight_out_of_range_is_refused():
    with pytest.raises(UsageError, match="MX-MOD-006"):
        HinetRecipeConfig(reconstruction_weight=-1)
