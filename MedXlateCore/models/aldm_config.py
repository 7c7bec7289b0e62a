"""ALDM's architecture, its ablation switches and its sampling as a configuration. See ``aldm.py`` for the method."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from MedXlateCore.directions import parse_direction
from MedXlateCore.models.blocks.autoencoder import Middle
from MedXlateCore.models.blocks.checks import check_architecture
from MedXlateCore.models.blocks.denoising import Prediction, Sampler
from MedXlateCore.models.blocks.latent_unet import Conditioning
from MedXlateCore.models.method import check_choices

__all__ = ["AldmConfig"]

MAX_DIRECTIONS, MAX_WIDTH, MAX_LEVELS, MAX_BLOCKS, MAX_PATCH, MAX_CODES = 256, 2048, 6, 8, 8, 1 << 16


@dataclass(frozen=True)
class AldmConfig:
    """Architecture, ablation switches and default sampling. The defaults are the preset ``code``.

    Attributes:
        widths: channels of the autoencoder by resolution, finest first; one halving between each two.
        encoder_blocks, decoder_blocks: residual blocks a resolution.
        middle: at the coarsest resolution: ``attention`` between two residual blocks, one ``block``, or ``none``.
        patch: side of the patches of voxels that become channels before the encoder; 1 for none.
        shortcut: let latents start from means over voxels (the voxels themselves where there are as many channels), and
            images from latents; else all is learned.
        latent_channels: channels of the latents.
        regulariser: ``vq`` (codebook) or ``kl``.
        codes: entries of the codebook.
        codebook: learned by ``gradient``, or by a moving ``average`` of the latents that take a code.
        beta: weight of the commitment.
        vq_legacy: weigh the other term with it, as the authors' code does by mistake.
        revive: put codes that are taken less often a batch where latents are; 0 for never.
        use_spade: make target-like latents by MS-SPADE.
        planar: convolve within slices, with some channels from the slices beside (``PlanarConv``, ours), everywhere
            but where MS-SPADE is as published.
        spade_nested: MS-SPADE as ``SpadeUnet`` (ours), which has neither stem nor unswitched blocks.
        spade_widths: channels after its switched blocks; nested: by resolution, finest first.
        spade_hidden: channels between features and gains.
        spade_stem: channels after its first 7x7x7 convolution; 0 for neither first nor last convolution.
        spade_residual: channels after its unswitched residual blocks.
        spade_size: side of its first and last convolution.
        spade_scaled: show it latents as the diffusion sees them (ours).
        use_diffusion: refine by diffusion; else the target-like latents are decoded.
        concat_condition: show the diffusion its conditions beside the noisy latents; else it starts from them.
        cond_inputs: ``code``: source and target-like latents; ``paper``: target-like ones only.
        residual: diffuse what the target's latents differ by from the target-like ones, not the latents themselves
            (ours): a short training then begins where MS-SPADE ends, instead of from nothing.
        conditioning: how the target class is told: ``class_embed`` or ``crossattn``.
        unet_nested: the diffusion's U-Net as ``TimedUnet`` (ours), without attention and choice of blocks. It is shown
            alpha times the noisy latents (``GaussianSchedule.expected``).
        unet_widths, unet_blocks: of the diffusion's U-Net.
        unet_attention: halvings of latents after which places attend to each other.
        unet_head: channels of an attention head.
        latent_scale: what latents are multiplied by for the diffusion; None: centred and divided by the training
            data's standard deviation, a channel each.
        levels, noise_low, noise_high: of the noise, see ``GaussianSchedule``.
        prediction: ``epsilon``, ``v`` or ``x0``.
        learned_variance: let the U-Net say, latent by latent, how wrong its prediction may be. Where several samples
            are drawn, the last step of denoising then draws each latent from that normal distribution, instead of
            taking its mean (ours, after Bao et al., "Estimating the Optimal Covariance with Imperfect Mean in
            Diffusion Probabilistic Models", ICML 2022). With ``unet_nested`` layers of its own say it.
        start: without ``concat_condition``, part of the levels that the start is noised by (our reading).
        sampler: ``ddim``, ``ddpm`` or ``dpm_solver``.
        steps: of denoising, for one sample.
        sample_steps: of denoising where several samples are drawn; None for as many as for one.
        eta: noise that ``ddim`` draws afresh, 0 to 1.
        tile: planes of the slabs in which it encodes and decodes when memory is to be saved.
        directions: those it learns, each from one source; filled in by a training.

    Raises:
        UsageError: ``MX-MOD-004`` (not among the choices), ``MX-MOD-005`` (no network), ``MX-USE-050`` and
            ``MX-USE-010`` (not a direction).
    """

    widths: tuple[int, ...] = (64, 64, 128)
    encoder_blocks: int = 1
    decoder_blocks: int = 2
    middle: Middle = "block"
    patch: int = 1
    shortcut: bool = False
    latent_channels: int = 4
    regulariser: Literal["vq", "kl"] = "vq"
    codes: int = 8192
    codebook: Literal["gradient", "average"] = "gradient"
    beta: float = 0.25
    vq_legacy: bool = False
    revive: float = 0.01
    planar: bool = False
    use_spade: bool = True
    spade_nested: bool = False
    spade_widths: tuple[int, ...] = (128, 256, 128, 4)
    spade_hidden: int = 64
    spade_stem: int = 0
    spade_residual: tuple[int, ...] = ()
    spade_size: int = 7
    spade_scaled: bool = False
    use_diffusion: bool = True
    concat_condition: bool = True
    cond_inputs: Literal["code", "paper"] = "code"
    residual: bool = False
    conditioning: Conditioning = "class_embed"
    unet_nested: bool = False
    unet_widths: tuple[int, ...] = (128, 128, 256)
    unet_blocks: int = 1
    unet_attention: tuple[int, ...] = (1, 2)
    unet_head: int = 32
    latent_scale: float | None = None
    levels: int = 1000
    noise_low: float = 0.0015
    noise_high: float = 0.0195
    prediction: Prediction = "epsilon"
    learned_variance: bool = False
    start: float = 0.5
    sampler: Sampler = "ddim"
    steps: int = 50
    sample_steps: int | None = None
    eta: float = 0.0
    tile: int = 16
    directions: tuple[str, ...] = ("T1->T2",)

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("widths", "spade_widths", "unet_widths", "spade_residual"):
            few, value = (0 if name == "spade_residual" else 1), getattr(self, name)
            fair = few <= len(value) <= MAX_LEVELS and all(1 <= n <= MAX_WIDTH for n in value)
            check_architecture(fair, name, value, f"{few} to {MAX_LEVELS} numbers from 1 to {MAX_WIDTH}")
        ranges = dict.fromkeys(("encoder_blocks", "decoder_blocks", "unet_blocks"), MAX_BLOCKS)
        ranges |= {"patch": MAX_PATCH, "latent_channels": 64, "codes": MAX_CODES, "spade_hidden": 512, "unet_head": 512}
        for name, most in (ranges | {"levels": 10_000, "steps": self.levels, "tile": 4096}).items():
            check_architecture(1 <= getattr(self, name) <= most, name, getattr(self, name), f"1 to {most}")
        for name, high in {"beta": 1e3, "eta": 1.0, "start": 1.0, "revive": 1e3}.items():
            check_architecture(0 <= getattr(self, name) <= high, name, getattr(self, name), f"0 to {high:g}")
        noisy = 0 < self.noise_low <= self.noise_high < 1
        check_architecture(noisy, "noise_low, noise_high", (self.noise_low, self.noise_high), "0 < low <= high < 1")
        several = self.sample_steps is None or 1 <= self.sample_steps <= self.levels
        check_architecture(several, "sample_steps", self.sample_steps, f"none, or 1 to {self.levels}")
        even = self.unet_widths[0] % 2 == 0
        check_architecture(even, "unet_widths", self.unet_widths, "an even number first, for the embedding of time")
        scaled = self.latent_scale is None or 0 < self.latent_scale < 1e9
        check_architecture(scaled, "latent_scale", self.latent_scale, "a positive number, or none for measured")
        some = self.use_spade or self.use_diffusion
        check_architecture(some, "use_spade, use_diffusion", (False, False), "one of them at least")
        full = not self.residual or (self.use_spade and self.use_diffusion and self.concat_condition)
        check_architecture(full, "residual", True, "with use_spade, use_diffusion and concat_condition only")
        shaped = not self.use_spade or self.spade_nested or self.spade_stem > 0
        closed = shaped or self.spade_widths[-1] == self.latent_channels
        check_architecture(closed, "spade_widths", self.spade_widths, f"{self.latent_channels} last, or a spade_stem")
        odd = self.spade_size in (1, 3, 5, 7)
        check_architecture(odd, "spade_size", self.spade_size, "1, 3, 5 or 7")
        fits = not self.shortcut or self.factor**3 % self.latent_channels == 0
        check_architecture(fits, "shortcut", True, "latent_channels that divide the number of voxels of a latent")
        told = not self.unet_nested or self.conditioning == "class_embed"
        check_architecture(told, "conditioning", self.conditioning, "class_embed with unet_nested")
        few = 1 <= len(self.directions) <= MAX_DIRECTIONS and all(len(s) == 1 for s, _ in self._read_directions())
        check_architecture(few, "directions", list(self.directions), f"1 to {MAX_DIRECTIONS}, each from one source")

    def _read_directions(self) -> list[tuple[tuple[str, ...], str]]:
        known = [parse_direction(text, "directions") for text in self.directions]
        return [(direction.sources, direction.target) for direction in known]

    @property
    def classes(self) -> tuple[str, ...]:
        """The targets, in order of appearance."""
        return tuple(dict.fromkeys(target for _, target in self._read_directions()))

    @property
    def pairs(self) -> tuple[tuple[int | None, int], ...]:
        """Of each direction the class of the source, None if it is no target, and the class of the target."""
        names = {name: n for n, name in enumerate(self.classes)}
        return tuple((names.get(sources[0]), names[target]) for sources, target in self._read_directions())

    @property
    def first_level(self) -> int:
        """Level of the noise that sampling begins with."""
        return self.levels - 1 if self.concat_condition else max(0, round(self.start * self.levels) - 1)

    @property
    def factor(self) -> int:
        """How many times smaller than images latents are, along each axis."""
        return self.patch * 2 ** (len(self.widths) - 1)

    @property
    def multiple(self) -> int:
        """Number that depth, height and width must be a multiple of."""
        unet = 2 ** (len(self.unet_widths) - 1) if self.use_diffusion else 1
        spade = 2 ** (len(self.spade_widths) - 1) if self.use_spade and self.spade_nested else 1
        return self.factor * math.lcm(unet, spade)
