"""Files that are either complete or absent: atomic writes, JSON, hashes, and the checks before writing.

A file appears under its final name only after its bytes are on disk: it is written under a temporary name beside the
target, flushed (``fsync``) and renamed (``os.replace``). A killed run leaves at most a hidden temporary file, which
:func:`remove_stale_temporaries` takes away on the next start. Symbolic links are followed, so that a link stays a link.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import enum
import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import socket
import stat
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from MedXlateCore.errors import InputError, ResourceError, UsageError
from MedXlateCore.locks import folder_lock, path_lock, remove_free_locks
from MedXlateCore.paths import existing_ancestor, real_path, require_file, shown, unreadable, unwritable

__all__ = [
    "atomic_write",
    "atomic_write_bytes",
    "atomic_write_text",
    "atomic_write_together",
    "check_writable",
    "csv_text",
    "folder_lock",
    "json_text",
    "path_lock",
    "read_bytes",
    "read_json",
    "refuse_same_file",
    "remove_stale_temporaries",
    "require_file",
    "sha256_file",
    "shown",
    "to_jsonable",
    "write_json",
]

JSON_LIMIT_BYTES = 64 * 2**20
STALE_AFTER_S = 24 * 3600.0
_SPARE_BYTES = 2**20  # room left for the file system's own books
_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_TEMPORARY = re.compile(r"\.mxtmp-(?P<pid>\d+)-(?P<host>[0-9a-f]{8})-[0-9a-f]{8}")


# --- writing -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; what is written there becomes ``path`` when the block ends well.

    The temporary name keeps the suffix (``.nii.gz`` whole), so that writers which go by it work; it does not contain
    the target's name, so that a long name cannot overflow. The target's folder is created. An existing file keeps its
    permissions. After any exception the old file is untouched and the temporary file is gone.

    Raises:
        ResourceError: ``MX-FIL-010`` to ``MX-FIL-013`` as in :func:`check_writable`; ``MX-FIL-013`` (the disk filled
            up while writing), ``MX-FIL-016`` (another failure of the operating system).
    """
    with atomic_write_together(path) as (temporary,):
        yield temporary


@contextlib.contextmanager
def atomic_write_together(*paths: Path | str) -> Iterator[tuple[Path, ...]]:
    """As :func:`atomic_write` for files that belong together: all are on disk before the first appears.

    They appear in the given order, one directly after the other; only a crash between two renames can part them.
    """
    for path in paths:
        check_writable(path)
    targets = [real_path(path) for path in paths]
    temporaries = tuple(target.parent / _temporary_name(target) for target in targets)
    target = targets[0]
    try:
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
        yield temporaries
        for temporary, target in zip(temporaries, targets, strict=True):
            _make_ready(temporary, target)
        for temporary, target in zip(temporaries, targets, strict=True):
            temporary.replace(target)
        for folder in {target.parent for target in targets}:
            _flush_folder(folder)
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        for temporary in temporaries:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: Path | str, data: bytes) -> None:
    """Write bytes as a whole or not at all. Raises as :func:`atomic_write`."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text with ``\\n`` line ends, as a whole or not at all. Raises as :func:`atomic_write`."""
    atomic_write_bytes(path, text.encode("utf-8"))


def check_writable(path: Path | str, needed_bytes: int = 0) -> None:
    """Check, before any computing, that ``path`` can be written. Nothing is created.

    Raises:
        InputError: ``MX-FIL-007``, the name is not usable.
        ResourceError: ``MX-FIL-010`` (the target is a folder or a device), ``MX-FIL-011`` (a part of the path is a
            file, or the name is too long), ``MX-FIL-012`` (folder or file is read-only), ``MX-FIL-013`` (too little
            disk space).
    """
    target = real_path(path)
    try:
        _refuse_unwritable_target(target)
        folder = existing_ancestor(target.parent)
        _probe(folder, target)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise unwritable(target, error) from error
    if free < needed_bytes + _SPARE_BYTES:
        raise ResourceError(
            "MX-FIL-013",
            f"the disk has {free / 2**20:.0f} MiB free",
            expected=f"at least {(needed_bytes + _SPARE_BYTES) / 2**20:.0f} MiB",
            where=shown(folder),
            fix="free some space or choose another disk",
        )


def refuse_same_file(output: Path | str, inputs: Sequence[Path | str]) -> None:
    """Refuse an output that is one of the inputs, also through a symbolic or hard link: inputs are never modified.

    Raises:
        UsageError: ``MX-FIL-014``.
    """
    target = real_path(output)
    for item in inputs:
        source = real_path(item)
        same = source == target
        with contextlib.suppress(OSError):  # one of them is missing or hidden: then they are not one file
            same = same or source.samefile(target)
        if same:
            raise UsageError(
                "MX-FIL-014",
                "the output is also an input",
                expected="an output of its own",
                where=shown(output),
                fix="choose another output name; inputs are never overwritten",
            )


def remove_stale_temporaries(folder: Path | str) -> list[Path]:
    """Delete what killed runs left in ``folder``: temporary files of dead processes of this computer or older than a
    day, and lock files that nobody holds. Return what was deleted.
    """
    removed = []
    with contextlib.suppress(OSError):
        for path in sorted(Path(folder).iterdir()):
            name = _TEMPORARY.match(path.name)
            if name and _is_stale(path, int(name["pid"]), name["host"]):
                with contextlib.suppress(OSError):
                    path.unlink()
                    removed.append(path)
        removed += remove_free_locks(folder)
    return removed


def _temporary_name(target: Path) -> str:
    suffix = ".nii.gz" if target.name.lower().endswith(".nii.gz") else target.suffix
    suffix = suffix if len(os.fsencode(suffix)) <= 16 else ""
    return f".mxtmp-{os.getpid()}-{_HOST}-{uuid.uuid4().hex[:8]}{suffix}"


def _make_ready(temporary: Path, target: Path) -> None:
    """Wait until the bytes are on disk, and give the file the permissions of the one it replaces."""
    with temporary.open("rb+") as stream:
        os.fsync(stream.fileno())
    with contextlib.suppress(FileNotFoundError):  # there is no earlier file
        temporary.chmod(stat.S_IMODE(target.stat().st_mode))


def _flush_folder(folder: Path) -> None:
    """Wait until the renames in a folder are on disk; Windows cannot open a folder for that."""
    if os.name != "nt":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _refuse_unwritable_target(target: Path) -> None:
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise ResourceError(
            "MX-FIL-010",
            "the output is an existing folder" if stat.S_ISDIR(mode) else "the output is a pipe, socket or device",
            expected="a file name",
            where=shown(target),
            fix="add a file name, for example result.nii.gz",
        )
    if not mode & 0o222 or not os.access(target, os.W_OK):
        raise ResourceError(
            "MX-FIL-012",
            "the output exists and is read-only",
            expected="a file that may be replaced",
            where=shown(target),
            fix="choose another name or change the file's permissions",
        )


def _probe(folder: Path, target: Path) -> None:
    """Create and delete an empty file: permissions, read-only disks and quotas show only in the attempt."""
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a part of the path is a file", str(folder))
    probe = folder / _temporary_name(Path("probe"))
    try:
        probe.touch(exist_ok=False)
    finally:
        probe.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        (folder / target.name).stat()  # a name that is too long fails here


def _is_stale(path: Path, pid: int, host: str) -> bool:
    try:
        age_s = time.time() - path.stat().st_mtime
    except OSError:
        return False
    return age_s > STALE_AFTER_S or (host == _HOST and not _is_alive(pid))


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":  # pragma: no cover - os.kill(pid, 0) would end the process there
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)
        return bool(handle)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


# --- reading -------------------------------------------------------------------------------------------------------


def read_bytes(path: Path | str, limit_bytes: int | None = None) -> bytes:
    """Read a whole file.

    Raises:
        InputError: ``MX-FIL-001`` to ``MX-FIL-007`` as in :func:`require_file`; ``MX-FIL-008``, larger than the limit.
        ResourceError: ``MX-FIL-005``, no permission.
    """
    size = require_file(path)
    if limit_bytes is not None and size > limit_bytes:
        raise InputError(
            "MX-FIL-008",
            f"the file has {size} bytes",
            expected=f"at most {limit_bytes} bytes",
            where=shown(path),
            fix="check that this is the right file",
        )
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits. Raises as :func:`read_bytes`."""
    require_file(path)
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error


def read_json(path: Path | str, limit_bytes: int = JSON_LIMIT_BYTES) -> Any:
    """Read a UTF-8 JSON file; NaN and Infinity, which are not JSON, are refused.

    Raises:
        InputError: ``MX-FIL-020``, not JSON; otherwise as :func:`read_bytes`.
    """
    data = read_bytes(path, limit_bytes)
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(
            "MX-FIL-020",
            f"the file is not JSON ({str(error)[:200]})",
            expected="UTF-8 JSON",
            where=shown(path),
            fix="correct it in a text editor, or copy it again",
        ) from error


def write_json(path: Path | str, obj: object) -> None:
    """Write an object as JSON (UTF-8, indent 2, order kept), atomically; :func:`to_jsonable` says what is allowed."""
    atomic_write_text(path, json_text(obj))


def csv_text(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as CSV: a header line, then one line a row, commas, quotes where needed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def json_text(obj: object) -> str:
    """Return the text that :func:`write_json` writes."""
    return json.dumps(to_jsonable(obj), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_jsonable(obj: object) -> Any:
    """Return plain JSON data for mappings, sequences, dataclasses, enums, paths and numpy values; NaN and Inf → null.

    Raises:
        UsageError: ``MX-USE-012``, a type that has no place in JSON.
    """
    if isinstance(obj, enum.Enum):
        return to_jsonable(obj.value)
    if isinstance(obj, str):
        return obj.encode("utf-8", "backslashreplace").decode("utf-8")  # undecodable file names
    if obj is None or isinstance(obj, (bool, int)):
        return obj
    if isinstance(obj, (float, np.floating)):
        return float(obj) if math.isfinite(obj) else None
    if isinstance(obj, Mapping):
        return {str(to_jsonable(key)): to_jsonable(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple, set, frozenset)):
        return [to_jsonable(item) for item in (sorted(obj, key=str) if isinstance(obj, (set, frozenset)) else obj)]
    if isinstance(obj, (np.ndarray, np.generic)):
        return to_jsonable(obj.tolist())
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {f.name: to_jsonable(getattr(obj, f.name)) for f in dataclasses.fields(obj)}
    if isinstance(obj, Path):
        return str(obj)
    raise UsageError("MX-USE-012", f"a value of type {type(obj).__name__} cannot be written as JSON")


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")
