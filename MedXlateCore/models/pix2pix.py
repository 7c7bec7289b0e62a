"""pix2pix: a U-Net of strided convolutions, trained with an L1 term and a conditional PatchGAN.

Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017, sections 3 and 6.1.

Presets. ``paper`` is the U-Net-256: eight 4x4 convolutions of stride 2 and their mirror (54,407,809 parameters with one
source), so that height and width are multiples of 256; cross-entropy GAN, halved discriminator, 100 times L1, Adam
(0.5, 0.999) at 2e-4, constant for half of the training, batch 1. ``tiny`` has four such levels of widths 16 to
128 and no dropout (386,465 parameters with two sources); it trains on a CPU.

Two things in which evaluation here differs from the paper's on purpose. The paper normalises with the statistics of the
test batch; for its batch of 1 that is instance normalisation with a learned gain and bias, which is what ``norm`` says
here, and which does not let a slice depend on its neighbours in a batch. ``norm = "batch"`` has running statistics
instead, for training with larger batches. And dropout, the paper's only source of noise, acts in training only: the
same images give the same result. It takes no region prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from MedXlateCore.models.blocks.adversarial import PairedRecipe, PairedRecipeConfig
from MedXlateCore.models.blocks.checks import MAX_INPUTS, check_architecture, check_images
from MedXlateCore.models.blocks.dimensions import CONVOLUTION, TRANSPOSED, pixels_first
from MedXlateCore.models.blocks.init import channels_last, init_normal
from MedXlateCore.models.blocks.norms import norm_layer
from MedXlateCore.models.method import Method, Recipe, check_choices
from MedXlateCore.models.registry import register_model

__all__ = ["Pix2Pix", "Pix2PixConfig", "Pix2PixNetwork"]

MAX_WIDTH = 256
MAX_LEVELS = 8
LARGEST_FACTOR = 8  # the width grows up to so many times the first
DROPOUT_LEVELS = 3


@dataclass(frozen=True)
class Pix2PixConfig:
    """The generator's architecture. The defaults are the U-Net-256.

    Attributes:
        inputs: number of sources, stacked as channels.
        width: channels after the first convolution, doubled with each level up to 8 times this.
        levels: number of halvings; height and width must be multiples of 2^levels.
        norm: ``instance`` (the paper's normalisation at its batch of 1) or ``batch`` (running statistics).
        dropout: probability, in the three deepest levels of the decoder.
        dimensions: 2; a subclass for volumes has 3.

    Raises:
        UsageError: ``MX-MOD-004`` (a value that is not among the choices), ``MX-MOD-005`` (a number out of its range).
    """

    dimensions: ClassVar[int] = 2

    inputs: int = 2
    width: int = 64
    levels: int = 8
    norm: Literal["instance", "batch"] = "instance"
    dropout: float = 0.5

    def __post_init__(self) -> None:
        check_choices(self)
        check_architecture(1 <= self.inputs <= MAX_INPUTS, "inputs", self.inputs, f"1 to {MAX_INPUTS}")
        check_architecture(1 <= self.width <= MAX_WIDTH, "width", self.width, f"1 to {MAX_WIDTH}")
        check_architecture(2 <= self.levels <= MAX_LEVELS, "levels", self.levels, f"2 to {MAX_LEVELS}")
        check_architecture(0 <= self.dropout < 1, "dropout", self.dropout, "0 to below 1")


class Pix2PixNetwork(nn.Module):
    """The generator; see ``Pix2PixConfig``. No normalisation in the first and the innermost convolution."""

    def __init__(self, config: Pix2PixConfig) -> None:
        super().__init__()
        self.config = config
        conv, transposed = CONVOLUTION[config.dimensions], TRANSPOSED[config.dimensions]
        widths = [config.width * min(2**n, LARGEST_FACTOR) for n in range(config.levels)]
        last = config.levels - 1
        self.downs = nn.ModuleList([conv(config.inputs, widths[0], 4, 2, 1, bias=False)])
        for n in range(1, config.levels):
            norm = nn.Identity() if n == last else self._norm(widths[n])
            halve = conv(widths[n - 1], widths[n], 4, 2, 1, bias=False)
            self.downs.append(nn.Sequential(nn.LeakyReLU(0.2), halve, norm))
        self.ups = nn.ModuleList([nn.Sequential(nn.ReLU(), transposed(2 * widths[0], 1, 4, 2, 1))])
        for n in range(1, config.levels):
            channels = widths[n] if n == last else 2 * widths[n]
            enlarge = transposed(channels, widths[n - 1], 4, 2, 1, bias=False)
            drop = nn.Dropout(config.dropout) if n > last - DROPOUT_LEVELS else nn.Identity()
            self.ups.append(nn.Sequential(nn.ReLU(), enlarge, self._norm(widths[n - 1]), drop))
        init_normal(self)
        channels_last(self, config.dimensions)

    def _norm(self, channels: int) -> nn.Module:
        return norm_layer(self.config.norm, channels, dimensions=self.config.dimensions)

    def forward(self, images: Tensor, roi: Tensor | None = None) -> Tensor:
        """Synthesise the target.

        Args:
            images: sources [B, S, H, W], or [B, S, K, H, W], in [-1, 1], in the order of the model card.
            roi: not looked at; this network takes no prompt.

        Returns:
            Target [B, 1, H, W], or [B, 1, K, H, W], in [-1, 1].

        Raises:
            InputError: ``MX-MOD-007`` (a size that is not a multiple of 2^levels), ``MX-MOD-008`` (wrong number of
                channels).
        """
        check_images(images, self.config.inputs, 2**self.config.levels, self.config.dimensions)
        features = [pixels_first(images)]
        for down in self.downs:
            features.append(down(features[-1]))
        x = features.pop()
        for up in reversed(self.ups[1:]):
            x = torch.cat((features.pop(), up(x)), dim=1)
        return torch.tanh(self.ups[0](x))


@register_model("pix2pix")
class Pix2Pix(Method):
    """U-Net generator with L1 and a conditional PatchGAN, for one or more sources and one target."""

    config_type = Pix2PixConfig
    recipe_type = PairedRecipeConfig
    presets = {"paper": Pix2PixConfig(), "tiny": Pix2PixConfig(width=16, levels=4, dropout=0.0)}
    recipe_presets = {"tiny": PairedRecipeConfig(discriminator_width=16)}
    citation = (
        "Isola P, Zhu JY, Zhou T, Efros AA. Image-to-Image Translation with Conditional Adversarial Networks. "
        "CVPR 2017, 5967-5976."
    )

    def build(self, config: Any) -> nn.Module:
        """Return a freshly initialised network."""
        return Pix2PixNetwork(config)

    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        """Return the recipe with fresh networks."""
        return PairedRecipe(Pix2PixNetwork(config), config.inputs, recipe_config)

    def n_sources(self, config: Any) -> int:
        """Return the number of stacked sources."""
        return config.inputs

    def size_multiple(self, config: Any) -> int:
        """Return 2^levels."""
        return 2**config.levels
