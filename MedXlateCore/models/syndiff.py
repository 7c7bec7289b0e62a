"""SynDiff: adversarial diffusion in four steps, conditioned on the source, learned without pairs.

Oezbey et al., "Unsupervised Medical Image Translation with Adversarial Diffusion Models", IEEE TMI 2023. **Training is
unpaired**: the target of a training slice is a slice of another position and patient; the card of a model says so
(``training.unpaired``). Two translators without diffusion, trained with a cycle, make a pseudo-source of every real
image, and a diffusive generator learns to lead from that and noise back to the image. Both directions are trained; the
one towards the target is what becomes a model.

**Evaluation has no randomness**: the noise of the chain and the latents come from a fixed seed and are the same for
every slice, whatever it is computed with; slices of one size see the same noise, so neighbours fit each other.

Presets. ``paper``: six-block ResNet translators with PatchGANs, diffusive U-Nets of width 64 with factors 1, 1, 2, 2,
4, 4, attention at 16 x 16 pixels of 256 x 256, latents of 100, four steps with noise rates 0.1 to 20, discriminators
that know the step, softplus losses, R1 (weight 1) in every tenth step, weights 0.5 for the cycle and for the error of
the diffusive result, Adam (0.5, 0.9) at 1.6e-4 and 1e-4, cosine decay. The published error is that at the end of the
whole reverse chain; the authors' public code takes that of the one-step prediction, which is the preset ``code``
(``image_loss``). ``tiny`` is small, with the code's error, and trains on a CPU.

Published and mended: the authors' validation loop uses one generator for both directions; here a model is validated
with the generator that it holds. Ours: the decay's end is 1/16 of the rate for all networks (published: 1e-5); all four
discriminators have the gradient penalty; the U-Net and its differences from NCSN++ are described in
``blocks/diffusion.py``. One source, one target; no prompts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from MedXlateCore.models.blocks.checks import check_architecture, check_constants, check_images
from MedXlateCore.models.blocks.diffusion import DiffusiveUnet, NoiseSchedule, StepDiscriminator
from MedXlateCore.models.blocks.patchgan import PatchGan
from MedXlateCore.models.blocks.translator import ResnetTranslator
from MedXlateCore.models.blocks.updates import descend, figures, held
from MedXlateCore.models.method import Batch, Method, Recipe, TrainingState, check_choices
from MedXlateCore.models.registry import register_model
from MedXlateCore.training.losses import l1, r1_penalty, softplus_discriminator, softplus_generator

__all__ = ["SynDiff", "SynDiffConfig", "SynDiffNetwork", "SynDiffRecipe", "SynDiffRecipeConfig"]

MAX_WIDTH, MAX_LEVELS, MAX_FACTOR, MAX_BLOCKS, MAX_STEPS, MAX_LATENT = 256, 8, 16, 16, 100, 1024


@dataclass(frozen=True)
class SynDiffConfig:
    """Architecture of the diffusive generators. The defaults are the published one.

    Attributes:
        width: channels at full resolution, an even number.
        factors: multiples of it, by resolution, finest first; one halving between each two.
        blocks: residual blocks a resolution.
        attention: halvings after which pixels attend to each other.
        latent: length of the latents.
        steps: of the diffusion.
        sampling_seed: of the noise that evaluation uses.

    Raises:
        UsageError: ``MX-MOD-005``, a number out of its range.
    """

    width: int = 64
    factors: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    blocks: int = 2
    attention: int = 4
    latent: int = 100
    steps: int = 4
    sampling_seed: int = 0

    def __post_init__(self) -> None:
        ranges = {"blocks": MAX_BLOCKS, "latent": MAX_LATENT, "steps": MAX_STEPS}
        for name, most in ranges.items():
            check_architecture(1 <= getattr(self, name) <= most, name, getattr(self, name), f"1 to {most}")
        even = 2 <= self.width <= MAX_WIDTH and self.width % 2 == 0
        check_architecture(even, "width", self.width, f"an even number from 2 to {MAX_WIDTH}")
        few = 1 <= len(self.factors) <= MAX_LEVELS and all(1 <= n <= MAX_FACTOR for n in self.factors)
        check_architecture(few, "factors", self.factors, f"1 to {MAX_LEVELS} numbers from 1 to {MAX_FACTOR}")
        check_architecture(0 <= self.attention <= MAX_LEVELS, "attention", self.attention, f"0 to {MAX_LEVELS}")
        check_architecture(0 <= self.sampling_seed < 2**31, "sampling_seed", self.sampling_seed, "0 to 2^31 - 1")

    @property
    def multiple(self) -> int:
        """Number that height and width must be a multiple of, in training too."""
        return math.lcm(ResnetTranslator.multiple, 2 ** (len(self.factors) - 1))


class SynDiffNetwork(nn.Module):
    """A diffusive generator; see ``SynDiffConfig``."""

    def __init__(self, config: SynDiffConfig) -> None:
        super().__init__()
        self.config, self.schedule = config, NoiseSchedule(config.steps)
        sizes = (config.width, config.factors, config.blocks, config.attention, config.latent)
        self.predictor = DiffusiveUnet(2, *sizes)

    def forward(
        self,
        images: Tensor,
        roi: Tensor | None = None,
        noisy: Tensor | None = None,
        steps: Tensor | None = None,
        latents: Tensor | None = None,
        noises: Tensor | None = None,
    ) -> Tensor:
        """Synthesise the target by the whole reverse chain; for training with given noise, or by one step of it.

        Args:
            images: the source [B, 1, H, W] in [-1, 1].
            roi: not looked at; this network takes no prompt.
            noisy: noisy targets [B, 1, H, W], of which only one step is done.
            steps: with ``noisy``, the step of each, [B].
            latents: with ``noisy`` [B, latent], else one a step [T, B or 1, latent]; fixed ones by default.
            noises: of the chain, [T, B or 1, 1, H, W], the first to start from; fixed ones by default.

        Returns:
            Target [B, 1, H, W] in [-1, 1].

        Raises:
            InputError: ``MX-MOD-007`` (height or width does not fit), ``MX-MOD-008`` (wrong number of channels).
        """
        check_images(images, 1, self.config.multiple)
        if noisy is not None and steps is not None and latents is not None:
            return self.predictor(torch.cat((noisy, images), dim=1), steps, latents)
        if noises is None or latents is None:
            noises, latents = self.fixed_noise(images)
        return self._chain(images, noises, latents)

    def _chain(self, images: Tensor, noises: Tensor, latents: Tensor) -> Tensor:
        noisy = noises[0].expand_as(images)
        for step in reversed(range(self.config.steps)):
            # one row for all images: a processor may round the rows of a small matrix differently
            steps = torch.full((1,), step, device=images.device)
            clean = self.predictor(torch.cat((noisy, images), dim=1), steps, latents[step]).float()
            noisy = self.schedule.denoised(clean, noisy, step, noises[step])  # at step 0 the noise has no weight
        return noisy.clamp(-1, 1)

    def fixed_noise(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise [T, 1, 1, H, W] and latents [T, 1, latent] of an evaluation; they depend on the size only.

        Args:
            images: [B, 1, H, W], for their size and device.
        """
        generator = torch.Generator().manual_seed(self.config.sampling_seed)
        shapes = (self.config.steps, 1, 1, *images.shape[2:]), (self.config.steps, 1, self.config.latent)
        noises, latents = (torch.randn(shape, generator=generator, device="cpu") for shape in shapes)
        return noises.to(images.device), latents.to(images.device)


@dataclass(frozen=True)
class SynDiffRecipeConfig:
    """SynDiff's training. The defaults are the published ones.

    Attributes:
        learning_rate: of Adam (betas 0.5, 0.9), for generators and translators.
        discriminator_rate: learning rate of the discriminators, as a multiple of ``learning_rate``.
        last_rate: end of the cosine decay, as a part of the learning rate.
        cycle_weight: weight of the mean absolute error around the translators' cycle.
        image_weight: weight of the mean absolute error of the diffusive result.
        image_loss: which result: ``chain`` (published) or ``one_step`` (the authors' code).
        r1_weight: weight of the gradient penalty.
        r1_every: so many steps apart.
        translator_width, translator_blocks: of the ResNet translators.
        discriminator_width: channels of all discriminators.
        discriminator_downs: halvings in the diffusive ones.

    Raises:
        UsageError: ``MX-MOD-004`` (not among the choices), ``MX-MOD-006`` (a constant outside its range).
    """

    learning_rate: float = 1.6e-4
    discriminator_rate: float = 0.625
    last_rate: float = 1 / 16
    cycle_weight: float = 0.5
    image_weight: float = 0.5
    image_loss: Literal["chain", "one_step"] = "chain"
    r1_weight: float = 1.0
    r1_every: int = 10
    translator_width: int = 64
    translator_blocks: int = 6
    discriminator_width: int = 64
    discriminator_downs: int = 6

    def __post_init__(self) -> None:
        check_choices(self)
        ranges = dict.fromkeys(("cycle_weight", "image_weight", "r1_weight"), (0.0, 1e6))
        ranges |= {"learning_rate": (0.0, 1.0), "discriminator_rate": (0.0, 100.0), "last_rate": (0.0, 1.0)}
        ranges |= {"r1_every": (1.0, 1e9), "discriminator_downs": (1.0, 8.0), "translator_blocks": (1.0, 32.0)}
        check_constants(self, ranges | dict.fromkeys(("translator_width", "discriminator_width"), (1.0, 512.0)))


@dataclass(frozen=True)
class Side:
    """One direction in one step: everything that ends in a real image's domain.

    Attributes:
        prefix: of the direction's networks: empty towards the target, ``reverse_`` back.
        real: real images [B, 1, H, W] of the domain.
        other: real images of the other domain.
        steps: a step of the diffusion for each, [B].
        before, after: the real images at the levels ``steps`` and ``steps`` + 1.
        latents, noise: of the one-step prediction and of the draw that follows it.
    """

    prefix: str
    real: Tensor
    other: Tensor
    steps: Tensor
    before: Tensor
    after: Tensor
    latents: Tensor
    noise: Tensor


class SynDiffRecipe(Recipe):
    """Both directions at once: one step of the four discriminators, then one of generators and translators."""

    def __init__(self, config: SynDiffConfig, recipe_config: SynDiffRecipeConfig) -> None:
        self.config, self.recipe_config = config, recipe_config
        self.schedule = NoiseSchedule(config.steps)
        self._networks: dict[str, nn.Module] = {}
        width, weights = recipe_config.discriminator_width, recipe_config
        for prefix in ("", "reverse_"):
            self._networks |= {
                f"{prefix}generator": SynDiffNetwork(config),
                f"{prefix}translator": ResnetTranslator(1, weights.translator_width, weights.translator_blocks),
                f"{prefix}discriminator": StepDiscriminator(width, weights.discriminator_downs),
                f"{prefix}translator_discriminator": PatchGan(1, width=width, norm="instance"),
            }

    def networks(self) -> dict[str, nn.Module]:
        """Return ``generator``, ``translator`` and their discriminators, and the same four ``reverse_``."""
        return self._networks

    def optimisers(self, learning_rate: float | None = None) -> dict[str, torch.optim.Optimizer]:
        """Return one Adam a network (betas 0.5, 0.9); discriminators have a rate of their own."""
        rate = self.recipe_config.learning_rate if learning_rate is None else learning_rate
        factor = self.recipe_config.discriminator_rate
        return {
            name: torch.optim.Adam(
                network.parameters(), lr=rate * (factor if "discriminator" in name else 1.0), betas=(0.5, 0.9)
            )
            for name, network in self._networks.items()
        }

    def learning_rate_factor(self, progress: float) -> float:
        """Half a cosine."""
        last = self.recipe_config.last_rate
        return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def step(self, batch: Batch, state: TrainingState) -> dict[str, float]:
        """Do one step of the discriminators, then one of generators and translators."""
        sides = [
            self._side("", batch.target, batch.images, state),
            self._side("reverse_", batch.images, batch.target, state),
        ]
        losses = self._discriminators_step(sides, state)
        return figures(losses | self._generators_step(sides, state))

    def _side(self, prefix: str, real: Tensor, other: Tensor, state: TrainingState) -> Side:
        """Draw everything random of a direction."""
        drawn = {"generator": state.generator, "device": real.device}
        steps = torch.randint(0, self.config.steps, (len(real),), **drawn)  # type: ignore[call-overload]
        noises = [torch.randn(real.shape, **drawn) for _ in range(3)]  # type: ignore[call-overload]
        before = self.schedule.noised(real, steps, noises[0])
        after = self.schedule.noisier(before, steps, noises[1])
        latents = torch.randn((len(real), self.config.latent), **drawn)  # type: ignore[call-overload]
        return Side(prefix, real, other, steps, before, after, latents, noises[2])

    def _predicted(self, side: Side, pseudo_source: Tensor, state: TrainingState) -> tuple[Tensor, Tensor]:
        """Return the one-step prediction of the real images, and its draw at their level."""
        generator = state.networks[f"{side.prefix}generator"]
        clean = generator(pseudo_source, None, noisy=side.after, steps=side.steps, latents=side.latents).float()
        return clean, self.schedule.denoised(clean, side.after, side.steps, side.noise)

    def _discriminators_step(self, sides: list[Side], state: TrainingState) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        regular = state.step % self.recipe_config.r1_every == 0
        for side, back in zip(sides, ("reverse_", ""), strict=True):
            with torch.no_grad():
                _, drawn = self._predicted(side, state.networks[f"{back}translator"](side.real), state)
                made = state.networks[f"{side.prefix}translator"](side.other)
            known = side.after, side.steps
            for kind, real, fake, more in (("", side.before, drawn, known), ("translator_", side.real, made, ())):
                name = f"{side.prefix}{kind}discriminator"
                judge, real = state.networks[name], real.detach().clone().requires_grad_(regular)
                scores = judge(real, *more)
                losses[name] = total = softplus_discriminator(scores, judge(fake, *more))
                if regular:
                    total = total + self.recipe_config.r1_weight * r1_penalty(scores, real)
                descend(state, [name], total)
        return losses

    def _generators_step(self, sides: list[Side], state: TrainingState) -> dict[str, Tensor]:
        networks, weights = state.networks, self.recipe_config
        names = [name for name in networks if "discriminator" not in name]
        terms = []
        with held(*(network for name, network in networks.items() if "discriminator" in name)):
            for side, back in zip(sides, ("reverse_", ""), strict=True):
                pseudo_source = networks[f"{back}translator"](side.real)
                clean, drawn = self._predicted(side, pseudo_source, state)
                if weights.image_loss == "chain":
                    clean = self._chain(side, pseudo_source, state)
                judged = networks[f"{side.prefix}discriminator"](drawn, side.after, side.steps)
                made = networks[f"{side.prefix}translator"](side.other)
                seen = networks[f"{side.prefix}translator_discriminator"](made)
                adversarial = softplus_generator(judged), softplus_generator(seen)
                cycle = l1(networks[f"{side.prefix}translator"](pseudo_source), side.real)
                terms.append(torch.stack((*adversarial, cycle, l1(clean, side.real))))
            labels = ("adversarial", "translator_adversarial", "cycle", "image")
            losses = dict(zip(labels, torch.stack(terms).sum(dim=0), strict=True))
            total = losses["adversarial"] + losses["translator_adversarial"]
            total = total + weights.cycle_weight * losses["cycle"] + weights.image_weight * losses["image"]
            descend(state, names, total)
        return {"generator": total, **losses}

    def _chain(self, side: Side, pseudo_source: Tensor, state: TrainingState) -> Tensor:
        """Return the end of the whole reverse chain, with gradients through all of it."""
        drawn = {"generator": state.generator, "device": side.real.device}
        noises = torch.randn((self.config.steps, *side.real.shape), **drawn)  # type: ignore[call-overload]
        latents = torch.randn((self.config.steps, len(side.real), self.config.latent), **drawn)  # type: ignore[call-overload]
        return state.networks[f"{side.prefix}generator"](pseudo_source, None, noises=noises, latents=latents)


@register_model("syndiff")
class SynDiff(Method):
    """Adversarial diffusion with pseudo-pairs, for one source and one target, trained without pairs."""

    config_type = SynDiffConfig
    recipe_type = SynDiffRecipeConfig
    presets = {
        "paper": SynDiffConfig(),
        "code": SynDiffConfig(),
        "tiny": SynDiffConfig(width=16, factors=(1, 2, 2), blocks=1, attention=2, latent=16),
    }
    recipe_presets = {
        "code": SynDiffRecipeConfig(image_loss="one_step"),
        "tiny": SynDiffRecipeConfig(
            image_loss="one_step",
            translator_width=16,
            translator_blocks=2,
            discriminator_width=16,
            discriminator_downs=3,
        ),
    }
    citation = (
        "Oezbey M, Dalmaz O, Dar SUH, et al. Unsupervised Medical Image Translation with Adversarial Diffusion Models. "
        "IEEE Transactions on Medical Imaging 42(12):3524-3539, 2023."
    )
    unpaired = True

    def build(self, config: Any) -> nn.Module:
        """Return a freshly initialised diffusive generator towards the target."""
        return SynDiffNetwork(config)

    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        """Return the recipe with fresh networks."""
        return SynDiffRecipe(config, recipe_config)

    def n_sources(self, config: Any) -> int:
        """Return 1."""
        return 1

    def size_multiple(self, config: Any) -> int:
        """Return 4, or 2 to the halvings if that is more."""
        return config.multiple
