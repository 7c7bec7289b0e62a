"""DCLIP: images and the sentences that say how they were taken, in one space (EVA-I2I, Cell Reports Methods).

A ConvNeXt with CLIP's attention pooling encodes slices, CLIP's causal Transformer encodes sentences, both to vectors of
unit length. They are trained from scratch so that a slice is near the sentences that are true of it.

The loss. ``equation`` is the paper's: for each text the mean log-softmax over its images, for each image that over its
texts, summed and negated. ``supcon_pooled`` is the authors' code: a supervised contrastive loss (Khosla et al., NeurIPS
2020) over texts and images pooled, in which images repel images and texts repel texts too, averaged. Temperature 0.07,
fixed. Which pairs are positive comes from outside: text i and image j are, if everything that text i says holds for
image j, and nothing is missing that must be said (so the relation is not symmetric).

Presets. ``paper`` has the published sizes: image encoder 29.9 M, text encoder 123.3 M parameters; 49,408 token vectors
as in CLIP, of which our own vocabulary uses the first ones. ``tiny`` trains on one CPU core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.errors import UsageError
from MedXlateCore.models.blocks.checks import check_architecture
from MedXlateCore.models.blocks.convnext import ImageEncoder
from MedXlateCore.models.blocks.text import TextTransformer
from MedXlateCore.prompts.tokens import END, VOCABULARY_SIZE, encode_batch, vocabulary_sha256

__all__ = ["DCLIP_PRESETS", "TEMPERATURE", "Dclip", "DclipConfig", "DclipMode", "contrastive_loss", "tokens_of"]

TEMPERATURE = 0.07
MAX_CONTEXT = 1024

DclipMode = Literal["equation", "supcon_pooled"]


@dataclass(frozen=True)
class DclipConfig:
    """The two encoders. The defaults are the published ones.

    Attributes:
        vector: length of the vectors.
        image_widths: channels of the image encoder's levels.
        image_depths: its ConvNeXt blocks on each level.
        image_heads: heads of its pooling.
        pool_size: side of its learned positions; 8 for slices of 256 x 256.
        text_width, text_layers, text_heads: of the Transformer.
        context: most tokens of a text.
        vocabulary: number of token vectors.
        layer_scale: at which the gains of the ConvNeXt blocks start.

    Raises:
        UsageError: ``MX-MOD-005``, a number out of its range.
    """

    vector: int = 192
    image_widths: tuple[int, ...] = (96, 192, 384, 768)
    image_depths: tuple[int, ...] = (3, 3, 9, 3)
    image_heads: int = 12
    pool_size: int = 8
    text_width: int = 768
    text_layers: int = 12
    text_heads: int = 12
    context: int = 256
    vocabulary: int = 49408
    layer_scale: float = 1e-6

    def __post_init__(self) -> None:
        widths, depths = self.image_widths, self.image_depths
        few = 1 <= len(widths) <= 6 and all(1 <= n <= 2048 for n in widths)
        check_architecture(few, "image_widths", widths, "1 to 6 numbers from 1 to 2048")
        few = len(depths) == len(widths) and all(0 <= n <= 64 for n in depths)
        check_architecture(few, "image_depths", depths, f"{len(widths)} numbers from 0 to 64")
        ranges = {"vector": 4096, "pool_size": 64, "text_width": 4096, "text_layers": 64, "context": MAX_CONTEXT}
        for name, most in ranges.items():
            check_architecture(1 <= getattr(self, name) <= most, name, getattr(self, name), f"1 to {most}")
        for heads, width in (("image_heads", widths[-1]), ("text_heads", self.text_width)):
            number = getattr(self, heads)
            check_architecture(number >= 1 and width % number == 0, heads, number, f"a divisor of {width}")
        enough = VOCABULARY_SIZE <= self.vocabulary <= 1_000_000
        check_architecture(enough, "vocabulary", self.vocabulary, f"{VOCABULARY_SIZE} to 1000000")
        check_architecture(0 <= self.layer_scale <= 10, "layer_scale", self.layer_scale, "0 to 10")


DCLIP_PRESETS = {
    "paper": DclipConfig(),
    "tiny": DclipConfig(
        vector=32,
        image_widths=(16, 32, 64),
        image_depths=(1, 1, 2),
        image_heads=4,
        text_width=64,
        text_layers=2,
        text_heads=4,
        vocabulary=1024,
        layer_scale=0.1,
    ),
}


class Dclip(nn.Module):
    """Both encoders; vectors [N, D] of unit length.

    Attributes:
        vocabulary_hash: of the words that the text encoder was trained with; stored with the weights.
    """

    vocabulary_hash: Tensor

    def __init__(self, config: DclipConfig) -> None:
        super().__init__()
        self.config = config
        self.image = ImageEncoder(
            config.image_widths,
            config.image_depths,
            config.vector,
            config.image_heads,
            config.pool_size,
            config.layer_scale,
        )
        self.text = TextTransformer(
            config.vocabulary,
            config.context,
            config.text_width,
            config.text_layers,
            config.text_heads,
            config.vector,
            END,
        )
        self.register_buffer("vocabulary_hash", torch.tensor(list(bytes.fromhex(vocabulary_sha256()))))

    def image_vectors(self, images: Tensor) -> Tensor:
        """Return unit vectors [N, D] of images [N, 1, H, W] in [-1, 1], of any height and width."""
        return F.normalize(self.image(images).float(), dim=1)

    def text_vectors(self, tokens: Tensor) -> Tensor:
        """Return unit vectors [N, D] of tokens [N, L] (``prompts.tokens``), padded behind their end."""
        return F.normalize(self.text(tokens).float(), dim=1)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Return the tokens [N, L] of texts, on the network's device.

        Raises:
            UsageError: ``MX-TXT-002`` (a text is longer than the context), ``MX-MOD-100`` (the weights were trained
                with another vocabulary).
        """
        known = self.vocabulary_hash
        stored = vocabulary_sha256() if known.is_meta else bytes(known.cpu().tolist()).hex()
        if stored != vocabulary_sha256():
            raise UsageError(
                "MX-MOD-100",
                f"the text encoder was trained with the vocabulary {stored[:12]}",
                expected=f"{vocabulary_sha256()[:12]}, this version's",
                where="model",
                fix="use the version of MedXlate that trained the model, or train it again",
            )
        return tokens_of(texts, self.config.context).to(self.vocabulary_hash.device)

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of images [N, 1, H, W] and of tokens [M, L]."""
        return self.image_vectors(images), self.text_vectors(tokens)


def tokens_of(texts: Sequence[str], context: int) -> Tensor:
    """Return the tokens [N, L] of texts, padded behind their end.

    Raises:
        UsageError: ``MX-TXT-002``, a text is longer than the context.
    """
    return torch.from_numpy(encode_batch(texts, context))


def contrastive_loss(
    images: Tensor, texts: Tensor, positive: Tensor, mode: DclipMode = "equation", temperature: float = TEMPERATURE
) -> Tensor:
    """Return DCLIP's loss of N pairs, a scalar.

    Args:
        images: unit vectors [N, D].
        texts: unit vectors [N, D].
        positive: [N, N] bool; row i, column j: text i holds for image j. Its diagonal is True.
        mode: ``equation`` (summed over texts and images) or ``supcon_pooled`` (mean over both, pooled).
        temperature: the similarities are divided by it.
    """
    if mode == "equation":
        scores = texts.float() @ images.float().T / temperature
        return -(_mean_log_softmax(scores, positive) + _mean_log_softmax(scores.T, positive.T)).sum()
    pooled = torch.cat((texts, images)).float()
    others = ~torch.eye(len(pooled), dtype=torch.bool, device=pooled.device)
    scores = (pooled @ pooled.T / temperature).masked_fill(~others, -torch.inf)
    return -_mean_log_softmax(scores, positive.repeat(2, 2) & others).mean()


def _mean_log_softmax(scores: Tensor, chosen: Tensor) -> Tensor:
    """Return for each row the mean of its log-softmax over the chosen places; 0 for a row without any."""
    logs = scores.log_softmax(dim=1).masked_fill(~chosen, 0.0)
    return logs.sum(dim=1) / chosen.sum(dim=1).clamp(min=1)
