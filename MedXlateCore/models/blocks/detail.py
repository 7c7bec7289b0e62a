"""The end of a network that works on patches of latents: it puts back what is finer than a patch (ours).

Patches of 2 or 4 latents make a network on a CPU many times faster, but what lies inside a patch has to pass through
few channels, and comes out blurred. Here the unpatched result and the network's own input meet once more on the full
grid, in one 3x3x3 convolution and two small ones.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.norms import InstanceNorm
from MedXlateCore.models.blocks.volume_conv import VolumeConv

__all__ = ["DetailEnd"]

FAINT = 0.1  # of its usual size the last convolution starts with


class DetailEnd(nn.Module):
    """Fine maps [B, C, D, H, W] and what a network on patches says of them [B, K, D, H, W], to [B, out, D, H, W].

    Args:
        channels: C + K.
        hidden: channels between.
        out: channels of the result.
        classes: number of targets; each has a last convolution of its own.
        normed: with instance normalisation after the first convolution.
    """

    def __init__(self, channels: int, hidden: int, out: int, classes: int, normed: bool) -> None:
        super().__init__()
        self.first = VolumeConv(channels, hidden)
        self.norm = InstanceNorm(hidden, affine=False) if normed else nn.Identity()
        self.second = nn.Conv3d(hidden, hidden, 1)
        self.ends = nn.ModuleList(nn.Conv3d(hidden, out, 1) for _ in range(classes))
        with torch.no_grad():
            for parameter in self.ends.parameters():
                parameter.mul_(FAINT)

    def forward(self, fine: Tensor, said: Tensor, target: int) -> Tensor:
        """Put them together for class ``target``."""
        x = F.leaky_relu(self.norm(self.first(torch.cat((fine, said), dim=1))), 0.2)
        return self.ends[target](F.leaky_relu(self.second(x), 0.2))
