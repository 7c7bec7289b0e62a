"""ALDM: published sizes, stages, what each trains, sampling in steps, slabs, what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from comparators import count

from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.inference.memory import estimate_memory
from MedXlateCore.models.aldm import AldmConfig, AldmNetwork, AldmRecipe, AldmRecipeConfig
from MedXlateCore.models.aldm_net import Conditions, Predicted
from MedXlateCore.models.aldm_recipe import PARTS
from MedXlateCore.models.blocks.init import without_memory
from MedXlateCore.models.blocks.nested_unet import TimedUnet
from MedXlateCore.models.blocks.patchgan import PatchGan
from MedXlateCore.models.blocks.volume_conv import PlanarConv
from MedXlateCore.models.method import Batch, TrainingState
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset
from MedXlateCore.models.sampling import Sampling, VolumePrediction

ALDM = get_method("aldm")
SMALL = AldmConfig(
    widths=(8, 8),
    decoder_blocks=1,
    latent_channels=2,
    codes=32,
    spade_widths=(4,),
    spade_hidden=4,
    spade_stem=4,
    unet_widths=(8, 8),
    unet_attention=(1,),
    unet_head=8,
    steps=3,
    directions=("T1->T2", "T1->FLAIR", "T2->T1"),
)
RECIPE = AldmRecipeConfig(autoencoder_rate=1e-3, spade_rate=1e-3, diffusion_rate=1e-3, adversarial_weight=0.0)
NESTED = {"residual": True, "spade_scaled": True, "spade_nested": True, "unet_nested": True, "prediction": "v"}
WIDE = replace(SMALL, **NESTED, spade_widths=(8, 8), spade_hidden=8)  # matrices for Muon in every stage
SIZE = (8, 12, 8)


def images(n=1, seed=0, size=SIZE):
    return torch.rand(n, 1, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def batch(direction=0, n=1):
    source = torch.nn.functional.avg_pool3d(2 * images(n), 3, 1, 1)  # smooth: it can be learned
    mask = torch.ones_like(source)
    return Batch(source, -source, torch.cat((mask, mask), dim=1) * 0, mask, direction)


def build(**changes):
    """Return a network whose U-Net no longer predicts next to nothing."""
    torch.manual_seed(0)
    network = AldmNetwork(replace(SMALL, **changes)).eval()
    if network.unet is not None and not network.config.unet_nested:
        torch.nn.init.normal_(network.unet.last.weight, std=0.1)
    return network


def make(config=None, **changes):
    torch.manual_seed(0)
    recipe = AldmRecipe(config or SMALL, replace(RECIPE, **changes))
    generator = torch.Generator().manual_seed(0)
    recipe.networks()["generator"].train()
    return recipe, TrainingState(recipe.networks(), recipe.optimisers(), lambda loss: loss.backward(), generator, 0)


def finished(run):
    steps = []
    while True:
        try:
            steps.append(next(run))
        except StopIteration as end:
            return steps, end.value


def translated(network, source=None, **sampling):
    with torch.no_grad():
        return finished(network.translate(images() if source is None else source, Sampling(**sampling)))[1]


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_the_published_autoencoder_has_237_01_million_parameters():
    with without_memory():
        network = AldmNetwork(get_preset(ALDM, "paper"))
        judge = PatchGan(1, width=AldmRecipeConfig().discriminator_width, dimensions=3)
    parts = (network.encoder, network.decoder, network.regulariser, network.spade, judge)
    assert round(sum(count(part) for part in parts) / 1e6, 2) == 237.01
    assert [block.conv2.out_channels for block in network.encoder.layers[1:6:2]] == [256, 512, 512]


def test_the_authors_network_has_the_sizes_of_its_code():
    with without_memory():
        network = AldmNetwork(get_preset(ALDM, "code"))
    autoencoder = sum(count(part) for part in (network.encoder, network.decoder, network.regulariser))
    sizes = [round(n / 1e6, 1) for n in (autoencoder, count(network.spade), count(network.unet))]
    assert sizes == [6.5, 18.9, 33.2]


def test_presets_say_what_was_published():
    paper, code = get_preset(ALDM, "paper"), get_preset(ALDM, "code")
    assert (paper.conditioning, paper.cond_inputs, paper.latent_channels) == ("crossattn", "paper", 3)
    assert (code.conditioning, code.cond_inputs, code.latent_channels) == ("class_embed", "code", 4)
    for preset in (paper, code):
        assert (preset.levels, preset.noise_low, preset.noise_high) == (1000, 0.0015, 0.0195)
        assert (preset.codes, preset.prediction, preset.factor) == (8192, "epsilon", 4)
        assert all(size % preset.multiple == 0 for size in (192, 192, 144))


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({}, 6),
        ({"cond_inputs": "paper"}, 4),
        ({"use_spade": False}, 4),
        ({"concat_condition": False}, 2),
    ],
)
def test_the_diffusion_sees_what_the_switches_say(changes, seen):
    network = build(**changes)
    assert network.unet.stem.in_channels == seen
    assert translated(network).values.shape == SIZE
    assert (network.spade is None) == ("use_spade" in changes)


def test_without_diffusion_the_target_like_latents_are_decoded():
    network = build(use_diffusion=False)
    with torch.no_grad():
        assert torch.allclose(network(images()), network.spade_only(images()), atol=1e-6)
    assert translated(network, samples=3).deviation is None
    assert network.config.multiple == 2


# --- use -------------------------------------------------------------------------------------------------------------


def test_it_gives_the_same_again_and_another_seed_gives_another():
    network = build()
    with torch.no_grad():
        first = network(images())
        torch.manual_seed(5)
        assert torch.equal(first, network(images()))
    assert torch.equal(first[0, 0], translated(network).values)
    assert not torch.equal(first[0, 0], translated(network, seed=1).values)
    assert translated(network).deviation is None


def test_every_direction_gives_its_own_and_the_class_is_the_targets():
    network = build()
    with torch.no_grad():
        made = [ALDM.towards(network, SMALL, n)(images()) for n in range(3)]
        assert all((a - b).abs().max() > 1e-4 for n, a in enumerate(made) for b in made[:n])
        same = build(directions=("T1->T2", "FLAIR->T2"))
        assert torch.equal(same(images(), None, 0), same(images(), None, 1))


def test_a_target_may_be_its_own_source():
    config = replace(SMALL, directions=("T1->T1", "T1->T2"))
    assert (config.classes, config.pairs) == (("T1", "T2"), ((0, 0), (0, 1)))
    recipe, state = make(config)
    for state.progress in (0.1, 0.5, 0.9):
        recipe.step(batch(0), state)


def test_samples_are_averaged_and_their_spread_is_given():
    network = build()
    single = torch.stack([translated(network, seed=n).values for n in (3, 4, 5)])
    together = translated(network, seed=3, samples=3)
    assert isinstance(together, VolumePrediction)
    assert torch.allclose(together.values, single.mean(dim=0), atol=1e-6)
    assert torch.allclose(together.deviation, single.std(dim=0), atol=1e-5)
    assert together.deviation.max() > 0
    assert together.facts == {"sampler": "ddim", "steps": 3, "samples": 3, "eta": 0.0, "seeds": [3, 4, 5]}


def doubting(log_spread, **changes):
    """Return a network that says of every latent that its prediction may be wrong by so much."""
    network = build(**{**NESTED, **changes}, learned_variance=True)
    with torch.no_grad():
        for doubt in network.unet.doubts if network.config.unet_nested else ():
            doubt[-1].weight.zero_()
            doubt[-1].bias.fill_(log_spread)
        if not network.config.unet_nested:  # the prediction too is one for all samples
            network.unet.last.weight.zero_()
            network.unet.last.bias[network.config.latent_channels :] = log_spread
    return network


@pytest.mark.parametrize("nested", [True, False])
def test_several_samples_are_drawn_with_the_variance_that_was_learned(nested):
    sure, unsure, doubtful = (doubting(value, unet_nested=nested) for value in (-30.0, -3.0, -2.0))
    single = [translated(network).values for network in (sure, unsure, doubtful)]
    assert torch.equal(single[0], single[2])  # one sample ends at the mean
    spread = [translated(n, samples=16, steps=1).deviation.mean() for n in (sure, unsure, doubtful)]
    assert spread[2] / spread[1] == pytest.approx(math.e, rel=0.1)
    assert spread[0] < spread[1] / 3
    assert translated(sure, samples=2).facts["variance"] == "learned"
    assert "variance" not in translated(sure).facts


@pytest.mark.parametrize("prediction", ["v", "x0", "epsilon"])
def test_drawn_latents_have_the_spread_that_was_learned_on_the_scale_of_what_is_diffused(prediction):
    network = doubting(-1.0, prediction=prediction)
    network.residual_square.fill_(9.0)
    known = Conditions(torch.zeros(1, 2, 4, 6, 4), torch.zeros(1, 2, 4, 6, 4))
    several, single = Sampling(samples=64, steps=4), Sampling(steps=4)
    with torch.no_grad():
        drawn, mean = (
            torch.stack([finished(network._drawn(known, 0, sampling, seed))[1] for seed in range(64)])
            for sampling in (several, single)
        )
    last = network.schedule.path(4)[-2]
    assert 0.1 < last / 1000 < 0.5
    expected = 3 * network.schedule.error(last) * math.exp(-1)
    assert (drawn - mean).std().item() == pytest.approx(expected, rel=0.05)


def test_one_step_is_the_same_with_every_sampler():
    network = build()
    made = [translated(network, sampler=sampler, steps=1).values for sampler in ("ddim", "dpm_solver", "ddpm")]
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
def test_every_sampler_leads_to_an_image(sampler):
    made = translated(build(), sampler=sampler, steps=5)
    assert made.values.abs().max() <= 1
    assert (made.facts["sampler"], made.facts["steps"]) == (sampler, 5)


def test_it_tells_after_each_short_step_how_far_it_is():
    network = build()
    with torch.no_grad():
        steps, _ = finished(network.translate(images(), Sampling(steps=4, samples=2)))
    total = len(network.encoder) + 2 * (4 + len(network.decoder))
    assert steps == [(n, total) for n in range(1, total + 1)]
    with torch.no_grad():
        steps, _ = finished(ALDM.towards(network, SMALL, 1).translate(images()))
    assert steps[-1][0] == steps[-1][1]


@torch.no_grad()
def test_parts_give_what_the_whole_gives():
    network = build(tile=5)
    whole, parts = (finished(network.translate(images(), Sampling(), tiled))[1].values for tiled in (False, True))
    assert (whole - parts).abs().max() < 2e-3  # 1e-3 of the range
    assert (network.reconstruct(images()) - network.reconstruct(images(), tiled=True)).abs().max() < 1e-3


def test_what_memory_it_needs_is_found_without_computing():
    network = build()
    needed = estimate_memory(network, 1, 24, 24, depth=24)
    assert needed > sum(p.numel() for p in network.parameters()) * 4
    assert estimate_memory(ALDM.towards(network, SMALL, 1), 1, 24, 24, depth=24) == needed
    assert estimate_memory(network, 1, 48, 48, depth=24) > 2 * needed


def test_the_ceiling_knows_no_target():
    network = build()
    with torch.no_grad():
        assert network.reconstruct(images(2)).shape == (2, 1, *SIZE)
        assert torch.equal(network.reconstruct(images()), ALDM.towards(network, SMALL, 2).reconstruct(images()))


def test_latents_are_scaled_by_what_was_measured_or_by_a_number():
    network = build()
    latents = torch.randn(2, 2, 4, 6, 4) * torch.tensor([3.0, 0.1]).view(2, 1, 1, 1) + 7
    network.measure(latents, "spade")
    scaled = network.scaled(latents)
    assert torch.allclose(scaled.mean(dim=(0, 2, 3, 4)), torch.zeros(2), atol=1e-4)
    assert torch.allclose(scaled.std(dim=(0, 2, 3, 4)), torch.ones(2), rtol=0.02)
    assert torch.allclose(network.unscaled(scaled), latents, atol=1e-5)
    assert {"latent_mean", "latent_square"} <= set(network.state_dict())
    assert torch.allclose(build(latent_scale=0.5).scaled(latents), 0.5 * latents)


# --- training --------------------------------------------------------------------------------------------------------


def test_stages_follow_their_shares():
    recipe, _ = make(autoencoder_share=2.0, spade_share=1.0, diffusion_share=1.0)
    stages = [recipe.stage_of(n / 8) for n in range(8)]
    assert stages == ["autoencoder"] * 4 + ["spade"] * 2 + ["diffusion"] * 2
    assert [recipe.judged(n / 8) for n in range(8)] == [False] * 6 + [True] * 2
    assert recipe.stage_of(1.0) == "diffusion"
    alone, _ = make(replace(SMALL, use_diffusion=False))
    assert (alone.stage_of(0.9), alone.judged(0.9), alone.judged(0.1)) == ("spade", True, False)


def test_the_rate_falls_within_each_stage():
    recipe, _ = make(schedule="cosine", last_rate=0.1, autoencoder_share=1.0, spade_share=1.0, diffusion_share=1.0)
    factors = [recipe.learning_rate_factor(n / 300) for n in range(300)]
    assert factors[0] == factors[100] == factors[200] == 1
    assert max(factors[99], factors[199], factors[299]) < 0.11


@pytest.mark.parametrize(("progress", "stage"), [(0.1, "autoencoder"), (0.5, "spade"), (0.9, "diffusion")])
def test_a_stage_changes_its_own_part_only(progress, stage):
    recipe, state = make()
    network, state.progress = recipe.networks()["generator"], progress
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    losses = recipe.step(batch(), state)
    changed = {name.split(".")[0] for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert changed == set(PARTS[stage])
    assert stage in losses
    assert all(isinstance(value, float) for value in losses.values())
    assert ("perplexity" in losses) == (stage == "autoencoder")
    assert all(p.requires_grad for p in network.parameters())  # a checkpoint finds them as it left them


@pytest.mark.parametrize("matrices", ["adam", "muon"])
def test_a_stage_leaves_the_other_stages_optimisers_alone(matrices):
    recipe, state = make(matrices=matrices)
    for state.progress in (0.1, 0.5):
        recipe.step(batch(), state)
    network = recipe.networks()["generator"]
    before = [p.detach().clone() for part in PARTS["autoencoder"] for p in getattr(network, part).parameters()]
    for state.progress in (0.5, 0.9):
        recipe.step(batch(), state)
    after = [p for part in PARTS["autoencoder"] for p in getattr(network, part).parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("matrices", ["adam", "muon"])
def test_a_few_steps_of_each_stage_lower_its_loss(matrices):
    rates = dict.fromkeys(("autoencoder_rate", "spade_rate", "diffusion_rate"), 5e-3)
    recipe, state = make(WIDE if matrices == "muon" else None, **rates, matrices=matrices, draws=4, flip_width=0.0)
    for state.progress, name in ((0.1, "reconstruction"), (0.5, "latents"), (0.9, "diffusion")):
        values = []
        for step in range(16):
            state.generator.manual_seed(step % 4)
            values.append(recipe.step(batch(), state)[name])
        assert sum(values[-4:]) < 0.85 * sum(values[:4]), name


@pytest.mark.parametrize("progress", [0.1, 0.5, 0.9])
def test_the_divergence_takes_the_codebooks_place(progress):
    recipe, state = make(replace(SMALL, regulariser="kl"))
    state.progress = progress
    losses = recipe.step(batch(), state)
    assert ("divergence" in losses) == (progress == 0.1)
    assert "perplexity" not in losses


def test_with_muon_every_parameter_has_one_optimiser():
    rates = {"autoencoder_rate": 1e-3, "spade_rate": 2e-3, "diffusion_rate": 3e-3}
    recipe, state = make(WIDE, matrices="muon", adversarial_weight=0.5, discriminator_width=2, **rates)
    assert list(state.optimisers) == ["generator", "matrices", "discriminator"]
    for name in ("generator", "matrices"):
        groups = state.optimisers[name].param_groups
        assert [(g["lr"], g["weight_decay"]) for g in groups] == [(1e-3, 0.0), (2e-3, 0.0), (3e-3, 0.01)]
        assert all(g["params"] for g in groups)
    trained = [id(p) for o in state.optimisers.values() for group in o.param_groups for p in group["params"]]
    wanted = [id(p) for network in recipe.networks().values() for p in network.parameters()]
    assert sorted(trained) == sorted(wanted)
    rates = {(name, group["lr"]) for name, o in recipe.optimisers(1e-3).items() for group in o.param_groups}
    assert rates == {(name, 1e-3) for name in state.optimisers}
    assert list(make()[1].optimisers) == ["generator"]


def test_the_u_net_learns_how_wrong_it_is():
    unflipped = {"flip_depth": 0.0, "flip_height": 0.0, "flip_width": 0.0}  # so that all steps see one image
    wanted = {"matrices": "muon", "diffusion_rate": 5e-3, "draws": 8, "first_level_share": 1.0, **unflipped}
    recipe, state = make(replace(WIDE, learned_variance=True), **wanted)
    state.progress, gains = 0.9, []
    for step in range(40):
        state.generator.manual_seed(step)
        losses = recipe.step(batch(), state)
        with_a_spread_of_1 = losses["diffusion"] / 2
        gains.append(with_a_spread_of_1 - losses["likelihood"])
    assert gains[-1] > 0.2
    assert gains[-1] > gains[0] + 0.1


def test_the_adversarial_term_comes_after_its_delay():
    size = (24, 24, 24)
    recipe, state = make(adversarial_weight=0.5, adversarial_after=0.5, discriminator_width=2)
    source = images(size=size)
    whole = Batch(source, -source, source.repeat(1, 2, 1, 1, 1), source)
    judge = recipe.networks()["discriminator"]
    before = [p.detach().clone() for p in judge.parameters()]
    for state.progress, expected in ((0.0, False), (0.39, True), (0.5, False)):
        losses = recipe.step(whole, state)
        assert ("discriminator" in losses) == ("adversarial" in losses) == expected
    changed = [not torch.equal(a, b) for a, b in zip(before, judge.parameters(), strict=True)]
    assert all(changed[:-1])  # both terms pull the last bias alike, in opposite directions


def test_the_cycle_needs_a_source_that_is_a_target_too():
    recipe, state = make(cycle_weight=1.0)
    state.progress = 0.5
    assert "cycle" in recipe.step(batch(direction=2), state)  # T2 is the first direction's target
    recipe, state = make(replace(SMALL, directions=("T1->T2",)), cycle_weight=1.0)
    state.progress = 0.5
    assert "cycle" not in recipe.step(batch(), state)


def test_statistics_of_latents_are_measured_before_the_diffusion_only():
    recipe, state = make()
    network = recipe.networks()["generator"]
    for state.progress, moves in ((0.1, True), (0.5, True), (0.9, False)):
        before = network.latent_mean.clone()
        recipe.step(batch(), state)
        assert (not torch.equal(before, network.latent_mean)) == moves


# --- what is refused -------------------------------------------------------------------------------------------------


def test_volumes_that_are_too_small_are_refused():
    for size in ((2, 8, 8), (8, 8, 6), (0, 8, 8)):
        with pytest.raises(InputError, match="MX-MOD-007"):
            build()(torch.zeros(1, 1, *size))


def test_a_direction_that_it_has_not_learned_is_refused():
    with pytest.raises(InputError, match="MX-MOD-095"):
        build()(images(), None, 3)


def test_values_that_are_not_finite_do_not_come_through():
    source = images()
    source[0, 0, 3, 3, 3] = float("nan")
    with pytest.raises(InputError, match="MX-MOD-092"):
        translated(build(), source)


@pytest.mark.parametrize(
    "changes",
    [
        {"use_spade": False, "use_diffusion": False},
        {"widths": ()},
        {"unet_widths": (7, 8)},
        {"spade_stem": 0},
        {"noise_low": 0.5},
        {"steps": 2000},
        {"latent_scale": 0.0},
        {"directions": ("T1,T2->FLAIR",)},
    ],
)
def test_what_describes_no_network_is_refused(changes):
    with pytest.raises(UsageError, match="MX-MOD-005"):
        replace(SMALL, **changes)


def test_other_choices_and_constants_are_refused():
    with pytest.raises(UsageError, match="MX-MOD-004"):
        replace(SMALL, regulariser="gan")
    with pytest.raises(UsageError, match="MX-MOD-006"):
        AldmRecipeConfig(diffusion_share=0.0)


def test_the_tiny_preset_fits_its_training_file():
    tiny, recipe = get_preset(ALDM, "tiny"), get_recipe_preset(ALDM, "tiny")
    assert tiny.directions == ("T1->T2", "T1->FLAIR", "T2->T1")
    assert all(size % tiny.multiple == 0 for size in (80, 96, 32))
    assert recipe.adversarial_weight == 0


def test_the_tiny_preset_draws_one_sample_in_many_steps_and_several_in_one():
    network = AldmNetwork(get_preset(ALDM, "tiny")).eval()
    assert network.config.latent_channels == network.config.factor**3
    one, two = (translated(network, torch.zeros(1, 1, 8, 8, 8), samples=n).facts for n in (1, 2))
    assert (one["sampler"], one["steps"]) == ("dpm_solver", 15)
    assert (two["sampler"], two["steps"], two["variance"]) == ("dpm_solver", 1, "learned")


def test_a_codebook_of_which_nothing_is_used_is_told():
    recipe = AldmRecipe(SMALL, RECIPE)
    assert recipe.remark({"perplexity": 20.0}, 0.2) is None
    assert recipe.remark({"perplexity": 1.5}, 0.01) is None  # it has only begun
    assert recipe.remark({"latents": 1.0}, 0.5) is None
    warning = recipe.remark({"perplexity": 1.5}, 0.2)
    assert warning is not None
    assert warning.code == "MX-TRN-017"
    assert "32 codes" in warning.found


def test_what_spade_leaves_is_diffused_and_added_to_it():
    network = build(residual=True, prediction="x0")
    source = images()
    with torch.no_grad():
        for layer in list(network.unet.modules())[::-1]:
            if isinstance(layer, torch.nn.Conv3d):  # the last one: nothing is predicted
                layer.weight.zero_()
                layer.bias.zero_()
                break
        made, alone = network(source), network.spade_only(source)
    assert (made - alone).abs().max() < 1e-4


def test_the_scale_of_what_spade_leaves_is_measured():
    network = build(residual=True)
    for _ in range(3):
        network.measure_residual(torch.full((1, 2, 2, 2, 2), 0.25))
    assert torch.allclose(network.residual_square, torch.full((2,), 0.0625), atol=1e-6)
    with pytest.raises(UsageError, match="MX-MOD-005"):
        AldmConfig(residual=True, use_spade=False)


def test_several_samples_may_take_steps_of_their_own():
    network = build(steps=1, sample_steps=3)
    assert translated(network).facts["steps"] == 1
    assert translated(network, samples=2).facts["steps"] == 3
    assert translated(network, samples=2, steps=2).facts["steps"] == 2


def test_spade_may_see_latents_on_the_scale_of_the_diffusion():
    network = build(spade_scaled=True)
    source = torch.randn(1, 2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.latent_mean.fill_(3.0)
        network.latent_square.fill_(13.0)  # a standard deviation of 2
        expected = 2 * network.spade((source - 3) / 2, 1) + 3
        assert torch.allclose(network.like(source, 1), expected, atol=1e-5)
        assert (network.like(source, 1) - network.spade(source, 1)).abs().max() > 0.1


def test_planar_convolutions_are_chosen_for_all_parts_but_the_published_ms_spade():
    def planar(network):
        return {name.split(".")[0] for name, m in network.named_modules() if isinstance(m, PlanarConv)}

    assert planar(build()) == set()
    assert planar(build(planar=True)) == {"encoder", "decoder", "unet"}
    nested = build(planar=True, spade_nested=True)
    assert planar(nested) == {"encoder", "decoder", "spade", "unet"}
    assert torch.isfinite(nested(images())).all()


def test_a_nested_ms_spade_asks_for_sizes_that_it_can_halve():
    assert replace(SMALL, spade_nested=True, spade_widths=(4, 4, 4, 4)).multiple == 16
    assert replace(SMALL, spade_nested=True, spade_widths=(4, 4, 4, 4), use_diffusion=False).multiple == 16
    assert SMALL.multiple == 4


def test_a_step_sees_a_slab_at_a_random_depth():
    (recipe, state), seen, whole = make(slab=4, flip_depth=0.0, flip_height=0.0, flip_width=0.0), [], batch()
    network = recipe.networks()["generator"]
    network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for _ in range(6):
        recipe.step(whole, state)
    assert {x.shape[2] for x in seen} == {4}
    planes = whole.images.abs()  # source or target, which is the source times -1
    places = {low for x in seen for low in range(5) if torch.equal(x.abs(), planes[:, :, low : low + 4])}
    assert len(places) > 1


@pytest.mark.parametrize("progress", [0.5, 0.9])
def test_what_is_remembered_is_what_would_be_made_anew(progress):
    losses = []
    for room in (0, 64):
        recipe, state = make(latent_memory=room, flip_width=0.5)
        state.progress = progress
        losses.append([recipe.step(batch(n % 2, 2), state) for n in range(6)])
    for fresh, remembered in zip(*losses, strict=True):
        assert remembered == pytest.approx(fresh, rel=1e-4)


@pytest.mark.parametrize("progress", [0.5, 0.9])
def test_slabs_are_cut_from_remembered_latents_of_whole_mirrored_volumes(progress):
    flips = {"flip_depth": 1.0, "flip_height": 0.0, "flip_width": 1.0}
    recipe, state = make(replace(SMALL, **NESTED), latent_memory=64, slab=4, **flips)
    network, seen, state.progress = recipe.networks()["generator"], [], progress
    network.register_forward_pre_hook(lambda _, given, named: seen.append((given[0], named)), with_kwargs=True)
    rows = images(2), images(2, seed=1)
    whole = Batch(*rows, torch.zeros(2, 2, *SIZE), torch.ones(2, 1, *SIZE), 2)
    for _ in range(8):
        recipe.step(whole, state)
    with torch.no_grad():
        source, wanted = (network.encoded(x.flip((2, 4))).latents for x in rows)
        like = network.like(source, network.config.pairs[2][1])
    expected = {"wanted": wanted} | ({"like": like} if progress == 0.9 else {})
    lows = set()
    for given, named in seen:
        (low,) = (n for n in range(3) if torch.allclose(given, source[:, :, n : n + 2], atol=1e-6))
        lows.add(low)
        for name, tensor in expected.items():
            assert torch.allclose(named[name], tensor[:, :, low : low + 2], atol=1e-5), name
    assert len(lows) > 1


def test_the_encoder_sees_a_volume_once_where_latents_are_remembered():
    recipe, state = make(replace(SMALL, **NESTED), latent_memory=64, slab=4, flip_depth=0.0, flip_height=0.0)
    network, calls = recipe.networks()["generator"], []
    for part in (network.encoder, network.spade):
        part.register_forward_hook(lambda layer, *_: calls.append(layer))
    for state.progress in (0.5, 0.9):
        for n in range(24):
            recipe.step(batch(n % 2), state)
    assert calls.count(network.encoder) == 2 * 2  # source and target, mirrored or not
    assert calls.count(network.spade) == 24 + 2 * 2  # trained in one stage; remembered by direction in the next


def test_sizes_that_do_not_fit_are_told_at_the_first_step():
    recipe, state = make(slab=4, whole_after=0.5)
    odd = images(size=(10, 12, 8))
    with pytest.raises(InputError, match="MX-MOD-007"):
        recipe.step(Batch(odd, odd, odd.repeat(1, 2, 1, 1, 1), odd), state)


@pytest.mark.parametrize(("changes", "first"), [({}, 999), ({"concat_condition": False}, 499)])
def test_the_level_that_a_result_of_one_step_needs_can_be_trained_more_often(changes, first):
    (recipe, state), seen = make(replace(SMALL, **changes), first_level_share=0.75), []
    network, state.progress = recipe.networks()["generator"], 0.9
    network.unet.register_forward_pre_hook(lambda _, given: seen.append(int(given[1][0])))
    for _ in range(40):
        recipe.step(batch(), state)
    assert 0.5 < seen.count(first) / 40 < 1
    assert min(seen) < first
    seen.clear()
    with torch.no_grad():
        finished(network.translate(images(), Sampling(steps=1)))
    assert seen == [first]


def test_the_end_of_a_stage_sees_whole_volumes():
    (recipe, state), seen = make(slab=4, whole_after=0.5), []
    recipe.networks()["generator"].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[2]))
    for state.progress in (0.1, 0.3, 0.45, 0.55):  # of the training; 0.25 and 0.75 of the first two stages
        recipe.step(batch(), state)
    assert seen == [4, 8, 2, 4]  # of images, then of latents


def test_slabs_that_fit_no_resolution_are_refused():
    with pytest.raises(UsageError, match="MX-MOD-005"):
        make(slab=6)


def test_what_the_diffusion_learns_leads_from_ms_spade_to_the_target():
    network, (source, target) = build(**NESTED | {"prediction": "x0"}), (images(), -images())
    levels, noise, latents = torch.tensor([500]), torch.randn(1, 2, 4, 6, 4), {}
    with torch.no_grad():
        first, latents["wanted"] = (network.encoded(x).latents for x in (source, target))
        latents["like"] = network.like(first, 0)
        learned = network(first, None, 0, "diffusion", levels=levels, noise=noise, **latents)["wanted"]
        network.predicted = lambda *_: Predicted(learned, None)  # a network that has learned everything
        made, sought = translated(network, steps=1).values, network.decoder(latents["wanted"])[0, 0].clamp(-1, 1)
    assert torch.allclose(made, sought, atol=1e-4)
    assert (made - network.spade_only(source)[0, 0]).abs().max() > 0.01


def test_a_nested_u_net_is_told_the_class_by_embedding_only():
    assert isinstance(build(unet_nested=True).unet, TimedUnet)
    with pytest.raises(UsageError, match="conditioning"):
        replace(SMALL, unet_nested=True, conditioning="crossattn")


def test_a_nested_u_net_sees_next_to_nothing_of_latents_that_are_noise():
    network, seen = build(unet_nested=True), []
    network.unet.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        finished(network.translate(images(), Sampling(steps=1)))
    assert 0 < seen[0][:, :2].std() < 0.02  # of noise with a standard deviation of 1
