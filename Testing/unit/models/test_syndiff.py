"""SynDiff: the noise, a chain whose randomness is fixed, published sizes and losses, both errors of the result."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from comparators import make_batch, make_state
from torch import nn

from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.models.blocks.diffusion import DiffusiveUnet, NoiseSchedule, StepDiscriminator, time_embedding
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset
from MedXlateCore.models.syndiff import SynDiffConfig, SynDiffNetwork, SynDiffRecipe, SynDiffRecipeConfig

SYNDIFF = get_method("syndiff")
SMALL = SynDiffConfig(width=4, factors=(1, 2), blocks=1, attention=1, latent=3)
RECIPE = SynDiffRecipeConfig(translator_width=4, translator_blocks=1, discriminator_width=4, discriminator_downs=2)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return SynDiffNetwork(SMALL).eval()


def small_recipe(**changes):
    torch.manual_seed(0)
    return SynDiffRecipe(SMALL, replace(RECIPE, **changes))


# --- noise ---------------------------------------------------------------------------------------------------------


def test_the_noise_has_the_published_rates():
    schedule = NoiseSchedule(4, 0.1, 20.0)
    expected = [math.exp(-(0.1 * t + 0.5 * (20 - 0.1) * t**2)) for t in (0, 0.25, 0.5, 0.75, 1)]
    assert schedule.kept == pytest.approx(expected)
    assert schedule.kept[0] == 1
    assert schedule.kept[-1] < 1e-4


@pytest.mark.parametrize("step", range(4))
def test_a_step_of_noise_leads_from_one_level_to_the_next(step):
    schedule, generator = NoiseSchedule(4), torch.Generator().manual_seed(step)
    image = torch.full((1, 1, 300, 300), 0.7)
    noises = [torch.randn(image.shape, generator=generator) for _ in range(3)]
    direct = schedule.noised(image, step + 1, noises[0])
    stepwise = schedule.noisier(schedule.noised(image, step, noises[1]), torch.tensor([step]), noises[2])
    assert stepwise.mean().item() == pytest.approx(direct.mean().item(), abs=0.02)
    assert stepwise.std().item() == pytest.approx(direct.std().item(), abs=0.02)


@pytest.mark.parametrize("step", range(4))
def test_a_step_back_from_the_true_image_leads_to_the_level_below(step):
    schedule, generator = NoiseSchedule(4), torch.Generator().manual_seed(step)
    image = torch.full((1, 1, 300, 300), 0.7)
    noises = [torch.randn(image.shape, generator=generator) for _ in range(3)]
    back = schedule.denoised(image, schedule.noised(image, step + 1, noises[0]), step, noises[1])
    direct = schedule.noised(image, step, noises[2])
    assert back.mean().item() == pytest.approx(direct.mean().item(), abs=0.02)
    assert back.std().item() == pytest.approx(direct.std().item(), abs=0.02)


def test_the_last_step_is_the_prediction_itself():
    schedule = NoiseSchedule(4)
    clean, noisy, noise = torch.rand(3, 2, 1, 8, 8).unbind()
    assert torch.allclose(schedule.denoised(clean, noisy, 0, noise), clean, atol=1e-6)
    each = schedule.denoised(clean, noisy, torch.tensor([0, 2]), noise)
    assert torch.allclose(each[:1], clean[:1], atol=1e-6)
    assert torch.allclose(each[1:], schedule.denoised(clean, noisy, 2, noise)[1:])


def test_steps_are_told_apart():
    embedded = time_embedding(torch.arange(4), 16)
    assert embedded.shape == (4, 16)
    assert all(not torch.allclose(embedded[a], embedded[b], atol=0.1) for a in range(4) for b in range(a))


# --- the network ---------------------------------------------------------------------------------------------------


def test_the_paper_preset_has_the_published_sizes():
    paper = get_preset(SYNDIFF, "paper")
    assert (paper.width, paper.factors, paper.blocks, paper.latent, paper.steps) == (64, (1, 1, 2, 2, 4, 4), 2, 100, 4)
    assert 256 / 2**paper.attention == 16
    assert SYNDIFF.size_multiple(paper) == 32
    with torch.device("meta"):
        network = SynDiffNetwork(paper).predictor
    downs = [block.convs[1].out_channels for block in network.downs]
    assert downs == [64, 64, 64, 64, 64, 64, 128, 128, 128, 128, 128, 128, 256, 256, 256, 256, 256]
    assert len(network.ups) == 3 * 6 + 5
    assert len(network.attentions) == 2 + 1 + 3  # down, in the middle, up


def test_the_noise_of_an_evaluation_is_one_for_all_slices_and_follows_the_seed(network):
    images = make_batch(3, sources=1).images
    noises, latents = network.fixed_noise(images)
    assert (noises.shape, latents.shape) == ((4, 1, 1, 32, 32), (4, 1, 3))
    torch.manual_seed(9)
    assert torch.equal(noises, network.fixed_noise(images[:1])[0])
    other = SynDiffNetwork(replace(SMALL, sampling_seed=1))
    assert not torch.equal(noises, other.fixed_noise(images)[0])


def test_the_same_slice_gets_the_same_bits_wherever_it_stands_in_a_batch(network):
    images = make_batch(3, sources=1).images
    first, second = network(images), network(images[[2, 1, 0]])
    assert torch.equal(first, second[[2, 1, 0]])
    assert torch.equal(network(images[[1, 1, 1]])[0], network(images[[1, 1, 1]])[2])


def test_an_evaluation_is_the_published_chain(network):
    images = make_batch(2, sources=1).images
    noises, latents = network.fixed_noise(images)
    noisy = noises[0].expand(2, 1, 32, 32)
    for step in (3, 2, 1, 0):
        steps, latent = torch.full((2,), step), latents[step].expand(2, 3)
        clean = network(images, None, noisy=noisy, steps=steps, latents=latent)
        noisy = network.schedule.denoised(clean, noisy, step, noises[step])
    assert torch.allclose(network(images), noisy, atol=1e-6)


def test_step_and_latent_and_noise_matter(network):
    images = make_batch(1, sources=1).images
    noisy, latents = torch.randn(2, 1, 1, 32, 32), torch.randn(2, 1, 3)
    steps = torch.tensor([0]), torch.tensor([3])
    reference = network(images, None, noisy=noisy[0], steps=steps[0], latents=latents[0])
    for n, s, z in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not torch.equal(reference, network(images, None, noisy=noisy[n], steps=steps[s], latents=latents[z]))


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_the_levels_say_what_sizes_fit(levels):
    config = SynDiffConfig(width=4, factors=(1,) * levels, blocks=1, attention=9 - 1, latent=2)
    multiple = SYNDIFF.size_multiple(config)
    assert multiple == max(4, 2 ** (levels - 1))
    assert SynDiffNetwork(config).eval()(torch.zeros(1, 1, multiple, 3 * multiple)).shape[2:] == (
        multiple,
        3 * multiple,
    )
    with pytest.raises(InputError, match="MX-MOD-007"):
        SynDiffNetwork(config)(torch.zeros(1, 1, multiple, multiple + 1))


def test_a_discriminator_knows_the_step_and_both_images():
    torch.manual_seed(0)
    judge = StepDiscriminator(4, 3)
    a, b, steps = torch.rand(2, 1, 20, 12), torch.rand(2, 1, 20, 12), torch.tensor([1, 1])
    scores = judge(a, b, steps)
    assert scores.shape == (2, 1)
    assert not torch.equal(scores, judge(a, b, steps + 1))
    assert not torch.equal(scores, judge(b, a, steps))


def test_attention_beyond_the_levels_leaves_only_the_middle_one():
    unet = DiffusiveUnet(2, 4, (1, 2), 1, attention=5, latent=2)
    assert list(unet.attentions) == ["middle"]
    assert isinstance(unet.middle, nn.ModuleList)


# --- training ------------------------------------------------------------------------------------------------------


def test_it_is_trained_without_pairs_with_the_published_constants():
    assert SYNDIFF.unpaired
    paper, code = (get_recipe_preset(SYNDIFF, name) for name in ("paper", "code"))
    assert (paper.image_loss, code.image_loss) == ("chain", "one_step")
    assert (paper.cycle_weight, paper.image_weight, paper.r1_weight, paper.r1_every) == (0.5, 0.5, 1, 10)
    recipe = small_recipe()
    for name, optimiser in recipe.optimisers().items():
        assert optimiser.defaults["betas"] == (0.5, 0.9)
        assert optimiser.defaults["lr"] == pytest.approx(1e-4 if "discriminator" in name else 1.6e-4)
    assert recipe.learning_rate_factor(1) * 1.6e-4 == pytest.approx(1e-5)
    assert recipe.learning_rate_factor(0.5) == pytest.approx((1 + 1 / 16) / 2)


def test_a_step_gives_the_published_sum_of_losses():
    recipe = small_recipe(image_loss="one_step")
    batch = make_batch(sources=1)
    networks = recipe.networks()
    there, back = networks["translator"], networks["reverse_translator"]
    with torch.no_grad():
        cycle = (there(back(batch.target)) - batch.target).abs().mean()
        cycle += (back(there(batch.images)) - batch.images).abs().mean()
    losses = recipe.step(batch, make_state(recipe))
    assert losses["cycle"] == pytest.approx(cycle.item(), rel=1e-5)
    adversarial = losses["adversarial"] + losses["translator_adversarial"]
    assert losses["generator"] == pytest.approx(adversarial + 0.5 * (losses["cycle"] + losses["image"]), rel=1e-5)
    assert {name for name in losses if "discriminator" in name} == {n for n in networks if "discriminator" in n}


def test_the_error_is_that_of_the_chain_or_of_one_step():
    batch, found = make_batch(sources=1), {}
    for kind in ("chain", "one_step"):
        recipe = small_recipe(image_loss=kind)
        calls = []
        recipe.networks()["generator"].predictor.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        losses = recipe.step(batch, make_state(recipe))
        found[kind] = losses["image"]
        # one for the discriminators' step, one for the generators', four for the chain
        assert len(calls) == (6 if kind == "chain" else 2)
    assert found["chain"] != found["one_step"]


def test_the_gradient_penalty_comes_in_every_tenth_step():
    recipe, totals = small_recipe(), {}
    for step in (0, 1, 10, 11):
        state, seen = replace(make_state(recipe), step=step), []
        state.backward = lambda loss, seen=seen: (seen.append(loss.item()), loss.backward())
        losses = recipe.step(make_batch(sources=1), state)
        totals[step] = [total - loss for total, loss in zip(seen[:4], losses.values(), strict=False)]
    assert all(extra > 0 for step in (0, 10) for extra in totals[step])
    assert all(abs(extra) < 1e-6 for step in (1, 11) for extra in totals[step])


def test_a_step_draws_from_the_steps_generator_only():
    results = []
    for seed in (1, 2):
        recipe = small_recipe()
        torch.manual_seed(seed)
        results.append(recipe.step(make_batch(sources=1), make_state(recipe, seed=5)))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "changes", [{"width": 5}, {"factors": ()}, {"steps": 0}, {"latent": 0}, {"blocks": 0}, {"sampling_seed": -1}]
)
def test_a_size_that_cannot_be_is_refused(changes):
    with pytest.raises(UsageError, match="MX-MOD-005"):
        SynDiffConfig(**changes)


def test_a_recipe_constant_that_cannot_be_is_refused():
    with pytest.raises(UsageError, match="MX-MOD-006"):
        SynDiffRecipeConfig(r1_every=0)
    with pytest.raises(UsageError, match="MX-MOD-004"):
        SynDiffRecipeConfig(image_loss="both")
