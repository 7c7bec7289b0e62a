"""The panel of MedXlate: its states, its runs, and everything that may happen while one is under way."""

from __future__ import annotations

import sys
from pathlib import Path

import mrml
import numpy as np
import pytest
from patients import MODULES, new_segmentation, open_panel, paint, phase
from runners import AtOnce, ScriptedRunner

from MedXlateCore.errors import Cancelled, InputError, MedXlateError, ResourceError, Warned


@pytest.fixture
def panel(slicer_app):
    """Return the open panel with nothing in the scene and a runner that obeys the test."""
    found = open_panel(slicer_app)
    found.logic.prepare = found.panel._prepare = lambda place: None
    found.runner = ScriptedRunner()
    found.panel.translator._make_runner = lambda place: found.runner
    return found


@pytest.fixture
def ready(slicer_app, panel):
    """Return the panel with small sources chosen."""
    panel.sources = {role: mrml.add_volume(slicer_app.scene, name=role) for role in ("T1", "T2")}
    panel.ui.detectButton.click()
    return panel


# --- what it shows --------------------------------------------------------------------------------------------------


def test_the_panel_says_that_it_is_for_research_only(panel):
    assert panel.ui.researchLabel.text.startswith("Research use only, not for diagnosis.")
    assert panel.ui.researchLabel.visible


def test_an_empty_scene_gives_an_empty_panel_that_says_what_is_missing(panel):
    ui = panel.ui
    assert not ui.applyButton.enabled
    assert ui.statusText.text == "Choose a volume for T1 and T2."
    assert (ui.stateT1.text, ui.stateT2.text) == ("missing", "missing")
    assert [role for role in ("T1", "T2", "FLAIR", "PD", "CT") if getattr(ui, f"source{role}").visible] == ["T1", "T2"]
    for widget in (ui.overlayButton, ui.sideBySideButton, ui.restoreButton, ui.fadeSlider, ui.copyRecordButton):
        assert not widget.enabled
    assert not ui.progressBar.visible
    assert not ui.errorBox.visible
    assert ui.resultText.text == "No result yet."


def test_sources_are_found_by_their_names_and_the_panel_is_ready(ready):
    assert ready.panel.parameters.sourceT1 is ready.sources["T1"]
    assert ready.panel.parameters.sourceT2 is ready.sources["T2"]
    assert ready.ui.detectLabel.text == "T1 found, T2 found"
    assert ready.ui.applyButton.enabled
    assert ready.ui.statusText.text == "Ready."
    assert ready.ui.modelCombo.currentText == "starter 1.1.0"


def test_a_source_that_the_user_chose_is_not_replaced(slicer_app, panel):
    first = mrml.add_volume(slicer_app.scene, name="something")
    mrml.add_volume(slicer_app.scene, name="T1")
    panel.ui.sourceT1.setCurrentNode(first)
    panel.ui.detectButton.click()
    assert panel.panel.parameters.sourceT1 is first


def test_two_volumes_that_may_be_the_same_role_are_left_to_the_user(slicer_app, panel):
    for name in ("a_t1", "b_t1"):
        mrml.add_volume(slicer_app.scene, name=name)
    panel.ui.detectButton.click()
    assert panel.panel.parameters.sourceT1 is None
    assert panel.ui.detectLabel.text == "2 volumes may be T1, no T2 found"


def test_a_source_that_is_deleted_is_missing_again(slicer_app, ready):
    slicer_app.scene.RemoveNode(ready.sources["T2"])
    slicer_app.process_events()
    assert ready.ui.stateT2.text == "missing"
    assert not ready.ui.applyButton.enabled


def test_choices_are_stored_by_value_and_not_by_their_text(ready):
    ui, parameters = ready.ui, ready.panel.parameters
    ui.deviceCombo.setCurrentIndex(1)
    ui.qualityCombo.setCurrentIndex(1)
    ui.runnerCombo.setCurrentIndex(1)
    ui.gridCombo.setCurrentIndex(1)
    assert (parameters.device, parameters.precision, parameters.runIn, parameters.gridOf) == (
        "cpu",
        "fp32",
        "panel",
        "T2",
    )


def test_segments_get_a_use_by_their_names_and_the_users_choice_is_kept(slicer_app, ready):
    segmentation = mrml.add_segmentation(slicer_app.scene)
    mask = np.zeros(mrml.SHAPE, bool)
    mask[5:7, 5:7, 4:5] = True
    ids = [mrml.add_segment(segmentation, mask, mrml.affine(), name) for name in ("Oedema", "Enhancing", "other")]
    ready.ui.segmentation.setCurrentNode(segmentation)
    table = ready.ui.segmentsTable
    assert [table.cellWidget(row, 1).currentText for row in range(3)] == ["oedema", "core", "not used"]
    assert ready.ui.regionLabel.text == "The region is used as drawn (segments: 2)."
    table.cellWidget(2, 1).setCurrentIndex(1)
    assert ready.panel.parameters.segmentRoles[ids[2]] == "region"
    segmentation.GetSegmentation().RemoveSegment(ids[0])
    slicer_app.process_events()
    assert table.rowCount == 2
    assert [table.cellWidget(row, 1).currentText for row in range(2)] == ["core", "region"]


def test_an_empty_segment_is_pointed_out(slicer_app, ready):
    segmentation, _ = new_segmentation(slicer_app.scene, ready.sources["T1"])
    ready.ui.segmentation.setCurrentNode(segmentation)
    assert ready.ui.regionLabel.text == "1 of 1 used segments are empty."


def test_a_new_segmentation_lies_on_the_sources_grid_and_can_be_painted_at_once(slicer_app, ready):
    node = ready.ui.segmentation.addNode()
    assert node.GetSegmentation().GetNumberOfSegments() == 1
    assert node.GetDisplayNode() is not None
    assert ready.ui.segmentEditor.segmentationNode() is node
    assert ready.ui.segmentEditor.sourceVolumeNode() is ready.sources["T1"]
    assert not ready.ui.editorBox.collapsed
    assert not ready.ui.segmentEditor.autoShowSourceVolumeNode


def test_the_segment_editor_listens_to_views_and_keys_while_the_module_is_shown_and_no_longer(slicer_app, ready):
    editor = ready.ui.segmentEditor._q
    ready.ui.segmentation.addNode()
    assert editor.calls[-2:] == ["setupViewObservations", "installKeyboardShortcuts"]
    slicer_app.leave(ready)
    assert editor.calls[-3:] == ["setActiveEffect(None)", "uninstallKeyboardShortcuts", "removeViewObservations"]


def test_choosing_a_segmentation_leaves_the_segment_editor_as_it_is_until_it_is_unfolded(slicer_app, ready):
    segmentation, _ = new_segmentation(slicer_app.scene, ready.sources["T1"])
    ready.ui.segmentation.setCurrentNode(segmentation)
    assert ready.ui.segmentEditor.segmentationNode() is None
    assert slicer_app.scene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode") is None
    ready.ui.editorBox.collapsed = False
    assert ready.ui.segmentEditor.segmentationNode() is segmentation
    ready.ui.segmentEditor.setActiveEffectByName("Paint")
    ready.ui.editorBox.collapsed = True
    assert ready.ui.segmentEditor._q.effect == ""
    assert ready.ui.segmentEditor.segmentationNode() is segmentation


def test_painting_in_the_segment_editor_module_is_never_disturbed(slicer_app, ready):
    import slicer

    segmentation, segment = new_segmentation(slicer_app.scene, ready.sources["T1"])
    ready.ui.segmentation.setCurrentNode(segmentation)
    ready.ui.editorBox.collapsed = False
    slicer_app.leave(ready)
    other, _ = new_segmentation(slicer_app.scene, ready.sources["T2"], "another")
    module = slicer.vtkMRMLSegmentEditorNode()
    module.SetSingletonTag("SegmentEditor")
    module = slicer_app.scene.AddNode(module)
    editor = slicer.qMRMLSegmentEditorWidget()
    editor.setMRMLSegmentEditorNode(module)
    editor.setSegmentationNode(other)
    editor.setSourceVolumeNode(ready.sources["T2"])
    editor.setActiveEffectByName("Paint")
    mask = np.zeros(mrml.SHAPE, bool)
    mask[5:7, 5:7, 4:5] = True
    paint(segmentation, segment, mask, ready.sources["T1"])  # the panel hears of it
    for collapsed in (True, False):
        ready.ui.editorBox.collapsed = collapsed
    slicer_app.enter(slicer.modules.medxlate)
    assert (editor.segmentationNode(), editor.sourceVolumeNode()) == (other, ready.sources["T2"])
    assert module.GetActiveEffectName() == "Paint"
    assert ready.ui.segmentEditor.segmentationNode() is segmentation


def test_an_effect_is_put_away_with_the_module_and_not_taken_up_behind_its_back(slicer_app, ready):
    segmentation, segment = new_segmentation(slicer_app.scene, ready.sources["T1"])
    ready.ui.segmentation.setCurrentNode(segmentation)
    ready.ui.editorBox.collapsed = False
    ready.ui.segmentEditor.setActiveEffectByName("Paint")
    slicer_app.leave(ready)
    assert ready.ui.segmentEditor._q.effect == ""
    before = list(ready.ui.segmentEditor._q.calls)
    segmentation.GetSegmentation().GetSegment(segment).SetName("renamed")
    slicer_app.process_events()
    assert ready.ui.segmentEditor._q.calls == before


def test_a_scene_closed_while_painting_lets_go_of_the_views_and_the_next_can_be_painted(slicer_app, ready):
    ready.ui.segmentation.addNode()
    slicer_app.close_scene()
    assert ready.ui.segmentEditor._q.calls[-1] == "removeViewObservations"
    assert ready.ui.segmentEditor.segmentationNode() is None
    mrml.add_volume(slicer_app.scene, name="T1")
    node = ready.ui.segmentation.addNode()
    assert ready.ui.segmentEditor.segmentationNode() is node
    assert ready.ui.segmentEditor.mrmlSegmentEditorNode().GetScene() is slicer_app.scene


def test_painting_into_an_empty_segment_is_noticed(slicer_app, ready):
    segmentation, segment = new_segmentation(slicer_app.scene, ready.sources["T1"])
    ready.ui.segmentation.setCurrentNode(segmentation)
    mask = np.zeros(mrml.SHAPE, bool)
    mask[5:8, 4:7, 3:5] = True
    paint(segmentation, segment, mask, ready.sources["T1"])
    slicer_app.process_events()
    assert ready.ui.regionLabel.text == "The region is used as drawn (segments: 1)."


# --- a run ----------------------------------------------------------------------------------------------------------


def test_apply_turns_into_cancel_and_choices_are_locked_while_it_runs(ready):
    ui = ready.ui
    ui.applyButton.click()
    assert ui.applyButton.text == "Cancel"
    assert ui.applyButton.enabled
    assert ui.progressBar.visible
    for widget in (ui.sourceT1, ui.targetCombo, ui.modelCombo, ui.deviceCombo, ui.segmentation, ui.detectButton):
        assert not widget.enabled
    for widget in (ui.addModelButton, ui.verifyModelButton, ui.deleteModelButton):
        assert not widget.enabled
    ready.runner.progress(0, 10)
    ready.runner.progress(4, 10)
    assert (ui.progressBar.value, ui.progressBar.maximum) == (4, 10)
    assert ui.statusText.text.startswith("4 of 10 slices")
    ready.runner.finish()
    assert ui.applyButton.text == "Apply"
    assert not ui.progressBar.visible
    assert ui.sourceT1.enabled


def test_a_result_is_shown_with_its_warnings_and_record(ready):
    ready.ui.applyButton.click()
    ready.runner.hear(Warned("MX-ROI-015", "the region is empty"))
    ready.runner.finish()
    ui = ready.ui
    assert ui.resultText.text == "SYNTHETIC T1ce (starter), on the grid of T1"
    assert "MX-ROI-015: the region is empty" in ui.warningsText.plainText
    assert '"name": "starter"' in ui.recordText.plainText
    assert ready.panel.parameters.result.GetName() == "SYNTHETIC T1ce (starter)"
    for widget in (ui.overlayButton, ui.sideBySideButton, ui.restoreButton, ui.fadeSlider, ui.copyRecordButton):
        assert widget.enabled


def test_the_record_can_be_copied(slicer_app, ready):
    ready.ui.applyButton.click()
    ready.runner.finish()
    ready.ui.copyRecordButton.click()
    assert '"name": "starter"' in slicer_app.app.clipboard().text()


def test_the_views_show_what_was_there_before_when_asked(slicer_app, ready):
    import slicer

    slicer.util.setSliceViewerLayers(background=ready.sources["T2"])
    ready.ui.applyButton.click()
    ready.runner.finish()
    red = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
    assert red.GetForegroundVolumeID() == ready.panel.parameters.result.GetID()
    ready.ui.sideBySideButton.click()
    ready.ui.restoreButton.click()
    assert red.GetBackgroundVolumeID() == ready.sources["T2"].GetID()
    assert red.GetForegroundVolumeID() is None
    assert not ready.ui.restoreButton.enabled


def test_an_error_is_shown_with_its_code_and_what_to_do_and_can_be_copied(slicer_app, ready):
    ready.ui.applyButton.click()
    error = InputError("MX-GEO-010", "the volumes do not overlap", where="T2", fix="register them first")
    ready.runner.fail(error)
    assert ready.ui.errorBox.visible
    assert ready.ui.errorText.plainText == error.as_text()
    assert ready.ui.applyButton.enabled
    ready.ui.copyErrorButton.click()
    copied = slicer_app.app.clipboard().text()
    assert "register them first" in copied
    assert "device: auto" in copied
    assert "Slicer 5." in copied
    assert slicer_app.dialogs.shown == []
    ready.ui.applyButton.click()
    assert not ready.ui.errorBox.visible


def test_a_declined_installation_is_no_error(ready):
    def decline(place):
        raise Cancelled("installation")

    ready.panel._prepare = decline
    ready.ui.applyButton.click()
    assert phase(ready) == "cancelled"
    assert not ready.ui.errorBox.visible
    assert ready.runner.calls == []


def test_a_failed_installation_is_shown_in_the_panel(ready):
    def fail(place):
        raise ResourceError("MX-SLI-160", "the PyTorch extension is not installed", fix="install it")

    ready.panel._prepare = fail
    ready.ui.applyButton.click()
    assert "MX-SLI-160" in ready.ui.errorText.plainText
    assert ready.ui.applyButton.text == "Apply"


def test_another_module_may_be_opened_while_it_runs(slicer_app, ready):
    ready.ui.applyButton.click()
    slicer_app.leave(ready)
    ready.runner.finish()
    slicer_app.enter(slicer_app.loaded[0])
    assert ready.ui.statusText.text.startswith("SYNTHETIC T1ce (starter) was made")


def test_closing_the_scene_while_it_runs_stops_the_run_and_the_panel_starts_afresh(slicer_app, ready):
    ready.ui.applyButton.click()
    slicer_app.close_scene()
    assert ready.runner.calls[-1] == "cancel"
    assert phase(ready) == "cancelled"
    assert ready.ui.applyButton.text == "Apply"
    assert not ready.ui.applyButton.enabled
    assert ready.ui.sourceT1.currentNode() is None
    assert not ready.panel.timer.active


def test_deleting_everything_while_it_runs_does_no_harm(slicer_app, ready):
    segmentation, _ = new_segmentation(slicer_app.scene, ready.sources["T1"])
    ready.ui.segmentation.setCurrentNode(segmentation)
    ready.ui.applyButton.click()
    for node in (*ready.sources.values(), segmentation):
        slicer_app.scene.RemoveNode(node)
    slicer_app.process_events()
    ready.runner.finish()
    assert phase(ready) == "done"
    assert "MX-SLI-141" in ready.ui.warningsText.plainText


def test_choices_and_result_come_back_with_the_scene(slicer_app, ready, tmp_path):
    segmentation, segment = new_segmentation(slicer_app.scene, ready.sources["T1"])
    ready.ui.segmentation.setCurrentNode(segmentation)
    ready.ui.segmentsTable.cellWidget(0, 1).setCurrentIndex(3)
    ready.ui.deviceCombo.setCurrentIndex(1)
    ready.ui.fadeSlider.value = 0.25
    ready.ui.applyButton.click()
    ready.runner.finish()
    scene = slicer_app.scene
    scene.SetSaveToXMLString(1)
    scene.Commit()
    text = scene.GetSceneXMLString()
    slicer_app.close_scene()
    assert ready.panel.parameters.device == "auto"
    scene.SetLoadFromXMLString(1)
    scene.SetSceneXMLString(text)
    scene.Import()
    slicer_app.process_events()
    parameters = ready.panel.parameters
    assert parameters.sourceT1.GetName() == "T1"
    assert parameters.device == "cpu"
    assert parameters.fade == 0.25
    assert parameters.segmentation.GetName() == "lesion"
    assert parameters.segmentRoles == {segment: "oedema"}
    assert parameters.result.GetName() == "SYNTHETIC T1ce (starter)"
    assert ready.ui.deviceCombo.currentText == "Processor (CPU)"
    assert '"name": "starter"' in ready.ui.recordText.plainText


# --- words ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def speaking(ready, monkeypatch):
    """Return the panel with a starter model that says of itself that it can be told in words."""
    from dataclasses import replace

    entries = [replace(entry, card=replace(entry.card, speaks=True)) for entry in ready.panel.models.entries]
    for place in ("panel_models", "script"):
        monkeypatch.setattr(f"MedXlateSlicerLib.{place}.list_packages", lambda: entries)
    ready.panel.enter()
    return ready


@pytest.fixture
def reference(tmp_path):
    """Return a function that writes an image of which its sidecar tells something."""
    import json

    def make(name="sub-07_T2w", **sidecar):
        (tmp_path / f"{name}.nii.gz").write_bytes(b"voxels")
        (tmp_path / f"{name}.json").write_text(json.dumps(sidecar))
        return str(tmp_path / f"{name}.nii.gz")

    return make


def test_a_target_in_words_is_for_models_that_can_be_told_and_not_during_a_run(ready, speaking):
    words = [speaking.ui.targetText, speaking.ui.likeButton]
    assert all(widget.enabled for widget in words)
    assert not speaking.ui.likeText.visible
    speaking.ui.applyButton.click()
    assert not any(widget.enabled for widget in words)
    speaking.runner.finish()
    assert all(widget.enabled for widget in words)
    ready.panel.models.entries = ()
    ready.panel.refresh()
    assert not any(widget.enabled for widget in words)


def test_a_target_like_a_file_is_told_in_the_field_where_it_can_be_changed(slicer_app, speaking, reference):
    slicer_app.dialogs.answer(reference(BodyPartExamined="BRAIN", EchoTime=0.09), "")
    speaking.ui.likeButton.click()
    assert speaking.ui.targetText.text == "T2-weighted MR image of the brain. Echo time 90.0 ms."
    assert speaking.ui.targetText.cursorPosition == 0
    speaking.ui.targetText.text += " At 3 T"
    speaking.ui.likeButton.click()  # nothing is chosen this time
    speaking.ui.applyButton.click()
    assert speaking.runner.calls[0][1].target_text.endswith("Echo time 90.0 ms. At 3 T")
    assert [dialog.kind for dialog in slicer_app.dialogs.shown] == ["QFileDialog.getOpenFileName"] * 2


def test_a_target_may_be_like_one_file_of_a_dicom_series(slicer_app, speaking, tmp_path):
    from dicom_made import write_series

    write_series(tmp_path / "scan", np.ones((4, 4, 3), np.int16), np.diag([2.0, 2, 5, 1]))
    slicer_app.dialogs.answer(str(min((tmp_path / "scan").iterdir())))
    speaking.ui.likeButton.click()
    text = speaking.ui.targetText.text
    assert text.startswith("T1-weighted MR image of the brain. Acquired at 3.0 T.")
    assert "repetition time 600.0 ms" in text
    assert "plane" not in text


def test_a_file_that_says_nothing_usable_is_refused_below_the_field_which_stays(slicer_app, speaking, reference):
    ui = speaking.ui
    ui.targetText.text = "T2 brain"
    files = reference("scan"), reference("scan2", Modality="CT", EchoTime=0.09), "/none/scan.dcm"
    for path, code in zip(files, ("MX-TXT-020", "MX-TXT-022", "MX-FIL-001"), strict=True):
        slicer_app.dialogs.answer(path)
        ui.likeButton.click()
        assert code in ui.likeText.text
        assert Path(path).name in ui.likeText.text
        assert ui.likeText.visible
        assert ui.targetText.text == "T2 brain"
    ui.targetText.text = "T2 of the brain"
    assert not ui.likeText.visible


def test_a_defect_while_a_file_is_read_is_told_too(slicer_app, speaking, monkeypatch):
    def fail(path):
        raise ZeroDivisionError("by chance")

    monkeypatch.setattr("MedXlateSlicerLib.panel_words.text_like", fail)
    slicer_app.dialogs.answer("scan.dcm")
    speaking.ui.likeButton.click()
    assert "MX-INT-001" in speaking.ui.likeText.text
    assert slicer_app.slot_errors == []


def test_a_script_in_words_takes_a_model_that_can_be_told(slicer_app, speaking):
    runner, logic = AtOnce(), speaking.logic
    logic.makeRunner = lambda place: runner
    logic.process(speaking.sources, target_text="T1 brain after gadolinium")
    job = runner.calls[0][1]
    assert (job.target, job.target_text) == (None, "T1 brain after gadolinium")
    assert [volume.modality.value for volume in job.sources] == ["T1", "T2"]
    refused = (
        ({"target": "T1ce", "target_text": "T1 brain"}, "MX-USE-207"),
        ({}, "MX-USE-010"),
        ({"target_text": "T1 brain", "model": "another"}, "MX-SLI-045"),
    )
    for asked, code in refused:
        with pytest.raises(MedXlateError, match=code):
            logic.process(speaking.sources, **asked)
    with pytest.raises(InputError, match="MX-SLI-045") as caught:
        logic.process({}, target_text="T1 brain")
    assert "T1, T2" in caught.value.expected


def test_a_script_in_words_is_refused_where_no_model_can_be_told(ready):
    with pytest.raises(InputError, match="MX-SLI-045") as caught:
        ready.logic.process(ready.sources, target_text="T1 brain")
    assert "EVA-I2I" in caught.value.expected


# --- samples --------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawing(ready, monkeypatch):
    """Return the panel with a starter model that says of itself that it draws samples."""
    from dataclasses import replace

    entries = [replace(entry, card=replace(entry.card, draws_samples=True)) for entry in ready.panel.models.entries]
    monkeypatch.setattr("MedXlateSlicerLib.panel_models.list_packages", lambda: entries)
    ready.panel.enter()
    return ready


def samples_widgets(panel):
    return [panel.ui.samplesSpin, panel.ui.uncertaintyCheck, panel.ui.seedSpin]


def test_samples_are_folded_up_and_cannot_be_set_for_a_model_that_draws_none(ready):
    assert ready.ui.samplesBox.collapsed
    assert not any(widget.visible for widget in samples_widgets(ready))
    ready.ui.samplesBox.collapsed = False
    assert all(widget.visible for widget in samples_widgets(ready))
    assert not any(widget.enabled for widget in samples_widgets(ready))
    assert ready.ui.samplesText.text == "The model starter draws no samples: it makes the same image every time."
    ready.panel.parameters.samples = 4
    ready.ui.applyButton.click()
    assert ready.runner.calls[0][1].sampling is None


def test_samples_can_be_set_for_a_model_that_draws_them_but_not_during_a_run(drawing):
    assert all(widget.enabled for widget in samples_widgets(drawing))
    assert (drawing.ui.samplesSpin.minimum, drawing.ui.samplesSpin.maximum) == (1, 64)
    drawing.ui.applyButton.click()
    assert not any(widget.enabled for widget in samples_widgets(drawing))
    drawing.runner.progress(4, 10)
    assert drawing.ui.statusText.text.startswith("4 of 10 steps")
    drawing.runner.finish()
    assert all(widget.enabled for widget in samples_widgets(drawing))


def test_an_uncertainty_map_takes_eight_samples_unless_told_otherwise_and_never_less_than_two(drawing):
    ui, parameters = drawing.ui, drawing.panel.parameters
    ui.uncertaintyCheck.click()
    assert (parameters.samples, ui.samplesSpin.value) == (8, 8)
    ui.samplesSpin.value = 1
    assert (parameters.samples, ui.samplesSpin.value) == (2, 2)
    ui.uncertaintyCheck.click()
    ui.samplesSpin.value = 1
    assert parameters.samples == 1
    ui.samplesSpin.value = 5
    ui.uncertaintyCheck.click()
    assert parameters.samples == 5


def test_settings_of_samples_reach_the_run_and_come_back_with_the_scene(slicer_app, drawing):
    ui = drawing.ui
    ui.samplesSpin.value = 3
    ui.uncertaintyCheck.click()
    ui.seedSpin.value = 77
    ui.applyButton.click()
    sampling = drawing.runner.calls[0][1].sampling
    assert (sampling.samples, sampling.seed) == (3, 77)
    drawing.runner.finish()
    scene = slicer_app.scene
    scene.SetSaveToXMLString(1)
    scene.Commit()
    text = scene.GetSceneXMLString()
    slicer_app.close_scene()
    parameters = drawing.panel.parameters
    assert (parameters.samples, parameters.uncertaintyMap, parameters.seed) == (1, False, 0)
    assert (ui.samplesSpin.minimum, ui.samplesSpin.value) == (1, 1)
    scene.SetLoadFromXMLString(1)
    scene.SetSceneXMLString(text)
    scene.Import()
    slicer_app.process_events()
    parameters = drawing.panel.parameters
    assert (parameters.samples, parameters.uncertaintyMap, parameters.seed) == (3, True, 77)
    assert (ui.samplesSpin.minimum, ui.samplesSpin.value, ui.seedSpin.value) == (2, 3, 77)
    assert ui.uncertaintyCheck.checked


def test_the_views_show_the_image_and_not_its_uncertainty(slicer_app, drawing):
    drawing.ui.uncertaintyCheck.click()
    drawing.ui.applyButton.click()
    drawing.runner.finish()
    red = slicer_app.scene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
    assert red.GetForegroundVolumeID() == drawing.panel.parameters.result.GetID()
    assert drawing.ui.resultText.text == "SYNTHETIC T1ce (starter), on the grid of T1"
    slicer_app.leave(drawing)
    evaluate = slicer_app.enter(slicer_app.load_module(MODULES / "MedXlateEvaluate" / "MedXlateEvaluate.py"))
    assert evaluate.panel.parameters.synthetic is drawing.panel.parameters.result


# --- models ---------------------------------------------------------------------------------------------------------


def test_models_are_listed_with_their_card(panel):
    table = panel.ui.modelsTable
    assert [table.item(0, column).text() for column in range(4)] == ["starter", "T1ce", "T1, T2, region", "1.1.0"]
    assert "Research use only, not for diagnosis" in panel.ui.cardText.plainText
    assert panel.ui.verifyModelButton.enabled
    assert not panel.ui.deleteModelButton.enabled


def test_a_model_can_be_verified(panel):
    panel.ui.verifyModelButton.click()
    assert panel.ui.modelsText.text == "starter is sound."


def test_a_folder_that_is_no_model_is_refused_below_the_table(slicer_app, panel, tmp_path):
    slicer_app.dialogs.answer(str(tmp_path))
    panel.ui.addModelButton.click()
    assert panel.ui.modelsText.text.startswith("MX-MOD-010")


def test_a_model_of_ones_own_can_be_added_and_deleted(slicer_app, panel, tmp_path, monkeypatch):
    from dataclasses import replace

    from MedXlateCore.models.card import card_text, read_card, sealed
    from MedXlateCore.models.catalogue import bundled_models_folder

    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    folder = tmp_path / "package"
    folder.mkdir()
    for path in (bundled_models_folder() / "starter").iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    (folder / "model.json").write_text(card_text(sealed(replace(read_card(folder), name="mine"))), encoding="utf-8")
    slicer_app.dialogs.answer(str(folder))
    panel.ui.addModelButton.click()
    assert panel.ui.modelsText.text == "mine was added."
    assert [panel.ui.modelsTable.item(row, 0).text() for row in range(2)] == ["mine", "starter"]
    panel.ui.modelsTable.selectRow(0)
    assert panel.ui.deleteModelButton.enabled
    slicer_app.dialogs.answer(1024)  # Ok
    panel.ui.deleteModelButton.click()
    assert panel.ui.modelsText.text == "mine was deleted."
    assert panel.ui.modelsTable.rowCount == 1


def test_a_scene_opened_from_a_file_is_shown_when_all_of_it_is_there(slicer_app, ready, tmp_path):
    scene, seen = slicer_app.scene, []
    scene.SetURL(str(tmp_path / "scene.mrml"))
    ready.ui.deviceCombo.setCurrentIndex(1)
    scene.Commit()
    ready.ui.deviceCombo.setCurrentIndex(0)

    def added(*ignored):
        if scene.IsImporting():  # afterwards subject hierarchies are merged, with the panel shown again
            seen.append(ready.panel.parameters)

    tag = scene.AddObserver(scene.NodeAddedEvent, added)
    scene.Connect()
    scene.RemoveObserver(tag)
    assert seen
    assert set(seen) == {None}
    assert ready.panel.parameters.device == "cpu"
    assert ready.panel.parameters.sourceT1.GetName() == "T1"
    assert ready.ui.deviceCombo.currentText == "Processor (CPU)"


def test_a_phantom_from_sample_data_is_shown_in_the_views(slicer_app, panel, monkeypatch):
    def load(scene, folder, seed):
        assert folder.name == "MedXlate"
        return {"T1": mrml.add_volume(scene, name=f"T1 of {seed}")}

    monkeypatch.setattr("MedXlateSlicerLib.sample_data.load_phantom_case", load)
    module = slicer_app.loaded[0].python_module
    module.registerSampleData()
    source = next(source for source in slicer_app.sample_data if "customDownloader" in source)
    (node,) = source["customDownloader"](source)
    red = slicer_app.scene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
    assert red.GetBackgroundVolumeID() == node.GetID()


# --- the module's life ----------------------------------------------------------------------------------------------


def test_a_scene_saved_side_by_side_opens_with_its_views(slicer_app, panel):
    from MedXlateSlicerLib.placement import COMPARISON_LAYOUT

    layout = slicer_app.scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    assert layout.IsLayoutDescription(COMPARISON_LAYOUT)  # known since the start, before any result


def test_the_panel_may_be_taken_down_twice(slicer_app, ready):
    ready.ui.applyButton.click()
    ready.cleanup()
    assert not ready.runner.busy
    ready.cleanup()
    ready.exit()


@pytest.mark.parametrize("name", ["MedXlate", "MedXlateEvaluate"])
def test_reloading_a_module_reads_the_library_anew(slicer_app, monkeypatch, name):
    import slicer.ScriptedLoadableModule as base

    widget = slicer_app.enter(slicer_app.load_module(MODULES / name / f"{name}.py"))
    kept, seen = dict(sys.modules), []
    monkeypatch.setattr(
        base.ScriptedLoadableModuleWidget,
        "onReload",
        lambda self: seen.append([found for found in sys.modules if found.startswith("MedXlateSlicerLib")]),
    )
    try:
        widget.onReload()
    finally:
        sys.modules.update(kept)
    assert seen == [[]]
