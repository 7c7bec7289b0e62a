"""A plain transcription of MedPrompt's forward, as the named reference of the benchmarks.

Written from the description of the method: one function an operation, nothing merged, no bands, one slice at a time.
Weights have the library's names. It is not part of the library.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from plain_tlp import Weights, channel_attention, conv, norm
from torch import Tensor

__all__ = ["plain_forward", "plain_names"]

HEADS = (1, 2, 4, 8)


def plain_names(weights: Weights) -> dict[str, Tensor]:
    """Return the library's weights under the names that the plain functions read."""
    changes = {r"\.attention\.": ".attn.", "qkv_depthwise": "qkv_dwconv", r"\.(norm[12])\.": r".\1.body."}
    renamed = {}
    for name, value in weights.items():
        for old, new in changes.items():
            name = re.sub(old, new, name)
        renamed[name] = value
    return renamed


def plain_forward(w: Weights, images: Tensor) -> Tensor:
    """Return [B, 1, H, W] in [-1, 1] from images [B, S, H, W], slice by slice."""
    return torch.cat([_slice(w, images[b : b + 1]) for b in range(images.shape[0])])


def _slice(w: Weights, image: Tensor) -> Tensor:
    x = conv(w, "stem", (image + 1) / 2, 1)
    skips = []
    for s in range(3):
        skips.append(_blocks(w, f"encoders.{s}", x, HEADS[s]))
        x = F.pixel_unshuffle(conv(w, f"downs.{s}.conv", skips[-1], 1), 2)
    x = _prompted(w, "prompts.0", _blocks(w, "encoders.3", x, HEADS[3]), HEADS[3])
    for s in (2, 1, 0):
        x = torch.cat((F.pixel_shuffle(conv(w, f"ups.{s}.conv", x, 1), 2), skips[s]), dim=1)
        x = conv(w, f"reduces.{s - 1}", x) if s else x
        x = _blocks(w, f"decoders.{s}", x, HEADS[s])
        x = _prompted(w, f"prompts.{3 - s}", x, HEADS[s]) if s else x
    image = conv(w, "output", _blocks(w, "refinement", x, HEADS[0]), 1)
    return (2 * image - 1).clamp(-1, 1)


def _blocks(w: Weights, name: str, x: Tensor, heads: int) -> Tensor:
    n = 0
    while f"{name}.{n}.norm1.body.weight" in w:
        x = _block(w, f"{name}.{n}", x, heads)
        n += 1
    return x


def _block(w: Weights, name: str, x: Tensor, heads: int) -> Tensor:
    x = x + channel_attention(w, f"{name}.attn", norm(w, f"{name}.norm1.body", x), heads)
    hidden = conv(w, f"{name}.feed_forward.project_in", norm(w, f"{name}.norm2.body", x))
    gate, value = conv(w, f"{name}.feed_forward.depthwise", hidden, 1, groups=hidden.shape[1]).chunk(2, dim=1)
    return x + conv(w, f"{name}.feed_forward.project_out", F.gelu(gate) * value)


def _prompted(w: Weights, name: str, x: Tensor, heads: int) -> Tensor:
    weights = conv(w, f"{name}.extraction.gate", x.mean(dim=(2, 3), keepdim=True)).softmax(dim=1)
    components = w[f"{name}.extraction.components"]
    prompt = (weights.flatten()[:, None, None, None] * components).sum(dim=0, keepdim=True)
    prompt = F.interpolate(prompt, x.shape[2:], mode="bilinear", align_corners=False)
    joined = torch.cat((x, conv(w, f"{name}.extraction.conv", prompt, 1)), dim=1)
    return conv(w, f"{name}.fusion.conv", _block(w, f"{name}.fusion.block", joined, heads), 1)
