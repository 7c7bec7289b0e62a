"""TLP: a Transformer with localisation prompts (Li et al., "Interactive Gadolinium-Free MRI Synthesis", 2025).

A Restormer-style U-Net over axial slices with one encoder a source, each seeing its image and the region prompt.
Sources are fused at every resolution (local fusion) and, at the lowest, by cross attention (global fusion). Equations
are those of arXiv 2503.01265.

Presets. The paper describes ideas, the authors' code fixes every size. Where the paper is silent both presets follow
the code, because that network gave the published numbers: dense feed-forward layers (``ffn``), normalised residuals in
global fusion (``gf_residual``) and one more self-attention at the bottleneck (``bottleneck_attention``), also with one
source. The presets differ in the prompt: ``paper`` has one binary region, perturbed 5 times, for each image on its own;
``code`` has oedema (2 times) and core (5 times), with one draw a batch. ``tiny`` is the code's network at base width 8
(464,122 parameters) with a draw for each sample and a discriminator of width 16; it trains on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.models.blocks.attention import CrossAttention, SpatialAttention
from MedXlateCore.models.blocks.checks import check_constants, check_images
from MedXlateCore.models.blocks.fusion import ConcatFusion, LocalFusion
from MedXlateCore.models.blocks.init import channels_last, init_normal
from MedXlateCore.models.blocks.patchgan import PatchGan
from MedXlateCore.models.blocks.restormer import (
    DenseFeedForward,
    Downsample,
    FeedForward,
    GatedFeedForward,
    TransformerBlock,
    Upsample,
)
from MedXlateCore.models.method import Batch, Method, Recipe, TrainingState, check_choices
from MedXlateCore.models.registry import register_model
from MedXlateCore.prompts.roi import FuzzyPromptGenerator, encode_regions, sham_regions
from MedXlateCore.training.losses import l1, lsgan_discriminator, lsgan_generator, masked_l1

__all__ = ["Tlp", "TlpConfig", "TlpNetwork", "TlpRecipe", "TlpRecipeConfig"]

# by resolution, finest first; from the authors' code for two downsamplings, continued for one and three
BLOCKS = {1: (1, 2), 2: (1, 2, 2), 3: (1, 2, 2, 2)}
HEADS = {1: (2, 4), 2: (2, 4, 8), 3: (2, 4, 8, 8)}
REFINEMENT_BLOCKS = 2
FFN_EXPANSION = 2.0
NORM_GROUPS = 16
MAX_DIM = 256


@dataclass(frozen=True)
class TlpConfig:
    """TLP's architecture. The defaults are the authors' network: 16,354,882 parameters (with one source 10,523,624).

    Attributes:
        inputs: number of sources; with one there is no fusion.
        dim: channels at full resolution, doubled with each downsampling.
        levels: number of downsamplings.
        fusion: local fusion; ``lf`` sees both maps and their maximum through a 3x3 convolution, ``concat1x1`` (an
            ablation) both maps through a 1x1 convolution.
        gf: global fusion by cross attention at the lowest resolution.
        gf_residual: what global fusion adds its result to, see ``CrossAttention``.
        bottleneck_attention: spatial self-attention after the fusion; in the code, not in the paper.
        ffn: ``tlp_dense`` (as published) or ``gdfn`` (Restormer's own, 5.9 million parameters).
        prompt_encoding: ``two_region`` (oedema 0.5, core 1) or ``binary`` (any region 1).

    Raises:
        UsageError: ``MX-MOD-004`` (a value that is not among the choices), ``MX-MOD-005`` (a width beyond 256, or one
            that the heads or the norm's groups do not divide).
    """

    inputs: Literal[1, 2] = 2
    dim: int = 48
    levels: Literal[1, 2, 3] = 2
    fusion: Literal["lf", "concat1x1"] = "lf"
    gf: bool = True
    gf_residual: Literal["normalised", "raw"] = "normalised"
    bottleneck_attention: bool = True
    ffn: Literal["tlp_dense", "gdfn"] = "tlp_dense"
    prompt_encoding: Literal["two_region", "binary"] = "two_region"

    def __post_init__(self) -> None:
        check_choices(self)
        factor = 2**self.levels
        divides = self.dim % 2 == 0 and self.bottleneck_dim % NORM_GROUPS == 0
        if not 1 <= self.dim <= MAX_DIM or not divides:
            raise UsageError(
                "MX-MOD-005",
                f"TLP cannot have a base width of {self.dim} with {self.levels} downsamplings",
                expected=f"an even width of at most {MAX_DIM}, width x {factor} a multiple of {NORM_GROUPS}",
                where="dim",
                fix="choose 48 (as published), or 8, 16, 32, 64",
            )

    @property
    def bottleneck_dim(self) -> int:
        """Channels at the lowest resolution."""
        return self.dim * 2**self.levels


@dataclass(frozen=True)
class TlpRecipeConfig:
    """TLP's training. The defaults are the authors', but with prompts drawn for each sample.

    Attributes:
        learning_rate: of Adam (betas 0.5, 0.999), for both networks.
        adversarial_weight: weight of the least-squares GAN term; 0 builds no discriminator.
        l1_weight: weight of the mean absolute error.
        region_l1_weight: weight of a further mean absolute error inside the annotated regions. Ours; 0 in all presets.
        fpg_p, fpg_q, fpg_t_edema, fpg_t_core, fpg_per_sample: see ``FuzzyPromptGenerator``.
        sham_probability: part of the samples whose prompt gets one more region, painted in healthy tissue, while the
            target stays the truth: teaches that a prompt alone makes no lesion. Ours; 0 in all presets.
        discriminator_width: channels after the discriminator's first convolution.

    Raises:
        UsageError: ``MX-MOD-006``, a weight or probability outside its range; ``MX-ROI-033`` for the FPG's.
    """

    learning_rate: float = 1e-4
    adversarial_weight: float = 1.0
    l1_weight: float = 100.0
    region_l1_weight: float = 0.0
    fpg_p: float = 0.9
    fpg_q: float = 0.5
    fpg_t_edema: int = 2
    fpg_t_core: int = 5
    fpg_per_sample: bool = True
    sham_probability: float = 0.0
    discriminator_width: int = 64

    def __post_init__(self) -> None:
        self.prompt_generator()
        ranges = {"sham_probability": (0.0, 1.0), "discriminator_width": (1.0, 512.0), "learning_rate": (0.0, 1.0)}
        weights = ("adversarial_weight", "l1_weight", "region_l1_weight")
        check_constants(self, ranges | dict.fromkeys(weights, (0.0, 1e6)))

    def prompt_generator(self, encoding: str = "two_region") -> FuzzyPromptGenerator:
        """Return the recipe's prompt generator for a prompt encoding."""
        return FuzzyPromptGenerator(
            self.fpg_p, self.fpg_q, self.fpg_t_edema, self.fpg_t_core, self.fpg_per_sample, encoding
        )


def _blocks(config: TlpConfig, channels: int, heads: int, count: int) -> nn.Sequential:
    def feed_forward() -> FeedForward:
        """Return one, freshly initialised."""
        return DenseFeedForward(channels) if config.ffn == "tlp_dense" else GatedFeedForward(channels, FFN_EXPANSION)

    return nn.Sequential(*(TransformerBlock(channels, heads, feed_forward()) for _ in range(count)))


class Encoder(nn.Module):
    """One source with its prompt, [B, 2, H, W], to one map a resolution: [B, dim * 2^s, H / 2^s, W / 2^s]."""

    def __init__(self, config: TlpConfig) -> None:
        super().__init__()
        widths = [config.dim * 2**s for s in range(config.levels + 1)]
        sizes = zip(widths, HEADS[config.levels], BLOCKS[config.levels], strict=True)
        self.stem = nn.Conv2d(2, config.dim, 3, padding=1, bias=False)
        self.levels = nn.ModuleList(_blocks(config, *size) for size in sizes)
        self.downs = nn.ModuleList(Downsample(width) for width in widths[:-1])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Encode; finest resolution first."""
        x = self.levels[0](self.stem(x))
        features = [x]
        for down, level in zip(self.downs, self.levels[1:], strict=True):
            features.append(level(down(features[-1])))
        return features


class Decoder(nn.Module):
    """Feature maps, finest first, to one map [B, 2 * dim, H, W]. The finest skip is concatenated and stays so."""

    def __init__(self, config: TlpConfig) -> None:
        super().__init__()
        top = config.levels
        widths = [2 * config.dim, *(config.dim * 2**s for s in range(1, top + 1))]
        sizes = zip(widths, HEADS[top], BLOCKS[top], strict=True)
        self.levels = nn.ModuleList(_blocks(config, *size) for size in sizes)
        self.ups = nn.ModuleList(Upsample(config.dim * 2 ** (s + 1)) for s in range(top))
        halvings = (nn.Conv2d(2 * w, w, 1, bias=False) for w in widths[1:top])
        self.reduces = nn.ModuleList([nn.Identity(), *halvings])
        self.refinement = _blocks(config, widths[0], HEADS[top][0], REFINEMENT_BLOCKS)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Decode from the lowest resolution to the finest."""
        x = self.levels[-1](features[-1])
        for s in range(len(self.ups) - 1, -1, -1):
            joined = torch.cat((self.ups[s](x), features[s]), dim=1)
            x = self.levels[s](self.reduces[s](joined))
        return self.refinement(x)


class TlpNetwork(nn.Module):
    """TLP's generator; see ``TlpConfig``. ``forward`` is deterministic and never perturbs the prompt."""

    def __init__(self, config: TlpConfig) -> None:
        super().__init__()
        self.config = config
        self.encoders = nn.ModuleList(Encoder(config) for _ in range(config.inputs))
        if config.inputs == 2:
            fusion = LocalFusion if config.fusion == "lf" else ConcatFusion
            self.fusions = nn.ModuleList(fusion(config.dim * 2**s) for s in range(config.levels + 1))
            if config.gf:
                self.global_fusion = CrossAttention(config.bottleneck_dim, NORM_GROUPS, config.gf_residual)
        if config.bottleneck_attention:
            self.bottleneck_attention = SpatialAttention(config.bottleneck_dim, NORM_GROUPS)
        self.decoder = Decoder(config)
        self.output = nn.Conv2d(2 * config.dim, 1, 3, padding=1, bias=False)
        init_normal(self)
        channels_last(self)

    def forward(self, images: Tensor, roi: Tensor | None = None) -> Tensor:
        """Synthesise the target.

        Args:
            images: sources [B, S, H, W] in [-1, 1], in the order of the model card.
            roi: prompt [B, 1, H, W]: 0 background, 0.5 oedema, 1 core; None for no prompt.

        Returns:
            Target [B, 1, H, W] in [-1, 1].

        Raises:
            InputError: ``MX-MOD-007`` (height or width not a multiple of 2^levels), ``MX-MOD-008`` (wrong number of
                channels), ``MX-MOD-009`` (the prompt does not fit the images).
        """
        self._check(images, roi)
        images = images.contiguous(memory_format=torch.channels_last)
        if roi is None:
            roi = torch.zeros_like(images[:, :1])
        elif self.config.prompt_encoding == "binary":
            roi = (roi > 0).to(images.dtype)
        pyramids = [encoder(torch.cat((images[:, n : n + 1], roi), 1)) for n, encoder in enumerate(self.encoders)]
        features = self._fuse(pyramids)
        if self.config.bottleneck_attention:
            features[-1] = self.bottleneck_attention(features[-1])
        return torch.tanh(self.output(self.decoder(features)))

    def _fuse(self, pyramids: list[list[Tensor]]) -> list[Tensor]:
        if len(pyramids) == 1:
            return pyramids[0]
        first, second = pyramids
        if self.config.gf:
            first[-1], second[-1] = self.global_fusion(first[-1], second[-1])
        return [fusion(a, b) for fusion, a, b in zip(self.fusions, first, second, strict=True)]

    def _check(self, images: Tensor, roi: Tensor | None) -> None:
        check_images(images, self.config.inputs, 2**self.config.levels)
        if roi is not None and roi.shape != (images.shape[0], 1, *images.shape[2:]):
            raise InputError(
                "MX-MOD-009",
                f"the prompt has shape {tuple(roi.shape)}",
                expected=f"{(images.shape[0], 1, *images.shape[2:])}, as the images have",
                where="roi",
                fix="bring the region of interest to the grid of the images",
            )


class TlpRecipe(Recipe):
    """Least-squares GAN and mean absolute error (equation 6); the discriminator steps first, as in the authors' code.

    The discriminator's loss is the mean of its two terms. Equation 6 has their sum; under Adam that is the same.
    """

    def __init__(self, config: TlpConfig, recipe_config: TlpRecipeConfig) -> None:
        self.config = config
        self.recipe_config = recipe_config
        self.prompts = recipe_config.prompt_generator(config.prompt_encoding)
        self._networks: dict[str, nn.Module] = {"generator": TlpNetwork(config)}
        if recipe_config.adversarial_weight > 0:
            self._networks["discriminator"] = PatchGan(width=recipe_config.discriminator_width)

    def networks(self) -> dict[str, nn.Module]:
        """Return ``generator`` and, if there is an adversarial loss, ``discriminator``."""
        return self._networks

    def optimisers(self, learning_rate: float | None = None) -> dict[str, torch.optim.Optimizer]:
        """Return one Adam a network (betas 0.5, 0.999)."""
        rate = self.recipe_config.learning_rate if learning_rate is None else learning_rate
        return {
            name: torch.optim.Adam(network.parameters(), lr=rate, betas=(0.5, 0.999))
            for name, network in self._networks.items()
        }

    def learning_rate_factor(self, progress: float) -> float:
        """Constant for the first half of the training, then linear to zero."""
        return min(1.0, max(0.0, 2.0 * (1.0 - progress)))

    def step(self, batch: Batch, state: TrainingState) -> dict[str, float]:
        """Do one step of the discriminator, then one of the generator."""
        losses: dict[str, Tensor] = {}
        fake = state.networks["generator"](batch.images, self.prompt(batch, state.generator))
        if "discriminator" in state.networks:
            losses["discriminator"] = self._discriminator_step(batch.target, fake.detach(), state)
        losses |= self._generator_step(batch, fake, state)
        values = torch.stack([loss.detach().float() for loss in losses.values()]).tolist()  # one wait for the device
        return dict(zip(losses, values, strict=True))

    @torch.no_grad()
    def prompt(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Draw the training prompts [B, 1, H, W]: fuzzy true regions, and sham regions for some samples."""
        prompt = self.prompts(batch.regions, generator)
        probability = self.recipe_config.sham_probability
        if probability > 0:
            chosen = torch.rand((len(prompt), 1, 1, 1), generator=generator, device=prompt.device) < probability
            sham = sham_regions(batch.regions, batch.foreground, generator, fill_empty=True)
            encoded = encode_regions(sham[:, :1], sham[:, 1:], self.config.prompt_encoding)
            prompt = torch.maximum(prompt, encoded * chosen)
        return prompt

    def _discriminator_step(self, target: Tensor, fake: Tensor, state: TrainingState) -> Tensor:
        discriminator, optimiser = state.networks["discriminator"], state.optimisers["discriminator"]
        discriminator.requires_grad_(True)
        loss = lsgan_discriminator(discriminator(target), discriminator(fake))
        optimiser.zero_grad(set_to_none=True)
        state.backward(loss)
        optimiser.step()
        return loss

    def _generator_step(self, batch: Batch, fake: Tensor, state: TrainingState) -> dict[str, Tensor]:
        weights = self.recipe_config
        losses = {"l1": l1(fake, batch.target)}
        total = weights.l1_weight * losses["l1"]
        if weights.region_l1_weight > 0:
            annotated = batch.regions.amax(dim=1, keepdim=True)
            losses["region_l1"] = masked_l1(fake, batch.target, annotated)
            total = total + weights.region_l1_weight * losses["region_l1"]
        if "discriminator" in state.networks:
            discriminator = state.networks["discriminator"]
            discriminator.requires_grad_(False)  # the generator's step needs no gradients of the discriminator
            losses["adversarial"] = lsgan_generator(discriminator(fake))
            total = total + weights.adversarial_weight * losses["adversarial"]
        optimiser = state.optimisers["generator"]
        optimiser.zero_grad(set_to_none=True)
        state.backward(total)
        optimiser.step()
        return {"generator": total, **losses}


@register_model("tlp")
class Tlp(Method):
    """Transformer with localisation prompts, for one or two sources and one target."""

    config_type = TlpConfig
    recipe_type = TlpRecipeConfig
    presets = {
        "paper": TlpConfig(prompt_encoding="binary"),
        "code": TlpConfig(),
        "tiny": TlpConfig(dim=8),
    }
    recipe_presets = {
        "paper": TlpRecipeConfig(fpg_t_edema=5, fpg_t_core=5),
        "code": TlpRecipeConfig(fpg_per_sample=False),
        "tiny": TlpRecipeConfig(discriminator_width=16),
    }
    citation = (
        "Li L, Su C, Guo Y, Zhang H, Liang D, Shang K. Interactive Gadolinium-Free MRI Synthesis: A Transformer with "
        "Localization Prompt Learning. arXiv:2503.01265, 2025."
    )
    uses_regions = True

    def build(self, config: Any) -> nn.Module:
        """Return a freshly initialised network."""
        return TlpNetwork(config)

    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        """Return the recipe with fresh networks."""
        return TlpRecipe(config, recipe_config)

    def n_sources(self, config: Any) -> int:
        """Return 1 or 2."""
        return config.inputs

    def size_multiple(self, config: Any) -> int:
        """Return 2, 4 or 8."""
        return 2**config.levels
