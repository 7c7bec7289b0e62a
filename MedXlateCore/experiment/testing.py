"""The test of one run: every test case translated as a user would, and measured; time and memory."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch

from MedXlateCore.checks import check_sources, checked
from MedXlateCore.devices import choose_device
from MedXlateCore.directions import Direction
from MedXlateCore.errors import MedXlateError, Warned
from MedXlateCore.experiment.cases import data_of
from MedXlateCore.experiment.config import slug
from MedXlateCore.experiment.makers import BaselineMaker, Maker, ModelMaker
from MedXlateCore.experiment.measuring import compare, figures_of
from MedXlateCore.experiment.task import TESTED_FILE, Task, package_hashes
from MedXlateCore.files import read_json, write_json
from MedXlateCore.io import read_volume, write_volume
from MedXlateCore.models.card import read_card
from MedXlateCore.models.package import load_package
from MedXlateCore.provenance import software_versions, warnings_as_dicts
from MedXlateCore.training.table import CaseRow, read_table
from MedXlateCore.volume import Modality, Volume

__all__ = ["PeakMemory", "measure_run", "read_case", "trained_facts", "volume_path"]


class PeakMemory:
    """The largest memory since it was made: of the GPU's tensors, or of the whole process on a CPU.

    Attributes:
        before: bytes in use when it was made; None where the system does not say.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before: int | None = torch.cuda.memory_allocated(device)
        else:
            self.before = self.peak()

    def peak(self) -> int | None:
        """Return the largest number of bytes so far."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        try:
            import resource
        except ImportError:  # Windows does not have it
            return None
        usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return usage if sys.platform == "darwin" else usage * 1024


def measure_run(task: Task) -> dict[str, Any]:
    """Test what a run made on all test cases, write ``tested.json`` and return its content.

    A case that cannot be used is noted with its error and does not stop the others.

    Raises:
        MedXlateError: the model cannot be loaded, or a baseline's training cases cannot be prepared.
    """
    device = choose_device(task.config.training.accelerator)
    cache = Path(task.config.data.cache or task.folder / "cache")
    maker: Maker
    if task.baseline:
        maker = BaselineMaker(task.name, task.config, cache)
    else:
        maker = ModelMaker(load_package(task.training / "model"), task.config.data.labels, str(device.torch_device))
    memory = PeakMemory(device.torch_device)
    cases: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for direction in task.directions:
        for row in read_table(data_of(task.config.data, direction)).split("test"):
            about = {"direction": str(direction), "case": row.case, "patient": row.patient}
            try:
                cases.append({**about, **_test_case(task, maker, direction, row)})
            except MedXlateError as error:
                failed.append({**about, "error": error.as_dict()})
    facts = {
        "name": task.name,
        "seed": task.config.training.seed,
        "baseline": task.baseline,
        "identity": task.identity,
        "package": None if task.baseline else package_hashes(task.training / "model"),
        "parameters": maker.parameters,
        "training": {} if task.baseline else trained_facts(task.training),
        "device": {"name": device.name, "kind": device.torch_device.type},
        "memory": {"peak_bytes": memory.peak(), "before_bytes": memory.before},
        "cases": cases,
        "failed": failed,
        "software": software_versions(),
    }
    write_json(task.folder / TESTED_FILE, facts)
    return facts


def volume_path(folder: Path, direction: Direction | str, case: str) -> Path:
    """Return where a run keeps a synthetic volume of its test."""
    return folder / "volumes" / slug(str(direction)) / f"{case}.nii.gz"


def trained_facts(folder: Path) -> dict[str, Any]:
    """Return how a training went: steps, minutes of optimiser steps, the step that is exported, warnings.

    Of a latent model also ``ceiling``: by name, the figures of its autoencoder's round trip of the validation targets.
    """
    figures = read_card(folder / "model").metrics.get("figures", {})
    newest = max((folder / "checkpoints").glob("step-*.json"))
    record, run = read_json(newest), read_json(folder / "run.json")
    progress = record["progress"]
    return {
        "steps": progress["step"],
        "minutes": record["seconds"] / 60,
        "best_step": progress["best_step"],
        "device": run["device"],
        "warnings": run["warnings"],
        "ceiling": {name: figures[name]["mean"] for name in figures if "ceiling." in name},
    }


def _test_case(task: Task, maker: Maker, direction: Direction, row: CaseRow) -> dict[str, Any]:
    """Return figures, seconds and warnings of one case."""
    sources, acquired, regions = read_case(row, direction)
    reference, found = checked(acquired)
    pair = [*(checked(volume)[0] for volume in sources), reference]
    warnings = [*found, *check_sources(pair, [volume.modality for volume in pair])]
    roi = regions if task.prompt == "given" and maker.takes_regions else None
    began = time.perf_counter()
    synthetic, record = maker.make(sources, direction, roi)
    seconds = time.perf_counter() - began
    comparison = compare(synthetic, reference, task.evaluation.resolved(), regions, task.config.data.labels)
    if task.evaluation.keep_volumes or task.shown.get(str(direction)) == row.case:
        write_volume(synthetic, volume_path(task.folder, direction, row.case), record or {"baseline": task.name})
    own = [Warned(**warning) for warning in (record or {}).get("warnings", [])]
    return {
        "seconds": seconds,
        "prompt": roi is not None,
        "figures": figures_of(comparison.result),
        "warnings": warnings_as_dicts([*warnings, *own, *comparison.warnings]),
    }


def read_case(row: CaseRow, direction: Direction) -> tuple[list[Volume], Volume, Volume | None]:
    """Return sources, reference and lesion label map of a case."""
    sources = [read_volume(row.images[name], name) for name in direction.sources]
    regions = read_volume(row.regions, Modality.LABEL) if row.regions else None
    return sources, read_volume(row.images[direction.target], direction.target), regions
