"""Adversarial diffusion in a few steps: its noise, and a U-Net that predicts the image behind the noise.

Xiao et al., "Tackling the Generative Learning Trilemma with Denoising Diffusion GANs", ICLR 2022: large steps whose
reverse is learned by a GAN. The U-Net follows NCSN++ (Song et al., ICLR 2021) in its residual blocks and attention;
plain pooling and repetition stand in for its filters, and there is no second pyramid of images.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.attention import SpatialAttention
from MedXlateCore.models.blocks.init import channels_last

__all__ = ["DiffusiveUnet", "NoiseSchedule", "StepDiscriminator", "time_embedding"]


class NoiseSchedule:
    """Variance-preserving noise of ``steps`` large steps (Song et al., 2021, appendix C, at equal times).

    Level 0 is the image, level ``steps`` all but pure noise. Levels and steps are whole numbers: an int for all images
    or a tensor [B].

    Args:
        steps: T.
        low, high: rate of the noise at the beginning and at the end.
    """

    def __init__(self, steps: int = 4, low: float = 0.1, high: float = 20.0) -> None:
        times = [n / steps for n in range(steps + 1)]
        self.steps = steps
        self.kept = [math.exp(-0.5 * t * t * (high - low) - t * low) for t in times]  # of the image's variance
        self._rates = [1 - b / a for a, b in itertools.pairwise(self.kept)]

    def noised(self, image: Tensor, level: int | Tensor, noise: Tensor) -> Tensor:
        """Return images [B, C, H, W] at a level."""
        kept = self._at(self.kept, level, image)
        return kept.sqrt() * image + (1 - kept).sqrt() * noise

    def noisier(self, image: Tensor, step: int | Tensor, noise: Tensor) -> Tensor:
        """Return images of level ``step`` at the next level."""
        rate = self._at(self._rates, step, image)
        return (1 - rate).sqrt() * image + rate.sqrt() * noise

    def denoised(self, clean: Tensor, noisy: Tensor, step: int | Tensor, noise: Tensor) -> Tensor:
        """Draw images of level ``step`` from those one level above and what is behind them; without noise at step 0.

        Args:
            clean: level 0, as predicted.
            noisy: level ``step`` + 1.
            step: 0 to T - 1.
            noise: standard normal, of the images' shape or one for all.
        """
        rate, kept = self._at(self._rates, step, clean), self._at(self.kept, step, clean)
        left = 1 - kept * (1 - rate)  # noise at the level above
        mean = kept.sqrt() * rate / left * clean + (1 - rate).sqrt() * (1 - kept) / left * noisy
        return mean + (rate * (1 - kept) / left).sqrt() * noise

    @staticmethod
    def _at(table: Sequence[float], index: int | Tensor, like: Tensor) -> Tensor:
        if isinstance(index, int):
            return torch.full((1, 1, 1, 1), table[index], device=like.device)
        return torch.tensor(table, device=like.device)[index].view(-1, 1, 1, 1)


def time_embedding(steps: Tensor, size: int) -> Tensor:
    """Return sines and cosines [B, size] of steps [B] (Vaswani et al., NeurIPS 2017, section 3.5); size is even."""
    rates = torch.exp(torch.arange(size // 2, device=steps.device) * (-math.log(10_000) / max(1, size // 2 - 1)))
    angles = steps.float()[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def _groups(channels: int) -> int:
    return math.gcd(channels, min(32, max(1, channels // 4)))


class AdaptiveGroupNorm(nn.Module):
    """Group normalisation of [B, C, H, W], statistics in fp32, with gain and bias made from a style [B, D]."""

    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        self.groups, self.affine = _groups(channels), nn.Linear(style, 2 * channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Normalise; the gain starts near 1."""
        gain, bias = self.affine(style)[:, :, None, None].chunk(2, dim=1)
        return (1 + gain) * F.group_norm(x.float(), self.groups).to(x.dtype) + bias


class DiffusiveBlock(nn.Module):
    """Residual block that knows time and style: [B, C, H, W] to [B, out, H, W], halved or doubled.

    Args:
        channels: C.
        out: channels of the result.
        embedding: length of time's and of style's vectors.
        scale: 0.5, 1 or 2.
    """

    def __init__(self, channels: int, out: int, embedding: int, scale: float = 1) -> None:
        super().__init__()
        self.scale = scale
        self.norms = nn.ModuleList(AdaptiveGroupNorm(n, embedding) for n in (channels, out))
        self.convs = nn.ModuleList(nn.Conv2d(n, out, 3, padding=1) for n in (channels, out))
        self.time = nn.Linear(embedding, out)
        self.shortcut = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor, style: Tensor) -> Tensor:
        """Add both ways, keeping the variance."""
        h = self.convs[0](self._resized(F.silu(self.norms[0](x, style))))
        h = h + self.time(time)[:, :, None, None]
        h = self.convs[1](F.silu(self.norms[1](h, style)))
        return (self.shortcut(self._resized(x)) + h) / math.sqrt(2)

    def _resized(self, x: Tensor) -> Tensor:
        if self.scale < 1:
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2, mode="nearest") if self.scale > 1 else x


class DiffusiveUnet(nn.Module):
    """Noisy image and source [B, C, H, W] to the clean image [B, 1, H, W] in [-1, 1].

    Args:
        channels: C.
        width: channels at full resolution.
        factors: multiples of it, by resolution, finest first.
        blocks: residual blocks a resolution.
        attention: halvings after which pixels attend to each other; more than there are for no attention.
        latent: length of the random vector that makes the style.
    """

    def __init__(
        self, channels: int, width: int, factors: Sequence[int], blocks: int, attention: int, latent: int
    ) -> None:
        super().__init__()
        embedding = 4 * width
        widths = [width * n for n in factors]
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        hidden = [layer for _ in range(2) for layer in (nn.Linear(embedding, embedding), nn.SiLU())]
        self.style = nn.Sequential(nn.Linear(latent, embedding), nn.SiLU(), *hidden)
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.downs, self.ups, self.attentions = nn.ModuleList(), nn.ModuleList(), nn.ModuleDict()
        self._enlarging: set[int] = set()  # which of ``ups``, counted from 1, see no skip
        kept, now = [width], width
        for level, size in enumerate(widths):
            for scale in [1.0] * blocks + [0.5] * (level < len(widths) - 1):
                self.downs.append(DiffusiveBlock(now, size, embedding, scale))
                self._attend(f"down{len(self.downs)}", size, level == attention and scale == 1)
                kept.append(now := size)
        self.middle = nn.ModuleList(DiffusiveBlock(now, now, embedding) for _ in range(2))
        self.attentions["middle"] = SpatialAttention(now, _groups(now))
        for level, size in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.ups.append(DiffusiveBlock(now + kept.pop(), size, embedding))
                self._attend(f"up{len(self.ups)}", size, level == attention)
                now = size
            if level:
                self.ups.append(DiffusiveBlock(now, now, embedding, 2))
                self._enlarging.add(len(self.ups))
        self.norm = nn.GroupNorm(_groups(now), now)
        self.output = nn.Conv2d(now, 1, 3, padding=1)
        channels_last(self)

    def _attend(self, name: str, channels: int, wanted: bool) -> None:
        if wanted:
            self.attentions[name] = SpatialAttention(channels, _groups(channels))

    def forward(self, images: Tensor, steps: Tensor, latents: Tensor) -> Tensor:
        """Predict the clean image.

        Args:
            images: noisy image and source [B, C, H, W]; height and width multiples of 2 to the halvings.
            steps: which step of the diffusion, [B] or [1] for all.
            latents: random vectors [B or 1, latent], normalised here to a mean square of 1.
        """
        time = self.time(time_embedding(steps, self.width))
        style = self.style(latents / latents.square().mean(dim=1, keepdim=True).add(1e-8).sqrt())
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        kept = [x]
        for n, down in enumerate(self.downs, 1):
            kept.append(x := self._attended(f"down{n}", down(x, time, style)))
        x = self._attended("middle", self.middle[0](x, time, style))
        x = self.middle[1](x, time, style)
        for n, up in enumerate(self.ups, 1):
            joined = x if n in self._enlarging else torch.cat((x, kept.pop()), dim=1)
            x = self._attended(f"up{n}", up(joined, time, style))
        normed = F.group_norm(x.float(), self.norm.num_groups, self.norm.weight, self.norm.bias).to(x.dtype)
        return torch.tanh(self.output(F.silu(normed)))

    def _attended(self, name: str, x: Tensor) -> Tensor:
        return self.attentions[name](x) if name in self.attentions else x


class StepDiscriminator(nn.Module):
    """Judges whether an image could be one step before a noisier one: two [B, 1, H, W] to scores [B, 1].

    Args:
        width: channels at full resolution, doubled with each halving up to 8 times this.
        downs: halvings.
    """

    def __init__(self, width: int = 64, downs: int = 6) -> None:
        super().__init__()
        widths = [width * min(2**n, 8) for n in range(downs + 1)]
        pairs = list(itertools.pairwise(widths))
        self.width = width
        self.time = nn.Sequential(nn.Linear(2 * width, 4 * width), nn.LeakyReLU(0.2), nn.Linear(4 * width, 4 * width))
        self.stem = nn.Conv2d(2, width, 1)
        self.first, self.second = (
            nn.ModuleList(nn.Conv2d(a if first else b, b, 3, padding=1) for a, b in pairs) for first in (True, False)
        )
        self.times = nn.ModuleList(nn.Linear(4 * width, b) for _, b in pairs)
        self.shortcuts = nn.ModuleList(nn.Conv2d(a, b, 1, bias=False) for a, b in pairs)
        self.last, self.output = nn.Conv2d(widths[-1], widths[-1], 3, padding=1), nn.Linear(widths[-1], 1)

    def forward(self, images: Tensor, noisier: Tensor, steps: Tensor) -> Tensor:
        """Judge images of level ``steps`` [B] by what they look like one level above."""
        time = F.leaky_relu(self.time(time_embedding(steps, 2 * self.width)), 0.2)
        x = self.stem(torch.cat((images, noisier), dim=1))
        for first, second, shift, shortcut in zip(self.first, self.second, self.times, self.shortcuts, strict=True):
            h = first(F.leaky_relu(x, 0.2)) + shift(time)[:, :, None, None]
            h = second(F.leaky_relu(h, 0.2))
            # sizes that are no multiple of 2 are rounded up: the smallest map still has a pixel
            x = F.avg_pool2d((shortcut(x) + h) / math.sqrt(2), 2, ceil_mode=True)
        return self.output(F.leaky_relu(self.last(x), 0.2).mean(dim=(2, 3)))
