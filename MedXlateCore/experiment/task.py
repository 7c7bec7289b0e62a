"""What a run's process is told, and what it leaves: ``task.json``, ``tested.json`` or ``failure.json``.

A run is finished if its results belong to this configuration, these data and this evaluation, and the model that they
were measured on is still there, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedXlateCore.config import read_dataclass, to_mapping
from MedXlateCore.directions import Direction, parse_direction
from MedXlateCore.errors import MedXlateError, UsageError
from MedXlateCore.experiment.cases import Cohort
from MedXlateCore.experiment.config import EvaluationTable, Experiment
from MedXlateCore.experiment.plan import Run, run_folder
from MedXlateCore.files import read_json, sha256_file, write_json
from MedXlateCore.models.card import read_card
from MedXlateCore.training.config import TrainingConfig, config_from_mapping
from MedXlateCore.training.run import CONFIG_FILE

__all__ = ["FAILURE_FILE", "TASK_FILE", "TESTED_FILE", "Task", "finished", "read_results", "write_task"]

TASK_FILE, TESTED_FILE, FAILURE_FILE = "task.json", "tested.json", "failure.json"
TRAINING = "training"  # the training's folder inside the run's


@dataclass(frozen=True)
class Task:
    """A run as its process sees it.

    Attributes:
        folder: the run's folder.
        name: the method's name in tables, or the baseline's.
        directions: what is learned and tested.
        config: the training's configuration.
        baseline: True where nothing is trained.
        evaluation: protocol and what is kept.
        prompt: ``none`` or ``given``.
        shown: test case whose volumes are kept for the report, by direction; empty for none.
        identity: what the results depend on: hashes of configuration, data and evaluation.
    """

    folder: Path
    name: str
    directions: tuple[Direction, ...]
    config: TrainingConfig
    baseline: bool
    evaluation: EvaluationTable
    prompt: str
    shown: dict[str, str]
    identity: dict[str, Any]

    @property
    def training(self) -> Path:
        """The folder of the training."""
        return self.folder / TRAINING

    @classmethod
    def read(cls, path: Path, device: str) -> Task:
        """Read ``task.json``; ``device`` is where this process computes.

        Raises:
            MedXlateError: the file is not one that :func:`write_task` wrote.
        """
        facts = read_json(path)
        mapping = facts["config"]
        mapping["training"]["accelerator"] = device
        read = _baseline_config if facts["baseline"] else config_from_mapping
        return cls(
            folder=path.parent,
            name=facts["name"],
            directions=tuple(parse_direction(text) for text in facts["directions"]),
            config=read(mapping),
            baseline=facts["baseline"],
            evaluation=read_dataclass(EvaluationTable, facts["evaluation"], str(path)),
            prompt=facts["prompt"],
            shown=facts["shown"],
            identity=facts["identity"],
        )


def _baseline_config(mapping: Mapping[str, Any]) -> TrainingConfig:
    """Return a configuration whose method the registry does not know."""
    return read_dataclass(TrainingConfig, mapping, TASK_FILE)


def write_task(experiment: Experiment, run: Run, cohort: Cohort) -> Path:
    """Write ``task.json`` into the run's folder and return its path.

    Raises:
        UsageError: ``MX-EXP-006``, the folder holds a training with another configuration or on other data.
    """
    folder = run_folder(experiment, run)
    path = folder / TASK_FILE
    identity = _identity(experiment, run, cohort)
    earlier = _earlier(path).get("identity", {})
    if (folder / TRAINING / CONFIG_FILE).exists():
        changed = [name for name in ("configuration", "data") if earlier.get(name) != identity[name]]
        if changed:
            raise UsageError(
                "MX-EXP-006",
                f"the run '{run.key}' was started with other {' and other '.join(changed)}",
                expected="the method, settings, budget, cases and files that it was started with",
                where=str(folder),
                fix="choose another folder (--out), or delete this one to train again",
            )
    shown = {str(d): cohort.test(d)[0].case for d in run.directions} if _pictured(experiment, run) else {}
    facts = {
        "name": run.name,
        "directions": [str(direction) for direction in run.directions],
        "baseline": run.baseline,
        "config": run.config.to_mapping(),
        "evaluation": to_mapping(experiment.evaluation),
        "prompt": experiment.experiment.prompt,
        "shown": shown,
        "identity": identity,
    }
    write_json(path, facts)
    return path


def finished(experiment: Experiment, run: Run, cohort: Cohort) -> bool:
    """Return True if the run's results are there, and are those that it would give now."""
    folder = run_folder(experiment, run)
    results = read_results(folder)
    if results is None or results.get("identity") != _identity(experiment, run, cohort):
        return False
    return run.baseline or results.get("package") == package_hashes(folder / TRAINING / "model")


def package_hashes(folder: Path) -> dict[str, str] | None:
    """Return the hashes of a package's card and weights, or None where the package is missing or not whole."""
    try:
        card = read_card(folder)
        weights = sha256_file(folder / card.weights["file"])
    except (MedXlateError, KeyError, OSError):
        return None
    return {"card": card.card_sha256, "weights": weights} if weights == card.weights["sha256"] else None


def read_results(folder: Path) -> dict[str, Any] | None:
    """Return what a run's test wrote, or None."""
    return _earlier(folder / TESTED_FILE) or None


def _earlier(path: Path) -> dict[str, Any]:
    try:
        facts = read_json(path)
    except MedXlateError:  # missing or damaged: there is nothing to rely on
        return {}
    return facts if isinstance(facts, dict) else {}


def _identity(experiment: Experiment, run: Run, cohort: Cohort) -> dict[str, Any]:
    return {
        "configuration": run.config.identity(),
        "data": cohort.fingerprint(run.directions),
        "evaluation": {
            "protocol": experiment.evaluation.resolved().name,
            "prompt": experiment.experiment.prompt,
            "volumes": "all" if experiment.evaluation.keep_volumes else "shown" if _pictured(experiment, run) else "",
        },
    }


def _pictured(experiment: Experiment, run: Run) -> bool:
    return experiment.experiment.pictures and run.seed in (experiment.experiment.seeds[0], 0 if run.baseline else -1)
