"""RegGAN: published generator, one score an image, a registration that serves training only."""

from __future__ import annotations

import pytest
import torch
from comparators import count, make_batch, make_state

from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.models.blocks.registration import warp
from MedXlateCore.models.method import Batch
from MedXlateCore.models.reggan import RegganConfig, RegganNetwork, RegganRecipe, RegganRecipeConfig
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset

REGGAN = get_method("reggan")
SMALL = RegganConfig(width=4, blocks=1)
SMALL_RECIPE = RegganRecipeConfig(discriminator_width=4, registration_width=4, registration_levels=2)


@pytest.mark.parametrize(
    ("changes", "parameters"),
    # ResNet-9 with three channels in and out has 11,378,179; each channel in has 49 * 64 of them, each out one more
    [({"inputs": 1}, 11_378_179 - 2 * 3136 - 2 * 3137), ({"inputs": 2}, 11_378_179 - 3136 - 2 * 3137)],
)
def test_the_generator_has_the_published_number_of_parameters(changes, parameters):
    with torch.device("meta"):
        assert count(RegganNetwork(RegganConfig(**changes))) == parameters


def test_the_tiny_preset_has_the_stated_number_of_parameters():
    assert count(REGGAN.build(get_preset(REGGAN, "tiny"))) == 713_297


def test_the_registration_is_trained_but_not_part_of_what_is_packaged():
    recipe = RegganRecipe(SMALL, SMALL_RECIPE)
    assert set(recipe.networks()) == set(recipe.optimisers()) == {"generator", "registration", "discriminator"}
    assert recipe.networks()["generator"].state_dict().keys() == REGGAN.build(SMALL).state_dict().keys()


def test_the_paper_recipe_has_the_published_constants():
    config = get_recipe_preset(REGGAN, "paper")
    assert (config.learning_rate, config.l1_weight, config.adversarial_weight) == (1e-4, 20, 1)
    assert (config.smoothness_weight, config.adversarial, config.discriminator_width) == (10, "least_squares", 64)
    factor = RegganRecipe(SMALL, SMALL_RECIPE).learning_rate_factor
    assert [factor(epoch / 80) for epoch in (0, 20, 50, 80)] == [1, 1, 0.5, 0]


def test_a_step_gives_the_published_losses_with_one_score_an_image():
    torch.manual_seed(0)
    recipe = RegganRecipe(SMALL, SMALL_RECIPE)
    networks = recipe.networks()
    torch.nn.init.normal_(networks["registration"].output.weight, std=0.1)  # so that something moves
    batch, state = make_batch(), make_state(recipe)
    fake = networks["generator"](batch.images).detach()
    field = networks["registration"](fake, batch.target).detach()
    real_scores, fake_scores = (networks["discriminator"](x).detach() for x in (batch.target, fake))
    assert real_scores.shape[1:] != (1, 1, 1)
    real, synthetic = (scores.mean(dim=(1, 2, 3)) for scores in (real_scores, fake_scores))
    losses = recipe.step(batch, state)
    assert losses["discriminator"] == pytest.approx(((real - 1).square().mean() + synthetic.square().mean()).item() / 2)
    assert losses["l1"] == pytest.approx((warp(fake, field) - batch.target).abs().mean().item(), rel=1e-4)
    down, right = field[:, :, 1:] - field[:, :, :-1], field[..., 1:] - field[..., :-1]
    assert losses["smoothness"] == pytest.approx((down**2).mean().item() + (right**2).mean().item(), rel=1e-4)
    total = losses["adversarial"] + 20 * losses["l1"] + 10 * losses["smoothness"]
    assert losses["generator"] == pytest.approx(total, rel=1e-5)


def test_the_registration_learns_to_explain_a_shift():
    """A generator that cannot move anything, sources that are the target three pixels to the side."""
    torch.manual_seed(0)
    config = RegganRecipeConfig(adversarial_weight=0, registration_width=8, registration_levels=2)
    recipe = RegganRecipe(SMALL, config)
    state = make_state(recipe)
    state.optimisers["registration"].param_groups[0]["lr"] = 3e-3
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")

    def blob(column):
        return torch.exp(-((rows - 16) ** 2 + (columns - column) ** 2) / 20).expand(1, 1, 32, 32) * 2 - 1

    moved, target = blob(13), blob(16)
    batch = Batch(moved.repeat(1, 2, 1, 1), target, torch.zeros(1, 2, 32, 32), torch.ones(1, 1, 32, 32))
    recipe.synthesise = lambda batch, state: batch.images[:, :1]
    for _ in range(60):
        last = recipe.step(batch, state)
    assert last["l1"] < 0.5 * (moved - target).abs().mean().item()
    field = recipe.networks()["registration"](moved, target)
    assert field[0, 1, 12:21, 12:21].mean() < -1  # what is seen at 16 lies at 13
    assert field[0, 0, 12:21, 12:21].abs().mean() < 1


def test_images_too_small_to_register_are_refused():
    recipe = RegganRecipe(SMALL, RegganRecipeConfig(discriminator_width=4, registration_width=4))
    with pytest.raises(InputError, match="MX-MOD-007"):
        recipe.step(make_batch(size=(28, 32)), make_state(recipe))


def test_sizes_are_multiples_of_4():
    network = RegganNetwork(SMALL).eval()
    assert REGGAN.size_multiple(SMALL) == 4
    assert network(make_batch(size=(12, 28)).images).shape == (2, 1, 12, 28)


@pytest.mark.parametrize("changes", [{"inputs": 0}, {"inputs": 17}, {"width": 0}, {"blocks": 0}, {"blocks": 33}])
def test_a_size_that_cannot_be_is_refused(changes):
    with pytest.raises(UsageError, match="MX-MOD-005"):
        RegganConfig(**changes)


@pytest.mark.parametrize(
    "changes", [{"smoothness_weight": -1}, {"registration_width": 0}, {"registration_levels": 0}, {"constant_part": 2}]
)
def test_a_recipe_constant_out_of_range_is_refused(changes):
    with pytest.raises(UsageError, match="MX-MOD-006"):
        RegganRecipeConfig(**changes)
