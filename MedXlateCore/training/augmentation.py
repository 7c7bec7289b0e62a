"""Random changes of training slices: flips, rotations, crops resized to the slice, and mixing of slices.

Sources, target, regions and foreground of a slice are changed alike, by one resampling. Everything drawn comes from the
step's own generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from MedXlateCore.errors import UsageError
from MedXlateCore.models.method import Batch

__all__ = ["Augmentation"]


@dataclass(frozen=True)
class Augmentation:
    """What is done to slices, and how often. The defaults are MedPrompt's sister projects' (the paper gives none).

    Attributes:
        flip: probability of a left-right flip.
        rotate90: of a rotation by 90, 180 or 270 degrees.
        transpose: of exchanging rows and columns.
        rotate: of a rotation by any angle of at most ``largest_angle``.
        largest_angle: degrees.
        crop: of a random crop, resized to the slice.
        smallest_crop: its smallest side, as a part of the slice's.
        mix: of mixing the batch's slices with each other (mixup); all are of one direction.
        mix_alpha: the share is drawn from Beta(alpha, alpha), one for source and target.

    Raises:
        UsageError: ``MX-MOD-006``, a value outside its range.
    """

    flip: float = 0.3
    rotate90: float = 0.3
    transpose: float = 0.3
    rotate: float = 0.3
    largest_angle: float = 180.0
    crop: float = 0.3
    smallest_crop: float = 0.7
    mix: float = 1 / 3
    mix_alpha: float = 0.2

    def __post_init__(self) -> None:
        ranges = dict.fromkeys(("flip", "rotate90", "transpose", "rotate", "crop", "mix"), (0.0, 1.0))
        ranges |= {"largest_angle": (0.0, 180.0), "smallest_crop": (0.1, 1.0), "mix_alpha": (1e-3, 100.0)}
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise UsageError(
                    "MX-MOD-006",
                    f"the augmentation has {name} = {getattr(self, name)}",
                    expected=f"a value from {low:g} to {high:g}",
                    where=f"augmentation.{name}",
                    fix="correct the [recipe] table",
                )

    @torch.no_grad()
    def apply(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with its slices changed.

        Args:
            batch: slices of one direction.
            generator: on the batch's device; a fixed number of draws is taken, whatever comes out.
        """
        n, height, width = len(batch.images), *batch.images.shape[2:]
        device = batch.images.device
        draws = torch.rand((n, 10), generator=generator, device=device)
        share = self._share(torch.rand((2, 64), generator=generator, device=device))
        mixed = torch.rand((), generator=generator, device=device) < self.mix
        affine = self._affine(draws, height, width)
        changed = _resampled(batch, affine) if affine is not None else batch
        return _mixed(changed, share) if n > 1 and bool(mixed) else changed

    def _affine(self, draws: Tensor, height: int, width: int) -> Tensor | None:
        """Return matrices [B, 2, 3] from places in the result to places in the slice; None where nothing changes.

        They are in pixels about the middle, so that a rotation keeps shapes, whatever the slice's sides.
        """
        chance = dict(zip(("flip", "rotate90", "transpose", "rotate", "crop"), draws[:, :5].unbind(1), strict=True))
        done = {name: drawn < getattr(self, name) for name, drawn in chance.items()}
        if not bool(torch.stack(list(done.values())).any()):
            return None
        quarter = (1 + (draws[:, 5] * 3).floor().clamp(max=2)) * done["rotate90"]
        angle = math.radians(self.largest_angle) * (2 * draws[:, 6] - 1) * done["rotate"] + quarter * math.pi / 2
        scale = torch.where(done["crop"], self.smallest_crop + (1 - self.smallest_crop) * draws[:, 7], 1.0)
        cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
        matrix = torch.stack((torch.stack((cosine, -sine), 1), torch.stack((sine, cosine), 1)), 1)
        mirror = torch.where(done["flip"], -1.0, 1.0)
        matrix = matrix * torch.stack((mirror, torch.ones_like(mirror)), 1)[:, None]
        matrix = torch.where(done["transpose"][:, None, None], matrix.flip(2), matrix)
        room = torch.tensor([width, height], device=draws.device) * (1 - scale)[:, None] / 2
        shift = room * (2 * draws[:, 8:10] - 1)
        return torch.cat((matrix, shift[:, :, None]), 2)

    def _share(self, draws: Tensor) -> Tensor:
        """Return a share in [0.5, 1] of Beta(alpha, alpha), by Jöhnk's method from uniform draws [2, n]."""
        powers = draws.double().clamp_min(1e-300) ** (1 / self.mix_alpha)
        accepted = (powers.sum(0) <= 1) & (powers.sum(0) > 0)
        first = int(accepted.float().argmax())
        share = (
            powers[0, first] / powers[:, first].sum() if bool(accepted.any()) else torch.ones((), device=draws.device)
        )
        return torch.maximum(share, 1 - share).float()


def _resampled(batch: Batch, affine: Tensor) -> Batch:
    height, width = batch.images.shape[2:]
    size = torch.tensor([width, height], device=affine.device, dtype=affine.dtype)
    # affine_grid counts from -1 to 1 along either side
    matrix = affine[:, :, :2] * size[None, None, :] / size[None, :, None]
    theta = torch.cat((matrix, affine[:, :, 2:] * 2 / size[None, :, None]), 2)
    grid = F.affine_grid(theta, [len(affine), 1, height, width], align_corners=False)

    def images(x: Tensor) -> Tensor:
        """Resample images; what lies outside is background, -1."""
        return F.grid_sample(x + 1, grid, mode="bilinear", padding_mode="zeros", align_corners=False) - 1

    def masks(x: Tensor) -> Tensor:
        """Resample masks, which stay 0 or 1."""
        return F.grid_sample(x, grid, mode="nearest", padding_mode="zeros", align_corners=False)

    return Batch(
        images(batch.images), images(batch.target), masks(batch.regions), masks(batch.foreground), batch.direction
    )


def _mixed(batch: Batch, share: Tensor) -> Batch:
    """Mix each slice with the next of the batch; masks, which cannot be mixed, become their union."""

    def mix(x: Tensor) -> Tensor:
        """Mix images."""
        return share * x + (1 - share) * x.roll(1, 0)

    def union(x: Tensor) -> Tensor:
        """Join masks."""
        return torch.maximum(x, x.roll(1, 0))

    return Batch(mix(batch.images), mix(batch.target), union(batch.regions), union(batch.foreground), batch.direction)
