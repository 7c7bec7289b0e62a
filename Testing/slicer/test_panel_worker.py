"""The panel with the real worker process: cancel at any moment, a worker that is killed, the same voxels everywhere."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from mrml import parent_of, voxels_of
from patients import apply_and_wait, load_volumes, new_segmentation, open_panel, paint, phantom_files, phase

from MedXlateCore.cli import main
from MedXlateCore.errors import InputError
from MedXlateCore.io import read_volume


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    return phantom_files(tmp_path_factory.mktemp("phantom"))


@pytest.fixture
def real(slicer_app, files):
    """Return the panel as a user has it, with a phantom's T1 and T2 and a painted region, on the CPU."""
    volumes = load_volumes(slicer_app.scene, files, ("T1", "T2"))
    segmentation, segment = new_segmentation(slicer_app.scene, volumes["T1"])
    mask = np.zeros(voxels_of(volumes["T1"]).shape, bool)
    mask[28:36, 38:46, 13:17] = True
    paint(segmentation, segment, mask, volumes["T1"])
    found = open_panel(slicer_app)
    found.ui.segmentation.setCurrentNode(segmentation)
    found.ui.deviceCombo.setCurrentIndex(1)
    found.mask, found.segment, found.segmentation, found.volumes = mask, segment, segmentation, volumes
    return found


def worker_pid(panel) -> int | None:
    return panel.panel.translator._runner._client.pid


def is_gone(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def cancel_at_random(app, panel, cancels: int) -> None:
    """Start and cancel until that many runs were cancelled; after each the worker is gone and no node is left."""
    rng = random.Random(5)
    done = 0
    while done < cancels:
        count = app.scene.GetNumberOfNodes()
        panel.ui.applyButton.click()
        assert panel.ui.applyButton.text == "Cancel"
        pid = worker_pid(panel)
        end = time.monotonic() + rng.uniform(0.0, 5.0)
        while time.monotonic() < end and phase(panel) == "running":
            app.process_events()
            time.sleep(0.005)
        if phase(panel) != "running":  # it was faster
            assert phase(panel) == "done"
            continue
        panel.ui.applyButton.click()
        done += 1
        assert phase(panel) == "cancelled"
        assert app.wait_until(lambda pid=pid: is_gone(pid), 5)
        assert app.scene.GetNumberOfNodes() == count
        assert panel.ui.applyButton.text == "Apply"
        assert panel.ui.applyButton.enabled


def test_a_run_that_is_cancelled_leaves_no_worker_and_no_node_and_the_next_one_works(slicer_app, real):
    cancel_at_random(slicer_app, real, 2)
    assert apply_and_wait(slicer_app, real).phase == "done"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_cancels_at_random_moments_leave_no_worker_and_a_usable_panel(slicer_app, real):
    cancel_at_random(slicer_app, real, 20)
    assert apply_and_wait(slicer_app, real).phase == "done"


def test_a_worker_killed_from_outside_is_reported_and_the_next_run_works(slicer_app, real):
    real.ui.applyButton.click()
    slicer_app.wait_until(lambda: real.panel.translator.status.total > 0, 60)
    os.kill(worker_pid(real), signal.SIGKILL)
    slicer_app.wait_until(lambda: phase(real) != "running", 20)
    assert "MX-WRK-001" in real.ui.errorText.plainText
    assert real.ui.applyButton.text == "Apply"
    status = apply_and_wait(slicer_app, real)
    assert status.phase == "done"
    assert not real.ui.errorBox.visible


def test_inside_slicer_gives_the_same_voxels_as_the_worker(slicer_app, real):
    worker = voxels_of(apply_and_wait(slicer_app, real).result).copy()
    real.ui.runnerCombo.setCurrentIndex(1)
    status = apply_and_wait(slicer_app, real)
    assert status.error is None
    np.testing.assert_array_equal(voxels_of(status.result), worker)


@pytest.fixture
def drawing(drawing_package, monkeypatch, tmp_path, real):
    """Return the panel with a model that draws samples."""
    models = tmp_path / "models"
    models.mkdir()
    drawing_package.rename(models / "drawing")
    monkeypatch.setattr("MedXlateCore.models.catalogue.user_models_folder", lambda: models)
    real.panel.enter()
    real.panel.parameters.model = "drawing"
    return real


def test_samples_and_their_spread_are_the_same_in_the_worker_in_slicer_and_in_a_script(slicer_app, drawing):
    assert drawing.ui.samplesSpin.enabled
    drawing.ui.uncertaintyCheck.click()
    drawing.ui.samplesSpin.value = 3
    drawing.ui.seedSpin.value = 4
    status = apply_and_wait(slicer_app, drawing)
    assert status.error is None
    assert status.record["compute"]["sampling"]["asked"] == {"sampler": "default", "samples": 3, "seed": 4}
    assert status.uncertainty.GetName() == "SYNTHETIC T1ce (drawing), standard deviation"
    assert parent_of(slicer_app.scene, status.uncertainty) is status.result
    image, spread = (voxels_of(node).copy() for node in (status.result, status.uncertainty))
    assert spread.max() > 0
    drawing.ui.runnerCombo.setCurrentIndex(1)
    status = apply_and_wait(slicer_app, drawing)
    assert status.error is None
    np.testing.assert_array_equal(voxels_of(status.result), image)
    np.testing.assert_array_equal(voxels_of(status.uncertainty), spread)
    node = drawing.logic.process(drawing.volumes, "T1ce", model="drawing", device="cpu", samples=3, seed=4)
    np.testing.assert_array_equal(voxels_of(node), image)


@pytest.fixture
def speaking(speaking_package, monkeypatch, tmp_path, real):
    """Return the panel with a model that is told its target in words."""
    shutil.copytree(speaking_package, tmp_path / "models" / "speaking")
    monkeypatch.setattr("MedXlateCore.models.catalogue.user_models_folder", lambda: tmp_path / "models")
    assert not real.ui.targetText.enabled  # the models that come along know names only
    real.panel.enter()
    real.panel.parameters.target = "T2"
    assert real.ui.targetText.enabled
    return real


def test_a_target_in_words_gives_the_same_voxels_in_the_panel_on_the_command_line_and_in_a_script(
    slicer_app, speaking, speaking_package, files, tmp_path
):
    text = "T1 brain after gadolinium, fat-suppressed, TE 3 ms"
    speaking.ui.targetText.text = text
    assert speaking.panel.parameters.targetText == text
    status = apply_and_wait(slicer_app, speaking)
    assert status.error is None
    assert status.record["described"]["text"] == text
    assert status.record["target"] == "T1ce"
    output = tmp_path / "o.nii.gz"
    command = ["--source", f"T1={files['T1']}", "--target-text", text, "--output", str(output), "--device", "cpu"]
    assert main(["translate", "--model", str(speaking_package), *command]) == 0
    told = voxels_of(status.result).copy()
    np.testing.assert_array_equal(told, read_volume(output, "T1ce").array)
    script = speaking.logic.process(speaking.volumes, target_text=text, device="cpu")
    np.testing.assert_array_equal(voxels_of(script), told)
    speaking.ui.targetText.text = "T2 of the brain"  # another session, another image
    again = voxels_of(apply_and_wait(slicer_app, speaking).result)
    assert not np.array_equal(again, told)


def test_a_text_that_cannot_be_used_is_told_in_the_panel(slicer_app, speaking):
    speaking.ui.targetText.text = "T2 and FLAIR"
    status = apply_and_wait(slicer_app, speaking)
    assert status.error.code == "MX-TXT-004"
    assert "nearest known to the model" in speaking.ui.errorText.plainText


def test_a_script_gets_the_same_voxels_without_a_panel(slicer_app, real):
    by_panel = voxels_of(apply_and_wait(slicer_app, real).result).copy()
    node = real.logic.process(real.volumes, "t1gd", segmentation=real.segmentation, device="cpu")
    np.testing.assert_array_equal(voxels_of(node), by_panel)


def test_a_script_is_told_what_is_missing(slicer_app, real):
    with pytest.raises(InputError) as caught:
        real.logic.process({"T1": real.volumes["T1"]}, "T1ce")
    assert caught.value.code == "MX-SLI-045"
    assert "T2" in caught.value.expected


def test_the_worker_ends_with_the_panel(slicer_app, real):
    apply_and_wait(slicer_app, real)
    pid = worker_pid(real)
    assert not is_gone(pid)
    real.cleanup()
    assert slicer_app.wait_until(lambda: is_gone(pid), 5)
