"""Row bands: the same result as the whole map, in less memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from MedXlateCore.models.blocks import bands
from MedXlateCore.models.blocks.bands import Band, map_bands, row_bands
from MedXlateCore.models.blocks.restormer import DenseFeedForward, GatedFeedForward, TransformerBlock


@pytest.fixture
def narrow_bands(monkeypatch):
    monkeypatch.setattr(bands, "BAND_BYTES", 1)  # the least number of rows


def test_bands_cover_every_row_once(narrow_bands):
    with torch.no_grad():
        pieces = row_bands(torch.zeros(1, 4, 37, 8), 8)
    assert len(pieces) > 3
    assert [row for band in pieces for row in range(band.start, band.stop)] == list(range(37))


def test_a_map_that_gradients_are_recorded_for_is_one_band(narrow_bands):
    assert row_bands(torch.zeros(1, 4, 37, 8), 8) == [Band(0, 37, 37)]


def test_a_convolution_in_bands_is_the_convolution_of_the_whole(narrow_bands):
    x, kernel = torch.randn(2, 3, 37, 9), torch.randn(3, 3, 3, 3)
    with torch.no_grad():
        banded = {add: map_bands(lambda p, band: band.conv3x3(p, kernel), x, 3, add=add) for add in (False, True)}
    whole = F.conv2d(x, kernel, padding=1)
    assert (banded[False] - whole).abs().max() < 1e-5
    assert (banded[True] - x - whole).abs().max() < 1e-5


@pytest.mark.parametrize("feed_forward", [DenseFeedForward(8), GatedFeedForward(8, 2.0)])
@pytest.mark.parametrize("height", [8, 9, 17, 40])
def test_a_transformer_block_in_bands_equals_the_block(narrow_bands, feed_forward, height):
    torch.manual_seed(0)
    block = TransformerBlock(8, 2, feed_forward)
    x = torch.randn(2, 8, height, 12)
    whole = block(x)
    with torch.no_grad():
        banded = block(x)
    assert (banded - whole).abs().max() < 1e-5


def test_bands_do_not_change_what_they_are_given(narrow_bands):
    block = TransformerBlock(8, 2)
    x = torch.randn(1, 8, 40, 12)
    before = x.clone()
    with torch.no_grad():
        block(x)
    assert torch.equal(x, before)
