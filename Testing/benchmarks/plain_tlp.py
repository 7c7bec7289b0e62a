"""A plain transcription of the published TLP forward, as the named reference of the benchmarks.

Written from the description of the method and the published keys and shapes (``Testing/golden/tlp_*``): one function an
operation, attention matrices written out, one slice at a time, no batching, no fusion. It is not part of the library.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Weights", "channel_attention", "conv", "norm", "plain_forward"]

Weights = Mapping[str, Tensor]
HEADS = {1: 2, 2: 4, 3: 8}


def plain_forward(w: Weights, images: Tensor, roi: Tensor) -> Tensor:
    """Return [B, 1, H, W] from images [B, S, H, W] and the prompt [B, 1, H, W], slice by slice."""
    return torch.cat([_slice(w, images[b : b + 1], roi[b : b + 1]) for b in range(images.shape[0])])


def _slice(w: Weights, images: Tensor, roi: Tensor) -> Tensor:
    branches = [
        _encode(w, f"encoder_{letter}", torch.cat((images[:, n : n + 1], roi), dim=1))
        for n, letter in enumerate("AB"[: images.shape[1]])
    ]
    if len(branches) == 2:
        (a1, a2, a3), (b1, b2, b3) = branches
        a3, b3 = _global_fusion(w, a3, b3)
        level3, level2, level1 = (
            _local_fusion(w, f"fusion_level{n}", a, b) for n, a, b in ((3, a3, b3), (2, a2, b2), (1, a1, b1))
        )
    else:
        level1, level2, level3 = branches[0]
    x = _self_attention(w, level3)
    x = _blocks(w, "decoder_level3", x, 8)
    x = torch.cat((F.pixel_shuffle(conv(w, "up3_2.body.0", x, 1), 2), level2), dim=1)
    x = _blocks(w, "decoder_level2", conv(w, "reduce_chan_level2", x), 4)
    x = torch.cat((F.pixel_shuffle(conv(w, "up2_1.body.0", x, 1), 2), level1), dim=1)
    x = _blocks(w, "refinement", _blocks(w, "decoder_level1", x, 2), 2)
    return torch.tanh(conv(w, "output", x, 1))


def _encode(w: Weights, name: str, x: Tensor) -> list[Tensor]:
    x = conv(w, f"{name}.patch_embed.proj", x, 1)
    levels = [_blocks(w, f"{name}.encoder_level1", x, 2)]
    for n in (2, 3):
        down = F.pixel_unshuffle(conv(w, f"{name}.down{n - 1}_{n}.body.0", levels[-1], 1), 2)
        levels.append(_blocks(w, f"{name}.encoder_level{n}", down, HEADS[n]))
    return levels


def conv(w: Weights, name: str, x: Tensor, padding: int = 0, groups: int = 1) -> Tensor:
    """Convolve with the weights of that name."""
    return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), padding=padding, groups=groups)


def _blocks(w: Weights, name: str, x: Tensor, heads: int) -> Tensor:
    n = 0
    while f"{name}.{n}.norm1.body.weight" in w:
        x = _block(w, f"{name}.{n}", x, heads)
        n += 1
    return x


def _block(w: Weights, name: str, x: Tensor, heads: int) -> Tensor:
    x = x + channel_attention(w, f"{name}.attn", norm(w, f"{name}.norm1.body", x), heads)
    hidden = conv(w, f"{name}.ffn.project_in", norm(w, f"{name}.norm2.body", x))
    hidden = F.gelu(conv(w, f"{name}.ffn.dwconv", hidden, 1))
    return x + conv(w, f"{name}.ffn.project_out", hidden)


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    """Normalise over channels."""
    mean = x.mean(dim=1, keepdim=True)
    variance = x.var(dim=1, keepdim=True, unbiased=False)
    gain, bias = (w[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("weight", "bias"))
    return (x - mean) / torch.sqrt(variance + 1e-5) * gain + bias


def channel_attention(w: Weights, name: str, x: Tensor, heads: int) -> Tensor:
    """Attend between the channels of each head, [B, C, H, W] to the same shape."""
    batch, channels, height, width = x.shape
    qkv = conv(w, f"{name}.qkv", x)
    qkv = conv(w, f"{name}.qkv_dwconv", qkv, 1, groups=qkv.shape[1])
    q, k, v = (t.reshape(batch, heads, channels // heads, height * width) for t in qkv.chunk(3, dim=1))
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    weights = (q @ k.transpose(-2, -1) * w[f"{name}.temperature"]).softmax(dim=-1)
    return conv(w, f"{name}.project_out", (weights @ v).reshape(batch, channels, height, width))


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Full attention between pixels with its N x N matrix written out; all [1, C, H, W]."""
    queries, keys, values = (t.flatten(2) for t in (q, k, v))
    matrix = (queries.transpose(1, 2) @ keys * q.shape[1] ** -0.5).softmax(dim=-1)
    return (values @ matrix.transpose(1, 2)).reshape(v.shape)


def _group_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.group_norm(x, 16, w[f"{name}.weight"], w[f"{name}.bias"])


def _global_fusion(w: Weights, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    name = "cross_attention"
    first, second = _group_norm(w, f"{name}.norm_A", first), _group_norm(w, f"{name}.norm_B", second)
    q1, k1, v1 = conv(w, f"{name}.qkv_A", first).chunk(3, dim=1)
    q2, k2, v2 = conv(w, f"{name}.qkv_B", second).chunk(3, dim=1)
    return (
        first + conv(w, f"{name}.out_A", _attend(q2, k1, v1)),
        second + conv(w, f"{name}.out_B", _attend(q1, k2, v2)),
    )


def _local_fusion(w: Weights, name: str, first: Tensor, second: Tensor) -> Tensor:
    return conv(w, f"{name}.layer", torch.cat((first, second, torch.maximum(first, second)), dim=1), 1)


def _self_attention(w: Weights, x: Tensor) -> Tensor:
    name = "attention_spatial"
    q, k, v = conv(w, f"{name}.qkv", _group_norm(w, f"{name}.norm", x)).chunk(3, dim=1)
    return x + conv(w, f"{name}.out", _attend(q, k, v))
