"""Losses of EVA-I2I that no other method has: contrast between pixels, and small changes of its inputs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["augmented", "pixel_contrast", "shrunk"]


def shrunk(mask: Tensor, factor: int) -> Tensor:
    """Return a mask [B, 1, H, W] of 0 and 1 at a fraction of its size: 1 where every pixel is 1."""
    return -F.max_pool2d(-mask, factor)


def pixel_contrast(
    first: Tensor, second: Tensor, mask: Tensor, positions: int, temperature: float, generator: torch.Generator
) -> Tensor:
    """Return SimCLR's loss between the pixels of two codes: a place is to be like the same place, unlike others.

    Chen et al., ICML 2020, section 2.1, for each pair of images over random places inside the mask; mean over the
    places of all images; 0 where no mask has two places.

    Args:
        first: codes [B, C, h, w].
        second: codes of the same places.
        mask: [B, 1, h, w], 0 or 1.
        positions: at most so many places an image.
        temperature: the cosines are divided by it.
        generator: on the codes' device; as many draws as places, whatever the mask.
    """
    inside = mask.flatten(1) > 0
    draws = torch.rand(inside.shape, generator=generator, device=mask.device) + inside
    count = min(positions, inside.shape[1])
    chosen = draws.topk(count, dim=1).indices  # places inside come first, in random order
    usable = inside.gather(1, chosen)
    codes = [F.normalize(_at(code, chosen).float(), dim=2) for code in (first, second)]
    pooled = torch.cat(codes, dim=1)  # [B, 2 n, C]
    scores = pooled @ pooled.transpose(1, 2) / temperature
    hidden = torch.eye(2 * count, dtype=torch.bool, device=mask.device) | ~usable.repeat(1, 2)[:, None]
    scores = scores.masked_fill(hidden, -torch.inf)
    place = torch.arange(2 * count, device=mask.device)
    same = (place + count) % (2 * count)
    counted = usable.repeat(1, 2) & (usable.sum(dim=1, keepdim=True) > 1)
    # rows that do not count are made harmless before the softmax, whose gradient would not be finite
    logs = scores.masked_fill(~counted[..., None], 0.0).log_softmax(dim=2)
    own = logs[:, place, same]
    return -(own * counted).sum() / counted.sum().clamp(min=1)


def _at(code: Tensor, places: Tensor) -> Tensor:
    """Return the pixels [B, n, C] of a code [B, C, h, w] at places [B, n] in raster order."""
    return code.flatten(2).transpose(1, 2).gather(1, places[..., None].expand(-1, -1, code.shape[1]))


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return images [B, 1, H, W] in [-1, 1] with small changes of brightness, contrast and gamma, and noise.

    Half of the images stay as they are; of the others each change happens to half. The factors (and the exponent) are
    1 + (U(0, 1) + 0.5) / 50; the noise has a deviation of 0.05, on [0, 1].
    """
    draws = torch.rand((8, len(images), 1, 1, 1), generator=generator, device=images.device)
    noise = 0.05 * torch.randn(images.shape, generator=generator, device=images.device)
    chosen, factors = (draws[1:5] < 0.5) & (draws[:1] < 0.5), 1 + (draws[5:] + 0.5) / 50
    x = (images + 1) / 2
    x = torch.where(chosen[0], x * factors[0], x)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = torch.where(chosen[1], mean + (x - mean) * factors[1], x)
    x = torch.where(chosen[2], x.clamp(min=0) ** factors[2], x)
    return 2 * torch.where(chosen[3], x + noise, x) - 1
