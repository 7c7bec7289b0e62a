"""What is tested: a trained model through the ordinary translation, or a baseline through the same steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from MedXlateCore.checks import check_sources, checked
from MedXlateCore.directions import Direction
from MedXlateCore.inference.prepare import prepare_sources
from MedXlateCore.inference.result import on_reference
from MedXlateCore.models.package import LoadedModel
from MedXlateCore.pipeline import translate
from MedXlateCore.training.config import TrainingConfig
from MedXlateCore.training.data import SliceData, fit_to_size, mean_image, output_scale, prepare_data
from MedXlateCore.transforms.intensity import FittedNormaliser
from MedXlateCore.volume import Modality, Source, Volume

__all__ = ["BaselineMaker", "Maker", "ModelMaker"]


class Maker(ABC):
    """Makes a target from sources.

    Attributes:
        parameters: number of trained values.
    """

    parameters: int = 0

    @abstractmethod
    def make(self, sources: Sequence[Volume], direction: Direction, roi: Volume | None) -> tuple[Volume, Any]:
        """Return the synthetic volume on the first source's grid, and its run record or None.

        Args:
            sources: in the direction's order.
            direction: what to make.
            roi: region prompt, for who takes one.
        """

    @property
    def takes_regions(self) -> bool:
        """True if it takes a region prompt."""
        return False


class ModelMaker(Maker):
    """A trained model.

    Args:
        model: its package.
        labels: label values of region prompts.
        device: where to compute.
    """

    def __init__(self, model: LoadedModel, labels: Mapping[str, Sequence[int]], device: str) -> None:
        self._model, self._labels, self._device = model, labels, device
        self.parameters = sum(tensor.numel() for tensor in model.network.parameters())

    @property
    def takes_regions(self) -> bool:
        """True if the model takes a region prompt."""
        return self._model.card.prompts == "region"

    def make(self, sources: Sequence[Volume], direction: Direction, roi: Volume | None) -> tuple[Volume, Any]:
        """Translate. Raises as :func:`MedXlateCore.pipeline.translate`."""
        translation = translate(
            sources, self._model, target=direction.target, reference=direction.sources[0], roi=roi,
            roi_labels=self._labels, device=self._device,
        )  # fmt: skip
        volume = translation.run()
        return volume, translation.record.as_dict()


class BaselineMaker(Maker):
    """A network that returns its first input (``identity``), or the mean training target whatever it sees.

    The inputs are prepared, and the result brought back and scaled, as a model's are.

    Args:
        name: ``identity`` or ``mean image``.
        config: how inputs are prepared; one direction.
        cache: folder of prepared cases.

    Raises:
        MedXlateError: a training case cannot be prepared.
    """

    def __init__(self, name: str, config: TrainingConfig, cache: Path) -> None:
        self._config = config
        data = prepare_data(config, cache)
        self._scale = output_scale(data.train, config.data.sources[0], config.data.target)
        self._mean = mean_image(SliceData(data.train, config.data.slices)) if name == "mean image" else None

    def make(self, sources: Sequence[Volume], direction: Direction, roi: Volume | None) -> tuple[Volume, Any]:
        """Prepare the sources, take the first or the mean image, and bring it back. Raises as a translation does."""
        sound = [checked(volume)[0] for volume in sources]
        check_sources(sound, [volume.modality for volume in sound])
        prepared = prepare_sources(sound, sound[0].geometry, self._config.grid, self._config.intensity)
        image = prepared.images[0]
        if self._mean is not None:
            image = np.where(prepared.foreground, fit_to_size(self._mean, image.shape[1:]), np.float32(-1.0))
        factor = prepared.fitted[0].high if self._scale["kind"] == "relative" else 1.0
        scale = FittedNormaliser(self._scale["low"] * factor, self._scale["high"] * factor, clip=False)
        target = Modality.parse(direction.target)
        return on_reference(image, prepared, scale, target, Source(name=f"{target.value}, baseline")), None
