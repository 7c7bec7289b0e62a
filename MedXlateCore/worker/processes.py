"""Ending a process with all its descendants, wherever they hid."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MARK", "end_tree", "start_options"]

MARK = "MEDXLATE_WORKER"
"""Environment variable that a worker and all it starts inherit; its value tells one client's from another's."""

_ROUNDS = 20


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    group: int
    session: int


def start_options() -> dict[str, object]:
    """Return the options of ``subprocess.Popen`` that give a child a session (Windows: a process group) of its own."""
    if sys.platform == "win32":  # pragma: no cover
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def end_tree(root: int, mark: str) -> None:
    """Kill a process that was started with :func:`start_options`, and everything it started, except the caller.

    All are stopped first and looked for again, so that none can start another one meanwhile. The root may have ended
    already: what it left behind is found by its session or group and, on Linux, by the mark in its environment.

    Args:
        root: process id of the worker.
        mark: value of the environment variable ``MARK`` that it was started with.
    """
    if sys.platform == "win32":  # pragma: no cover
        command = ["taskkill", "/T", "/F", "/PID", str(root)]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                command, capture_output=True, timeout=10, check=False, creationflags=subprocess.CREATE_NO_WINDOW
            )
        return
    stopped: set[int] = set()
    for _ in range(_ROUNDS):
        found = _family(root, mark) - stopped
        if not found:
            break
        for pid in found:
            _send(pid, signal.SIGSTOP)
        stopped |= found
    for pid in stopped:
        _send(pid, signal.SIGKILL)


def _family(root: int, mark: str) -> set[int]:
    """Return the root, its descendants, all members of its session and group, and all that bear the mark."""
    table = _processes()
    sign = f"{MARK}={mark}".encode()
    members = {p.pid for p in table if root in (p.pid, p.session, p.group) or _bears(p.pid, sign)}
    while True:
        more = {p.pid for p in table if p.parent in members} - members
        if not more:
            return members - {os.getpid(), 0, 1}
        members |= more


def _bears(pid: int, sign: bytes) -> bool:
    try:
        return sign in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # another user's, or no /proc
        return False


def _processes() -> list[_Process]:
    return _from_proc() if Path("/proc/self/stat").exists() else _from_ps()


def _from_proc() -> list[_Process]:
    table = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):  # it ended meanwhile
                state, *numbers = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:4]
                if state not in "ZX":
                    table.append(_Process(int(folder.name), *map(int, numbers)))
    return table


def _from_ps() -> list[_Process]:
    """Return the table where there is no /proc (macOS)."""
    command = ["ps", "-A", "-o", "pid=,ppid=,pgid=,stat="]
    try:
        text = subprocess.run(command, capture_output=True, timeout=10, check=False, text=True).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [line.split() for line in text.splitlines()]
    return [
        _Process(int(pid), int(parent), int(group), int(group))
        for pid, parent, group, state in rows
        if not state.startswith("Z")
    ]


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
