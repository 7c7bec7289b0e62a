"""Runs one after another: sessions, updates, cancel, nodes that vanish. Real MRML, a runner that obeys the test."""

from __future__ import annotations

import json

import mrml
import numpy as np
import pytest
from runners import ScriptedRunner

from MedXlateCore.errors import ResourceError, UsageError, Warned
from MedXlateCore.models.sampling import Sampling


class Memory(dict):
    """Settings in memory."""

    def value(self, key, default=None):
        return self.get(key, default)

    def setValue(self, key, value):
        self[key] = value


@pytest.fixture
def setting(slicer_scene):
    """Return scene, sources, runner, translator and a function that makes requests."""
    from types import SimpleNamespace

    from MedXlateSlicerLib.models import choices_for
    from MedXlateSlicerLib.translator import Request, Translator

    from MedXlateCore.models.catalogue import list_packages

    sources = {role: mrml.add_volume(slicer_scene, name=role) for role in ("T1", "T2")}
    model = choices_for(list_packages(), "T1ce", ("T1", "T2"))[0]
    runner, changes, store = ScriptedRunner(), [], Memory()
    translator = Translator(slicer_scene, lambda place: runner, store, lambda: changes.append(1))
    return SimpleNamespace(
        scene=slicer_scene,
        sources=sources,
        runner=runner,
        translator=translator,
        changes=changes,
        store=store,
        request=lambda **more: Request(sources, model, "T1ce", **more),
    )


def run(setting, **more):
    setting.translator.start(setting.request(**more))
    if setting.runner.busy:
        setting.runner.finish()
    return setting.translator.status


def test_a_run_ends_with_a_marked_node_under_its_source(setting):
    status = run(setting)
    assert status.phase == "done"
    assert status.result.GetName() == "SYNTHETIC T1ce (starter)"
    assert status.result.GetAttribute("MedXlate.synthetic") == "1"
    assert status.text == "SYNTHETIC T1ce (starter) was made, 5 slices, 1.5 s."
    np.testing.assert_array_equal(mrml.voxels_of(status.result), 1)


def test_the_same_sources_again_go_on_in_the_session_and_update_the_node(setting):
    first = run(setting).result
    count = setting.scene.GetNumberOfNodes()
    setting.translator.start(setting.request())
    setting.runner.finish(2.0, recomputed=2, reused=3)
    status = setting.translator.status
    assert setting.runner.calls[-1][0] == "update"
    assert status.result is first
    assert status.text == "SYNTHETIC T1ce (starter) was updated: 2 of 5 slices changed, 1.5 s."
    np.testing.assert_array_equal(mrml.voxels_of(first), 2)
    assert setting.scene.GetNumberOfNodes() == count


@pytest.mark.parametrize("change", ["voxels", "matrix", "transform", "device", "grid"])
def test_whatever_a_session_depends_on_starts_a_new_one(setting, change):
    first = run(setting).result
    more = {"device": {"device": "cpu"}, "grid": {"grid_of": "T2"}}.get(change, {})
    if change == "voxels":
        from slicer.util import arrayFromVolume, arrayFromVolumeModified

        arrayFromVolume(setting.sources["T2"])[2, 2, 2] += 1
        arrayFromVolumeModified(setting.sources["T2"])
    elif change == "matrix":
        setting.sources["T2"].SetOrigin(1, 2, 3)
    elif change == "transform":
        mrml.add_linear(setting.scene, mrml.affine(), setting.sources["T2"])
    status = run(setting, **more)
    assert setting.runner.calls[-1][0] == "start"
    assert status.result is not first


@pytest.fixture
def drawing(setting):
    """Return a function that runs with this many samples, and with their spread or without."""
    from dataclasses import replace

    def draw(samples=4, uncertainty=True, seed=0, value=1.0):
        request = setting.request(sampling=Sampling(samples=samples, seed=seed), uncertainty=uncertainty)
        model = replace(request.model, card=replace(request.model.card, draws_samples=True))
        setting.translator.start(replace(request, model=model))
        setting.runner.progress(1, 8)
        setting.text = setting.translator.status.text
        setting.runner.finish(value)
        return setting.translator.status

    return draw


def test_a_models_steps_are_counted_and_its_samples_named(setting, drawing):
    status = drawing()
    assert setting.text.startswith("1 of 8 steps")
    assert status.text == "SYNTHETIC T1ce (starter) was made from 4 samples, 1.5 s."


def test_the_spread_of_the_samples_lies_under_the_result(setting, drawing):
    status = drawing()
    spread = status.uncertainty
    assert spread.GetName() == "SYNTHETIC T1ce (starter), standard deviation"
    np.testing.assert_array_equal(mrml.voxels_of(spread), np.float32(0.1))
    assert mrml.parent_of(setting.scene, spread) is status.result
    assert mrml.parent_of(setting.scene, status.result) is setting.sources["T1"]


def test_several_samples_without_the_map_leave_no_volume_but_the_result(setting, drawing):
    before = setting.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    assert drawing(uncertainty=False).uncertainty is None
    assert setting.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == before + 1


def test_the_map_may_be_asked_for_later_without_drawing_again(setting, drawing):
    first = drawing(uncertainty=False).result
    status = drawing()
    assert setting.runner.calls[-1][0] == "update"
    assert status.result is first
    assert mrml.parent_of(setting.scene, status.uncertainty) is first


def test_an_updated_result_has_its_map_updated_too_wanted_or_not(setting, drawing):
    spread = drawing().uncertainty
    count = setting.scene.GetNumberOfNodes()
    spread.GetDisplayNode().SetWindowLevelMinMax(0, 3)
    for uncertainty, value in ((True, 2.0), (False, 3.0)):
        assert drawing(uncertainty=uncertainty, value=value).uncertainty is spread
        np.testing.assert_allclose(mrml.voxels_of(spread), value / 10, rtol=1e-6)
    assert setting.scene.GetNumberOfNodes() == count
    assert spread.GetDisplayNode().GetWindow() == 3
    assert json.loads(spread.GetAttribute("MedXlate.record"))["shows"] == "standard deviation"


@pytest.mark.parametrize("change", [{"samples": 5}, {"seed": 1}, {"samples": 1, "uncertainty": False}])
def test_another_sampling_computes_anew_and_leaves_the_earlier_result_and_its_map(setting, drawing, change):
    first = drawing()
    result, spread = first.result, first.uncertainty
    status = drawing(value=2.0, **change)
    assert setting.runner.calls[-1][0] == "start"
    assert status.result is not result
    assert status.uncertainty is not spread
    assert (status.uncertainty is None) == (change.get("samples") == 1)
    assert mrml.parent_of(setting.scene, spread) is result
    np.testing.assert_array_equal(mrml.voxels_of(spread), np.float32(0.1))


def test_a_map_that_the_user_moved_or_deleted_is_made_anew_where_it_is_wanted(setting, drawing):
    first = drawing().uncertainty
    first.SetOrigin(5, 5, 5)
    second = drawing(value=2.0).uncertainty
    assert second is not first
    assert first.GetScene() is setting.scene
    np.testing.assert_array_equal(mrml.voxels_of(first), np.float32(0.1))
    setting.scene.RemoveNode(second)
    assert drawing(uncertainty=False).uncertainty is None
    assert drawing().uncertainty.GetScene() is setting.scene


def test_the_time_expected_grows_with_the_samples(setting, drawing):
    drawing(samples=4)
    one, four = (
        setting.translator.expected_seconds(setting.request(sampling=Sampling(samples=samples))) for samples in (1, 4)
    )
    assert four == pytest.approx(4 * one)


def test_a_display_change_does_not_end_the_session(setting):
    run(setting)
    setting.sources["T1"].GetDisplayNode().SetWindowLevelMinMax(0, 10)
    run(setting)
    assert setting.runner.calls[-1][0] == "update"


def test_a_lost_session_is_opened_again_and_the_same_node_is_updated(setting):
    first = run(setting).result
    setting.runner.has_session = False
    assert run(setting).result is first
    assert setting.runner.calls[-1][0] == "start"


def test_a_result_that_the_user_moved_is_left_alone_and_a_new_one_is_made(setting):
    first = run(setting).result
    first.SetOrigin(5, 5, 5)
    second = run(setting).result
    assert second is not first
    assert second.GetName() == "SYNTHETIC T1ce (starter)_1"


def test_a_deleted_result_is_made_anew(setting):
    first = run(setting).result
    setting.scene.RemoveNode(first)
    status = run(setting)
    assert status.phase == "done"
    assert status.result.GetScene() is setting.scene


def test_a_cancelled_run_leaves_the_scene_as_it_was(setting):
    before = mrml.content(setting.scene)
    setting.translator.start(setting.request())
    setting.runner.progress(0, 5)
    setting.translator.cancel()
    assert setting.translator.status.phase == "cancelled"
    assert setting.translator.status.text == "Cancelled. Nothing was changed."
    assert mrml.content(setting.scene) == before


def test_a_source_deleted_during_the_run_is_told_and_the_result_lies_in_world_space(setting):
    setting.translator.start(setting.request())
    setting.scene.RemoveNode(setting.sources["T1"])
    setting.runner.finish()
    status = setting.translator.status
    assert status.phase == "done"
    assert status.result.GetAttribute("MedXlate.grid") == "world"
    assert [warning.code for warning in status.warnings] == ["MX-SLI-141"]


def test_a_segmentation_deleted_during_the_run_does_not_disturb_it(setting):
    segmentation = mrml.add_segmentation(setting.scene)
    mask = np.zeros(mrml.SHAPE, bool)
    mask[5:8, 4:7, 3:5] = True
    segment = mrml.add_segment(segmentation, mask, mrml.affine(), "lesion")
    setting.translator.start(setting.request(segmentation=segmentation, uses={segment: "oedema"}))
    setting.scene.RemoveNode(segmentation)
    setting.runner.finish()
    assert setting.translator.status.phase == "done"
    roi = setting.runner.calls[0][1].roi
    np.testing.assert_array_equal(roi.array == 2, mask)


def test_a_plain_region_counts_as_core(setting):
    segmentation = mrml.add_segmentation(setting.scene)
    mask = np.zeros(mrml.SHAPE, bool)
    mask[5:8, 4:7, 3:5] = True
    segment = mrml.add_segment(segmentation, mask, mrml.affine(), "lesion")
    setting.translator.start(setting.request(segmentation=segmentation, uses={segment: "region"}))
    np.testing.assert_array_equal(setting.runner.calls[0][1].roi.array == 1, mask)


def test_a_source_deleted_before_the_run_is_a_coded_error(setting):
    setting.scene.RemoveNode(setting.sources["T2"])
    setting.translator.start(setting.request())
    assert setting.translator.status.error.code == "MX-SLI-002"
    assert not setting.translator.busy


def test_an_error_of_the_worker_is_shown_and_the_next_run_works(setting):
    setting.translator.start(setting.request())
    setting.runner.hear(Warned("MX-RES-021", "GPU was found but does not work"))
    setting.runner.fail(ResourceError("MX-WRK-001", "the worker ended\nlog", fix="start again"))
    status = setting.translator.status
    assert status.phase == "failed"
    assert status.text == "It did not work: the worker ended."
    assert status.error.code == "MX-WRK-001"
    assert [warning.code for warning in status.warnings] == ["MX-RES-021"]
    assert run(setting).phase == "done"
    assert setting.translator.status.error is None


def test_a_second_start_during_a_run_is_ignored(setting):
    setting.translator.start(setting.request())
    setting.translator.start(setting.request())
    assert len(setting.runner.calls) == 1


def test_a_defect_becomes_an_error_with_a_code_and_no_exception(setting):
    setting.runner.start = lambda *arguments: 1 / 0
    setting.translator.start(setting.request())
    assert setting.translator.status.error.code == "MX-INT-001"


def test_closing_the_scene_during_a_run_cancels_it_and_forgets_its_nodes(setting):
    run(setting)
    setting.translator.start(setting.request())
    setting.translator.forget_scene()
    assert setting.translator.status.phase == "cancelled"
    assert setting.translator.status.result is None
    assert setting.runner.calls[-1] == "cancel"


def test_a_full_run_teaches_how_long_the_next_one_will_take(setting):
    assert setting.translator.expected_seconds(setting.request()) is None
    run(setting)
    assert setting.translator.expected_seconds(setting.request()) > 0
    assert setting.translator.expected_seconds(setting.request(device="cuda")) is None


def test_a_model_that_takes_no_region_gets_none(setting):
    from dataclasses import replace

    segmentation = mrml.add_segmentation(setting.scene)
    segment = mrml.add_segment(segmentation, np.ones(mrml.SHAPE, bool), mrml.affine(), "lesion")
    request = setting.request(segmentation=segmentation, uses={segment: "core"})
    model = replace(request.model, card=replace(request.model.card, prompts="none"))
    setting.translator.start(replace(request, model=model))
    assert setting.runner.calls[0][1].roi is None


def test_an_error_before_the_run_is_shown(setting):
    setting.translator.refuse(UsageError("MX-SLI-160", "the PyTorch extension is not installed"))
    assert setting.translator.status.phase == "failed"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "known after the first run with this model and device"),
        (3.0, "a few seconds"),
        (33.0, "about 35 seconds"),
        (400.0, "about 7 minutes"),
    ],
)
def test_durations_are_told_in_words(seconds, text):
    from MedXlateSlicerLib.estimates import duration_text

    assert duration_text(seconds) == text


def test_settings_edited_by_hand_give_no_estimate():
    from MedXlateSlicerLib.estimates import expected_seconds

    store = Memory({"MedXlate/secondsPerMegavoxel/0000000000000000/cpu": "fast"})
    assert expected_seconds(store, "0" * 64, "cpu", 10) is None
