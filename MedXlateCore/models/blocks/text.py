"""DCLIP's text encoder: CLIP's causal Transformer (Radford et al., ICML 2021, section 2.4), trained from scratch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["TextTransformer"]

STD = 0.02


class TextBlock(nn.Module):
    """Norm and causal self-attention, norm and two linear layers with QuickGELU; both added to [B, L, W]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first_norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Let each token see itself and those before it."""
        joined = self.qkv(self.first_norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = joined.unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        hidden = self.widen(self.second_norm(x))
        return x + self.narrow(hidden * torch.sigmoid(1.702 * hidden))


class TextTransformer(nn.Module):
    """Tokens [B, L] to vectors [B, out]: the last norm's value at the end token, through a matrix.

    What follows the end token (padding) changes nothing, because attention is causal.

    Args:
        vocabulary: number of tokens.
        context: most tokens of a text.
        width: of the Transformer.
        layers: blocks.
        heads: attention heads.
        out: length of the result.
        end: number of the end token.
    """

    def __init__(self, vocabulary: int, context: int, width: int, layers: int, heads: int, out: int, end: int) -> None:
        super().__init__()
        self.end = end
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(context, width))
        self.blocks = nn.ModuleList(TextBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Parameter(torch.empty(width, out))
        for weight, std in ((self.tokens.weight, STD), (self.positions, STD / 2), (self.project, width**-0.5)):
            nn.init.normal_(weight, std=std)

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode; each row has an end token. The result is not of unit length yet."""
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        ends = (tokens == self.end).int().argmax(dim=1)
        return self.norm(x[torch.arange(len(x), device=x.device), ends]) @ self.project
