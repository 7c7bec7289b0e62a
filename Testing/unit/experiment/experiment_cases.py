"""Tiny experiments on blobs: methods of a single convolution, two steps each, and processes that are none."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from training_cases import blob_case, write_table

from MedXlateCore.config import set_value
from MedXlateCore.experiment.cases import Cohort, survey
from MedXlateCore.experiment.config import Experiment, experiment_from_mapping
from MedXlateCore.experiment.plan import Plan, make_plan
from MedXlateCore.experiment.running import Outcome, do_runs
from MedXlateCore.experiment.worker import main as stage
from MedXlateCore.models.method import Method, Recipe

SPLITS = {"a": "train", "b": "train", "c": "val", "d": "test", "e": "test", "f": "test"}
TEXT = """
[experiment]
name = "tiny"
directions = ["T1->T2", "T2->T1"]

[budget]
steps = 2

[grid.crop]
kind = "fixed"
size = [16, 16, "none"]
centre = "grid"

[intensity]
T1 = { kind = "minmax" }
T2 = { kind = "minmax" }
T1ce = { kind = "minmax" }

[training]
batch_size = 2
validate_every = 2
checkpoint_every = 1
tensorboard = false
previews = 0
accelerator = "cpu"

[[method]]
method = "single"
name = "One by one"

[[method]]
method = "several"
name = "All at once"
"""


@dataclass(frozen=True)
class SingleConfig:
    inputs: int = 2


@dataclass(frozen=True)
class SeveralConfig:
    inputs: int = 2
    directions: tuple[str, ...] = ("T1->T2",)


@dataclass(frozen=True)
class Constants:
    learning_rate: float = 1e-2
    nan_at: int = -1


class Pixelwise(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(inputs, 1, 1)

    def forward(self, images: torch.Tensor, roi: torch.Tensor | None = None) -> torch.Tensor:
        return self.layer(images)


class PixelwiseRecipe(Recipe):
    def __init__(self, config: Any, constants: Constants) -> None:
        self._network, self._constants = Pixelwise(config.inputs), constants

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self._network}

    def optimisers(self, learning_rate: float | None = None) -> dict[str, torch.optim.Optimizer]:
        return {
            "generator": torch.optim.SGD(self._network.parameters(), learning_rate or self._constants.learning_rate)
        }

    def learning_rate_factor(self, progress: float) -> float:
        return 1.0 - progress

    def step(self, batch, state) -> dict[str, float]:
        loss = (state.networks["generator"](batch.images) - batch.target).abs().mean()
        state.optimisers["generator"].zero_grad()
        state.backward(loss)
        state.optimisers["generator"].step()
        return {"l1": float("nan") if state.step == self._constants.nan_at else loss.item()}


class Single(Method):
    name = "single"
    config_type, recipe_type, citation = SingleConfig, Constants, "none"
    presets = {"tiny": SingleConfig()}

    def build(self, config: Any) -> nn.Module:
        return Pixelwise(config.inputs)

    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        return PixelwiseRecipe(config, recipe_config)

    def n_sources(self, config: Any) -> int:
        return config.inputs

    def size_multiple(self, config: Any) -> int:
        return 4


class Several(Single):
    name = "several"
    config_type = SeveralConfig
    presets = {"tiny": SeveralConfig()}


def rows_of_blobs(folder: Path) -> list[dict[str, str]]:
    """Write six cases and return their rows."""
    rows = [blob_case(folder, case, seed=n, shape=(16, 16, 4)) for n, case in enumerate(SPLITS)]
    return [{**row, "split": SPLITS[row["case"]]} for row in rows]


def mapping_for(table: Path, folder: Path, *overrides: str) -> dict[str, Any]:
    """Return the tiny experiment as plain data."""
    mapping = tomllib.loads(TEXT)
    for assignment in (f'data.table="{table}"', f'experiment.output="{folder}"', *overrides):
        set_value(mapping, assignment)
    return mapping


def experiment_for(table: Path, folder: Path, *overrides: str) -> Experiment:
    """Return the tiny experiment for a table."""
    return experiment_from_mapping(mapping_for(table, folder, *overrides))


class Ended:
    """A stage that is over."""

    def __init__(self, code: int) -> None:
        self._code = code

    def poll(self) -> int | None:
        """Return the exit code."""
        return self._code

    def terminate(self) -> None:
        """Do nothing: it is over."""


class InProcess:
    """Does stages at once, in this process, and notes them."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, str]] = []

    def __call__(self, arguments: Sequence[str]) -> Ended:
        """Do one stage."""
        folder = Path(arguments[0]).parent
        runs = next(parent for parent in folder.parents if parent.name == "runs")
        self.stages.append((folder.relative_to(runs).as_posix(), arguments[1]))
        return Ended(stage([*arguments, "--quiet"]))


@dataclass(frozen=True)
class Conducted:
    """An experiment that was conducted."""

    experiment: Experiment
    cohort: Cohort
    plan: Plan
    outcomes: list[Outcome]
    stages: list[tuple[str, str]]

    def outcome(self, key: str) -> Outcome:
        """Return how a run ended."""
        return next(outcome for outcome in self.outcomes if outcome.run.key == key)


def conduct(experiment: Experiment, start: InProcess | None = None) -> Conducted:
    """Do a whole experiment in this process."""
    cohort, plan, begin = survey(experiment), make_plan(experiment), start or InProcess()
    outcomes = list(do_runs(experiment, plan, cohort, ["cpu"], start=begin))
    return Conducted(experiment, cohort, plan, outcomes, begin.stages)


__all__ = ["Conducted", "Ended", "InProcess", "Several", "Single", "conduct", "experiment_for", "mapping_for",
           "rows_of_blobs", "write_table"]  # fmt: skip
