"""The text encoder: causal, and read at the end of the text."""

from __future__ import annotations

import torch

from MedXlateCore.models.blocks.text import TextTransformer

END = 2


def encoder():
    torch.manual_seed(0)
    return TextTransformer(vocabulary=20, context=12, width=16, layers=2, heads=4, out=5, end=END)


def test_padding_changes_nothing():
    network = encoder()
    short = torch.tensor([[1, 7, 8, END]])
    padded = torch.tensor([[1, 7, 8, END, 0, 0, 0]])
    assert (network(short) - network(padded)).abs().max() < 1e-6


def test_every_token_before_the_end_matters_and_their_order_too():
    network = encoder()
    texts = torch.tensor([[1, 7, 8, END], [1, 9, 8, END], [1, 8, 7, END]])
    vectors = network(texts)
    assert vectors.shape == (3, 5)
    assert all((vectors[0] - other).abs().max() > 1e-4 for other in vectors[1:])


def test_a_token_does_not_see_those_behind_it():
    block = encoder().blocks[0]
    x = torch.randn(1, 6, 16)
    changed = x.clone()
    changed[:, 4] *= -1
    assert torch.equal(block(x)[:, :4], block(changed)[:, :4])
    assert (block(x)[:, 5] - block(changed)[:, 5]).abs().max() > 1e-4
