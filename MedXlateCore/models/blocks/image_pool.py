"""A pool of earlier synthetic images, from which a discriminator is shown some (Shrivastava et al., CVPR 2017, 2.3).

The pool is a buffer of the discriminator, so that a checkpoint holds it and a resumed run goes on with the same images.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from MedXlateCore.models.blocks.patchgan import PatchGan

__all__ = ["ImagePool", "PooledPatchGan"]


class ImagePool(nn.Module):
    """Up to ``size`` images of one shape; starts empty.

    Args:
        size: how many; 0 for no pool.
    """

    images: Tensor

    def __init__(self, size: int = 50) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(0, 0, 0, 0))

    @torch.no_grad()
    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return as many images [B, C, H, W], or volumes, as given, one after the other.

        Until the pool is full every image is kept and returned. Then each is returned with probability 1/2, and
        otherwise changes places with one of the pool, which is returned instead.

        Args:
            images: new images [B, C, ...] in fp32.
            generator: of the draws, on the images' device.
        """
        images = images.detach()
        if not self.size:
            return images
        draws = torch.rand((2, len(images)), generator=generator, device=images.device).tolist()
        pool = list(self.images) if self.images.shape[1:] == images.shape[1:] else []  # other sizes begin anew
        result = []
        for image, swap, place in zip(images, *draws, strict=True):
            if len(pool) < self.size:
                pool.append(image)
                result.append(image)
            elif swap < 0.5:
                result.append(image)
            else:
                position = int(place * self.size)
                result.append(pool[position])
                pool[position] = image
        self.images = torch.stack(pool)
        return torch.stack(result)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take over a stored pool whatever its size."""
        stored = state_dict.get(f"{prefix}images")
        if isinstance(stored, Tensor):
            self.images = self.images.new_zeros(stored.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class PooledPatchGan(nn.Module):
    """An unconditional PatchGAN with a pool of the images that it was shown.

    Args:
        channels: channels of the judged image.
        width: channels after the first convolution.
        pool: size of the pool.
        strided, dimensions: as in ``PatchGan``.
    """

    def __init__(
        self, channels: int = 1, width: int = 64, pool: int = 50, strided: int = 3, dimensions: int = 2
    ) -> None:
        super().__init__()
        self.judge = PatchGan(channels, width=width, norm="instance", strided=strided, dimensions=dimensions)
        self.pool = ImagePool(pool)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return one score a patch; with a random generator, of images of the pool instead of those given."""
        return self.judge(images if generator is None else self.pool(images, generator))
