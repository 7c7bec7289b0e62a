"""CycleGAN: two generators that undo each other, learned without pairs.

Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV 2017, sections 3, 4
and 7. **Training is unpaired**: the target of a training slice is a slice of another position and patient, drawn at
random, even where the data are paired; the card of a model says so (``training.unpaired``). Evaluation is paired.

Presets. ``paper``: ResNet-9 generators with instance normalisation (11,365,633 parameters each), unconditional
PatchGANs of 70 x 70 pixels with pools of 50 images, least-squares GAN, 10 times L1 around both cycles, identity terms
of half that, Adam (0.5, 0.999) at 2e-4, constant for half of the training, batch 1. ``cgan`` is the unregistered
variant of Dar et al. (IEEE TMI 2019; see ``pgan.py``): the same with 100 times L1 around the cycles; its neighbouring
slices are left out, since the generator that leads back could not make them. ``tiny`` has width 16 and three residual
blocks; it trains on a CPU.

The order is that of the authors' code: the generators first, then the discriminators on images of the pools. The pools
are stored with the discriminators, so that a resumed run ends with the same bits. One source, one target; no prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from MedXlateCore.models.blocks.checks import check_architecture, check_constants
from MedXlateCore.models.blocks.image_pool import PooledPatchGan
from MedXlateCore.models.blocks.translator import ResnetTranslator
from MedXlateCore.models.blocks.updates import constant_then_linear, descend, figures, held
from MedXlateCore.models.method import Batch, Method, Recipe, TrainingState
from MedXlateCore.models.registry import register_model
from MedXlateCore.training.losses import l1, lsgan_discriminator, lsgan_generator

__all__ = ["CycleGan", "CycleGanConfig", "CycleGanRecipe", "CycleGanRecipeConfig"]

MAX_WIDTH, MAX_BLOCKS, MAX_POOL = 256, 32, 1000


@dataclass(frozen=True)
class CycleGanConfig:
    """Architecture of both generators. The defaults are the published ones.

    Attributes:
        width: channels at full resolution.
        blocks: residual blocks; the paper has 9 for images of 256 x 256 and 6 for 128 x 128.
        dimensions: 2; a subclass for volumes has 3.

    Raises:
        UsageError: ``MX-MOD-005``, a number out of its range.
    """

    dimensions: ClassVar[int] = 2

    width: int = 64
    blocks: int = 9

    def __post_init__(self) -> None:
        check_architecture(1 <= self.width <= MAX_WIDTH, "width", self.width, f"1 to {MAX_WIDTH}")
        check_architecture(1 <= self.blocks <= MAX_BLOCKS, "blocks", self.blocks, f"1 to {MAX_BLOCKS}")

    def translator(self) -> nn.Module:
        """Return a freshly initialised generator."""
        return ResnetTranslator(1, self.width, self.blocks, dimensions=self.dimensions)


@dataclass(frozen=True)
class CycleGanRecipeConfig:
    """CycleGAN's training. The defaults are the published ones.

    Attributes:
        learning_rate: of Adam (betas 0.5, 0.999), for all networks.
        constant_part: part of the training for which the learning rate stays constant, before it falls to zero.
        cycle_weight: weight of the mean absolute error around each cycle.
        identity_weight: weight of the identity terms, as a multiple of ``cycle_weight``.
        adversarial_weight: weight of the adversarial terms.
        pool: how many earlier images each discriminator is shown again; 0 for none.
        discriminator_width: channels after the discriminators' first convolution.

    Raises:
        UsageError: ``MX-MOD-006``, a constant outside its range.
    """

    learning_rate: float = 2e-4
    constant_part: float = 0.5
    cycle_weight: float = 10.0
    identity_weight: float = 0.5
    adversarial_weight: float = 1.0
    pool: int = 50
    discriminator_width: int = 64

    def __post_init__(self) -> None:
        ranges = {"learning_rate": (0.0, 1.0), "constant_part": (0.0, 1.0), "discriminator_width": (1.0, 512.0)}
        weights = dict.fromkeys(("cycle_weight", "identity_weight", "adversarial_weight"), (0.0, 1e6))
        check_constants(self, ranges | weights | {"pool": (0.0, float(MAX_POOL))})


class CycleGanRecipe(Recipe):
    """Both generators in one step, then both discriminators. Source and target of a batch need not belong together.

    ``generator`` leads from source to target, ``reverse`` back; ``discriminator`` judges targets,
    ``reverse_discriminator`` sources.

    Args:
        config: the generators' architecture.
        recipe_config: the constants.
        strided: the discriminators' convolutions of stride 2.
    """

    def __init__(self, config: CycleGanConfig, recipe_config: CycleGanRecipeConfig, strided: int = 3) -> None:
        self.recipe_config = recipe_config
        judge = (1, recipe_config.discriminator_width, recipe_config.pool, strided, config.dimensions)
        self._networks: dict[str, nn.Module] = {
            "generator": config.translator(),
            "reverse": config.translator(),
            "discriminator": PooledPatchGan(*judge),
            "reverse_discriminator": PooledPatchGan(*judge),
        }

    def networks(self) -> dict[str, nn.Module]:
        """Return the two generators and the two discriminators."""
        return self._networks

    def optimisers(self, learning_rate: float | None = None) -> dict[str, torch.optim.Optimizer]:
        """Return one Adam a network (betas 0.5, 0.999)."""
        rate = self.recipe_config.learning_rate if learning_rate is None else learning_rate
        return {
            name: torch.optim.Adam(network.parameters(), lr=rate, betas=(0.5, 0.999))
            for name, network in self._networks.items()
        }

    def learning_rate_factor(self, progress: float) -> float:
        """Constant for the first part of the training, then linear to zero."""
        return constant_then_linear(progress, self.recipe_config.constant_part)

    def step(self, batch: Batch, state: TrainingState) -> dict[str, float]:
        """Do one step of the generators, then one of the discriminators."""
        networks, source, target = state.networks, batch.images, batch.target
        made, back = networks["generator"](source), networks["reverse"](target)
        losses = self._generators_step(source, target, made, back, state)
        for name, real, fake in (("discriminator", target, made), ("reverse_discriminator", source, back)):
            judge = networks[name]
            losses[name] = lsgan_discriminator(judge(real), judge(fake.detach(), state.generator))
            descend(state, [name], losses[name])
        return figures(losses)

    def _generators_step(
        self, source: Tensor, target: Tensor, made: Tensor, back: Tensor, state: TrainingState
    ) -> dict[str, Tensor]:
        networks, weights = state.networks, self.recipe_config
        forwards, backwards = networks["generator"], networks["reverse"]
        losses = {"cycle": l1(backwards(made), source) + l1(forwards(back), target)}
        total = weights.cycle_weight * losses["cycle"]
        if weights.identity_weight > 0:
            losses["identity"] = l1(forwards(target), target) + l1(backwards(source), source)
            total = total + weights.cycle_weight * weights.identity_weight * losses["identity"]
        judges = networks["discriminator"], networks["reverse_discriminator"]
        with held(*judges):
            losses["adversarial"] = lsgan_generator(judges[0](made)) + lsgan_generator(judges[1](back))
            total = total + weights.adversarial_weight * losses["adversarial"]
            descend(state, ["generator", "reverse"], total)
        return {"generator": total, **losses}


@register_model("cyclegan")
class CycleGan(Method):
    """Two ResNet generators and two PatchGANs, for one source and one target, trained without pairs."""

    config_type = CycleGanConfig
    recipe_type = CycleGanRecipeConfig
    presets = {"paper": CycleGanConfig(), "cgan": CycleGanConfig(), "tiny": CycleGanConfig(width=16, blocks=3)}
    recipe_presets = {
        "cgan": CycleGanRecipeConfig(cycle_weight=100.0),
        "tiny": CycleGanRecipeConfig(discriminator_width=16),
    }
    citation = (
        "Zhu JY, Park T, Isola P, Efros AA. Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial "
        "Networks. ICCV 2017, 2242-2251."
    )
    unpaired = True

    def build(self, config: Any) -> nn.Module:
        """Return a freshly initialised generator from source to target."""
        return config.translator()

    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        """Return the recipe with fresh networks."""
        return CycleGanRecipe(config, recipe_config)

    def n_sources(self, config: Any) -> int:
        """Return 1."""
        return 1

    def size_multiple(self, config: Any) -> int:
        """Return 4."""
        return ResnetTranslator.multiple
