"""PatchGAN discriminator: judges overlapping patches of 70 x 70 pixels (Isola et al., CVPR 2017, section 3.2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from MedXlateCore.errors import InputError
from MedXlateCore.models.blocks.init import init_normal
from MedXlateCore.models.blocks.norms import Norm, norm_layer

__all__ = ["PatchGan"]


class PatchGan(nn.Module):
    """4x4 convolutions, ``strided`` of them with stride 2 and two with stride 1; LeakyReLU 0.2; no sigmoid at the end.

    With the defaults it has 2,763,585 parameters and answers [B, 1, H/8 - 2, W/8 - 2].

    Args:
        channels: channels of the judged image.
        condition_channels: channels of the condition that is concatenated to it; 0 for an unconditional discriminator.
        width: channels after the first convolution, doubled up to 8 times this.
        norm: normalisation, on all but the first and the last convolution.
        strided: number of convolutions of stride 2; 3 gives the receptive field of 70 pixels.
    """

    def __init__(
        self, channels: int = 1, condition_channels: int = 0, width: int = 64, norm: Norm = "batch", strided: int = 3
    ) -> None:
        super().__init__()
        self.smallest = 3 * 2**strided  # below this the two convolutions of stride 1 leave nothing
        widths = [width * min(2**n, 8) for n in range(strided + 1)]
        layers: list[nn.Module] = [nn.Conv2d(channels + condition_channels, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        for n in range(strided):
            stride = 2 if n < strided - 1 else 1
            layers.append(nn.Conv2d(widths[n], widths[n + 1], 4, stride, 1, bias=norm != "batch"))
            layers += [norm_layer(norm, widths[n + 1], affine=False), nn.LeakyReLU(0.2, True)]
        layers.append(nn.Conv2d(widths[-1], 1, 4, 1, 1))
        self.layers = nn.Sequential(*layers)
        init_normal(self)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Tensor:
        """Judge [B, C, H, W] (with its condition [B, D, H, W]); returns one score a patch.

        Raises:
            InputError: ``MX-MOD-007``, the image is smaller than the discriminator can judge.
        """
        if min(image.shape[-2:]) < self.smallest:
            raise InputError(
                "MX-MOD-007",
                f"the image has {tuple(image.shape[-2:])} pixels",
                expected=f"at least {self.smallest} x {self.smallest} for the discriminator",
                fix="train on larger crops, or without the adversarial loss",
            )
        return self.layers(image if condition is None else torch.cat((image, condition), dim=1))
