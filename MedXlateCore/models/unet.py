"""U-Net as a regression network: the plainest comparator, and the example of how a method is added.

Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015, section 2 and figure
1, with three changes that all image-to-image uses make: convolutions are padded, so that the result has the input's
size; convolutions are followed by batch normalisation; one output channel with tanh. Trained with the mean absolute
error. Where U-Nets stand as comparators in the papers on synthesis, neither their loss nor their schedule is given;
Adam at 2e-4, constant then falling to zero, is that of the other comparators.

Presets. ``paper`` has the paper's widths, 64 to 1024 (31,036,481 parameters with one source). ``tiny`` has widths 16 to
128 (482,593 with two) and instance normalisation, because the running statistics of batch normalisation need larger
batches and longer trainings than a CPU's; it trains on a CPU. It takes no region prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.adversarial import PairedRecipe, PairedRecipeConfig
from MedXlateCore.models.blocks.checks import MAX_INPUTS, check_architecture, check_images
from MedXlateCore.models.blocks.init import init_normal
from MedXlateCore.models.blocks.norms import Norm, norm_layer
from MedXlateCore.models.method import Method, Recipe, check_choices
from MedXlateCore.models.registry import register_model

__all__ = ["Unet", "UnetConfig", "UnetNetwork"]

MAX_WIDTH = 256


@dataclass(frozen=True)
class UnetConfig:
    """A U-Net's architecture.

    Attributes:
        inputs: number of sources, stacked as channels.
        width: channels at full resolution, doubled with each downsampling.
        levels: number of downsamplings.
        norm: normalisation after each 3x3 convolution: ``batch`` (running statistics in evaluation), ``instance`` (each
            image's own statistics), or ``none`` as in the paper of 2015.
        upsampling: ``transposed`` (2x2, stride 2, as in the paper), or ``bilinear`` and a 1x1 convolution.

    Raises:
        UsageError: ``MX-MOD-004`` (a value that is not among the choices), ``MX-MOD-005`` (a number out of its range).
    """

    inputs: int = 2
    width: int = 64
    levels: Literal[2, 3, 4, 5] = 4
    norm: Norm = "batch"
    upsampling: Literal["transposed", "bilinear"] = "transposed"

    def __post_init__(self) -> None:
        check_choices(self)
        check_architecture(1 <= self.inputs <= MAX_INPUTS, "inputs", self.inputs, f"1 to {MAX_INPUTS}")
        check_architecture(1 <= self.width <= MAX_WIDTH, "width", self.width, f"1 to {MAX_WIDTH}")


def _two_convolutions(channels: int, out: int, norm: Norm) -> nn.Sequential:
    layers: list[nn.Module] = []
    for source in (channels, out):
        conv = nn.Conv2d(source, out, 3, padding=1, bias=norm == "none")
        layers += [conv, norm_layer(norm, out), nn.ReLU(True)]
    return nn.Sequential(*layers)


class Enlarge(nn.Module):
    """[B, 2C, H, W] to [B, C, 2H, 2W], with trained weights (``transposed``) or bilinearly and a 1x1 convolution."""

    def __init__(self, channels: int, upsampling: str) -> None:
        super().__init__()
        self.bilinear = upsampling == "bilinear"
        kind = (
            nn.Conv2d(2 * channels, channels, 1) if self.bilinear else nn.ConvTranspose2d(2 * channels, channels, 2, 2)
        )
        self.conv = kind

    def forward(self, x: Tensor) -> Tensor:
        """Double height and width, halve the channels."""
        x = self.conv(x)  # 1x1 and bilinear commute; convolving first is a quarter of the work
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False) if self.bilinear else x


class UnetNetwork(nn.Module):
    """The network; see ``UnetConfig``."""

    def __init__(self, config: UnetConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * 2**n for n in range(config.levels + 1)]
        pairs = zip([config.inputs, *widths[:-1]], widths, strict=True)
        self.downs = nn.ModuleList(_two_convolutions(a, b, config.norm) for a, b in pairs)
        self.enlarge = nn.ModuleList(Enlarge(w, config.upsampling) for w in widths[:-1])
        self.ups = nn.ModuleList(_two_convolutions(2 * w, w, config.norm) for w in widths[:-1])
        self.output = nn.Conv2d(config.width, 1, 1)
        init_normal(self)

    def forward(self, images: Tensor, roi: Tensor | None = None) -> Tensor:
        """Synthesise the target.

        Args:
            images: sources [B, S, H, W] in [-1, 1], in the order of the model card.
            roi: not looked at; this network takes no prompt.

        Returns:
            Target [B, 1, H, W] in [-1, 1].

        Raises:
            InputError: ``MX-MOD-007`` (height or width not a multiple of 2^levels), ``MX-MOD-008`` (wrong number of
                channels).
        """
        check_images(images, self.config.inputs, 2**self.config.levels)
        x, skips = self.downs[0](images), []
        for down in self.downs[1:]:
            skips.append(x)
            x = down(F.max_pool2d(x, 2))
        for n in reversed(range(len(skips))):
            x = self.ups[n](torch.cat((skips[n], self.enlarge[n](x)), dim=1))
        return torch.tanh(self.output(x))


@register_model("unet")
class Unet(Method):
    """U-Net regression with the mean absolute error, for one or more sources and one target."""

    config_type = UnetConfig
    recipe_type = PairedRecipeConfig
    presets = {"paper": UnetConfig(), "tiny": UnetConfig(width=16, levels=3, norm="instance")}
    recipe_presets = dict.fromkeys(presets, PairedRecipeConfig(l1_weight=1.0, adversarial_weight=0.0))
    citation = (
        "Ronneberger O, Fischer P, Brox T. U-Net: Convolutional Networks for Biomedical Image Segmentation. "
        "MICCAI 2015, LNCS 9351, 234-241."
    )

    def build(self, config: Any) -> nn.Module:
        """Return a freshly initialised network."""
        return UnetNetwork(config)

    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        """Return the recipe with fresh networks."""
        return PairedRecipe(UnetNetwork(config), config.inputs, recipe_config)

    def n_sources(self, config: Any) -> int:
        """Return the number of stacked sources."""
        return config.inputs

    def size_multiple(self, config: Any) -> int:
        """Return 2^levels."""
        return 2**config.levels
