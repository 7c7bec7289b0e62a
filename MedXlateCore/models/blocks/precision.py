"""Parts of a network that are computed in full precision whatever is around them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["full_precision"]


def full_precision(x: Tensor) -> AbstractContextManager[None]:
    """Switch autocast off for the device of ``x``; nothing on the meta device, which has none."""
    return nullcontext() if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)
