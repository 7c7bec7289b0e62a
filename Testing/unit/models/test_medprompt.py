"""MedPrompt: sizes, prompts that learn and differ, ablations, and the directions it refuses to mix."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from MedXlateCore.directions import parse_direction
from MedXlateCore.errors import UsageError
from MedXlateCore.models.medprompt import MedPrompt, MedPromptConfig, MedPromptNetwork, MedPromptRecipeConfig
from MedXlateCore.models.method import Batch, TrainingState

TINY = MedPrompt.presets["tiny"]
TOLD = dataclasses.replace(TINY, task_conditioning="embedding", directions=("T1->T2", "T1->CT"))


def count(config):
    with torch.device("meta"):
        return sum(p.numel() for p in MedPromptNetwork(config).parameters())


def images(n=2, size=32, inputs=1):
    return torch.rand(n, inputs, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def network(config, seed=0):
    torch.manual_seed(seed)
    return MedPromptNetwork(config).eval()


def test_the_presets_have_the_published_sizes():
    assert count(MedPrompt.presets["paper"]) == 44_170_812  # 44.17 M
    assert round(count(MedPrompt.presets["light"]) / 1e6, 1) == 15.5


def test_without_prompt_blocks_it_is_restormer_with_one_channel():
    whole = MedPrompt.presets["paper"]
    with torch.device("meta"):
        prompts = sum(p.numel() for p in MedPromptNetwork(whole).prompts.parameters())
    assert round((count(whole) - prompts) / 1e6, 2) == 26.12


def test_a_prompt_block_has_the_parameters_of_its_equations():
    c, n, size = 64, 5, 8  # the deepest of the tiny preset
    block = MedPromptNetwork(TINY).prompts[0]
    width, hidden = 2 * c, int(2 * c * 2.66)
    attention = 4 * width**2 + 9 * 3 * width + 8  # 1x1 in and out, depthwise 3x3, a temperature a head
    feed_forward = 3 * width * hidden + 9 * 2 * hidden
    extraction = n * c * size**2 + c * n + 9 * c**2
    fusion = attention + feed_forward + 2 * 2 * width + 9 * width * c
    assert sum(p.numel() for p in block.parameters()) == extraction + fusion


@pytest.mark.parametrize(
    "changes",
    [
        {"peb": False},
        {"pfb": False},
        {"transformer": False},
        {"peb": False, "pfb": False, "transformer": False},
        {"prompt_init": "normal"},
        {"global_residual": True},
        {"output_activation": "sigmoid"},
        {"output_activation": "tanh"},
        {"inputs": 2},
    ],
    ids=str,
)
def test_every_switch_gives_a_network_that_trains(changes):
    config = dataclasses.replace(TINY, **changes)
    recipe = MedPrompt().recipe(config, MedPromptRecipeConfig())
    state = TrainingState(
        recipe.networks(), recipe.optimisers(1e-3), lambda loss: loss.backward(), torch.Generator().manual_seed(0), 0
    )
    source = images(2, 32, config.inputs)
    batch = Batch(source, -source[:, :1], torch.zeros(2, 2, 32, 32), torch.ones(2, 1, 32, 32))
    before = [p.detach().clone() for p in recipe.networks()["generator"].parameters()]
    for _ in range(2):
        assert recipe.step(batch, state)["generator"] > 0
    after = recipe.networks()["generator"].parameters()
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_prompt_components_receive_gradients():
    net = network(TINY).train()
    net(images()).square().mean().backward()
    for block in net.prompts:
        assert block.extraction.components.grad.abs().max() > 0
        assert block.extraction.gate.weight.grad.abs().max() > 0


def test_the_mean_of_the_components_stands_in_for_the_gate():
    net = network(dataclasses.replace(TINY, peb=False))
    assert torch.equal(net.prompt_weights(images()), torch.full((2, 3, 5), 0.2))


def test_prompt_weights_sum_to_one_and_follow_the_image():
    net = network(TINY)
    for block in net.prompts:
        block.extraction.gate.weight.data *= 100
    weights = net.prompt_weights(images())
    assert weights.shape == (2, 3, 5)
    assert torch.allclose(weights.sum(2), torch.ones(2, 3))
    assert (weights[0] - weights[1]).abs().max() > 1e-4
    assert not [hook for block in net.prompts for hook in block.extraction._forward_pre_hooks]


def test_a_told_network_makes_another_image_for_each_direction():
    net = network(TOLD)
    first, second = (MedPrompt().towards(net, TOLD, n)(images(), None) for n in (0, 1))
    assert not torch.equal(first, second)
    assert not torch.equal(net.prompt_weights(images(), 0), net.prompt_weights(images(), 1))
    untold = network(TINY)
    assert MedPrompt().towards(untold, TINY, 0) is untold


def test_each_direction_trains_its_own_vectors_only():
    net = network(TOLD).train()
    net(images(), None, 1).square().mean().backward()
    vectors = [net.tasks, *(block.extraction.tasks for block in net.prompts)]
    assert all(v.grad[1].abs().max() > 0 and v.grad[0].abs().max() == 0 for v in vectors)


def test_what_lies_beyond_the_range_is_cut_only_in_evaluation():
    net = network(TINY)
    net.output.weight.data *= 1e4
    assert net(images()).abs().max() == 1
    assert net.train()(images()).abs().max() > 1


def test_two_directions_from_one_source_are_refused_unless_the_network_is_told():
    directions = [parse_direction(text) for text in ("T1->T2", "T2->T1", "T1->CT")]
    with pytest.raises(UsageError, match="MX-TRN-014") as caught:
        MedPrompt().check_directions(TINY, directions)
    assert "T1->T2 and T1->CT" in caught.value.found
    assert "embedding" in caught.value.fix
    MedPrompt().check_directions(TINY, directions[:2])
    MedPrompt().check_directions(TOLD, directions)
    MedPrompt().check_directions(dataclasses.replace(TINY, allow_shared_source=True), directions)


@pytest.mark.parametrize(
    "changes",
    [
        {"dim": 12},
        {"dim": 1024},
        {"blocks": (1, 1, 1)},
        {"blocks": (1, 1, 1, 0)},
        {"refinement_blocks": -1},
        {"components": 0},
        {"prompt_sizes": (1, 1)},
        {"inputs": 0},
        {"directions": ()},
    ],
    ids=str,
)
def test_impossible_architectures_are_refused(changes):
    with pytest.raises(UsageError, match="MX-MOD-005"):
        dataclasses.replace(MedPromptConfig(), **changes)


def test_the_cosine_schedule_ends_at_zero_and_the_constant_one_does_not():
    factors = {
        schedule: MedPrompt().recipe(TINY, MedPromptRecipeConfig(schedule=schedule)).learning_rate_factor
        for schedule in ("constant", "cosine")
    }
    assert factors["constant"](1.0) == 1
    assert factors["cosine"](0.5) == pytest.approx(0.5)
    assert factors["cosine"](1.0) == pytest.approx(0)
