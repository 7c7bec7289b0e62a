"""Errors a user can act on: what was found, what was expected, where, and what to do, under a stable code.

Codes read ``MX-<area>-<number>`` and never change their meaning. Areas: ``USE`` (command line and configuration),
``FIL`` (files), ``DCM`` (DICOM), ``IMG`` (voxel values and shapes), ``GEO`` (geometry), ``ROI`` (regions and prompts),
``TXT`` (targets in words), ``MOD`` (models and packages), ``DAT`` (training data), ``TRN`` (training), ``MET``
(metrics), ``EXP`` (experiments), ``RES`` (memory, disk, devices), ``RUN`` (runs), ``WRK`` (the worker process), ``SLI``
(nodes of a 3D Slicer scene), ``INT`` (defects of MedXlate itself).
The table of all codes is ``Docs/reference/errors.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from traceback import extract_tb
from typing import ClassVar

__all__ = ["Cancelled", "InputError", "InternalError", "MedXlateError", "ResourceError", "UsageError", "Warned"]


class MedXlateError(Exception):
    """Base of every error that MedXlate raises on purpose.

    Args:
        code: stable code such as ``MX-GEO-003``.
        found: what was found, with its value.
        expected: what was expected instead.
        where: file, volume, slice or option concerned.
        fix: what the user can do about it.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, code: str, found: str, *, expected: str = "", where: str = "", fix: str = "") -> None:
        super().__init__(code, found, expected, where, fix)
        self.code = code
        self.found = found
        self.expected = expected
        self.where = where
        self.fix = fix

    def __reduce__(self) -> tuple[Callable[..., MedXlateError], tuple[object, ...]]:
        """Let errors cross process borders whole: plain exceptions forget their keyword arguments there."""
        return _rebuilt, (type(self), self.code, self.found, self.expected, self.where, self.fix)

    def __str__(self) -> str:
        return self.as_text()

    def as_text(self) -> str:
        """Return the readable block shown to users, one fact a line."""
        lines = [f"{self.code}: {self.found}"]
        for label, text in (("expected", self.expected), ("where", self.where), ("what to do", self.fix)):
            if text:
                lines.append(f"  {label}: {text}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, str | int]:
        """Return the same facts for machines (``--json``), with the exit code."""
        return {
            "code": self.code,
            "found": self.found,
            "expected": self.expected,
            "where": self.where,
            "fix": self.fix,
            "exit_code": self.exit_code,
        }


def _rebuilt(kind: type[MedXlateError], code: str, found: str, expected: str, where: str, fix: str) -> MedXlateError:
    error = kind.__new__(kind)
    MedXlateError.__init__(error, code, found, expected=expected, where=where, fix=fix)
    return error


class UsageError(MedXlateError):
    """The command line, configuration or call is wrong. Exit code 2."""

    exit_code = 2


class InputError(MedXlateError):
    """A file, volume, region or model package cannot be used as it is. Exit code 3."""

    exit_code = 3


LIBRARIES = {name: name for name in ("torch", "numpy", "scipy", "nibabel", "SimpleITK", "safetensors", "pydicom")} | {
    "PIL": "pillow"
}
"""What MedXlate is built on: distribution by module."""


class ResourceError(MedXlateError):
    """Memory, disk, device or permission is lacking. Exit code 4."""

    exit_code = 4

    @classmethod
    def missing_library(cls, error: ModuleNotFoundError, where: str) -> ResourceError | None:
        """Return ``MX-RES-024`` if a module of ``LIBRARIES`` is what could not be found, else None: a defect."""
        module = str(error.name).partition(".")[0]
        if module not in LIBRARIES:
            return None
        fix = f"pip install {LIBRARIES[module]} (in 3D Slicer: PythonSlicer -m pip install {LIBRARIES[module]})"
        if module == "torch":
            fix = "pip install 'medxlate[torch]' (in 3D Slicer: the PyTorch extension)"
        return cls.missing_module(module, where, fix)

    @classmethod
    def missing_module(cls, name: str, where: str, fix: str) -> ResourceError:
        """Return ``MX-RES-024`` for a Python module that is needed and not there."""
        return cls(
            "MX-RES-024",
            f"the Python module '{name}' is not installed",
            expected="an installation with PyTorch" if name == "torch" else f"an installation with {name}",
            where=where,
            fix=fix,
        )


class Cancelled(MedXlateError):
    """The user stopped the run. Exit code 130."""

    exit_code = 130

    def __init__(self, where: str = "") -> None:
        super().__init__("MX-RUN-130", "cancelled", where=where, fix="start again; nothing was left behind")


class InternalError(MedXlateError):
    """MedXlate has a defect: something happened that it does not know. Exit code 70, as sysexits.h has it."""

    exit_code = 70

    @classmethod
    def from_exception(cls, error: BaseException) -> InternalError:
        """Return ``MX-INT-001`` for an exception that nobody expected."""
        frames = extract_tb(error.__traceback__)
        text = (str(error).strip().splitlines() or ["no message"])[0][:200]
        return cls(
            "MX-INT-001",
            f"medxlate met something it does not know ({type(error).__name__}: {text})",
            expected="a result, or an error with a code of its own",
            where=f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "",
            fix="this is a defect of medxlate: run again with --debug and report what it prints",
        )


@dataclass(frozen=True)
class Warned:
    """A recorded warning: the run goes on and the warning travels with the result."""

    code: str
    found: str
    where: str = ""
    fix: str = ""

    def as_text(self) -> str:
        """Return one readable line."""
        text = f"{self.code}: {self.found}"
        if self.where:
            text += f" ({self.where})"
        return f"{text}; {self.fix}" if self.fix else text

    def as_dict(self) -> dict[str, str]:
        """Return the facts for JSON."""
        return asdict(self)
