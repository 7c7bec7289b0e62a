"""Paths as they are shown, compared and looked up: small helpers below ``files`` and ``locks``."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from pathlib import Path

from MedXlateCore.errors import InputError, MedXlateError, ResourceError

__all__ = [
    "existing_ancestor",
    "real_path",
    "refuse_bad_name",
    "require_file",
    "shown",
    "unreadable",
    "unwritable",
]

_FULL_DISK = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
"""Error numbers that mean there is no room: disk full, file size limit, quota."""


def shown(path: Path | str) -> str:
    """Return a path for messages: control characters and direction marks escaped, so that it stays on one line."""
    text = str(path)
    hidden = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return "".join(c.encode("unicode_escape").decode("ascii") if unicodedata.category(c) in hidden else c for c in text)


def real_path(path: Path | str) -> Path:
    """Return the absolute path with symbolic links followed; the last parts need not exist."""
    refuse_bad_name(path)
    return Path(os.path.realpath(path))


def refuse_bad_name(path: Path | str) -> None:
    """Refuse an empty path or one with a NUL character, which no file system can hold.

    Raises:
        InputError: ``MX-FIL-007``.
    """
    if "\0" in str(path) or not str(path):
        raise InputError(
            "MX-FIL-007",
            "the file name is empty or holds a NUL character",
            expected="a file name",
            where=f"'{shown(path)}'",
            fix="give another name",
        )


def existing_ancestor(folder: Path) -> Path:
    """Return the folder itself or the nearest folder above it that exists."""
    for candidate in (folder, *folder.parents):
        if candidate.exists():
            return candidate
    return Path(folder.anchor or ".")


def require_file(path: Path | str) -> int:
    """Check that an input is a regular, non-empty file and return its size in bytes.

    Pipes and devices are refused, because reading one may never end.

    Raises:
        InputError: ``MX-FIL-001`` (missing), ``MX-FIL-002`` (a folder, pipe or device), ``MX-FIL-003`` (empty),
            ``MX-FIL-006`` (it cannot be looked up), ``MX-FIL-007`` (name not usable).
        ResourceError: ``MX-FIL-005``, no permission.
    """
    refuse_bad_name(path)
    try:
        status = Path(path).stat()
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        raise InputError(
            "MX-FIL-002",
            f"the path is {kind}",
            expected="a file",
            where=shown(path),
            fix="give the file itself",
        )
    if status.st_size == 0:
        raise InputError(
            "MX-FIL-003",
            "the file is empty (0 bytes)",
            expected="a complete file",
            where=shown(path),
            fix="copy, download or export it again",
        )
    return status.st_size


def unreadable(path: Path | str, error: OSError) -> MedXlateError:
    """Return the coded error for an operating system error met while looking up or reading ``path``."""
    where = shown(path)
    if isinstance(error, PermissionError):
        return ResourceError(
            "MX-FIL-005",
            "there is no permission to read the file",
            expected="a readable file",
            where=where,
            fix="change the permissions of the file and of its folders, or copy it",
        )
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return InputError(
            "MX-FIL-001",
            "the file does not exist",
            expected="an existing file",
            where=where,
            fix="check the spelling; a relative path is taken from the current folder",
        )
    return InputError(
        "MX-FIL-006",
        f"the file cannot be read ({error.strerror or type(error).__name__})",
        expected="a readable file",
        where=where,
        fix="check the disk or network connection and the length of the name",
    )


def unwritable(target: Path, error: OSError) -> ResourceError:
    """Return the error for a file that the operating system does not let us write (``MX-FIL-011`` to ``-016``)."""
    where = shown(target)
    reason = error.strerror or type(error).__name__
    if error.errno in _FULL_DISK:
        return ResourceError(
            "MX-FIL-013",
            f"there is no room left for the output ({reason})",
            expected="enough free disk space",
            where=where,
            fix="free some space or choose another disk; an earlier file of this name is unchanged",
        )
    if isinstance(error, (NotADirectoryError, FileExistsError)) or error.errno == errno.ENAMETOOLONG:
        return ResourceError(
            "MX-FIL-011",
            f"the output's path cannot exist ({reason})",
            expected="folders that exist or can be created, and a name of at most 255 bytes",
            where=where,
            fix="choose another folder or a shorter name",
        )
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return ResourceError(
            "MX-FIL-012",
            f"the folder cannot be written ({reason})",
            expected="a folder where files can be created",
            where=where,
            fix="choose another folder or change its permissions",
        )
    return ResourceError(
        "MX-FIL-016",
        f"writing failed ({reason})",
        expected="a working disk",
        where=where,
        fix="check the disk or network connection and try again; an earlier file of this name is unchanged",
    )
