"""pGAN: a residual generator that sees neighbouring slices, with an adversarial, an L1 and a perceptual term.

Dar et al., "Image Synthesis in Multi-Contrast MRI with Conditional Generative Adversarial Networks", IEEE TMI 2019,
section II. Its unregistered variant cGAN is the preset ``cgan`` of ``cyclegan.py``.

Presets. ``paper``: ResNet-9 with instance normalisation and dropout in its residual blocks, three neighbouring slices
of each source in and the middle one out, conditional PatchGAN of 70 x 70 pixels, least-squares GAN, 100 times L1 and
100 times L1 between features of VGG-16, Adam (0.5, 0.999) at 2e-4, constant for half of the training, batch 1. ``tiny``
has width 16, three residual blocks and no dropout; it trains on a CPU.

**The perceptual term needs weights that are not part of MedXlate** and is off as long as the recipe's
``perceptual_weights`` names no file; the card of a model tells. The published code compares the features of the first
image of a batch only (harmless at its batch of 1); here all are compared. Dropout acts in training only. How the
published VGG input is scaled is not stated; here it is ImageNet's. It takes no region prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from MedXlateCore.models.blocks.adversarial import AdversarialConfig, AdversarialRecipe
from MedXlateCore.models.blocks.checks import MAX_INPUTS, check_architecture
from MedXlateCore.models.blocks.patchgan import PatchGan
from MedXlateCore.models.blocks.translator import ResnetTranslator
from MedXlateCore.models.method import Batch, Method, Recipe, TrainingState
from MedXlateCore.models.registry import register_model
from MedXlateCore.training.perceptual import PerceptualLoss

__all__ = ["PGan", "PGanConfig", "PGanRecipe", "PGanRecipeConfig"]

MAX_WIDTH, MAX_BLOCKS, MAX_SLICES = 256, 32, 9


@dataclass(frozen=True)
class PGanConfig:
    """The generator's architecture. The defaults are the published ones, with two sources.

    Attributes:
        inputs: number of sources.
        slices: neighbouring slices of each source, an odd number.
        width: channels at full resolution.
        blocks: residual blocks.
        dropout: probability, in the residual blocks.

    Raises:
        UsageError: ``MX-MOD-005``, a number out of its range.
    """

    inputs: int = 2
    slices: int = 3
    width: int = 64
    blocks: int = 9
    dropout: float = 0.5

    def __post_init__(self) -> None:
        check_architecture(1 <= self.inputs <= MAX_INPUTS, "inputs", self.inputs, f"1 to {MAX_INPUTS}")
        odd = 1 <= self.slices <= MAX_SLICES and self.slices % 2 == 1
        check_architecture(odd, "slices", self.slices, f"an odd number from 1 to {MAX_SLICES}")
        check_architecture(1 <= self.width <= MAX_WIDTH, "width", self.width, f"1 to {MAX_WIDTH}")
        check_architecture(1 <= self.blocks <= MAX_BLOCKS, "blocks", self.blocks, f"1 to {MAX_BLOCKS}")
        check_architecture(0 <= self.dropout < 1, "dropout", self.dropout, "0 to below 1")

    @property
    def channels(self) -> int:
        """Channels of the generator's input."""
        return self.inputs * self.slices


@dataclass(frozen=True)
class PGanRecipeConfig(AdversarialConfig):
    """pGAN's training; see ``AdversarialConfig``.

    Attributes:
        perceptual_weight: weight of the perceptual term.
        perceptual_weights: safetensors file with VGG-16's first layers, see ``PerceptualLoss``; empty for no such term.
    """

    adversarial: Literal["cross_entropy", "least_squares"] = "least_squares"
    perceptual_weight: float = 100.0
    perceptual_weights: str = ""


class PGanRecipe(AdversarialRecipe):
    """Mean absolute error, perceptual term, and a PatchGAN that sees source and target together.

    Raises:
        InputError: from ``PerceptualLoss``, the file of weights cannot be used.
    """

    config: PGanRecipeConfig

    def __init__(self, config: PGanConfig, recipe_config: PGanRecipeConfig) -> None:
        channels, width = config.channels, recipe_config.discriminator_width
        generator = ResnetTranslator(channels, config.width, config.blocks, dropout=config.dropout)
        super().__init__(generator, lambda: PatchGan(1, channels, width, norm="instance"), recipe_config)
        wanted = recipe_config.perceptual_weight > 0 and recipe_config.perceptual_weights
        self.perceptual = PerceptualLoss(recipe_config.perceptual_weights) if wanted else None

    def scores(self, image: Tensor, batch: Batch, state: TrainingState) -> Tensor:
        """Judge an image with its sources, all slices of them."""
        return state.networks["discriminator"](image, batch.images)

    def terms(self, batch: Batch, made: Tensor, state: TrainingState) -> dict[str, tuple[float, Tensor]]:
        """Return the mean absolute error and, if there are weights for it, the perceptual term."""
        terms = super().terms(batch, made, state)
        if self.perceptual:
            terms["perceptual"] = (self.config.perceptual_weight, self.perceptual(made, batch.target))
        return terms


@register_model("pgan")
class PGan(Method):
    """Residual generator over neighbouring slices with a conditional PatchGAN, for one or more sources, one target."""

    config_type = PGanConfig
    recipe_type = PGanRecipeConfig
    presets = {"paper": PGanConfig(), "tiny": PGanConfig(width=16, blocks=3, dropout=0.0)}
    recipe_presets = {"tiny": PGanRecipeConfig(discriminator_width=16)}
    citation = (
        "Dar SUH, Yurt M, Karacan L, Erdem A, Erdem E, Cukur T. Image Synthesis in Multi-Contrast MRI with Conditional "
        "Generative Adversarial Networks. IEEE Transactions on Medical Imaging 38(10):2375-2388, 2019."
    )

    def build(self, config: Any) -> nn.Module:
        """Return a freshly initialised network."""
        return ResnetTranslator(config.channels, config.width, config.blocks, dropout=config.dropout)

    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        """Return the recipe with fresh networks."""
        return PGanRecipe(config, recipe_config)

    def n_sources(self, config: Any) -> int:
        """Return the number of sources."""
        return config.inputs

    def context_slices(self, config: Any) -> int:
        """Return the number of neighbouring slices of each source."""
        return config.slices

    def size_multiple(self, config: Any) -> int:
        """Return 4."""
        return ResnetTranslator.multiple
