"""The pixel contrast against hand-computed cases, and the changes of inputs."""

from __future__ import annotations

import math

import pytest
import torch

from MedXlateCore.models.blocks.eva_losses import augmented, pixel_contrast, shrunk


def contrast(first, second, mask, positions=100, seed=0):
    return pixel_contrast(first, second, mask, positions, 0.5, torch.Generator().manual_seed(seed)).item()


def test_two_places_that_point_to_two_sides():
    code = torch.tensor([[[[3.0, 0.0]], [[0.0, 0.2]]]])  # two places, at right angles
    # each of the four vectors: its twin at cosine 1, two others at cosine 0; temperature 0.5
    expected = -math.log(math.exp(2) / (math.exp(2) + 2))
    assert contrast(code, code, torch.ones(1, 1, 1, 2)) == pytest.approx(expected, abs=1e-6)


def test_places_outside_the_mask_are_not_looked_at():
    first = torch.randn(1, 4, 3, 3)
    second = first.clone()
    mask = torch.ones(1, 1, 3, 3)
    mask[..., 0] = 0
    before = contrast(first, second, mask)
    first[..., 0] += 10
    assert contrast(first, second, mask) == pytest.approx(before, abs=1e-5)


def test_an_empty_mask_costs_nothing_and_gradients_stay_finite():
    code = torch.randn(2, 4, 3, 3, requires_grad=True)
    mask = torch.zeros(2, 1, 3, 3)
    mask[1, 0, :, 0] = 1
    loss = pixel_contrast(code, code.detach(), mask, 9, 0.07, torch.Generator())
    loss.backward()
    assert torch.isfinite(code.grad).all()
    assert code.grad[0].abs().max() == 0
    assert contrast(code.detach(), code.detach(), mask * 0) == 0


def test_places_are_drawn_from_the_whole_mask():
    code = torch.zeros(1, 1, 20, 20)
    code.requires_grad_(True)
    seen = torch.zeros(20, 20, dtype=torch.bool)
    for seed in range(40):
        code.grad = None
        noisy = code + torch.randn(1, 3, 20, 20, generator=torch.Generator().manual_seed(seed))
        pixel_contrast(
            noisy, noisy.detach(), torch.ones(1, 1, 20, 20), 40, 0.1, torch.Generator().manual_seed(seed)
        ).backward()
        seen |= code.grad[0, 0].abs() > 0
    assert seen[:10].float().mean() > 0.8
    assert seen[10:].float().mean() > 0.8


def test_a_shrunk_mask_is_where_all_pixels_are():
    mask = torch.ones(1, 1, 4, 8)
    mask[..., 1, 5] = 0
    assert shrunk(mask, 4).flatten().tolist() == [1, 0]


def test_changes_of_inputs_are_small_repeatable_and_leave_half_alone():
    images = torch.rand(200, 1, 8, 8) * 2 - 1
    changed = augmented(images, torch.Generator().manual_seed(3))
    assert torch.equal(changed, augmented(images, torch.Generator().manual_seed(3)))
    kept = ((changed - images).abs().amax(dim=(1, 2, 3)) < 1e-6).float().mean().item()
    assert 0.4 < kept < 0.7  # half, and those of the others that none of four coins chose
    assert (changed - images).abs().mean() < 0.05
