"""How a run judges its network, and what it hands out: validation, previews, and the package with its card.

The card says what was trained, on what, how well it did, and what it is not for. It holds no file names, case names or
paths of the training data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from MedXlateCore.config import to_mapping
from MedXlateCore.directions import modalities_of
from MedXlateCore.models.method import Method
from MedXlateCore.models.package import ModelCard, save_package
from MedXlateCore.models.registry import get_method
from MedXlateCore.provenance import software_versions
from MedXlateCore.training.cache import PreparedCase
from MedXlateCore.training.config import TrainingConfig
from MedXlateCore.training.data import SliceData, TrainingData, mean_image, output_scale
from MedXlateCore.training.preview import write_preview
from MedXlateCore.training.scans import ScanPair, slice_size
from MedXlateCore.training.validation import Figures, Predictor, ValidationResult, baselines, validate_case

__all__ = ["Assessment", "make_card"]

_PROTOCOL = (
    "validation during training: figures on the model grid, normalised target in [0, 1], PSNR with peak 1, over the "
    "voxels of the foreground (or of the annotated lesion) per case, then over patients; 95 % bootstrap intervals over "
    "patients. sham.change: mean absolute change inside a prompt in healthy tissue, against no prompt"
)


class Assessment:
    """Everything a run does with its validation cases.

    Figures of a run with several directions have the direction in front of their names: ``T1->T2/none.mae``.

    Attributes:
        baselines: figures of the identity and of the mean training image, measured once.
        card: the model's card, without figures.
    """

    def __init__(
        self, config: TrainingConfig, folder: Path, data: TrainingData, slices: SliceData, total_steps: int | None
    ) -> None:
        self._config, self._folder, self._cases = config, folder, data.val
        self._method = get_method(config.model.method)
        self.card = make_card(config, self._method, data, slices, total_steps)
        self.baselines = ValidationResult()
        for direction in {case.direction: None for case in data.val}:
            own = [case for case in data.val if case.direction == direction]
            for case, figures in baselines(own, mean_image(slices, direction), config.data.slices):
                self.baselines.add(case.row.patient, self._named(figures, direction))

    def validate(
        self, network: nn.Module, device: torch.device, step: int, check: Callable[[], None]
    ) -> ValidationResult:
        """Measure all validation cases and draw previews; ``check`` is called between passes and may raise to stop.

        Raises:
            InputError: ``MX-TRN-007``, the network gave values that are not finite.
        """
        settings, result = self._config.training, ValidationResult()
        architecture = self._config.architecture()
        predictor = Predictor(
            network=network,
            device=device,
            precision="bf16" if settings.precision == "bf16-mixed" else "fp32",
            batch_size=1 if device.type == "cpu" else settings.batch_size,
            encoding=getattr(architecture, "prompt_encoding", "two_region") if self._method.uses_regions else None,
            check=check,
            context=self._method.context_slices(architecture),
            volumetric=self._method.volumetric,
        )
        drawn: Counter[int] = Counter()
        for case in self._cases:
            single = replace(predictor, network=self._for_case(network, architecture, case))
            outcome = validate_case(single, case, self._config.data.slices)
            result.add(case.row.patient, self._named(outcome.figures, case.direction), outcome.score)
            if drawn[case.direction] < settings.previews:
                drawn[case.direction] += 1
                direction = self._config.towards(self._config.directions[case.direction])
                write_preview(outcome, direction, step, self._folder / "previews")
        return result

    def _for_case(self, network: nn.Module, architecture: Any, case: PreparedCase) -> nn.Module:
        """Return the network for a case's target: told by its facts, where the method can be told, or by its name."""
        if isinstance(case, ScanPair):
            return self._method.with_facts(network, architecture, case.target_facts)
        return self._method.towards(network, architecture, case.direction)

    def _named(self, figures: Figures, direction: int) -> Figures:
        directions = self._config.directions
        if len(directions) == 1:
            return figures
        return {f"{directions[direction]}/{name}": value for name, value in figures.items()}

    def export(self, network: nn.Module, step: int, result: ValidationResult | None = None) -> ModelCard:
        """Write the package, in place of the run's earlier one.

        Args:
            network: the weights to export.
            step: optimiser steps that made them.
            result: its validation; None where there is no validation case.

        Raises:
            ResourceError: ``MX-FIL-010`` to ``-016``, it cannot be written; the earlier package is untouched.
        """
        metrics: dict[str, Any] = {}
        if result is not None:
            metrics = {
                "protocol": _PROTOCOL,
                "split": "validation; the same cases chose the step, so these figures are optimistic",
                "figures": {name: asdict(summary) for name, summary in result.summaries().items()},
                "baselines": {name: asdict(summary) for name, summary in self.baselines.summaries().items()},
            }
        complete = replace(self.card, training={**self.card.training, "steps": step}, metrics=metrics)
        return save_package(self._folder / "model", complete, network, overwrite=True)


def make_card(
    config: TrainingConfig, method: Method, data: TrainingData, slices: SliceData, total_steps: int | None
) -> ModelCard:
    """Return the card of the model that a run trains, without its figures; ``total_steps`` None where time decides.

    Raises:
        InputError: ``MX-MOD-012``, ``[package]`` or the data give a card that cannot be: a name, version or modality.
    """
    package, directions = config.package, config.directions
    sources, targets = modalities_of(directions)
    multiple = method.size_multiple(config.architecture())
    several = tuple(map(str, directions)) if len(directions) > 1 else ()
    scales = [
        output_scale([case for case in data.train if case.direction == n], direction.sources[0], direction.target)
        for n, direction in enumerate(directions)
    ]
    return ModelCard(
        name=package.name,
        version=package.version,
        method=config.model.method,
        config=to_mapping(config.architecture()),
        sources=sources,
        targets=targets,
        directions=several,
        grid=config.grid.to_dict(),
        normalisers={name: dict(config.intensity[name]) for name in dict.fromkeys((*sources, *targets))},
        output=dict(zip(several or targets, scales, strict=True)),
        prompts="region" if method.uses_regions else "none",
        training={
            "data": package.training_data,
            "train": _counts(data.train),
            "validation": _counts(data.val),
            "training_slices": len(slices),
            "data_fingerprint": data.fingerprint(),
            "steps_planned": total_steps,
            "preset": config.model.preset,
            "unpaired": method.unpaired,
            **({"slice_size": list(slice_size(data.scans, multiple))} if data.scans else {}),
            "recipe": to_mapping(config.recipe_config()),
            "settings": to_mapping(config.training),
            "configuration_sha256": config.identity(),
            "software": software_versions(),
        },
        licence=package.licence,
        intended_use=package.intended_use,
        not_for=package.not_for,
        citation=package.citation or method.citation,
    )


def _counts(cases: Sequence[PreparedCase]) -> dict[str, int]:
    annotated = sum(case.row.regions is not None for case in cases)
    return {"cases": len(cases), "patients": len({case.row.patient for case in cases}), "annotated_cases": annotated}
