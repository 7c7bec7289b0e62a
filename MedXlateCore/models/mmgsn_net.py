"""MMgSN-Net: HiNet's fusion fed back into the encoders, one self-attention, and an output from all of the decoder.

Li et al., "Virtual Contrast-Enhanced Magnetic Resonance Images Synthesis for Patients With Nasopharyngeal Carcinoma
Using Multimodality-Guided Synergistic Neural Network", 2022. Each source has an encoder of three levels (64, 128, 256
channels). At each level the encoders' maps are fused before pooling, and each encoder goes on with its own map and the
fused one. In the decoder a self-attention acts at half of the resolution; five of its maps are enlarged, concatenated
(9 x 64 channels) and turned into the image by a 1x1 convolution.

Presets. ``paper`` has the published widths: 10,815,810 parameters with two sources; least squares, 100 times L1, Adam
(0.5, 0.999) at 2e-4, constant for half of the training, then linear to zero (the schedule is that of the comparators,
for want of a published one). ``tiny`` has width 8 (170,042 parameters) and group normalisation; it trains on a
CPU. It takes no region prompts.

What differs from the publication, and why:

- In the released code the synthetic image is not detached when the discriminator learns, and the generator steps after
  that: it gets the discriminator's gradient too, which works against it. Here it is detached.
- Which five maps are meant follows from their sum: 256 (an eighth of the resolution), 128 (a quarter), 64 before and 64
  after the attention (half), 64 (full). How maps are fed back (concatenated) and enlarged (bilinearly) is our reading.
- Two to four sources, not two only: sum, product and maximum are taken over all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.adversarial import AdversarialConfig, AdversarialRecipe
from MedXlateCore.models.blocks.attention import GatedAttention
from MedXlateCore.models.blocks.checks import check_architecture, check_images
from MedXlateCore.models.blocks.init import init_normal
from MedXlateCore.models.blocks.mixed_fusion import MixedFusion, double, two_units
from MedXlateCore.models.blocks.norms import Norm
from MedXlateCore.models.blocks.patchgan import StridedGan
from MedXlateCore.models.method import Method, Recipe, check_choices
from MedXlateCore.models.registry import register_model

__all__ = ["MmgsnConfig", "MmgsnNet", "MmgsnNetwork", "MmgsnRecipeConfig"]

LEVELS = 3
MULTIPLE = 2**LEVELS
MOST_INPUTS = 4
MAX_WIDTH = 256


@dataclass(frozen=True)
class MmgsnConfig:
    """MMgSN-Net's architecture. The defaults are the published widths.

    Attributes:
        inputs: number of sources, 2 to 4.
        width: channels at full resolution, doubled with each downsampling.
        norm: ``batch`` (running statistics in evaluation) or ``group`` (each image's own, for small batches).
        attention: the self-attention at half of the resolution.

    Raises:
        UsageError: ``MX-MOD-004`` (a normalisation that is not offered), ``MX-MOD-005`` (a number out of its range).
    """

    inputs: int = 2
    width: int = 64
    norm: Literal["batch", "group"] = "batch"
    attention: bool = True

    def __post_init__(self) -> None:
        check_choices(self)
        check_architecture(
            2 <= self.inputs <= MOST_INPUTS, "inputs", self.inputs, f"2 to {MOST_INPUTS} sources to fuse"
        )
        check_architecture(1 <= self.width <= MAX_WIDTH, "width", self.width, f"1 to {MAX_WIDTH}")


@dataclass(frozen=True)
class MmgsnRecipeConfig(AdversarialConfig):
    """MMgSN-Net's training; see ``AdversarialConfig``. The discriminator is HiNet's, normalised from the start."""

    discriminator_width: int = 32


class EncoderLevel(nn.Module):
    """One level of all sources' encoders, each with weights of its own: a map [B, C, H, W] to [B, out, H, W] each."""

    def __init__(self, inputs: int, channels: int, out: int, norm: Norm) -> None:
        super().__init__()
        self.sources = nn.ModuleList(two_units(channels, out, norm) for _ in range(inputs))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Encode."""
        return [encode(x) for encode, x in zip(self.sources, maps, strict=True)]


class MmgsnNetwork(nn.Module):
    """The generator; see ``MmgsnConfig``."""

    def __init__(self, config: MmgsnConfig) -> None:
        super().__init__()
        self.config = config
        norm = config.norm
        full, half, quarter = (config.width * 2**n for n in range(LEVELS))
        pairs = ((1, full), (2 * full, half), (2 * half, quarter))
        self.encoders = nn.ModuleList(EncoderLevel(config.inputs, a, b, norm) for a, b in pairs)
        sizes = ((full, 0), (half, full), (quarter, half))
        self.fusions = nn.ModuleList(MixedFusion(width, before, width, norm) for width, before in sizes)
        self.bottom = two_units(quarter, quarter, norm)
        self.up_quarter = MixedFusion(quarter, quarter, half, norm)
        self.up_half = MixedFusion(half, half, full, norm)
        self.attention = GatedAttention(full) if config.attention else nn.Identity()
        self.up_full = MixedFusion(full, full, full, norm)
        self.output = nn.Conv2d(9 * config.width, 1, 1)
        init_normal(self)

    def forward(self, images: Tensor, roi: Tensor | None = None) -> Tensor:
        """Synthesise the target.

        Args:
            images: sources [B, S, H, W] in [-1, 1], in the order of the model card.
            roi: not looked at; this network takes no prompt.

        Returns:
            Target [B, 1, H, W] in [-1, 1].

        Raises:
            InputError: ``MX-MOD-007`` (height or width not a multiple of 8), ``MX-MOD-008`` (wrong number of channels).
        """
        check_images(images, self.config.inputs, MULTIPLE)
        levels, fused = self._encode(images)
        eighth = self.bottom(F.max_pool2d(fused, 2))
        quarter = self.up_quarter(levels[2], double(eighth))
        half = self.up_half(levels[1], double(quarter))
        attended = self.attention(half)
        full = self.up_full(levels[0], double(attended))
        size = images.shape[2:]
        maps = (eighth, quarter, half, attended, full)
        enlarged = [F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in maps[:-1]]
        return torch.tanh(self.output(torch.cat((*enlarged, full), dim=1)))

    def _encode(self, images: Tensor) -> tuple[list[list[Tensor]], Tensor]:
        """Return the sources' maps by level, finest first, and the deepest fused map; all before pooling."""
        levels = [self.encoders[0](images.split(1, dim=1))]
        fused = self.fusions[0](levels[0])
        for encode, fusion in zip(self.encoders[1:], self.fusions[1:], strict=True):
            levels.append(encode([F.max_pool2d(torch.cat((feature, fused), dim=1), 2) for feature in levels[-1]]))
            fused = fusion(levels[-1], F.max_pool2d(fused, 2))
        return levels, fused


@register_model("mmgsn_net")
class MmgsnNet(Method):
    """Multimodality-guided synergistic network for two to four sources and one target."""

    config_type = MmgsnConfig
    recipe_type = MmgsnRecipeConfig
    presets = {"paper": MmgsnConfig(), "tiny": MmgsnConfig(width=8, norm="group")}
    recipe_presets = {"tiny": MmgsnRecipeConfig(discriminator_width=8)}
    citation = (
        "Li W, Xiao H, Li T, et al. Virtual Contrast-Enhanced Magnetic Resonance Images Synthesis for Patients With "
        "Nasopharyngeal Carcinoma Using Multimodality-Guided Synergistic Neural Network. International Journal of "
        "Radiation Oncology, Biology, Physics 112(4), 2022, 1033-1044."
    )

    def build(self, config: Any) -> nn.Module:
        """Return a freshly initialised network."""
        return MmgsnNetwork(config)

    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        """Return the recipe with fresh networks."""
        width = recipe_config.discriminator_width
        return AdversarialRecipe(MmgsnNetwork(config), lambda: StridedGan(width, first_norm=True), recipe_config)

    def n_sources(self, config: Any) -> int:
        """Return 2 to 4."""
        return config.inputs

    def size_multiple(self, config: Any) -> int:
        """Return 8."""
        return MULTIPLE
