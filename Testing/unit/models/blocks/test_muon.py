"""Muon: against its definition, PyTorch's own for matrices, and a problem that it solves."""

import pytest
import torch
from torch import nn

from MedXlateCore.models.blocks.muon import Muon, layer_matrices, orthogonal


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(16, 16), (16, 144), (96, 24)])
def test_all_singular_values_come_near_one_and_directions_stay(shape):
    matrix = drawn(*shape)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    made = left.T @ orthogonal(matrix) @ right.T
    kept = values > 0.05 * values[0]
    assert (made.diagonal()[kept] > 0.6).all()
    assert (made.diagonal() < 1.25).all()
    assert (made - torch.diag(made.diagonal())).abs().max() < 1e-4


def iterated(matrix):
    """Return what the iteration gives by its definition, in double precision."""
    x = matrix.double() / matrix.double().norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.float()


@pytest.mark.parametrize("rank", [1, 4, 24])
def test_the_shorter_sides_products_give_what_the_definition_does(rank):
    matrix = drawn(24, rank) @ drawn(rank, 100, seed=1) + 1e-4 * drawn(24, 100, seed=2)
    torch.testing.assert_close(orthogonal(matrix), iterated(matrix), atol=1e-3, rtol=0)
    torch.testing.assert_close(orthogonal(matrix.T), iterated(matrix).T, atol=1e-3, rtol=0)


def test_the_size_of_a_gradient_does_not_matter():
    torch.testing.assert_close(orthogonal(1e4 * drawn(8, 20)), orthogonal(drawn(8, 20)), atol=1e-4, rtol=0)


def test_a_gradient_of_zero_changes_nothing():
    weight = nn.Parameter(drawn(8, 8))
    before = weight.detach().clone()
    weight.grad = torch.zeros_like(weight)
    Muon([weight], lr=0.1).step()
    assert torch.equal(weight, before)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon to compare with")
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_it_agrees_with_pytorchs_for_matrices(decay):
    ours, theirs = (nn.Parameter(drawn(24, 40)) for _ in range(2))
    first = Muon([ours], lr=0.02, weight_decay=decay)
    second = torch.optim.Muon([theirs], lr=0.02, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    for step in range(5):
        ours.grad = drawn(24, 40, seed=step)
        theirs.grad = ours.grad.clone()
        first.step()
        second.step()
    moved = (theirs - drawn(24, 40)).norm()
    assert (ours - theirs).norm() < 0.03 * moved  # theirs works in bfloat16


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (64, 2, 3, 3)])
def test_weights_of_convolutions_are_matrices_of_their_outputs(shape, layout):
    flat = nn.Parameter(drawn(*shape).flatten(1))
    conv = nn.Parameter(drawn(*shape).contiguous(memory_format=layout))
    flat.grad, conv.grad = drawn(*shape, seed=1).flatten(1), drawn(*shape, seed=1).contiguous(memory_format=layout)
    for weight in (flat, conv):
        Muon([weight], lr=0.1).step()
    torch.testing.assert_close(conv.flatten(1), flat)
    assert not torch.equal(flat, drawn(*shape).flatten(1))


def test_a_closure_is_called_with_gradients():
    weight = nn.Parameter(drawn(8, 8))

    def closure():
        loss = weight.square().sum()
        loss.backward()
        return loss

    before = weight.detach().square().sum()
    assert Muon([weight], lr=0.1).step(closure) == before
    assert weight.square().sum() < before


def test_weights_without_gradient_are_left_alone():
    weight = nn.Parameter(drawn(8, 8))
    Muon([weight], lr=0.1).step()
    assert torch.equal(weight, drawn(8, 8))


def test_matrices_are_weights_of_layers_of_at_least_8_by_8():
    wide = [nn.Linear(8, 8), nn.Conv2d(2, 8, 3), nn.Conv3d(1, 16, 3)]
    narrow = [nn.Linear(7, 64), nn.Linear(64, 7), nn.Conv2d(1, 64, 1), nn.Embedding(16, 16), nn.InstanceNorm3d(9)]
    network = nn.Sequential(*wide, *narrow)
    network.register_parameter("book", nn.Parameter(drawn(32, 16)))
    matrices, others = layer_matrices([network])
    assert [id(p) for p in matrices] == [id(layer.weight) for layer in wide]
    assert {id(p) for p in others} == {id(p) for p in network.parameters()} - {id(p) for p in matrices}


def test_a_vector_is_refused():
    with pytest.raises(ValueError, match=r"\(8,\)"):
        Muon([nn.Parameter(drawn(8))])


def test_it_finds_a_linear_map():
    inputs, true = drawn(256, 16, seed=2), drawn(16, 16, seed=3)
    weight = nn.Parameter(torch.zeros(16, 16))
    optimiser = Muon([weight], lr=0.2)
    losses = []
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 0.2 * (1 - step / 200)
        loss = (inputs @ (weight - true)).square().mean()
        weight.grad = torch.autograd.grad(loss, weight)[0]
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 1e-3 * losses[0]
