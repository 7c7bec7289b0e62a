"""The demonstration: a phantom patient that no training saw, translated without and with the lesion outlined.

Everything goes through files and the same functions as on a user's own volumes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import torch
from PIL import Image

from MedXlateCore.files import atomic_write, atomic_write_text
from MedXlateCore.inference.prepare import slice_stack, unstack
from MedXlateCore.io import read_volume, write_volume
from MedXlateCore.metrics import pictures
from MedXlateCore.metrics.evaluation import evaluate
from MedXlateCore.metrics.page import html_figure, html_page, html_table
from MedXlateCore.metrics.regions import evaluation_mask, region_masks
from MedXlateCore.metrics.report import format_value, write_evaluation_report
from MedXlateCore.metrics.result import EvaluationResult, matched_window
from MedXlateCore.models.package import LoadedModel, load_package
from MedXlateCore.phantom.patient import write_patient
from MedXlateCore.pipeline import translate
from MedXlateCore.prompts.roi import DEFAULT_LABELS, regions_from_labels, sham_regions
from MedXlateCore.transforms.foreground import foreground_mask
from MedXlateCore.transforms.orientation import axis_directions, match_axes, parse_orientation
from MedXlateCore.transforms.resampling import resample
from MedXlateCore.volume import Modality, Source, Volume

__all__ = ["DEMO_SEED", "PROMPTS", "Step", "run_demo", "sham_label_map"]

DEMO_SEED = 7_500_021  # `medxlate phantom` draws seeds from the first 100,000 of each million: no cohort holds it
DEMO_SPACING_MM = (1.5, 1.5, 3.0)
PROMPTS = {"no_prompt": "no prompt", "given_prompt": "region given", "sham_prompt": "sham region"}
LABELS = {name: list(values) for name, values in DEFAULT_LABELS.items()}


@dataclass(frozen=True)
class Step:
    """Something was done; ``text`` says what, ``path`` is the file that shows it (or None)."""

    text: str
    path: Path | None = None


def run_demo(
    folder: Path,
    model_name: Path | str = "starter",
    seed: int = DEMO_SEED,
    device: str = "auto",
    spacing_mm: Sequence[float] = DEMO_SPACING_MM,
) -> Iterator[Step]:
    """Run the demonstration into ``folder``, a step at a time.

    Writes ``patient/`` (T1, T2, the true T1ce, the region), ``synthetic/`` (one volume a prompt, with run records),
    ``evaluation_*.html``, ``overview.png`` and ``report.html``.

    Args:
        folder: where to; created if needed.
        model_name: a package that makes T1ce from T1 and T2 with region prompts: installed name or folder.
        seed: of the phantom patient.
        device: see :func:`MedXlateCore.devices.choose_device`.
        spacing_mm: voxel size of the patient's images, mm.

    Raises:
        InputError: the model package cannot be used.
        ResourceError: the folder cannot be written, or the device does not work.
    """
    model = load_package(model_name)
    patient = write_patient(folder / "patient", seed, (Modality.T1, Modality.T2, Modality.T1CE), spacing_mm)
    yield Step(f"phantom patient {seed}: T1, T2, the true T1ce and the outlined lesion", folder / "patient")
    volumes = {name: read_volume(path, name if name != "region" else "label") for name, path in patient.items()}
    sham = sham_label_map(volumes["region"], volumes["T1"])
    prompts = {"no_prompt": None, "given_prompt": volumes["region"], "sham_prompt": sham}
    results: dict[str, EvaluationResult] = {}
    made: dict[str, Volume] = {}
    for prompt, words in PROMPTS.items():
        path = folder / "synthetic" / f"T1ce_{prompt}.nii.gz"
        made[prompt] = _translate(model, volumes, prompts[prompt], path, device)
        yield Step(f"synthetic T1ce, {words}", path)
        results[prompt] = _assess(volumes, made[prompt])
        page = folder / f"evaluation_{prompt}.html"
        write_evaluation_report(
            page, results[prompt], volumes["T1ce"], made[prompt], (volumes["T1"], volumes["T2"]), volumes["region"],
            region_labels=LABELS,
        )  # fmt: skip
        yield Step(f"evaluation, {words}", page)
    identity = volumes["T1"].with_array(volumes["T1"].array, modality=Modality.T1CE)
    results["identity"] = _assess(volumes, identity)
    panels = _panels(volumes, sham, made, results)
    overview = next(iter(panels.values()))
    with atomic_write(folder / "overview.png") as temporary:
        overview.save(temporary, format="PNG")
    report = folder / "report.html"
    atomic_write_text(report, _report(model, panels, results))
    yield Step("report", report)


def sham_label_map(region: Volume, reference: Volume, seed: int = 0) -> Volume:
    """Return the lesion's label map moved into healthy tissue, for the sham prompt: oedema 2, core 1.

    Args:
        region: true label map on the reference's grid.
        reference: an image that shows where tissue is.
        seed: of the place.
    """
    order = match_axes(axis_directions(region.geometry), parse_orientation("LPS"))
    labels = slice_stack(order.apply_to_array(region.array))
    tissue = slice_stack(order.apply_to_array(foreground_mask(reference.array, reference.modality)))
    true = torch.from_numpy(regions_from_labels(labels, DEFAULT_LABELS).swapaxes(0, 1).copy())
    generator = torch.Generator().manual_seed(seed)
    moved = sham_regions(true, torch.from_numpy(tissue[:, None].copy()), generator, shared=True).numpy()
    coded = (2 * moved[:, 0]).astype("uint8")
    coded[moved[:, 1] > 0] = 1
    geometry = order.apply_to_geometry(region.geometry)
    return Volume(unstack(coded), geometry, Modality.LABEL, Source(name="sham region"))


def _translate(
    model: LoadedModel, volumes: dict[str, Volume], region: Volume | None, path: Path, device: str
) -> Volume:
    translation = translate([volumes["T1"], volumes["T2"]], model, target="T1ce", roi=region, device=device)
    result = translation.run()
    write_volume(result, path, translation.record.as_dict())
    return result


def _assess(volumes: dict[str, Volume], made: Volume) -> EvaluationResult:
    return evaluate(volumes["T1ce"], made, regions=volumes["region"], region_labels=LABELS)


def _report(model: LoadedModel, panels: dict[str, Image.Image], results: dict[str, EvaluationResult]) -> str:
    pages = "".join(
        f'<li><a href="evaluation_{name}.html">evaluation, {words}</a></li>' for name, words in PROMPTS.items()
    )
    return html_page(
        "MedXlate demonstration: T1ce from T1 and T2",
        [
            "<p>A phantom head made in code, with one lesion, that no training saw. The starter model"
            f" <b>{escape(model.card.name)}</b> made T1ce three times: without a prompt, with the lesion's region given"
            " as prompt, and with a sham region of the same form in healthy tissue, where an honest model paints"
            " nothing. No patient is shown; the model was trained on phantoms only.</p>",
            "<h2>Pictures</h2>",
            *(
                html_figure(panel, f"T1, T2, true and synthetic T1ce, {where}", where)
                for where, panel in panels.items()
            ),
            "<h2>Figures</h2>",
            _table(results),
            "<p>Protocol volume3d; MAE in parts of the reference's range, PSNR in dB. Identity is the T1 taken as if it"
            " were the T1ce: what a model has to beat.</p>",
            f"<h2>Files</h2><ul>{pages}"
            "<li>patient/ and synthetic/: the volumes, as NIfTI, with run records (JSON)</li></ul>",
        ],
    )


def _panels(
    volumes: dict[str, Volume], sham: Volume, made: dict[str, Volume], results: dict[str, EvaluationResult]
) -> dict[str, Image.Image]:
    """Return up to three slices by caption: sources and truth with the lesion, results with the sham region."""
    reference = volumes["T1ce"]
    brain = evaluation_mask(reference, None)
    masks, _ = region_masks(brain, volumes["region"], LABELS)
    window = pictures.display_window(reference, brain)
    moved = resample(sham.array, sham.geometry, reference.geometry, order=0) > 0
    lesion = [pictures.Outline("lesion", masks["lesion"], pictures.region_colour(0))]
    decoy = [pictures.Outline("sham region", moved, pictures.region_colour(2))]
    inputs = [pictures.Tile(n, volumes[n], pictures.display_window(volumes[n], brain)) for n in ("T1", "T2")]
    inputs.append(pictures.Tile("true T1ce", reference, window))
    outputs = [
        pictures.Tile(f"SYNTHETIC, {words}", made[name], matched_window(window, results[name]))
        for name, words in PROMPTS.items()
    ]
    crop = pictures.crop_to(reference.geometry, brain)
    panels = {}
    for index in pictures.slices_of_interest(reference.geometry, brain, masks["lesion"])[:3]:
        rows = [
            pictures.slice_panel(tiles, index, outlines=outlines, crop=crop)
            for tiles, outlines in ((inputs, lesion), (outputs, decoy))
        ]
        panels[pictures.slice_caption(reference.geometry, index)] = pictures.stack_panels(rows)
    return panels


def _table(results: dict[str, EvaluationResult]) -> str:
    regions = ("brain", "lesion", "core", "oedema", "healthy")
    head = ["", *(f"{metric} {region}" for region in regions for metric in ("MAE", "PSNR"))]
    rows = [
        [
            PROMPTS.get(name, name),
            *(
                format_value(metric, result.regions.get(region, {}).get(metric))
                for region in regions
                for metric in ("mae", "psnr")
            ),
        ]
        for name, result in results.items()
    ]
    return html_table(head, rows)
