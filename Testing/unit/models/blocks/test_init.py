"""Initialisation: the normal one, and none."""

from __future__ import annotations

import torch
from torch import nn

from MedXlateCore.models.blocks.init import init_normal, without_memory


def make_network():
    network = nn.Sequential(nn.Conv2d(8, 64, 3), nn.BatchNorm2d(64), nn.Linear(64, 64), nn.Embedding(4, 4))
    nn.init.kaiming_normal_(network[2].weight)
    nn.init.trunc_normal_(network[2].weight)
    init_normal(network)
    return network


def test_convolutions_start_small_and_biases_at_zero():
    torch.manual_seed(0)
    network = make_network()
    assert abs(network[0].weight.std().item() - 0.02) < 0.002
    assert network[0].bias.abs().max() == 0
    assert network[1].weight.min() == 1  # norms are left alone


def test_without_memory_there_are_shapes_and_no_random_numbers_are_drawn():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    with without_memory():
        network = make_network()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(t.is_meta for t in network.state_dict().values())
    expected = {key: value.shape for key, value in make_network().state_dict().items()}
    assert {key: value.shape for key, value in network.state_dict().items()} == expected


def test_afterwards_tensors_are_filled_again():
    with without_memory():
        pass
    assert torch.empty(3).fill_(2.0).tolist() == [2, 2, 2]
    assert not nn.Linear(2, 2).weight.is_meta
