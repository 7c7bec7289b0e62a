"""ALDM's training: three stages in a row. See ``aldm.py`` for the method."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from MedXlateCore.errors import Warned
from MedXlateCore.models.aldm_config import AldmConfig
from MedXlateCore.models.aldm_net import AldmNetwork
from MedXlateCore.models.blocks.checks import check_architecture, check_constants, check_images
from MedXlateCore.models.blocks.latent_memory import LatentMemory
from MedXlateCore.models.blocks.muon import Muon, layer_matrices
from MedXlateCore.models.blocks.patchgan import PatchGan
from MedXlateCore.models.blocks.updates import descend, figures, held
from MedXlateCore.models.method import Batch, Recipe, TrainingState, check_choices
from MedXlateCore.training.losses import beta_likelihood, hinge_discriminator, hinge_generator, l1
from MedXlateCore.training.perceptual import PerceptualLoss

__all__ = ["PARTS", "STAGES", "AldmRecipe", "AldmRecipeConfig"]

STAGES = ("autoencoder", "spade", "diffusion")
PARTS = {"autoencoder": ("encoder", "regulariser", "decoder"), "spade": ("spade",), "diffusion": ("unet",)}
SLICES = 4  # a volume, that the perceptual term looks at


@dataclass(frozen=True)
class AldmRecipeConfig:
    """ALDM's training.

    Attributes:
        autoencoder_share, spade_share, diffusion_share: how the training's length is divided among the stages that the
            network has; only their ratios count.
        autoencoder_rate, spade_rate: learning rates of Adam (betas 0.5, 0.9), and of Muon.
        diffusion_rate: learning rate of AdamW (betas 0.9, 0.999), and of Muon.
        matrices: what trains the matrices of convolutions and linear layers: ``adam`` as the rest, or ``muon`` (ours).
            The discriminator stays with Adam.
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
        draws: of noise for each volume, in ``diffusion``.
        first_level_share: part of them at the level where sampling begins, the only one that a result of one step needs
            (ours); the others are at all levels alike.
        variance_beta: with ``learned_variance``, 0 to 1: errors are divided by the spread they are said to have, to the
            power of twice 1 minus this (beta-NLL, Seitzer et al., ICLR 2022): 1 for none, as without it.
        latent_memory: MiB of main memory, of each process, for latents of training volumes in the stages that no longer
            change them. They are then made once, of whole volumes, which a slab is cut from; what does not fit is made
            anew at each step. 0 makes latents at each step, of the slab only.
        slab: planes of a volume, at a random depth, that a step sees; 0 for whole volumes, as published (an earlier
            version of the authors' code crops along all axes).
        whole_after: part of each stage after which steps see whole volumes all the same: normalisations over a slab are
            not those over the volume.
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
    matrices: Literal["adam", "muon"] = "adam"
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
    draws: int = 1
    first_level_share: float = 0.0
    variance_beta: float = 0.5
    latent_memory: int = 0
    slab: int = 0
    whole_after: float = 1.0
    flip_depth: float = 0.1
    flip_height: float = 0.1
    flip_width: float = 0.1

    def __post_init__(self) -> None:
        check_choices(self)
        flips = ("flip_depth", "flip_height", "flip_width")
        unit = ("last_rate", "first_level_share", "variance_beta", "adversarial_after", "whole_after", *flips)
        rates = ("autoencoder_rate", "spade_rate", "diffusion_rate")
        weights = [name for name in self.__dataclass_fields__ if name.endswith("_weight")]
        ranges = dict.fromkeys((*unit, *rates), (0.0, 1.0)) | dict.fromkeys(weights, (0.0, 1e6))
        ranges |= dict.fromkeys((f"{stage}_share" for stage in STAGES), (0.001, 1000.0))
        counts = {"discriminator_width": (1.0, 512.0), "draws": (1.0, 64.0), "slab": (0.0, 4096.0)}
        check_constants(self, ranges | counts | {"latent_memory": (0.0, 1e6)})


class View(NamedTuple):
    """What a step sees of volumes [B, C, D, H, W]: planes from ``low`` on, mirrored along ``axes``."""

    low: int
    planes: int
    axes: tuple[int, ...]

    def of(self, volumes: Tensor) -> Tensor:
        """Return what the step sees of whole volumes."""
        return self.slab(self.mirrored(volumes))

    def mirrored(self, volumes: Tensor) -> Tensor:
        """Mirror whole volumes."""
        return volumes.flip(self.axes) if self.axes else volumes

    def slab(self, volumes: Tensor, factor: int = 1) -> Tensor:
        """Return the planes, of maps that are so many times smaller than the volumes."""
        return volumes.narrow(2, self.low // factor, self.planes // factor)


class AldmRecipe(Recipe):
    """Three stages in a row, each of which trains its part of the network while the others are fixed."""

    stages: ClassVar[tuple[str, ...]] = STAGES

    def __init__(self, config: AldmConfig, recipe_config: AldmRecipeConfig) -> None:
        self.config, self.recipe_config = config, recipe_config
        self._memory = LatentMemory(recipe_config.latent_memory)
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
        """Return ``generator`` (AdamW), and if they are asked for ``matrices`` (Muon) and ``discriminator`` (Adam).

        The first two have a group for each stage. A given learning rate holds for all stages.
        """
        weights, groups, matrices = self.recipe_config, [], []
        for stage in self._stages:
            own = getattr(weights, f"{stage}_rate") if learning_rate is None else learning_rate
            last = stage == "diffusion"
            betas, decay = ((0.9, 0.999), 0.01) if last else ((0.5, 0.9), 0.0)
            parameters = self._parameters(stage)
            if weights.matrices == "muon":
                wide, parameters = layer_matrices(self._parts(stage))
                matrices.append({"params": wide, "lr": own, "weight_decay": decay})
            groups.append({"params": parameters, "lr": own, "betas": betas, "weight_decay": decay})
        result: dict[str, torch.optim.Optimizer] = {"generator": torch.optim.AdamW(groups)}
        if matrices:
            result["matrices"] = Muon(matrices)
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
        """Do a step of the stage that ``state.progress`` is in.

        Raises:
            InputError: ``MX-MOD-007``, the volumes have a size that does not fit; told at once, also where it is the
                end of a stage that sees them whole.
        """
        if self._memory or self.recipe_config.whole_after < 1:
            check_images(batch.images, 1, self.config.multiple, dimensions=3)
        stage, within = self._place(state.progress)
        self._network.requires_grad_(False)
        for parameter in self._parameters(stage):
            parameter.requires_grad_(True)
        try:
            return figures(getattr(self, f"_{stage}_step")(batch, self._view(batch, state, within), state, within))
        finally:
            self._network.requires_grad_(True)

    def _parameters(self, stage: str) -> list[nn.Parameter]:
        return [parameter for part in self._parts(stage) for parameter in part.parameters()]

    def _parts(self, stage: str) -> list[nn.Module]:
        return [getattr(self._network, name) for name in PARTS[stage]]

    def _view(self, batch: Batch, state: TrainingState, within: float) -> View:
        """Draw which slab of the volumes this step sees, and how they are mirrored."""
        weights, depth, factor = self.recipe_config, batch.images.shape[2], self.config.factor
        drawn: dict[str, Any] = {"generator": state.generator, "device": state.generator.device}
        low, planes = 0, depth
        if 0 < weights.slab < depth and within < weights.whole_after:
            planes = weights.slab
            low = factor * int(torch.randint(0, (depth - planes) // factor + 1, (), **drawn))
        chances = (weights.flip_depth, weights.flip_height, weights.flip_width)
        values = torch.rand(3, **drawn).tolist()
        axes = [axis for axis, chance, value in zip((2, 3, 4), chances, values, strict=True) if value < chance]
        return View(low, planes, tuple(axes))

    @torch.no_grad()
    def _known(self, batch: Batch, view: View, guess: bool) -> dict[str, Tensor]:
        """Return latents of source and target, as far as they are seen; with ``guess`` target-like ones too.

        What is remembered was made of whole volumes, as in use; else it is made of the slab only. The bare network
        makes it: with several devices each makes what it lacks by itself, in full precision.
        """
        network, factor = self._network, self.config.factor
        images, target = (view.mirrored(x) if self._memory else view.of(x) for x in (batch.images, batch.target))

        def encoded(volumes: Tensor) -> Tensor:
            """Make latents."""
            return network.encoded(volumes).latents

        def like(latents: Tensor) -> Tensor:
            """Make target-like latents."""
            return cast(Tensor, network.like(latents, self.config.pairs[batch.direction][1]))

        source = self._made("latents", images, images, encoded)
        known = {"source": source, "wanted": self._made("latents", target, target, encoded)}
        if guess and self.config.use_spade:
            known["like"] = self._made(f"like {batch.direction}", images, source, like)
        return {name: view.slab(x, factor) for name, x in known.items()} if self._memory else known

    def _made(self, word: str, volumes: Tensor, given: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what ``make`` makes of ``given`` [B, ...], from memory for volumes [B, ...] that were seen before."""
        if not self._memory:
            return make(given)
        pairs = zip(volumes.split(1), given.split(1), strict=True)
        return torch.cat([self._memory.recall(word, volume, own, make) for volume, own in pairs])

    # --- stages ------------------------------------------------------------------------------------------------------

    def _autoencoder_step(self, batch: Batch, view: View, state: TrainingState, within: float) -> dict[str, Tensor]:
        """Reconstruct source or target, whichever the dice say."""
        weights, generator = self.recipe_config, state.generator
        drawn = {"generator": generator, "device": generator.device}
        first = bool(torch.rand((), **drawn) < 0.5)  # type: ignore[call-overload]
        images = view.of(batch.images if first else batch.target)
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
        self._descend(state, total)
        if judged:
            losses["discriminator"] = hinge_discriminator(judge(images), judge(seen["made"].detach()))
            descend(state, ["discriminator"], losses["discriminator"])
        if quantised:
            losses["perplexity"] = seen["perplexity"]
        return {"autoencoder": total, **losses}

    def _spade_step(self, batch: Batch, view: View, state: TrainingState, within: float) -> dict[str, Tensor]:
        weights, known = self.recipe_config, self._known(batch, view, guess=False)
        images, cycle = view.of(batch.images), weights.cycle_weight > 0
        seen = state.networks["generator"](
            known["source"], None, batch.direction, "spade", wanted=known["wanted"], cycled=images if cycle else None
        )
        losses = {"latents": l1(seen["like"], known["wanted"])}
        total = losses["latents"]
        if "cycle" in seen:
            losses["cycle"] = l1(seen["cycle"], images)
            total = total + weights.cycle_weight * losses["cycle"]
        self._descend(state, total)
        return {"spade": total, **losses}

    def _diffusion_step(self, batch: Batch, view: View, state: TrainingState, within: float) -> dict[str, Tensor]:
        known, weights = self._known(batch, view, guess=True), self.recipe_config
        source = known.pop("source")
        drawn: dict[str, Any] = {"generator": state.generator, "device": state.generator.device}
        shape = (len(source) * weights.draws, *source.shape[1:])
        levels = torch.randint(0, self.config.levels, shape[:1], **drawn)
        if weights.first_level_share > 0:
            levels[torch.rand(shape[0], **drawn) < weights.first_level_share] = self.config.first_level
        noise = torch.randn(shape, **drawn)
        seen = state.networks["generator"](
            source, None, batch.direction, "diffusion", levels=levels, noise=noise, **known
        )
        loss = nn.functional.mse_loss(seen["made"], seen["wanted"])
        if "log_spread" not in seen:
            self._descend(state, loss)
            return {"diffusion": loss}
        said = (seen["made"], seen["wanted"], seen["log_spread"])
        self._descend(state, beta_likelihood(*said, weights.variance_beta))
        return {"diffusion": loss, "likelihood": beta_likelihood(*said, 0.0)}

    @staticmethod
    def _descend(state: TrainingState, loss: Tensor) -> None:
        """Do a step of the network, whichever optimisers share it."""
        descend(state, [name for name in state.optimisers if name != "discriminator"], loss)

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
