"""One side of a benchmark in a process of its own: warm, told what to do line by line, with its own peak of memory.

Two sides that share a process share an allocator and a peak; apart, each is measured as its users meet it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["Side", "memory_of_call", "serve"]


class Side:
    """A child process that runs jobs by name, one at a time."""

    def __init__(self, script: Path, name: str, threads: int, *options: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, str(script), "--side", name, *options]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def call(self, job: str, **arguments: object) -> dict[str, Any]:
        """Run a job and return what it reports."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("the side has no pipes")
        self.process.stdin.write(json.dumps({"job": job, "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the side ended with status {self.process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        self.process.communicate("")


def serve(jobs: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """Run jobs from standard input until it ends; whatever a job prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(jobs[request["job"]](**request["arguments"])), file=answers, flush=True)


def memory_of_call(call: Callable[[], Any]) -> tuple[float, int | None, Any]:
    """Return seconds, how far the resident memory rose above what it was before (Linux; else None), and the result."""
    before = _status("VmRSS")
    if before is not None:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # start the peak anew
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    peak = _status("VmHWM")
    return seconds, None if before is None or peak is None else peak - before, result


def _status(field: str) -> int | None:
    path = Path("/proc/self/status")
    if not path.is_file():
        return None
    found = re.search(rf"{field}:\s+(\d+) kB", path.read_text(encoding="ascii"))
    return int(found[1]) * 1024 if found else None
