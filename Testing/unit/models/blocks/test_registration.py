"""Warping by a known displacement, its smoothness, and the network that predicts it."""

from __future__ import annotations

import pytest
import torch

from MedXlateCore.errors import InputError
from MedXlateCore.models.blocks.registration import RegistrationUnet, smoothness, warp


def field(rows, columns, size=(12, 16)):
    return torch.tensor([float(rows), float(columns)]).reshape(1, 2, 1, 1).expand(1, 2, *size)


def test_no_displacement_changes_nothing():
    image = torch.rand(2, 3, 12, 16)
    assert torch.allclose(warp(image, torch.zeros(2, 2, 12, 16)), image, atol=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(2, 0), (0, 3), (-1, 2), (-2, -3)])
def test_a_whole_number_of_pixels_takes_the_values_that_lie_there(rows, columns):
    image = torch.rand(1, 1, 12, 16)
    expected = image.roll((-rows, -columns), dims=(2, 3))  # at p stands what was at p + displacement
    inner = (..., slice(3, -3), slice(4, -4))
    assert torch.allclose(warp(image, field(rows, columns))[inner], expected[inner], atol=1e-5)


def test_a_part_of_a_pixel_is_interpolated():
    ramp = torch.arange(16.0).expand(1, 1, 12, 16)
    assert torch.allclose(warp(ramp, field(0, 0.25))[..., :-1], ramp[..., :-1] + 0.25, atol=1e-5)


def test_beyond_the_border_lie_the_values_of_the_border():
    ramp = torch.arange(16.0).expand(1, 1, 12, 16)
    assert torch.allclose(warp(ramp, field(0, 100)), torch.full((1, 1, 12, 16), 15.0))


def test_each_pixel_has_a_displacement_of_its_own():
    image, moved = torch.rand(1, 1, 12, 16), torch.zeros(1, 2, 12, 16)
    moved[0, 0, 5, 7], moved[0, 1, 5, 7] = 3, -2
    result = warp(image, moved)
    assert result[0, 0, 5, 7].item() == pytest.approx(image[0, 0, 8, 5].item(), abs=1e-5)
    result[0, 0, 5, 7] = image[0, 0, 5, 7]
    assert torch.allclose(result, image, atol=1e-6)


def test_a_shift_of_the_whole_image_is_smooth():
    assert smoothness(field(5, -3)) == 0


def test_smoothness_is_the_mean_squared_difference_down_plus_that_to_the_right():
    rows = torch.arange(12.0).reshape(12, 1).expand(12, 16)
    columns = torch.arange(16.0).expand(12, 16)
    stretched = torch.stack((3 * rows, 0.5 * columns))[None]
    # down: 3 and 0 for the two directions of displacement; to the right: 0 and 0.5
    assert smoothness(stretched).item() == pytest.approx((9 + 0) / 2 + (0 + 0.25) / 2)


def test_at_first_nothing_moves():
    network = RegistrationUnet(4, 2)
    assert torch.equal(network(torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16)), torch.zeros(2, 2, 16, 16))


@pytest.mark.parametrize("size", [(16, 16), (20, 36), (17, 23)])
def test_it_takes_any_size_that_is_not_too_small(size):
    assert RegistrationUnet(4, 2)(torch.rand(1, 1, *size), torch.rand(1, 1, *size)).shape == (1, 2, *size)


def test_an_image_that_is_too_small_is_refused():
    with pytest.raises(InputError, match="MX-MOD-007"):
        RegistrationUnet(4, 3)(torch.rand(1, 1, 12, 16), torch.rand(1, 1, 12, 16))
