"""Where installed model packages lie, and how they are found by name. Needs no torch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from MedXlateCore.config import nearest
from MedXlateCore.errors import InputError, MedXlateError
from MedXlateCore.models.card import CARD_FILE, ModelCard, brief, read_card
from MedXlateCore.paths import refuse_bad_name

__all__ = ["InstalledPackage", "bundled_models_folder", "find_package", "list_packages", "user_models_folder"]


@dataclass(frozen=True)
class InstalledPackage:
    """A package in one of the model folders.

    Attributes:
        name: its folder's name, by which it is loaded.
        path: its folder.
        card: its card, or None if it cannot be used.
        problem: why it cannot be used.
    """

    name: str
    path: Path
    card: ModelCard | None = None
    problem: MedXlateError | None = None


def bundled_models_folder() -> Path:
    """Return the folder of the models that come with MedXlate."""
    return Path(__file__).resolve().parents[1] / "resources" / "models"


def user_models_folder() -> Path:
    """Return the folder of the user's own models, where the platform keeps such data. It need not exist."""
    if sys.platform == "win32":
        data = Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        data = Path.home() / "Library" / "Application Support"
    else:
        data = Path.home() / ".local" / "share"
    return data / "medxlate" / "models"


def find_package(package: Path | str, folders: Sequence[Path] | None = None) -> Path:
    """Return a package's folder.

    Args:
        package: a path (of the folder, or of its ``model.json``), or the name of an installed package. A bare word is
            first taken for a name.
        folders: model folders to look in; None for those shipped with MedXlate and the user's own.

    Raises:
        InputError: ``MX-MOD-010`` (there is no such package), ``MX-FIL-007`` (an empty name).
    """
    refuse_bad_name(package)
    path = Path(package)
    if isinstance(package, str) and path.name == package:
        for folder in _folders(folders):
            if _has_card(folder / package):
                return folder / package
    if path.name == CARD_FILE:
        path = path.parent
    if _has_card(path):
        return path
    known = [entry.name for entry in list_packages(folders)]
    guess = nearest(path.name, known)
    installed = ", ".join(known) or "none"
    checkpoint = path.suffix.lower() in {".pt", ".pth", ".ckpt", ".pkl", ".tar", ".bin"}
    fix = (
        "turn the checkpoint into a package first (medxlate import-weights)"
        if checkpoint
        else "see `medxlate models list`"
    )
    raise InputError(
        "MX-MOD-010",
        f"there is no model package '{brief(str(package))}'",
        expected=f"a folder with {CARD_FILE} and its weights, or one of the installed models: {installed}",
        where=brief(str(path)),
        fix=f"did you mean '{guess}'?" if guess else fix,
    )


def list_packages(folders: Sequence[Path] | None = None) -> list[InstalledPackage]:
    """Return the packages in the model folders, by name; those that cannot be used come with their problem.

    Args:
        folders: model folders; None for those shipped with MedXlate and the user's own.
    """
    found: dict[str, InstalledPackage] = {}
    for folder in _folders(folders):
        candidates: list[Path] = []
        with contextlib.suppress(OSError):  # no such folder, or not ours to read
            candidates = sorted(folder.iterdir())
        for path in candidates:
            if path.name not in found and _has_card(path):
                found[path.name] = _entry(path)
    return [found[name] for name in sorted(found)]


def _has_card(folder: Path) -> bool:
    try:
        return (folder / CARD_FILE).exists()
    except OSError:  # a name that is too long, a folder that may not be entered
        return False


def _entry(path: Path) -> InstalledPackage:
    try:
        return InstalledPackage(path.name, path, card=read_card(path))
    except MedXlateError as error:
        return InstalledPackage(path.name, path, problem=error)


def _folders(folders: Sequence[Path] | None) -> list[Path]:
    return [bundled_models_folder(), user_models_folder()] if folders is None else [Path(f) for f in folders]
