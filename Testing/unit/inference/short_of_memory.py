"""A GPU that is the CPU in disguise, and networks on it that run out of memory when told to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from MedXlateCore.devices import CPU, Device

OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 9.00 GiB"


@dataclass(frozen=True)
class PretendedGpu(Device):
    """Counts as a GPU, computes on the CPU."""

    @property
    def is_cpu(self) -> bool:
        return False


def pretended_gpu(device="auto", precision="auto", *, bf16_allowed=False):
    """Stand in for ``choose_device``."""
    return PretendedGpu(CPU, "fp32" if precision == "auto" else precision, "pretended", (), has_bf16=True)


class Short(nn.Module):
    """Another network that runs out of memory at some of its passes (numbered from 1) or when it is moved."""

    def __init__(self, inner, fails_at=(), moves_fail=0, error=None):
        super().__init__()
        self.inner = inner
        self.fails_at = set(fails_at)
        self.moves_fail = moves_fail
        self.error = error or torch.cuda.OutOfMemoryError(OUT_OF_MEMORY)
        self.passes = []

    def to(self, *arguments, **named):
        if self.moves_fail:
            self.moves_fail -= 1
            raise self.error
        return super().to(*arguments, **named)

    def forward(self, images, roi):
        self.passes.append(len(images))
        if len(self.passes) in self.fails_at:
            raise self.error
        return self.inner(images, roi)
