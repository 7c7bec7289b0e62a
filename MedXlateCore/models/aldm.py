"""ALDM: from any modality to any other in 3D, by latent diffusion with MS-SPADE (Kim and Park, WACV 2024).

An autoencoder makes latents of whole volumes; MS-SPADE, switched by the target, makes the source's latents like the
target's; a diffusion that sees both leads to the target's latents, which are decoded. One network for many directions
of one source each; MS-SPADE is keyed by the target only, and a target may be its own source (reconstruction).

Three stages in one training, by shares of its length: ``autoencoder`` (L1, codebook, and if they are given weights a
hinge GAN after a delay and a perceptual term), ``spade`` (L1 between quantised latents, autoencoder fixed; a cycle term
if it has a weight), ``diffusion`` (mean square error of the prediction, the rest fixed).

Presets. ``paper``: autoencoder 256/512/512 with one residual block a level in the encoder and two in the decoder,
attention in the middle, 8,192 codes of length 3, MS-SPADE of table B; with the discriminator 237.01 M parameters, the
published number. U-Net 128/256/512, two blocks; the published "658 M" fit its size in megabytes. The class comes by
cross-attention, the conditions are target-like latents only. ``code``: the authors' current code: 6.5 M + 18.9 M +
33.2 M, class embedding, source and target-like latents. ``tiny`` is for minutes on a CPU. Its latents have half the
size, reached by a shortcut over means (ours) so that few steps of training suffice, and no codes to search (``kl``).
Ours too: convolutions within slices that see the ones beside (``planar``), MS-SPADE and U-Net in a shape that learns
sharp edges sooner (``spade_nested``, ``unet_nested``), steps of training that see slabs (``slab``). The diffusion is of
what MS-SPADE leaves (``residual``), for what it says it may be wrong by (``spade_doubt``), and predicts it clean. One
sample takes one step, which ends near the mean of what is likely: more steps draw one of the likely volumes, whose
error is larger, and which only several samples are good for.

Mended, each with a switch back: the published code weighs the wrong term of the codebook's loss (``vq_legacy``), has
codebook weight 0 in its current configuration, with which all latents stay near zero (``codebook_weight``), does not
scale latents (``latent_scale = 1``), draws 200 stochastic steps of DDIM (``steps``, ``eta = 1``). Ours: dead codes are
revived, latents are centred as well as scaled, the chain begins at the last level. The perceptual and the cycle loss of
the paper appear in no version of the code; they are off. Moving averages of weights: ``[training] ema_decay``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from MedXlateCore.errors import Warned
from MedXlateCore.models.aldm_config import AldmConfig
from MedXlateCore.models.aldm_net import AldmNetwork, AldmTowards
from MedXlateCore.models.blocks.checks import check_architecture, check_constants
from MedXlateCore.models.blocks.patchgan import PatchGan
from MedXlateCore.models.blocks.updates import descend, figures, held
from MedXlateCore.models.method import Batch, Method, Recipe, TrainingState, check_choices
from MedXlateCore.models.registry import register_model
from MedXlateCore.training.losses import hinge_discriminator, hinge_generator, l1
from MedXlateCore.training.perceptual import PerceptualLoss

__all__ = ["Aldm", "AldmConfig", "AldmNetwork", "AldmRecipe", "AldmRecipeConfig"]

STAGES = ("autoencoder", "spade", "diffusion")
PARTS = {"autoencoder": ("encoder", "regulariser", "decoder"), "spade": ("spade",), "diffusion": ("unet",)}
SLICES = 4  # a volume, that the perceptual term looks at


@dataclass(frozen=True)
class AldmRecipeConfig:
    """ALDM's training.

    Attributes:
        autoencoder_share, spade_share, diffusion_share: how the training's length is divided among the stages that the
            network has; only their ratios count.
        autoencoder_rate, spade_rate: learning rates of Adam (betas 0.5, 0.9).
        diffusion_rate: learning rate of AdamW (betas 0.9, 0.999).
        schedule: within each stage: ``constant``, or ``cosine`` to ``last_rate`` of the rate.
        last_rate: end of the cosine.
        codebook_weight: of the codebook's loss, in ``vq``.
        kl_weight: of the divergence, in ``kl``.
        adversarial_weight: of the hinge GAN; 0 builds no discriminator.
        adversarial_after: part of the autoencoder's stage after which it begins.
        discriminator_width: channels after its first convolution.
        perceptual_weight: of the perceptual term, on slices.
        perceptual_weights: safetensors file with VGG-16's first layers, see ``PerceptualLoss``; empty for no such term.
        cycle_weight: of the L1 around target-like latents and back, in ``spade``; where the source is a target too.
        doubt_weight: of how well MS-SPADE says how wrong it may be, in ``spade``, with ``spade_doubt``.
        draws: of noise for each volume, in ``diffusion``.
        slab: planes of a volume, at a random depth, that a step sees; 0 for whole volumes, as published (an earlier
            version of the authors' code crops along all axes).
        flip_depth, flip_height, flip_width: probabilities of mirroring a volume.

    Raises:
        UsageError: ``MX-MOD-004`` (not among the choices), ``MX-MOD-006`` (a constant outside its range).
    """

    autoencoder_share: float = 0.4
    spade_share: float = 0.2
    diffusion_share: float = 0.4
    autoencoder_rate: float = 4e-5
    spade_rate: float = 8e-5
    diffusion_rate: float = 4e-5
    schedule: Literal["constant", "cosine"] = "constant"
    last_rate: float = 0.05
    codebook_weight: float = 1.0
    kl_weight: float = 1e-6
    adversarial_weight: float = 0.5
    adversarial_after: float = 0.3
    discriminator_width: int = 32
    perceptual_weight: float = 0.1
    perceptual_weights: str = ""
    cycle_weight: float = 0.0
    doubt_weight: float = 0.2
    draws: int = 1
    slab: int = 0
    flip_depth: float = 0.1
    flip_height: float = 0.1
    flip_width: float = 0.1

    def __post_init__(self) -> None:
        check_choices(self)
        unit = ("last_rate", "adversarial_after", "flip_depth", "flip_height", "flip_width")
        rates = ("autoencoder_rate", "spade_rate", "diffusion_rate")
        weights = [name for name in self.__dataclass_fields__ if name.endswith("_weight")]
        ranges = dict.fromkeys((*unit, *rates), (0.0, 1.0)) | dict.fromkeys(weights, (0.0, 1e6))
        ranges |= dict.fromkeys((f"{stage}_share" for stage in STAGES), (0.001, 1000.0))
        check_constants(
            self, ranges | {"discriminator_width": (1.0, 512.0), "draws": (1.0, 64.0), "slab": (0.0, 4096.0)}
        )


class AldmRecipe(Recipe):
    """Three stages in a row, each of which trains its part of the network while the others are fixed."""

    stages: ClassVar[tuple[str, ...]] = STAGES

    def __init__(self, config: AldmConfig, recipe_config: AldmRecipeConfig) -> None:
        self.config, self.recipe_config = config, recipe_config
        fits = recipe_config.slab % config.multiple == 0
        check_architecture(fits, "slab", recipe_config.slab, f"a multiple of {config.multiple}, or 0 for whole volumes")
        self._network = AldmNetwork(config)
        self._networks: dict[str, nn.Module] = {"generator": self._network}
        if recipe_config.adversarial_weight > 0:
            self._networks["discriminator"] = PatchGan(1, width=recipe_config.discriminator_width, dimensions=3)
        wanted = recipe_config.perceptual_weight > 0 and recipe_config.perceptual_weights
        self.perceptual = PerceptualLoss(recipe_config.perceptual_weights) if wanted else None
        has = {"autoencoder": True, "spade": config.use_spade, "diffusion": config.use_diffusion}
        self._stages = tuple(stage for stage in STAGES if has[stage])
        shares = [getattr(recipe_config, f"{stage}_share") for stage in self._stages]
        self._ends = [sum(shares[: n + 1]) / sum(shares) for n in range(len(shares))]

    def stage_of(self, progress: float) -> str:
        """Return the name of the stage at a point of the training, from 0 to 1."""
        return self._place(progress)[0]

    def _place(self, progress: float) -> tuple[str, float]:
        """Return the stage at a point of the training, and where in it that is, from 0 to 1."""
        begin = 0.0
        for stage, end in zip(self._stages, self._ends, strict=True):
            if progress < end or stage == self._stages[-1]:
                return stage, min(1.0, max(0.0, (progress - begin) / (end - begin)))
            begin = end
        raise RuntimeError("there is a last stage")

    def judged(self, progress: float) -> bool:
        """Say whether the network can translate: from the last stage on."""
        return self.stage_of(progress) == self._stages[-1]

    def remark(self, losses: Mapping[str, float], progress: float) -> Warned | None:
        """Warn of a codebook of which next to nothing is used (``MX-TRN-017``), once the first codes had their time."""
        least = max(4.0, self.config.codes / 256)
        stage, within = self._place(progress)
        if stage != "autoencoder" or within < 0.2 or losses.get("perplexity", least) >= least:
            return None
        return Warned(
            "MX-TRN-017",
            f"the codebook has collapsed: its perplexity is {losses['perplexity']:.1f}, of {self.config.codes} codes",
            where="autoencoder",
            fix="unused codes are revived (revive > 0); if it stays, lower autoencoder_rate or use regulariser kl",
        )

    def networks(self) -> dict[str, nn.Module]:
        """Return ``generator`` and, if there is an adversarial term, ``discriminator``."""
        return self._networks

    def optimisers(self, learning_rate: float | None = None) -> dict[str, torch.optim.Optimizer]:
        """Return AdamW with a group of its own for each stage, and Adam for the discriminator.

        A given learning rate holds for all stages.
        """
        weights, groups = self.recipe_config, []
        for stage in self._stages:
            own = getattr(weights, f"{stage}_rate") if learning_rate is None else learning_rate
            last = stage == "diffusion"
            betas, decay = ((0.9, 0.999), 0.01) if last else ((0.5, 0.9), 0.0)
            groups.append({"params": self._parameters(stage), "lr": own, "betas": betas, "weight_decay": decay})
        result: dict[str, torch.optim.Optimizer] = {"generator": torch.optim.AdamW(groups)}
        if "discriminator" in self._networks:
            rate = weights.autoencoder_rate if learning_rate is None else learning_rate
            judge = self._networks["discriminator"].parameters()
            result["discriminator"] = torch.optim.Adam(judge, lr=rate, betas=(0.5, 0.9))
        return result

    def learning_rate_factor(self, progress: float) -> float:
        """Within each stage constant, or half a cosine."""
        weights = self.recipe_config
        if weights.schedule == "constant":
            return 1.0
        _, within = self._place(progress)
        return weights.last_rate + (1 - weights.last_rate) * 0.5 * (1 + math.cos(math.pi * within))

    def step(self, batch: Batch, state: TrainingState) -> dict[str, float]:
        """Do a step of the stage that ``state.progress`` is in."""
        stage, within = self._place(state.progress)
        self._network.requires_grad_(False)
        for parameter in self._parameters(stage):
            parameter.requires_grad_(True)
        try:
            seen = self._flipped(self._cropped(batch, state), state)
            return figures(getattr(self, f"_{stage}_step")(seen, state, within))
        finally:
            self._network.requires_grad_(True)

    def _parameters(self, stage: str) -> list[nn.Parameter]:
        parts = [getattr(self._network, name) for name in PARTS[stage]]
        return [parameter for part in parts for parameter in part.parameters()]

    def _cropped(self, batch: Batch, state: TrainingState) -> Batch:
        planes, depth = self.recipe_config.slab, batch.images.shape[2]
        if not 0 < planes < depth:
            return batch
        generator = state.generator
        low = int(torch.randint(0, depth - planes + 1, (), generator=generator, device=generator.device))
        return batch.mapped(lambda tensor: tensor.narrow(2, low, planes))

    def _flipped(self, batch: Batch, state: TrainingState) -> Batch:
        weights = self.recipe_config
        chances = (weights.flip_depth, weights.flip_height, weights.flip_width)
        drawn = torch.rand(3, generator=state.generator, device=state.generator.device).tolist()
        axes = [axis for axis, chance, value in zip((2, 3, 4), chances, drawn, strict=True) if value < chance]
        return batch.mapped(lambda tensor: tensor.flip(axes)) if axes else batch

    # --- stages ------------------------------------------------------------------------------------------------------

    def _autoencoder_step(self, batch: Batch, state: TrainingState, within: float) -> dict[str, Tensor]:
        """Reconstruct source or target, whichever the dice say."""
        weights, generator = self.recipe_config, state.generator
        drawn = {"generator": generator, "device": generator.device}
        first = bool(torch.rand((), **drawn) < 0.5)  # type: ignore[call-overload]
        images = batch.images if first else batch.target
        quantised = self.config.regulariser == "vq"
        shape = (self.config.codes,) if quantised else self._latent_shape(images)
        draws = (torch.rand if quantised else torch.randn)(shape, **drawn)  # type: ignore[call-overload]
        seen = state.networks["generator"](images, None, batch.direction, "autoencoder", draws=draws.to(images.device))
        losses = {
            "reconstruction": l1(seen["made"], images),
            "codebook" if quantised else "divergence": seen["regulariser"],
        }
        total = losses["reconstruction"]
        total = total + (weights.codebook_weight if quantised else weights.kl_weight) * seen["regulariser"]
        if self.perceptual:
            losses["perceptual"] = self.perceptual(*self._slices(seen["made"], images, state))
            total = total + weights.perceptual_weight * losses["perceptual"]
        judged = "discriminator" in state.networks and within >= weights.adversarial_after
        if judged:
            judge = state.networks["discriminator"]
            with held(judge):
                losses["adversarial"] = hinge_generator(judge(seen["made"]))
            total = total + weights.adversarial_weight * losses["adversarial"]
        descend(state, ["generator"], total)
        if judged:
            losses["discriminator"] = hinge_discriminator(judge(images), judge(seen["made"].detach()))
            descend(state, ["discriminator"], losses["discriminator"])
        if quantised:
            losses["perplexity"] = seen["perplexity"]
        return {"autoencoder": total, **losses}

    def _spade_step(self, batch: Batch, state: TrainingState, within: float) -> dict[str, Tensor]:
        weights = self.recipe_config
        cycle = weights.cycle_weight > 0
        seen = state.networks["generator"](
            batch.images, None, batch.direction, "spade", target=batch.target, cycle=batch.images if cycle else None
        )
        losses = {"latents": l1(seen["like"], seen["wanted"])}
        total = losses["latents"]
        if "doubt" in seen:
            losses["doubt"] = seen["doubt"]
            total = total + weights.doubt_weight * seen["doubt"]
        if "cycle" in seen:
            losses["cycle"] = l1(seen["cycle"], batch.images)
            total = total + weights.cycle_weight * losses["cycle"]
        descend(state, ["generator"], total)
        return {"spade": total, **losses}

    def _diffusion_step(self, batch: Batch, state: TrainingState, within: float) -> dict[str, Tensor]:
        shape = self._latent_shape(batch.images)
        shape = (shape[0] * self.recipe_config.draws, *shape[1:])
        drawn = {"generator": state.generator, "device": batch.images.device}
        levels = torch.randint(0, self.config.levels, shape[:1], **drawn)  # type: ignore[call-overload]
        noise = torch.randn(shape, **drawn)  # type: ignore[call-overload]
        seen = state.networks["generator"](
            batch.images, None, batch.direction, "diffusion", target=batch.target, levels=levels, noise=noise
        )
        loss = nn.functional.mse_loss(seen["made"], seen["wanted"])
        descend(state, ["generator"], loss)
        return {"diffusion": loss}

    def _latent_shape(self, images: Tensor) -> tuple[int, ...]:
        sizes = (size // self.config.factor for size in images.shape[2:])
        return (len(images), self.config.latent_channels, *sizes)

    @staticmethod
    def _slices(made: Tensor, images: Tensor, state: TrainingState) -> tuple[Tensor, Tensor]:
        """Return some slices [N, 1, ., .] of both, across an axis that is drawn ("2.5D")."""
        generator = state.generator
        axis = int(torch.randint(2, 5, (), generator=generator, device=generator.device))
        places = torch.randint(0, images.shape[axis], (SLICES,), generator=generator, device=generator.device)
        both = (x.index_select(axis, places.to(x.device)).movedim(axis, 1).flatten(0, 1) for x in (made, images))
        first, second = (x.unsqueeze(1) if x.ndim == 3 else x for x in both)
        return first, second


@register_model("aldm")
class Aldm(Method):
    """Latent diffusion in 3D for many directions of one source."""

    config_type = AldmConfig
    recipe_type = AldmRecipeConfig
    presets = {
        "paper": AldmConfig(
            widths=(256, 512, 512),
            middle="attention",
            latent_channels=3,
            spade_widths=(256, 256, 256, 128),
            spade_stem=128,
            spade_residual=(256, 256),
            cond_inputs="paper",
            conditioning="crossattn",
            unet_widths=(128, 256, 512),
            unet_blocks=2,
            directions=("T1->T1ce", "T1->T2", "T1->FLAIR", "T2->T1"),
        ),
        "code": AldmConfig(directions=("T1->T1ce", "T1->T2", "T1->FLAIR", "T2->T1")),
        "tiny": AldmConfig(
            widths=(32,),
            decoder_blocks=1,
            middle="none",
            patch=2,
            shortcut=True,
            regulariser="kl",
            codes=1024,
            codebook="average",
            planar=True,
            spade_nested=True,
            spade_doubt=True,
            spade_widths=(16, 48, 96),
            spade_hidden=8,
            spade_scaled=True,
            unet_nested=True,
            unet_widths=(16, 48, 96),
            residual=True,
            prediction="x0",
            steps=1,
            sample_steps=5,
            directions=("T1->T2", "T1->FLAIR", "T2->T1"),
        ),
    }
    recipe_presets = {
        "tiny": AldmRecipeConfig(
            autoencoder_share=0.12,
            spade_share=0.4,
            diffusion_share=0.48,
            autoencoder_rate=4e-3,
            spade_rate=2.5e-3,
            diffusion_rate=2.5e-3,
            schedule="cosine",
            adversarial_weight=0.0,
            slab=16,
            flip_depth=0.0,
            flip_height=0.0,
            flip_width=0.5,
        )
    }
    citation = (
        "Kim J, Park H. Adaptive Latent Diffusion Model for 3D Medical Image to Image Translation: Multi-Modal "
        "Magnetic Resonance Imaging Study. WACV 2024."
    )
    volumetric = True
    draws_samples = True

    def build(self, config: Any) -> nn.Module:
        """Return a freshly initialised network."""
        return AldmNetwork(config)

    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        """Return the recipe with a fresh network."""
        return AldmRecipe(config, recipe_config)

    def n_sources(self, config: Any) -> int:
        """Return 1."""
        return 1

    def size_multiple(self, config: Any) -> int:
        """Return the number that depth, height and width must be a multiple of."""
        return config.multiple

    def towards(self, network: nn.Module, config: Any, direction: int) -> nn.Module:
        """Return the network for one of its directions."""
        return AldmTowards(cast(AldmNetwork, network), direction)
