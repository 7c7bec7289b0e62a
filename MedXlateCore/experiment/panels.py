"""The picture of one direction: sources and reference, then every method's image beside its error map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from MedXlateCore.directions import Direction
from MedXlateCore.experiment.cases import Cohort
from MedXlateCore.experiment.config import Experiment
from MedXlateCore.experiment.measuring import Comparison, compare
from MedXlateCore.experiment.plan import run_folder
from MedXlateCore.experiment.running import Outcome
from MedXlateCore.experiment.testing import read_case, volume_path
from MedXlateCore.io import read_volume
from MedXlateCore.metrics import pictures
from MedXlateCore.metrics.differences import error_map
from MedXlateCore.metrics.regions import evaluation_mask
from MedXlateCore.metrics.report import on_grid
from MedXlateCore.metrics.result import matched_window
from MedXlateCore.volume import Volume

__all__ = ["direction_panel"]

_METHODS_A_LINE = 2
_HEIGHT = 260


def direction_panel(
    experiment: Experiment, cohort: Cohort, direction: Direction, outcomes: Sequence[Outcome]
) -> tuple[Image.Image, str] | None:
    """Return the picture of one test case and its caption, or None where no method's volume was kept.

    The slice is the lesion's largest, or else the middle of the foreground. All images share the reference's grid,
    those of the target its grey scale, error maps one colour scale. Pictures show patients: they are drawn only with
    ``pictures = true``.
    """
    row = cohort.test(direction)[0]
    sources, reference, regions = read_case(row, direction)
    made = dict(_kept(experiment, direction, row.case, outcomes, reference, regions))
    if not made:
        return None
    inside = _measured(made, reference)
    index = _slice(reference, inside, regions)
    crop = pictures.crop_to(reference.geometry, inside)
    window = pictures.display_window(reference, inside)
    tiles = [
        pictures.Tile(f"source: {source.modality.value}", moved, pictures.display_window(moved, inside))
        for source in sources
        for moved in [on_grid(source, reference)]
    ]
    tiles.append(pictures.Tile(f"reference: {direction.target}", reference, window))
    rows = [pictures.slice_panel(tiles, index, crop=crop, height=_HEIGHT)]
    names, reach = list(made), _reach(made, reference)
    for first in range(0, len(names), _METHODS_A_LINE):
        line = [
            tile
            for name in names[first : first + _METHODS_A_LINE]
            for tile in _pair(name, made[name], reference, reach)
        ]
        rows.append(pictures.slice_panel(line, index, crop=crop, height=_HEIGHT))
    caption = f"{direction}, one test case, {pictures.slice_caption(reference.geometry, index)}"
    return pictures.stack_panels(rows), caption


def _kept(
    experiment: Experiment,
    direction: Direction,
    case: str,
    outcomes: Sequence[Outcome],
    reference: Volume,
    regions: Volume | None,
) -> Iterator[tuple[str, Comparison]]:
    """Return each method's kept volume, measured as in the test."""
    for outcome in outcomes:
        path = volume_path(run_folder(experiment, outcome.run), direction, case)
        if outcome.results is None or direction not in outcome.run.directions or not path.exists():
            continue
        synthetic = read_volume(path, direction.target)
        protocol, labels = experiment.evaluation.resolved(), experiment.data.labels
        yield outcome.run.name, compare(synthetic, reference, protocol, regions, labels)


def _measured(made: dict[str, Comparison], reference: Volume) -> np.ndarray:
    """Return where the methods were measured, or the reference's foreground."""
    mask = next(iter(made.values())).mask
    return mask.array > 0 if mask is not None else evaluation_mask(reference, None)


def _slice(reference: Volume, inside: np.ndarray, regions: Volume | None) -> int:
    lesion = None
    if regions is not None:
        lesion = on_grid(regions.with_array((regions.array > 0).astype(np.float32)), reference).array > 0.5
    chosen = pictures.slices_of_interest(reference.geometry, inside, lesion & inside if lesion is not None else None)
    return chosen[0] if lesion is not None else chosen[len(chosen) // 2]


def _reach(made: dict[str, Comparison], reference: Volume) -> float:
    """Return the ends of the one colour scale that all error maps share."""
    inside = _measured(made, reference)
    return max(error_map(one.result, reference, one.synthetic, inside).reach for one in made.values())


def _pair(name: str, made: Comparison, reference: Volume, reach: float) -> list[pictures.Tile]:
    """Return a method's image and its signed error map."""
    inside = made.mask.array > 0 if made.mask is not None else evaluation_mask(reference, None)
    window = matched_window(pictures.display_window(reference, inside), made.result)
    error = error_map(made.result, reference, made.synthetic, inside)
    return [
        pictures.Tile(f"{name} (SYNTHETIC)", made.synthetic, window),
        pictures.Tile("error", error.volume, (-reach, reach), "difference", error.unit, inside),
    ]
