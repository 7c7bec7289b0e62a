"""RegGAN: a generator whose pairs need not be aligned, because a second network registers its result to the target.

Kong et al., "Breaking the Dilemma of Medical Image-to-image Translation", NeurIPS 2021, section 3. In training a
registration network looks at the synthetic image and the target and predicts a displacement field; the error is taken
after the synthetic image has been warped by it, so that misalignment is explained by the field and not learned by the
generator. The field has to be smooth. A translation is the generator's alone: a model package holds no registration.

Presets. ``paper``: ResNet-9 with instance normalisation (11,365,633 parameters with one source), least squares with a
discriminator that sees the image alone and whose scores are averaged to one an image, 20 times L1 after warping, 10
times smoothness, Adam (0.5, 0.999) at 1e-4 for all three networks, constant for a quarter of the training (20 of 80
epochs), then linear to zero. ``tiny`` has width 16 (713,297 parameters with two sources) and a small registration; it
trains on a CPU. It takes no region prompts.

What differs from the publication, and why: only the default one-way form is offered, not the one with cycles. The
registration is a residual U-Net; its depth (4 halvings) and widths (32, then 64) are our reading. The discriminator's
step comes first. The authors' PSNR, taken over the foreground, had an indexing error that was corrected in 2025: older
published numbers may be affected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from MedXlateCore.models.blocks.adversarial import AdversarialConfig, AdversarialRecipe
from MedXlateCore.models.blocks.checks import MAX_INPUTS, check_architecture, check_constants, check_images
from MedXlateCore.models.blocks.patchgan import PatchGan
from MedXlateCore.models.blocks.registration import RegistrationUnet, smoothness, warp
from MedXlateCore.models.blocks.resnet import ResnetGenerator
from MedXlateCore.models.method import Batch, Method, Recipe, TrainingState
from MedXlateCore.models.registry import register_model
from MedXlateCore.training.losses import l1

__all__ = ["RegGan", "RegganConfig", "RegganNetwork", "RegganRecipe", "RegganRecipeConfig"]

MAX_WIDTH, MAX_BLOCKS = 256, 32


@dataclass(frozen=True)
class RegganConfig:
    """The generator's architecture. The defaults are ResNet-9.

    Attributes:
        inputs: number of sources, stacked as channels.
        width: channels at full resolution, four times this in the residual blocks.
        blocks: number of residual blocks.

    Raises:
        UsageError: ``MX-MOD-005``, a number out of its range.
    """

    inputs: int = 2
    width: int = 64
    blocks: int = 9

    def __post_init__(self) -> None:
        for name, high in (("inputs", MAX_INPUTS), ("width", MAX_WIDTH), ("blocks", MAX_BLOCKS)):
            check_architecture(1 <= getattr(self, name) <= high, name, getattr(self, name), f"1 to {high}")


@dataclass(frozen=True)
class RegganRecipeConfig(AdversarialConfig):
    """RegGAN's training; see ``AdversarialConfig``. The defaults are the published ones.

    Attributes:
        smoothness_weight: weight of the displacement's mean squared differences.
        registration_width: channels of the registration network at full resolution.
        registration_levels: its number of halvings.
    """

    learning_rate: float = 1e-4
    constant_part: float = 0.25
    l1_weight: float = 20.0
    smoothness_weight: float = 10.0
    registration_width: int = 32
    registration_levels: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_constants(self, {"registration_width": (1, MAX_WIDTH), "registration_levels": (1, 7)})


class RegganNetwork(nn.Module):
    """The generator; see ``RegganConfig``."""

    def __init__(self, config: RegganConfig) -> None:
        super().__init__()
        self.config = config
        self.resnet = ResnetGenerator(config.inputs, config.width, config.blocks, "instance")

    def forward(self, images: Tensor, roi: Tensor | None = None) -> Tensor:
        """Synthesise the target.

        Args:
            images: sources [B, S, H, W] in [-1, 1], in the order of the model card.
            roi: not looked at; this network takes no prompt.

        Returns:
            Target [B, 1, H, W] in [-1, 1].

        Raises:
            InputError: ``MX-MOD-007`` (height or width not a multiple of 4), ``MX-MOD-008`` (wrong number of channels).
        """
        check_images(images, self.config.inputs, ResnetGenerator.multiple)
        return self.resnet(images)


class RegganRecipe(AdversarialRecipe):
    """Least squares on one score an image, the mean absolute error after warping, and the warp's smoothness."""

    def __init__(self, config: RegganConfig, recipe_config: RegganRecipeConfig) -> None:
        super().__init__(
            RegganNetwork(config),
            lambda: PatchGan(width=recipe_config.discriminator_width, norm="instance"),
            recipe_config,
            {"registration": RegistrationUnet(recipe_config.registration_width, recipe_config.registration_levels)},
        )
        self.smoothness_weight = recipe_config.smoothness_weight

    def scores(self, image: Tensor, batch: Batch, state: TrainingState) -> Tensor:
        """Return one score an image, [B]."""
        return super().scores(image, batch, state).flatten(1).mean(dim=1)

    def terms(self, batch: Batch, made: Tensor, state: TrainingState) -> dict[str, tuple[float, Tensor]]:
        """Return the error that is left after registration, and how uneven the displacement is."""
        displacement = state.networks["registration"](made, batch.target)
        left = l1(warp(made, displacement), batch.target)
        return {"l1": (self.config.l1_weight, left), "smoothness": (self.smoothness_weight, smoothness(displacement))}


@register_model("reggan")
class RegGan(Method):
    """ResNet-9 with a registration network in training, for one or more sources and one target."""

    config_type = RegganConfig
    recipe_type = RegganRecipeConfig
    presets = {"paper": RegganConfig(), "tiny": RegganConfig(width=16)}
    recipe_presets = {
        "tiny": RegganRecipeConfig(discriminator_width=16, registration_width=8, registration_levels=3),
    }
    citation = (
        "Kong L, Lian C, Huang D, Li Z, Hu Y, Zhou Q. Breaking the Dilemma of Medical Image-to-image Translation. "
        "NeurIPS 2021, 1964-1978."
    )

    def build(self, config: Any) -> nn.Module:
        """Return a freshly initialised network."""
        return RegganNetwork(config)

    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        """Return the recipe with fresh networks."""
        return RegganRecipe(config, recipe_config)

    def n_sources(self, config: Any) -> int:
        """Return the number of stacked sources."""
        return config.inputs

    def size_multiple(self, config: Any) -> int:
        """Return 4."""
        return ResnetGenerator.multiple
