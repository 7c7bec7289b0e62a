"""The U-Net of latent diffusion in three dimensions: what a step of denoising predicts, given time and target class.

Rombach et al., CVPR 2022 (after Dhariwal and Nichol, NeurIPS 2021): residual blocks that add an embedding of time,
attention at coarse resolutions, a last convolution that starts close to zero. Maps are [B, C, D, H, W].

The class is told in one of two ways. ``class_embed`` adds a learned vector to the embedding of time. ``crossattn`` lets
every place attend to one token, the one-hot class, as published; the softmax over one key is 1, so that this adds one
learned vector to all places, whatever they ask for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.autoencoder import norm32
from MedXlateCore.models.blocks.diffusion import time_embedding
from MedXlateCore.models.blocks.volume_conv import volume_conv

__all__ = ["Conditioning", "LatentUnet", "TokenAttention"]

Conditioning = Literal["class_embed", "crossattn"]


def _faint(layer: nn.Module) -> nn.Module:
    """Return a layer that starts close to zero, so that the block it ends starts close to an identity.

    Published is zero itself, with which the first steps of a training would reach the last layers only.
    """
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(1e-3)
    return layer


class TimedBlock(nn.Module):
    """Residual block that adds an embedding [B, E] between its convolutions: [B, C, ...] to [B, out, ...]."""

    def __init__(self, channels: int, out: int, embedding: int, planar: bool = False) -> None:
        super().__init__()
        self.norms = nn.ModuleList((norm32(channels), norm32(out)))
        second = _faint(volume_conv(out, out, planar))
        self.convs = nn.ModuleList((volume_conv(channels, out, planar), second))
        self.embedded = nn.Linear(embedding, out)
        self.shortcut = nn.Conv3d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Add the convolutions' result."""
        h = self.convs[0](F.silu(self.norms[0](x)))
        h = h + self.embedded(F.silu(embedding))[:, :, None, None, None]
        return self.shortcut(x) + self.convs[1](F.silu(self.norms[1](h)))


def _heads(x: Tensor, heads: int) -> Tensor:
    """Return [B, N, C] as [B, heads, N, C / heads]."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2).contiguous()


class SelfAttention(nn.Module):
    """Attention between all places in several heads, added to the input; starts close to an identity."""

    def __init__(self, channels: int, head: int) -> None:
        super().__init__()
        self.heads = max(1, channels // head)
        self.norm, self.qkv = norm32(channels), nn.Linear(channels, 3 * channels)
        self.out = _faint(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        places = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = (_heads(t, self.heads) for t in self.qkv(places).chunk(3, dim=2))
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(seen).transpose(1, 2).unflatten(2, x.shape[2:])


class TokenAttention(nn.Module):
    """Attention of all places to tokens [B, N, T], added to the input.

    Args:
        channels: C.
        token: T.
        head: channels of each head.
    """

    def __init__(self, channels: int, token: int, head: int) -> None:
        super().__init__()
        self.heads = max(1, channels // head)
        self.norm, self.queries = norm32(channels), nn.Linear(channels, channels, bias=False)
        self.keys, self.values = (nn.Linear(token, channels, bias=False) for _ in range(2))
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Attend."""
        q = self.queries(self.norm(x).flatten(2).transpose(1, 2))
        q, k, v = (_heads(t, self.heads) for t in (q, self.keys(tokens), self.values(tokens)))
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(seen).transpose(1, 2).unflatten(2, x.shape[2:])


class Attentions(nn.Module):
    """Self-attention, and attention to the class where that is how the class is told."""

    def __init__(self, channels: int, head: int, token: int) -> None:
        super().__init__()
        self.places = SelfAttention(channels, head)
        self.token = TokenAttention(channels, token, head) if token else None

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Apply both."""
        x = self.places(x)
        return x if self.token is None else self.token(x, tokens)


class LatentUnet(nn.Module):
    """Noisy latents and what they are conditioned on to a prediction.

    Args:
        channels: noisy latents and conditions.
        out: channels of the prediction.
        widths: channels by resolution, finest first; one halving between each two.
        blocks: residual blocks a resolution.
        attention: halvings after which places attend to each other; the coarsest resolution's middle always does.
        head: channels of each attention head.
        classes: number of targets.
        conditioning: how the class is told.
        planar: convolve with ``PlanarConv``.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        widths: Sequence[int],
        blocks: int,
        attention: Collection[int],
        head: int,
        classes: int,
        conditioning: Conditioning = "class_embed",
        planar: bool = False,
    ) -> None:
        super().__init__()
        now, embedding = widths[0], 4 * widths[0]
        token = classes if conditioning == "crossattn" else 0
        self.width, self.classes = now, classes
        self.time = nn.Sequential(nn.Linear(now, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.kinds = nn.Embedding(classes, embedding) if not token else None
        self.stem = volume_conv(channels, now, planar)
        self.downs, self.ups, self.attentions = nn.ModuleList(), nn.ModuleList(), nn.ModuleDict()
        kept = [now]
        for level, width in enumerate(widths):
            for _ in range(blocks):
                self.downs.append(TimedBlock(now, width, embedding, planar))
                if level in attention:
                    self.attentions[f"down{len(self.downs)}"] = Attentions(width, head, token)
                kept.append(now := width)
            if level < len(widths) - 1:
                self.downs.append(nn.Conv3d(now, now, 3, stride=2, padding=1))
                kept.append(now)
        self.middle = nn.ModuleList(TimedBlock(now, now, embedding, planar) for _ in range(2))
        self.attentions["middle"] = Attentions(now, head, token)
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.ups.append(TimedBlock(now + kept.pop(), width, embedding, planar))
                if level in attention:
                    self.attentions[f"up{len(self.ups)}"] = Attentions(width, head, token)
                now = width
            if level:
                self.ups.append(volume_conv(now, now, planar))
        self.norm, self.last = norm32(now), _faint(volume_conv(now, out, planar))

    def forward(self, x: Tensor, steps: Tensor, target: int) -> Tensor:
        """Predict.

        Args:
            x: noisy latents and conditions [B, channels, D, H, W]; sizes are multiples of 2^halvings.
            steps: time of each, [B].
            target: class that is wanted.
        """
        embedding = self.time(time_embedding(steps, self.width))
        if self.kinds is not None:
            embedding = embedding + self.kinds.weight[target]
        tokens = F.one_hot(torch.tensor(target, device=x.device), self.classes).to(embedding.dtype)
        tokens = tokens.expand(len(x), 1, -1)
        x = self.stem(x)
        kept = [x]
        for n, down in enumerate(self.downs, 1):
            x = down(x, embedding) if isinstance(down, TimedBlock) else down(x)
            kept.append(x := self._attended(f"down{n}", x, tokens))
        x = self._attended("middle", self.middle[0](x, embedding), tokens)
        x = self.middle[1](x, embedding)
        for n, up in enumerate(self.ups, 1):
            if isinstance(up, TimedBlock):
                x = self._attended(f"up{n}", up(torch.cat((x, kept.pop()), dim=1), embedding), tokens)
            else:
                x = up(F.interpolate(x, scale_factor=2, mode="nearest"))
        return self.last(F.silu(self.norm(x)))

    def _attended(self, name: str, x: Tensor, tokens: Tensor) -> Tensor:
        return self.attentions[name](x, tokens) if name in self.attentions else x
