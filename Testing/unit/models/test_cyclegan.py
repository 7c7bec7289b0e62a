"""CycleGAN: published sizes and losses, unpaired targets, and a pool that a checkpoint holds."""

from __future__ import annotations

import pytest
import torch
from comparators import count, make_batch, make_state

from MedXlateCore.errors import UsageError
from MedXlateCore.models.blocks.image_pool import ImagePool
from MedXlateCore.models.cyclegan import CycleGanConfig, CycleGanRecipe, CycleGanRecipeConfig
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset

CYCLEGAN = get_method("cyclegan")
SMALL = CycleGanConfig(width=4, blocks=1)


def small_recipe(**changes):
    torch.manual_seed(0)
    return CycleGanRecipe(SMALL, CycleGanRecipeConfig(discriminator_width=4, **changes))


def test_the_networks_have_the_published_numbers_of_parameters():
    with torch.device("meta"):
        networks = CYCLEGAN.recipe(get_preset(CYCLEGAN, "paper"), get_recipe_preset(CYCLEGAN, "paper")).networks()
    # three channels in and out: 11,378,179; each channel in or out is 49 x 64 weights, each out also a bias
    assert count(networks["generator"]) == count(networks["reverse"]) == 11_378_179 - 4 * 49 * 64 - 2
    # 70 x 70 PatchGAN for three channels with instance normalisation: 2,764,737
    assert count(networks["discriminator"]) == count(networks["reverse_discriminator"]) == 2_764_737 - 2 * 16 * 64


def test_it_is_trained_without_pairs():
    assert CYCLEGAN.unpaired


def test_the_recipes_have_the_published_constants():
    paper, cgan = (get_recipe_preset(CYCLEGAN, name) for name in ("paper", "cgan"))
    assert (paper.learning_rate, paper.cycle_weight, paper.identity_weight, paper.pool) == (2e-4, 10, 0.5, 50)
    assert cgan.cycle_weight == 100
    for optimiser in small_recipe().optimisers().values():
        assert optimiser.defaults["betas"] == (0.5, 0.999)
    assert [small_recipe().learning_rate_factor(p) for p in (0, 0.5, 0.75, 1)] == [1, 1, 0.5, 0]


def test_a_step_gives_the_published_losses():
    recipe = small_recipe()
    forwards, backwards, judge, reverse_judge = recipe.networks().values()
    batch = make_batch(sources=1)
    x, y = batch.images, batch.target
    with torch.no_grad():
        made, back = forwards(x), backwards(y)
        cycle = (backwards(made) - x).abs().mean() + (forwards(back) - y).abs().mean()
        identity = (forwards(y) - y).abs().mean() + (backwards(x) - x).abs().mean()
        adversarial = (judge(made) - 1).square().mean() + (reverse_judge(back) - 1).square().mean()
        on_real_and_fake = 0.5 * ((judge(y) - 1).square().mean() + judge(made).square().mean())
    losses = recipe.step(batch, make_state(recipe))
    assert losses["cycle"] == pytest.approx(cycle.item(), rel=1e-5)
    assert losses["identity"] == pytest.approx(identity.item(), rel=1e-5)
    assert losses["adversarial"] == pytest.approx(adversarial.item(), rel=1e-5)
    assert losses["generator"] == pytest.approx((10 * cycle + 5 * identity + adversarial).item(), rel=1e-5)
    assert losses["discriminator"] == pytest.approx(on_real_and_fake.item(), rel=1e-5)


def test_without_an_identity_weight_there_is_no_identity_term():
    recipe = small_recipe(identity_weight=0)
    assert "identity" not in recipe.step(make_batch(sources=1), make_state(recipe))


def test_the_discriminators_get_no_gradient_from_the_generators_step():
    recipe = small_recipe()
    state, seen = make_state(recipe), []
    state.backward = lambda loss: (
        loss.backward(),
        seen.append([p.grad for p in recipe.networks()["discriminator"].parameters()]),
    )
    recipe.step(make_batch(sources=1), state)
    assert all(grad is None for grad in seen[0])
    assert all(grad is not None for grad in seen[1])


def test_the_pool_keeps_images_until_it_is_full_and_then_gives_old_ones_back():
    pool, generator = ImagePool(4), torch.Generator().manual_seed(0)
    first = torch.arange(4.0).view(4, 1, 1, 1)
    assert torch.equal(pool(first, generator), first)
    returned, seen = [], set(range(4))
    for n in range(4, 60):
        (value,) = pool(torch.full((1, 1, 1, 1), float(n)), generator).flatten().tolist()
        seen.add(n)
        assert value in seen
        returned.append(value != n)
        assert len(pool.images) == 4
    assert 15 < sum(returned) < 41  # about half


def test_a_pool_of_size_zero_passes_images_on():
    image = torch.rand(2, 1, 4, 4)
    assert torch.equal(ImagePool(0)(image, torch.Generator()), image)


def test_a_stored_pool_is_taken_over_and_goes_on_with_the_same_bits():
    recipe, other = small_recipe(pool=3), small_recipe(pool=3)
    state = make_state(recipe)
    for seed in range(3):
        recipe.step(make_batch(sources=1, seed=seed), state)
    for name, network in recipe.networks().items():
        other.networks()[name].load_state_dict(network.state_dict())
    assert len(other.networks()["discriminator"].pool.images) == 3
    batch = make_batch(sources=1, seed=9)
    pools = [r.networks()["discriminator"].pool for r in (recipe, other)]
    shown = [pool(batch.target, torch.Generator().manual_seed(4)) for pool in pools]
    assert torch.equal(*shown)
    assert not torch.equal(shown[0], batch.target)


@pytest.mark.parametrize("changes", [{"width": 0}, {"blocks": 0}, {"blocks": 33}])
def test_a_size_that_cannot_be_is_refused(changes):
    with pytest.raises(UsageError, match="MX-MOD-005"):
        CycleGanConfig(**changes)


@pytest.mark.parametrize("name", ["cycle_weight", "identity_weight", "adversarial_weight", "pool", "learning_rate"])
def test_a_recipe_constant_out_of_range_is_refused(name):
    with pytest.raises(UsageError, match="MX-MOD-006"):
        CycleGanRecipeConfig(**{name: -1})
