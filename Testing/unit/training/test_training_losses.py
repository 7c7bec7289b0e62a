"""Losses and the moving average."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from MedXlateCore.training.average import WeightAverage
from MedXlateCore.training.losses import (
    cross_entropy_discriminator,
    cross_entropy_generator,
    l1,
    lsgan_discriminator,
    lsgan_generator,
    masked_l1,
)


def test_l1_is_the_mean_absolute_difference():
    assert float(l1(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0]))) == 1.5


def test_masked_l1_looks_only_inside_the_mask():
    prediction, target = torch.tensor([[1.0, 9.0]]), torch.zeros(1, 2)
    assert float(masked_l1(prediction, target, torch.tensor([[1.0, 0.0]]))) == 1.0
    assert float(masked_l1(prediction, target, torch.zeros(1, 2))) == 0.0


def test_the_least_squares_losses_have_the_published_form():
    real, fake = torch.full((2, 1, 3, 3), 0.5), torch.full((2, 1, 3, 3), 0.25)
    assert float(lsgan_discriminator(real, fake)) == pytest.approx((0.25 + 0.0625) / 2)
    assert float(lsgan_discriminator(real, fake, half=False)) == pytest.approx(0.3125)
    assert float(lsgan_generator(fake)) == pytest.approx(0.5625)
    assert float(lsgan_discriminator(torch.ones(3), torch.zeros(3))) == 0


def test_the_cross_entropy_losses_have_the_published_form():
    real, fake = torch.full((2, 1, 3, 3), 2.0), torch.full((2, 1, 3, 3), -0.5)
    d_real, d_fake = 1 / (1 + math.exp(-2.0)), 1 / (1 + math.exp(0.5))
    expected = -(math.log(d_real) + math.log(1 - d_fake)) / 2
    assert float(cross_entropy_discriminator(real, fake)) == pytest.approx(expected, rel=1e-5)
    assert float(cross_entropy_generator(fake)) == pytest.approx(-math.log(d_fake), rel=1e-5)
    assert math.isfinite(float(cross_entropy_generator(torch.full((3,), -1000.0))))


def test_the_average_follows_and_counters_are_copied():
    network = nn.BatchNorm1d(1)
    average = WeightAverage(network, 0.5)
    with torch.no_grad():
        network.weight.fill_(3.0)
        network.num_batches_tracked.fill_(7)
    average.update(step=100)
    assert float(average.network.weight) == 2.0  # half way from 1 to 3
    assert int(average.network.num_batches_tracked) == 7
    assert not average.network.weight.requires_grad


def test_the_average_forgets_the_start_soon():
    network = nn.Linear(1, 1, bias=False)
    average = WeightAverage(network, 0.9999)
    start = float(network.weight.detach())
    with torch.no_grad():
        network.weight.add_(1.0)
    average.update(step=1)
    assert float(average.network.weight) == pytest.approx(start + 9 / 11)
