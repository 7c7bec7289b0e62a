"""Both runners: one interface, the same voxels, one end for every run."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from MedXlateSlicerLib.runner import (
    InProcessRunner,
    Job,
    WorkerRunner,
    make_runner,
    worker_command,
    worker_environment,
)

from MedXlateCore.errors import Cancelled, MedXlateError
from MedXlateCore.inference.events import Finished, Progress, Started
from MedXlateCore.models.sampling import Sampling
from MedXlateCore.pipeline import translate


class Listener:
    """Remembers what a runner told."""

    def __init__(self):
        self.events, self.ends = [], []

    def end(self, result, error):
        self.ends.append((result, error))

    def last(self):
        assert len(self.ends) == 1
        return self.ends[0]


@pytest.fixture(scope="module")
def worker():
    runner = WorkerRunner()
    yield runner
    runner.close()


@pytest.fixture(params=["worker", "panel"])
def runner(request):
    """Return each runner in turn; the worker is kept between tests."""
    if request.param == "worker":
        yield request.getfixturevalue("worker")
    else:
        runner = InProcessRunner()
        yield runner
        runner.close()


@pytest.fixture
def job(patient, tiny_package):
    def make(**changes):
        sources = [patient["T1"], patient["T2"]]
        return Job(**{"sources": sources, "model": tiny_package, "device": "cpu", **changes})

    return make


def carry_on(runner, until=lambda: False, timeout_s=120.0):
    deadline = time.monotonic() + timeout_s
    while runner.busy and not until() and time.monotonic() < deadline:
        runner.poll()
        time.sleep(0.002)
    assert time.monotonic() < deadline


def start(runner, job):
    listener = Listener()
    runner.start(job, listener.events.append, listener.end)
    return listener


def test_a_run_tells_its_events_and_ends_with_the_voxels_of_translate(runner, job, patient, tiny_model):
    listener = start(runner, job(roi=patient["region"]))
    assert runner.busy and not listener.ends
    carry_on(runner)
    result, error = listener.last()
    expected = translate([patient["T1"], patient["T2"]], tiny_model, roi=patient["region"], device="cpu").run()
    assert error is None
    assert np.array_equal(result.volume.array, expected.array)
    assert result.record["synthetic"] and result.record["model"]["name"] == "tiny"
    assert result.uncertainty is None
    kinds = [type(event) for event in listener.events if isinstance(event, (Started, Progress, Finished))]
    assert kinds[0] is Started and kinds[-1] is Finished and kinds.count(Progress) == 8


def test_an_update_recomputes_what_the_region_changes(runner, job, patient):
    first, second = start(runner, job()), Listener()
    carry_on(runner)
    assert runner.has_session
    runner.update(patient["region"], second.events.append, second.end)
    carry_on(runner)
    finished = next(event for event in second.events if isinstance(event, Finished))
    assert finished.slices_reused > 0 and finished.slices_recomputed > 0
    assert not np.array_equal(first.last()[0].volume.array, second.last()[0].volume.array)


def test_cancelling_ends_the_run_once_and_the_next_one_works(runner, job):
    listener = start(runner, job())
    carry_on(runner, until=lambda: any(isinstance(event, Progress) for event in listener.events))
    runner.cancel()
    runner.cancel()
    assert isinstance(listener.last()[1], Cancelled)
    assert not runner.busy
    told = len(listener.events)
    runner.poll()
    assert len(listener.events) == told
    again = start(runner, job())
    carry_on(runner)
    assert again.last()[1] is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"target": "FLAIR"}, "MX-MOD-091"),
        ({"model": "no-such-model"}, "MX-MOD-010"),
        ({"device": "gpu"}, "MX-USE-020"),
        ({"sources": []}, "MX-IMG-030"),
        ({"batch_size": 0}, "MX-USE-023"),
        ({"sampling": Sampling(samples=2)}, "MX-USE-206"),
    ],
)
def test_errors_end_the_run_with_their_code(runner, job, changes, code):
    listener = start(runner, job(**changes))
    carry_on(runner)
    result, error = listener.last()
    assert error.code == code
    assert result is None and not runner.busy


def test_a_region_that_is_refused_leaves_the_session_usable(runner, job, patient):
    first, bad, good = start(runner, job()), Listener(), Listener()
    carry_on(runner)
    wrong = patient["region"].with_array(patient["region"].array + np.uint8(40))
    runner.update(wrong, bad.events.append, bad.end)
    carry_on(runner)
    assert bad.last()[1].code == "MX-ROI-013"
    runner.update(None, good.events.append, good.end)
    carry_on(runner)
    assert np.array_equal(good.last()[0].volume.array, first.last()[0].volume.array)


def test_a_second_run_is_refused_while_one_is_under_way(runner, job):
    listener = start(runner, job())
    with pytest.raises(MedXlateError, match="MX-WRK-003"):
        start(runner, job())
    runner.cancel()
    assert len(listener.ends) == 1


def test_a_listener_may_start_the_next_run_at_once(runner, job):
    second = Listener()
    first = Listener()

    def end(result, error):
        first.end(result, error)
        runner.start(job(), second.events.append, second.end)

    runner.start(job(), first.events.append, end)
    carry_on(runner)
    assert first.last()[1] is None and second.last()[1] is None


def test_a_listener_may_cancel(runner, job):
    ends = Listener()

    def on_event(event):
        if isinstance(event, Progress):
            runner.cancel()

    runner.start(job(), on_event, ends.end)
    carry_on(runner)
    assert isinstance(ends.last()[1], Cancelled)


def test_an_update_without_a_session_is_an_error_not_a_crash():
    for runner in (InProcessRunner(), WorkerRunner()):
        listener = Listener()
        runner.update(None, listener.events.append, listener.end)
        carry_on(runner)
        assert listener.last()[1].code == "MX-WRK-003"


def test_closing_says_nothing_and_leaves_the_runner_usable(job):
    runner = WorkerRunner()
    listener = start(runner, job())
    runner.close()
    assert listener.ends == [] and not runner.busy and not runner.has_session
    runner.poll()


def test_one_step_a_poll_in_this_process(job):
    runner = InProcessRunner()
    listener = start(runner, job())
    counts = []
    while runner.busy:
        before = len(listener.events)
        runner.poll()
        counts.append(len(listener.events) - before)
    assert max(counts) == 1


def test_the_runner_is_chosen_by_place():
    assert isinstance(make_runner("panel"), InProcessRunner)
    assert isinstance(make_runner("worker"), WorkerRunner)


def test_beside_a_launcher_the_python_proper_is_taken(tmp_path, monkeypatch):
    launcher, proper = tmp_path / "PythonSlicer", tmp_path / "python-real"
    monkeypatch.setattr(sys, "executable", str(launcher))
    program(launcher)
    assert worker_command() == [str(launcher)]
    program(proper)
    assert worker_command() == [str(proper)]
    assert Path(worker_command()[0]).is_file()


@pytest.mark.parametrize("executable", ["SlicerApp-real", ""])
def test_the_application_itself_is_never_started_as_a_worker(tmp_path, monkeypatch, executable):
    own = worker_command()
    monkeypatch.setattr(sys, "executable", str(program(tmp_path / executable)) if executable else "")
    assert Path(worker_command()[0]).resolve() == Path(own[0]).resolve()
    folder = tmp_path / "bin"
    folder.mkdir()
    proper = program(folder / "python-real")
    program(folder / "PythonSlicer")
    monkeypatch.setenv("PATH", str(folder))
    assert worker_command() == [str(proper)]


def test_without_any_python_the_application_is_still_not_started(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(program(tmp_path / "SlicerApp-real")))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert worker_command() == [f"python3.{sys.version_info.minor}"]


def test_a_worker_finds_the_packages_that_the_application_finds(tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "given"))
    paths = worker_environment()["PYTHONPATH"].split(os.pathsep)
    assert (Path(paths[0]) / "MedXlateCore" / "__init__.py").is_file()
    assert paths[1] == str(tmp_path / "given")
    assert str(folder) in paths and len(paths) == len(set(paths))


def program(path):
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path
