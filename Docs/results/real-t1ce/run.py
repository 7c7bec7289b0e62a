"""Train a tiny TLP on the training patients of a data folder and test it on patients it did not see.

    python Docs/results/real-t1ce/run.py --data ../shared/data --work runs/real-t1ce

The data folder holds ``cases.csv`` (group, case, split, modality columns, seg; paths relative to it). Training takes its
groups ``brain-tumour`` and ``brain-tumour-2d``, split ``train``, and 12 brain-only phantoms made here; phantoms also
serve for choosing the checkpoint, so that no test patient has any say in it. Tested are the volumes of ``brain-tumour``,
split ``test``. Writes ``results.csv``, ``results.md`` and ``metrics.png`` beside this file; pictures of the patients stay
in the work folder, because their terms do not allow publishing them.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from MedXlateCore.demo import LABELS, PROMPTS, sham_label_map
from MedXlateCore.inference.prepare import prepare_sources, unstack
from MedXlateCore.io import read_volume, write_volume
from MedXlateCore.metrics.evaluation import evaluate
from MedXlateCore.metrics.report import write_evaluation_report
from MedXlateCore.metrics.result import EvaluationResult
from MedXlateCore.models.package import LoadedModel, load_package
from MedXlateCore.pipeline import translate
from MedXlateCore.training.cache import open_case
from MedXlateCore.training.config import load_config
from MedXlateCore.training.data import SliceData, fit_to_size, mean_image
from MedXlateCore.training.table import read_table
from MedXlateCore.volume import Modality, Volume

HERE = Path(__file__).resolve().parent
SOURCES = ("T1", "T2")
TARGET = "T1ce"
ROWS = {**PROMPTS, "identity": "identity (T1 as T1ce)", "mean": "mean training image"}
REGIONS = ("brain", "lesion", "core", "oedema", "healthy")


def main() -> int:
    """Make the table of cases, train, test, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with cases.csv")
    parser.add_argument("--work", type=Path, default=Path("runs/real-t1ce"), help="folder for the run")
    parser.add_argument("--keep-model", action="store_true", help="test the model of an earlier run")
    options = parser.parse_args()
    table = options.work / "cases.csv"
    if not options.keep_model:
        make_table(options.data, options.work, table)
        medxlate("train", HERE / "config.toml", "--data", table, "--out", options.work / "run")
    model = load_package(options.work / "run" / "model")
    rows = [
        row for row in read_rows(options.data) if row["group"] == "brain-tumour" and row["split"] == "test" and row["seg"]
    ]
    results = {row["case"]: test_case(row, model, options.work, table) for row in rows}
    write_results(results, model)
    return 0


def read_rows(data: Path) -> list[dict[str, str]]:
    """Return the rows of ``cases.csv`` with absolute paths."""
    with (data / "cases.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = (*SOURCES, TARGET, "seg")
    return [row | {c: str((data / row[c]).resolve()) if row[c] else "" for c in columns} for row in rows]


def make_table(data: Path, work: Path, table: Path) -> None:
    """Write the training table: real training patients, and phantoms for training and validation."""
    phantoms = work / "phantoms"
    if not (phantoms / "cases.csv").exists():
        medxlate(
            "phantom", "--out", phantoms, "--cases", 14, "--seed", 31, "--spacing", 1.5, 1.5, 3.5, "--modalities",
            "T1,T2,T1ce", "--splits", "12,2,0", "--brain-only", "--vary-acquisition", "--lesion-free-fraction", 0,
            "--jobs", 2,
        )  # fmt: skip
    columns = ("case", "split", *SOURCES, TARGET, "seg")
    rows = [
        row for row in read_rows(data) if row["group"] in {"brain-tumour", "brain-tumour-2d"} and row["split"] == "train"
    ]
    rows += read_rows(phantoms)
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def medxlate(*arguments: object) -> None:
    """Run a subcommand."""
    subprocess.run([sys.executable, "-m", "MedXlateCore", *map(str, arguments)], check=True)


def test_case(row: dict[str, str], model: LoadedModel, work: Path, table: Path) -> dict[str, EvaluationResult]:
    """Translate a patient under every prompt, and evaluate it and the baselines."""
    sources = [read_volume(row[name], name) for name in SOURCES]
    reference, regions = read_volume(row[TARGET], TARGET), read_volume(row["seg"], "label")
    prompts = {"no_prompt": None, "given_prompt": regions, "sham_prompt": sham_label_map(regions, sources[0])}
    results = {}
    for name, prompt in prompts.items():
        translation = translate(sources, model, target=TARGET, roi=prompt, device="cpu")
        made = translation.run()
        same_grid = made.geometry.shape == sources[0].geometry.shape and np.array_equal(
            made.geometry.affine_ras, sources[0].geometry.affine_ras
        )
        if not same_grid:
            raise SystemExit(f"{row['case']}: the result is not on the source's grid")
        write_volume(made, work / "test" / f"{row['case']}_{name}.nii.gz", translation.record.as_dict())
        results[name] = assess(reference, made, regions)
        page = work / "test" / f"{row['case']}_{name}.html"
        write_evaluation_report(page, results[name], reference, made, sources, regions, region_labels=LABELS)
    results["identity"] = assess(reference, sources[0].with_array(sources[0].array, modality=Modality.T1CE), regions)
    results["mean"] = assess(reference, mean_volume(sources, reference, model, work, table), regions)
    return results


def assess(reference: Volume, made: Volume, regions: Volume) -> EvaluationResult:
    """Evaluate under volume3d with matched intensities: MR has no unit, and the patients come from several scanners."""
    return evaluate(reference, made, regions=regions, region_labels=LABELS, match_intensity=True)


def mean_volume(sources: list[Volume], reference: Volume, model: LoadedModel, work: Path, table: Path) -> Volume:
    """Return the mean training target of the model grid, on the patient's grid."""
    config = load_config(HERE / "config.toml", table=table)
    cases = [open_case(case, config, work / "run" / "cache") for case in read_table(config.data).split("train")]
    mean = mean_image(SliceData(cases, None))
    prepared = prepare_sources(sources, sources[0].geometry, config.grid, model.card.normalisers)
    stack = np.where(prepared.foreground, fit_to_size(mean, prepared.foreground.shape[1:]), -1.0).astype(np.float32)
    return reference.with_array(prepared.plan.to_reference(unstack(stack), fill=-1.0))


def write_results(results: dict[str, dict[str, EvaluationResult]], model: LoadedModel) -> None:
    """Write the table (CSV, Markdown) and the chart."""
    lines = [
        (case, name, region, figures["voxels"], figures["mae"], figures["psnr"], figures["ssim"])
        for case, rows in results.items()
        for name, result in rows.items()
        for region, figures in result.regions.items()
    ]
    with (HERE / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("case", "row", "region", "voxels", "mae", "psnr", "ssim"))
        writer.writerows(lines)
    text = [
        f"Model {model.card.name}, weights {model.card.weights['sha256'][:12]}; protocol volume3d+matched; MAE and PSNR (dB).\n"
    ]
    for case, rows in results.items():
        regions = [region for region in REGIONS if region in rows["no_prompt"].regions]
        text += [f"\n**{case}**\n", "| | " + " | ".join(regions) + " |", "|---|" + "---|" * len(regions)]
        for name, words in ROWS.items():
            cells = [f"{rows[name].regions[r]['mae']:.4f} / {rows[name].regions[r]['psnr']:.2f}" for r in regions]
            text.append(f"| {words} | " + " | ".join(cells) + " |")
    (HERE / "results.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    chart(results).save(HERE / "metrics.png")


def chart(results: dict[str, dict[str, EvaluationResult]]) -> Image.Image:
    """Draw PSNR by region, one group of bars a region, one colour a row."""
    case, rows = next(iter(results.items()))
    regions = [region for region in REGIONS if region in rows["no_prompt"].regions]
    colours = ["#0b5394", "#3d9970", "#b8860b", "#888888", "#cccccc"]
    font, small = ImageFont.load_default(16), ImageFont.load_default(13)
    canvas = Image.new("RGB", (980, 420), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((20, 10), f"PSNR in dB, {case}, T1 and T2 to T1ce (higher is better)", "black", font)
    highest = max(rows[n].regions[r]["psnr"] for n in ROWS for r in regions)
    for g, region in enumerate(regions):
        left = 30 + g * 190
        draw.text((left + 30, 352), region, "black", font)
        for b, name in enumerate(ROWS):
            value = rows[name].regions[region]["psnr"]
            top = 345 - value / highest * 270
            draw.rectangle((left + b * 33, top, left + b * 33 + 28, 345), fill=colours[b])
            draw.text((left + b * 33, top - 17), f"{value:.1f}", "black", small)
    for b, words in enumerate(ROWS.values()):
        draw.rectangle((20 + b * 190, 386, 34 + b * 190, 400), fill=colours[b])
        draw.text((40 + b * 190, 384), words, "black", small)
    return canvas


if __name__ == "__main__":
    raise SystemExit(main())
