"""Locks between processes that die with their process.

The lock is the operating system's (``flock``, on Windows ``msvcrt.locking``) on a small hidden file, so a killed run
never leaves anything locked: its leftover file is taken over by the next run. Ownership is checked after locking
(the file at the path must be the file that was locked), hence deleting a lock file on release cannot race.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from MedXlateCore.errors import ResourceError
from MedXlateCore.paths import real_path, shown

__all__ = ["LOCK_SUFFIX", "folder_lock", "path_lock", "remove_free_locks"]

LOCK_SUFFIX = ".medxlate-lock"
_UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, getattr(errno, "ENOTSUP", -1), getattr(errno, "EOPNOTSUPP", -1)}
_POLL_S = 0.05
_LOCKED_BYTE = 1 << 30  # Windows locks are mandatory: lock a byte far behind the text, so that the owner stays readable
_held = threading.local()
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def path_lock(path: Path | str, timeout_s: float = 0.0) -> Iterator[None]:
    """Hold the right to produce ``path``; a second holder, in this or another process, is refused.

    The same thread may take the lock again inside. Where the file system offers no locks, the work goes on without one
    and a log line says so: atomic writing still leaves one complete winner.

    Args:
        path: the file or folder to be produced; it need not exist, its folder is created.
        timeout_s: how long to wait for another holder; 0 refuses at once.

    Raises:
        ResourceError: ``MX-FIL-015`` (held by another), ``MX-FIL-012`` (the lock file cannot be made).
    """
    target = real_path(path)
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]  # the name itself may have 255 bytes already
    with _held_lock(target.parent / f".{digest}{LOCK_SUFFIX}", target, timeout_s):
        yield


@contextlib.contextmanager
def folder_lock(folder: Path | str, timeout_s: float = 0.0) -> Iterator[None]:
    """Hold the right to write into ``folder`` (a training run, a package). See :func:`path_lock`."""
    target = real_path(folder)
    with _held_lock(target / f".folder{LOCK_SUFFIX}", target, timeout_s):
        yield


def remove_free_locks(folder: Path | str) -> list[Path]:
    """Delete the lock files in ``folder`` that nobody holds (left by killed runs) and return them."""
    removed = []
    for path in sorted(Path(folder).glob(f".*{LOCK_SUFFIX}")):
        with contextlib.suppress(ResourceError), _held_lock(path, path, 0.0):
            removed.append(path)
    return removed


@contextlib.contextmanager
def _held_lock(lock_file: Path, target: Path, timeout_s: float) -> Iterator[None]:
    mine: set[Path] = _held.__dict__.setdefault("files", set())
    if lock_file in mine:
        yield
        return
    descriptor = _acquire(lock_file, target, timeout_s)
    mine.add(lock_file)
    try:
        yield
    finally:
        mine.discard(lock_file)
        _release(lock_file, descriptor)


def _acquire(lock_file: Path, target: Path, timeout_s: float) -> int:
    deadline = time.monotonic() + timeout_s
    while True:
        descriptor = _open(lock_file, target)
        if _try_lock(descriptor) and _is_current(lock_file, descriptor):
            _write_owner(descriptor)
            return descriptor
        os.close(descriptor)
        if time.monotonic() >= deadline:
            raise ResourceError(
                "MX-FIL-015",
                f"another run is writing this output ({_owner(lock_file)})",
                expected="one run per output",
                where=shown(target),
                fix="wait until it has finished, or choose another output",
            )
        time.sleep(_POLL_S)


def _open(lock_file: Path, target: Path) -> int:
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        return os.open(lock_file, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    except OSError as error:
        raise ResourceError(
            "MX-FIL-012",
            f"the folder cannot be written ({error.strerror})",
            expected="a folder where files can be created",
            where=shown(target.parent),
            fix="choose another folder or change its permissions",
        ) from error


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":  # pragma: no cover
            import msvcrt

            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            return False
        _log.warning("the file system offers no locks; going on without one")
    return True


def _is_current(lock_file: Path, descriptor: int) -> bool:
    """Say whether the locked file is still the one at the path: its last owner may have deleted it meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), lock_file.stat())
    except OSError:
        return False


def _write_owner(descriptor: int) -> None:
    owner = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
    with contextlib.suppress(OSError):  # only for messages: a full disk must not spoil the lock
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, owner.encode())


def _owner(lock_file: Path) -> str:
    try:
        owner = json.loads(lock_file.read_text(encoding="utf-8"))
        return f"process {int(owner['pid'])} on {shown(owner['host'])}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its process is not known"


def _release(lock_file: Path, descriptor: int) -> None:
    if sys.platform == "win32":  # pragma: no cover - an open file cannot be deleted there; a rival's stays
        os.close(descriptor)
        with contextlib.suppress(OSError):
            lock_file.unlink()
        return
    with contextlib.suppress(OSError):
        lock_file.unlink()
    os.close(descriptor)
