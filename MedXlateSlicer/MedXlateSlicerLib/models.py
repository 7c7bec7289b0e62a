"""The model manager: which models there are, which fit the sources and why others do not; add, verify, delete.

Reads model cards only: no torch, no Qt, no scene.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from MedXlateCore.errors import InputError, ResourceError, UsageError
from MedXlateCore.files import check_writable, sha256_file, shown
from MedXlateCore.locks import path_lock
from MedXlateCore.models.card import CARD_FILE, ModelCard, inside_package, read_card
from MedXlateCore.models.catalogue import InstalledPackage, bundled_models_folder, list_packages, user_models_folder
from MedXlateCore.volume import Modality
from MedXlateSlicerLib.texts import tr as _

__all__ = [
    "ModelChoice",
    "add_package",
    "card_text",
    "choices_for",
    "delete_package",
    "is_removable",
    "preferred",
    "roles_read",
    "targets_made",
    "verify_package",
]


@dataclass(frozen=True)
class ModelChoice:
    """A model that makes the target, and whether it can do so from the chosen sources.

    Attributes:
        name: the package's name.
        path: its folder.
        card: its card.
        sources: those it requires for the target; of a model for several directions, those of the one that fits.
        missing: of these, the ones that are not chosen.
    """

    name: str
    path: Path
    card: ModelCard
    sources: tuple[str, ...]
    missing: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """Every source that it would use if it were there, in channel order."""
        return (*self.sources, *self.card.optional_sources)

    @property
    def fits(self) -> bool:
        """True if every source it requires is chosen."""
        return not self.missing

    @property
    def why_not(self) -> str:
        """What it lacks, for the user; empty if it fits."""
        if self.fits:
            return ""
        return _("{name} also needs {sources}").format(name=self.name, sources=", ".join(self.missing))


# --- choosing -------------------------------------------------------------------------------------------------------


def roles_read(entries: Iterable[InstalledPackage]) -> tuple[str, ...]:
    """Return every source that some usable model takes, in the order of ``Modality``."""
    taken = {role for entry in entries if entry.card for role in entry.card.all_sources}
    return tuple(modality.value for modality in Modality if modality.value in taken)


def targets_made(entries: Iterable[InstalledPackage]) -> tuple[str, ...]:
    """Return every target that some usable model makes, in the order of ``Modality``."""
    made = {target for entry in entries if entry.card for target in entry.card.targets}
    return tuple(modality.value for modality in Modality if modality.value in made)


def choices_for(entries: Iterable[InstalledPackage], target: str, present: Sequence[str]) -> tuple[ModelChoice, ...]:
    """Return the models that make a target, those that fit the sources first.

    Args:
        entries: what is installed; packages that cannot be used are passed over.
        target: modality wanted.
        present: roles of the chosen sources.
    """
    found = []
    for entry in entries:
        if entry.card is None or target not in entry.card.targets:
            continue
        sources = entry.card.sources_for(target, present)
        missing = tuple(role for role in sources if role not in present)
        found.append(ModelChoice(entry.name, entry.path, entry.card, sources, missing))
    return tuple(sorted(found, key=lambda choice: (not choice.fits, choice.name)))


def preferred(choices: Sequence[ModelChoice], wanted: str = "") -> ModelChoice | None:
    """Return the wanted model if it fits, else the fitting one that uses most sources, else None."""
    fitting = [choice for choice in choices if choice.fits]
    named = [choice for choice in fitting if choice.name == wanted]
    return named[0] if named else max(fitting, key=lambda choice: len(choice.sources), default=None)


# --- managing -------------------------------------------------------------------------------------------------------


def verify_package(folder: Path) -> ModelCard:
    """Check a package's card and compare its weights with the hash in the card.

    Raises:
        InputError: ``MX-MOD-010`` to ``-014`` and ``MX-MOD-022`` (the card), ``MX-MOD-015`` (another hash),
            ``MX-FIL-001`` and following (files that cannot be read).
    """
    card = read_card(folder)
    path = inside_package(folder, card.weights["file"])
    if (found := sha256_file(path)) != card.weights["sha256"]:
        raise InputError(
            "MX-MOD-015",
            f"the weights file has the SHA-256 {found}",
            expected=f"{card.weights['sha256']}, as the card says",
            where=shown(path),
            fix="the file is damaged or not the card's own; get the package again from its source",
        )
    return card


def add_package(folder: Path, models: Path | None = None) -> InstalledPackage:
    """Copy a package into the user's models, after checking it; it appears complete or not at all.

    Args:
        folder: the package; only its card and weights are copied.
        models: where to; None for the user's model folder.

    Raises:
        InputError: see :func:`verify_package`; ``MX-SLI-041``, a model of that name is there already.
        ResourceError: ``MX-FIL-013`` and following, the folder cannot be written; another process is adding it.
    """
    card = verify_package(folder)
    target = (user_models_folder() if models is None else models) / card.name
    taken = [entry.path for entry in list_packages() if entry.name == card.name] if models is None else []
    if target.exists() or taken:
        raise InputError(
            "MX-SLI-041",
            f"there is a model '{card.name}' already",
            expected="a new name",
            where=shown(taken[0] if taken else target),
            fix="delete that model first, if it is one of yours",
        )
    weights = card.weights["file"]
    check_writable(target / CARD_FILE, inside_package(folder, weights).stat().st_size)
    with path_lock(target):
        _copy_whole([inside_package(folder, name) for name in (CARD_FILE, weights)], target)
        return InstalledPackage(card.name, target, card=verify_package(target))


def _copy_whole(files: Sequence[Path], target: Path) -> None:
    """Copy files into a folder that appears when all are there."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.adding")
    try:
        temporary.mkdir(parents=True)
        for path in files:
            shutil.copyfile(path, temporary / path.name)
        temporary.rename(target)
    except OSError as error:
        raise ResourceError(
            "MX-SLI-042",
            f"the model cannot be copied ({error.strerror or error})",
            expected="a folder that can be written, with room for the weights",
            where=shown(target),
            fix="free some room, or change the folder's permissions",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_removable(entry: InstalledPackage, models: Path | None = None) -> bool:
    """True for a model in the user's own folder; those that come with MedXlate stay."""
    return entry.path.parent == (user_models_folder() if models is None else models)


def delete_package(entry: InstalledPackage, models: Path | None = None) -> None:
    """Delete one of the user's models.

    Raises:
        UsageError: ``MX-SLI-043``, it comes with MedXlate or lies elsewhere.
        ResourceError: ``MX-SLI-044``, it cannot be deleted.
    """
    if not is_removable(entry, models):
        raise UsageError(
            "MX-SLI-043",
            f"the model '{entry.name}' is not one of yours",
            expected=f"a model in {user_models_folder() if models is None else models}",
            where=shown(entry.path),
            fix="models that come with MedXlate go with it",
        )
    doomed = entry.path.with_name(f".{entry.path.name}.{os.getpid()}.deleted")
    try:
        if entry.path.is_symlink():
            entry.path.unlink()
        else:
            entry.path.rename(doomed)  # first: half a model is never offered
            shutil.rmtree(doomed)
    except OSError as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(doomed)
        raise ResourceError(
            "MX-SLI-044",
            f"the model cannot be deleted ({error.strerror or error})",
            expected="a folder that can be changed",
            where=shown(entry.path),
            fix="close programs that use it, or change the folder's permissions",
        ) from error


def _task(card: ModelCard) -> str:
    if card.directions:
        return "; ".join(card.directions).replace("->", " → ")
    return f"{', '.join(card.all_sources)} → {', '.join(card.targets)}"


def card_text(entry: InstalledPackage) -> str:
    """Return what a user should know of a model before using it, as plain text."""
    if entry.card is None:
        return entry.problem.as_text() if entry.problem else entry.name
    card = entry.card
    origin = _("comes with MedXlate") if entry.path.parent == bundled_models_folder() else str(entry.path)
    cases = card.training.get("data") or card.training.get("description") or ""
    lines = [
        f"{card.name} {card.version} ({card.method}): {_task(card)}",
        _("Region of interest: {answer}").format(answer=_("yes") if card.prompts == "region" else _("no")),
        _("Draws samples: {answer}").format(answer=_("yes") if card.draws_samples else _("no")),
        _("Intended use: {text}").format(text=card.intended_use),
        _("Not for: {text}").format(text="; ".join(card.not_for)),
        _("Licence: {text}").format(text=card.licence),
        _("Training data: {text}").format(text=cases) if isinstance(cases, str) and cases else "",
        _("Citation: {text}").format(text=card.citation) if card.citation else "",
        _("Weights: SHA-256 {text}").format(text=card.weights.get("sha256", "")),
        _("Place: {text}").format(text=origin),
    ]
    return "\n".join(line for line in lines if line)
