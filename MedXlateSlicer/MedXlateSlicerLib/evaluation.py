"""A synthetic volume node against its reference: figures in a table, an error map, plots, and files for a paper.

Figures come from :mod:`MedXlateCore.metrics`, the same as on the command line; this file only makes nodes of them.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.errors import Warned
from MedXlateCore.files import atomic_write_text
from MedXlateCore.metrics.differences import error_map, plot_values
from MedXlateCore.metrics.evaluation import evaluate
from MedXlateCore.metrics.plots import bland_altman_values, histogram_values
from MedXlateCore.metrics.protocols import Protocol
from MedXlateCore.metrics.regions import BRAIN, HEALTHY, LESION, evaluation_mask
from MedXlateCore.metrics.report import METRIC_WORDS, format_value, write_evaluation_report
from MedXlateCore.metrics.result import EvaluationResult
from MedXlateCore.transforms.resampling import resample
from MedXlateCore.volume import Modality, Volume
from MedXlateSlicerLib.bridge import node_from_volume, volume_from_node
from MedXlateSlicerLib.colours import difference_colours
from MedXlateSlicerLib.nodes import Node
from MedXlateSlicerLib.placement import RECORD_ATTRIBUTE, TARGET_ATTRIBUTE

__all__ = [
    "REGION_WORDS",
    "Comparison",
    "add_error_map",
    "add_plots",
    "add_table",
    "compare_nodes",
    "export_csv",
    "export_html",
    "remove_nodes",
    "result_rows",
]

REGION_WORDS = {BRAIN: "whole", LESION: "inside the region", HEALTHY: "outside the region"}

_REFERENCE_COLOUR, _SYNTHETIC_COLOUR = (0.106, 0.310, 0.541), (0.702, 0.212, 0.106)
_DOTS = 2000


@dataclass(frozen=True)
class Comparison:
    """One comparison, with all that its table, pictures and files need.

    Attributes:
        result: the figures.
        reference, synthetic: copies of the two nodes, on the reference's grid.
        regions: label map of the lesion on that grid, or None.
        mask: where it was measured, or None for the reference's foreground.
        region_labels: label values of the lesion's parts, or None.
        record: run record of the synthetic volume, where its node has one.
    """

    result: EvaluationResult
    reference: Volume
    synthetic: Volume
    regions: Volume | None
    mask: Volume | None
    region_labels: Mapping[str, Sequence[int]] | None
    record: Mapping[str, Any] | None

    @cached_property
    def brain(self) -> NDArray[np.bool_]:
        """The voxels that count, shape [I, J, K]."""
        return evaluation_mask(self.reference, self.mask)


def compare_nodes(
    reference_node: Node,
    synthetic_node: Node,
    *,
    scene: Node | None = None,
    modality: Modality | str | None = None,
    protocol: str | Protocol = "volume3d",
    regions: Volume | None = None,
    region_labels: Mapping[str, Sequence[int]] | None = None,
    mask: Volume | None = None,
    match_intensity: bool = False,
) -> Comparison:
    """Compare a synthetic volume node with its reference, in world space.

    Args:
        reference_node: the acquired image.
        synthetic_node: the image under test; on another grid it is resampled (linear) onto the reference's, with the
            warning ``MX-SLI-104``.
        scene: the scene both should be in; None to take any.
        modality: what both show; None for the target that the synthetic node names, or else unknown.
        protocol, match_intensity: see ``MedXlateCore.metrics.evaluation.evaluate``.
        regions: label map of the lesion on the reference's grid, from ``bridge.roi_from_segmentation``.
        region_labels: label values of its parts.
        mask: where to measure, on the reference's grid.

    Raises:
        MedXlateError: see ``bridge.volume_from_node`` and ``MedXlateCore.metrics.evaluation.evaluate``.
    """
    role = modality or (synthetic_node.GetAttribute(TARGET_ATTRIBUTE) if synthetic_node else None) or Modality.OTHER
    reference = volume_from_node(reference_node, role, scene)
    synthetic, warnings = _on_grid(volume_from_node(synthetic_node, role, scene), reference)
    result = evaluate(
        reference,
        synthetic,
        protocol,
        mask=mask,
        regions=regions,
        region_labels=region_labels,
        match_intensity=match_intensity,
    )
    result = replace(result, warnings=(*warnings, *result.warnings))
    return Comparison(result, reference, synthetic, regions, mask, region_labels, _record_of(synthetic_node))


def _on_grid(synthetic: Volume, reference: Volume) -> tuple[Volume, list[Warned]]:
    if synthetic.geometry.allclose(reference.geometry):
        return synthetic, []
    array = resample(
        synthetic.array.astype(np.float32), synthetic.geometry, reference.geometry, 1, synthetic.modality.air_value
    )
    text = "the synthetic volume was resampled onto the reference's grid, which smooths it"
    warning = Warned("MX-SLI-104", text, synthetic.name, "translate on the reference's grid for exact figures")
    return replace(synthetic, array=array, geometry=reference.geometry), [warning]


def _record_of(node: Node) -> Mapping[str, Any] | None:
    try:
        record = json.loads(node.GetAttribute(RECORD_ATTRIBUTE) or "null")
    except ValueError:  # edited by hand: shown as none
        return None
    return record if isinstance(record, dict) else None


# --- figures --------------------------------------------------------------------------------------------------------


def result_rows(result: EvaluationResult) -> list[dict[str, Any]]:
    """Return the figures as rows: one a region where the protocol has regions, else one a figure."""
    if not result.regions:
        return [
            {
                "figure": METRIC_WORDS.get(name, name),
                "value": result.metrics[name],
                "standard deviation": result.metrics.get(f"{name}_std"),
            }
            for name in result.protocol.metrics
        ]
    columns = ("voxels", "volume_ml", *result.protocol.metrics)
    return [
        {"region": REGION_WORDS.get(name, name), **{column: figures.get(column) for column in columns}}
        for name, figures in result.regions.items()
    ]


def add_table(scene: Node, comparison: Comparison, name: str) -> Node:
    """Add the figures as a table node, as they are written in the report; the warnings are its description."""
    import slicer

    rows = result_rows(comparison.result)
    node = slicer.vtkMRMLTableNode()
    node.SetName(scene.GenerateUniqueName(name))
    for column in rows[0]:
        texts = (row[column] if isinstance(row[column], str) else format_value(column, row[column]) for row in rows)
        _add_text_column(node, column, texts)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetLocked(True)
    node.SetAttribute("MedXlate.protocol", comparison.result.protocol.name)
    node.SetDescription("\n".join(warning.as_text() for warning in comparison.result.warnings))
    scene.AddNode(node)
    return node


def export_csv(path: Path | str, comparison: Comparison) -> None:
    """Write the figures as CSV, in full precision, with the protocol's name in every row; complete or absent.

    Raises:
        ResourceError: the file cannot be written; see ``MedXlateCore.files``.
    """
    rows = [{"protocol": comparison.result.protocol.name, **row} for row in result_rows(comparison.result)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write_text(Path(path), text.getvalue())


def export_html(path: Path | str, comparison: Comparison, sources: Sequence[Volume] = ()) -> None:
    """Write the page with pictures, figures, plots, warnings and run record; complete or absent.

    Raises:
        ResourceError: the file cannot be written; see ``MedXlateCore.files``.
    """
    write_evaluation_report(
        path,
        comparison.result,
        comparison.reference,
        comparison.synthetic,
        sources,
        comparison.regions,
        comparison.record,
        mask=comparison.mask,
        region_labels=comparison.region_labels,
    )


# --- error map ------------------------------------------------------------------------------------------------------


def add_error_map(scene: Node, comparison: Comparison, reference_node: Node | None, name: str) -> Node:
    """Add synthetic minus reference as a volume node: red is too bright, blue too dark, white no difference.

    The unit (HU, SUV or percent of the reference's range) stands in the attribute ``MedXlate.unit``.
    """
    found = error_map(comparison.result, comparison.reference, comparison.synthetic, comparison.brain)
    node = node_from_volume(found.volume, scene, name, reference_node)
    node.SetAttribute("MedXlate.unit", found.unit)
    node.SetDescription(f"synthetic minus reference, in {found.words}")
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(difference_colours(scene).GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(-found.reach, found.reach)
    return node


# --- plots ----------------------------------------------------------------------------------------------------------


def add_plots(scene: Node, comparison: Comparison, name: str) -> list[Node]:
    """Add the histograms and the plot of differences against means (Bland and Altman 1986).

    Returns:
        All nodes added: two chart nodes first, then their series and tables.
    """
    reference, synthetic, unit = plot_values(
        comparison.result, comparison.reference, comparison.synthetic, comparison.brain
    )
    histogram, agreement = histogram_values(reference, synthetic), bland_altman_values(reference, synthetic)
    shares = {"reference": 100 * histogram.reference, "synthetic": 100 * histogram.synthetic}
    bins = _add_numbers(scene, f"{name} histogram data", {"intensity": histogram.centres, **shares})
    step = max(1, agreement.means.size // _DOTS)
    dots = {"mean": agreement.means[::step], "difference": agreement.errors[::step]}
    dots_table = _add_numbers(scene, f"{name} differences data", dots)
    ends = np.array([float(agreement.means.min()), float(agreement.means.max())])
    low, high = agreement.limits
    levels = {"bias": agreement.bias, "-1.96 SD": low, "+1.96 SD": high}
    lines = {"mean": ends, **{line: np.full(2, level) for line, level in levels.items()}}
    lines_table = _add_numbers(scene, f"{name} limits data", lines)
    curves = [
        _add_series(scene, bins, "intensity", "reference", _REFERENCE_COLOUR),
        _add_series(scene, bins, "intensity", "synthetic", _SYNTHETIC_COLOUR),
    ]
    clouds = [_add_series(scene, dots_table, "mean", "difference", _REFERENCE_COLOUR, dots=True)]
    clouds += [_add_series(scene, lines_table, "mean", line, _SYNTHETIC_COLOUR) for line in levels]
    charts = [
        _add_chart(scene, f"{name} histogram", curves, f"intensity ({unit})", "share of voxels (%)"),
        _add_chart(scene, f"{name} differences", clouds, f"mean of both ({unit})", f"synthetic - reference ({unit})"),
    ]
    return [*charts, *curves, *clouds, bins, dots_table, lines_table]


def _add_numbers(scene: Node, name: str, columns: Mapping[str, NDArray[np.floating]]) -> Node:
    import slicer
    from vtk.util.numpy_support import numpy_to_vtk

    node = slicer.vtkMRMLTableNode()
    node.SetName(scene.GenerateUniqueName(name))
    for title, values in columns.items():
        column = numpy_to_vtk(np.ascontiguousarray(values, dtype=np.float64), deep=True)
        column.SetName(title)
        node.AddColumn(column)
    scene.AddNode(node)
    return node


def _add_text_column(node: Node, title: str, texts: Iterable[str]) -> None:
    import vtk

    column = vtk.vtkStringArray()
    column.SetName(title)
    for text in texts:
        column.InsertNextValue(text)
    node.AddColumn(column)


def _add_series(
    scene: Node, table: Node, x: str, y: str, colour: tuple[float, float, float], *, dots: bool = False
) -> Node:
    import slicer

    node = slicer.vtkMRMLPlotSeriesNode()
    node.SetName(scene.GenerateUniqueName(y))
    node.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    node.SetXColumnName(x)
    node.SetYColumnName(y)
    node.SetColor(*colour)
    node.SetMarkerStyle(node.MarkerStyleCircle if dots else node.MarkerStyleNone)
    node.SetMarkerSize(2)
    node.SetLineStyle(node.LineStyleNone if dots else node.LineStyleSolid)
    scene.AddNode(node)
    node.SetAndObserveTableNodeID(table.GetID())
    return node


def _add_chart(scene: Node, name: str, series: Sequence[Node], x_title: str, y_title: str) -> Node:
    import slicer

    node = slicer.vtkMRMLPlotChartNode()
    node.SetName(scene.GenerateUniqueName(name))
    node.SetTitle(name)
    node.SetXAxisTitle(x_title)
    node.SetYAxisTitle(y_title)
    scene.AddNode(node)
    for curve in series:
        node.AddAndObservePlotSeriesNodeID(curve.GetID())
    return node


def remove_nodes(scene: Node, nodes: Iterable[Node | None]) -> None:
    """Remove nodes made here, with their display nodes; those that are gone already, and None, are passed over."""
    for node in nodes:
        if node is None or node.GetScene() is not scene:
            continue
        displays = [node.GetNthDisplayNode(i) for i in range(node.GetNumberOfDisplayNodes())] if _is_shown(node) else []
        for display in filter(None, displays):
            scene.RemoveNode(display)
        scene.RemoveNode(node)


def _is_shown(node: Node) -> bool:
    return bool(node.IsA("vtkMRMLDisplayableNode"))
