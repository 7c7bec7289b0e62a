"""The codebook: nearest codes, gradients of both terms, the published mistake, moving averages, revival, perplexity."""

from __future__ import annotations

import pytest
import torch

from MedXlateCore.models.blocks.quantiser import GaussianRegulariser, VectorQuantiser


def latents(n=2, channels=3, seed=0):
    return torch.randn(n, channels, 4, 4, 4, generator=torch.Generator().manual_seed(seed))


def with_book(quantiser, book):
    quantiser.book.data.copy_(book)
    return quantiser


def draws(codes, seed=0):
    return torch.rand(codes, generator=torch.Generator().manual_seed(seed))


def test_codes_start_small():
    assert VectorQuantiser(64, 3).book.abs().max() <= 1 / 64


def test_every_place_gets_its_nearest_code():
    z, book = latents(), torch.randn(16, 3)
    made = with_book(VectorQuantiser(16, 3), book)(z).latents
    flat = z.movedim(1, -1).reshape(-1, 3)
    expected = book[torch.cdist(flat, book).argmin(dim=1)].view(2, 4, 4, 4, 3).movedim(-1, 1)
    assert torch.allclose(made, expected, atol=1e-6)


def test_it_is_the_same_in_pieces(monkeypatch):
    quantiser, z = with_book(VectorQuantiser(16, 3), torch.randn(16, 3)), latents()
    whole = quantiser(z).latents
    monkeypatch.setattr("MedXlateCore.models.blocks.quantiser.CHUNK", 100)
    assert torch.equal(quantiser(z).latents, whole)


def test_gradients_go_straight_through():
    z = latents().requires_grad_(True)
    weights = torch.randn_like(z)
    (VectorQuantiser(16, 3)(z).latents * weights).sum().backward()
    assert torch.allclose(z.grad, weights)


@pytest.mark.parametrize(("legacy", "to_latents", "to_codes"), [(False, 0.25, 1.0), (True, 1.0, 0.25)])
def test_beta_weighs_the_commitment_or_in_the_published_mistake_the_other_term(legacy, to_latents, to_codes):
    z = latents().requires_grad_(True)
    quantiser = with_book(VectorQuantiser(16, 3, beta=0.25, legacy=legacy), torch.randn(16, 3))
    regularised = quantiser(z)
    regularised.loss.backward()
    difference = z.detach() - regularised.latents.detach()
    assert torch.allclose(z.grad, to_latents * 2 * difference / z.numel(), atol=1e-7)
    assert quantiser.book.grad.norm() > 0
    flat = difference.movedim(1, -1).reshape(-1, 3)
    indices = quantiser.nearest(z.detach().movedim(1, -1).reshape(-1, 3))
    expected = torch.zeros_like(quantiser.book).index_add_(0, indices, -flat) * to_codes * 2 / z.numel()
    assert torch.allclose(quantiser.book.grad, expected, atol=1e-6)


def test_codes_as_moving_averages_follow_the_latents():
    centres = torch.tensor([[-2.0, 0, 0], [2.0, 0, 0]])
    chosen = torch.randint(0, 2, (512,), generator=torch.Generator().manual_seed(0))
    z = centres[chosen] + 0.01 * torch.randn(512, 3)
    z = z.T.reshape(1, 3, 8, 8, 8)
    quantiser = VectorQuantiser(2, 3, update="average", decay=0.8, revive=0.0).train()
    quantiser.book.copy_(torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]]))
    quantiser.sums.copy_(quantiser.book)
    for _ in range(60):
        quantiser(z, draws(2))
    assert torch.allclose(quantiser.book, centres, atol=0.05)
    assert not list(quantiser.parameters())


@pytest.mark.parametrize("update", ["gradient", "average"])
def test_codes_that_nobody_takes_come_back_to_life(update):
    quantiser = VectorQuantiser(32, 3, update=update, revive=0.01).train()
    with torch.no_grad():
        quantiser.book.fill_(100.0)  # all but one are out of reach
        quantiser.book[0] = 0.0
    quantiser.usage.fill_(1.0)
    z = latents(4)
    first = quantiser(z, draws(32)).perplexity
    assert first == pytest.approx(1.0, abs=1e-3)
    for n in range(300):
        last = quantiser(z, draws(32, n)).perplexity
    assert last > 16


def test_without_revival_a_collapsed_codebook_stays_so():
    quantiser = VectorQuantiser(32, 3, update="average", revive=0.0).train()
    quantiser.book.fill_(100.0)
    quantiser.book[0] = 0.0
    quantiser.sums.copy_(quantiser.book)
    for n in range(50):
        regularised = quantiser(latents(4), draws(32, n))
    assert regularised.perplexity == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("update", ["gradient", "average"])
def test_a_use_without_draws_and_an_evaluation_change_nothing(update):
    quantiser = VectorQuantiser(8, 3, update=update)
    before = {name: value.clone() for name, value in quantiser.state_dict().items()}
    quantiser.train()(latents())
    quantiser.eval()(latents(), draws(8))
    assert all(torch.equal(value, before[name]) for name, value in quantiser.state_dict().items())


def test_perplexity_counts_the_codes_in_use():
    book = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    quantiser = with_book(VectorQuantiser(4, 1), book)
    assert quantiser(torch.zeros(1, 1, 2, 2, 2)).perplexity == pytest.approx(1.0, abs=1e-4)
    even = torch.arange(4.0).repeat(2).view(1, 1, 2, 2, 2)
    assert quantiser(even).perplexity == pytest.approx(4.0, abs=1e-3)


def test_the_other_regulariser_is_the_divergence_from_the_standard_normal_distribution():
    mean, spread = torch.full((1, 1, 2, 2, 2), 0.5), torch.full((1, 1, 2, 2, 2), -1.0)
    regularised = GaussianRegulariser()(torch.cat((mean, spread), dim=1))
    one = torch.distributions.Normal(0.5, torch.tensor(-1.0).mul(0.5).exp())
    expected = torch.distributions.kl_divergence(one, torch.distributions.Normal(0.0, 1.0))
    assert regularised.loss == pytest.approx(expected.item(), rel=1e-5)
    assert torch.equal(regularised.latents, mean)
    drawn = GaussianRegulariser()(torch.cat((mean, spread), dim=1), torch.ones(1, 1, 2, 2, 2)).latents
    assert torch.allclose(drawn, mean + one.stddev)
