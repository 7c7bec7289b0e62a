"""Ea-GAN: the Sobel map against SciPy's filters, where the maps enter, smoothed labels, and the published constants."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from comparators import count, make_batch, make_state
from scipy import ndimage

from MedXlateCore.errors import UsageError
from MedXlateCore.models.ea_gan import EaGanConfig, EaGanRecipeConfig, sobel_map
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset

EA_GAN = get_method("ea_gan")
SMALL = EaGanConfig(width=2, levels=3, dropout=0.0)
VOLUME = (16, 16, 24)


def small_recipe(**changes):
    torch.manual_seed(0)
    constants = {"discriminator_width": 2, "discriminator_levels": 2, "edge_ramp": 0.0} | changes
    return EA_GAN.recipe(SMALL, EaGanRecipeConfig(**constants))


def test_the_map_is_that_of_scipys_filters():
    volume = np.random.default_rng(0).uniform(-0.1, 0.1, (7, 8, 9))
    slopes = [ndimage.sobel(volume, axis, mode="nearest") / 4 for axis in range(3)]
    expected = 2 * np.tanh(np.sqrt(np.square(slopes).sum(axis=0))) - 1
    result = sobel_map(torch.from_numpy(volume).float()[None, None])[0, 0].numpy()
    np.testing.assert_allclose(result, expected, atol=2e-6)
    assert np.ptp(expected) > 0.5


def test_a_step_along_one_axis_has_the_map_that_one_finds_by_hand():
    for axis in (2, 3, 4):
        volume = torch.full((1, 1, 6, 6, 6), -0.5)
        volume.narrow(axis, 3, 3).add_(0.1)
        steep = sobel_map(volume).narrow(axis, 2, 2)  # difference 0.1, weights 16 in all, a quarter
        assert torch.allclose(steep, torch.tensor(2 * np.tanh(0.4) - 1).float(), atol=1e-5)
        assert torch.allclose(sobel_map(volume).narrow(axis, 4, 2), torch.tensor(-1.0), atol=1e-5)


def test_a_flat_volume_has_no_edges_at_its_borders_and_finite_gradients():
    volume = torch.full((1, 1, 4, 4, 4), -1.0, requires_grad=True)
    result = sobel_map(volume)
    assert torch.allclose(result, torch.tensor(-1.0), atol=1e-5)
    result.sum().backward()
    assert torch.equal(volume.grad, torch.zeros_like(volume))


def test_the_map_is_taken_in_full_precision():
    volume = torch.rand(1, 1, 4, 6, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sobel_map(volume), sobel_map(volume.float()))


def test_the_paper_preset_has_seven_levels_and_the_parameters_of_its_convolutions_and_norms():
    config = get_preset(EA_GAN, "paper", {"inputs": 1})
    with torch.device("meta"):
        networks = EA_GAN.recipe(config, get_recipe_preset(EA_GAN, "paper")).networks()
    widths = [64, 128, 256, 512, 512, 512, 512]
    pairs = [*itertools.pairwise(widths)]
    down = 64 * (64 + sum(a * b for a, b in pairs)) + 2 * sum(widths[1:-1])
    up = 64 * (sum(2 * a * b for a, b in pairs) - 512 * 512 + 2 * 64) + 1 + 2 * sum(widths[:-1])
    assert count(networks["generator"]) == down + up == 167_267_969
    assert networks["discriminator"].layers[0].in_channels == 3  # source, image and the image's map
    assert EA_GAN.size_multiple(config) == 128
    assert EA_GAN.size_multiple(get_preset(EA_GAN, "shallow")) == 16


def test_the_paper_recipe_has_the_published_constants():
    config = get_recipe_preset(EA_GAN, "paper")
    assert (config.learning_rate, config.l1_weight, config.edge_weight) == (2e-4, 300, 100)
    assert config.adversarial == "least_squares"
    factor = small_recipe(constant_part=config.constant_part).learning_rate_factor
    assert [round(factor(epoch / 150), 6) for epoch in (0, 100, 125, 150)] == [1, 1, 0.5, 0]


@pytest.mark.parametrize("edges", [True, False])
def test_a_step_gives_the_published_losses(edges):
    recipe = small_recipe(edge_discriminator=edges)
    generator, judge = recipe.networks().values()
    batch = make_batch(1, VOLUME)

    def scores(image):
        return judge(image, torch.cat((batch.images, *([sobel_map(image)] if edges else [])), dim=1))

    fake = generator(batch.images).detach()
    expected = 0.5 * ((scores(batch.target) - 0.9).square().mean() + scores(fake).square().mean())
    losses = recipe.step(batch, make_state(recipe))
    assert losses["discriminator"] == pytest.approx(expected.item(), rel=1e-4)
    assert losses["adversarial"] == pytest.approx((scores(fake) - 1).square().mean().item(), rel=1e-3)
    assert losses["l1"] == pytest.approx((fake - batch.target).abs().mean().item(), rel=1e-5)
    assert losses["edges"] == pytest.approx((sobel_map(fake) - sobel_map(batch.target)).abs().mean().item(), rel=1e-5)
    total = losses["adversarial"] + 300 * losses["l1"] + 100 * losses["edges"]
    assert losses["generator"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 0), (0.05, 50), (0.1, 100), (1.0, 100)])
def test_the_weight_of_the_edges_rises_over_the_first_part_of_the_training(progress, weight):
    recipe = small_recipe(edge_ramp=0.1, adversarial_weight=0.0)
    state = make_state(recipe)
    state.progress = progress
    losses = recipe.step(make_batch(1, VOLUME), state)
    assert losses["generator"] == pytest.approx(300 * losses["l1"] + weight * losses["edges"], rel=1e-5)


def test_the_discriminators_gradient_reaches_the_generator_through_the_map():
    recipe, batch = small_recipe(), make_batch(1, VOLUME)
    state, judge = make_state(recipe), recipe.networks()["discriminator"]
    with torch.no_grad():
        judge.layers[0].weight[:, 0] = 0  # the discriminator sees the image in its map only
    made = recipe.synthesise(batch, state).detach().requires_grad_(True)
    recipe.scores(made, batch, state).sum().backward()
    assert made.grad.abs().sum() > 0


@pytest.mark.parametrize("changes", [{"edge_ramp": 1.5}, {"real_label": 0.0}, {"edge_weight": -1.0}])
def test_a_recipe_constant_out_of_range_is_refused(changes):
    with pytest.raises(UsageError, match="MX-MOD-006"):
        EaGanRecipeConfig(**changes)
