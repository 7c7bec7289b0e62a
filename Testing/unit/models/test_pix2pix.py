"""pix2pix: published sizes, where normalisation and dropout lie, and the conditional adversarial loss."""

from __future__ import annotations

import math

import pytest
import torch
from comparators import count, make_batch, make_state
from torch import nn

from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.models.blocks.adversarial import PairedRecipe, PairedRecipeConfig
from MedXlateCore.models.pix2pix import Pix2PixConfig, Pix2PixNetwork
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset

PIX2PIX = get_method("pix2pix")
SMALL = Pix2PixConfig(width=4, levels=3, dropout=0.0)


def on_meta(**changes):
    with torch.device("meta"):
        return Pix2PixNetwork(Pix2PixConfig(**changes))


@pytest.mark.parametrize(
    ("changes", "parameters"),
    # U-Net-256 with three channels in and out has 54,413,955; each channel in is 1,024 and each out 2,049 of them
    [({"inputs": 1}, 54_413_955 - 2 * 1024 - 2 * 2049), ({"inputs": 2}, 54_413_955 - 1024 - 2 * 2049)],
)
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_generator_has_the_published_number_of_parameters(changes, parameters, norm):
    assert count(on_meta(**changes, norm=norm)) == parameters


def test_the_discriminator_judges_source_and_target_together():
    recipe = PIX2PIX.recipe(SMALL, PairedRecipeConfig())
    # 70 x 70 PatchGAN with 3 + 3 channels: 2,768,705
    assert count(recipe.networks()["discriminator"]) == 2_768_705 - (6 - 3) * 64 * 16


def test_the_widths_are_the_published_ones():
    network = on_meta()
    convs = [m.out_channels for m in network.downs.modules() if isinstance(m, nn.Conv2d)]
    assert convs == [64, 128, 256, 512, 512, 512, 512, 512]


def test_the_first_and_the_innermost_convolution_have_no_normalisation():
    network = on_meta(norm="batch")
    normed = [any(isinstance(m, nn.BatchNorm2d) for m in down.modules()) for down in network.downs]
    assert normed == [False, *[True] * 6, False]


def test_dropout_lies_in_the_three_deepest_levels_of_the_decoder_and_never_at_the_output():
    for levels, expected in ((8, [5, 6, 7]), (4, [1, 2, 3]), (2, [1])):
        network = on_meta(levels=levels)
        found = [n for n, up in enumerate(network.ups) if any(isinstance(m, nn.Dropout) for m in up.modules())]
        assert found == expected


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    network = Pix2PixNetwork(Pix2PixConfig(width=4, levels=3, dropout=0.5))
    images = make_batch().images
    assert not torch.equal(network.train()(images), network(images))
    assert torch.equal(network.eval()(images), network(images))


def test_with_one_image_instance_normalisation_is_the_papers_batch_normalisation():
    torch.manual_seed(0)
    instance = Pix2PixNetwork(SMALL).eval()
    batch = Pix2PixNetwork(Pix2PixConfig(width=4, levels=3, dropout=0.0, norm="batch")).train()
    batch.load_state_dict(instance.state_dict(), strict=False)
    images = make_batch(1).images
    assert torch.allclose(instance(images), batch(images), atol=1e-6)


@pytest.mark.parametrize("levels", [2, 4, 6])
def test_the_levels_say_what_sizes_fit(levels):
    config = Pix2PixConfig(width=4, levels=levels)
    network, multiple = Pix2PixNetwork(config), PIX2PIX.size_multiple(config)
    assert multiple == 2**levels
    assert network(torch.rand(1, 2, multiple, 2 * multiple)).shape == (1, 1, multiple, 2 * multiple)
    with pytest.raises(InputError, match="MX-MOD-007"):
        network(torch.rand(1, 2, multiple, multiple + multiple // 2))


@pytest.mark.parametrize(
    "changes", [{"levels": 1}, {"levels": 9}, {"width": 0}, {"inputs": 17}, {"dropout": 1.0}, {"dropout": math.nan}]
)
def test_a_size_that_cannot_be_is_refused(changes):
    with pytest.raises(UsageError, match="MX-MOD-005"):
        Pix2PixConfig(**changes)


def test_the_paper_recipe_has_the_published_constants():
    config = get_recipe_preset(PIX2PIX, "paper")
    assert (config.learning_rate, config.l1_weight, config.adversarial_weight) == (2e-4, 100, 1)
    assert (config.adversarial, config.discriminator_width) == ("cross_entropy", 64)
    for optimiser in PairedRecipe(Pix2PixNetwork(SMALL), 2, config).optimisers().values():
        assert optimiser.defaults["betas"] == (0.5, 0.999)


def test_the_learning_rate_is_constant_for_half_the_training_then_falls_to_zero():
    factor = PIX2PIX.recipe(SMALL, PairedRecipeConfig(adversarial_weight=0)).learning_rate_factor
    assert [factor(p) for p in (0, 0.5, 0.75, 1.0)] == [1, 1, 0.5, 0]


@pytest.mark.parametrize("adversarial", ["cross_entropy", "least_squares"])
def test_a_step_gives_the_published_losses_and_steps_the_discriminator_first(adversarial):
    torch.manual_seed(0)
    config = PairedRecipeConfig(adversarial=adversarial, discriminator_width=4)
    recipe = PairedRecipe(Pix2PixNetwork(SMALL), 2, config)
    generator, discriminator = recipe.networks().values()
    batch, state = make_batch(), make_state(recipe)

    def towards(scores, truth):
        if adversarial == "least_squares":
            return (scores - truth).square().mean().item()
        return -torch.log(scores.sigmoid() if truth else 1 - scores.sigmoid()).mean().item()

    fake = generator(batch.images).detach()
    real_scores, fake_scores = discriminator(batch.target, batch.images), discriminator(fake, batch.images)
    losses = recipe.step(batch, state)
    assert losses["discriminator"] == pytest.approx(0.5 * (towards(real_scores, 1) + towards(fake_scores, 0)), rel=1e-4)
    assert losses["l1"] == pytest.approx((fake - batch.target).abs().mean().item(), rel=1e-5)
    assert losses["generator"] == pytest.approx(losses["adversarial"] + 100 * losses["l1"], rel=1e-5)
    # the discriminator that the generator was judged by had already stepped
    assert losses["adversarial"] == pytest.approx(towards(discriminator(fake, batch.images), 1), rel=1e-3)
    assert losses["adversarial"] != pytest.approx(towards(fake_scores, 1), rel=1e-3)


def test_the_discriminator_gets_no_gradient_from_the_generators_step():
    recipe = PairedRecipe(Pix2PixNetwork(SMALL), 2, PairedRecipeConfig(discriminator_width=4, l1_weight=0))
    state, calls = make_state(recipe), []
    discriminator = recipe.networks()["discriminator"]

    def backward(loss):
        loss.backward()
        calls.append([p.grad.clone() for p in discriminator.parameters()])

    state.backward = backward
    recipe.step(make_batch(), state)
    assert all(torch.equal(a, b) for a, b in zip(*calls, strict=True))


def test_without_an_adversarial_weight_there_is_no_discriminator():
    recipe = PairedRecipe(Pix2PixNetwork(SMALL), 2, PairedRecipeConfig(adversarial_weight=0))
    assert list(recipe.networks()) == list(recipe.optimisers()) == ["generator"]
    assert set(recipe.step(make_batch(), make_state(recipe))) == {"generator", "l1"}


@pytest.mark.parametrize("name", ["l1_weight", "adversarial_weight", "learning_rate", "discriminator_width"])
def test_a_recipe_constant_out_of_range_is_refused(name):
    with pytest.raises(UsageError, match="MX-MOD-006"):
        PairedRecipeConfig(**{name: -1})


def test_an_adversarial_loss_that_is_not_offered_is_refused():
    with pytest.raises(UsageError, match="MX-MOD-004"):
        PairedRecipeConfig(adversarial="wasserstein")


def test_the_tiny_preset_takes_slices_of_multiples_of_16():
    assert PIX2PIX.size_multiple(get_preset(PIX2PIX, "tiny")) == 16
