"""Checkpoints: everything an interrupted run needs to go on as if nothing had happened, as data (no pickle).

A checkpoint is two files: ``step-N-HASH.safetensors`` with all tensors (weights, moving average, optimiser states) and
``step-N.json``, written last, with the numbers and the tensors' SHA-256. What has no readable JSON or another hash does
not count. States of random generators are not stored, because there are none to store: what a
step draws is a function of the seed and the step's number.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from MedXlateCore.config import read_dataclass
from MedXlateCore.errors import InputError, MedXlateError, UsageError, Warned
from MedXlateCore.files import (
    atomic_write_bytes,
    check_writable,
    read_bytes,
    read_json,
    remove_stale_temporaries,
    write_json,
)

__all__ = ["Checkpoint", "Progress", "load_newest", "restore", "save"]

CHECKPOINT_FORMAT = 1


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: optimiser steps done.
        validated: step of the last validation, -1 before the first.
        best_score: lowest validation score so far; None before the first.
        best_step: its step.
        sums: sums of the losses since the last row of the log.
        summed: number of steps they cover.
        rows: rows written to ``metrics.csv``.
        averaged: steps that the moving average has taken in.
    """

    step: int = 0
    validated: int = -1
    best_score: float | None = None
    best_step: int = -1
    sums: dict[str, float] = field(default_factory=dict)
    summed: int = 0
    rows: int = 0
    averaged: int = 0

    def copy(self) -> Progress:
        """Return a copy that does not change with this one."""
        return replace(self, sums=dict(self.sums))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and whose hash is right; see :func:`restore`."""

    path: Path
    progress: Progress
    tensors: dict[str, Tensor]
    optimisers: dict[str, Any]
    config: dict[str, Any]
    identity: str
    data: str
    seconds: float = 0.0


def save(
    folder: Path,
    progress: Progress,
    networks: Mapping[str, nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
    *,
    config: Mapping[str, Any],
    identity: str,
    data: str,
    keep: int,
    seconds: float = 0.0,
) -> Path:
    """Write a checkpoint and delete all but the newest ``keep``.

    Args:
        folder: the run's checkpoint folder.
        progress: where the run stands.
        networks: by name; the moving average is one of them.
        optimisers: by name.
        config: the configuration, for messages; ``identity`` is its hash.
        data: fingerprint of the training data.
        keep: how many checkpoints are kept.
        seconds: time spent on optimiser steps so far.

    Raises:
        ResourceError: ``MX-FIL-010`` to ``-016``, it cannot be written; the earlier checkpoints are untouched.
        UsageError: ``MX-TRN-008``, an optimiser's state is neither numbers nor tensors.
    """
    tensors: dict[str, Tensor] = {}
    for name, network in networks.items():
        tensors |= {f"network/{name}/{key}": value for key, value in network.state_dict().items()}
    described = {name: _describe_optimiser(name, optimiser, tensors) for name, optimiser in optimisers.items()}
    content = safetensors.torch.save({key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()})
    sha256 = hashlib.sha256(content).hexdigest()
    path = folder / f"step-{progress.step:08d}.json"
    tensor_path = path.with_name(f"{path.stem}-{sha256[:12]}.safetensors")
    check_writable(tensor_path, needed_bytes=len(content))
    atomic_write_bytes(tensor_path, content)
    record = {
        "format": CHECKPOINT_FORMAT,
        "progress": asdict(progress),
        "tensors": {"file": tensor_path.name, "sha256": sha256},
        "optimisers": described,
        "identity": identity,
        "data": data,
        "seconds": seconds,
        "config": config,
    }
    write_json(path, record)
    _delete_others(path, keep)
    return path


def load_newest(folder: Path) -> tuple[Checkpoint | None, list[Warned]]:
    """Return the newest whole checkpoint of a run, or None if there never was one, and what was wrong with newer ones.

    Raises:
        InputError: ``MX-TRN-005``, there are checkpoints but none is whole.
    """
    warnings: list[Warned] = []
    paths = sorted(folder.glob("step-*.json"), reverse=True)
    for path in paths:
        try:
            return _load(path), warnings
        except MedXlateError as error:
            warnings.append(Warned("MX-TRN-010", error.found, str(path), "an older checkpoint is used"))
    if paths:
        raise InputError(
            "MX-TRN-005",
            f"none of {len(paths)} checkpoints is whole; the newest: {warnings[0].found}",
            expected="a checkpoint whose files are complete",
            where=str(folder),
            fix="restore the folder from a backup, or start a new run in another folder",
        )
    return None, warnings


def restore(
    checkpoint: Checkpoint, networks: Mapping[str, nn.Module], optimisers: Mapping[str, torch.optim.Optimizer]
) -> None:
    """Put a checkpoint's state into networks and optimisers.

    Raises:
        InputError: ``MX-TRN-006``, the checkpoint belongs to other networks or optimisers.
    """
    by_network: dict[str, dict[str, Tensor]] = {name: {} for name in networks}
    try:
        for key, tensor in checkpoint.tensors.items():
            kind, name, rest = key.split("/", 2)
            if kind == "network":
                by_network[name][rest] = tensor
        for name, network in networks.items():
            network.load_state_dict(by_network[name], strict=True)
        for name, optimiser in optimisers.items():
            optimiser.load_state_dict(_optimiser_state(name, checkpoint, optimiser))
    except (KeyError, IndexError, ValueError, RuntimeError, TypeError) as error:
        raise InputError(
            "MX-TRN-006",
            f"the checkpoint does not fit the networks: {str(error).strip().splitlines()[0][:300]}",
            expected="the state of the networks and optimisers that the configuration describes",
            where=str(checkpoint.path),
            fix="resume with the version of MedXlate that wrote it, or start a new run in another folder",
        ) from error


def _load(path: Path) -> Checkpoint:
    record = read_json(path)
    try:
        if record["format"] != CHECKPOINT_FORMAT:
            raise _unreadable(path, f"its format is {record['format']}")
        content = read_bytes(path.with_name(Path(record["tensors"]["file"]).name))
        found = hashlib.sha256(content).hexdigest()
        if found != record["tensors"]["sha256"]:
            raise _unreadable(path, f"its tensors have the SHA-256 {found}")
        # written before methods had stages: the moving average took in every step
        progress = read_dataclass(Progress, {"averaged": record["progress"]["step"], **record["progress"]}, str(path))
        tensors = safetensors.torch.load(content)
        rest = {key: record[key] for key in ("optimisers", "config", "identity", "data")}
    except (KeyError, TypeError, SafetensorError) as error:
        raise _unreadable(path, f"it lacks {error}") from error
    return Checkpoint(path, progress, tensors, **rest, seconds=float(record.get("seconds", 0.0)))


def _unreadable(path: Path, problem: str) -> InputError:
    return InputError(
        "MX-TRN-010",
        f"the checkpoint is damaged: {problem}",
        expected="a complete checkpoint",
        where=str(path),
        fix="an older checkpoint is used where there is one",
    )


def _describe_optimiser(name: str, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Add an optimiser's tensors to ``tensors`` and return its numbers."""
    state = optimiser.state_dict()
    numbers: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        numbers[str(index)] = {}
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser/{name}/{index}/{key}"] = value
            else:
                numbers[str(index)][key] = _plain(value, f"optimiser '{name}', {key}")
    groups = [
        {key: _plain(value, f"optimiser '{name}', {key}") for key, value in g.items()} for g in state["param_groups"]
    ]
    return {"state": numbers, "param_groups": groups}


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item, where) for item in value]
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()
    raise UsageError(
        "MX-TRN-008",
        f"the state of an optimiser holds {value!r} ({type(value).__name__})",
        expected="finite numbers, texts and tensors",
        where=where,
        fix="use an optimiser of torch.optim in the recipe",
    )


def _optimiser_state(name: str, checkpoint: Checkpoint, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    stored = checkpoint.optimisers[name]
    state: dict[int, dict[str, Any]] = {int(index): dict(entries) for index, entries in stored["state"].items()}
    for key, tensor in checkpoint.tensors.items():
        kind, owner, rest = key.split("/", 2)
        if kind == "optimiser" and owner == name:
            index, entry = rest.split("/", 1)
            state[int(index)][entry] = tensor
    groups = []
    for group, current in zip(stored["param_groups"], optimiser.state_dict()["param_groups"], strict=True):
        if set(group) != set(current) or len(group["params"]) != len(current["params"]):
            raise ValueError(f"the optimiser '{name}' has other settings or parameters")
        # JSON knows lists only; betas and the like were tuples
        groups.append({key: tuple(v) if isinstance(current[key], tuple) else v for key, v in group.items()})
    return {"state": state, "param_groups": groups}


def _tensor_file(path: Path) -> str:
    try:
        return str(read_json(path)["tensors"]["file"])
    except (InputError, KeyError, TypeError):  # a damaged checkpoint names nothing worth keeping
        return ""


def _delete_others(newest: Path, keep: int) -> None:
    """Keep ``newest`` and the ``keep`` - 1 before it; later ones, from before the run went back, go too."""
    folder = newest.parent
    earlier = sorted((path for path in folder.glob("step-*.json") if path.name <= newest.name), reverse=True)
    kept = {path.stem for path in earlier[:keep]}
    for path in folder.glob("step-*.json"):
        if path.stem not in kept:
            path.unlink(missing_ok=True)  # first: without its JSON a checkpoint does not count
    named = {_tensor_file(folder / f"{stem}.json") for stem in kept}
    for path in folder.glob("step-*.safetensors"):
        if path.name not in named:
            path.unlink(missing_ok=True)
    remove_stale_temporaries(folder)
