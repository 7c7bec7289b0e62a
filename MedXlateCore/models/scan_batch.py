"""What a method that learns from many scans a patient, told apart by their facts, sees in one training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ScanBatch"]

SOURCE, TARGET, INTERMEDIATE, ATLAS = range(4)


@dataclass
class ScanBatch:
    """Triples of slices. Source and target show one place of one patient; the intermediate any patient, in that plane.

    The first axis of all tensors is source, target, intermediate; in ``tokens`` and ``domains`` also the atlas, of
    which there is no picture: the known domain nearest to a plain T1-weighted image of the source's organ.

    Attributes:
        images: [3, B, 1, H, W] in [-1, 1].
        foregrounds: head or body masks [3, B, 1, H, W], 0 or 1.
        tokens: drawn sentences [4, B, L], padded behind their end.
        domains: numbers of the nearest known domains [4, B].
        positive: [3 B, 3 B] bool: row i, column j: the sentence of slice i is true of slice j and complete. Slices are
            in the order of ``images``.
    """

    images: Tensor
    foregrounds: Tensor
    tokens: Tensor
    domains: Tensor
    positive: Tensor

    def first(self, count: int) -> ScanBatch:
        """Return the batch's first triples."""
        n = self.images.shape[1]
        kept = torch.arange(3 * n).view(3, n)[:, :count].flatten().to(self.positive.device)
        images, foregrounds, tokens, domains = (
            part[:, :count] for part in (self.images, self.foregrounds, self.tokens, self.domains)
        )
        return ScanBatch(images, foregrounds, tokens, domains, self.positive[kept][:, kept])

    def to(self, device: torch.device | str) -> ScanBatch:
        """Return the batch on another device."""
        return self.mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> ScanBatch:
        """Return the batch with every tensor changed."""
        parts = (self.images, self.foregrounds, self.tokens, self.domains, self.positive)
        return ScanBatch(*(change(part) for part in parts))
