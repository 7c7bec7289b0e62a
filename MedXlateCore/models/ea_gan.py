"""Ea-GAN: 3D pix2pix that also sees edges, in its losses and in its discriminator (dEa-GAN).

Yu et al., "Ea-GANs: Edge-Aware Generative Adversarial Networks for Cross-Modality MR Image Synthesis", IEEE TMI 38(7),
2019. Edges are a map of how steep the image is (``sobel_map``). The generator pays for the difference of the maps of
its image and the target, and the discriminator sees source, image and the image's map; its gradient reaches the
generator through the map too. ``edge_discriminator = false`` gives gEa-GAN, whose discriminator sees no maps.

Presets. ``paper``: U-Net of seven halvings and width 64 on blocks of 128 x 128 x 128 voxels (167,267,969 parameters
with one source), least-squares GAN with smoothed labels, 300 times L1, 100 times L1 of the maps, rising over the first
20 of 150 epochs, Adam at 2e-4, constant for 100 epochs. ``shallow`` has four halvings (24,655,489), for whole volumes
and those of few slices: sizes are multiples of 16, training needs 24 slices, or with ``discriminator_levels = 2`` 12.
``tiny`` has three halvings of widths 16 to 64 and such a discriminator (364,705 parameters with two sources); it trains
on a CPU.

Our readings. Labels are smoothed on one side, as Salimans et al. (NeurIPS 2016, section 3.4) found best: the
discriminator's answer to real images is to be 0.9, and all else is as usual. Normalisation, dropout and the order of
the steps are pix2pix's; as in ``pix2pix3d.py``, networks with four halvings and fewer drop nothing. At the volume's
borders the filters see the outermost voxels repeated, not zeros: background is -1 here, and zeros would be an edge all
around. It takes no region prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from MedXlateCore.models.blocks.adversarial import GAN_LOSSES, PairedRecipe
from MedXlateCore.models.blocks.checks import check_constants
from MedXlateCore.models.method import Batch, Recipe, TrainingState
from MedXlateCore.models.pix2pix import Pix2Pix
from MedXlateCore.models.pix2pix3d import Pix2Pix3dConfig, VolumePairedRecipeConfig
from MedXlateCore.models.registry import register_model
from MedXlateCore.training.losses import l1

__all__ = ["EaGan", "EaGanConfig", "EaGanRecipe", "EaGanRecipeConfig", "sobel_map"]

AXES = (2, 3, 4)
FLAT = 1e-12  # keeps the gradient finite where all is flat


@dataclass(frozen=True)
class EaGanConfig(Pix2Pix3dConfig):
    """The generator's architecture; see ``Pix2PixConfig``. The defaults are the published ones.

    Raises:
        UsageError: ``MX-MOD-004`` (a value that is not among the choices), ``MX-MOD-005`` (a number out of its range).
    """

    width: int = 64
    levels: int = 7
    dropout: float = 0.5


@dataclass(frozen=True)
class EaGanRecipeConfig(VolumePairedRecipeConfig):
    """Ea-GAN's training; see ``PairedRecipeConfig``. The defaults are the published ones.

    Attributes:
        edge_weight: weight of the mean absolute difference of the edge maps.
        edge_ramp: first part of the training, over which that weight rises from zero; 0 for none.
        edge_discriminator: show the discriminator the edge map of what it judges (dEa-GAN), or not (gEa-GAN).
        real_label: what the discriminator's scores of real images are to be.

    Raises:
        UsageError: ``MX-MOD-004`` (not among the choices), ``MX-MOD-006`` (a constant outside its range).
    """

    constant_part: float = 100 / 150
    l1_weight: float = 300.0
    adversarial: Literal["cross_entropy", "least_squares"] = "least_squares"
    discriminator_width: int = 64
    edge_weight: float = 100.0
    edge_ramp: float = 20 / 150
    edge_discriminator: bool = True
    real_label: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_constants(self, {"edge_ramp": (0.0, 1.0), "real_label": (0.5, 1.0)})


def sobel_map(images: Tensor) -> Tensor:
    """Return how steep volumes are, in [-1, 1): -1 where they are flat.

    The three Sobel filters (differences along one axis, weights 1, 2, 1 along the two others), each divided by 4; the
    length of their vector; tanh; [0, 1) to [-1, 1). In fp32 whatever the precision.

    Args:
        images: [B, 1, K, H, W] in [-1, 1].
    """
    x = images.float()
    for axis in AXES:
        x = torch.cat((x.narrow(axis, 0, 1), x, x.narrow(axis, -1, 1)), dim=axis)
    squares = torch.stack([(_sobel(x, axis) / 4).square() for axis in AXES]).sum(dim=0)
    return 2 * torch.tanh((squares + FLAT).sqrt()) - 1


def _sobel(x: Tensor, along: int) -> Tensor:
    """Return one Sobel filter's answer at all places but the outermost."""
    for axis in AXES:
        before, after = x.narrow(axis, 0, x.shape[axis] - 1), x.narrow(axis, 1, x.shape[axis] - 1)
        pairs = before + after  # 1, 2, 1 is sums of two twice; a difference two apart, one of them
        n = pairs.shape[axis] - 1
        x = (
            x.narrow(axis, 2, n) - x.narrow(axis, 0, n)
            if axis == along
            else pairs.narrow(axis, 0, n) + pairs.narrow(axis, 1, n)
        )
    return x


class EaGanRecipe(PairedRecipe):
    """3D pix2pix's steps with edge maps; see ``PairedRecipe``."""

    config: EaGanRecipeConfig

    def __init__(self, generator: nn.Module, inputs: int, config: EaGanRecipeConfig) -> None:
        beside = inputs + int(config.edge_discriminator)
        super().__init__(generator, beside, config, config.discriminator_levels, dimensions=3)

    def scores(self, image: Tensor, batch: Batch, state: TrainingState) -> Tensor:
        """Judge an image with its sources and, in dEa-GAN, its edge map."""
        beside = batch.images
        if self.config.edge_discriminator:
            beside = torch.cat((beside, sobel_map(image).to(beside.dtype)), dim=1)
        return state.networks["discriminator"](image, beside)

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return what the scores cost, with a smoothed label of real images."""
        return GAN_LOSSES[self.config.adversarial][0](real, fake, real_label=self.config.real_label)

    def terms(self, batch: Batch, made: Tensor, state: TrainingState) -> dict[str, tuple[float, Tensor]]:
        """Add the difference of the edge maps."""
        config = self.config
        weight = config.edge_weight * (min(1.0, state.progress / config.edge_ramp) if config.edge_ramp else 1.0)
        edges = l1(sobel_map(made), sobel_map(batch.target))
        return {**super().terms(batch, made, state), "edges": (weight, edges)}


@register_model("ea_gan")
class EaGan(Pix2Pix):
    """3D U-Net with L1, L1 of edge maps and a PatchGAN that sees edges, for one or more sources and one target."""

    config_type = EaGanConfig
    recipe_type = EaGanRecipeConfig
    presets = {
        "paper": EaGanConfig(),
        "shallow": EaGanConfig(levels=4, dropout=0.0),
        "tiny": EaGanConfig(width=16, levels=3, dropout=0.0),
    }
    recipe_presets = {"tiny": EaGanRecipeConfig(discriminator_width=8, discriminator_levels=2)}
    citation = (
        "Yu B, Zhou L, Wang L, Shi Y, Fripp J, Bourgeat P. Ea-GANs: Edge-Aware Generative Adversarial Networks for "
        "Cross-Modality MR Image Synthesis. IEEE Transactions on Medical Imaging 2019;38(7):1750-1762."
    )
    volumetric = True

    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        """Return the recipe with fresh networks."""
        return EaGanRecipe(self.build(config), config.inputs, recipe_config)
