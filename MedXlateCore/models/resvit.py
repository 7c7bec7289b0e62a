"""ResViT: residual vision transformers, a convolutional generator with two Transformer branches at its bottleneck.

Dalmaz, Yurt, Cukur, "ResViT: Residual Vision Transformers for Multimodal Medical Image Synthesis", IEEE TMI 2022,
section II. Encoder and decoder are those of the residual network (``blocks.resnet``); between them lie nine aggregated
residual Transformer (ART) blocks at a quarter of the resolution. The first and the sixth have a Transformer branch,
whose result is concatenated with the block's input and compressed back before the residual convolutions; the others
are the residual convolutions alone. The Transformer's layers are one and the same in both blocks; its convolutions and
positions are each block's own.

Presets. ``paper`` has the ViT-B of the paper: 12 layers of width 768 with 12 heads; 123,441,537 parameters with one
source. It is trained with a conditional PatchGAN, least squares, and 100 times L1. ``tiny`` has width 16 instead of
64, six blocks, a Transformer of two layers of width 32 and group normalisation (1,737,777 parameters with two sources);
it trains on a CPU. It takes no region prompts.

What differs from the publication, and why:

- The authors train the convolutions alone (50 + 50 epochs at 2e-4), then insert Transformers with weights from
  ImageNet-21k (25 + 25 epochs at 1e-3). Here all weights start at random and are trained at once, at 2e-4: nothing is
  downloaded. ``transformer_blocks = []`` is the network of the first phase.
- Images may have any size that is a multiple of 16: positions are learned for ``image_size`` and interpolated for
  others, where the published network takes 256 x 256 only.
- The channel compression is described as two parallel convolutional branches of varying kernel size. Here: two 3x3
  convolutions beside a 1x1, added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.adversarial import PairedRecipe, PairedRecipeConfig
from MedXlateCore.models.blocks.checks import MAX_INPUTS, check_architecture, check_images
from MedXlateCore.models.blocks.init import channels_last, init_normal
from MedXlateCore.models.blocks.norms import Norm, norm_layer
from MedXlateCore.models.blocks.resnet import ResidualBlock, downsample, resnet_decoder, resnet_encoder, upsample
from MedXlateCore.models.method import Method, Recipe, check_choices
from MedXlateCore.models.registry import register_model

__all__ = ["Resvit", "ResvitConfig", "ResvitNetwork"]

MULTIPLE = 16  # pixels a token: two halvings in the encoder, two in the Transformer branch
MLP_FACTOR = 4
MAX_WIDTH, MAX_BLOCKS, MAX_HIDDEN, MAX_LAYERS, MAX_IMAGE = 256, 32, 2048, 48, 2048


@dataclass(frozen=True)
class ResvitConfig:
    """ResViT's architecture. The defaults are the paper's.

    Attributes:
        inputs: number of sources, stacked as channels.
        width: channels at full resolution, four times this at the bottleneck.
        blocks: number of ART blocks.
        transformer_blocks: which of them have a Transformer branch, the first block being 1; empty for none.
        hidden: width of the tokens.
        layers: Transformer layers, shared by all branches.
        heads: heads of their attention.
        image_size: height and width for which positions are learned, pixels.
        norm: ``batch`` (running statistics in evaluation) or ``group`` (each image's own, for small batches; a channel
            alone would not do, because at the tokens' resolution a small slice has a few pixels only).

    Raises:
        UsageError: ``MX-MOD-004`` (a normalisation that is not offered), ``MX-MOD-005`` (a number out of its range, or
            heads that do not divide the tokens' width).
    """

    inputs: int = 2
    width: int = 64
    blocks: int = 9
    transformer_blocks: tuple[int, ...] = (1, 6)
    hidden: int = 768
    layers: int = 12
    heads: int = 12
    image_size: int = 256
    norm: Literal["batch", "group"] = "batch"

    def __post_init__(self) -> None:
        check_choices(self)
        largest = {"inputs": MAX_INPUTS, "width": MAX_WIDTH, "blocks": MAX_BLOCKS, "hidden": MAX_HIDDEN}
        for name, high in (largest | {"layers": MAX_LAYERS}).items():
            check_architecture(1 <= getattr(self, name) <= high, name, getattr(self, name), f"1 to {high}")
        chosen = self.transformer_blocks
        fits = len(set(chosen)) == len(chosen) and all(1 <= n <= self.blocks for n in chosen)
        check_architecture(fits, "transformer_blocks", list(chosen), f"different numbers from 1 to {self.blocks}")
        divides = self.heads >= 1 and self.hidden % self.heads == 0
        check_architecture(divides, "heads", self.heads, f"a divisor of hidden, {self.hidden}")
        fits = MULTIPLE <= self.image_size <= MAX_IMAGE and self.image_size % MULTIPLE == 0
        check_architecture(fits, "image_size", self.image_size, f"a multiple of {MULTIPLE} up to {MAX_IMAGE}")


class TokenLayer(nn.Module):
    """A layer of ViT on tokens [B, N, D]: pre-norm self-attention, then two linear layers. Shape is kept.

    Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, equations 2 and 3.
    """

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(hidden, eps=1e-6), nn.LayerNorm(hidden, eps=1e-6)
        self.qkv, self.project = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.mlp = nn.Sequential(
            nn.Linear(hidden, MLP_FACTOR * hidden), nn.GELU(), nn.Linear(MLP_FACTOR * hidden, hidden)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend, then mix each token's channels."""
        q, k, v = self.qkv(self.norm1(tokens)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        tokens = tokens + self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return tokens + self.mlp(self.norm2(tokens))


class TransformerBranch(nn.Module):
    """Bottleneck map [B, C, H, W] to tokens of 4 x 4 of its pixels and back; the shared layers are given, not held."""

    def __init__(self, config: ResvitConfig) -> None:
        super().__init__()
        channels, side, norm = 4 * config.width, config.image_size // MULTIPLE, config.norm
        self.down = nn.Sequential(
            *downsample(channels, 2 * channels, norm), *downsample(2 * channels, 4 * channels, norm)
        )
        self.embed = nn.Conv2d(4 * channels, config.hidden, 1)
        self.positions = nn.Parameter(torch.zeros(1, config.hidden, side, side))
        nn.init.normal_(self.positions, std=0.02)
        self.up = nn.Sequential(*upsample(config.hidden, 2 * channels, norm), *upsample(2 * channels, channels, norm))

    def forward(self, x: Tensor, transformer: nn.Module) -> Tensor:
        """Return what the Transformer sees in the map, in the map's shape."""
        features = self.embed(self.down(x))
        size = features.shape[2:]
        positions: Tensor = self.positions
        if positions.shape[2:] != size:
            positions = F.interpolate(positions, size=size, mode="bilinear", align_corners=False)
        tokens = transformer((features + positions).flatten(2).transpose(1, 2))
        return self.up(tokens.transpose(1, 2).unflatten(2, size))


class ChannelCompression(nn.Module):
    """[B, 2C, H, W] to [B, C, H, W]: two 3x3 convolutions beside a 1x1, added, ReLU."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.wide = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 3, padding=1, bias=False),
            norm_layer(norm, channels),
            nn.ReLU(True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            norm_layer(norm, channels),
        )
        self.narrow = nn.Sequential(nn.Conv2d(2 * channels, channels, 1, bias=False), norm_layer(norm, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Compress."""
        return F.relu(self.wide(x) + self.narrow(x))


class ArtBlock(nn.Module):
    """Aggregated residual Transformer block; with ``branch`` False the residual convolutions alone. Shape is kept."""

    def __init__(self, config: ResvitConfig, branch: bool) -> None:
        super().__init__()
        channels = 4 * config.width
        self.branch = TransformerBranch(config) if branch else None
        self.compress = ChannelCompression(channels, config.norm) if branch else None
        self.residual = ResidualBlock(channels, config.norm)

    def forward(self, x: Tensor, transformer: nn.Module) -> Tensor:
        """Apply the block; ``transformer`` are the shared layers."""
        if self.branch is not None and self.compress is not None:
            x = self.compress(torch.cat((self.branch(x, transformer), x), dim=1))
        return self.residual(x)


class ResvitNetwork(nn.Module):
    """ResViT's generator; see ``ResvitConfig``."""

    def __init__(self, config: ResvitConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = resnet_encoder(config.inputs, config.width, config.norm)
        numbers = range(1, config.blocks + 1)
        self.blocks = nn.ModuleList(ArtBlock(config, n in config.transformer_blocks) for n in numbers)
        layers = [TokenLayer(config.hidden, config.heads) for _ in range(config.layers)]
        shared = nn.Sequential(*layers, nn.LayerNorm(config.hidden, eps=1e-6))
        self.transformer = shared if config.transformer_blocks else nn.Sequential()
        self.decoder = resnet_decoder(config.width, config.norm)
        init_normal(self)
        channels_last(self)

    def forward(self, images: Tensor, roi: Tensor | None = None) -> Tensor:
        """Synthesise the target.

        Args:
            images: sources [B, S, H, W] in [-1, 1], in the order of the model card.
            roi: not looked at; this network takes no prompt.

        Returns:
            Target [B, 1, H, W] in [-1, 1].

        Raises:
            InputError: ``MX-MOD-007`` (height or width not a multiple of 16), ``MX-MOD-008`` (wrong number of
                channels).
        """
        check_images(images, self.config.inputs, MULTIPLE)
        x = self.encoder(images.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x, self.transformer)
        return self.decoder(x)


@register_model("resvit")
class Resvit(Method):
    """Residual vision transformers with L1 and a conditional PatchGAN, for one or more sources and one target."""

    config_type = ResvitConfig
    recipe_type = PairedRecipeConfig
    presets = {
        "paper": ResvitConfig(),
        "tiny": ResvitConfig(width=16, blocks=6, hidden=32, layers=2, heads=4, image_size=128, norm="group"),
    }
    recipe_presets = {
        "paper": PairedRecipeConfig(adversarial="least_squares"),
        "tiny": PairedRecipeConfig(adversarial="least_squares", discriminator_width=16),
    }
    citation = (
        "Dalmaz O, Yurt M, Cukur T. ResViT: Residual Vision Transformers for Multimodal Medical Image Synthesis. "
        "IEEE Transactions on Medical Imaging 41(10), 2022, 2598-2614."
    )

    def build(self, config: Any) -> nn.Module:
        """Return a freshly initialised network."""
        return ResvitNetwork(config)

    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        """Return the recipe with fresh networks."""
        return PairedRecipe(ResvitNetwork(config), config.inputs, recipe_config)

    def n_sources(self, config: Any) -> int:
        """Return the number of stacked sources."""
        return config.inputs

    def size_multiple(self, config: Any) -> int:
        """Return 16."""
        return MULTIPLE
