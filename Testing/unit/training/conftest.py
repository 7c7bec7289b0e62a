"""Fixtures of the training tests: one tiny cohort and one finished run, which nobody changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from training_cases import config_for, write_cohort

from MedXlateCore.training.config import TrainingConfig
from MedXlateCore.training.run import train


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Keep tiny networks from waiting for each other's threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the table of the tiny cohort; nobody writes beside it."""
    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache folder for all tests that do not test the cache."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def configure(cohort: Path, shared_cache: Path) -> Callable[..., TrainingConfig]:
    """Return a function from overrides to the tiny configuration."""

    def make(*overrides: str, table: Path = cohort) -> TrainingConfig:
        return config_for(table, f'data.cache="{shared_cache}"', *overrides)

    return make


@dataclass(frozen=True)
class FinishedRun:
    config: TrainingConfig
    folder: Path


@pytest.fixture(scope="session")
def finished_run(configure: Callable[..., TrainingConfig], tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Return an uninterrupted run of six steps; nobody changes it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    config = configure("training.previews=1")
    train(config, folder, quiet=True)
    return FinishedRun(config, folder)
