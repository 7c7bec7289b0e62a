"""Fixtures of the experiments' tests: two methods that only they know, a table of six cases, a finished experiment."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from experiment_cases import Conducted, Several, Single, conduct, experiment_for, rows_of_blobs, write_table

from MedXlateCore.experiment.config import Experiment
from MedXlateCore.models import registry


@pytest.fixture(autouse=True, scope="module")
def _methods() -> Iterator[None]:
    """Let the registry know two tiny methods while a file's tests run."""
    registry.list_methods()
    torch.set_num_threads(1)
    registry._METHODS.update({"single": Single(), "several": Several()})
    yield
    for name in ("single", "several"):
        registry._METHODS.pop(name)


@pytest.fixture(scope="session")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table of six cases, three of them for the test; nobody writes beside it."""
    folder = tmp_path_factory.mktemp("blobs")
    return write_table(folder / "cases.csv", rows_of_blobs(folder))


@pytest.fixture
def own_blobs(blobs: Path, tmp_path: Path) -> Path:
    """Return a copy of that table and its files that a test may change."""
    return Path(shutil.copytree(blobs.parent, tmp_path / "data")) / "cases.csv"


@pytest.fixture
def tiny(blobs: Path, tmp_path: Path) -> Callable[..., Experiment]:
    """Return a function from overrides to the tiny experiment."""

    def make(*overrides: str, table: Path = blobs) -> Experiment:
        return experiment_for(table, tmp_path / "out", *overrides)

    return make


@pytest.fixture(scope="module")
def done(blobs: Path, _methods: None, tmp_path_factory: pytest.TempPathFactory) -> Conducted:
    """Return a finished experiment whose cases may be shown; nobody changes it."""
    folder = tmp_path_factory.mktemp("done") / "out"
    return conduct(experiment_for(blobs, folder, "experiment.pictures=true", "experiment.seeds=[0, 1]"))
