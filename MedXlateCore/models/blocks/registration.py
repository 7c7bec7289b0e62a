"""Registration of two images by a displacement field, for recipes that allow their pairs to be misaligned.

Kong et al., "Breaking the Dilemma of Medical Image-to-image Translation" (RegGAN), NeurIPS 2021, section 3.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.errors import InputError
from MedXlateCore.models.blocks.init import init_normal
from MedXlateCore.models.blocks.resnet import ResidualBlock

__all__ = ["RegistrationUnet", "smoothness", "warp"]


def warp(image: Tensor, displacement: Tensor) -> Tensor:
    """Return ``image`` as seen through a displacement field: the value at p is the image's at p + displacement(p).

    Args:
        image: [B, C, H, W].
        displacement: [B, 2, H, W] in pixels, along rows (down) and along columns (right).

    Returns:
        [B, C, H, W], interpolated bilinearly; beyond the border lie the values of the border.
    """
    height, width = image.shape[-2:]
    down = torch.arange(height, device=image.device, dtype=image.dtype)[:, None] + displacement[:, 0]
    right = torch.arange(width, device=image.device, dtype=image.dtype) + displacement[:, 1]
    places = torch.stack((2 * right / max(width - 1, 1) - 1, 2 * down / max(height - 1, 1) - 1), dim=-1)
    return F.grid_sample(image, places, mode="bilinear", padding_mode="border", align_corners=True)


def smoothness(displacement: Tensor) -> Tensor:
    """Return how uneven a displacement field [B, 2, H, W] is: its mean squared difference down plus that to the right.

    Differences are those of neighbouring pixels, in pixels; 0 for any field that shifts the whole image.
    """
    return displacement.diff(dim=-2).square().mean() + displacement.diff(dim=-1).square().mean()


class RegistrationUnet(nn.Module):
    """Residual U-Net from two images [B, 1, H, W] to the field [B, 2, H, W] that brings the first onto the second.

    One residual block a level, on the way down and up. The last convolution starts at zero: at first nothing moves.
    Any height and width that are not below ``smallest``.

    Args:
        width: channels at full resolution, twice this below.
        levels: number of halvings.
    """

    def __init__(self, width: int = 32, levels: int = 4) -> None:
        super().__init__()
        self.smallest = 2 ** (levels + 1)
        widths = [width, *[2 * width] * levels]
        self.downs = nn.ModuleList(self._level(a, b) for a, b in zip([2, *widths[:-1]], widths, strict=True))
        self.ups = nn.ModuleList(self._level(a + b, a) for a, b in pairwise(widths))
        self.output = nn.Conv2d(width, 2, 3, padding=1)
        init_normal(self)
        nn.init.zeros_(self.output.weight)

    @staticmethod
    def _level(channels: int, out: int) -> nn.Sequential:
        conv = nn.Conv2d(channels, out, 3, padding=1)
        return nn.Sequential(conv, nn.LeakyReLU(0.2, True), ResidualBlock(out, "instance"))

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Return the displacement in pixels, see ``warp``.

        Raises:
            InputError: ``MX-MOD-007``, the images are too small.
        """
        if min(moving.shape[-2:]) < self.smallest:
            raise InputError(
                "MX-MOD-007",
                f"the image has {tuple(moving.shape[-2:])} pixels",
                expected=f"at least {self.smallest} x {self.smallest} for the registration",
                fix="train on larger crops, or with fewer registration_levels",
            )
        x, skips = self.downs[0](torch.cat((moving, fixed), dim=1)), []
        for down in self.downs[1:]:
            skips.append(x)
            x = down(F.max_pool2d(x, 2))
        for n in reversed(range(len(skips))):
            larger = F.interpolate(x, size=skips[n].shape[-2:], mode="bilinear", align_corners=False)
            x = self.ups[n](torch.cat((skips[n], larger), dim=1))
        return self.output(x)
