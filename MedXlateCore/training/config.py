"""The training configuration: one TOML file (or a preset), read into frozen dataclasses and checked before all else.

Tables: ``[model]`` what is trained, ``[recipe]`` the method's own constants, ``[data]`` which cases, ``[grid]`` and
``[intensity.<MODALITY>]`` how volumes become network input, ``[training]`` the run, ``[package]`` what the model's
card says. A key that nobody reads is refused with the nearest valid name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np

from MedXlateCore.config import nearest, parse_toml, read_dataclass, read_toml, set_value, to_mapping
from MedXlateCore.directions import Direction, modalities_of, parse_direction
from MedXlateCore.errors import UsageError
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset, list_methods
from MedXlateCore.prompts.roi import DEFAULT_LABELS, regions_from_labels
from MedXlateCore.transforms.intensity import normaliser_from_dict
from MedXlateCore.transforms.spatial import GridSpec
from MedXlateCore.volume import Modality

__all__ = [
    "DataTable",
    "ModelTable",
    "PackageTable",
    "TrainingConfig",
    "TrainingTable",
    "list_presets",
    "load_config",
    "preset_text",
]

LENGTHS = ("steps", "epochs", "minutes")
_NOT_PART_OF_THE_RESULT = {
    "data": ("table", "cache", "workers"),  # which cases these led to is the data's fingerprint
    "training": ("accelerator", "devices", "checkpoint_every", "keep_checkpoints", "tensorboard", "previews"),
}


@dataclass(frozen=True)
class ModelTable:
    """``[model]``: the method, one of its presets, and single settings that differ from the preset."""

    method: str
    preset: str = "tiny"
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataTable:
    """``[data]``: the table of cases and what is read from it.

    Attributes:
        table: CSV file with the columns ``case, patient, split``, one per modality, and optionally ``seg``; for a
            method for many scans a patient the table of scans, see ``scan_table``, from which the directions follow
            where none are given.
        sources: source modalities in channel order; the first one's grid is the reference.
        target: modality to make.
        directions: instead of both: several directions for one network, such as ``["T1->T2", "T2->T1"]``.
        roi: column of the lesion label maps; ``none`` if there are none.
        labels: label values by region (oedema, core).
        ignored_labels: label values that are neither, such as tissue classes; any other value is an error.
        where: only rows in which these columns hold these values.
        slices: first and past-the-last slice of the model grid that is used; all by default.
        missing: ``skip`` (and record) or refuse (``error``) cases that lack a source or the target.
        cache: folder of preprocessed volumes; ``cache`` inside the run's folder by default.
        cache_dtype: ``float16`` halves the cache, at an error of up to 5e-4 on [-1, 1].
        workers: threads that preprocess volumes.
    """

    table: str = ""
    sources: tuple[str, ...] = ()
    target: str = ""
    directions: tuple[str, ...] = ()
    roi: str | None = "seg"
    labels: dict[str, tuple[int, ...]] = field(default_factory=lambda: {k: tuple(v) for k, v in DEFAULT_LABELS.items()})
    ignored_labels: tuple[int, ...] = ()
    where: dict[str, str] = field(default_factory=dict)
    slices: tuple[int, int] | None = None
    missing: Literal["skip", "error"] = "skip"
    cache: str | None = None
    cache_dtype: Literal["float32", "float16"] = "float32"
    workers: int = 1


@dataclass(frozen=True)
class TrainingTable:
    """``[training]``: length, batch, bookkeeping and devices of the run.

    Attributes:
        steps: number of optimiser steps; or
        epochs: passes over the training slices; or
        minutes: time spent on optimiser steps. Exactly one of the three. How far a run gets in given minutes depends on
            the machine, so such a run cannot be repeated bit by bit; its record says so (``MX-TRN-016``).
        batch_size: slices a step and device.
        learning_rate: None for the method's own.
        seed: of initial weights, order of slices and random prompts.
        validate_every: steps between validations; 0 for once an epoch, or after each quarter of given minutes.
        validation_cases: at most so many validation cases, by name; 0 for all.
        checkpoint_every: steps between checkpoints; 0 for the same as ``validate_every``.
        keep_checkpoints: so many of the newest checkpoints are kept.
        log_every: steps over which losses are averaged for one row of ``metrics.csv``.
        ema_decay: of the exponential moving average of the generator's weights (with warm-up); 0 for none.
        precision: Lightning Fabric's name.
        accelerator: Lightning Fabric's: ``auto``, ``cpu``, ``cuda`` or ``mps``; also ``cuda:1`` for the second GPU.
        devices: number of devices.
        deterministic: refuse operations that are not deterministic on a GPU.
        flip: mirror slices left-right at random.
        tensorboard: write TensorBoard files beside ``metrics.csv``.
        previews: pictures per validation.
    """

    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch_size: int = 4
    learning_rate: float | None = None
    seed: int = 0
    validate_every: int = 0
    validation_cases: int = 0
    checkpoint_every: int = 0
    keep_checkpoints: int = 2
    log_every: int = 10
    ema_decay: float = 0.0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    accelerator: str = "auto"
    devices: int = 1
    deterministic: bool = False
    flip: bool = False
    tensorboard: bool = True
    previews: int = 2

    def __post_init__(self) -> None:
        at_least = {"batch_size": 1, "log_every": 1, "keep_checkpoints": 1, "devices": 1, "steps": 1, "seed": 0}
        at_least |= dict.fromkeys(("validate_every", "validation_cases", "checkpoint_every", "previews"), 0)
        for name, least in at_least.items():
            value = getattr(self, name)
            _require(value is None or value >= least, name, value, f"at least {least}")
        for name in ("epochs", "minutes", "learning_rate"):
            value = getattr(self, name)
            _require(value is None or value > 0, name, value, "above 0")
        _require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "from 0 to below 1")


@dataclass(frozen=True)
class PackageTable:
    """``[package]``: what the exported model's card says; it is shown to whoever uses the model."""

    name: str = "untitled"
    version: str = "0.1.0"
    licence: str = "not stated"
    intended_use: str = "Research on image synthesis. Research use only, not for diagnosis."
    not_for: tuple[str, ...] = ("diagnosis", "treatment decisions", "judging whether a lesion is present or enhances")
    training_data: str = "not stated"
    citation: str = ""


@dataclass(frozen=True)
class TrainingConfig:
    """The whole configuration of a run; build it with :func:`load_config`.

    Raises:
        UsageError: ``MX-USE-042`` (a value out of its range), ``MX-USE-046`` (not one length),
            ``MX-USE-047`` (sources and target do not make sense), ``MX-USE-048`` (a modality without normaliser).
    """

    model: ModelTable
    data: DataTable
    grid: GridSpec
    intensity: dict[str, dict[str, Any]]
    training: TrainingTable
    recipe: dict[str, Any] = field(default_factory=dict)
    package: PackageTable = field(default_factory=PackageTable)

    def __post_init__(self) -> None:
        _check_length(self.training)
        if self.data.sources or self.data.target or self.data.directions or not self._many_scans:
            _check_modalities(self.data)
        slices = self.data.slices
        _require(slices is None or 0 <= slices[0] < slices[1], "data.slices", slices, "0 <= first < past the last")
        _require(self.data.workers >= 1, "data.workers", self.data.workers, "at least 1")
        wanted = [name for names in modalities_of(self.directions) for name in names]
        missing = [name for name in wanted if name not in self.intensity]
        if missing:
            raise UsageError(
                "MX-USE-048",
                f"the table [intensity.{missing[0]}] is missing",
                expected=f"one table for each of {', '.join(dict.fromkeys(wanted))}",
                fix='add it, for example with kind = "percentile", lower = 0.5, upper = 99.5',
            )
        for name in wanted:
            normaliser_from_dict(self.intensity[name])
        regions_from_labels(np.zeros(1), self.data.labels)

    def architecture(self) -> Any:
        """Return the method's configuration: the preset with what ``[model.config]`` changes."""
        return get_preset(get_method(self.model.method), self.model.preset, self.model.config, "[model.config]")

    def recipe_config(self) -> Any:
        """Return the recipe's configuration: the preset's with what ``[recipe]`` changes."""
        return get_recipe_preset(get_method(self.model.method), self.model.preset, self.recipe, "[recipe]")

    @property
    def _many_scans(self) -> bool:
        name = self.model.method  # of an experiment it need not be a method that trains
        return name in list_methods() and get_method(name).many_scans

    @property
    def directions(self) -> tuple[Direction, ...]:
        """What the network learns: the directions that ``[data]`` lists, or the one from its sources to its target.

        Of a method for many scans a patient none before its table of scans is known.
        """
        if self.data.directions or self._many_scans:
            return tuple(parse_direction(text, "[data] directions") for text in self.data.directions)
        return (Direction(self.data.sources, self.data.target),)

    def towards(self, direction: Direction) -> TrainingConfig:
        """Return the configuration with this direction only, as if the data had no other."""
        data = replace(self.data, sources=direction.sources, target=direction.target, directions=())
        return replace(self, data=data)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Sources in channel order, then the target; of a configuration with one direction."""
        return (*self.data.sources, self.data.target)

    def to_mapping(self) -> dict[str, Any]:
        """Return the configuration as plain data, every default spelled out."""
        return {**to_mapping(self), "grid": self.grid.to_dict()}

    def identity(self) -> str:
        """Return the SHA-256 of everything that decides the trained weights, the data apart."""
        mapping = self.to_mapping()
        for table, keys in _NOT_PART_OF_THE_RESULT.items():
            for key in keys:
                mapping[table].pop(key)
        if mapping["training"]["minutes"] is None:  # so that runs from before this setting have the identity they had
            mapping["training"].pop("minutes")
        mapping.pop("package")
        return hashlib.sha256(json.dumps(mapping, sort_keys=True).encode()).hexdigest()


def load_config(
    path: Path | None = None, preset: str | None = None, overrides: Sequence[str] = (), table: Path | None = None
) -> TrainingConfig:
    """Read a configuration file or a preset, and apply overrides.

    Args:
        path: TOML file; relative paths in it start at its folder.
        preset: name of a preset shipped with MedXlate, instead of ``path``.
        overrides: ``table.key=value`` texts, applied in order.
        table: table of cases, instead of ``[data] table``.

    Raises:
        UsageError: ``MX-USE-040`` to ``MX-USE-049``; every message names the key.
    """
    if (path is None) == (preset is None):
        raise UsageError(
            "MX-USE-049",
            "both a configuration file and a preset are given"
            if path
            else "neither a configuration nor a preset is given",
            expected="one of both",
            where="medxlate train",
            fix=f"name a TOML file, or --preset with one of {', '.join(list_presets())}",
        )
    if path is not None:
        where, mapping = path.name, absolute_paths(read_toml(path), path.parent)
    else:
        where = f"preset {preset}"
        mapping = parse_toml(preset_text(str(preset)).encode(), where)
    for assignment in overrides:
        set_value(mapping, assignment)
    _one_length(mapping, overrides)
    if table is not None:
        mapping.setdefault("data", {})["table"] = str(table.absolute())
    return config_from_mapping(mapping, where)


def config_from_mapping(mapping: Mapping[str, Any], where: str = "configuration") -> TrainingConfig:
    """Build the configuration from plain data: modality names spelled as usual, slice sizes that suit the network.

    Raises:
        UsageError: ``MX-USE-040`` to ``MX-USE-048``; ``MX-MOD-001`` to ``-006`` (method, preset, architecture);
            ``MX-TRN-013``, ``MX-TRN-014``, or what else the method refuses about the directions.
    """
    config = _told_directions(_told_scans(read_dataclass(TrainingConfig, _canonical(mapping), where)))
    method, architecture = get_method(config.model.method), config.architecture()
    method.check_directions(architecture, config.directions)
    multiple = method.size_multiple(architecture)
    i, j, k = config.grid.size_multiple
    depth = math.lcm(k, multiple) if method.volumetric else k
    grid = replace(config.grid, size_multiple=(math.lcm(i, multiple), math.lcm(j, multiple), depth))
    model = replace(config.model, config=to_mapping(architecture))  # spelled out: a preset may change
    recipe = to_mapping(config.recipe_config())
    return replace(config, model=model, recipe=recipe, grid=grid, package=_named(config))


def _told_scans(config: TrainingConfig) -> TrainingConfig:
    """Tell a method for many scans a patient what its table of scans holds."""
    if not get_method(config.model.method).many_scans or not Path(config.data.table).is_file():
        return config
    from MedXlateCore.training.scan_table import told_scans

    return told_scans(config)


def _told_directions(config: TrainingConfig) -> TrainingConfig:
    """Tell a method for several directions which these are, in its own configuration."""
    if not hasattr(config.architecture(), "directions") or not config.directions:
        return config
    known = {**config.model.config, "directions": [str(direction) for direction in config.directions]}
    return replace(config, model=replace(config.model, config=known))


def list_presets() -> list[str]:
    """Return the names of the presets shipped with MedXlate."""
    folder = resources.files("MedXlateCore") / "resources" / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def preset_text(name: str) -> str:
    """Return a preset's TOML text.

    Raises:
        UsageError: ``MX-USE-042``, there is no such preset.
    """
    known = list_presets()
    if name not in known:
        guess = nearest(name, known)
        raise UsageError(
            "MX-USE-042",
            f"the preset '{name}' is not known",
            expected=f"one of {', '.join(known)}",
            where="--preset",
            fix=f"did you mean '{guess}'?" if guess else "choose one of the expected names",
        )
    return (resources.files("MedXlateCore") / "resources" / "presets" / f"{name}.toml").read_text("utf-8")


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise UsageError("MX-USE-042", f"{name} is {value}", expected=expected, fix="correct the value")


def _check_length(training: TrainingTable) -> None:
    given = [name for name in LENGTHS if getattr(training, name) is not None]
    if len(given) != 1:
        raise UsageError(
            "MX-USE-046",
            f"{' and '.join(given)} are given" if given else "none of steps, epochs and minutes is given",
            expected="exactly one of steps, epochs and minutes",
            where="[training]",
            fix="say how long to train, such as steps = 2000",
        )


def _check_modalities(data: DataTable) -> None:
    problem = ""
    if data.directions:
        if data.sources or data.target:
            problem = "both directions and sources or target are given"
        elif len(set(data.directions)) != len(data.directions):
            problem = "a direction is given twice"
    elif not data.sources:
        problem = "no source modality is given"
    elif not data.target:
        problem = "no target modality is given"
    elif len(set(data.sources)) != len(data.sources):
        problem = f"a source is named twice: {', '.join(data.sources)}"
    elif data.target in data.sources:
        problem = f"the target {data.target} is also a source"
    if problem:
        raise UsageError(
            "MX-USE-047",
            problem,
            expected='different modalities, such as sources = ["T1", "T2"] and target = "T1ce", or directions alone',
            where="[data]",
            fix="correct sources and target",
        )


def _canonical(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Spell modalities as :class:`Modality` does; leave whatever has the wrong type for the reader to refuse."""
    result = dict(mapping)
    if isinstance(data := result.get("data"), dict):
        data = result["data"] = dict(data)
        if isinstance(sources := data.get("sources"), list) and all(isinstance(name, str) for name in sources):
            data["sources"] = [Modality.parse(name).value for name in sources]
        if isinstance(target := data.get("target"), str) and target:
            data["target"] = Modality.parse(target).value
        if isinstance(texts := data.get("directions"), list) and all(isinstance(text, str) for text in texts):
            data["directions"] = [str(parse_direction(text, "[data] directions")) for text in texts]
    if isinstance(intensity := result.get("intensity"), dict):
        result["intensity"] = {Modality.parse(name).value: rule for name, rule in intensity.items()}
    return {"grid": {}, "intensity": {}, "data": {}, "training": {}, **result}


def _named(config: TrainingConfig) -> PackageTable:
    if config.package.name != PackageTable.name:
        return config.package
    several = config.data.directions
    task = f"{len(several)}-directions" if several else f"{'-'.join(config.data.sources)}-to-{config.data.target}"
    task = task.lower()
    return replace(config.package, name=f"{config.model.method}-{config.model.preset}-{task}")


def absolute_paths(mapping: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Let the paths of ``[data]`` start at a folder, in place; return the mapping."""
    data = mapping.get("data")
    if isinstance(data, dict):
        for key in ("table", "cache"):
            if isinstance(text := data.get(key), str) and text not in ("", "none"):
                data[key] = str((folder / expanded(text)).absolute())
    return mapping


def expanded(text: str) -> Path:
    """Return a path with a leading ``~`` replaced by the home folder; as it is where there is no such user."""
    with contextlib.suppress(RuntimeError):
        return Path(text).expanduser()
    return Path(text)


def _one_length(mapping: dict[str, Any], overrides: Sequence[str]) -> None:
    """Let an override of steps, epochs or minutes replace what the file says of the others."""
    named = {text.partition("=")[0].strip().removeprefix("training.") for text in overrides}
    given = named.intersection(LENGTHS)
    training = mapping.get("training")
    if len(given) == 1 and isinstance(training, dict):
        for name in given.symmetric_difference(LENGTHS):
            training.pop(name, None)
