"""Train ALDM on phantoms, and measure what it can, what it costs, and how far its own doubt can be trusted.

    python Docs/results/aldm-phantoms/run.py --work runs/aldm-phantoms

Needs the phantoms that ``make aldm-phantoms`` writes first. One ALDM learns three directions (``aldm.toml``); a 2D
U-Net for the first of them gets a third of the minutes that ALDM took (``unet.toml``).
Trainings that are there are not repeated. All figures are taken on the model's grid, with the normalised target in
[0, 1], inside the head, on test heads that no training and no choice has seen; means are over heads, with 95 %
bootstrap intervals. Samplers and numbers of steps are compared on the validation heads. Writes ``tables.md``,
``figures.csv``, ``steps.csv``, ``steps.svg``, ``uncertainty.svg`` and the pictures beside this file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy.stats import spearmanr
from writing import tables, write_csv

from MedXlateCore.inference.prepare import unstack
from MedXlateCore.inference.slices import predict_slices
from MedXlateCore.inference.volumes import PredictedVolume, predict_volume
from MedXlateCore.metrics.image import mean_absolute_error, mean_squared_error, peak_signal_to_noise, ssim_map
from MedXlateCore.metrics.pictures import Tile, slice_panel, stack_panels
from MedXlateCore.metrics.plots import curves_svg
from MedXlateCore.metrics.protocols import get_protocol
from MedXlateCore.models.package import load_package
from MedXlateCore.models.sampling import Sampling
from MedXlateCore.training.cache import PreparedCase, open_case
from MedXlateCore.training.config import TrainingConfig, load_config
from MedXlateCore.training.data import SliceData, fit_to_size, mean_image, prepare_data
from MedXlateCore.training.table import read_table
from MedXlateCore.volume import Modality, Volume

HERE = Path(__file__).resolve().parent
SAMPLERS: tuple[Literal["ddim", "dpm_solver", "ddpm"], ...] = ("ddim", "dpm_solver", "ddpm")
STEPS = (200, 50, 20, 15, 10, 5, 2, 1)
ONE = "ALDM, one step"
METHODS = ("identity", "mean image", "U-Net 2D", "MS-SPADE alone", "ALDM", ONE)  # and means of samples, the ceiling
SHOWN = {"U-Net 2D": "U-Net 2D", "MS-SPADE alone": "MS-SPADE", "ALDM": "ALDM", ONE: "one step"}


def main() -> int:
    """Train what is missing, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/aldm-phantoms"), help="folder with phantoms/, for runs")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the tables and pictures")
    parser.add_argument(
        "--samples", type=int, nargs="+", default=[8, 32], metavar="N",
        help="how many samples means and standard deviations are of; pictures show the last (default: 8 32)",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="TABLE.KEY=VALUE",
        help="change a setting of ALDM's training, such as model.preset=code or training.minutes=20",
    )  # fmt: skip
    options = parser.parse_args()
    if min(options.samples) < 2:
        parser.error("a standard deviation needs two samples")
    table = options.work / "phantoms" / "cases.csv"
    config = load_config(HERE / "aldm.toml", overrides=options.overrides, table=table)
    minutes = trained(options.work / "aldm", "aldm.toml", table, options.overrides)
    study = Study(config, options.work, options.out, options.samples)
    study.curve()
    for number in range(1, len(config.directions)):
        study.compare(number)
    share = f"training.minutes={minutes / len(config.directions):.2f}"
    unet = trained(options.work / "unet", "unet.toml", table, [share])
    study.compare(0, load_package(options.work / "unet" / "model").network)
    study.write(minutes, unet)
    return 0


def trained(folder: Path, settings: str, table: Path, overrides: Sequence[str]) -> float:
    """Train, unless that was done with these settings; return the minutes of optimiser steps."""
    begun = (folder / "config.toml").exists()
    if begun:
        wanted = load_config(HERE / settings, overrides=overrides, table=table)
        found = load_config(folder / "config.toml")
        if any(getattr(wanted, part) != getattr(found, part) for part in ("model", "recipe", "grid", "intensity")):
            raise SystemExit(f"{folder} was trained with other settings: remove it, or choose another --work")
    if not (folder / "done").exists():
        changed = [word for override in overrides for word in ("--set", override)]
        words = ["--resume"] if begun else [str(HERE / settings), "--data", str(table), *changed]
        subprocess.run([sys.executable, "-m", "MedXlateCore", "train", "--out", str(folder), *words], check=True)
        (folder / "done").touch()
    newest = max((folder / "checkpoints").glob("step-*.json"))
    return json.loads(newest.read_text(encoding="utf-8"))["seconds"] / 60


class Study:
    """Everything that is measured of one trained ALDM.

    Args:
        config: its configuration.
        work: folder of phantoms and runs.
        out: folder of the results.
        samples: numbers of samples that means and standard deviations are of.
    """

    def __init__(self, config: TrainingConfig, work: Path, out: Path, samples: Sequence[int]) -> None:
        self.config, self.work, self.out = config, work, out
        self.samples = {f"ALDM, mean of {number}": number for number in samples}
        self.model = load_package(work / "aldm" / "model")
        self.means = SliceData(prepare_data(config, work / "aldm" / "cache").train)
        self.rows: list[dict[str, object]] = []
        self.steps: list[dict[str, object]] = []
        self.pairs: list[tuple[np.ndarray, np.ndarray]] = []

    def cases(self, direction: int, split: str = "test") -> Iterator[PreparedCase]:
        """Yield the cases of a direction, prepared as for training."""
        single = self.config.towards(self.config.directions[direction])
        for row in read_table(single.data).split(split):
            yield open_case(row, single, self.work / "aldm" / "cache", direction)

    def aldm(self, direction: int, case: PreparedCase, sampling: Sampling | None = None) -> PredictedVolume:
        """Translate a case with ALDM."""
        run = predict_volume(self.model.towards(direction), sources(case), sampling=sampling)
        while True:
            try:
                next(run)
            except StopIteration as end:
                return end.value

    def compare(self, number: int, unet: torch.nn.Module | None = None) -> None:
        """Measure every method on one direction; the U-Net where there is one."""
        direction = self.config.directions[number]
        for position, case in enumerate(self.cases(number)):
            drawn = {name: self.aldm(number, case, Sampling(samples=n)) for name, n in self.samples.items()}
            made = self.made(number, case, drawn, unet)
            most = list(drawn.values())[-1]
            acquired = {"direction": str(direction), "case": case.row.case, "method": "acquired"}
            self.rows += [{**acquired, "cut": cut(case)}] if lesion(case).any() else []
            self.pairs.append((most.deviation[head(case)] / 2, wrong(most, case) / 2))
            for method, volume in made.items():
                facts = {"direction": str(direction), "case": case.row.case, "method": method}
                extra = doubt(drawn[method], case) if method in drawn else {}
                self.rows.append({**facts, **measure(truth(case), volume, head(case)), **extra})
            if position == 0:
                self.picture(number, case, made, most)

    def made(
        self, number: int, case: PreparedCase, drawn: dict[str, PredictedVolume], unet: torch.nn.Module | None
    ) -> dict[str, np.ndarray]:
        """Return what each method makes of a case, [K, H, W]."""
        network, mean = self.model.towards(number), mean_image(self.means, number)
        return {
            "identity": sources(case)[0],
            "mean image": np.broadcast_to(fit_to_size(mean, case.size), sources(case)[0].shape),
            **({"U-Net 2D": slicewise(unet, case)} if unet else {}),
            "MS-SPADE alone": whole(network.spade_only, sources(case)),
            "ALDM": self.aldm(number, case).values,
            ONE: self.aldm(number, case, Sampling(steps=1)).values,
            **{name: made.values for name, made in drawn.items()},
            "ceiling": whole(network.reconstruct, truth(case)[None]),
        }

    def curve(self) -> None:
        """Measure every sampler with fewer and fewer steps, in the first direction: quality, slices, time.

        On the validation heads: the preset's number of steps is chosen by it.
        """
        cases = list(self.cases(0, "val"))
        for sampler in SAMPLERS:
            for steps in STEPS:
                scores, jumps, seconds = [], [], []
                for case in cases:
                    began = time.perf_counter()
                    volume = self.aldm(0, case, Sampling(sampler=sampler, steps=steps)).values
                    seconds.append(time.perf_counter() - began)
                    figures = measure(truth(case), volume, head(case))
                    scores.append(figures["psnr"])
                    jumps.append(figures["jump"])
                means = {"psnr": float(np.mean(scores)), "jump": float(np.mean(jumps))}
                self.steps.append({"sampler": sampler, "steps": steps, **means, "seconds": float(np.median(seconds))})

    def picture(self, number: int, case: PreparedCase, made: dict[str, np.ndarray], drawn: PredictedVolume) -> None:
        """Write a test head in an axial and a coronal slice."""
        direction = self.config.directions[number]
        shown = {f"source: {direction.sources[0]}": made["identity"], f"acquired {direction.target}": truth(case)}
        shown |= {short: made[name] for name, short in SHOWN.items() if name in made}
        tiles = [Tile(name, volume_of(array, case), (-1.0, 1.0)) for name, array in shown.items()]
        tiles.append(Tile("standard deviation", volume_of(drawn.deviation, case), (0.0, 0.3)))
        panels = [
            slice_panel(tiles, case.shape[0] // 2, height=190),
            slice_panel(tiles, case.size[0] // 2, "coronal", height=130),
        ]
        captions = [
            f"{direction}, {case.row.case}; all but the first two pictures are SYNTHETIC",
            "coronal; research use only, not for diagnosis",
        ]
        stack_panels(panels, captions).save(self.out / f"panel-{number + 1}.png", optimize=True)

    def write(self, minutes: float, unet: float) -> None:
        """Write tables and charts; ``minutes`` and ``unet``: how long ALDM and the U-Net were trained."""
        write_csv(self.out / "figures.csv", self.rows)
        write_csv(self.out / "steps.csv", self.steps)
        text = tables(self.rows, self.steps, [*METHODS, *self.samples, "ceiling"], minutes, unet)
        curves = {
            sampler: [(row["steps"], row["psnr"]) for row in self.steps if row["sampler"] == sampler]
            for sampler in SAMPLERS
        }
        spread, error = (np.concatenate(parts) for parts in zip(*self.pairs, strict=True))
        groups = np.array_split(np.argsort(spread, kind="stable"), 20)
        points = [(100 * float(spread[part].mean()), 100 * float(error[part].mean())) for part in groups]
        names = ("standard deviation (% of range)", "mean absolute error (% of range)")
        (self.out / "tables.md").write_text(text, encoding="utf-8")
        steps_chart = curves_svg(curves, "denoising steps", "PSNR (dB)", logarithmic=True)
        (self.out / "steps.svg").write_text(steps_chart, encoding="utf-8")
        doubt_chart = curves_svg({"20 groups of equal size": points}, *names)
        (self.out / "uncertainty.svg").write_text(doubt_chart, encoding="utf-8")


def sources(case: PreparedCase) -> np.ndarray:
    """Return the case's sources [S, K, H, W]."""
    return np.asarray(case.images[:, :-1], dtype=np.float32).swapaxes(0, 1)


def truth(case: PreparedCase) -> np.ndarray:
    """Return the case's target [K, H, W]."""
    return np.asarray(case.images[:, -1], dtype=np.float32)


def head(case: PreparedCase) -> np.ndarray:
    """Return where the head is, [K, H, W]."""
    return np.asarray(case.masks[:, 2] > 0)


def lesion(case: PreparedCase) -> np.ndarray:
    """Return where the lesion is, [K, H, W]."""
    return np.asarray(case.masks[:, :2] > 0).any(axis=1)


def cut(case: PreparedCase) -> float:
    """Return the share of the lesion's voxels at the upper end of the target's range, beyond which values are cut."""
    return float((truth(case)[lesion(case)] >= 1).mean())


def wrong(drawn: PredictedVolume, case: PreparedCase) -> np.ndarray:
    """Return the absolute errors inside the head."""
    return np.abs(drawn.values - truth(case))[head(case)]


def doubt(drawn: PredictedVolume, case: PreparedCase) -> dict[str, float]:
    """Return Spearman's rank correlation of standard deviation and absolute error inside the head, and their sizes.

    ``spread`` is the root mean square of the standard deviation relative to that of the errors.
    """
    spread, error = drawn.deviation[head(case)], wrong(drawn, case)
    return {
        "spearman": float(spearmanr(spread, error).statistic),
        "spread": float(
            np.sqrt(np.square(spread, dtype=np.float64).mean() / np.square(error, dtype=np.float64).mean())
        ),
    }


def whole(network: Callable[[torch.Tensor], torch.Tensor], images: np.ndarray) -> np.ndarray:
    """Send images [S, K, H, W] through a volume network at once."""
    with torch.no_grad():
        return network(torch.from_numpy(np.ascontiguousarray(images[None])))[0, 0].numpy()


def slicewise(network: torch.nn.Module, case: PreparedCase) -> np.ndarray:
    """Send a case through a 2D network slice by slice."""
    stack = np.full(truth(case).shape, -1.0, dtype=np.float32)
    for batch in predict_slices(network, sources(case)):
        stack[list(batch.indices)] = batch.values
    return stack


def measure(reference: np.ndarray, made: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """Return error, PSNR and SSIM inside the head, and neighbouring slices' difference relative to the truth's."""
    unit = [(array.astype(np.float64) + 1) / 2 for array in (reference, made)]
    error = mean_squared_error(unit[0][inside], unit[1][inside])
    both = inside[1:] & inside[:-1]
    jumps = [float(np.abs(np.diff(array, axis=0))[both].mean()) for array in unit]
    return {
        "psnr": peak_signal_to_noise(error, 1.0),
        "mae": mean_absolute_error(unit[0][inside], unit[1][inside]),
        "ssim": float(ssim_map(unit[0], unit[1], get_protocol("volume3d").window, 1.0)[inside].mean()),
        "jump": jumps[1] / jumps[0],
    }


def volume_of(slices: np.ndarray, case: PreparedCase) -> Volume:
    """Return slices [K, H, W] as a volume on the model's grid."""
    return Volume(unstack(np.ascontiguousarray(slices)), case.grid, Modality.OTHER)


if __name__ == "__main__":
    raise SystemExit(main())
