"""A perceptual loss: how far images are apart in the first features of VGG-16 (Johnson et al., ECCV 2016, section 3.2).

The weights are not part of MedXlate. Whoever has them names a safetensors file with the first four convolutions of an
ImageNet VGG-16, by the names that torchvision gives them (``features.0.weight`` and so on).
"""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from MedXlateCore.errors import InputError
from MedXlateCore.files import read_bytes, shown
from MedXlateCore.models.blocks.init import without_memory
from MedXlateCore.training.losses import l1

__all__ = ["PerceptualLoss", "VggFeatures"]

MAX_BYTES = 1 << 30  # the whole VGG-16 has 553 MB
# ImageNet's mean and spread a channel, with which the published weights were trained on [0, 1]
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VggFeatures(nn.Module):
    """The layers of VGG-16 before its second max pooling: [B, 3, H, W] to [B, 128, H/2, W/2]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(128, 128, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        return self.features(x)


class PerceptualLoss:
    """Mean absolute difference of features, over all images of a batch. The features are fixed.

    Args:
        path: safetensors file with the weights; further tensors in it are not looked at.

    Raises:
        InputError: ``MX-FIL-001`` to ``-008`` (the file cannot be read), ``MX-MOD-016`` (it is not safetensors),
            ``MX-MOD-018`` (tensors are missing or have another shape).
    """

    def __init__(self, path: Path | str) -> None:
        content = read_bytes(Path(path).expanduser(), MAX_BYTES)
        with without_memory():
            self._features = VggFeatures()
        try:
            stored = safetensors.torch.load(content)
            known = {key: stored[key].float() for key in self._features.state_dict()}
            self._features.load_state_dict(known, assign=True)
        except (SafetensorError, ValueError) as error:
            raise _refused("MX-MOD-016", f"the VGG-16 weights are no safetensors file ({error})", path) from error
        except (KeyError, RuntimeError) as error:
            raise _refused("MX-MOD-018", f"the VGG-16 weights do not fit: {error}", path) from error
        self._features.requires_grad_(False)

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the loss (a scalar) of grey images [B, 1, H, W] in [-1, 1]; grey is repeated to three channels."""
        self._features.to(prediction.device)
        return l1(self._features(_as_colour(prediction)), self._features(_as_colour(target)).detach())


def _as_colour(images: Tensor) -> Tensor:
    mean, spread = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (MEAN, SPREAD))
    return ((images.float() + 1) / 2 - mean) / spread


def _refused(code: str, found: str, path: Path | str) -> InputError:
    return InputError(
        code,
        found[:400],
        expected="a safetensors file with features.0, .2, .5 and .7 (weight, bias) of VGG-16",
        where=shown(path),
        fix='name another file, or leave perceptual_weights at ""',
    )
