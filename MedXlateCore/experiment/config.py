"""The experiment file: methods, directions and seeds, one budget for all, shared data and settings, one protocol.

Tables: ``[experiment]``, ``[[method]]`` (one a method), ``[budget]``, ``[evaluation]``; and, shared by all methods,
``[data]``, ``[grid]``, ``[intensity.<MODALITY>]`` and ``[training]`` as in a training configuration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from MedXlateCore.config import read_dataclass, read_toml, set_value
from MedXlateCore.directions import Direction, modalities_of, parse_direction
from MedXlateCore.errors import UsageError
from MedXlateCore.experiment.published import published_table
from MedXlateCore.metrics.protocols import Protocol, get_protocol, with_matched_intensity
from MedXlateCore.training.config import LENGTHS, DataTable, TrainingTable, absolute_paths, expanded
from MedXlateCore.transforms.spatial import GridSpec
from MedXlateCore.volume import Modality

__all__ = [
    "BASELINES",
    "Budget",
    "EvaluationTable",
    "Experiment",
    "ExperimentTable",
    "MethodEntry",
    "load_experiment",
    "slug",
]

BASELINES = {
    "identity": "the first source as if it were the target, by the intensity scale that a model would use",
    "mean image": "the mean of the training targets, inside the sources' foreground",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+()-]{0,59}")
_SET_HERE = {"data": ("sources", "target", "directions"), "training": (*LENGTHS, "seed")}


@dataclass(frozen=True)
class ExperimentTable:
    """``[experiment]``: what is compared.

    Attributes:
        name: heads the report.
        directions: such as ``["T1->CT", "CT->T1"]``.
        output: folder of runs and results; beside the file by default.
        seeds: one training each, for every method.
        prompt: ``given``: methods with region prompts get the annotated region of each test case; ``none``: no method
            gets one.
        skip_unknown: pass over methods that this MedXlate does not have, and say so, instead of refusing.
        pictures: the cases may be shown: pictures of one test case a direction stand in the report.
        published: tables of published figures that are printed beside the results.
    """

    name: str
    directions: tuple[str, ...]
    output: str = ""
    seeds: tuple[int, ...] = (0,)
    prompt: Literal["none", "given"] = "none"
    skip_unknown: bool = False
    pictures: bool = False
    published: tuple[str, ...] = ()


@dataclass(frozen=True)
class MethodEntry:
    """One ``[[method]]``: a registered method, one of its presets, and what differs from the preset.

    Attributes:
        method, preset: as in a training configuration.
        name: in tables and folders; the method's own by default.
        config, recipe: single settings of the architecture and of the recipe.
    """

    method: str
    name: str = ""
    preset: str = "tiny"
    config: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name in tables."""
        return self.name or self.method


@dataclass(frozen=True)
class Budget:
    """``[budget]``: the length of every training, in ``steps`` or in ``minutes`` of optimiser steps.

    Raises:
        UsageError: ``MX-EXP-001``, not one of both, or nothing.
    """

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in (("steps", self.steps), ("minutes", self.minutes)) if value is not None}
        if len(given) != 1 or min(given.values()) <= 0:
            words = " and ".join(f"{name} = {value:g}" for name, value in given.items())
            raise UsageError(
                "MX-EXP-001",
                f"the budget is {words or 'not given'}",
                expected="one length above 0 for every training: steps or minutes",
                where="[budget]",
                fix="say how long each training may be, such as minutes = 10",
            )

    def __str__(self) -> str:
        return f"{self.steps} steps" if self.steps is not None else f"{self.minutes:g} minutes of optimiser steps"


@dataclass(frozen=True)
class EvaluationTable:
    """``[evaluation]``: how test results are measured and compared.

    Attributes:
        protocol: name of an evaluation protocol; its figures cannot be compared with those of another.
        match_intensity: map each result linearly onto the reference's percentiles first (``volume3d`` only).
        test: paired test between methods, over patients.
        keep_volumes: keep every synthetic volume of the test; otherwise only those that the report shows.
    """

    protocol: str = "volume3d"
    match_intensity: bool = False
    test: Literal["wilcoxon", "sign_flip"] = "wilcoxon"
    keep_volumes: bool = False

    def resolved(self) -> Protocol:
        """Return the protocol.

        Raises:
            UsageError: ``MX-MET-001`` (no such protocol), ``MX-MET-003`` (it cannot match intensities).
        """
        protocol = get_protocol(self.protocol)
        return with_matched_intensity(protocol) if self.match_intensity else protocol


@dataclass(frozen=True)
class Experiment:
    """The whole file; build it with :func:`load_experiment`.

    Raises:
        UsageError: ``MX-EXP-001`` to ``-004``, ``MX-EXP-008``, ``MX-USE-050`` and ``MX-USE-010`` (a direction),
            ``MX-MET-001`` (the protocol).
    """

    experiment: ExperimentTable
    budget: Budget
    data: DataTable
    method: tuple[MethodEntry, ...] = ()
    grid: GridSpec = field(default_factory=GridSpec)
    intensity: dict[str, dict[str, Any]] = field(default_factory=dict)
    training: TrainingTable = field(default_factory=TrainingTable)
    evaluation: EvaluationTable = field(default_factory=EvaluationTable)

    def __post_init__(self) -> None:
        _check_names(self.method)
        _check_lists(self.experiment)
        self.evaluation.resolved()
        for name in self.experiment.published:
            published_table(name)
        missing = [name for name in self.modalities if name not in self.intensity]
        if missing:
            raise UsageError(
                "MX-USE-048",
                f"the table [intensity.{missing[0]}] is missing",
                expected=f"one table for each of {', '.join(self.modalities)}",
                fix='add it, for example with kind = "percentile", lower = 0.5, upper = 99.5',
            )

    @property
    def directions(self) -> tuple[Direction, ...]:
        """All directions, in the order of the file."""
        return tuple(parse_direction(text, "[experiment] directions") for text in self.experiment.directions)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Everything that is a source or a target, each once."""
        return tuple(dict.fromkeys(name for names in modalities_of(self.directions) for name in names))

    @property
    def folder(self) -> Path:
        """The folder of runs and results."""
        return Path(self.experiment.output)


def load_experiment(
    path: Path, overrides: Sequence[str] = (), table: Path | None = None, output: Path | None = None
) -> Experiment:
    """Read an experiment file.

    Args:
        path: TOML file; relative paths in it start at its folder.
        overrides: ``table.key=value`` texts, applied in order.
        table: table of cases, instead of ``[data] table``.
        output: folder of the results, instead of ``[experiment] output``.

    Raises:
        UsageError: ``MX-USE-040`` to ``MX-USE-045`` (every message names the key), ``MX-EXP-001`` to ``-004``,
            ``MX-EXP-008``.
    """
    mapping = absolute_paths(read_toml(path), path.parent)
    for assignment in overrides:
        set_value(mapping, assignment)
    if table is not None:
        mapping.setdefault("data", {})["table"] = str(table.absolute())
    head = mapping.get("experiment")
    if isinstance(head, dict):
        text = head.get("output", "")
        if output is not None:
            head["output"] = str(output.absolute())
        elif isinstance(text, str):
            head["output"] = str((path.parent / (expanded(text) if text else f"{path.stem}-results")).absolute())
    return experiment_from_mapping(mapping, path.name)


def experiment_from_mapping(mapping: Mapping[str, Any], where: str = "experiment") -> Experiment:
    """Build an experiment from plain data; modalities may have any usual spelling. Raises as ``load_experiment``."""
    for table, keys in _SET_HERE.items():
        given = mapping.get(table)
        named = [key for key in keys if isinstance(given, Mapping) and key in given]
        if named:
            raise UsageError(
                "MX-EXP-004",
                f"[{table}] has {', '.join(named)}, which an experiment decides by itself",
                expected="directions and seeds in [experiment], the length in [budget]",
                where=where,
                fix="remove the key there",
            )
    rules = mapping.get("intensity")
    known = {Modality.parse(name).value: rule for name, rule in rules.items()} if isinstance(rules, Mapping) else rules
    complete = {**mapping, "intensity": known or {}, "data": mapping.get("data", {})}
    return read_dataclass(Experiment, {"budget": {}, **complete}, where)


def slug(text: str) -> str:
    """Return a text as the name of a folder: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("->", "-to-")).strip("-")


def _check_names(methods: Sequence[MethodEntry]) -> None:
    problem, seen = "" if methods else "no method is listed", {slug(name): name for name in BASELINES}
    for entry in methods:
        key = slug(entry.label)
        if not _NAME.fullmatch(entry.label):
            problem = problem or f"the name {entry.label!r} cannot be the name of a folder"
        elif key in seen:
            problem = problem or f"the name '{entry.label}' is given to two methods"
        seen[key] = entry.label
    if problem:
        raise UsageError(
            "MX-EXP-002",
            problem,
            expected="methods with different names of letters, digits and ' ._+()-'; "
            f"{' and '.join(BASELINES)} are always there",
            where="[[method]]",
            fix='give each method a name of its own, such as name = "TLP without prompts"',
        )


def _check_lists(table: ExperimentTable) -> None:
    directions = [str(parse_direction(text, "[experiment] directions")) for text in table.directions]
    problem = ""
    if not directions:
        problem = "no direction is given"
    elif len(set(directions)) != len(directions):
        problem = f"a direction is given twice: {', '.join(directions)}"
    elif not table.seeds or len(set(table.seeds)) != len(table.seeds) or min(table.seeds) < 0:
        problem = f"the seeds are {list(table.seeds)}"
    if problem:
        raise UsageError(
            "MX-EXP-003",
            problem,
            expected="at least one direction and one seed from 0, each once",
            where="[experiment]",
            fix='write, for example, directions = ["T1->T2"] and seeds = [0]',
        )
