"""3D CycleGAN: sizes, its two kinds of generator, and pools of volumes."""

from __future__ import annotations

import pytest
import torch
from comparators import count, make_batch, make_state

from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.models.cyclegan3d import CycleGan3dConfig, CycleGan3dRecipeConfig
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset

CYCLEGAN3D = get_method("cyclegan3d")
SMALL = CycleGan3dConfig(width=2, generator="unet")
VOLUME = (16, 16, 24)


def small_recipe(config=SMALL, **changes):
    torch.manual_seed(0)
    constants = {"discriminator_width": 2, "discriminator_levels": 2} | changes
    return CYCLEGAN3D.recipe(config, CycleGan3dRecipeConfig(**constants))


def test_the_paper_preset_has_the_parameters_of_its_convolutions():
    with torch.device("meta"):
        networks = CYCLEGAN3D.recipe(*(get(CYCLEGAN3D, "paper") for get in (get_preset, get_recipe_preset))).networks()
    ends = 343 * 32 + 32 + 343 * 32 + 1
    halvings = 27 * (32 * 64 + 64 * 128) + 64 + 128
    doublings = 27 * (128 * 64 + 64 * 32) + 64 + 32
    blocks = 18 * (27 * 128 * 128 + 128)
    assert count(networks["generator"]) == count(networks["reverse"]) == ends + halvings + doublings + blocks
    judge = 64 * (32 + 32 * 64 + 64 * 128 + 128 * 256 + 256) + 32 + 64 + 128 + 256 + 1
    assert count(networks["discriminator"]) == count(networks["reverse_discriminator"]) == judge


@pytest.mark.parametrize("config", [SMALL, CycleGan3dConfig(width=2, blocks=1)])
def test_both_kinds_of_generator_take_eight_slices_and_no_fewer(config):
    assert CYCLEGAN3D.size_multiple(config) == 8
    network = CYCLEGAN3D.build(config)
    assert network(torch.zeros(1, 1, 8, 16, 24)).shape == (1, 1, 8, 16, 24)
    with pytest.raises(InputError, match="MX-MOD-007"):
        network(torch.zeros(1, 1, 4, 16, 24))


@pytest.mark.parametrize("config", [SMALL, CycleGan3dConfig(width=2, blocks=1)])
def test_a_step_gives_cyclegans_losses(config):
    recipe = small_recipe(config)
    forwards, backwards, judge, reverse_judge = recipe.networks().values()
    batch = make_batch(1, VOLUME, sources=1)
    x, y = batch.images, batch.target
    with torch.no_grad():
        made, back = forwards(x), backwards(y)
        cycle = (backwards(made) - x).abs().mean() + (forwards(back) - y).abs().mean()
        identity = (forwards(y) - y).abs().mean() + (backwards(x) - x).abs().mean()
        adversarial = (judge(made) - 1).square().mean() + (reverse_judge(back) - 1).square().mean()
    losses = recipe.step(batch, make_state(recipe))
    assert losses["generator"] == pytest.approx((10 * cycle + 5 * identity + adversarial).item(), rel=1e-5)


def test_the_pool_holds_volumes_and_a_checkpoint_the_pool():
    recipe, other = small_recipe(pool=2), small_recipe(pool=2)
    state = make_state(recipe)
    for seed in range(3):
        recipe.step(make_batch(1, VOLUME, sources=1, seed=seed), state)
    judge = recipe.networks()["discriminator"]
    assert judge.pool.images.shape == (2, 1, *VOLUME)
    other.networks()["discriminator"].load_state_dict(judge.state_dict())
    assert torch.equal(other.networks()["discriminator"].pool.images, judge.pool.images)


def test_it_is_trained_without_pairs_and_the_tiny_preset_without_identity_terms():
    assert CYCLEGAN3D.unpaired
    assert get_recipe_preset(CYCLEGAN3D, "tiny").identity_weight == 0
    paper = get_recipe_preset(CYCLEGAN3D, "paper")
    assert (paper.cycle_weight, paper.identity_weight, paper.pool) == (10, 0.5, 10)


@pytest.mark.parametrize(
    ("changes", "code"), [({"levels": 1}, "005"), ({"width": 0}, "005"), ({"generator": "vit"}, "004")]
)
def test_a_generator_that_cannot_be_is_refused(changes, code):
    with pytest.raises(UsageError, match=f"MX-MOD-{code}"):
        CycleGan3dConfig(**changes)


@pytest.mark.parametrize("name", ["discriminator_levels", "pool", "cycle_weight"])
def test_a_recipe_constant_out_of_range_is_refused(name):
    with pytest.raises(UsageError, match="MX-MOD-006"):
        CycleGan3dRecipeConfig(**{name: -1})
