"""One run per output; the dead hold nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from MedXlateCore import locks
from MedXlateCore.errors import ResourceError
from MedXlateCore.locks import folder_lock, path_lock, remove_free_locks

ROOT = Path(__file__).resolve().parents[2]


def start(code: str, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


HOLDER = """
    import sys, time
    from MedXlateCore.locks import path_lock
    with path_lock(sys.argv[1]):
        print("held", flush=True)
        time.sleep(60)
"""


def in_thread(call) -> list[BaseException | None]:
    """Run a call in another thread and return what it raised (a lock may be retaken in its own thread only)."""
    result: list[BaseException | None] = []

    def body() -> None:
        try:
            call()
            result.append(None)
        except ResourceError as error:
            result.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return result


def take(path: Path, timeout_s: float = 0.0) -> None:
    with path_lock(path, timeout_s):
        pass


def test_a_lock_leaves_no_file_behind(tmp_path: Path) -> None:
    with path_lock(tmp_path / "out.nii.gz"):
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_second_thread_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    with path_lock(tmp_path / "out"):
        (error,) = in_thread(lambda: take(tmp_path / "out"))
    assert isinstance(error, ResourceError)
    assert error.code == "MX-FIL-015"
    assert f"process {os.getpid()} on " in error.found


def test_the_same_thread_may_take_the_lock_again_inside(tmp_path: Path) -> None:
    with path_lock(tmp_path / "out"):
        with path_lock(tmp_path / "out"):
            pass
        (error,) = in_thread(lambda: take(tmp_path / "out"))
        assert error is not None  # the inner release did not free it


def test_another_output_is_free(tmp_path: Path) -> None:
    with path_lock(tmp_path / "one"):
        assert in_thread(lambda: take(tmp_path / "two")) == [None]


def test_a_folder_and_an_output_inside_it_have_different_locks(tmp_path: Path) -> None:
    with folder_lock(tmp_path / "run"):
        assert in_thread(lambda: take(tmp_path / "run" / "out")) == [None]
        assert isinstance(in_thread(lambda: folder_lock(tmp_path / "run").__enter__())[0], ResourceError)


def test_waiting_gets_the_lock_once_it_is_free(tmp_path: Path) -> None:
    release = threading.Timer(0.3, lambda: None)
    entered = threading.Event()

    def hold() -> None:
        with path_lock(tmp_path / "out"):
            entered.set()
            time.sleep(0.3)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    began = time.monotonic()
    take(tmp_path / "out", timeout_s=10)
    assert 0.1 < time.monotonic() - began < 5
    thread.join()
    release.cancel()


def test_a_name_of_255_bytes_can_be_locked(tmp_path: Path) -> None:
    take(tmp_path / ("语" * 85))


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    with start(HOLDER, str(tmp_path / "out")) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(ResourceError) as caught:
            take(tmp_path / "out")
        assert f"process {holder.pid} on" in caught.value.found
        holder.kill()
        holder.wait()
    assert len(list(tmp_path.iterdir())) == 1  # its file is still there
    take(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_lock_files_of_the_dead_are_cleaned_and_those_of_the_living_stay(tmp_path: Path) -> None:
    with start(HOLDER, str(tmp_path / "dead")) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        holder.kill()
        holder.wait()
    with start(HOLDER, str(tmp_path / "alive")) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert len(remove_free_locks(tmp_path)) == 1
        assert len(list(tmp_path.iterdir())) == 1
        holder.kill()


def test_a_lock_file_with_garbage_in_it_does_no_harm(tmp_path: Path) -> None:
    with path_lock(tmp_path / "out"):
        (lock,) = tmp_path.iterdir()
        lock.write_bytes(b"\xff[]")
        (error,) = in_thread(lambda: take(tmp_path / "out"))
    assert error is not None and "its process is not known" in error.found  # type: ignore[attr-defined]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError) as caught:
        take(tmp_path / "file" / "out")
    assert caught.value.code == "MX-FIL-012"


def test_a_file_system_without_locks_is_used_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(next(iter(locks._UNSUPPORTED - {-1})), "not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    take(tmp_path / "out")


def test_a_lock_file_replaced_by_a_rival_is_not_taken_for_ours(tmp_path: Path) -> None:
    mine = tmp_path / "lock"
    descriptor = os.open(mine, os.O_RDWR | os.O_CREAT)
    assert locks._is_current(mine, descriptor)
    mine.unlink()
    assert not locks._is_current(mine, descriptor)
    mine.touch()
    assert not locks._is_current(mine, descriptor)
    os.close(descriptor)


RIVAL = """
    import json, os, sys
    from pathlib import Path
    from MedXlateCore.errors import ResourceError
    from MedXlateCore.files import path_lock, write_json
    out, number = Path(sys.argv[1]), int(sys.argv[2])
    won = locked = broken = 0
    for turn in range(20):
        try:
            with path_lock(out):
                try:
                    os.close(os.open(out.with_name("inside"), os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    broken += 1
                    continue
                write_json(out, {"rival": number, "turn": turn, "body": [number] * 20_000})
                os.unlink(out.with_name("inside"))
                won += 1
        except ResourceError as error:
            assert error.code == "MX-FIL-015", error
            locked += 1
    print(json.dumps([won, locked, broken]))
"""


@pytest.mark.skipif(os.name == "nt", reason="slow to start there")
def test_eight_processes_with_one_output_give_one_whole_winner_each_time(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    rivals = [start(RIVAL, str(out), str(number)) for number in range(8)]
    totals = [0, 0, 0]
    for rival in rivals:
        text, errors = rival.communicate(timeout=120)
        assert rival.returncode == 0, errors
        totals = [a + b for a, b in zip(totals, json.loads(text), strict=True)]
    won, locked, broken = totals
    assert broken == 0  # never two inside
    assert won + locked == 160 and won >= 8
    facts = json.loads(out.read_text())
    assert facts["body"] == [facts["rival"]] * 20_000
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]  # no lock, no temporary file
