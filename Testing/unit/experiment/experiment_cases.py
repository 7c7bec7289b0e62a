"""A tiny experiment on blobs: two methods, two directions, two steps each; processes that are none."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from training_cases import blob_case, write_table

from MedXlateCore.config import set_value
from MedXlateCore.experiment.cases import Cohort, survey
from MedXlateCore.experiment.config import Experiment, experiment_from_mapping
from MedXlateCore.experiment.plan import Plan, make_plan
from MedXlateCore.experiment.running import Outcome, do_runs
from MedXlateCore.experiment.worker import main as stage

SPLITS = {"a": "train", "b": "train", "c": "val", "d": "test", "e": "test", "f": "test"}
TEXT = """
[experiment]
name = "tiny"
directions = ["T1->T2", "T2->T1"]

[budget]
steps = 2

[grid.crop]
kind = "fixed"
size = [32, 32, "none"]
centre = "grid"

[intensity]
T1 = { kind = "minmax" }
T2 = { kind = "minmax" }
T1ce = { kind = "minmax" }

[training]
batch_size = 2
validate_every = 2
tensorboard = false
previews = 0
accelerator = "cpu"

[[method]]
method = "tlp"
config = { levels = 1 }
recipe = { discriminator_width = 8 }
"""


def rows_of_blobs(folder: Path) -> list[dict[str, str]]:
    """Write six cases and return their rows."""
    rows = [blob_case(folder, case, seed=n, shape=(32, 32, 4)) for n, case in enumerate(SPLITS)]
    for row in rows:
        row["split"] = SPLITS[row["case"]]
    return rows


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
        self.stages.append((Path(arguments[0]).parent.relative_to(_runs(arguments[0])).as_posix(), arguments[1]))
        return Ended(stage([*arguments, "--quiet"]))


def _runs(task: str) -> Path:
    return next(parent for parent in Path(task).parents if parent.name == "runs")


def conduct(experiment: Experiment) -> tuple[Cohort, Plan, list[Outcome], InProcess]:
    """Do a whole experiment in this process."""
    cohort, plan, start = survey(experiment), make_plan(experiment), InProcess()
    return cohort, plan, list(do_runs(experiment, plan, cohort, ["cpu"], start=start)), start


__all__ = ["SPLITS", "Ended", "InProcess", "conduct", "experiment_for", "mapping_for", "rows_of_blobs", "write_table"]
