"""ConvNeXt blocks, attention between pixels, the image encoder and its pooling, and structure encoders."""

from __future__ import annotations

import math

import pytest
import torch

from MedXlateCore.models.blocks.convnext import AttentionPool, ConvNextBlock, ImageEncoder, PixelAttention, bordered
from MedXlateCore.models.blocks.structure import Decoder, StructureEncoder, WindowBlock


def test_borders_are_mirrored_or_repeated_where_there_is_too_little():
    row = torch.arange(5.0).expand(1, 1, 5, 5)
    assert bordered(row, 2)[0, 0, 0].tolist() == [2, 1, 0, 1, 2, 3, 4, 3, 2]
    assert bordered(row[..., :2], 2)[0, 0, 0].tolist() == [0, 0, 0, 1, 1, 1]


def test_a_block_starts_near_the_identity():
    x = torch.randn(2, 8, 9, 7)
    assert 0 < (ConvNextBlock(8)(x) - x).abs().max() < 1e-4
    assert (ConvNextBlock(8, layer_scale=1.0)(x) - x).abs().max() > 0.01


def test_pixel_attention_equals_its_equation():
    module, x = PixelAttention(8), torch.randn(2, 8, 5, 4)
    normed = module.norm(x)
    queries, (keys, values) = module.query(normed).flatten(2), module.key_value(normed).chunk(2, dim=1)
    weights = (queries.transpose(1, 2) @ keys.flatten(2) / math.sqrt(8)).softmax(dim=-1)
    attended = (values.flatten(2) @ weights.transpose(1, 2)).reshape(x.shape)
    assert (module(x) - x - module.out(attended)).abs().max() < 1e-5


def test_pooling_equals_its_equation_with_one_head():
    pool, x = AttentionPool(8, 3, 1, 2), torch.randn(1, 8, 2, 2)
    pixels = (x + pool.positions)[0].flatten(1).T
    mean = x[0].mean(dim=(1, 2)) + pool.mean_position[0]
    tokens = torch.cat((mean[None], pixels))
    weights = (pool.query(mean) @ pool.key(tokens).T / math.sqrt(8)).softmax(dim=0)
    assert (pool(x)[0] - pool.out(weights @ pool.value(tokens))).abs().max() < 1e-5


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (20, 44), (4, 4)])
def test_the_image_encoder_takes_any_size(size):
    encoder = ImageEncoder((4, 8, 16), (1, 1, 1), 6, 4, 8, 0.1)
    assert encoder(torch.randn(2, 1, *size)).shape == (2, 6)


def test_padding_of_the_image_encoder_is_black():
    encoder = ImageEncoder((4, 8), (1, 1), 6, 4, 8, 0.1)
    image, padded = torch.rand(1, 1, 13, 16), torch.full((1, 1, 16, 16), -1.0)
    padded[:, :, :13] = image
    assert torch.equal(encoder(image), encoder(padded))


@pytest.mark.parametrize("backbone", ["convnext", "resnet", "swin"])
def test_structure_encoders_quarter_the_image(backbone):
    encoder = StructureEncoder((4, 8, 16), (1, 2), backbone, 0.1)
    image = torch.randn(1, 1, 20, 44, requires_grad=True)
    code = encoder(image)
    assert code.shape == (1, 16, 5, 11)
    code.square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_windows_look_no_further_than_their_borders():
    x = torch.zeros(1, 4, 16, 16)
    change = torch.zeros_like(x)
    change[:, :, 2, 2] = torch.arange(4.0)
    for shifted, beyond in ((False, 8), (True, 4)):
        block = WindowBlock(4, shifted, 1.0)
        moved = (block(x + change) - block(x)).abs().amax(dim=1)[0] > 0
        assert moved[:beyond, :beyond].any()
        assert not moved[beyond:].any()
        assert not moved[:, beyond:].any()


def test_shifted_windows_give_nothing_to_what_lies_outside_the_map():
    block = WindowBlock(4, True, 1.0)
    with torch.no_grad():
        block.qkv.weight.zero_()
        block.qkv.bias.fill_(1.0)  # every pixel has the value 1, what lies outside would have 0
        block.out.weight.copy_(torch.eye(4)[..., None, None])
        block.out.bias.zero_()
    assert (block._attended(torch.randn(1, 4, 10, 13)) - 1).abs().max() < 1e-5


def test_the_decoder_quadruples_the_code_and_hardly_falls_below_black():
    decoder = Decoder((4, 8, 16), (1, 2), 5, 2, 0.1)
    image = decoder(100 * torch.randn(2, 16, 5, 7), torch.randn(2, 5))
    assert image.shape == (2, 1, 20, 28)
    with torch.no_grad():
        decoder.output.weight.zero_()
        decoder.output.bias.fill_(-3.0)
    assert decoder(torch.randn(1, 16, 5, 7), torch.randn(1, 5)).mean().item() == pytest.approx(2 * -0.01 - 1)
