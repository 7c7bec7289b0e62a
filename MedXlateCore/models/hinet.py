"""HiNet (Hi-Net): hybrid fusion of several sources, each with an encoder and an autoencoder's task of its own.

Zhou et al., "Hi-Net: Hybrid-fusion Network for Multi-modal MR Image Synthesis", IEEE TMI 2020. Each source has an
encoder of three levels (32, 64, 128 channels) and a decoder that gives the source back; a fusion stream mixes the
encoders' pooled maps at each level (sum, product and maximum, joined with what was fused at the level before); the
fused decoder does the same upwards, with the encoders' maps before pooling. The discriminator sees the image alone.

Presets. ``code`` has the constants of the released code, ``paper`` the same but one: where the code asks batch
normalisation for "0.8", meant as a momentum, PyTorch takes that number as ``eps``, adds it to the variance, and damps
every map so; ``paper`` has the usual 1e-5. Both have 3,324,579 parameters with two sources, of which 868,674 serve
training only. Schedule and weights are those of the release: Adam (0.5, 0.999) at 1e-3, constant for a quarter of the
training, then linear to zero; least squares, 100 times L1, 20 times L1 for each source given back. ``tiny`` has width 8
(209,067 parameters) and group normalisation; it trains on a CPU. It takes no region prompts.

What differs from the publication, and why:

- Where neither the number of channels nor the way up is known here, it is: each fusion has the channels of its level,
  maps are enlarged bilinearly, sources are given back without skips.
- Two to four sources, not two only: sum, product and maximum are taken over all.
- Slices are trained on whole, not in four patches of 128 x 128; the discriminator's step comes first.
- The published evaluation stretches every predicted and every real patch to its own range, which hides errors of
  intensity. Nothing here does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.adversarial import AdversarialConfig, AdversarialRecipe
from MedXlateCore.models.blocks.checks import check_architecture, check_images
from MedXlateCore.models.blocks.init import init_normal
from MedXlateCore.models.blocks.mixed_fusion import MixedFusion, double, two_units
from MedXlateCore.models.blocks.norms import EPS
from MedXlateCore.models.blocks.patchgan import StridedGan
from MedXlateCore.models.method import Batch, Method, Recipe, TrainingState, check_choices
from MedXlateCore.models.registry import register_model
from MedXlateCore.training.losses import l1

__all__ = ["Hinet", "HinetConfig", "HinetNetwork", "HinetRecipe", "HinetRecipeConfig"]

LEVELS = 3
MULTIPLE = 2**LEVELS
MOST_INPUTS = 4
MAX_WIDTH = 256
CODE_EPS = 0.8


@dataclass(frozen=True)
class HinetConfig:
    """HiNet's architecture.

    Attributes:
        inputs: number of sources, 2 to 4.
        width: channels at full resolution, doubled with each downsampling.
        norm: ``batch`` (running statistics in evaluation) or ``group`` (each image's own, for small batches).
        norm_eps: added to the variance, here and in the discriminator.

    Raises:
        UsageError: ``MX-MOD-004`` (a normalisation that is not offered), ``MX-MOD-005`` (a number out of its range).
    """

    inputs: int = 2
    width: int = 32
    norm: Literal["batch", "group"] = "batch"
    norm_eps: float = EPS

    def __post_init__(self) -> None:
        check_choices(self)
        check_architecture(
            2 <= self.inputs <= MOST_INPUTS, "inputs", self.inputs, f"2 to {MOST_INPUTS} sources to fuse"
        )
        check_architecture(1 <= self.width <= MAX_WIDTH, "width", self.width, f"1 to {MAX_WIDTH}")
        check_architecture(0 < self.norm_eps <= 1, "norm_eps", self.norm_eps, "above 0 to 1")

    @property
    def widths(self) -> list[int]:
        """Channels of the levels, finest first."""
        return [self.width * 2**n for n in range(LEVELS)]


@dataclass(frozen=True)
class HinetRecipeConfig(AdversarialConfig):
    """HiNet's training; see ``AdversarialConfig``.

    Attributes:
        reconstruction_weight: weight of the mean absolute error of each source that is given back.
    """

    learning_rate: float = 1e-3
    constant_part: float = 0.25
    discriminator_width: int = 32
    reconstruction_weight: float = 20.0


class Encoder(nn.Module):
    """One source [B, 1, H, W] to a map a level before pooling: [B, width * 2^n, H / 2^n, W / 2^n]."""

    def __init__(self, config: HinetConfig) -> None:
        super().__init__()
        pairs = zip([1, *config.widths[:-1]], config.widths, strict=True)
        self.levels = nn.ModuleList(two_units(a, b, config.norm, config.norm_eps) for a, b in pairs)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Encode; finest resolution first."""
        features = [self.levels[0](x)]
        for level in self.levels[1:]:
            features.append(level(F.max_pool2d(features[-1], 2)))
        return features


class SelfDecoder(nn.Module):
    """An encoder's deepest map, pooled, back to its source: [B, 4 * width, H / 8, W / 8] to [B, 1, H, W]."""

    def __init__(self, config: HinetConfig) -> None:
        super().__init__()
        upwards = config.widths[::-1]
        pairs = zip([upwards[0], *upwards[:-1]], upwards, strict=True)
        self.levels = nn.ModuleList(two_units(a, b, config.norm, config.norm_eps) for a, b in pairs)
        self.output = nn.Conv2d(config.width, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Decode."""
        for level in self.levels:
            x = level(double(x))
        return torch.tanh(self.output(x))


class HinetNetwork(nn.Module):
    """The generator; see ``HinetConfig``."""

    def __init__(self, config: HinetConfig) -> None:
        super().__init__()
        self.config = config
        widths, norm, eps = config.widths, config.norm, config.norm_eps
        self.encoders = nn.ModuleList(Encoder(config) for _ in range(config.inputs))
        self.fusions = nn.ModuleList(
            MixedFusion(width, before, width, norm, eps)
            for before, width in zip([0, *widths[:-1]], widths, strict=True)
        )
        self.ups = nn.ModuleList(
            MixedFusion(width, below, width, norm, eps)
            for width, below in zip(widths, [*widths[1:], widths[-1]], strict=True)
        )
        self.output = nn.Conv2d(config.width, 1, 3, padding=1)
        self.self_decoders = nn.ModuleList(SelfDecoder(config) for _ in range(config.inputs))
        init_normal(self)

    def forward(self, images: Tensor, roi: Tensor | None = None, give_back: bool = False) -> Tensor:
        """Synthesise the target.

        Args:
            images: sources [B, S, H, W] in [-1, 1], in the order of the model card.
            roi: not looked at; this network takes no prompt.
            give_back: add the sources as their decoders give them back, for training.

        Returns:
            Target [B, 1, H, W] in [-1, 1]; with ``give_back`` [B, 1 + S, H, W], the target first.

        Raises:
            InputError: ``MX-MOD-007`` (height or width not a multiple of 8), ``MX-MOD-008`` (wrong number of channels).
        """
        check_images(images, self.config.inputs, MULTIPLE)
        encoded = [encoder(images[:, n : n + 1]) for n, encoder in enumerate(self.encoders)]
        by_level = list(zip(*encoded, strict=True))
        pooled = [[F.max_pool2d(feature, 2) for feature in features] for features in by_level]
        x = self.fusions[0](pooled[0])
        for fusion, features in zip(self.fusions[1:], pooled[1:], strict=True):
            x = fusion(features, F.max_pool2d(x, 2))
        for n in reversed(range(LEVELS)):
            x = self.ups[n](by_level[n], double(x))
        target = torch.tanh(self.output(x))
        if not give_back:
            return target
        given = [decoder(feature) for decoder, feature in zip(self.self_decoders, pooled[-1], strict=True)]
        return torch.cat((target, *given), dim=1)


class HinetRecipe(AdversarialRecipe):
    """Least squares, the target's mean absolute error, and that of every source that is given back."""

    def __init__(self, config: HinetConfig, recipe_config: HinetRecipeConfig) -> None:
        super().__init__(
            HinetNetwork(config),
            lambda: StridedGan(recipe_config.discriminator_width, eps=config.norm_eps),
            recipe_config,
        )
        self.weight = recipe_config.reconstruction_weight

    def synthesise(self, batch: Batch, state: TrainingState) -> Tensor:
        """Return the target and the sources given back, [B, 1 + S, H, W]."""
        return state.networks["generator"](batch.images, give_back=True)

    def terms(self, batch: Batch, made: Tensor, state: TrainingState) -> dict[str, tuple[float, Tensor]]:
        """Return the error of the target, and the sum of the sources' errors."""
        given = batch.images.shape[1] * l1(made[:, 1:], batch.images)
        return {**super().terms(batch, made, state), "reconstruction": (self.weight, given)}


@register_model("hinet")
class Hinet(Method):
    """Hybrid fusion of two to four sources, with an autoencoder each, for one target."""

    config_type = HinetConfig
    recipe_type = HinetRecipeConfig
    presets = {
        "paper": HinetConfig(),
        "code": HinetConfig(norm_eps=CODE_EPS),
        "tiny": HinetConfig(width=8, norm="group"),
    }
    recipe_presets = {"tiny": HinetRecipeConfig(discriminator_width=8)}
    citation = (
        "Zhou T, Fu H, Chen G, Shen J, Shao L. Hi-Net: Hybrid-Fusion Network for Multi-Modal MR Image Synthesis. "
        "IEEE Transactions on Medical Imaging 39(9), 2020, 2772-2781."
    )

    def build(self, config: Any) -> nn.Module:
        """Return a freshly initialised network."""
        return HinetNetwork(config)

    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        """Return the recipe with fresh networks."""
        return HinetRecipe(config, recipe_config)

    def n_sources(self, config: Any) -> int:
        """Return 2 to 4."""
        return config.inputs

    def size_multiple(self, config: Any) -> int:
        """Return 8."""
        return MULTIPLE
