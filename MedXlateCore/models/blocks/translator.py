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
        width, blocks, norm, dropout, dimensions: as in ``ResnetGenerator``.
    """

    def __init__(
        self,
        inputs: int = 1,
        width: int = 64,
        blocks: int = 9,
        norm: Norm = "instance",
        dropout: float = 0.0,
        dimensions: int = 2,
    ) -> None:
        super().__init__(inputs, width, blocks, norm, dropout, dimensions)
        self.inputs, self.dimensions = inputs, dimensions

    def forward(self, images: Tensor, roi: Tensor | None = None) -> Tensor:
        """Synthesise the target.

        Args:
            images: [B, inputs, H, W] in [-1, 1], or [B, inputs, K, H, W].
            roi: not looked at; this network takes no prompt.

        Returns:
            Target [B, 1, H, W] in [-1, 1], or [B, 1, K, H, W].

        Raises:
            InputError: ``MX-MOD-007`` (a size that is not a multiple of ``multiple``), ``MX-MOD-008`` (wrong number of
                channels).
        """
        check_images(images, self.inputs, self.multiple, self.dimensions)
        return super().forward(images)
