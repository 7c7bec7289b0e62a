"""The recipes that comparators share: an adversarial term and mean absolute errors, one Adam a network.

Two kinds of discriminator: one that judges the image alone, and one that sees source and target together (Isola et al.,
CVPR 2017, section 3). Its loss is the mean of its two terms. In every step it comes first, and sees the synthetic image
detached from the generator. Methods without prompts; annotated regions are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from MedXlateCore.models.blocks.checks import check_constants
from MedXlateCore.models.blocks.patchgan import PatchGan
from MedXlateCore.models.method import Batch, Recipe, TrainingState, check_choices
from MedXlateCore.training.losses import (
    cross_entropy_discriminator,
    cross_entropy_generator,
    l1,
    lsgan_discriminator,
    lsgan_generator,
)

__all__ = ["GAN_LOSSES", "AdversarialConfig", "AdversarialRecipe", "PairedRecipe", "PairedRecipeConfig"]

GAN_LOSSES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {  # discriminator's, generator's
    "cross_entropy": (cross_entropy_discriminator, cross_entropy_generator),
    "least_squares": (lsgan_discriminator, lsgan_generator),
}
_RANGES = {"learning_rate": (0.0, 1.0), "constant_part": (0.0, 1.0), "discriminator_width": (1.0, 512.0)}
_WEIGHTS = (0.0, 1e6)  # of all fields whose name ends in _weight


@dataclass(frozen=True)
class AdversarialConfig:
    """Constants of an adversarial training.

    Attributes:
        learning_rate: of Adam (betas 0.5, 0.999), for all networks.
        constant_part: part of the training for which the learning rate stays constant, before it falls to zero.
        l1_weight: weight of the mean absolute error.
        adversarial_weight: weight of the adversarial term; 0 builds no discriminator.
        adversarial: its kind.
        discriminator_width: channels after the discriminator's first convolution.

    Raises:
        UsageError: ``MX-MOD-004`` (not among the choices), ``MX-MOD-006`` (a constant outside its range).
    """

    learning_rate: float = 2e-4
    constant_part: float = 0.5
    l1_weight: float = 100.0
    adversarial_weight: float = 1.0
    adversarial: Literal["cross_entropy", "least_squares"] = "least_squares"
    discriminator_width: int = 64

    def __post_init__(self) -> None:
        check_choices(self)
        weights = [name for name in self.__dataclass_fields__ if name.endswith("_weight")]
        check_constants(self, _RANGES | dict.fromkeys(weights, _WEIGHTS))


class AdversarialRecipe(Recipe):
    """One step of the discriminator, then one of all other networks, which it now judges.

    A subclass says what is made (``synthesise``), how it is judged (``scores``) and what it costs (``terms``).

    Args:
        generator: network from images [B, S, H, W] to the target [B, 1, H, W].
        discriminator: makes the discriminator; called only if the adversarial term has a weight.
        config: the constants.
        others: further networks by name, trained by the same loss as the generator.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: Callable[[], nn.Module],
        config: AdversarialConfig,
        others: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.config = config
        self._networks = {"generator": generator, **(others or {})}
        if config.adversarial_weight > 0:
            self._networks["discriminator"] = discriminator()

    def networks(self) -> dict[str, nn.Module]:
        """Return ``generator``, the others, and, if there is an adversarial term, ``discriminator``."""
        return self._networks

    def optimisers(self, learning_rate: float | None = None) -> dict[str, torch.optim.Optimizer]:
        """Return one Adam a network (betas 0.5, 0.999)."""
        rate = self.config.learning_rate if learning_rate is None else learning_rate
        return {
            name: torch.optim.Adam(network.parameters(), lr=rate, betas=(0.5, 0.999))
            for name, network in self._networks.items()
        }

    def learning_rate_factor(self, progress: float) -> float:
        """Constant for the first part of the training, then linear to zero."""
        constant = self.config.constant_part
        return 1.0 if progress <= constant else max(0.0, (1.0 - progress) / (1.0 - constant))

    def synthesise(self, batch: Batch, state: TrainingState) -> Tensor:
        """Return [B, 1 or more, H, W] with the synthetic target as its first channel."""
        return state.networks["generator"](batch.images)

    def scores(self, image: Tensor, batch: Batch, state: TrainingState) -> Tensor:
        """Return the discriminator's scores of real or synthetic targets [B, 1, H, W]."""
        return state.networks["discriminator"](image)

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return what the discriminator's scores of real and synthetic images cost it."""
        return GAN_LOSSES[self.config.adversarial][0](real, fake)

    def terms(self, batch: Batch, made: Tensor, state: TrainingState) -> dict[str, tuple[float, Tensor]]:
        """Return weight and value of what ``synthesise`` made costs, by name, without the adversarial term."""
        return {"l1": (self.config.l1_weight, l1(made[:, :1], batch.target))}

    def step(self, batch: Batch, state: TrainingState) -> dict[str, float]:
        """Do one step of the discriminator, if there is one, then one of all other networks."""
        made = self.synthesise(batch, state)
        losses: dict[str, Tensor] = {}
        if "discriminator" in state.networks:
            losses["discriminator"] = self._discriminator_step(batch, made[:, :1].detach(), state)
        losses |= self._generator_step(batch, made, state)
        values = torch.stack([loss.detach().float() for loss in losses.values()]).tolist()  # one wait for the device
        return dict(zip(losses, values, strict=True))

    def _discriminator_step(self, batch: Batch, fake: Tensor, state: TrainingState) -> Tensor:
        state.networks["discriminator"].requires_grad_(True)
        real_scores, fake_scores = self.scores(batch.target, batch, state), self.scores(fake, batch, state)
        loss = self.discriminator_loss(real_scores, fake_scores)
        self._descend(["discriminator"], loss, state)
        return loss

    def _generator_step(self, batch: Batch, made: Tensor, state: TrainingState) -> dict[str, Tensor]:
        terms = self.terms(batch, made, state)
        if "discriminator" in state.networks:
            # the others' step needs no gradients of the discriminator
            state.networks["discriminator"].requires_grad_(False)
            adversarial = GAN_LOSSES[self.config.adversarial][1](self.scores(made[:, :1], batch, state))
            terms["adversarial"] = (self.config.adversarial_weight, adversarial)
        total = torch.stack([weight * value for weight, value in terms.values()]).sum()
        self._descend([name for name in state.networks if name != "discriminator"], total, state)
        return {"generator": total, **{name: value for name, (_, value) in terms.items()}}

    def _descend(self, names: list[str], loss: Tensor, state: TrainingState) -> None:
        for name in names:
            state.optimisers[name].zero_grad(set_to_none=True)
        state.backward(loss)
        for name in names:
            state.optimisers[name].step()


@dataclass(frozen=True)
class PairedRecipeConfig(AdversarialConfig):
    """Constants of a paired training; see ``AdversarialConfig``. The defaults are pix2pix's."""

    adversarial: Literal["cross_entropy", "least_squares"] = "cross_entropy"


class PairedRecipe(AdversarialRecipe):
    """Mean absolute error, and a PatchGAN that sees source and target together.

    Args:
        generator: network from images [B, S, H, W] to the target [B, 1, H, W], or from volumes to a volume.
        inputs: S, channels of what the discriminator sees beside the target.
        config: the constants.
        strided: the discriminator's convolutions of stride 2.
        dimensions: 2, or 3 for volumes.
    """

    def __init__(
        self, generator: nn.Module, inputs: int, config: PairedRecipeConfig, strided: int = 3, dimensions: int = 2
    ) -> None:
        width = config.discriminator_width
        super().__init__(generator, lambda: PatchGan(1, inputs, width, strided=strided, dimensions=dimensions), config)

    def scores(self, image: Tensor, batch: Batch, state: TrainingState) -> Tensor:
        """Judge an image with its sources."""
        return state.networks["discriminator"](image, batch.images)
