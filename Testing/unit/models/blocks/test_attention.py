"""Spatial and cross attention against their equations."""

from __future__ import annotations

import math

import pytest
import torch

from MedXlateCore.models.blocks.attention import CrossAttention, GatedAttention, GroupNorm32, SpatialAttention


def attend(q, k, v):
    """Plain softmax attention between all pixels of [B, C, H, W] maps."""
    q, k, v = (t.flatten(2) for t in (q, k, v))
    weights = (q.transpose(1, 2) @ k / math.sqrt(q.shape[1])).softmax(dim=-1)
    return v @ weights.transpose(1, 2)


def test_spatial_attention_equals_its_equation():
    module = SpatialAttention(32)
    x = torch.randn(2, 32, 5, 4)
    q, k, v = module.qkv(module.norm(x)).chunk(3, dim=1)
    expected = x + module.out(attend(q, k, v).reshape(x.shape))
    assert (module(x) - expected).abs().max() < 1e-5


def test_gated_attention_equals_its_equation_once_the_gate_is_open():
    module, x = GatedAttention(16), torch.randn(2, 16, 5, 4)
    assert torch.equal(module(x), x)
    module.gate.data.fill_(0.5)
    q, k, v = module.qkv(x)[:, :2], module.qkv(x)[:, 2:4], module.qkv(x)[:, 4:]
    expected = x + 0.5 * attend(q * math.sqrt(2), k, v).reshape(x.shape)  # without the scale of 1/sqrt(2 keys)
    assert (module(x) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("residual", ["normalised", "raw"])
def test_cross_attention_swaps_queries_and_keeps_keys_and_values(residual):
    module = CrossAttention(16, groups=4, residual=residual)
    a, b = torch.randn(2, 16, 3, 4), torch.randn(2, 16, 3, 4)
    na, nb = module.norms[0](a), module.norms[1](b)
    (qa, ka, va), (qb, kb, vb) = module.qkvs[0](na).chunk(3, 1), module.qkvs[1](nb).chunk(3, 1)
    kept = (na, nb) if residual == "normalised" else (a, b)
    first, second = module(a, b)
    assert (first - kept[0] - module.outs[0](attend(qb, ka, va).reshape(a.shape))).abs().max() < 1e-5
    assert (second - kept[1] - module.outs[1](attend(qa, kb, vb).reshape(a.shape))).abs().max() < 1e-5


def test_attention_gives_the_same_in_both_memory_formats():
    module = SpatialAttention(16)
    x = torch.randn(1, 16, 6, 5)
    assert (module(x) - module(x.contiguous(memory_format=torch.channels_last))).abs().max() < 1e-5


def test_group_norm_survives_half_precision_values_whose_squares_overflow():
    x = torch.full((1, 4, 2, 2), 1000.0, dtype=torch.float16)
    x[..., 0] = -1000.0
    y = GroupNorm32(2, 4)(x)
    assert y.dtype == torch.float16
    assert torch.allclose(y.abs(), torch.ones_like(y), atol=1e-2)
