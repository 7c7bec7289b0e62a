"""Convolutions within slices: they see one slice to either side, and the same in slabs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from MedXlateCore.models.blocks.slabs import by_slabs
from MedXlateCore.models.blocks.volume_conv import PlanarConv, VolumeConv, volume_conv


def volume(channels, size=(6, 5, 4), batch=1):
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(0))


def planar(channels, out=3):
    torch.manual_seed(0)
    return PlanarConv(channels, out)


def test_it_is_a_3x3x3_convolution_whose_kernels_are_zero_but_for_one_plane_a_channel():
    conv, x = planar(16), volume(16, batch=2)
    weight = torch.zeros(3, 16, 3, 3, 3)
    for channel in range(16):
        plane = {0: 0, 1: 0, 2: 2, 3: 2}.get(channel, 1)  # two from before, two from behind
        weight[:, channel, plane] = conv.weight[:, channel]
    expected = nn.functional.conv3d(x, weight, conv.bias, padding=1)
    assert torch.allclose(conv(x), expected, atol=1e-5)


def test_with_few_channels_a_slice_is_seen_alone():
    conv, x = planar(7), volume(7)
    changed = x.clone()
    changed[:, :, 2] += 1
    made = (conv(changed) - conv(x)).abs().amax(dim=(0, 1, 3, 4))
    assert (made > 1e-3).tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize("size", [(12, 5, 4), (4, 12, 5)])
def test_slabs_give_the_same(size):
    conv, x = planar(8), volume(8, size)
    with torch.no_grad():
        assert torch.allclose(by_slabs(conv, x, 5), conv(x), atol=1e-6)


def test_one_slice_is_convolved_too():
    assert planar(8)(volume(8, (1, 4, 4))).shape == (1, 3, 1, 4, 4)


def test_the_kind_is_chosen_by_name():
    assert isinstance(volume_conv(8, 2, planar=True), PlanarConv)
    assert isinstance(volume_conv(8, 2), VolumeConv)
