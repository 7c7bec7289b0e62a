"""ALDM's network: autoencoder, MS-SPADE and latent diffusion in one module. See ``aldm.py`` for the method."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from MedXlateCore.errors import InputError
from MedXlateCore.models.aldm_config import AldmConfig
from MedXlateCore.models.blocks.autoencoder import Decoder, Encoder
from MedXlateCore.models.blocks.checks import check_images
from MedXlateCore.models.blocks.denoising import GaussianSchedule, Sampler, denoise
from MedXlateCore.models.blocks.latent_unet import LatentUnet
from MedXlateCore.models.blocks.ms_spade import MsSpade
from MedXlateCore.models.blocks.nested_unet import SpadeUnet, TimedUnet
from MedXlateCore.models.blocks.precision import full_precision
from MedXlateCore.models.blocks.quantiser import GaussianRegulariser, Regularised, VectorQuantiser
from MedXlateCore.models.sampling import Sampling, VolumePrediction

__all__ = ["AldmNetwork", "AldmTowards"]

LOG_SPREAD = (-6.0, 3.0)  # of predictions, whose own spread is near 1
CERTAIN = 6.0  # below 0, the logarithm of the latents' variance at the start, for ``kl``
ON_LATENTS = ("spade", "diffusion")  # lessons whose input are latents
REMEMBERED = {"autoencoder": 50.0, "spade": 1000.0}  # volumes that the latents' statistics look back on, by stage


class Predicted(NamedTuple):
    """What the U-Net says, [B, C, ...] each: its prediction, and the logarithm of what that may be wrong by."""

    mean: Tensor
    log_spread: Tensor | None


class Conditions(NamedTuple):
    """What is known before a sample is drawn, [B, C, ...] each: latents of the source, and target-like ones."""

    source: Tensor
    like: Tensor | None


def _end(run: Generator[None, None, Any]) -> Any:
    """Return what a generator ends with."""
    while True:
        try:
            next(run)
        except StopIteration as end:
            return end.value


def _spade(config: AldmConfig, classes: int) -> nn.Module:
    """Return MS-SPADE, as published or in the shape of a U-Net."""
    width = (classes, config.latent_channels, config.spade_widths, config.spade_hidden)
    if config.spade_nested:
        return SpadeUnet(*width, config.planar)
    return MsSpade(*width, config.spade_stem, config.spade_residual, config.spade_size)


def _unet(config: AldmConfig, seen: int, classes: int) -> nn.Module:
    """Return the diffusion's U-Net, which sees so many channels."""
    out, doubt = config.latent_channels, config.learned_variance
    if config.unet_nested:
        return TimedUnet(seen, out, config.unet_widths, classes, config.planar, doubt)
    out = 2 * out if doubt else out
    shape = (config.unet_widths, config.unet_blocks, config.unet_attention, config.unet_head)
    return LatentUnet(seen, out, *shape, classes, config.conditioning, config.planar)


class AldmNetwork(nn.Module):
    """Everything that is needed to translate; see ``AldmConfig``."""

    can_tile = True
    latent_mean: Tensor
    latent_square: Tensor
    latent_count: Tensor
    residual_square: Tensor
    residual_count: Tensor

    def __init__(self, config: AldmConfig) -> None:
        super().__init__()
        self.config = config
        channels, classes = config.latent_channels, len(config.classes)
        sizes = (config.middle, config.patch, channels * config.shortcut, config.planar)
        encoded = channels * (2 if config.regulariser == "kl" else 1)
        self.encoder = Encoder(config.widths, encoded, config.encoder_blocks, *sizes)
        self.decoder = Decoder(config.widths, channels, config.decoder_blocks, *sizes)
        book = (config.codes, channels, config.beta, config.vq_legacy, config.codebook)
        self.regulariser = (
            VectorQuantiser(*book, revive=config.revive) if config.regulariser == "vq" else GaussianRegulariser()
        )
        if config.regulariser == "kl":
            bias = self.encoder.get_parameter(f"layers.{len(self.encoder) - 1}.conv.bias")
            with torch.no_grad():  # latents start all but certain: the decoder learns from them, not from noise
                bias[channels:] -= CERTAIN
        self.spade, self.unet = None, None
        if config.use_spade:
            self.spade = _spade(config, classes)
        if config.use_diffusion:
            seen = channels * (1 + self._shown * config.concat_condition)
            self.unet = _unet(config, seen, classes)
        self.register_buffer("latent_mean", torch.zeros(channels))
        self.register_buffer("latent_square", torch.ones(channels))
        self.register_buffer("latent_count", torch.ones(()))
        if config.residual:
            self.register_buffer("residual_square", torch.ones(channels))
            self.register_buffer("residual_count", torch.ones(()))
        for layer in self.modules():  # voxel by voxel in memory: convolutions are faster
            if isinstance(layer, nn.Conv3d):
                layer.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
            if isinstance(layer, nn.Conv2d):
                layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.schedule = GaussianSchedule(config.levels, config.noise_low, config.noise_high, config.prediction)

    @property
    def _shown(self) -> int:
        """How many latents condition the diffusion."""
        return 2 if self.config.use_spade and self.config.cond_inputs == "code" else 1

    # --- latents -----------------------------------------------------------------------------------------------------

    def measure(self, latents: Tensor, stage: str) -> None:
        """Update mean and standard deviation of the training data's latents [B, C, D, H, W] (running estimates)."""
        with torch.no_grad():
            flat = latents.float().movedim(1, 0).flatten(1)
            weight = 1 / self.latent_count.clamp(max=REMEMBERED[stage])
            self.latent_mean.lerp_(flat.mean(dim=1), weight)
            self.latent_square.lerp_(flat.square().mean(dim=1), weight)
            self.latent_count.add_(1)

    def _scale(self) -> tuple[Tensor, Tensor]:
        if self.config.latent_scale is not None:
            return torch.zeros((), device=self.latent_mean.device), torch.tensor(1 / self.config.latent_scale)
        spread = (self.latent_square - self.latent_mean.square()).clamp(min=1e-12).sqrt()
        return self.latent_mean.view(-1, 1, 1, 1), spread.view(-1, 1, 1, 1)

    def scaled(self, latents: Tensor) -> Tensor:
        """Return latents as the diffusion sees them."""
        mean, spread = self._scale()
        return (latents.float() - mean) / spread

    def unscaled(self, latents: Tensor) -> Tensor:
        """Undo ``scaled``."""
        mean, spread = self._scale()
        return latents * spread + mean

    def _residual_spread(self) -> Tensor:
        return self.residual_square.clamp(min=1e-12).sqrt().view(-1, 1, 1, 1)

    def measure_residual(self, residual: Tensor) -> None:
        """Update the mean square of what target-like latents [B, C, D, H, W] are wrong by, on the diffusion's scale."""
        with torch.no_grad():
            square = residual.movedim(1, 0).flatten(1).square().mean(dim=1)
            self.residual_square.lerp_(square, 1 / self.residual_count.clamp(max=REMEMBERED["spade"]))
            self.residual_count.add_(1)

    def encoded(self, images: Tensor, draws: Tensor | None = None) -> Regularised:
        """Return the latents of images [B, 1, D, H, W], with the regulariser's loss."""
        return self.regulariser(self.encoder(images), draws)

    def like(self, source: Tensor, target: int) -> Tensor | None:
        """Return target-like latents for latents of the source; None without MS-SPADE.

        In fp32: the normalisations of MS-SPADE would enlarge roundings.
        """
        if self.spade is None:
            return None
        with full_precision(source):
            if self.config.spade_scaled:
                return self.unscaled(self.spade(self.scaled(source), target))
            return self.spade(source.float(), target)

    def predicted(self, noisy: Tensor, levels: Tensor, conditions: Conditions, target: int) -> Predicted:
        """Return what the U-Net predicts at levels [B]; everything is on the diffusion's scale."""
        if self.unet is None:
            raise RuntimeError("this network has no diffusion")
        # the nested one passes its input on to its end, which would let noise through that carries no signal
        seen = [self.schedule.expected(noisy, levels) if self.config.unet_nested else noisy]
        if self.config.concat_condition:
            seen += [conditions.source] if self._shown == 2 or conditions.like is None else []
            seen += [] if conditions.like is None else [conditions.like]
        made = self.unet(torch.cat(seen, dim=1), levels, target).float()
        if not self.config.learned_variance:
            return Predicted(made, None)
        mean, log_spread = made.chunk(2, dim=1)
        return Predicted(mean, log_spread.clamp(*LOG_SPREAD))

    # --- use ---------------------------------------------------------------------------------------------------------

    def forward(
        self, images: Tensor, roi: Tensor | None = None, direction: int = 0, lesson: str = "", **given: Any
    ) -> Tensor | dict[str, Tensor]:
        """Synthesise the target with the model's own sampling and seed 0; or, for training, do a lesson of a stage.

        Args:
            images: the source [B, 1, D, H, W] in [-1, 1]; its latents for the lessons ``spade`` and ``diffusion``.
            roi: not looked at; this network takes no prompt.
            direction: position in the configuration's directions.
            lesson: ``autoencoder``, ``spade`` or ``diffusion``; empty for use.
            given: what a lesson needs, see there.

        Returns:
            Target [B, 1, D, H, W] in [-1, 1]; of a lesson, tensors by name.

        Raises:
            InputError: ``MX-MOD-007`` (a size does not fit), ``MX-MOD-008`` (wrong number of channels), ``MX-MOD-095``
                (no such direction), ``MX-MOD-092`` (values that are not finite).
        """
        if lesson not in ON_LATENTS:
            check_images(images, 1, self.config.multiple, dimensions=3)
        if lesson:
            return getattr(self, f"_lesson_{lesson}")(images, direction, **given)
        values, _ = _end(self._run(images, direction, Sampling()))
        return values

    def translate(
        self, images: Tensor, sampling: Sampling | None = None, tiled: bool = False, direction: int = 0
    ) -> Generator[tuple[int, int], None, VolumePrediction]:
        """Synthesise the target of one case in short steps (a layer, a step of denoising), and wait after each.

        Args:
            images: the source [1, 1, K, H, W] in [-1, 1].
            sampling: how it is drawn.
            tiled: encode and decode in slabs, for less memory, with the same result but for rounding.
            direction: position in the configuration's directions.

        Yields:
            Steps done and their total.

        Returns:
            The prediction. Raises as ``forward``.
        """
        sampling = sampling or Sampling()
        check_images(images, 1, self.config.multiple, dimensions=3)
        steps = self._steps(sampling) if self.unet is not None else 0
        samples = sampling.samples if self.unet is not None else 1
        total = len(self.encoder) + samples * (steps + len(self.decoder))
        run, done = self._run(images, direction, sampling, tiled), 0
        while True:
            try:
                next(run)
            except StopIteration as end:
                values, deviation = end.value
                return VolumePrediction(
                    values[0, 0], None if deviation is None else deviation[0, 0], self._facts(sampling)
                )
            done += 1
            yield done, total

    def rehearse(self, images: Tensor) -> None:
        """Do each kind of step once: what the estimate of memory follows."""
        _end(self._run(images, 0, Sampling(steps=1)))

    def reconstruct(self, images: Tensor, tiled: bool = False) -> Tensor:
        """Return images [B, 1, D, H, W] through the autoencoder and back: the ceiling of what the model can reach."""
        check_images(images, 1, self.config.factor, dimensions=3)
        tile = self._tile(tiled)
        latents = self.regulariser(_end(self.encoder.stepwise(images, tile))).latents
        return _end(self.decoder.stepwise(latents, tile)).float().clamp(-1, 1)

    def spade_only(self, images: Tensor, direction: int = 0) -> Tensor:
        """Return the target [B, 1, D, H, W] that MS-SPADE alone makes, without diffusion."""
        check_images(images, 1, self.config.factor, dimensions=3)
        latents = self.encoded(images).latents
        like = self.like(latents, self._target(direction))
        return self.decoder(latents if like is None else like).float().clamp(-1, 1)

    def _run(
        self, images: Tensor, direction: int, sampling: Sampling, tiled: bool = False
    ) -> Generator[None, None, tuple[Tensor, Tensor | None]]:
        target, tile = self._target(direction), self._tile(tiled)
        source = self.regulariser((yield from self.encoder.stepwise(images, tile))).latents
        like = self.like(source, target)
        if self.unet is None and like is not None:
            return self._finite((yield from self.decoder.stepwise(like, tile))), None
        known = Conditions(self.scaled(source), None if like is None else self.scaled(like))
        mean = squares = torch.zeros((), device=images.device)
        for n, seed in enumerate(self._seeds(sampling), 1):
            latents = yield from self._drawn(known, target, sampling, seed)
            made = self._finite((yield from self.decoder.stepwise(self.unscaled(latents), tile)))
            change = made - mean
            mean = mean + change / n
            squares = squares + change * (made - mean)
        spread = (squares / (sampling.samples - 1)).sqrt() if sampling.samples > 1 else None
        return mean, spread

    def _drawn(self, known: Conditions, target: int, sampling: Sampling, seed: int) -> Generator[None, None, Tensor]:
        """Draw latents on the diffusion's scale; the noise is one for all images of a batch."""
        config, generator = self.config, torch.Generator().manual_seed(seed)
        top = config.first_level
        path = self.schedule.path(self._steps(sampling), top)
        noisy = torch.randn(known.source.shape[1:], generator=generator).to(known.source.device)
        noisy = noisy.expand_as(known.source)
        if not config.concat_condition:
            begin = known.source if known.like is None else known.like
            noisy = self.schedule.noised(begin, torch.full((len(begin),), top), noisy)

        log_spread: Tensor | None = None  # of the last prediction

        def network(images: Tensor, level: int) -> Tensor:
            """Predict for a batch that is all at one level."""
            nonlocal log_spread
            levels = torch.full((len(images),), level, device=images.device)
            made, log_spread = self.predicted(images, levels, known, target)
            return made

        drawn = yield from denoise(self.schedule, network, noisy, path, *self._sampler(sampling), generator)
        if sampling.samples > 1 and log_spread is not None:
            noise = torch.randn(drawn.shape[1:], generator=generator).to(drawn.device)
            drawn = drawn + self.schedule.error(path[-2]) * log_spread.exp() * noise
        if config.residual and known.like is not None:
            return known.like + drawn * self._residual_spread()
        return drawn

    def _steps(self, sampling: Sampling) -> int:
        config = self.config
        own = config.steps if sampling.samples == 1 or config.sample_steps is None else config.sample_steps
        return min(own if sampling.steps is None else sampling.steps, config.first_level + 1)

    def _tile(self, tiled: bool) -> int:
        return self.config.tile if tiled and not torch.is_grad_enabled() else 0  # slabs are written in place

    @staticmethod
    def _seeds(sampling: Sampling) -> list[int]:
        return [sampling.seed + n for n in range(sampling.samples)]

    def _sampler(self, sampling: Sampling) -> tuple[Sampler, float]:
        """Return sampler and eta that are used."""
        sampler: Sampler = self.config.sampler if sampling.sampler == "default" else sampling.sampler
        return sampler, (self.config.eta if sampling.eta is None else sampling.eta) if sampler == "ddim" else 0.0

    def _facts(self, sampling: Sampling) -> dict[str, Any]:
        """Return what the run record says of a result."""
        if self.unet is None:
            return {"sampler": "none"}
        sampler, eta = self._sampler(sampling)
        facts: dict[str, Any] = {"sampler": sampler, "steps": self._steps(sampling), "samples": sampling.samples}
        facts |= {"eta": eta} if sampler == "ddim" else {}
        facts |= {"variance": "learned"} if self.config.learned_variance and sampling.samples > 1 else {}
        return facts | {"seeds": self._seeds(sampling)}

    def _target(self, direction: int) -> int:
        pairs = self.config.pairs
        if not 0 <= direction < len(pairs):
            raise InputError(
                "MX-MOD-095",
                f"direction {direction} is wanted of a network that has learned {len(pairs)}",
                expected=", ".join(self.config.directions),
                where="direction",
                fix="choose one of these directions, or another model",
            )
        return pairs[direction][1]

    @staticmethod
    def _finite(made: Tensor) -> Tensor:
        if made.device.type != "meta" and not torch.isfinite(made).all():
            raise InputError(
                "MX-MOD-092",
                "the network gave values that are not finite",
                expected="finite values",
                where="the decoded volume",
                fix="check the source for values that are not finite, or use another precision",
            )
        return made.float().clamp(-1, 1)

    # --- training ----------------------------------------------------------------------------------------------------

    def _lesson_autoencoder(self, images: Tensor, direction: int, draws: Tensor | None = None) -> dict[str, Tensor]:
        """Reconstruct; ``draws`` are uniform [codes] for ``vq``, normal of the latents' shape for ``kl``."""
        regularised = self.encoded(images, draws)
        self.measure(regularised.latents, "autoencoder")
        made = self.decoder(regularised.latents).float()
        return {"made": made, "regulariser": regularised.loss, "perplexity": regularised.perplexity}

    def _lesson_spade(self, source: Tensor, direction: int, wanted: Tensor, cycled: Tensor | None) -> dict[str, Tensor]:
        """Return target-like latents; with ``cycled``, images of the source, also these there and back again."""
        self.measure(torch.cat((source, wanted)), "spade")
        back, there = self.config.pairs[direction]
        like = self.like(source, there)
        if like is None:
            raise RuntimeError("this network has no MS-SPADE")
        result = {"like": like}
        if cycled is not None and back is not None:
            again = self.like(like, back)
            result["cycle"] = self.decoder(again).float() if again is not None else cycled
        return result

    def _lesson_diffusion(
        self,
        source: Tensor,
        direction: int,
        wanted: Tensor,
        levels: Tensor,
        noise: Tensor,
        like: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return prediction and what is wanted, for so many draws of ``levels`` and ``noise`` a volume as are given."""
        clean, like_ = self.scaled(wanted), None if like is None else self.scaled(like)
        if self.config.residual and like_ is not None:
            self.measure_residual(clean - like_)
            clean = (clean - like_) / self._residual_spread()
        times = (len(levels) // len(source), 1, 1, 1, 1)
        source, clean = self.scaled(source).repeat(times), clean.repeat(times)
        like_ = None if like_ is None else like_.repeat(times)
        noisy = self.schedule.noised(clean, levels, noise)
        made, log_spread = self.predicted(noisy, levels, Conditions(source, like_), self._target(direction))
        result = {"made": made, "wanted": self.schedule.wanted(clean, levels, noise)}
        return result if log_spread is None else {**result, "log_spread": log_spread}


class AldmTowards(nn.Module):
    """The network for one of its directions, sharing all weights."""

    def __init__(self, network: AldmNetwork, direction: int) -> None:
        super().__init__()
        self.network, self.direction = network, direction

    def forward(self, images: Tensor, roi: Tensor | None = None) -> Tensor:
        """Synthesise; see ``AldmNetwork.forward``."""
        return self.network(images, roi, self.direction)

    def translate(
        self, images: Tensor, sampling: Sampling | None = None, tiled: bool = False
    ) -> Generator[tuple[int, int], None, VolumePrediction]:
        """Synthesise step by step; see ``AldmNetwork.translate``."""
        return self.network.translate(images, sampling, tiled, self.direction)

    def rehearse(self, images: Tensor) -> None:
        """See ``AldmNetwork.rehearse``."""
        self.network.rehearse(images)

    def reconstruct(self, images: Tensor, tiled: bool = False) -> Tensor:
        """See ``AldmNetwork.reconstruct``."""
        return self.network.reconstruct(images, tiled)

    def spade_only(self, images: Tensor) -> Tensor:
        """See ``AldmNetwork.spade_only``."""
        return self.network.spade_only(images, self.direction)
