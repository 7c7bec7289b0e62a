"""TLP: published sizes, switches, what the network refuses, and the recipe's losses."""

from __future__ import annotations

import math

import pytest
import torch

from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.models.method import Batch, TrainingState
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset
from MedXlateCore.models.tlp import TlpConfig, TlpNetwork, TlpRecipe, TlpRecipeConfig

TLP = get_method("tlp")
TINY = TLP.presets["tiny"]


def n_parameters(**changes):
    with torch.device("meta"):
        network = TlpNetwork(TlpConfig(**changes))
    return sum(p.numel() for p in network.parameters())


def make_batch(n=2, size=(32, 24), sources=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(n, sources, *size, generator=generator) * 2 - 1
    target = torch.rand(n, 1, *size, generator=generator) * 2 - 1
    regions = torch.zeros(n, 2, *size)
    regions[:, 0, 8:18, 6:14] = 1
    regions[:, 1, 10:14, 8:12] = 1
    foreground = torch.zeros(n, 1, *size)
    foreground[:, :, 2:-2, 2:-2] = 1
    return Batch(images, target, regions, foreground)


def make_state(recipe, seed=0, step=0):
    generator = torch.Generator().manual_seed(seed)
    return TrainingState(recipe.networks(), recipe.optimisers(), lambda loss: loss.backward(), generator, step)


@pytest.mark.parametrize(
    ("changes", "count"),
    [({}, 16_354_882), ({"inputs": 1}, 10_523_624), ({"ffn": "gdfn"}, 5_933_890), ({"dim": 8}, 464_122)],
)
def test_it_has_the_published_number_of_parameters(changes, count):
    assert n_parameters(**changes) == count


def test_both_published_presets_have_the_published_size():
    for preset in ("paper", "code"):
        config = TLP.presets[preset]
        assert n_parameters(**vars(config)) == 16_354_882


def test_one_source_has_no_fusion_but_keeps_the_bottleneck_attention():
    keys = TlpNetwork(TlpConfig(inputs=1, dim=8)).state_dict()
    assert not [key for key in keys if "fusion" in key]
    assert [key for key in keys if key.startswith("bottleneck_attention.")]


@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("ffn", ["tlp_dense", "gdfn"])
def test_every_depth_gives_an_image_in_range(inputs, levels, ffn):
    network = TlpNetwork(TlpConfig(inputs=inputs, dim=8, levels=levels, ffn=ffn))
    output = network(torch.rand(1, inputs, 24, 16) * 2 - 1, torch.zeros(1, 1, 24, 16))
    assert output.shape == (1, 1, 24, 16)
    assert output.abs().max() <= 1


@pytest.mark.parametrize(
    "changes", [{"fusion": "concat1x1"}, {"gf": False}, {"gf_residual": "raw"}, {"bottleneck_attention": False}]
)
def test_every_ablation_is_another_network(changes):
    images, roi = make_batch().images, torch.zeros(2, 1, 32, 24)
    torch.manual_seed(0)
    whole = TlpNetwork(TlpConfig(dim=8))
    torch.manual_seed(0)
    ablated = TlpNetwork(TlpConfig(dim=8, **changes))
    if whole.state_dict().keys() == ablated.state_dict().keys():
        ablated.load_state_dict(whole.state_dict())
    for network in (whole, ablated):
        for p in network.parameters():
            p.data *= 5  # initial weights are so small that all outputs are nearly zero
    assert not torch.allclose(whole(images, roi), ablated(images, roi), atol=1e-4)


def test_the_order_of_the_sources_matters():
    network = TlpNetwork(TINY)
    images = make_batch().images
    assert not torch.equal(network(images), network(images.flip(1)))


def test_a_binary_network_does_not_tell_oedema_from_core():
    roi = torch.zeros(1, 1, 32, 24)
    roi[..., 8:16, 8:16] = 0.5
    images = make_batch(1).images
    torch.manual_seed(0)
    binary = TlpNetwork(TlpConfig(dim=8, prompt_encoding="binary"))
    assert torch.equal(binary(images, roi), binary(images, 2 * roi))
    torch.manual_seed(0)
    two_region = TlpNetwork(TlpConfig(dim=8))
    assert not torch.equal(two_region(images, roi), two_region(images, 2 * roi))


@pytest.mark.parametrize(
    ("images", "roi", "code"),
    [
        ((1, 1, 32, 24), (1, 1, 32, 24), "MX-MOD-008"),
        ((1, 3, 32, 24), (1, 1, 32, 24), "MX-MOD-008"),
        ((2, 32, 24), (1, 1, 32, 24), "MX-MOD-008"),
        ((1, 2, 30, 24), (1, 1, 30, 24), "MX-MOD-007"),
        ((1, 2, 32, 25), (1, 1, 32, 25), "MX-MOD-007"),
        ((0, 2, 32, 24), (0, 1, 32, 24), "MX-MOD-007"),
        ((1, 2, 32, 24), (1, 1, 24, 32), "MX-MOD-009"),
        ((2, 2, 32, 24), (1, 1, 32, 24), "MX-MOD-009"),
        ((1, 2, 32, 24), (1, 2, 32, 24), "MX-MOD-009"),
    ],
)
def test_what_does_not_fit_is_refused(images, roi, code):
    with pytest.raises(InputError, match=code):
        TlpNetwork(TINY)(torch.zeros(images), torch.zeros(roi))


@pytest.mark.parametrize("dim", [0, -8, 7, 9, 10, 10_000_000])
def test_a_width_that_cannot_be_is_refused(dim):
    with pytest.raises(UsageError, match="MX-MOD-005"):
        TlpConfig(dim=dim)


@pytest.mark.parametrize("changes", [{"inputs": 3}, {"levels": 0}, {"fusion": "sum"}, {"ffn": "mlp"}])
def test_a_choice_that_is_not_offered_is_refused(changes):
    with pytest.raises(UsageError, match="MX-MOD-004"):
        TlpConfig(**changes)


@pytest.mark.parametrize("name", ["sham_probability", "l1_weight", "discriminator_width", "learning_rate"])
def test_a_recipe_constant_out_of_range_is_refused(name):
    with pytest.raises(UsageError, match="MX-MOD-006"):
        TlpRecipeConfig(**{name: -1})


def test_the_recipe_presets_are_the_published_ones():
    paper, code = (get_recipe_preset(TLP, name) for name in ("paper", "code"))
    assert get_preset(TLP, "paper").prompt_encoding == "binary"
    assert get_preset(TLP, "code").prompt_encoding == "two_region"
    assert (paper.fpg_t_core, paper.fpg_per_sample) == (5, True)
    assert (code.fpg_t_edema, code.fpg_t_core, code.fpg_per_sample) == (2, 5, False)
    for recipe in (paper, code):
        assert (recipe.fpg_p, recipe.fpg_q, recipe.l1_weight, recipe.learning_rate) == (0.9, 0.5, 100, 1e-4)
        assert (recipe.adversarial_weight, recipe.sham_probability, recipe.region_l1_weight) == (1, 0, 0)


def test_the_learning_rate_is_constant_for_half_the_training_then_falls_to_zero():
    factor = TlpRecipe(TINY, TlpRecipeConfig(adversarial_weight=0)).learning_rate_factor
    assert [factor(p) for p in (0, 0.25, 0.5)] == [1, 1, 1]
    assert factor(0.75) == pytest.approx(0.5)
    assert factor(1.0) == 0
    assert factor(1.5) == 0


def test_both_optimisers_are_the_published_adam():
    for optimiser in TlpRecipe(TINY, get_recipe_preset(TLP, "code")).optimisers().values():
        assert optimiser.defaults["betas"] == (0.5, 0.999)
        assert optimiser.defaults["lr"] == 1e-4


def test_without_an_adversarial_weight_there_is_no_discriminator():
    recipe = TlpRecipe(TINY, TlpRecipeConfig(adversarial_weight=0))
    assert list(recipe.networks()) == list(recipe.optimisers()) == ["generator"]
    losses = recipe.step(make_batch(), make_state(recipe))
    assert set(losses) == {"generator", "l1"}


def test_a_step_gives_the_published_losses_and_steps_the_discriminator_first():
    torch.manual_seed(0)
    recipe = TlpRecipe(TINY, TlpRecipeConfig(discriminator_width=4, fpg_q=1.0))
    generator, discriminator = recipe.networks()["generator"], recipe.networks()["discriminator"]
    batch, state = make_batch(), make_state(recipe)
    fake = generator(batch.images, torch.zeros_like(batch.target)).detach()
    expected_d = 0.5 * ((discriminator(batch.target) - 1).square().mean() + discriminator(fake).square().mean())
    losses = recipe.step(batch, state)
    assert losses["discriminator"] == pytest.approx(expected_d.item(), rel=1e-5)
    assert losses["l1"] == pytest.approx((fake - batch.target).abs().mean().item(), rel=1e-5)
    assert losses["generator"] == pytest.approx(losses["adversarial"] + 100 * losses["l1"], rel=1e-5)
    # the discriminator that the generator was judged by had already stepped
    assert losses["adversarial"] == pytest.approx((discriminator(fake) - 1).square().mean().item(), rel=1e-4)


def test_the_generators_step_leaves_no_gradient_in_the_discriminator():
    recipe = TlpRecipe(TINY, TlpRecipeConfig(discriminator_width=4))
    discriminator = recipe.networks()["discriminator"]
    state = make_state(recipe)
    recipe.step(make_batch(), state)
    after_first = [p.grad.clone() for p in discriminator.parameters()]
    losses = recipe.step(make_batch(), state)
    assert math.isfinite(losses["generator"])
    assert any(not torch.equal(a, p.grad) for a, p in zip(after_first, discriminator.parameters(), strict=True))


def test_the_region_loss_counts_annotated_pixels_only():
    recipe = TlpRecipe(TINY, TlpRecipeConfig(adversarial_weight=0, region_l1_weight=10, fpg_q=1.0))
    batch = make_batch()
    fake = recipe.networks()["generator"](batch.images).detach()
    mask = batch.regions.amax(dim=1, keepdim=True).bool()
    losses = recipe.step(batch, make_state(recipe))
    assert losses["region_l1"] == pytest.approx((fake - batch.target).abs()[mask].mean().item(), rel=1e-5)
    assert losses["generator"] == pytest.approx(100 * losses["l1"] + 10 * losses["region_l1"], rel=1e-5)


def test_sham_prompts_lie_beside_the_lesion_and_leave_the_published_prompt_alone():
    batch = make_batch(8)
    shamming = TlpRecipe(TINY, TlpRecipeConfig(adversarial_weight=0, sham_probability=1.0, fpg_q=1.0))
    prompt = shamming.prompt(batch, torch.Generator().manual_seed(0))
    lesion = batch.regions.amax(dim=1, keepdim=True)
    assert (prompt.flatten(1).amax(1) > 0).all()
    assert (prompt * lesion).max() == 0
    assert (prompt * (1 - batch.foreground)).max() == 0
    plain = TlpRecipe(TINY, TlpRecipeConfig(adversarial_weight=0, fpg_q=0.5))
    some = TlpRecipe(TINY, TlpRecipeConfig(adversarial_weight=0, fpg_q=0.5, sham_probability=1e-9))
    prompts = [r.prompt(batch, torch.Generator().manual_seed(3)) for r in (plain, some)]
    assert torch.equal(*prompts)


def test_training_without_foreground_or_regions_works():
    recipe = TlpRecipe(TINY, TlpRecipeConfig(adversarial_weight=0, sham_probability=1.0, region_l1_weight=1.0))
    batch = make_batch()
    empty = Batch(batch.images, batch.target, torch.zeros_like(batch.regions), torch.zeros_like(batch.foreground))
    losses = recipe.step(empty, make_state(recipe))
    assert losses["region_l1"] == 0
    assert math.isfinite(losses["generator"])


def test_the_same_generator_seed_draws_the_same_step():
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        recipe = TlpRecipe(TINY, TlpRecipeConfig(discriminator_width=4, sham_probability=0.5))
        results.append(recipe.step(make_batch(), make_state(recipe, seed=5)))
    assert results[0] == results[1]


def test_training_reaches_the_weights_that_read_the_prompt():
    recipe = TlpRecipe(TINY, TlpRecipeConfig(adversarial_weight=0, fpg_q=0.0))
    stems = [encoder.stem.weight for encoder in recipe.networks()["generator"].encoders]
    before = [stem[:, 1].detach().clone() for stem in stems]
    recipe.step(make_batch(), make_state(recipe))
    assert all((stem[:, 1] != old).any() for stem, old in zip(stems, before, strict=True))
