"""Perceptual losses: how far images are apart in features of VGG-16 or VGG-19 (Johnson et al., ECCV 2016, section 3.2).

The weights are not part of MedXlate. Whoever has them names a safetensors file with the convolutions of an ImageNet VGG
that are used here, by the names that torchvision gives them (``features.0.weight`` and so on).
"""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from MedXlateCore.errors import InputError
from MedXlateCore.files import read_bytes, shown
from MedXlateCore.models.blocks.init import without_memory
from MedXlateCore.training.losses import l1

__all__ = ["DeepPerceptualLoss", "PerceptualLoss", "Vgg19Features", "VggFeatures"]

MAX_BYTES = 1 << 30  # the whole VGG-19 has 575 MB
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


class Vgg19Features(nn.Module):
    """The first 30 layers of VGG-19 with average pooling: [B, 3, H, W] to what each of its 13 ReLUs gives."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inner = 3
        for outer, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 1)):
            for _ in range(count):
                layers += [nn.Conv2d(inner, outer, 3, padding=1), nn.ReLU()]
                inner = outer
            layers.append(nn.AvgPool2d(2))
        self.features = nn.Sequential(*layers[:30])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of each ReLU."""
        kept = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                kept.append(x)
        return kept


class PerceptualLoss:
    """Mean absolute difference of VGG-16's features, over all images of a batch. The features are fixed.

    Args:
        path: safetensors file with the weights; further tensors in it are not looked at.

    Raises:
        InputError: ``MX-FIL-001`` to ``-008`` (the file cannot be read), ``MX-MOD-016`` (it is not safetensors),
            ``MX-MOD-018`` (tensors are missing or have another shape).
    """

    def __init__(self, path: Path | str) -> None:
        self._features = _loaded(VggFeatures, path)

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the loss (a scalar) of grey images [B, 1, H, W] in [-1, 1]; grey is repeated to three channels."""
        self._features.to(prediction.device)
        return l1(self._features(_as_colour(prediction)), self._features(_as_colour(target)).detach())


class DeepPerceptualLoss:
    """EVA-I2I's: the sum over VGG-19's first 13 ReLUs of the mean squared difference. As ``PerceptualLoss`` else."""

    def __init__(self, path: Path | str) -> None:
        self._features = _loaded(Vgg19Features, path)

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the loss (a scalar) of grey images [B, 1, H, W] in [-1, 1]; grey is repeated to three channels."""
        self._features.to(prediction.device)
        pairs = zip(self._features(_as_colour(prediction)), self._features(_as_colour(target)), strict=True)
        return torch.stack([mse_loss(made, wanted.detach()) for made, wanted in pairs]).sum()


def _loaded(kind: type[nn.Module], path: Path | str) -> nn.Module:
    """Return fixed features with their weights from a file."""
    content = read_bytes(Path(path).expanduser(), MAX_BYTES)
    with without_memory():
        features = kind()
    try:
        stored = safetensors.torch.load(content)
        known = {key: stored[key].float() for key in features.state_dict()}
        features.load_state_dict(known, assign=True)
    except (SafetensorError, ValueError) as error:
        raise _refused("MX-MOD-016", f"the VGG weights are no safetensors file ({error})", path) from error
    except (KeyError, RuntimeError) as error:
        raise _refused("MX-MOD-018", f"the VGG weights do not fit: {error}", path) from error
    return features.requires_grad_(False)


def _as_colour(images: Tensor) -> Tensor:
    mean, spread = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (MEAN, SPREAD))
    return ((images.float() + 1) / 2 - mean) / spread


def _refused(code: str, found: str, path: Path | str) -> InputError:
    return InputError(
        code,
        found[:400],
        expected="a safetensors file with the convolutions of VGG-16 or VGG-19 (features.0.weight and so on)",
        where=shown(path),
        fix='name another file, or leave perceptual_weights at ""',
    )
