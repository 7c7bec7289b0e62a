"""3D pix2pix: pix2pix's U-Net and PatchGAN with convolutions along the slices too.

Isola et al., CVPR 2017 (see ``pix2pix.py``), on whole volumes, as a comparator of Kim and Park, "Adaptive Latent
Diffusion Model for 3D Medical Image to Image Translation: Multi-modal Magnetic Resonance Imaging Study", WACV 2024.
That paper gives the batch of 1 and volumes of 192 x 192 x 144 voxels and no architecture; what follows is our reading.

Presets. ``paper`` has half of pix2pix's width, 32, as memory asks for, and four halvings: 144 slices are a multiple of
16 and of no higher power of two, and volumes of 16 slices fit too (6,167,361 parameters with one source). The U-Net-256
drops values at a 32nd of the resolution and below; a network that ends at a 16th has no such level, and no dropout. The
discriminator, of width 32, judges 70 x 70 x 70 voxels, so that volumes for training have at least 24 slices; with
``discriminator_levels = 2`` it is 34, and 12 slices are enough. ``tiny`` has three halvings of widths 16 to 64 and the
smaller discriminator (364,705 parameters with two sources); it trains on a CPU. Losses and schedule are pix2pix's. It
takes no region prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from MedXlateCore.models.blocks.adversarial import PairedRecipe, PairedRecipeConfig
from MedXlateCore.models.blocks.checks import check_constants
from MedXlateCore.models.method import Recipe
from MedXlateCore.models.pix2pix import Pix2Pix, Pix2PixConfig
from MedXlateCore.models.registry import register_model

__all__ = ["DISCRIMINATOR_LEVELS", "Pix2Pix3d", "Pix2Pix3dConfig", "VolumePairedRecipeConfig"]

DISCRIMINATOR_LEVELS = (1.0, 5.0)


@dataclass(frozen=True)
class Pix2Pix3dConfig(Pix2PixConfig):
    """The generator's architecture; see ``Pix2PixConfig``. Depth, height and width are multiples of 2^levels.

    Raises:
        UsageError: ``MX-MOD-004`` (a value that is not among the choices), ``MX-MOD-005`` (a number out of its range).
    """

    dimensions: ClassVar[int] = 3

    width: int = 32
    levels: int = 4
    dropout: float = 0.0


@dataclass(frozen=True)
class VolumePairedRecipeConfig(PairedRecipeConfig):
    """Constants of a paired training with volumes; see ``PairedRecipeConfig``. The defaults are 3D pix2pix's.

    Attributes:
        discriminator_levels: the discriminator's convolutions of stride 2: 3 for patches of 70 voxels a side, in
            volumes of at least 24; 2 for 34, in volumes of at least 12.

    Raises:
        UsageError: ``MX-MOD-004`` (not among the choices), ``MX-MOD-006`` (a constant outside its range).
    """

    discriminator_width: int = 32
    discriminator_levels: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_constants(self, {"discriminator_levels": DISCRIMINATOR_LEVELS})


@register_model("pix2pix3d")
class Pix2Pix3d(Pix2Pix):
    """U-Net of volumes with L1 and a conditional PatchGAN, for one or more sources and one target."""

    config_type = Pix2Pix3dConfig
    recipe_type = VolumePairedRecipeConfig
    presets = {"paper": Pix2Pix3dConfig(), "tiny": Pix2Pix3dConfig(width=16, levels=3)}
    recipe_presets = {"tiny": VolumePairedRecipeConfig(discriminator_width=8, discriminator_levels=2)}
    volumetric = True

    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        """Return the recipe with fresh networks."""
        strided = recipe_config.discriminator_levels
        return PairedRecipe(self.build(config), config.inputs, recipe_config, strided, config.dimensions)
