"""Discriminators that judge overlapping patches: PatchGAN (Isola et al., CVPR 2017, section 3.2.2) and Hi-Net's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from MedXlateCore.errors import InputError
from MedXlateCore.models.blocks.init import init_normal
from MedXlateCore.models.blocks.norms import EPS, Norm, norm_layer

__all__ = ["PatchGan", "StridedGan"]


class PatchGan(nn.Module):
    """4x4 convolutions, ``strided`` of them with stride 2 and two with stride 1; LeakyReLU 0.2; no sigmoid at the end.

    With the defaults it has 2,763,585 parameters and answers [B, 1, H/8 - 2, W/8 - 2].

    Args:
        channels: channels of the judged image.
        condition_channels: channels of the condition that is concatenated to it; 0 for an unconditional discriminator.
        width: channels after the first convolution, doubled up to 8 times this.
        norm: normalisation, on all but the first and the last convolution.
        strided: number of convolutions of stride 2; 3 gives the receptive field of 70 pixels.
        dimensions: 2 for images, 3 for volumes [B, C, D, H, W].
    """

    def __init__(
        self,
        channels: int = 1,
        condition_channels: int = 0,
        width: int = 64,
        norm: Norm = "batch",
        strided: int = 3,
        dimensions: int = 2,
    ) -> None:
        super().__init__()
        conv = nn.Conv2d if dimensions == 2 else nn.Conv3d
        self.smallest = 3 * 2**strided  # below this the two convolutions of stride 1 leave nothing
        widths = [width * min(2**n, 8) for n in range(strided + 1)]
        layers: list[nn.Module] = [conv(channels + condition_channels, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        for n in range(strided):
            stride = 2 if n < strided - 1 else 1
            layers.append(conv(widths[n], widths[n + 1], 4, stride, 1, bias=norm != "batch"))
            layers += [norm_layer(norm, widths[n + 1], affine=False, dimensions=dimensions), nn.LeakyReLU(0.2, True)]
        layers.append(conv(widths[-1], 1, 4, 1, 1))
        self.layers = nn.Sequential(*layers)
        init_normal(self)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Tensor:
        """Judge [B, C, H, W] (with its condition [B, D, H, W]); returns one score a patch.

        Raises:
            InputError: ``MX-MOD-007``, the image is smaller than the discriminator can judge.
        """
        _check_size(image, self.smallest)
        return self.layers(image if condition is None else torch.cat((image, condition), dim=1))


class StridedGan(nn.Module):
    """Hi-Net's discriminator: four 3x3 convolutions of stride 2, LeakyReLU 0.2, and one of stride 1; unconditional.

    Zhou et al., IEEE TMI 2020. Batch normalisation, a score for every 16 x 16 pixels: [B, 1, H/16, W/16]. With the
    defaults it has 390,593 parameters.

    Args:
        width: channels after the first convolution, doubled with each further one.
        first_norm: normalise after the first convolution too.
        eps: added to the variance.
    """

    smallest = 32

    def __init__(self, width: int = 32, first_norm: bool = False, eps: float = EPS) -> None:
        super().__init__()
        widths = [1, width, 2 * width, 4 * width, 8 * width]
        layers: list[nn.Module] = []
        for n in range(4):
            norm: Norm = "batch" if n > 0 or first_norm else "none"
            layers.append(nn.Conv2d(widths[n], widths[n + 1], 3, 2, 1, bias=norm == "none"))
            layers += [norm_layer(norm, widths[n + 1], eps=eps), nn.LeakyReLU(0.2, True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, 1, 1))
        init_normal(self)

    def forward(self, image: Tensor) -> Tensor:
        """Judge [B, 1, H, W].

        Raises:
            InputError: ``MX-MOD-007``, the image is smaller than 32 x 32.
        """
        _check_size(image, self.smallest)
        return self.layers(image)


def _check_size(image: Tensor, smallest: int) -> None:
    sizes = image.shape[2:]
    if min(sizes) < smallest:
        raise InputError(
            "MX-MOD-007",
            f"the image has {tuple(sizes)} {'pixels' if len(sizes) == 2 else 'voxels'}",
            expected=f"at least {' x '.join([str(smallest)] * len(sizes))} for the discriminator",
            fix="train on larger crops, or without the adversarial loss",
        )
