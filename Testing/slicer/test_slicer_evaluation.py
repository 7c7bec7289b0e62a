"""Evaluation in a scene: the same figures as everywhere, as table, error map, plots and files."""

import csv

import mrml
import numpy as np
import pytest
from MedXlateSlicerLib.bridge import GRID_ATTRIBUTE, WORLD_GRID, roi_from_segmentation, volume_from_node, world_geometry
from MedXlateSlicerLib.evaluation import (
    add_error_map,
    add_plots,
    add_table,
    compare_nodes,
    export_csv,
    export_html,
    remove_nodes,
)
from MedXlateSlicerLib.placement import mark_synthetic
from MedXlateSlicerLib.roles import role_of

from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.metrics.evaluation import evaluate
from MedXlateCore.metrics.report import format_value
from MedXlateCore.transforms.resampling import resample
from MedXlateCore.volume import Geometry

LABELS = {"oedema": (2,), "core": (1, 3, 4)}
GEOMETRY = Geometry((32, 30, 16), mrml.affine(tilt=(3, 5, -8)))
RECORD = {"synthetic": True, "target": "T1ce", "model": {"name": "m", "version": "1", "sha256": "00"}, "made": "here"}


class Pair:
    """A reference and a synthetic volume with a segmentation of the lesion, under one transform."""

    def __init__(self, scene, patient) -> None:
        reference = patient["T1"].array
        noise = np.random.default_rng(5).normal(0, 20, reference.shape) * (reference > 0)
        synthetic = (reference * 1.05 + noise).astype(np.float32)
        self.patient = patient
        self.reference = mrml.add_volume(scene, reference, GEOMETRY.affine_ras, "true T1ce")
        self.synthetic = mrml.add_volume(scene, synthetic, GEOMETRY.affine_ras, "SYNTHETIC T1ce (m)")
        mark_synthetic(self.synthetic, RECORD)
        transform = mrml.add_linear(scene, mrml.affine(tilt=(0, 0, 15)), self.reference)
        self.synthetic.SetAndObserveTransformNodeID(transform.GetID())
        self.segmentation = mrml.add_segmentation(scene)
        self.segmentation.SetAndObserveTransformNodeID(transform.GetID())
        self.segments = {
            "core": [mrml.add_segment(self.segmentation, patient["region"].array == 1, GEOMETRY.affine_ras, "core")],
            "oedema": [mrml.add_segment(self.segmentation, patient["region"].array == 2, GEOMETRY.affine_ras, "oed")],
        }

    def regions(self):
        return roi_from_segmentation(self.segmentation, self.segments, self.reference, LABELS)


@pytest.fixture
def pair(slicer_scene, make_patient) -> Pair:
    return Pair(slicer_scene, make_patient(GEOMETRY))


@pytest.fixture
def comparison(pair):
    return compare_nodes(pair.reference, pair.synthetic, regions=pair.regions(), region_labels=LABELS)


def columns_of(table) -> dict[str, list]:
    data = table.GetTable()
    return {
        data.GetColumn(index).GetName(): [
            data.GetColumn(index).GetValue(row) for row in range(data.GetColumn(index).GetNumberOfValues())
        ]
        for index in range(data.GetNumberOfColumns())
    }


def test_the_figures_are_those_of_the_core(slicer_scene, pair):
    before = mrml.picture(slicer_scene)
    found = compare_nodes(
        pair.reference, pair.synthetic, scene=slicer_scene, regions=pair.regions(), region_labels=LABELS
    )
    assert mrml.picture(slicer_scene) == before
    expected = evaluate(
        volume_from_node(pair.reference, "T1ce"),
        volume_from_node(pair.synthetic, "T1ce"),
        regions=pair.regions(),
        region_labels=LABELS,
    )
    assert found.result.to_dict() == expected.to_dict()
    assert found.reference.modality == "T1ce"
    assert found.record["made"] == "here"


def test_a_synthetic_volume_on_another_grid_is_resampled_and_that_is_said(slicer_scene, pair):
    coarse = Geometry((18, 16, 12), GEOMETRY.affine_ras @ np.diag([1.8, 1.9, 1.4, 1]))
    array = resample(mrml.voxels_of(pair.synthetic), GEOMETRY, coarse)
    other = mrml.add_volume(slicer_scene, array, coarse.affine_ras, "coarse")
    other.SetAndObserveTransformNodeID(pair.reference.GetTransformNodeID())
    found = compare_nodes(pair.reference, other, modality="T1ce")
    assert found.result.warnings[0].code == "MX-SLI-104"
    assert found.synthetic.geometry.allclose(world_geometry(pair.reference), 1e-6)


def test_an_empty_choice_or_a_blank_image_is_refused(slicer_scene, pair):
    with pytest.raises(UsageError) as chosen:
        compare_nodes(pair.reference, None)
    assert chosen.value.code == "MX-SLI-001"
    blank = mrml.add_volume(slicer_scene, np.zeros(GEOMETRY.shape, np.float32), GEOMETRY.affine_ras, "blank")
    with pytest.raises(InputError):
        compare_nodes(blank, pair.synthetic)


def test_a_record_that_is_no_json_is_left_out(pair):
    pair.synthetic.SetAttribute("MedXlate.record", "{broken")
    assert compare_nodes(pair.reference, pair.synthetic).record is None


def test_the_table_shows_whole_inside_and_outside(slicer_scene, comparison):
    columns = columns_of(add_table(slicer_scene, comparison, "figures"))
    assert columns["region"] == ["whole", "inside the region", "oedema", "core", "outside the region"]
    regions = comparison.result.regions
    assert columns["ssim"] == [format_value("ssim", regions[name]["ssim"]) for name in regions]
    assert columns["voxels"][0] == format_value("voxels", regions["brain"]["voxels"])


def test_the_table_of_a_slice_protocol_shows_mean_and_deviation(slicer_scene, pair):
    found = compare_nodes(pair.reference, pair.synthetic, protocol="hinet")
    columns = columns_of(add_table(slicer_scene, found, "figures"))
    assert set(columns) == {"figure", "value", "standard deviation"}
    assert len(columns["value"]) == len(found.result.protocol.metrics)


def test_the_error_map_lies_on_the_reference_in_blue_white_and_red(slicer_scene, pair, comparison):
    node = add_error_map(slicer_scene, comparison, pair.reference, "error of SYNTHETIC T1ce (m)")
    assert node.GetTransformNodeID() == pair.reference.GetTransformNodeID()
    assert world_geometry(node).allclose(world_geometry(pair.reference), 1e-6)
    error = mrml.voxels_of(pair.synthetic) - mrml.voxels_of(pair.reference)
    inside = mrml.voxels_of(pair.reference) > 0
    assert np.corrcoef(error[inside], mrml.voxels_of(node)[inside])[0, 1] == pytest.approx(1)
    display = node.GetDisplayNode()
    assert display.GetWindowLevelMin() == -display.GetWindowLevelMax()
    assert node.GetAttribute("MedXlate.unit") == "% of reference range"
    colours = display.GetColorNode().GetLookupTable()
    low, middle, high = (colours.GetTableValue(index) for index in (0, 127, 254))
    assert low[2] > low[0]
    assert high[0] > high[2]
    assert min(middle[:3]) > 0.95
    assert role_of(node) is None
    again = add_error_map(slicer_scene, comparison, pair.reference, "second")
    assert again.GetDisplayNode().GetColorNodeID() == display.GetColorNodeID()


def test_the_error_map_of_a_deleted_reference_lies_in_world_space(slicer_scene, pair, comparison):
    slicer_scene.RemoveNode(pair.reference)
    node = add_error_map(slicer_scene, comparison, pair.reference, "error")
    assert node.GetAttribute(GRID_ATTRIBUTE) == WORLD_GRID


def test_the_plots_hold_histograms_and_limits_of_agreement(slicer_scene, comparison):
    nodes = add_plots(slicer_scene, comparison, "T1ce")
    histogram, differences = nodes[:2]
    assert histogram.GetNumberOfPlotSeriesNodes() == 2
    assert differences.GetNumberOfPlotSeriesNodes() == 4
    shares = columns_of(histogram.GetNthPlotSeriesNode(0).GetTableNode())
    assert sum(shares["reference"]) == pytest.approx(100, abs=0.5)
    series = {
        differences.GetNthPlotSeriesNode(i).GetYColumnName(): differences.GetNthPlotSeriesNode(i) for i in range(4)
    }
    levels = columns_of(series["bias"].GetTableNode())
    inside = comparison.brain
    error = comparison.synthetic.array[inside].astype(float) - comparison.reference.array[inside]
    assert levels["bias"] == pytest.approx([error.mean()] * 2)
    assert levels["+1.96 SD"] == pytest.approx([error.mean() + 1.96 * error.std()] * 2)
    assert len(columns_of(series["difference"].GetTableNode())["mean"]) <= 4000


def test_what_was_added_can_be_removed_without_a_trace(slicer_scene, pair, comparison):
    add_error_map(slicer_scene, comparison, pair.reference, "first: the colours stay")
    before = mrml.content(slicer_scene)
    added = [
        add_table(slicer_scene, comparison, "t"),
        add_error_map(slicer_scene, comparison, pair.reference, "e"),
        *add_plots(slicer_scene, comparison, "p"),
        None,
    ]
    slicer_scene.RemoveNode(added[0])
    remove_nodes(slicer_scene, added)
    assert mrml.content(slicer_scene) == before


def test_the_csv_holds_every_figure_in_full_precision(comparison, tmp_path):
    export_csv(tmp_path / "figures.csv", comparison)
    with (tmp_path / "figures.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["protocol"] == "volume3d"
    assert rows[1]["region"] == "inside the region"
    assert float(rows[1]["ssim"]) == comparison.result.regions["lesion"]["ssim"]


def test_the_page_shows_pictures_and_the_run_record(comparison, tmp_path):
    export_html(tmp_path / "page.html", comparison)
    page = (tmp_path / "page.html").read_text()
    assert "data:image/png" in page
    assert "&quot;made&quot;: &quot;here&quot;" in page
    assert "not for diagnosis" in page
