"""What one row of the fault table works on: a folder with good inputs, which makers then spoil, and a command line."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TEMPORARY = (".mxtmp-", ".medxlate-lock")

Maker = Callable[..., None]
MAKERS: dict[str, Maker] = {}
"""Every maker of faults by its name."""


def maker(function: Maker) -> Maker:
    """Register a maker under its name."""
    MAKERS[function.__name__] = function
    return function


@dataclass
class Scene:
    """Good inputs for one command, to be spoiled.

    Attributes:
        folder: everything of the row lies here.
        command: the subcommand.
        files: the inputs by short name, such as ``T1`` or ``reference``.
        model: folder or name of the model package, as given on the command line.
        output: the result: an image, a JSON file of figures, or a folder, by command.
        shape, affine: the grid that the result must have.
        sources: what is given as which modality: pairs of modality and short name.
        given: further inputs that are given: short names of ``files`` by option.
        options: further words of the command line.
        make_patient: from a geometry and a seed to volumes; the fixture of ``conftest.py``.
        patch: to change the program's surroundings for this row.
        around: contexts to be held while the command runs, and no longer.
    """

    folder: Path
    command: str
    files: dict[str, Path]
    model: str
    output: Path
    shape: tuple[int, ...]
    affine: np.ndarray
    make_patient: Callable[..., dict[str, Any]]
    patch: pytest.MonkeyPatch
    sources: list[tuple[str, str]] = field(default_factory=lambda: [("T1", "T1"), ("T2", "T2")])
    given: dict[str, str] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)
    around: ExitStack = field(default_factory=ExitStack)

    def words(self) -> list[str]:
        """Return the command line."""
        more = [word for option, name in self.given.items() for word in (f"--{option}", str(self.files[name]))]
        return [self.command, *_WORDS[self.command](self), *more, *self.options]

    def find(self, file: str | list[str]) -> list[Path]:
        """Return the paths behind one or several short names."""
        return [self.files[name] for name in ([file] if isinstance(file, str) else file)]

    def contents(self) -> dict[str, tuple[str, str]]:
        """Return kind and hash of everything in the folder, hidden files and empty folders included."""
        found = {}
        for root, folders, names in os.walk(self.folder):
            for name in [*folders, *names]:
                path = Path(root) / name
                found[str(path.relative_to(self.folder))] = _kind_and_hash(path)
        return found


def _kind_and_hash(path: Path) -> tuple[str, str]:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return "link", str(path.readlink())
    if stat.S_ISREG(mode) and path.stat().st_size > 2**24:  # a sparse giant: nobody reads it
        return "file", f"{path.stat().st_size} bytes"
    if stat.S_ISREG(mode):
        readable = os.access(path, os.R_OK)
        return "file", hashlib.sha256(path.read_bytes()).hexdigest() if readable else "unreadable"
    return ("folder" if stat.S_ISDIR(mode) else "other"), ""


def _translate(scene: Scene) -> list[str]:
    sources = [f"--source={role}={scene.files[name]}" for role, name in scene.sources]
    return ["--model", scene.model, *sources, f"--output={scene.output}", "--device", "cpu", "--quiet"]


def _evaluate(scene: Scene) -> list[str]:
    return [f"--{name}={scene.files[name]}" for name in ("reference", "synthetic")] + ["--json", str(scene.output)]


def _train(scene: Scene) -> list[str]:
    return [str(scene.files["config"]), "--out", str(scene.output), "--steps", "1", "--quiet"]


def _folder(scene: Scene) -> list[str]:
    return ["--out", str(scene.output)]


_WORDS: dict[str, Callable[[Scene], list[str]]] = {
    "translate": _translate,
    "evaluate": _evaluate,
    "train": _train,
    "phantom": _folder,
    "demo": _folder,
    "check": lambda scene: [str(scene.files["T1"]), *(() if "--role" in scene.options else ("--role", "T1"))],
    "models": lambda scene: [],
    "experiment": lambda scene: [],
    "import-weights": lambda scene: [],
}
