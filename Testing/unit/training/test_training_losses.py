"""Losses and the moving average."""

from __future__ import annotations

import math

import pytest
import torch
from skimage.metrics import structural_similarity
from torch import nn

from MedXlateCore.training.average import WeightAverage
from MedXlateCore.training.losses import (
    beta_likelihood,
    cross_entropy_discriminator,
    cross_entropy_generator,
    l1,
    lsgan_discriminator,
    lsgan_generator,
    masked_l1,
    ssim_loss,
)


def test_l1_is_the_mean_absolute_difference():
    assert float(l1(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0]))) == 1.5


def test_with_beta_0_the_likelihood_is_a_normal_distributions():
    made, wanted, log_spread = torch.randn(3, 2, 50, generator=torch.Generator().manual_seed(0))
    expected = -torch.distributions.Normal(made, log_spread.exp()).log_prob(wanted).mean() - math.log(2 * math.pi) / 2
    assert float(beta_likelihood(made, wanted, log_spread, 0.0)) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_beta_says_how_much_a_large_spread_excuses(beta):
    made, wanted, log_spread = torch.randn(3, 2, 50, generator=torch.Generator().manual_seed(0))
    made.requires_grad_(True)
    (gradient,) = torch.autograd.grad(beta_likelihood(made, wanted, log_spread, beta), made)
    expected = (made - wanted).detach() / torch.exp((2 - 2 * beta) * log_spread) / made.numel()
    torch.testing.assert_close(gradient, expected)


def test_the_spread_that_is_most_likely_is_that_of_the_errors():
    made, wanted = torch.zeros(10_000), 0.3 * torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    log_spread = wanted.std(correction=0).log().expand(10_000).clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(beta_likelihood(made, wanted, log_spread, 0.5), log_spread)
    assert abs(float(gradient.sum())) < 1e-3


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


def test_the_ssim_loss_is_one_minus_the_usual_ssim():
    rng = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 1, 40, 33, generator=rng)
    made = (truth + 0.2 * torch.rand(truth.shape, generator=rng)).clamp(0, 1)
    own = [
        structural_similarity(
            t[0].numpy(), m[0].numpy(), data_range=1.0, gaussian_weights=True, sigma=1.5, win_size=11,
            use_sample_covariance=False,
        )
        for t, m in zip(truth, made, strict=True)
    ]  # fmt: skip
    assert float(ssim_loss(made, truth)) == pytest.approx(1 - sum(own) / 2, abs=2e-5)
    assert float(ssim_loss(truth, truth)) == pytest.approx(0, abs=1e-6)


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
