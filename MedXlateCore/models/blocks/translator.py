"""Johnson's residual network as the network of a method: it checks its input and takes no prompt."""

from __future__ import annotations

from torch import Tensor

from MedXlateCore.models.blocks.checks import check_images
from MedXlateCore.models.blocks.norms import Norm
from MedXlateCore.models.blocks.resnet import ResnetGenerator

__all__ = ["ResnetTranslator"]


class ResnetTranslator(ResnetGenerator):
    """``ResnetGenerator`` with a check of its input.

    Args:
        inputs: channels of the input: sources times slices of each.
        width, blocks, norm, dropout: as in ``ResnetGenerator``.
    """

    def __init__(
        self, inputs: int = 1, width: int = 64, blocks: int = 9, norm: Norm = "instance", dropout: float = 0.0
    ) -> None:
        super().__init__(inputs, width, blocks, norm, dropout)
        self.inputs = inputs

    def forward(self, images: Tensor, roi: Tensor | None = None) -> Tensor:
        """Synthesise the target.

        Args:
            images: [B, inputs, H, W] in [-1, 1].
            roi: not looked at; this network takes no prompt.

        Returns:
            Target [B, 1, H, W] in [-1, 1].

        Raises:
            InputError: ``MX-MOD-007`` (height or width not a multiple of 4), ``MX-MOD-008`` (wrong number of channels).
        """
        check_images(images, self.inputs, self.multiple)
        return super().forward(images)
