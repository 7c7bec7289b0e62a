"""StarGAN v2: published sizes, styles of domains, losses, an evaluation without randomness, several directions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comparators import count, make_batch, make_state

from MedXlateCore.errors import UsageError
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset
from MedXlateCore.models.stargan_v2 import (
    Judge,
    StarGanV2Config,
    StarGanV2Network,
    StarGanV2Recipe,
    StarGanV2RecipeConfig,
)
from MedXlateCore.training.losses import r1_penalty, softplus_discriminator, softplus_generator

STARGAN = get_method("stargan_v2")
DIRECTIONS = ("T1->T2", "T2->T1", "FLAIR->T1")
SMALL = StarGanV2Config(
    width=4, largest_width=8, downs=1, judge_downs=2, style=6, code=5, hidden=8, directions=DIRECTIONS
)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return StarGanV2Network(SMALL).eval()


@pytest.fixture
def recipe():
    torch.manual_seed(0)
    return StarGanV2Recipe(SMALL, StarGanV2RecipeConfig(diversity_steps=10))


def test_the_networks_have_the_published_sizes():
    with torch.device("meta"):
        networks = STARGAN.recipe(get_preset(STARGAN, "paper"), get_recipe_preset(STARGAN, "paper")).networks()
    # four shared layers of 512 from a code of 16; for each of two domains three of 512 and one to a style of 64
    layer = 512 * 512 + 512
    assert count(networks["generator"].mapping) == 17 * 512 + 3 * layer + 2 * (3 * layer + 513 * 64)
    widths = [block.convs[1].out_channels for block in networks["generator"].encoder]
    assert widths == [128, 256, 512, 512, 512, 512]
    assert [b.convs[1].out_channels for b in networks["generator"].decoder] == [512, 512, 512, 256, 128, 64]
    for name, outputs in (("style_encoder", 64), ("discriminator", 1)):
        blocks = list(networks[name].trunk)[1:-1]
        assert [block.convs[1].out_channels for block in blocks] == [128, 256, 512, 512, 512, 512]
        assert [(head.in_features, head.out_features) for head in networks[name].heads] == [(512, outputs)] * 2


def test_at_256_pixels_the_last_convolution_sees_all_that_is_left():
    judge = Judge(StarGanV2Config(width=1, largest_width=1), 1, 1)
    assert judge.trunk(torch.zeros(1, 1, 256, 256)).shape[2:] == (4, 4)
    assert judge(torch.zeros(1, 1, 256, 320), 0).shape == judge(torch.zeros(1, 1, 40, 64), 0).shape == (1, 1)


def test_it_is_trained_without_pairs_with_the_published_constants(recipe):
    assert STARGAN.unpaired
    paper = get_recipe_preset(STARGAN, "paper")
    assert (paper.style_weight, paper.cycle_weight, paper.diversity_weight, paper.r1_weight) == (1, 1, 1, 1)
    assert (paper.learning_rate, paper.weight_decay, paper.diversity_steps) == (1e-4, 1e-4, 100_000)
    for name, optimiser in recipe.optimisers().items():
        assert (optimiser.defaults["betas"], optimiser.defaults["weight_decay"]) == ((0, 0.99), 1e-4)
        rates = [group["lr"] for group in optimiser.param_groups]
        assert rates == pytest.approx([1e-4, 1e-6] if name == "generator" else [1e-4])
        assert sum(len(g["params"]) for g in optimiser.param_groups) == len(list(recipe.networks()[name].parameters()))


def test_domains_are_the_modalities_of_the_directions_targets_first(recipe):
    domains = SMALL.domains()
    assert (domains.names, domains.pairs, domains.targets) == (("T2", "T1", "FLAIR"), ((1, 0), (0, 1), (2, 1)), 2)
    networks = recipe.networks()
    heads = {name: len(networks[name].heads) for name in ("style_encoder", "discriminator")}
    assert heads == {"style_encoder": 3, "discriminator": 2}
    assert len(networks["generator"].mapping.own) == 2


def test_evaluation_uses_the_mean_style_of_the_target(network):
    images = make_batch(sources=1).images
    mean = network.mapping(network.codes, 1).mean(dim=0, keepdim=True)
    assert torch.equal(network(images, None, 1), network(images, None, 0, style=mean))
    assert torch.equal(network(images, None, 1), STARGAN.towards(network, SMALL, 2)(images))  # both lead to T1
    assert not torch.equal(network(images, None, 0), network(images, None, 1))


def test_the_codes_of_the_mean_style_are_always_the_same():
    torch.manual_seed(1)
    first = StarGanV2Network(SMALL)
    torch.manual_seed(2)
    assert torch.equal(first.codes, StarGanV2Network(SMALL).codes)
    assert "codes" in first.state_dict()


def test_another_style_gives_another_image(network):
    images = make_batch(sources=1).images
    styles = network(images, None, 0, codes=torch.randn(2, 5))
    assert styles.shape == (2, 6)
    assert not torch.equal(network(images, None, 0, style=styles), network(images, None, 0, style=-styles))


def test_a_step_gives_the_published_losses_of_the_discriminator(recipe):
    batch = replace(make_batch(sources=1), direction=2)
    generator, encoder, judge = recipe.networks().values()
    state = make_state(recipe, seed=3)
    codes = torch.randn((2, 2, 5), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        styles = generator(batch.images, None, 2, codes=codes[0]), encoder(batch.target, 1)
        fakes = torch.cat([generator(batch.images, None, 2, style=style) for style in styles])
        expected = softplus_discriminator(judge(batch.target, 1), judge(fakes, 1)).item()
    real = batch.target.clone().requires_grad_(True)
    penalty = r1_penalty(judge(real, 1), real).item()
    losses = recipe.step(batch, state)
    assert losses["discriminator"] == pytest.approx(expected, rel=1e-5)
    assert losses["r1"] == pytest.approx(penalty, rel=1e-4)


def test_the_diversity_term_fades_and_counts_against_the_others(recipe):
    for step, left in ((0, 1), (5, 0.5), (10, 0), (99, 0)):
        state = replace(make_state(recipe), step=step)
        losses = recipe.step(make_batch(sources=1), state)
        expected = losses["adversarial"] + losses["style"] + losses["cycle"] - left * losses["diversity"]
        assert losses["generator"] == pytest.approx(expected, rel=1e-4)
        assert losses["diversity"] > 0


def test_only_the_wanted_domains_heads_are_trained(recipe):
    networks, state = recipe.networks(), make_state(recipe)
    heads = [networks["generator"].mapping.own, networks["discriminator"].heads]
    before = [[head[-1] if isinstance(head, torch.nn.Sequential) else head for head in group] for group in heads]
    copies = [[head.weight.detach().clone() for head in group] for group in before]
    recipe.step(replace(make_batch(sources=1), direction=0), state)  # to T2, the first domain
    changed = [
        [not torch.equal(h.weight, c) for h, c in zip(*p, strict=True)] for p in zip(before, copies, strict=True)
    ]
    assert changed == [[True, False], [True, False]]


def test_the_penalty_is_half_the_squared_gradient():
    x = torch.full((3, 1, 2, 2), 2.0, requires_grad=True)
    penalty = r1_penalty((x**2).sum(dim=(1, 2, 3)), x)
    assert penalty.item() == pytest.approx(0.5 * 4 * 16)
    penalty.backward()
    assert x.grad.abs().sum() > 0


def test_the_non_saturating_losses_have_the_published_form():
    real, fake = torch.full((2, 1), 2.0), torch.full((2, 1), -0.5)
    log_of = torch.nn.functional.logsigmoid
    assert float(softplus_discriminator(real, fake)) == pytest.approx(float(-log_of(real)[0] - log_of(-fake)[0]))
    assert float(softplus_generator(fake)) == pytest.approx(float(-log_of(fake)[0]))


@pytest.mark.parametrize("changes", [{"width": 0}, {"downs": 7}, {"style": 0}, {"directions": ("T1,T2->FLAIR",)}])
def test_a_size_that_cannot_be_is_refused(changes):
    with pytest.raises(UsageError, match="MX-MOD-005"):
        StarGanV2Config(**changes)


def test_a_recipe_constant_out_of_range_is_refused():
    with pytest.raises(UsageError, match="MX-MOD-006"):
        StarGanV2RecipeConfig(r1_weight=-1)
