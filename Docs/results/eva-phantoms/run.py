"""Train EVA-I2I on phantoms, and measure what its words are worth.

    python Docs/results/eva-phantoms/run.py --work runs/eva-phantoms [--data ../shared/data]

Needs the phantoms that ``make eva-phantoms`` writes first. One EVA-I2I learns from sentences (``eva.toml``), another
from the numbers of the domains (``onehot.toml``), with as many steps of translation. Trainings that are there are
not repeated. Everything is measured on test heads that no training and no choice has seen, among them scans whose
combination of parameters was held out of the training. Writes ``tables.md``, CSV files and pictures beside this file.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from embedding import embeddings, nuances
from judging import classify, on_patients, swaps
from writing import tables, write_csv

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.inference.prepare import unstack
from MedXlateCore.metrics.image import mean_squared_error, peak_signal_to_noise, ssim_map
from MedXlateCore.metrics.pictures import Tile, slice_panel, stack_panels
from MedXlateCore.metrics.plots import curves_svg
from MedXlateCore.metrics.protocols import get_protocol
from MedXlateCore.models.eva_i2i import EvaNetwork, known_domains
from MedXlateCore.models.package import LoadedModel, load_package
from MedXlateCore.prompts.domains import domain_distance, nearest_domain
from MedXlateCore.training.config import TrainingConfig
from MedXlateCore.training.run import config_of_run
from MedXlateCore.training.scan_table import read_scans
from MedXlateCore.training.scans import ScanCase, open_scans
from MedXlateCore.volume import Modality, Volume

HERE = Path(__file__).resolve().parent
TRUE, DOMAIN, SCAN, ONEHOT, IDENTITY = METHODS = (
    "EVA-I2I, true facts", "EVA-I2I, nearest trained domain", "EVA-I2I, nearest trained scan", "one-hot", "identity",
)  # fmt: skip
SHOWN = {"T1+contrast+fat_suppressed+1.5T": 1, "T2+fat_suppressed+te=90..110": 2}


def main() -> int:
    """Train what is missing, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/eva-phantoms"), help="folder with phantoms/, for runs")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the tables and pictures")
    parser.add_argument("--data", type=Path, help="folder of real volumes, to ask what they look like")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = options.work / "phantoms" / "scans.csv"
    words = ["--data", table, "--set", f"data.cache='{(options.work / 'cache').resolve()}'"]
    trained(options.work / "eva", [HERE / "eva.toml", *words])
    equal = f"training.steps={translation_steps(options.work / 'eva')}"
    trained(options.work / "onehot", [HERE / "onehot.toml", *words, "--set", equal])
    study = Study(options.work, options.out)
    study.translate()
    study.write(options.data)
    return 0


def trained(folder: Path, words: list[object]) -> None:
    """Train, unless that was done."""
    if not (folder / "done").exists():
        line = ["train", "--out", folder, *(["--resume"] if (folder / "config.toml").exists() else words)]
        subprocess.run([sys.executable, "-m", "MedXlateCore", *map(str, line)], check=True)
        (folder / "done").touch()


def errors(folder: Path) -> list[tuple[float, float]]:
    """Return a run's training error of the images made, by steps of translation; means over ten steps."""
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = [(int(row["step"]), float(row["value"])) for row in csv.DictReader(file) if row["metric"] == "rec"]
    return [(step - rows[0][0] + 10, error) for step, error in rows]


def translation_steps(folder: Path) -> int:
    """Return how many steps of a run trained the translation, to the ten steps of a row of its log."""
    return int(errors(folder)[-1][0])


@dataclass(frozen=True)
class TestHead:
    """A test head: its prepared scans, and for each the rule that held it out of training, or nothing."""

    case: ScanCase
    rules: tuple[str, ...]

    def stack(self, scan: int) -> np.ndarray:
        """Return a scan's axial slices [K, H, W] in [-1, 1]."""
        return np.asarray(self.case.images[:, scan], dtype=np.float32)

    @property
    def inside(self) -> np.ndarray:
        """Where the head is, [K, H, W]."""
        return np.asarray(self.case.masks[:, 2] > 0)


def test_heads(config: TrainingConfig, cache: Path) -> list[TestHead]:
    """Return the test heads with all of their scans; the held-out ones too, which the training's reader leaves out."""
    table = Path(config.data.table)
    whole = table.with_name("all-scans.csv")
    with table.open(encoding="utf-8", newline="") as file:
        records = list(csv.DictReader(file))
    write_csv(whole, [{**record, "held_out": ""} for record in records])
    rules = {str((table.parent / record["image"]).resolve()): record["held_out"] for record in records}
    data = type(config.data)(**{**vars(config.data), "table": str(whole)})
    heads = []
    for row in read_scans(data).split("test"):
        own = tuple(rules[str(Path(path).resolve())] for path in row.images.values())
        heads.append(TestHead(open_scans(row, config, cache), own))
    return heads


class Study:
    """Everything that is measured of the two trained models.

    Args:
        work: folder of phantoms and runs.
        out: folder of the results.
    """

    def __init__(self, work: Path, out: Path) -> None:
        self.config, self.out = config_of_run(work / "eva"), out
        self.model, self.onehot = (load_package(work / name / "model") for name in ("eva", "onehot"))
        self.heads = test_heads(self.config, work / "cache")
        self.trained = [facts for row in read_scans(self.config.data).split("train") for facts in row.facts]
        self.rows: list[dict[str, Any]] = []
        self.curves = {name: errors(work / name) for name in ("eva", "onehot")}

    def translate(self) -> None:
        """Measure every method on every target of every test head, held out or not."""
        drawn: set[str] = set()
        for head in self.heads:
            pairs = [(source, target) for target in range(len(head.rules)) for source in sources_of(head, target)]
            codes: dict[int, list[torch.Tensor]] = {}
            for source, target in sorted(pairs):
                codes = codes if source in codes else {source: self.codes(head.stack(source))}
                made = {**self.made(codes[source], head.case.facts[target]), IDENTITY: head.stack(source)}
                rule, names = head.rules[target], head.case.modalities
                told = {"case": head.case.row.case, "rule": rule, "target": names[target], "source": names[source]}
                for method, volume in made.items():
                    figures = measure(head.stack(target), volume, head.inside)
                    self.rows.append({**told, "method": method, **figures})
                if rule and rule not in drawn and names[source] != "CT":  # whose soft tissue is grey in grey here
                    drawn.add(rule)
                    self.picture(head, target, made)

    @torch.no_grad()
    def codes(self, stack: np.ndarray) -> list[torch.Tensor]:
        """Return what each of the two structure encoders makes of slices [K, H, W]."""
        images = torch.from_numpy(stack.copy())[:, None]
        return [model.network(images, wanted="code") for model in (self.model, self.onehot)]

    @torch.no_grad()
    def made(self, codes: list[torch.Tensor], facts: Acquisition) -> dict[str, np.ndarray]:
        """Return what each method makes of a source for a target, [K, H, W]."""
        domains = known_domains(self.model.config)
        asked = {
            TRUE: facts,
            DOMAIN: domains[nearest_domain(facts, domains).name],
            SCAN: min(self.trained, key=lambda scan: sum(domain_distance(facts, scan).values())),
        }
        made = {method: decoded(self.model, codes[0], wanted) for method, wanted in asked.items()}
        return {**made, ONEHOT: decoded(self.onehot, codes[1], facts)}

    def picture(self, head: TestHead, target: int, made: Mapping[str, np.ndarray]) -> None:
        """Write a held-out target of a test head in an axial slice and its errors."""
        truth = head.stack(target)
        short = {TRUE: "true facts", DOMAIN: "nearest domain", SCAN: "nearest scan", ONEHOT: "one-hot"}
        shown = {"source": made[IDENTITY], "acquired": truth} | {text: made[name] for name, text in short.items()}
        tiles = [Tile(name, volume_of(array, head.case), (-1.0, 1.0)) for name, array in shown.items()]
        wrong = {IDENTITY: made[IDENTITY]} | {text: made[name] for name, text in short.items()}
        errors = [
            Tile(f"error: {name}", volume_of(np.abs(array - truth), head.case), (0.0, 1.0))
            for name, array in wrong.items()
        ]
        middle = truth.shape[0] // 2
        panels = [slice_panel(part, middle, height=200) for part in (tiles, errors)]
        rule = head.rules[target]
        captions = [f"held out: {rule}; {head.case.row.case}; all but the first two pictures are SYNTHETIC",
                    "research use only, not for diagnosis"]  # fmt: skip
        stack_panels(panels, captions).save(self.out / f"panel-{SHOWN.get(rule, 3)}.png", optimize=True)

    def write(self, data: Path | None) -> None:
        """Measure the judging of images, draw the embeddings, write the tables."""
        slices = classify(self.model, self.heads)
        roles = swaps(self.model, self.heads)
        real = on_patients(self.model, data) if data and data.is_dir() else []
        purity, chart = embeddings(self.model, self.heads)
        for name, rows in (("translation", self.rows), ("facts", slices), ("roles", roles), ("real", real)):
            if rows:
                write_csv(self.out / f"{name}.csv", rows)
        (self.out / "embedding.svg").write_text(chart, encoding="utf-8")
        chart = curves_svg(self.curves, "steps of translation", "error of three images, summed")
        standing_alone = chart.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        (self.out / "training.svg").write_text(standing_alone, encoding="utf-8")
        text = tables(self.rows, METHODS, slices, roles, real, purity, nuances(self.model))
        (self.out / "tables.md").write_text(text, encoding="utf-8")


def sources_of(head: TestHead, target: int) -> list[int]:
    """Return what a target is made from: the next trained scans of other modalities; two if it was held out."""
    count, names = len(head.rules), head.case.modalities
    following = [(target + n) % count for n in range(1, count)]
    usable = [source for source in following if names[source] != names[target] and not head.rules[source]]
    return usable[: 2 if head.rules[target] else 1]


def decoded(model: LoadedModel, code: torch.Tensor, facts: Acquisition) -> np.ndarray:
    """Return slices [K, H, W] in [-1, 1] for a target, from the source's code."""
    network: EvaNetwork = model.network  # type: ignore[assignment]
    vector = network.vectors(network.asked(facts.with_facts(plane="axial")))
    return network(code, vectors=vector, wanted="decoded")[:, 0].clamp(-1, 1).numpy()


def measure(reference: np.ndarray, made: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """Return PSNR and SSIM inside the head, with both images in [0, 1]."""
    unit = [(array.astype(np.float64) + 1) / 2 for array in (reference, made)]
    error = mean_squared_error(unit[0][inside], unit[1][inside])
    window = get_protocol("volume3d").window
    return {
        "psnr": peak_signal_to_noise(error, 1.0),
        "ssim": float(ssim_map(unit[0], unit[1], window, 1.0)[inside].mean()),
    }


def volume_of(slices: np.ndarray, case: ScanCase) -> Volume:
    """Return slices [K, H, W] as a volume on the model's grid."""
    return Volume(unstack(np.ascontiguousarray(slices)), case.grid, Modality.OTHER)


if __name__ == "__main__":
    raise SystemExit(main())
