"""The panel of MedXlateEvaluate: figures, error map, plots, export."""

from __future__ import annotations

import csv

import mrml
import numpy as np
import pytest
from MedXlateSlicerLib.bridge import SYNTHETIC_ATTRIBUTE
from mrml import voxels_of
from patients import MODULES, portraits


def add_pair(scene):
    """Add a reference, and a synthetic volume that is too bright inside a block."""
    reference = mrml.add_volume(scene, name="T1ce")
    array = mrml.pattern()
    array[4:7, 3:6, 2:4] += 25
    synthetic = mrml.add_volume(scene, array, name="SYNTHETIC T1ce (starter)")
    synthetic.SetAttribute(SYNTHETIC_ATTRIBUTE, "1")
    synthetic.SetAttribute("MedXlate.target", "T1ce")
    segmentation = mrml.add_segmentation(scene)
    mask = np.zeros(mrml.SHAPE, bool)
    mask[4:7, 3:6, 2:4] = True
    mrml.add_segment(segmentation, mask, mrml.affine(), "core")
    return reference, synthetic, segmentation


@pytest.fixture
def panel(slicer_app):
    slicer_app.nodes = add_pair(slicer_app.scene)
    found = slicer_app.enter(slicer_app.load_module(MODULES / "MedXlateEvaluate" / "MedXlateEvaluate.py"))
    found.reference, found.synthetic, found.segmentation = slicer_app.nodes
    return found


@pytest.fixture
def compared(panel):
    """Return the panel after a comparison."""
    panel.ui.reference.setCurrentNode(panel.reference)
    panel.ui.segmentation.setCurrentNode(panel.segmentation)
    panel.ui.applyButton.click()
    assert panel.panel.comparison is not None, panel.ui.errorText.plainText
    return panel


def test_the_newest_synthetic_image_is_suggested_and_the_reference_is_asked_for(panel):
    assert panel.panel.parameters.synthetic is panel.synthetic
    assert panel.ui.statusText.text == "Choose a synthetic image and its reference."
    assert not panel.ui.applyButton.enabled
    for name in ("showErrorButton", "showPlotButton", "restoreButton", "exportCsvButton", "exportHtmlButton"):
        assert not getattr(panel.ui, name).enabled


def test_an_image_is_not_compared_with_itself(panel):
    panel.ui.reference.setCurrentNode(panel.synthetic)
    assert panel.ui.statusText.text == "Synthetic image and reference are the same volume."
    assert not panel.ui.applyButton.enabled


def test_figures_stand_in_a_table_for_whole_inside_and_outside(compared):
    table = compared.ui.tableView.mrmlTableNode().GetTable()
    rows = [table.GetValue(row, 0).ToString() for row in range(table.GetNumberOfRows())]
    assert rows == ["whole", "inside the region", "core", "outside the region"]
    regions = compared.panel.comparison.result.regions
    assert regions["lesion"]["mae"] > 10 * regions["healthy"]["mae"]
    assert regions["healthy"]["mae"] == 0
    assert compared.ui.statusText.text == "Compared under the protocol volume3d."


def test_the_error_map_is_shown_over_the_reference_and_the_views_come_back(slicer_app, compared):
    import slicer

    red = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
    compared.ui.showErrorButton.click()
    error = slicer_app.scene.GetNodeByID(red.GetForegroundVolumeID())
    assert red.GetBackgroundVolumeID() == compared.reference.GetID()
    assert voxels_of(error).max() > 0
    assert error.GetDisplayNode().GetColorNode().GetName() == "MedXlate difference"
    compared.ui.restoreButton.click()
    assert red.GetForegroundVolumeID() is None
    assert not compared.ui.restoreButton.enabled


@pytest.mark.parametrize(("index", "word"), [(0, "histogram"), (1, "differences")])
def test_the_chosen_plot_is_shown_in_the_plot_view(slicer_app, compared, index, word):
    import slicer

    compared.ui.plotCombo.setCurrentIndex(index)
    compared.ui.showPlotButton.click()
    chart = slicer.app.applicationLogic().GetSelectionNode().GetActivePlotChartID()
    assert word in slicer_app.scene.GetNodeByID(chart).GetName()
    layout = slicer.app.layoutManager().layout
    assert layout == slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalPlotView


def test_comparing_again_replaces_the_nodes_and_leaves_the_users_own(slicer_app, compared):
    mine = [compared.reference, compared.synthetic, compared.segmentation]
    before, count = portraits(slicer_app.scene, mine), slicer_app.scene.GetNumberOfNodes()
    compared.ui.applyButton.click()
    assert slicer_app.scene.GetNumberOfNodes() == count
    assert portraits(slicer_app.scene, mine) == before


def test_figures_are_exported_as_csv_and_as_a_page(slicer_app, compared, tmp_path):
    slicer_app.dialogs.answer(str(tmp_path / "figures.csv"), str(tmp_path / "page"))
    compared.ui.exportCsvButton.click()
    compared.ui.exportHtmlButton.click()
    rows = list(csv.DictReader((tmp_path / "figures.csv").open(encoding="utf-8")))
    assert [row["region"] for row in rows[:2]] == ["whole", "inside the region"]
    assert float(rows[1]["mae"]) == compared.panel.comparison.result.regions["lesion"]["mae"]
    assert "not for diagnosis" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert compared.ui.statusText.text == f"Written: {tmp_path / 'page'}.html"


def test_a_file_that_cannot_be_written_is_an_error_in_the_panel(slicer_app, compared, tmp_path):
    (tmp_path / "taken.csv").mkdir()
    slicer_app.dialogs.answer(str(tmp_path / "taken.csv"))
    compared.ui.exportCsvButton.click()
    assert compared.ui.errorBox.visible
    assert compared.ui.errorText.plainText.startswith("MX-FIL-010")


def test_nothing_is_written_when_the_file_dialog_is_left(slicer_app, compared, tmp_path):
    slicer_app.dialogs.answer("")
    compared.ui.exportCsvButton.click()
    assert list(tmp_path.glob("*.csv")) == []


def test_images_that_cannot_be_compared_give_an_error_with_a_code(slicer_app, panel):
    empty = mrml.add_volume(slicer_app.scene, np.zeros(mrml.SHAPE, np.float32), name="empty")
    panel.ui.reference.setCurrentNode(empty)
    panel.ui.applyButton.click()
    assert panel.ui.errorText.plainText.startswith("MX-")
    assert panel.panel.comparison is None
    panel.ui.copyErrorButton.click()
    assert slicer_app.app.clipboard().text().startswith("MX-")
    assert slicer_app.dialogs.shown == []


def test_a_protocol_is_explained_in_its_tooltip_and_used(compared):
    names = [compared.ui.protocolCombo.itemText(index) for index in range(compared.ui.protocolCombo.count)]
    compared.ui.protocolCombo.setCurrentIndex(names.index("tlp"))
    assert compared.panel.parameters.protocol == "tlp"
    assert len(compared.ui.protocolCombo.toolTip) > 40


def test_error_map_and_charts_deleted_by_the_user_are_not_shown(slicer_app, compared):
    import slicer

    red = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
    for node in list(compared.panel._nodes):
        slicer_app.scene.RemoveNode(node)
    compared.ui.showErrorButton.click()
    compared.ui.showPlotButton.click()
    assert red.GetForegroundVolumeID() is None
    compared.ui.applyButton.click()
    assert not compared.ui.errorBox.visible


def test_closing_the_scene_empties_the_panel(slicer_app, compared):
    slicer_app.close_scene()
    assert compared.panel.comparison is None
    assert not compared.ui.applyButton.enabled
    assert not compared.ui.exportCsvButton.enabled
    assert compared.ui.tableView.mrmlTableNode() is None


def test_the_label_of_the_segments_does_not_hang_on_the_panel_being_shown(slicer_app, compared):
    slicer_app.leave(compared)
    compared.panel.refresh()
    assert not compared.ui.segmentsLabel.isHidden()
    compared.ui.segmentation.setCurrentNode(None)
    assert compared.ui.segmentsLabel.isHidden()


def test_a_script_gets_the_same_figures(compared):
    comparison = compared.logic.process(compared.synthetic, compared.reference, compared.segmentation)
    assert comparison.result.regions == compared.panel.comparison.result.regions


def test_without_a_region_there_is_one_row_for_the_whole_image(panel):
    panel.ui.reference.setCurrentNode(panel.reference)
    panel.ui.applyButton.click()
    assert not panel.ui.errorBox.visible
    assert list(panel.panel.comparison.result.regions) == ["brain"]
