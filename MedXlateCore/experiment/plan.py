"""From an experiment to its runs: one training and test for each method, group of directions and seed.

A method that learns several directions is trained once for all that it can take together; others once for each. Runs
that cannot be are skipped, with the reason on record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from MedXlateCore.config import to_mapping
from MedXlateCore.directions import Direction, modalities_of
from MedXlateCore.errors import MedXlateError, UsageError
from MedXlateCore.experiment.config import BASELINES, Experiment, MethodEntry, slug
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset, list_methods
from MedXlateCore.training.config import ModelTable, TrainingConfig, config_from_mapping

__all__ = ["Plan", "Run", "Skip", "make_plan", "run_folder"]


@dataclass(frozen=True)
class Run:
    """One training and the test of what it made; or a baseline, which has no training.

    Attributes:
        name: the method's name in tables, or the baseline's.
        directions: what it learns and is tested on.
        config: the training's configuration; of a baseline, how its inputs are prepared.
        baseline: True for a baseline.
    """

    name: str
    directions: tuple[Direction, ...]
    config: TrainingConfig
    baseline: bool = False

    @property
    def seed(self) -> int:
        """The training's seed."""
        return self.config.training.seed

    @property
    def key(self) -> str:
        """The run's name, and that of its folder: method, directions, seed."""
        if len(self.directions) > 2:  # a folder's name must not grow without end
            task = f"{len(self.directions)}-directions-of-{slug(str(self.directions[0]))}"
        else:
            task = "+".join(slug(str(direction)) for direction in self.directions)
        return f"{slug(self.name)}/{task}" + ("" if self.baseline else f"/seed-{self.seed}")


@dataclass(frozen=True)
class Skip:
    """A method, or some of its directions, that cannot take part, and why."""

    name: str
    directions: tuple[Direction, ...]
    error: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """All runs, baselines first, and what is skipped."""

    runs: tuple[Run, ...]
    skips: tuple[Skip, ...]


def make_plan(experiment: Experiment) -> Plan:
    """Return the runs of an experiment.

    Raises:
        UsageError: ``MX-MOD-001`` (methods that MedXlate does not have, unless ``skip_unknown``), ``MX-MOD-003`` to
            ``-006``, ``MX-USE-040`` to ``-042`` (a preset or settings that do not exist), ``MX-EXP-010`` (no method is
            left).
    """
    known = list_methods()
    unknown = [entry for entry in experiment.method if entry.method not in known]
    if unknown and not experiment.experiment.skip_unknown:
        raise _unknown(unknown, known)
    skips = [Skip(entry.label, experiment.directions, _unknown([entry], known).as_dict()) for entry in unknown]
    runs = list(_baselines(experiment))
    for entry in experiment.method:
        if entry not in unknown:
            method = get_method(entry.method)
            get_preset(method, entry.preset, entry.config, f"method '{entry.label}', config")
            get_recipe_preset(method, entry.preset, entry.recipe, f"method '{entry.label}', recipe")
            for outcome in _runs_of(entry, experiment):
                if isinstance(outcome, Run):
                    runs.append(outcome)
                else:
                    skips.append(outcome)
    if all(run.baseline for run in runs):
        raise UsageError(
            "MX-EXP-010",
            f"no method is left to train; the first reason: {skips[0].error['code']}: {skips[0].error['found']}",
            expected="at least one method that can learn one of the directions",
            where="[[method]]",
            fix=str(skips[0].error["fix"]),
        )
    return Plan(tuple(runs), tuple(skips))


def _runs_of(entry: MethodEntry, experiment: Experiment) -> Iterator[Run | Skip]:
    """Return a method's runs, and what it cannot take."""
    for group in _groups(entry, experiment.directions):
        for seed in experiment.experiment.seeds:
            try:
                yield Run(entry.label, group, _config(entry, group, seed, experiment))
            except MedXlateError as error:
                yield Skip(entry.label, group, error.as_dict())
                break


def _groups(entry: MethodEntry, directions: Sequence[Direction]) -> list[tuple[Direction, ...]]:
    """Return which directions are learned together: where the method learns several, those with as many sources."""
    method = get_method(entry.method)
    if not hasattr(get_preset(method, entry.preset, entry.config), "directions"):
        return [(direction,) for direction in directions]
    by_number: dict[int, list[Direction]] = {}
    for direction in directions:
        by_number.setdefault(len(direction.sources), []).append(direction)
    return [tuple(group) for group in by_number.values()]


def _config(entry: MethodEntry, group: Sequence[Direction], seed: int, experiment: Experiment) -> TrainingConfig:
    """Return the training configuration of one run.

    Raises:
        UsageError: what the method refuses about the directions, such as ``MX-TRN-013`` (number of sources).
    """
    settings = dict(entry.config)
    if hasattr(get_preset(get_method(entry.method), entry.preset, entry.config), "inputs"):
        settings.setdefault("inputs", len(group[0].sources))
    mapping = {
        **_shared(experiment, group),
        "model": {"method": entry.method, "preset": entry.preset, "config": settings},
        "recipe": entry.recipe,
        "training": {**to_mapping(experiment.training), **to_mapping(experiment.budget), "seed": seed},
        "package": {"training_data": f"the training split of the experiment '{experiment.experiment.name}'"},
    }
    return config_from_mapping(mapping, f"method '{entry.label}'")


def _shared(experiment: Experiment, group: Sequence[Direction]) -> dict[str, Any]:
    """Return the tables that all methods share, for some directions."""
    data = to_mapping(experiment.data)
    data["cache"] = data["cache"] or str(experiment.folder / "cache")
    if len(group) > 1:
        data["directions"] = [str(direction) for direction in group]
    else:
        data |= {"sources": list(group[0].sources), "target": group[0].target}
    wanted = {name for names in modalities_of(group) for name in names}
    intensity = {name: rule for name, rule in experiment.intensity.items() if name in wanted}
    return {"data": data, "grid": experiment.grid.to_dict(), "intensity": intensity}


def _baselines(experiment: Experiment) -> Iterator[Run]:
    """Return the baselines of each direction: configurations without a method, for their preparation alone."""
    for direction in experiment.directions:
        data = replace(
            experiment.data, sources=direction.sources, target=direction.target,
            cache=experiment.data.cache or str(experiment.folder / "cache"),
        )  # fmt: skip
        intensity = _shared(experiment, (direction,))["intensity"]
        training = replace(experiment.training, steps=1)  # a configuration has a length; nothing is trained
        for name in BASELINES:
            config = TrainingConfig(ModelTable(name), data, experiment.grid, intensity, training)
            yield Run(name, (direction,), config, baseline=True)


def _unknown(entries: Sequence[MethodEntry], known: Sequence[str]) -> UsageError:
    names = ", ".join(dict.fromkeys(f"'{entry.method}'" for entry in entries))
    return UsageError(
        "MX-MOD-001",
        f"the experiment asks for methods that are not known: {names}",
        expected=f"some of {', '.join(known)}",
        where="[[method]]",
        fix="correct the name, remove the method, or set skip_unknown = true in [experiment]",
    )


def run_folder(experiment: Experiment, run: Run) -> Path:
    """Return the folder of a run."""
    return experiment.folder / "runs" / run.key
