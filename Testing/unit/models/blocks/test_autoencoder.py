"""The volumetric autoencoder: shapes, slabs that give the same as the whole, small maps on a CPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from MedXlateCore.models.blocks.autoencoder import Decoder, Encoder, patched, unpatched
from MedXlateCore.models.blocks.slabs import by_slabs, group_affine, slabs_of
from MedXlateCore.models.blocks.volume_conv import VolumeConv


def finished(run):
    while True:
        try:
            next(run)
        except StopIteration as end:
            return end.value


def volume(channels=1, size=(8, 24, 16), seed=0):
    return torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(seed))


def learning_nothing(shortcut):
    """Return encoder and decoder whose learned layers add nothing to the shortcut."""
    shape = ((8,), shortcut, 1, "none", 2, shortcut)
    encoder, decoder = Encoder(*shape), Decoder(*shape)
    for last in (encoder.layers[-1], [layer for layer in decoder.layers if hasattr(layer, "norm")][-1]):
        for parameter in last.parameters():
            torch.nn.init.zeros_(parameter)
    torch.nn.init.dirac_(decoder.layers[0].conv.weight)
    torch.nn.init.zeros_(decoder.layers[0].conv.bias)
    return encoder, decoder


@pytest.mark.parametrize("tile", [0, 4])
def test_a_shortcut_of_as_many_channels_as_voxels_loses_nothing(tile):
    encoder, decoder = learning_nothing(8)
    with torch.no_grad():
        latents = finished(encoder.stepwise(volume(), tile))
        assert torch.equal(finished(decoder.stepwise(latents, tile)), volume())


def test_a_shortcut_of_fewer_channels_keeps_means():
    encoder, decoder = learning_nothing(1)
    with torch.no_grad():
        made = decoder(encoder(volume()))
    means = torch.nn.functional.avg_pool3d(volume(), 2)
    assert torch.allclose(
        made, means.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4), atol=1e-6
    )


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("middle", ["attention", "block"])
def test_latents_are_as_much_smaller_as_declared(patch, middle):
    encoder, decoder = Encoder((8, 16), 3, 1, middle, patch), Decoder((8, 16), 3, 1, middle, patch)
    z = encoder(volume())
    assert z.shape == (1, 3, 8 // (2 * patch), 24 // (2 * patch), 16 // (2 * patch))
    assert decoder(z).shape == (1, 1, 8, 24, 16)


def test_patches_are_undone():
    x = volume(3)
    assert patched(x, 2).shape == (1, 24, 4, 12, 8)
    assert torch.equal(unpatched(patched(x, 2), 2), x)
    assert torch.equal(patched(x, 2)[0, :8, 0, 0, 0], x[0, 0, :2, :2, :2].flatten())


@pytest.mark.parametrize("size", [(8, 24, 16), (40, 8, 8), (8, 8, 20)])
@pytest.mark.parametrize("tile", [5, 1000])
@torch.no_grad()
def test_slabs_give_what_the_whole_gives(size, tile):
    torch.manual_seed(0)
    encoder, decoder = Encoder((8, 8, 16), 4, 1, "attention"), Decoder((8, 8, 16), 4, 2, "attention")
    x = volume(size=size) * torch.linspace(0, 3, size[2])  # statistics of pieces are not those of the whole
    z = encoder(x)
    assert (finished(encoder.stepwise(x, tile)) - z).abs().max() < 1e-4 * z.std()
    whole = decoder(z)
    assert (finished(decoder.stepwise(z, tile)) - whole).abs().max() < 1e-4 * whole.std()


@torch.no_grad()
def test_working_in_steps_changes_neither_the_result_nor_the_input():
    encoder, x = Encoder((8, 16), 4, 1, "block"), volume()
    before = x.clone()
    steps = encoder.stepwise(x, 4)
    count = 0
    while True:
        try:
            next(steps)
            count += 1
        except StopIteration as end:
            made = end.value
            break
    assert count == len(encoder)
    assert torch.equal(x, before)
    assert (made - encoder(x)).abs().max() < 1e-4


def test_statistics_are_those_of_the_whole_map():
    norm, x = nn.GroupNorm(2, 4), volume(4) * 3 + 5
    nn.init.normal_(norm.weight)
    gain, shift = group_affine(x, norm, 5)
    assert torch.allclose(x * gain + shift, norm(x), atol=1e-5)


def test_slabs_cover_everything_once():
    for length, planes in ((10, 3), (7, 7), (1, 4), (9, 100)):
        slabs = list(slabs_of(length, planes))
        assert [n for start, stop in slabs for n in range(start, stop)] == list(range(length))
        assert max(stop - start for start, stop in slabs) <= planes


def test_a_function_of_neighbours_sees_them_across_slabs():
    conv, x = nn.Conv3d(2, 3, 3, padding=1), volume(2)
    with torch.no_grad():
        assert torch.allclose(by_slabs(conv, x, 5), conv(x), atol=1e-6)
        added = x[:, :1].repeat(1, 3, 1, 1, 1)
        expected = added + conv(x)
        assert torch.allclose(by_slabs(conv, x, 5, add_to=added), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(8, 24, 16), (7, 5, 3), (2, 2, 2), (3, 6, 5)])
@pytest.mark.parametrize("batch", [1, 2])
def test_the_fast_convolution_of_small_maps_is_a_convolution(size, batch):
    torch.manual_seed(0)
    conv, x = VolumeConv(3, 2), volume(3, size).repeat(batch, 1, 1, 1, 1).requires_grad_(True)
    made, plain = conv(x), nn.Conv3d.forward(conv, x)
    assert torch.allclose(made, plain, atol=1e-5)
    gradients = [torch.autograd.grad(y.square().sum(), (x, conv.weight, conv.bias)) for y in (made, plain)]
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(*gradients, strict=True))
