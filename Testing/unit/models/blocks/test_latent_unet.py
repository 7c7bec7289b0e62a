"""The U-Net of latent diffusion: both ways to tell the class, one token is a bias, published size."""

from __future__ import annotations

import pytest
import torch

from MedXlateCore.models.blocks.latent_unet import LatentUnet, TokenAttention


def make(conditioning="class_embed", **changes):
    torch.manual_seed(0)
    sizes = {"widths": (8, 16), "blocks": 1, "attention": (1,), "head": 8, "classes": 3}
    return LatentUnet(4, 2, **{**sizes, **changes}, conditioning=conditioning)


def latents(n=2):
    return torch.randn(n, 4, 4, 8, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("conditioning", ["class_embed", "crossattn"])
@pytest.mark.parametrize("planar", [False, True])
def test_time_and_class_are_seen(conditioning, planar):
    unet, x = make(conditioning, planar=planar), latents()
    for layer in (unet.last, unet.time[-1]):  # both whisper when they are fresh
        torch.nn.init.normal_(layer.weight)
    made = unet(x, torch.tensor([5, 900]), 0)
    assert made.shape == (2, 2, 4, 8, 4)
    assert (made - unet(x, torch.tensor([5, 900]), 1)).abs().max() > 1e-5
    other = unet(x, torch.tensor([5, 100]), 0)
    assert torch.allclose(made[0], other[0], atol=1e-4)
    assert (made[1] - other[1]).abs().max() > 1e-3


@pytest.mark.parametrize("conditioning", ["class_embed", "crossattn"])
def test_one_step_reaches_everything_but_the_other_classes(conditioning):
    unet = make(conditioning)
    unet(latents(), torch.tensor([5, 900]), 1).square().mean().backward()
    still = [name for name, p in unet.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # a softmax over one key asks for neither queries nor keys
    expected = [name for name in still if "token.queries" in name or "token.keys" in name or "token.norm" in name]
    assert still == expected
    if conditioning == "class_embed":
        assert unet.kinds.weight.grad.abs().amax(dim=1).gt(0).tolist() == [False, True, False]


def test_attention_to_one_token_is_a_bias():
    torch.manual_seed(0)
    attention = TokenAttention(16, 3, 8)
    x, token = torch.randn(1, 16, 3, 4, 5), torch.tensor([[[0.0, 1.0, 0.0]]])
    added = attention(x, token) - x
    bias = attention.out(attention.values(token[0, 0]))
    assert torch.allclose(added, bias.view(1, -1, 1, 1, 1).expand_as(added), atol=1e-5)
    assert torch.allclose(attention(2 * x, token) - 2 * x, added, atol=1e-5)  # whatever asks


def test_attention_to_two_tokens_is_none():
    torch.manual_seed(0)
    attention = TokenAttention(16, 3, 8)
    added = attention(torch.zeros(1, 16, 3, 4, 5) + torch.randn(5), torch.randn(1, 2, 3))
    assert (added - added[..., :1, :1, :1]).std() > 1e-3


def test_it_starts_by_predicting_next_to_nothing():
    assert make()(latents(), torch.tensor([5, 900]), 0).abs().max() < 0.05


def test_the_authors_size():
    with torch.device("meta"):
        unet = LatentUnet(12, 4, (128, 128, 256), 1, (1, 2), 32, 4)
    assert sum(p.numel() for p in unet.parameters()) == 33_197_316
