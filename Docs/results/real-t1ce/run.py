"""Train a tiny TLP on the training patients of a data folder and test it on patients it did not see.

    python Docs/results/real-t1ce/run.py --data ../shared/data --work runs/real-t1ce

The data folder holds ``cases.csv`` (group, case, split, modality columns, seg; paths relative to it). Training
takes its groups ``brain-tumour`` and ``brain-tumour-2d``, split ``train``, and 12 brain-only phantoms made here;
phantoms also serve for choosing the checkpoint, so that no test patient has any say in it. Tested are the volumes
of ``brain-tumour``, split ``test``.

Writes ``results.csv``, ``results.md`` and ``metrics.png`` beside this file, and ``open-ms.png``: the same model on
a patient of an openly licensed collection (group ``multiple-sclerosis``, CC BY), who has no T1ce to compare with.
Pictures of the tumour patients stay in the work folder, because their terms do not allow publishing them.
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
from MedXlateCore.inference.prepare import normalise, prepare_sources, unstack
from MedXlateCore.io import read_volume, write_volume
from MedXlateCore.metrics import pictures
from MedXlateCore.metrics.evaluation import evaluate
from MedXlateCore.metrics.result import EvaluationResult
from MedXlateCore.models.package import LoadedModel, load_package
from MedXlateCore.pipeline import translate
from MedXlateCore.training.cache import open_case
from MedXlateCore.training.config import load_config
from MedXlateCore.training.data import SliceData, fit_to_size, mean_image
from MedXlateCore.training.table import read_table
from MedXlateCore.transforms.foreground import foreground_mask
from MedXlateCore.transforms.intensity import FittedNormaliser
from MedXlateCore.transforms.spatial import SpatialPlan
from MedXlateCore.volume import Modality, Volume

HERE = Path(__file__).resolve().parent
SOURCES = ("T1", "T2")
TARGET = "T1ce"
TRAINING_GROUPS = {"brain-tumour", "brain-tumour-2d"}
ROWS = {**PROMPTS, "identity": "identity (T1 as T1ce)", "mean": "mean training image"}
SCALES = {"reference": "the reference's own scale", "best": "each image at its best linear scale inside the brain"}
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
        row
        for row in read_rows(options.data)
        if row["group"] == "brain-tumour" and row["split"] == "test" and row["seg"]
    ]
    results = {row["case"]: test_case(row, model, options.work, table) for row in rows}
    write_results(results, model)
    open_patient = next(row for row in read_rows(options.data) if row["group"] == "multiple-sclerosis")
    picture_of(open_patient, model, options.work).save(HERE / "open-ms.png")
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
    real = [row for row in read_rows(data) if row["group"] in TRAINING_GROUPS and row["split"] == "train"]
    for row in real:
        if row["group"] == "brain-tumour-2d":
            row["seg"] = str(brats_labels(Path(row["seg"]), work / "labels"))
    rows = [*real, *read_rows(phantoms)]
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def brats_labels(path: Path, folder: Path) -> Path:
    """Write a single slice's label map with BraTS labels: theirs are 1 to 3 tissue, 4 to 7 as below."""
    labels = read_volume(path, "label")
    recoded = np.zeros_like(labels.array)
    for theirs, ours in {4: 1, 5: 2, 6: 1, 7: 4}.items():  # necrosis, oedema, non-enhancing, enhancing
        recoded[labels.array == theirs] = ours
    target = folder / path.name
    write_volume(labels.with_array(recoded), target)
    return target.resolve()


def medxlate(*arguments: object) -> None:
    """Run a subcommand."""
    subprocess.run([sys.executable, "-m", "MedXlateCore", *map(str, arguments)], check=True)


Rows = dict[str, dict[str, EvaluationResult]]  # by row of the table, then by scale


def test_case(row: dict[str, str], model: LoadedModel, work: Path, table: Path) -> Rows:
    """Translate a patient under every prompt, and evaluate it and the baselines."""
    sources = [read_volume(row[name], name) for name in SOURCES]
    reference, regions = read_volume(row[TARGET], TARGET), read_volume(row["seg"], "label")
    config = load_config(HERE / "config.toml", table=table)
    prepared = prepare_sources(sources, sources[0].geometry, config.grid, config.intensity)
    _, scale = normalise(prepared.plan.to_model(reference), reference.modality, config.intensity)
    prompts = {"no_prompt": None, "given_prompt": regions, "sham_prompt": sham_label_map(regions, sources[0])}
    results = {}
    for name, prompt in prompts.items():
        translation = translate(sources, model, target=TARGET, roi=prompt, device="cpu")
        made = translation.run()
        refuse_another_grid(made, sources[0], row["case"])
        write_volume(made, work / "test" / f"{row['case']}_{name}.nii.gz", translation.record.as_dict())
        own_scale = FittedNormaliser.from_dict(translation.record.intensity["result"])
        results[name] = assess(reference, made.with_array(own_scale.apply(made.array)), regions, scale)
    identity = sources[0].with_array(prepared.fitted[0].apply(sources[0].array))
    results["identity"] = assess(reference, identity, regions, scale)
    mean = mean_volume(prepared.plan, prepared.foreground, reference, work, table)
    results["mean"] = assess(reference, mean, regions, scale)
    return results


def refuse_another_grid(made: Volume, source: Volume, case: str) -> None:
    """Stop where the promise is broken that the result has the source's shape and affine."""
    same = made.geometry.shape == source.geometry.shape
    if not (same and np.array_equal(made.geometry.affine_ras, source.geometry.affine_ras)):
        raise SystemExit(f"{case}: the result is not on the source's grid")


def picture_of(row: dict[str, str], model: LoadedModel, work: Path) -> Image.Image:
    """Draw T1, T2 and synthetic T1ce, without and with the outlined lesions as prompt, of a patient without T1ce."""
    sources, lesions = [read_volume(row[name], name) for name in SOURCES], read_volume(row["seg"], "label")
    made = []
    for name, roi in {"no_prompt": None, "given_prompt": lesions}.items():
        translation = translate(sources, model, target=TARGET, roi=roi, roi_labels={"oedema": [1]}, device="cpu")
        made.append(translation.run())
        write_volume(made[-1], work / "test" / f"{row['case']}_{name}.nii.gz", translation.record.as_dict())
    brain = foreground_mask(sources[0].array, Modality.T1)
    window = pictures.display_window(made[0], brain)
    tiles = [pictures.Tile(v.modality.value, v, pictures.display_window(v, brain)) for v in sources]
    words = ("SYNTHETIC T1ce, no prompt", "SYNTHETIC T1ce, lesions given")
    tiles += [pictures.Tile(text, volume, window) for text, volume in zip(words, made, strict=True)]
    mask = lesions.array > 0
    geometry = sources[0].geometry
    index = pictures.slices_of_interest(geometry, brain, mask)[0]
    outline = pictures.Outline("lesions, as outlined by the collection's readers", mask, pictures.region_colour(0))
    return pictures.slice_panel(tiles, index, outlines=[outline], crop=pictures.crop_to(geometry, brain))


def assess(reference: Volume, unit: Volume, regions: Volume, scale: FittedNormaliser) -> dict[str, EvaluationResult]:
    """Evaluate an image given in the network's [-1, 1] under volume3d, on both of ``SCALES``.

    MR has no unit and the patients come from several scanners, so every row, baselines included, is put on the scale
    that the target normaliser finds in the reference; and, apart from any choice of scale, at the gain and offset that
    fit the reference best (least squares inside the brain). What is left then is structure.
    """
    brain = foreground_mask(reference.array, reference.modality)
    gain, offset = np.polyfit(unit.array[brain].astype(np.float64), reference.array[brain].astype(np.float64), 1)
    images = {"reference": scale.invert(unit.array), "best": (gain * unit.array + offset).astype(np.float32)}
    return {
        name: evaluate(reference, reference.with_array(image, synthetic=True), regions=regions, region_labels=LABELS)
        for name, image in images.items()
    }


def mean_volume(plan: SpatialPlan, foreground: np.ndarray, reference: Volume, work: Path, table: Path) -> Volume:
    """Return the mean training target in [-1, 1] on the patient's grid, inside the head."""
    config = load_config(HERE / "config.toml", table=table)
    cases = [open_case(case, config, work / "run" / "cache") for case in read_table(config.data).split("train")]
    mean = fit_to_size(mean_image(SliceData(cases, None)), foreground.shape[1:])
    stack = np.where(foreground, mean, -1.0).astype(np.float32)
    return reference.with_array(plan.to_reference(unstack(stack), fill=-1.0))


def write_results(results: dict[str, Rows], model: LoadedModel) -> None:
    """Write the tables (CSV, Markdown) and the chart."""
    lines = [
        (case, name, scale, region, figures["voxels"], figures["mae"], figures["psnr"], figures["ssim"])
        for case, rows in results.items()
        for name, by_scale in rows.items()
        for scale, result in by_scale.items()
        for region, figures in result.regions.items()
    ]
    with (HERE / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("case", "row", "scale", "region", "voxels", "mae", "psnr", "ssim"))
        writer.writerows(lines)
    weights = model.card.weights["sha256"][:12]
    text = [f"Model {model.card.name}, weights {weights}; protocol volume3d; MAE / PSNR (dB).\n"]
    for case, rows in results.items():
        for scale, words in SCALES.items():
            text += [f"\n**{case}**, {words}\n", *markdown_table({name: rows[name][scale] for name in ROWS})]
    (HERE / "results.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    chart(results).save(HERE / "metrics.png")


def markdown_table(rows: dict[str, EvaluationResult]) -> list[str]:
    """Return the lines of a table, a row a prompt or baseline and a column a region."""
    regions = [region for region in REGIONS if region in rows["no_prompt"].regions]
    lines = ["| | " + " | ".join(regions) + " |", "|---|" + "---|" * len(regions)]
    for name, words in ROWS.items():
        figures = [rows[name].regions[region] for region in regions]
        lines.append(f"| {words} | " + " | ".join(f"{f['mae']:.4f} / {f['psnr']:.2f}" for f in figures) + " |")
    return lines


def chart(results: dict[str, Rows]) -> Image.Image:
    """Draw PSNR by region on both scales, one group of bars a region, one colour a row."""
    case, rows = next(iter(results.items()))
    regions = [region for region in REGIONS if region in rows["no_prompt"]["best"].regions]
    colours = ["#0b5394", "#3d9970", "#b8860b", "#888888", "#cccccc"]
    font = ImageFont.load_default(16)
    canvas = Image.new("RGB", (980, 760), "white")
    draw = ImageDraw.Draw(canvas)
    for panel, (scale, words) in enumerate(SCALES.items()):
        top = 10 + panel * 355
        draw.text((20, top), f"PSNR in dB, {case}, T1 and T2 to T1ce, {words} (higher is better)", "black", font)
        bars(draw, {name: rows[name][scale] for name in ROWS}, regions, colours, top + 25)
    for b, words in enumerate(ROWS.values()):
        draw.rectangle((20 + b * 190, 734, 34 + b * 190, 748), fill=colours[b])
        draw.text((40 + b * 190, 732), words, "black", font)
    return canvas


def bars(
    draw: ImageDraw.ImageDraw, rows: dict[str, EvaluationResult], regions: list[str], colours: list[str], top: int
) -> None:
    """Draw one panel of bars, 320 pixels high."""
    font, small = ImageFont.load_default(16), ImageFont.load_default(13)
    highest = max(rows[n].regions[r]["psnr"] for n in ROWS for r in regions)
    for g, region in enumerate(regions):
        left = 30 + g * 190
        draw.text((left + 55, top + 292), region, "black", font)
        for b, name in enumerate(ROWS):
            value = rows[name].regions[region]["psnr"]
            start = top + 285 - value / highest * 255
            draw.rectangle((left + b * 33, start, left + b * 33 + 28, top + 285), fill=colours[b])
            draw.text((left + b * 33, start - 17), f"{value:.1f}", "black", small)


if __name__ == "__main__":
    raise SystemExit(main())
