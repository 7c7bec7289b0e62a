"""A method for tests that draws samples and costs nothing: the mean of the sources plus a constant of each sample."""

from __future__ import annotations

import torch
from torch import nn

from MedXlateCore.models.registry import register_model
from MedXlateCore.models.sampling import VolumePrediction
from MedXlateCore.models.tlp import Tlp

STEPS = 3  # a sample


class Drawing(nn.Module):
    """Draws samples of whole volumes."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 0.9))

    def forward(self, images, roi=None):
        """Return the mean of the sources."""
        return images.mean(1, keepdim=True) * self.scale

    def translate(self, images, sampling, tiled=False):
        """Yield after each step; return the mean of the samples and their standard deviation."""
        samples, total = [], STEPS * sampling.samples
        for done in range(total):
            if done % STEPS == 0:
                generator = torch.Generator().manual_seed(sampling.seed + done // STEPS)
                samples.append(self(images)[0, 0] + 0.1 * torch.rand((), generator=generator))
            yield done + 1, total
        stack = torch.stack(samples)
        deviation = stack.std(0, correction=0) if sampling.samples > 1 else None
        return VolumePrediction(stack.mean(0), deviation, {"samples": sampling.samples})


@register_model("drawing")
class DrawingMethod(Tlp):
    """TLP's configuration, without its network."""

    volumetric, uses_regions, draws_samples = True, False, True

    def build(self, config):
        """Return the network."""
        return Drawing()
