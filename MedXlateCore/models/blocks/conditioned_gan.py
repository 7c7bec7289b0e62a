"""EVA-I2I's discriminator: judges patches of an image, knowing in which words it was asked for."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.errors import InputError
from MedXlateCore.models.blocks.hyper import HyperStage
from MedXlateCore.models.blocks.restormer import LayerNorm2d

__all__ = ["ConditionedGan"]

SMALLEST = 16


class ConditionedGan(nn.Module):
    """Three 4x4 convolutions of stride 2, hyper-blocks with attention between them, a 4x4 convolution to the scores.

    Norm over channels after the first convolution only; LeakyReLU 0.2; no sigmoid.

    Args:
        widths: channels after the three convolutions.
        vector: length of the text vectors.
        blocks: hyper-blocks.
        rank: of their dynamic convolutions.
        layer_scale: of the hyper-blocks.
    """

    def __init__(
        self, widths: tuple[int, int, int], vector: int, blocks: int = 4, rank: int = 16, layer_scale: float = 1e-6
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(inner, outer, 4, 2, 1) for inner, outer in zip((1, *widths[:-1]), widths, strict=True)
        )
        self.norm = LayerNorm2d(widths[0])
        self.stage = HyperStage(blocks, widths[-1], vector, rank, layer_scale)
        self.scores = nn.Conv2d(widths[-1], 1, 4, 1, 1)

    def forward(self, images: Tensor, vectors: Tensor) -> Tensor:
        """Judge images [B, 1, H, W] for text vectors [B, D]; returns one score a patch, [B, 1, H/8 - 1, W/8 - 1].

        Raises:
            InputError: ``MX-MOD-007``, the image is smaller than 16 x 16.
        """
        if min(images.shape[-2:]) < SMALLEST:
            raise InputError(
                "MX-MOD-007",
                f"the image has {tuple(images.shape[-2:])} pixels",
                expected=f"at least {SMALLEST} x {SMALLEST} for the discriminator",
                fix="train on larger slices",
            )
        x = images
        for n, conv in enumerate(self.convs):
            x = F.leaky_relu(self.norm(conv(x)) if n == 0 else conv(x), 0.2)
        return self.scores(self.stage(x, vectors))
