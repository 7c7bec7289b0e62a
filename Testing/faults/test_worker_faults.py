"""The worker under attack: cancelled at any moment, killed from outside, orphaned. Nothing may be left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from MedXlateCore.inference.events import Progress, Started
from MedXlateCore.volume import Geometry
from MedXlateCore.worker import Failed, Opened, Result, WorkerClient

ROOT = Path(__file__).resolve().parents[2]
SHARED_MEMORY = Path("/dev/shm")
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/environ").exists() or not SHARED_MEMORY.is_dir(),
    reason="looks for leftovers where Linux has them",
)

# what a worker's children are made of: one child, one with a session of its own, one whose parent has gone
CHILDREN = """
    import os, subprocess, sys
    if "MedXlateCore.worker" in sys.orig_argv:  # not in a parent whose program mentions it
        subprocess.Popen(["sleep", "600"])
        subprocess.Popen(["sleep", "600"], start_new_session=True)
        subprocess.Popen(["sh", "-c", "sleep 600 & exit"], stdout=subprocess.DEVNULL)
"""
PARENT = """
    import sys, time
    from pathlib import Path
    from MedXlateCore.io import read_volume
    from MedXlateCore.worker import WorkerClient
    model, t1, t2, stage = sys.argv[1:]
    client = WorkerClient()
    client.open([read_volume(t1, "T1"), read_volume(t2, "T2")], model, device="cpu")
    client.update()
    while stage == "working" and not any(type(event).__name__ == "Progress" for event in client.poll()):
        time.sleep(0.01)
    print(client.pid, client._scratch, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def long_sources(make_patient):
    """Return sources of so many slices that a run takes seconds."""
    geometry = Geometry((48, 56, 150), np.array([[-4.0, 0, 0, 92], [0, -4, 0, 100], [0, 0, 1, -50], [0, 0, 0, 1]]))
    patient = make_patient(geometry)
    return [patient["T1"], patient["T2"]]


@pytest.fixture
def marked(tmp_path, monkeypatch):
    """Return the environment of a worker that has children, and a function that lists all processes it is told to."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(textwrap.dedent(CHILDREN))
    mark = f"MEDXLATE_TEST_{uuid.uuid4().hex}"
    return {"PYTHONPATH": f"{tmp_path / 'hook'}{os.pathsep}{ROOT}", mark: "1"}, lambda: with_mark(mark)


def with_mark(mark):
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and mark.encode() in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
    return found


def leftovers(token):
    """Return shared memory and temporary files that are left, but for the cache that torch keeps for all its users."""
    files = [path for path in Path(tempfile.gettempdir()).iterdir() if not path.name.startswith("torchinductor")]
    return [path.name for path in SHARED_MEMORY.glob(f"{token}*")] + files


def wait_for(condition, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def wait_for_event(client, kinds, timeout_s=120.0):
    seen = []

    def arrived():
        seen.extend(client.poll())
        return any(isinstance(event, kinds) for event in seen)

    assert wait_for(arrived, timeout_s), seen
    return next(event for event in seen if isinstance(event, kinds))


def finish(client, sources, package):
    client.open(sources, package, device="cpu")
    client.update()
    return wait_for_event(client, (Result, Failed))


def cancel_at_random(count, sources, package, marked, short_sources):
    environment, alive = marked
    rng = np.random.default_rng(count)
    moments = []
    with WorkerClient(environment=environment) as client:
        for turn in range(count):
            client.open(sources, package, device="cpu")
            client.update()
            token, started = client._scratch.name, time.monotonic()
            if turn % 3 == 0:
                wait_for_event(client, (Progress,))
            else:
                time.sleep(float(rng.uniform(0, 6)))
            told = [type(event).__name__ for event in client.poll()]
            before, clock = len(alive()), time.monotonic()
            client.cancel()
            moments.append((round(clock - started, 2), told[-1:], before, round(time.monotonic() - clock, 3)))
            assert wait_for(lambda: not alive(), 5), alive()
            assert leftovers(token) == []
            assert not client.busy and not client.running and client.poll() == []
        assert any(before >= 4 for _, _, before, _ in moments)  # the worker and its three children
        assert isinstance(finish(client, short_sources, package), Result)
    assert wait_for(lambda: not alive(), 5)
    print({"after s, last event, processes, cancel s": moments})


@pytest.fixture
def short_sources(patient):
    return [patient["T1"], patient["T2"]]


def test_4_cancels_leave_nothing_and_the_client_usable(long_sources, tiny_package, marked, short_sources):
    cancel_at_random(4, long_sources, tiny_package, marked, short_sources)


@pytest.mark.slow
def test_20_cancels_leave_nothing_and_the_client_usable(long_sources, tiny_package, marked, short_sources):
    cancel_at_random(20, long_sources, tiny_package, marked, short_sources)


@pytest.mark.parametrize("moment", [Opened, Progress])
def test_a_worker_that_is_killed_is_reported_with_its_log_and_replaced(
    long_sources, tiny_package, marked, short_sources, moment
):
    environment, alive = marked
    with WorkerClient(environment=environment) as client:
        client.open(long_sources, tiny_package, device="cpu")
        client.update()
        token = client._scratch.name
        wait_for_event(client, (moment,))
        with (client._scratch / "worker.log").open("a") as log:
            log.write("CUDA error: the last words\n")
        os.kill(client.pid, signal.SIGKILL)
        error = wait_for_event(client, (Failed,)).error
        assert error.code == "MX-WRK-001"
        assert "SIGKILL" in error.found and "the last words" in error.found
        assert wait_for(lambda: not alive(), 5), alive()
        assert leftovers(token) == []
        assert isinstance(finish(client, short_sources, tiny_package), Result)


def test_a_worker_that_dies_idle_is_replaced_without_a_word(tiny_package, marked, short_sources):
    with WorkerClient(environment=marked[0]) as client:
        first = finish(client, short_sources, tiny_package)
        os.kill(client.pid, signal.SIGKILL)
        assert wait_for(lambda: not client.running)
        assert client.poll() == [] and not client.has_session
        again = finish(client, short_sources, tiny_package)
        assert np.array_equal(first.volume.array, again.volume.array)


@pytest.mark.parametrize("stage", ["starting", "working"])
def test_a_worker_whose_client_is_killed_ends_and_clears_up(
    long_sources, tiny_package, marked, tmp_path, monkeypatch, stage
):
    from MedXlateCore.io import write_volume

    environment, alive = marked
    files = [tmp_path / "t1.nii.gz", tmp_path / "t2.nii.gz"]
    for volume, path in zip(long_sources, files, strict=True):
        write_volume(volume, path)
    environment = {**os.environ, **environment, "TMPDIR": tempfile.gettempdir()}
    line = [sys.executable, "-c", textwrap.dedent(PARENT), str(tiny_package), *map(str, files), stage]
    with subprocess.Popen(line, stdout=subprocess.PIPE, env=environment, cwd=ROOT) as parent:
        assert parent.stdout is not None
        scratch = parent.stdout.readline().split()[1]
        assert Path(scratch.decode()).is_dir()
        parent.kill()
    gone = wait_for(lambda: not alive() and leftovers(Path(scratch.decode()).name) == [], 20)
    assert gone, (alive(), leftovers(Path(scratch.decode()).name))


def test_what_client_and_worker_killed_together_left_goes_with_the_next_start(
    long_sources, tiny_package, marked, short_sources, tmp_path
):
    environment, alive = marked
    line = "import os, signal, sys; sys.argv[1:] = sys.argv[1:]\n" + textwrap.dedent(PARENT).replace(
        "time.sleep(600)",
        "os.kill(client.pid, signal.SIGSTOP); os.killpg(client.pid, signal.SIGKILL); os.kill(os.getpid(), 9)",
    )
    from MedXlateCore.io import write_volume

    files = [tmp_path / "t1.nii.gz", tmp_path / "t2.nii.gz"]
    for volume, path in zip(short_sources, files, strict=True):
        write_volume(volume, path)
    environment = {**os.environ, **environment, "TMPDIR": tempfile.gettempdir()}
    environment.pop("PYTHONPATH")  # no children here
    command = [sys.executable, "-c", line, str(tiny_package), *map(str, files), "starting"]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, cwd=ROOT, check=False)
    scratch = Path(done.stdout.split()[1].decode())
    assert done.returncode == -signal.SIGKILL and wait_for(lambda: not alive(), 5)
    assert scratch.is_dir() and list(SHARED_MEMORY.glob(f"{scratch.name}-*"))
    os.utime(scratch, (time.time() - 3600,) * 2)
    with WorkerClient() as client:
        client.start()
        assert not scratch.exists() and not list(SHARED_MEMORY.glob(f"{scratch.name}-*"))
        with WorkerClient() as second:  # a living client's folder is not taken away
            os.utime(client._scratch, (time.time() - 3600,) * 2)
            second.start()
            assert client._scratch.is_dir()
    assert leftovers(scratch.name) == []


def test_a_worker_that_stops_answering_can_be_cancelled(long_sources, tiny_package, marked):
    environment, alive = marked
    with WorkerClient(environment=environment) as client:
        client.open(long_sources, tiny_package, device="cpu")
        client.update()
        wait_for_event(client, (Started,))
        os.kill(client.pid, signal.SIGSTOP)
        clock = time.monotonic()
        client.cancel()
        assert time.monotonic() - clock < 5
        assert wait_for(lambda: not alive(), 5)
