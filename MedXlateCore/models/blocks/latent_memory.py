"""A memory for what networks that are no longer trained make of whole training volumes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["LatentMemory"]

MIB = 1 << 20


class LatentMemory:
    """What was made of volumes, by what these hold, in main memory: what does not change need not be made twice.

    Args:
        mebibytes: how much is kept; what comes when it is full is made anew each time. 0 for nothing.
    """

    def __init__(self, mebibytes: int) -> None:
        self.left = self.room = mebibytes * MIB
        self._kept: dict[bytes, Tensor] = {}

    def __bool__(self) -> bool:
        """Say whether anything may be kept."""
        return self.room > 0

    def recall(self, word: str, volume: Tensor, given: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what was made of a volume before, on its device; or let it be made now.

        Args:
            word: what is made.
            volume: what it is made of.
            given: what ``make`` gets, which depends on the volume only.
            make: makes a tensor of it.
        """
        digest = hashlib.sha256(f"{word} {tuple(volume.shape)} {volume.dtype}".encode())  # processors have it built in
        digest.update(volume.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        key = digest.digest()
        if key in self._kept:
            return self._kept[key].to(volume.device)
        made = make(given).detach()
        if made.nbytes <= self.left:
            self.left -= made.nbytes
            # a copy: what was made may be part of something larger, which would stay in memory with it
            self._kept[key] = made.to("cpu", copy=True, memory_format=torch.contiguous_format)
        return made
