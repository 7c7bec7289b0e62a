"""3D CycleGAN: CycleGAN's networks with convolutions along the slices too, learned without pairs.

Zhu et al., ICCV 2017 (see ``cyclegan.py``), on whole volumes, as a comparator of Kim and Park, WACV 2024 (see
``pix2pix3d.py``), who give no architecture; what follows is our reading. **Training is unpaired**: the target of a
training volume is that of a patient drawn at random.

Presets. ``paper`` has half of CycleGAN's width, 32, and its nine residual blocks (8,540,161 parameters a generator),
discriminators of width 32 that judge 70 x 70 x 70 voxels (volumes for training have at least 24 slices; with
``discriminator_levels = 2`` it is 34, and 12 slices are enough), and pools of 10 volumes: 50 would fill a checkpoint
with gigabytes, and 10 hold more patches than 50 slices do. ``tiny`` has 3D pix2pix's U-Net as generators, with three
halvings of widths 8 to 32 (91,729 parameters): convolutions at full resolution, of which a residual network has
four a pass, are what a CPU has no time for in 3D. The identity terms, a third of its work, are left out.

All losses and the schedule are CycleGAN's. One source, one target; no prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from MedXlateCore.models.blocks.checks import check_architecture, check_constants
from MedXlateCore.models.cyclegan import CycleGan, CycleGanConfig, CycleGanRecipe, CycleGanRecipeConfig
from MedXlateCore.models.method import Recipe, check_choices
from MedXlateCore.models.pix2pix import MAX_LEVELS, Pix2PixNetwork
from MedXlateCore.models.pix2pix3d import DISCRIMINATOR_LEVELS, Pix2Pix3dConfig
from MedXlateCore.models.registry import register_model

__all__ = ["CycleGan3d", "CycleGan3dConfig", "CycleGan3dRecipeConfig"]


@dataclass(frozen=True)
class CycleGan3dConfig(CycleGanConfig):
    """Architecture of both generators; see ``CycleGanConfig``.

    Attributes:
        generator: ``resnet``, CycleGAN's (sizes of multiples of 8), or ``unet``, 3D pix2pix's (of 2^levels).
        levels: number of the U-Net's halvings; the residual network has two.

    Raises:
        UsageError: ``MX-MOD-004`` (a value that is not among the choices), ``MX-MOD-005`` (a number out of its range).
    """

    dimensions: ClassVar[int] = 3

    width: int = 32
    generator: Literal["resnet", "unet"] = "resnet"
    levels: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)
        check_architecture(2 <= self.levels <= MAX_LEVELS, "levels", self.levels, f"2 to {MAX_LEVELS}")

    def translator(self) -> nn.Module:
        """Return a freshly initialised generator."""
        if self.generator == "resnet":
            return super().translator()
        return Pix2PixNetwork(Pix2Pix3dConfig(inputs=1, width=self.width, levels=self.levels))


@dataclass(frozen=True)
class CycleGan3dRecipeConfig(CycleGanRecipeConfig):
    """CycleGAN's training with volumes; see ``CycleGanRecipeConfig``.

    Attributes:
        discriminator_levels: as in ``VolumePairedRecipeConfig``.

    Raises:
        UsageError: ``MX-MOD-006``, a constant outside its range.
    """

    pool: int = 10
    discriminator_width: int = 32
    discriminator_levels: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_constants(self, {"discriminator_levels": DISCRIMINATOR_LEVELS})


@register_model("cyclegan3d")
class CycleGan3d(CycleGan):
    """Two generators of volumes and two PatchGANs, for one source and one target, trained without pairs."""

    config_type = CycleGan3dConfig
    recipe_type = CycleGan3dRecipeConfig
    presets = {"paper": CycleGan3dConfig(), "tiny": CycleGan3dConfig(width=8, generator="unet")}
    recipe_presets = {
        "tiny": CycleGan3dRecipeConfig(discriminator_width=4, discriminator_levels=2, identity_weight=0.0)
    }
    volumetric = True

    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        """Return the recipe with fresh networks."""
        return CycleGanRecipe(config, recipe_config, recipe_config.discriminator_levels)

    def size_multiple(self, config: Any) -> int:
        """Return 8 for the residual network, 2^levels for the U-Net."""
        return 8 if config.generator == "resnet" else 2**config.levels
