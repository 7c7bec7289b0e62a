"""A process in which everything is imported already, and which forks a child for each run that a test wants to kill.

The child runs the real command. A run can be killed from outside, or die by itself at a chosen one of its writing
operations (opening a file to write, renaming, deleting), counted by the interpreter's audit events, so that random
moments fall where files come into being. ``fork`` needs a process without threads: hence one of its own.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Run", "WarmProcess", "kill_at_random_moments", "warm_process"]

ROOT = Path(__file__).resolve().parents[1]
NEVER = 10**9
IMPORTS = (
    "lightning_fabric", "SimpleITK", "nibabel.nifti1", "nibabel.nifti2", "scipy.ndimage", "safetensors.torch",
    "MedXlateCore.cli", "MedXlateCore.commands.translate", "MedXlateCore.commands.train", "MedXlateCore.io",
    "MedXlateCore.models.package", "MedXlateCore.models.tlp", "MedXlateCore.pipeline", "MedXlateCore.training.loop",
    "MedXlateCore.training.run",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A child at work: its process and the file that gets its output."""

    pid: int
    log: Path
    warm: WarmProcess

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Return its exit status; below 0 the signal that ended it."""
        return int(self.warm.ask({"wait": self.pid}))

    @property
    def output(self) -> str:
        """What it printed."""
        return self.log.read_text("utf-8", "replace")

    @property
    def writing_operations(self) -> int:
        """How many writing operations it did, if it came to its end."""
        return int(self.log.with_suffix(".count").read_text())


class WarmProcess:
    """The parent of all runs; see :func:`warm_process`."""

    def __init__(self, logs: Path) -> None:
        settings = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=settings
        )
        self._logs, self._started = logs, 0

    def start(
        self,
        *arguments: str,
        folder: Path,
        die_at: int = NEVER,
        delay_s: float = 0.0,
        lock_timeout_s: float | None = None,
    ) -> Run:
        """Start ``medxlate`` with these arguments (or ``save-package FOLDER SEED``) in a child.

        Args:
            arguments: of the command line.
            folder: writing operations below it are counted.
            die_at: number of the writing operation at which the child kills itself, before it is done.
            delay_s: time that passes in between.
            lock_timeout_s: how long the child waits for a lock on its output; None for the usual time.
        """
        self._started += 1
        log = self._logs / f"{self._started}.log"
        request = {
            "arguments": arguments, "folder": str(folder), "die_at": die_at, "delay_s": delay_s, "log": str(log),
            "lock_timeout_s": lock_timeout_s,
        }  # fmt: skip
        return Run(int(self.ask(request)), log, self)

    def ask(self, request: dict[str, Any]) -> Any:
        """Send a request and return the answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@contextlib.contextmanager
def warm_process(logs: Path) -> Iterator[WarmProcess]:
    """Yield a warm process; what its children print goes to files in ``logs``."""
    logs.mkdir(parents=True, exist_ok=True)
    warm = WarmProcess(logs)
    try:
        yield warm
    finally:
        warm.close()


def kill_at_random_moments(
    start: Callable[..., Run], look: Callable[[Run, int], None], count: int, seed: int = 0
) -> dict[str, int]:
    """Start runs until ``count`` of them were killed, and look at what each of them left.

    Half of the kills come at a random time of the run, half at a random writing operation or up to 10 ms after it.

    Args:
        start: starts a run; takes ``die_at`` and ``delay_s``.
        look: called with each ended run and its exit status, killed or not; raises if something is wrong.
        count: kills wanted.
        seed: of the moments.
    """
    rng = np.random.default_rng(seed)
    began = time.monotonic()
    whole = start()
    status = whole.wait()
    seconds, operations = time.monotonic() - began, whole.writing_operations
    look(whole, status)
    assert operations > 0, whole.output
    totals = {"killed": 0, "while writing": 0, "came to their end": 0}
    while totals["killed"] < count:
        assert totals["came to their end"] < 3 * count + 10, totals
        if writing := rng.random() < 0.5:
            delay_s = 0.0 if rng.random() < 0.5 else float(rng.uniform(0, 0.01))
            run = start(die_at=int(rng.integers(1, operations + 1)), delay_s=delay_s)
        else:
            run = start()
            time.sleep(float(rng.uniform(0, seconds)))
            run.kill()
        status = run.wait()
        look(run, status)
        killed = status == -signal.SIGKILL
        totals["killed" if killed else "came to their end"] += 1
        totals["while writing"] += killed and writing
    print(totals)
    return totals


# --- the warm process ----------------------------------------------------------------------------------------------


def serve() -> None:
    """Import everything, then fork and wait as asked, one request a line."""
    import torch

    torch.set_num_threads(1)
    for name in IMPORTS:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # otherwise each child would copy what its first collection touches
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork() or child(request)
        print(answer, flush=True)
    os._exit(0)  # nothing is left to tidy up


def child(request: dict[str, Any]) -> int:
    """Do one run and end the process; never returns."""
    output = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    status = 70
    try:
        if request["lock_timeout_s"] is not None:
            importlib.import_module("MedXlateCore.io")._LOCK_TIMEOUT_S = request["lock_timeout_s"]
        done = count_writing(request["folder"], request["die_at"], request["delay_s"])
        arguments = request["arguments"]
        status = save(*arguments[1:]) if arguments[0] == "save-package" else command_line(arguments)
        Path(request["log"]).with_suffix(".count").write_text(str(done[0]))
    except BaseException:  # noqa: BLE001 - the test reads it in the log
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def command_line(arguments: list[str]) -> int:
    """Run ``medxlate``."""
    from MedXlateCore.cli import main

    return main(arguments)


def save(folder: str, seed: str) -> int:
    """Save the tiny package with weights and a version that tell the seed."""
    from tiny import make_tiny_card, make_tiny_network

    from MedXlateCore.models.package import save_package

    save_package(folder, make_tiny_card(version=f"1.0.{seed}"), make_tiny_network(int(seed)), overwrite=True)
    return 0


def count_writing(folder: str, die_at: int, delay_s: float) -> list[int]:
    """Count writing operations below a folder from now on; die at one of them."""
    done = [0]

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not writes(event, arguments, folder):
            return
        done[0] += 1
        if done[0] == die_at:
            if delay_s:
                threading.Timer(delay_s, die).start()
            else:
                die()

    sys.addaudithook(hook)
    return done


def writes(event: str, arguments: tuple[Any, ...], folder: str) -> bool:
    """Say whether an audit event is a writing operation below a folder."""
    if event not in {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate"}:
        return False
    path = arguments[0]
    if not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(folder):
        return False
    return event != "open" or bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))


if __name__ == "__main__":
    serve()
