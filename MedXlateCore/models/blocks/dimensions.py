"""Layers by the number of dimensions of a map: one piece of code builds networks for slices and for volumes.

Maps of slices are [B, C, H, W] (2 dimensions), maps of volumes [B, C, K, H, W] (3), with slices along K.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["CONVOLUTION", "LAYOUT", "REFLECTION", "TRANSPOSED", "pixels_first"]

CONVOLUTION: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
REFLECTION: dict[int, type[nn.Module]] = {2: nn.ReflectionPad2d, 3: nn.ReflectionPad3d}
LAYOUT: dict[int, torch.memory_format] = {2: torch.channels_last, 3: torch.channels_last_3d}


def pixels_first(images: Tensor) -> Tensor:
    """Return [B, C, H, W] or [B, C, K, H, W] stored pixel by pixel, as ``init.channels_last`` stores weights."""
    return images.contiguous(memory_format=LAYOUT[images.ndim - 2])
