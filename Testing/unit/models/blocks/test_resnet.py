"""The residual network: published size, shape, and dropout that acts in training only."""

from __future__ import annotations

import pytest
import torch

from MedXlateCore.models.blocks.resnet import ResidualBlock, ResnetGenerator


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("blocks", "parameters"),
    # with three channels in and out 11,378,179 and 7,837,699; each channel in has 49 * 64 of them, each out one more
    [(9, 11_378_179 - 2 * 3136 - 2 * 3137), (6, 7_837_699 - 2 * 3136 - 2 * 3137)],
)
def test_it_has_the_published_number_of_parameters(blocks, parameters):
    with torch.device("meta"):
        assert count(ResnetGenerator(1, blocks=blocks)) == parameters


@pytest.mark.parametrize("norm", ["instance", "batch", "group", "none"])
def test_every_normalisation_gives_an_image_of_the_same_size_in_range(norm):
    output = ResnetGenerator(2, width=4, blocks=1, norm=norm)(torch.rand(2, 2, 20, 28))
    assert output.shape == (2, 1, 20, 28)
    assert output.abs().max() <= 1


def test_dropout_acts_in_training_only():
    block, x = ResidualBlock(4, "instance", dropout=0.5), torch.rand(1, 4, 8, 8)
    assert not torch.equal(block.train()(x), block(x))
    assert torch.equal(block.eval()(x), block(x))
