"""A tiny cohort (noisy ellipsoids of 32 x 32 x 6 voxels with lesions), and what tests ask of runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from MedXlateCore.config import parse_toml, set_value
from MedXlateCore.io import write_volume
from MedXlateCore.training.config import TrainingConfig, config_from_mapping
from MedXlateCore.training.interruption import Interruption
from MedXlateCore.volume import Geometry, Modality, Volume

SPLITS = {"a": "train", "b": "train", "c": "train", "d": "val", "e": "val", "f": "test"}
CONFIG = """
model = { method = "tlp", preset = "tiny", config = { levels = 1 } }
recipe = { discriminator_width = 8 }
intensity = { T1 = { kind = "minmax" }, T2 = { kind = "percentile", upper = 99.9 }, T1ce = { kind = "minmax" } }
data = { sources = ["T1", "T2"], target = "T1ce" }

[grid.crop]
kind = "fixed"
size = [32, 32, "none"]
centre = "grid"

[training]
steps = 6
batch_size = 2
validate_every = 3
checkpoint_every = 2
log_every = 2
ema_decay = 0.9
accelerator = "cpu"
tensorboard = false
previews = 0
flip = true
"""


def blob_case(folder: Path, case: str, *, seed: int, shape: tuple[int, int, int] = (32, 32, 6)) -> dict[str, str]:
    """Write T1, T2, T1ce and a segmentation of one case; return its row."""
    rng = np.random.default_rng(seed)
    geometry = Geometry(shape, np.diag([-1.5, -1.5, 3.0, 1.0]))
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape), indexing="ij")
    head = (i / 0.8) ** 2 + (j / 0.9) ** 2 + (k / 1.2) ** 2 < 1
    texture = rng.normal(0, 0.05, shape) + 0.3 * np.cos(3 * i) * np.sin(4 * j)
    lesion = (i - 0.2) ** 2 + (j + 0.1) ** 2 + k**2 < 0.1
    core = (i - 0.2) ** 2 + (j + 0.1) ** 2 + k**2 < 0.06
    arrays = {
        "T1": head * (600 + 200 * texture - 80 * lesion),
        "T2": head * (400 - 150 * texture + 200 * lesion),
        "T1ce": head * (700 + 250 * texture + 500 * core),
    }
    row = {"case": case, "patient": f"P{case}", "split": SPLITS.get(case, "train")}
    for name, array in arrays.items():
        path = folder / f"{case}_{name}.nii.gz"
        write_volume(Volume(array.astype(np.float32), geometry, Modality.parse(name)), path)
        row[name] = path.name
    labels = (2 * lesion + 2 * core).astype(np.int16) * head
    write_volume(Volume(labels.astype(np.int16), geometry, Modality.LABEL), folder / f"{case}_seg.nii.gz")
    return {**row, "seg": f"{case}_seg.nii.gz"}


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write rows as a table of cases."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a table of cases."""
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def write_cohort(folder: Path) -> Path:
    """Write the tiny cohort and return its table."""
    return write_table(folder / "cases.csv", [blob_case(folder, case, seed=n) for n, case in enumerate(SPLITS)])


def config_for(table: Path, *overrides: str) -> TrainingConfig:
    """Return the tiny configuration for a table, with overrides such as ``training.steps=2``."""
    mapping = parse_toml(CONFIG.encode(), "tiny test configuration")
    for assignment in (f'data.table="{table}"', *overrides):
        set_value(mapping, assignment)
    return config_from_mapping(mapping)


class StopAtCheck(Interruption):
    """Stops at the n-th time that the run asks: between cases, steps or passes of a validation."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def check(self) -> None:
        """Count, and stop if it is time."""
        self.left -= 1
        self.requested = self.requested or self.left <= 0
        super().check()


def state_of(folder: Path) -> dict[str, object]:
    """Return everything that must be equal: tensors (by hash), progress, log, package."""
    newest = max((folder / "checkpoints").glob("*.json"))
    record = json.loads(newest.read_text())
    card = json.loads((folder / "model/model.json").read_text())
    return {
        "tensors": record["tensors"]["sha256"],
        "progress": record["progress"],
        "optimisers": record["optimisers"],
        "log": (folder / "metrics.csv").read_bytes(),
        "weights": card["weights"]["sha256"],
        "figures": card["metrics"],
    }
