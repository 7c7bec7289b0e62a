"""One evaluation as a self-contained HTML page: pictures, tables, plots, warnings and the run record; no scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.files import atomic_write_text, to_jsonable
from MedXlateCore.metrics import pictures, plots
from MedXlateCore.metrics.differences import error_map, plot_values
from MedXlateCore.metrics.inputs import require_same_grid
from MedXlateCore.metrics.page import RESEARCH_USE_ONLY, html_figure, html_page, html_table
from MedXlateCore.metrics.regions import BRAIN, HEALTHY, LESION, evaluation_mask, region_masks
from MedXlateCore.metrics.result import EvaluationResult, matched_window
from MedXlateCore.transforms.resampling import resample
from MedXlateCore.volume import Modality, Volume

__all__ = ["METRIC_WORDS", "RESEARCH_USE_ONLY", "evaluation_page", "format_value", "on_grid", "write_evaluation_report"]

METRIC_WORDS = {
    "mae": "mean absolute error",
    "mse": "mean squared error",
    "nmse": "normalised mean squared error",
    "psnr": "peak signal-to-noise ratio (dB)",
    "ssim": "structural similarity",
    "ms_ssim": "multi-scale structural similarity",
    "ssim_tumor": "structural similarity, tumour",
    "ssim_non_tumor": "structural similarity, without tumour",
}


@dataclass(frozen=True)
class _Subject:
    """What the page shows, with the masks that its parts share."""

    result: EvaluationResult
    reference: Volume
    synthetic: Volume
    sources: tuple[Volume, ...]
    brain: NDArray[np.bool_]
    masks: dict[str, NDArray[np.bool_]]


def write_evaluation_report(
    path: Path | str,
    result: EvaluationResult,
    reference: Volume,
    synthetic: Volume,
    sources: Sequence[Volume] = (),
    regions: Volume | None = None,
    record: Mapping[str, Any] | None = None,
    *,
    mask: Volume | None = None,
    region_labels: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Write the page of one evaluation; the file is complete or absent.

    Args:
        path: the HTML file.
        result: of ``evaluate`` on the same volumes.
        reference, synthetic: the compared images, on one grid.
        sources: the images the synthetic one was made from; on another grid they are resampled for display.
        regions, mask, region_labels: as given to ``evaluate``.
        record: the run record of the synthetic image, shown as it is.

    Raises:
        InputError: ``MX-MET-010`` (grids differ), ``MX-MET-012`` (empty mask).
        ResourceError: the file cannot be written; see ``files``.
    """
    page = evaluation_page(
        result, reference, synthetic, sources, regions, record, mask=mask, region_labels=region_labels
    )
    atomic_write_text(Path(path), page)


def evaluation_page(
    result: EvaluationResult,
    reference: Volume,
    synthetic: Volume,
    sources: Sequence[Volume] = (),
    regions: Volume | None = None,
    record: Mapping[str, Any] | None = None,
    *,
    mask: Volume | None = None,
    region_labels: Mapping[str, Sequence[int]] | None = None,
) -> str:
    """Return the page of ``write_evaluation_report`` as text."""
    require_same_grid(reference.geometry, synthetic, mask, regions)
    brain = evaluation_mask(reference, mask)
    masks, _ = region_masks(brain, regions, region_labels)
    shown = tuple(on_grid(source, reference) for source in sources)
    subject = _Subject(result, reference, synthetic, shown, brain, masks)
    what = synthetic.modality.value if synthetic.modality is not Modality.OTHER else "image"
    title = f"Synthetic {what} compared with its reference"
    parts = [
        _figures_section(result),
        _slices_section(subject),
        _regions_section(result),
        _plots_section(subject),
        _warnings_section(subject),
        _protocol_section(result),
        _files_section(subject),
        _record_section(record),
    ]
    return html_page(title, parts)


def format_value(name: str, value: float | int | None) -> str:
    """Return a figure as shown in tables; an en dash stands for no value."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}".replace(",", " ")
    digits = 2 if name.startswith(("psnr", "volume")) else 4
    return f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:.1f}"


# --- sections -------------------------------------------------------------------------------------------------------


def _figures_section(result: EvaluationResult) -> str:
    by_slice = result.protocol.aggregation == "slices"
    head = ["figure", "mean over slices", "standard deviation"] if by_slice else ["figure", "value"]
    rows = []
    for name in result.protocol.metrics:
        row = [f"{name.upper()}: {METRIC_WORDS.get(name, name)}", format_value(name, result.metrics[name])]
        rows.append([*row, format_value(name, result.metrics.get(f"{name}_std"))] if by_slice else row)
    note = "in the region 'brain'" if result.regions else "of the whole comparison"
    return (
        f"<h2>Figures</h2><p>Protocol <b>{escape(result.protocol.name)}</b>, {note}. Figures of different protocols"
        f" must not be compared.</p>{html_table(head, rows)}"
    )


def _regions_section(result: EvaluationResult) -> str:
    if not result.regions:
        return ""
    names = list(result.protocol.metrics)
    head = ["region", "voxels", "volume (ml)", *(name.upper() for name in names)]
    columns = ["voxels", "volume_ml", *names]
    rows = [[region, *(format_value(c, figures.get(c)) for c in columns)] for region, figures in result.regions.items()]
    return f"<h2>Regions</h2>{html_table(head, rows)}"


def _slices_section(subject: _Subject) -> str:
    tiles, unit_words = _tiles(subject)
    outlines = [
        pictures.Outline(name, mask, pictures.region_colour(number))
        for number, (name, mask) in enumerate(_outlined(subject.masks).items())
    ]
    geometry = subject.reference.geometry
    crop = pictures.crop_to(geometry, subject.brain)
    figures = []
    for index in pictures.slices_of_interest(geometry, subject.brain, subject.masks.get(LESION)):
        panel = pictures.slice_panel(tiles, index, outlines=outlines, crop=crop)
        where = pictures.slice_caption(geometry, index)
        alt = f"{where}: {', '.join(tile.title for tile in tiles)}"
        figures.append(html_figure(panel, alt, where))
    text = (
        "Radiological convention: the patient's right side (R) is on the left. Reference and synthetic image share one"
        f" grey scale. Error: synthetic minus reference, in {escape(unit_words)}; red is too bright, blue too dark."
    )
    return f"<h2>Slices</h2><p>{text}</p>{''.join(figures)}"


def _plots_section(subject: _Subject) -> str:
    reference, synthetic, unit = plot_values(subject.result, subject.reference, subject.synthetic, subject.brain)
    return (
        "<h2>Intensities in the mask, or else the reference's foreground</h2><div class='plots'>"
        f"<figure>{plots.histogram_svg(reference, synthetic, unit)}<figcaption>Histograms.</figcaption></figure>"
        f"<figure>{plots.bland_altman_svg(reference, synthetic, unit)}<figcaption>Difference against mean, with bias"
        " and limits of agreement (voxels are not independent: a description, not a test).</figcaption></figure></div>"
    )


def _warnings_section(subject: _Subject) -> str:
    notes = [*subject.result.warnings, *subject.reference.notes, *subject.synthetic.notes]
    items = [f'<div class="warning">{escape(note.as_text())}</div>' for note in dict.fromkeys(notes)]
    return f"<h2>Warnings</h2>{''.join(items) or '<p>None.</p>'}"


def _protocol_section(result: EvaluationResult) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in result.protocol.describe())
    details = "".join(
        f"<li>{escape(str(name))}: {escape(_in_words(value))}</li>" for name, value in result.details.items()
    )
    return (
        f"<h2>Protocol {escape(result.protocol.name)}</h2><ul>{items}</ul><p>In this evaluation:</p><ul>{details}</ul>"
    )


def _files_section(subject: _Subject) -> str:
    volumes = [("reference", subject.reference), ("synthetic", subject.synthetic)]
    volumes += [("source", source) for source in subject.sources]
    rows = []
    for role, volume in volumes:
        spacing = " × ".join(f"{mm:.3g}" for mm in volume.geometry.spacing_mm)
        shape = " × ".join(str(n) for n in volume.geometry.shape)
        rows.append([role, volume.name, shape, spacing, volume.source.sha256 or "–"])
    return f"<h2>Files</h2>{html_table(['role', 'image', 'voxels', 'spacing (mm)', 'SHA-256'], rows, texts=True)}"


def _record_section(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return ""
    text = json.dumps(to_jsonable(record), indent=2, ensure_ascii=False)
    return f"<h2>Run record of the synthetic image</h2><pre>{escape(text)}</pre>"


# --- what the sections show -----------------------------------------------------------------------------------------


def _tiles(subject: _Subject) -> tuple[list[pictures.Tile], str]:
    """Return sources, reference, synthetic image and error map, and the unit of the error in words."""
    window = pictures.display_window(subject.reference, subject.brain)
    synthetic_window = matched_window(window, subject.result)
    error = error_map(subject.result, subject.reference, subject.synthetic, subject.brain)
    tiles = [
        pictures.Tile(f"source: {source.modality.value}", source, pictures.display_window(source, subject.brain))
        for source in subject.sources
    ]
    tiles.append(pictures.Tile("reference", subject.reference, window))
    tiles.append(pictures.Tile("SYNTHETIC", subject.synthetic, synthetic_window))
    # outlines on the first picture and the error map only: the lesion itself stays free to be compared
    tiles = [replace(tile, outlined=number == 0) for number, tile in enumerate(tiles)]
    return [
        *tiles,
        pictures.Tile(
            "synthetic - reference", error.volume, (-error.reach, error.reach), "difference", error.unit, subject.brain
        ),
    ], error.words


def _outlined(masks: Mapping[str, NDArray[np.bool_]]) -> dict[str, NDArray[np.bool_]]:
    parts = {name: mask for name, mask in masks.items() if name not in {BRAIN, HEALTHY, LESION} and mask.any()}
    return parts or {name: mask for name, mask in masks.items() if name == LESION and mask.any()}


def on_grid(source: Volume, reference: Volume) -> Volume:
    """Return a volume on the reference's grid: itself, or interpolated linearly, air where it has no data."""
    if source.geometry.allclose(reference.geometry):
        return source
    array = resample(source.array.astype(np.float32), source.geometry, reference.geometry, 1, source.modality.air_value)
    return Volume(array, reference.geometry, source.modality, source.source, source.synthetic, source.notes)


def _in_words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_in_words(item)}" for name, item in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)
