"""Memory while training, for a small and a large cohort: training data must not be held in memory.

    python Testing/benchmarks/training_memory.py [--cases 4 64] [--size 96 112 40] [--steps 8] [--json FILE]

Each cohort is trained in a process of its own, with the same settings; a quarter of its cases, at most four, are for
validation. A thread reads ``/proc/self/smaps_rollup`` (Linux) all the time. Counted is everything resident: program,
libraries, heap, and pages of mapped files, though the system could take these back at any time.
Phantoms are costly: four heads are made, and every further case is one of them at another brightness.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODALITIES = ("T1", "T2", "T1ce")
HEADS = 4
FIELDS = {"Rss": "resident", "Anonymous": "anonymous"}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, nargs="+", default=[4, 64])
    parser.add_argument("--size", type=int, nargs=3, default=[96, 112, 40], metavar=("I", "J", "K"))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(train_and_watch(options.child, options.size, options.steps)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        report = compare(Path(folder), options.cases, tuple(options.size), options.steps)
    text = json.dumps(report, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


def compare(folder: Path, cohorts: list[int], size: tuple[int, ...], steps: int) -> dict:
    """Train on cohorts of several sizes; return the peaks of each in MiB and the ratio of the last to the first."""
    heads = make_heads(folder / "heads", size)
    rows = []
    for cases in cohorts:
        run = folder / str(cases)
        write_cohort(run, heads, cases)
        command = [sys.executable, __file__, "--child", str(run), "--steps", str(steps), "--size", *map(str, size)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment)
        cache = sum(path.stat().st_size for path in (run / "run/cache").glob("*.npy"))
        rows.append(
            {"cases": cases, "prepared_mib": round(cache / 2**20, 1), **json.loads(done.stdout.splitlines()[-1])}
        )
    ratio = rows[-1]["resident_mib"] / rows[0]["resident_mib"]
    return {"size": list(size), "steps": steps, "cohorts": rows, "ratio_of_resident_memory": round(ratio, 3)}


def make_heads(folder: Path, size: tuple[int, ...]) -> list[dict[str, Path]]:
    """Make four phantoms and return their files by column."""
    from MedXlateCore.phantom.cohort import CohortPlan, write_cohort
    from MedXlateCore.volume import Modality

    i, j, k = size
    modalities = tuple(Modality.parse(name) for name in MODALITIES)
    plan = CohortPlan(HEADS, shape=(i, j, k), modalities=modalities, splits=(HEADS, 0, 0), lesion_free_fraction=0)
    for _ in write_cohort(plan, folder):
        pass
    with (folder / "cases.csv").open(newline="") as stream:
        return [{key: folder / row[key] for key in (*MODALITIES, "seg")} for row in csv.DictReader(stream)]


def write_cohort(folder: Path, heads: list[dict[str, Path]], cases: int) -> None:
    """Write a cohort: the heads at ever other brightness, so that no two cases are the same."""
    from MedXlateCore.io import read_volume, write_volume
    from MedXlateCore.volume import Volume

    folder.mkdir()
    rows = []
    validation = max(1, min(4, cases // 4))
    for number in range(cases):
        split = "val" if number < validation else "train"
        row = {"case": f"c{number:03d}", "split": split, "seg": str(heads[number % len(heads)]["seg"])}
        for name in MODALITIES:
            volume = read_volume(heads[number % len(heads)][name], name)
            path = folder / f"{number}_{name}.nii"
            write_volume(Volume(volume.array * (1 + number / 100), volume.geometry, volume.modality), path)
            row[name] = path.name
        rows.append(row)
    with (folder / "cases.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def train_and_watch(folder: Path, size: list[int], steps: int) -> dict[str, float]:
    """Train on a cohort in this process; return peaks of its memory in MiB, and where it stood before."""
    import torch

    from MedXlateCore.training.config import load_config
    from MedXlateCore.training.run import train

    torch.set_num_threads(1)
    overrides = [
        f"training.steps={steps}", "training.batch_size=2", f"training.validate_every={steps}",
        'training.accelerator="cpu"', "training.tensorboard=false", "training.previews=0",
        "model.config.dim=8", "model.config.levels=1", "recipe.discriminator_width=8",
        'grid.spacing_mm=["none", "none", "none"]', f'grid.crop.size=[{size[0]}, {size[1]}, "none"]',
    ]  # fmt: skip
    config = load_config(None, "tlp-tiny", overrides, folder / "cases.csv")
    watch = Watch()
    before = dict(watch.peaks)
    train(config, folder / "run", quiet=True)
    watch.stop()
    peaks = {f"{name}_mib": round(watch.peaks[name] / 1024, 1) for name in watch.peaks}
    return {**peaks, "resident_before_mib": round(before["resident"] / 1024, 1), "samples": watch.samples}


class Watch:
    """Reads the process's memory every few milliseconds, in a thread of its own, and keeps the peaks in KiB."""

    def __init__(self, interval_s: float = 0.02) -> None:
        self.peaks = dict.fromkeys(FIELDS.values(), 0)
        self.samples = 0
        self._interval_s, self._done = interval_s, threading.Event()
        self._read()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take a last reading and end."""
        self._done.set()
        self._thread.join()
        self._read()

    def _run(self) -> None:
        while not self._done.wait(self._interval_s):
            self._read()

    def _read(self) -> None:
        self.samples += 1
        for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
            key, _, value = line.partition(":")
            if key in FIELDS:
                self.peaks[FIELDS[key]] = max(self.peaks[FIELDS[key]], int(value.split()[0]))


if __name__ == "__main__":
    sys.exit(main())
