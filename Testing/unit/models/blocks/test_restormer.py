"""Restormer blocks: exactness of the norms, safety in half precision, shapes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from MedXlateCore.models.blocks.restormer import (
    ChannelAttention,
    DenseFeedForward,
    Downsample,
    GatedFeedForward,
    LayerNorm2d,
    TransformerBlock,
    Upsample,
)


def test_layer_norm_makes_each_pixel_zero_mean_and_unit_variance_over_channels():
    x = torch.randn(2, 12, 5, 4) * 3 + 7
    y = LayerNorm2d(12)(x)
    assert y.mean(dim=1).abs().max() < 1e-5
    assert (y.var(dim=1, unbiased=False) - 1).abs().max() < 1e-3


def test_layer_norm_survives_half_precision_values_whose_squares_overflow():
    x = torch.full((1, 8, 2, 2), 1000.0, dtype=torch.float16)  # 1000 squared is beyond fp16
    x[:, ::2] = -1000.0
    y = LayerNorm2d(8)(x)
    assert y.dtype == torch.float16
    assert torch.allclose(y.abs(), torch.ones_like(y), atol=1e-2)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_channel_attention_equals_its_equation(heads):
    torch.manual_seed(0)
    module = ChannelAttention(8, heads)
    torch.nn.init.normal_(module.temperature)
    x = torch.randn(2, 8, 6, 5)
    q, k, v = (t.reshape(2, heads, 8 // heads, 30) for t in module.qkv_depthwise(module.qkv(x)).chunk(3, dim=1))
    weights = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * module.temperature).softmax(-1)
    expected = module.project_out((weights @ v).reshape(2, 8, 6, 5))
    assert (module(x) - expected).abs().max() < 1e-6


def test_channel_attention_of_nothing_is_finite_with_finite_gradients():
    module = ChannelAttention(8, 2)
    x = torch.zeros(1, 8, 4, 4, requires_grad=True)
    module(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_the_gate_closes_the_feed_forward():
    module = GatedFeedForward(4, expansion=2.0)
    hidden = module.project_out.in_channels
    module.depthwise.weight.data[:hidden] = 0  # GELU(0) = 0
    assert module(torch.randn(1, 4, 6, 6)).abs().max() == 0


@pytest.mark.parametrize("feed_forward", [None, DenseFeedForward(8), GatedFeedForward(8, 2.0)])
def test_a_block_keeps_the_shape_and_is_the_identity_without_its_branches(feed_forward):
    block = TransformerBlock(8, 2, feed_forward)
    for name, parameter in block.named_parameters():
        if name.endswith("project_out.weight"):
            parameter.data.zero_()
    x = torch.randn(2, 8, 6, 10)
    assert torch.equal(block(x), x)


def test_down_and_upsampling_change_size_and_channels_by_two():
    x = torch.randn(1, 8, 6, 10)
    assert Downsample(8)(x).shape == (1, 16, 3, 5)
    assert Upsample(8)(x).shape == (1, 4, 12, 20)


def test_a_block_does_not_care_about_the_memory_format():
    block = TransformerBlock(8, 2)
    x = torch.randn(2, 8, 6, 10)
    assert (block(x) - block(x.contiguous(memory_format=torch.channels_last))).abs().max() < 1e-5


def test_the_dense_feed_forward_equals_its_three_convolutions():
    torch.manual_seed(0)
    module = DenseFeedForward(8)
    x = torch.randn(2, 8, 6, 5)
    expected = module.project_out(F.gelu(module.conv(module.project_in(x))))
    assert (module(x) - expected).abs().max() < 1e-6


def test_the_dense_feed_forward_trains_both_of_its_merged_convolutions():
    module, plain = DenseFeedForward(4), DenseFeedForward(4)
    plain.load_state_dict(module.state_dict())
    x = torch.randn(1, 4, 6, 5)
    module(x).square().sum().backward()
    plain.project_out(F.gelu(plain.conv(plain.project_in(x)))).square().sum().backward()
    for ours, theirs in zip(module.parameters(), plain.parameters(), strict=True):
        assert (ours.grad - theirs.grad).abs().max() < 1e-4 * theirs.grad.abs().max()


@pytest.mark.parametrize("change", ["in place", "loaded", "replaced"])
def test_the_merged_kernel_follows_the_weights(change):
    module, other = DenseFeedForward(4), DenseFeedForward(4)
    x = torch.randn(1, 4, 6, 5)
    with torch.inference_mode():
        before = module(x)
        assert torch.equal(module(x), before)
    if change == "in place":
        with torch.no_grad():
            module.conv.weight.copy_(other.conv.weight)
            module.project_in.weight.copy_(other.project_in.weight)
    elif change == "loaded":
        module.load_state_dict(other.state_dict())
    else:
        module.conv.weight.data, module.project_in.weight.data = other.conv.weight.data, other.project_in.weight.data
    other.project_out = module.project_out
    with torch.inference_mode():
        assert torch.equal(module(x), other(x))
        assert not torch.equal(module(x), before)


def test_half_precision_does_not_stay_in_the_merged_kernel():
    module = DenseFeedForward(4)
    x = torch.randn(1, 4, 6, 5)
    expected = module(x)
    with torch.inference_mode():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            module(x)
        assert (module(x) - expected).abs().max() < 1e-6
