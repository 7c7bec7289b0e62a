"""Normalisation layers by name."""

from __future__ import annotations

import pytest
import torch

from MedXlateCore.models.blocks.norms import norm_layer


@pytest.mark.parametrize("kind", ["instance", "group"])
def test_an_image_is_normalised_with_its_own_statistics(kind):
    layer, x = norm_layer(kind, 8), torch.randn(3, 8, 6, 6) * 5 + 2
    whole = layer(x)
    assert torch.allclose(whole[:1], layer(x[:1]), atol=1e-5)
    per_channel = whole[0].unflatten(0, (8 if kind == "instance" else 4, -1)).flatten(1)
    assert torch.allclose(per_channel.mean(dim=1), torch.zeros(len(per_channel)), atol=1e-5)
    assert torch.allclose(per_channel.std(dim=1, correction=0), torch.ones(len(per_channel)), atol=1e-4)


def test_the_constant_that_is_added_to_the_variance_can_be_set():
    x = torch.randn(4, 2, 8, 8)
    x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True, correction=0)
    for kind in ("batch", "instance"):
        assert norm_layer(kind, 2, eps=3.0)(x).std().item() == pytest.approx(0.5, rel=0.02)  # 1 / sqrt(1 + 3)


def test_a_map_of_one_pixel_becomes_the_bias():
    layer = norm_layer("instance", 2)
    torch.nn.init.constant_(layer.bias, 0.25)
    assert torch.equal(layer(torch.rand(1, 2, 1, 1)), torch.full((1, 2, 1, 1), 0.25))
    assert torch.equal(norm_layer("instance", 2, affine=False)(torch.rand(1, 2, 1, 1)), torch.zeros(1, 2, 1, 1))


def test_groups_divide_any_number_of_channels():
    for channels in (1, 3, 6, 10):
        assert norm_layer("group", channels)(torch.rand(1, channels, 4, 4)).shape[1] == channels


def test_none_is_no_layer():
    x = torch.rand(1, 2, 4, 4)
    assert norm_layer("none", 2)(x) is x


def test_maps_of_volumes_are_normalised_and_such_of_one_voxel_become_the_bias():
    layer = norm_layer("instance", 2, dimensions=3)
    normed = layer(torch.randn(3, 2, 4, 6, 6) * 5 + 2)
    assert normed.mean(dim=(2, 3, 4)).abs().max() < 1e-5
    torch.nn.init.constant_(layer.bias, 0.5)
    assert torch.equal(layer(torch.rand(3, 2, 1, 1, 1)), torch.full((3, 2, 1, 1, 1), 0.5))
    assert norm_layer("batch", 2, dimensions=3)(torch.rand(3, 2, 2, 4, 4)).shape == (3, 2, 2, 4, 4)


def test_volumes_take_a_faster_way_to_the_same():
    layer, x = norm_layer("instance", 4, dimensions=3), torch.randn(2, 4, 4, 6, 6) * 5 + 2
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    expected = torch.nn.functional.instance_norm(x, weight=layer.weight, bias=layer.bias)
    assert torch.allclose(layer(x), expected, atol=1e-5)
    assert torch.equal(layer(x)[:1], layer(x[:1]))
