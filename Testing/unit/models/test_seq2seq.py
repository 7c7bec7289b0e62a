"""Seq2Seq: kernels for the target's code, slices on both sides, published losses, several directions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from comparators import make_batch, make_state

from MedXlateCore.errors import UsageError
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset
from MedXlateCore.models.seq2seq import (
    ConvLstm,
    DynamicConv,
    Seq2SeqConfig,
    Seq2SeqNetwork,
    Seq2SeqRecipe,
    Seq2SeqRecipeConfig,
)

SEQ2SEQ = get_method("seq2seq")
SMALL = Seq2SeqConfig(width=4, blocks=1, lstm_layers=1, kernels=3, directions=("T1->T2", "T2->T1", "FLAIR->T1"))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Seq2SeqNetwork(SMALL).eval()


def test_the_paper_preset_has_the_published_sizes():
    paper = get_preset(SEQ2SEQ, "paper")
    with torch.device("meta"):
        network = Seq2SeqNetwork(paper)
    assert (paper.width, paper.blocks, paper.lstm_layers, paper.kernels, paper.slices) == (64, 6, 3, 16, 3)
    convs = [tuple(conv.kernels.shape) for conv in network.modules() if isinstance(conv, DynamicConv)]
    assert convs == [(16, 256, 256, 3, 3)] * 12 + [(16, 128, 256, 3, 3), (16, 64, 128, 3, 3), (16, 1, 64, 7, 7)]
    assert all(tuple(c.mix.shape) == (64, 16) for c in network.modules() if isinstance(c, DynamicConv))
    gates = [tuple(g.weight.shape) for g in (*network.encoder_lstm.gates, *network.decoder_lstm.gates)]
    assert gates == [(4 * 256, 2 * 256, 3, 3)] * 6


def test_the_recipe_has_the_published_constants():
    paper = get_recipe_preset(SEQ2SEQ, "paper")
    assert (paper.target_weight, paper.self_weight, paper.cycle_weight, paper.perceptual_weight) == (10, 10, 10, 0.01)
    assert paper.learning_rate == 2e-4
    factor = Seq2SeqRecipe(SMALL, paper).learning_rate_factor
    assert (factor(0), factor(0.5), factor(1)) == (1, 0.5**0.9, 0)


def test_a_kernel_is_the_codes_mixture():
    torch.manual_seed(0)
    conv = DynamicConv(2, 3, 3, kernels=4, codes=5)
    kernel = sum(conv.mix[2, n] * conv.kernels[n] for n in range(4))
    x = torch.rand(1, 2, 6, 6)
    assert torch.allclose(conv(x, 2)[..., 1:-1, 1:-1], F.conv2d(x, kernel), atol=1e-5)


def test_only_the_wanted_sequences_code_gets_gradients(network):
    network(torch.rand(1, 3, 16, 16), None, 1).sum().backward()
    mixes = [m.mix.grad for m in network.modules() if isinstance(m, DynamicConv)]
    target = network.domains.pairs[1][1]
    assert all(grad[target].abs().sum() > 0 for grad in mixes)
    assert all(grad.abs().sum() == grad[target].abs().sum() for grad in mixes)


def test_directions_to_one_target_share_its_code(network):
    images = torch.rand(1, 3, 16, 16)
    to_t2, to_t1, also_to_t1 = (SEQ2SEQ.towards(network, SMALL, n)(images) for n in range(3))
    assert torch.equal(to_t1, also_to_t1)
    assert not torch.equal(to_t1, to_t2)


def test_the_middle_slice_is_what_training_sees_in_the_middle(network):
    images = torch.rand(2, 3, 16, 16)
    target = network.domains.pairs[0][1]
    whole = network(images, None, codes=(target,))
    assert whole.shape == (1, 2, 3, 16, 16)
    assert torch.allclose(whole[0, :, 1:2], network(images), atol=1e-6)


def test_a_lstm_step_is_the_published_one():
    torch.manual_seed(0)
    lstm = ConvLstm(1, 1)
    x, h, c = (torch.rand(1, 1, 3, 3) for _ in range(3))
    i, f, o, g = lstm.gates[0](torch.cat((x, h), dim=1)).chunk(4, dim=1)
    cell = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    (output,), ((state, kept),) = lstm([x], [(h, c)])
    assert torch.allclose(kept, cell)
    assert torch.allclose(output, torch.sigmoid(o) * torch.tanh(cell))
    assert torch.equal(state, output)


def test_a_step_gives_the_published_losses():
    torch.manual_seed(0)
    recipe = Seq2SeqRecipe(SMALL, Seq2SeqRecipeConfig())
    batch = replace(make_batch(sources=3), direction=1)
    network = recipe.networks()["generator"]
    with torch.no_grad():
        source, target = network.domains.pairs[1]
        made, same = network(batch.images, None, codes=(target, source))
        back = network(made, None, codes=(source,))[0]
    losses = recipe.step(batch, make_state(recipe))
    smooth = torch.nn.SmoothL1Loss()
    assert losses["target"] == pytest.approx(smooth(made[:, 1:2], batch.target).item(), rel=1e-5)
    assert losses["self"] == pytest.approx(smooth(same, batch.images).item(), rel=1e-5)
    assert losses["cycle"] == pytest.approx(smooth(back, batch.images).item(), rel=1e-5)
    assert losses["generator"] == pytest.approx(10 * (losses["target"] + losses["self"] + losses["cycle"]), rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [{"width": 0}, {"slices": 2}, {"kernels": 0}, {"directions": ()}, {"directions": ("T1,T2->FLAIR",)},
     {"directions": ("T1->T2",), "code_length": 1}],
)  # fmt: skip
def test_a_size_that_cannot_be_is_refused(changes):
    with pytest.raises(UsageError, match="MX-MOD-005"):
        Seq2SeqConfig(**changes)


def test_a_recipe_constant_out_of_range_is_refused():
    with pytest.raises(UsageError, match="MX-MOD-006"):
        Seq2SeqRecipeConfig(cycle_weight=-1)
