"""What a translation is to make: a modality by its name, or the image that words or a reference describe.

Words and references are read once, to facts; the network is told the facts in our own sentences. Whatever was not
understood, and how far the wanted image lies from all that the model was trained on, is a recorded warning. Errors
about a text name the nearest thing that the model knows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedXlateCore.acquisition import Acquisition, Plane
from MedXlateCore.errors import InputError, MedXlateError, UsageError, Warned
from MedXlateCore.models.card import ModelCard
from MedXlateCore.models.method import not_told
from MedXlateCore.models.package import LoadedModel
from MedXlateCore.prompts import tokens
from MedXlateCore.prompts.acquisition_text import describe, glimpse, parse, with_modality
from MedXlateCore.prompts.domains import domain_warnings, nearest_domain
from MedXlateCore.prompts.facts import check_facts, facts_of
from MedXlateCore.volume import Modality
from MedXlateCore.weighting import role_of

__all__ = ["Wanted", "chosen_target", "facts_like", "wanted_image"]

_PLANE: Plane = "axial"  # of the slices that networks are given


@dataclass(frozen=True)
class Wanted:
    """What is to be made.

    Attributes:
        modality: of the result; ``other`` for a described image that has no modality of its own.
        scale_of: the card's target whose intensities the result gets.
        facts: of the image, where it was described; None where its modality was named.
        described: what the run record says of a described image; None for a named one.
        warnings: what was noticed.
    """

    modality: Modality
    scale_of: str
    facts: Acquisition | None = None
    described: dict[str, Any] | None = None
    warnings: tuple[Warned, ...] = ()

    @property
    def title(self) -> str:
        """Return what is made, for messages."""
        return (
            self.modality.value if self.described is None else f"{self.modality.value} ({self.described['sentence']})"
        )

    @property
    def key(self) -> str:
        """Return eight digits that tell described images apart, for names of files; empty for a named modality."""
        if self.facts is None:
            return ""
        return hashlib.sha256(json.dumps(self.facts.to_dict(), sort_keys=True).encode()).hexdigest()[:8]


def chosen_target(card: ModelCard, target: Modality | str | None) -> Modality:
    """Return the modality to make.

    Args:
        card: the model's card.
        target: what was asked for; None for the model's only target.

    Raises:
        UsageError: ``MX-MOD-091`` (the model does not make it), ``MX-USE-010`` (no such modality).
    """
    if target is None and len(card.targets) == 1:
        return Modality.parse(card.targets[0])
    wanted = Modality.parse(target) if target is not None else None
    if wanted is None or wanted.value not in card.targets:
        raise UsageError(
            "MX-MOD-091",
            f"the target {wanted.value if wanted else '(none given)'} is not one that model '{card.name}' makes",
            expected=f"one of {', '.join(card.targets)}",
            where="--target",
            fix="choose one of these targets, or another model (medxlate models list)",
        )
    return wanted


def wanted_image(
    model: LoadedModel,
    target: Modality | str | None = None,
    target_text: str | None = None,
    target_like: Acquisition | None = None,
) -> Wanted:
    """Return what a model is to make; at most one of the three may be given.

    Args:
        model: the model.
        target: a modality by its name; None for the model's only target.
        target_text: a description, see ``prompts.acquisition_text.parse``.
        target_like: facts of an image like the wanted one.

    Raises:
        UsageError: ``MX-USE-207`` (more than one is given), ``MX-USE-208`` (the model cannot be told in words),
            ``MX-TXT-001`` to ``-006`` (the text cannot be used; the nearest known image is named), ``MX-USE-200``;
            ``MX-MOD-091`` and ``MX-USE-010``, as :func:`chosen_target`.
        InputError: ``MX-TXT-020`` (no facts), ``MX-TXT-022`` (facts that contradict each other).
    """
    given = {"target": target, "target text": target_text, "target like": target_like}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise UsageError(
            "MX-USE-207",
            f"the target is given more than once, as {' and '.join(names)}",
            expected="a modality, a text, or an image to be like",
            where="target",
            fix="leave all but one out",
        )
    if target_text is None and target_like is None:
        modality = chosen_target(model.card, target)
        return Wanted(modality, modality.value)
    if not model.method.speaks:
        raise not_told(model.card.method)
    if target_text is not None:
        return _told(model, target_text)
    return _alike(model, target_like or Acquisition())


def facts_like(path: Path, model: LoadedModel) -> Acquisition:
    """Return the facts of a reference for :func:`wanted_image`.

    Args:
        path: a NIfTI file with its sidecar, a DICOM file, folder or ``DIR#NAME``.
        model: the model that will be told of them.

    Raises:
        UsageError: ``MX-USE-208``, the model cannot be told.
        InputError: as :func:`MedXlateCore.prompts.facts.facts_of`.
    """
    if not model.method.speaks:
        raise not_told(model.card.method)
    try:
        return facts_of(path)
    except InputError as error:
        if error.code == "MX-TXT-020":
            error.fix += _nearest_hint(Acquisition(), _domains(model))
        raise


def _domains(model: LoadedModel) -> Mapping[str, Acquisition]:
    return model.method.known_domains(model.config)


def _told(model: LoadedModel, text: str) -> Wanted:
    domains, context = _domains(model), model.method.text_context(model.config)
    try:
        parsed = parse(text, context=context)
        plane = _plane_warning(parsed.facts)
        return _wanted(model, parsed.facts, {"text": text}, (*parsed.warnings, *plane))
    except MedXlateError as error:
        error.fix += _nearest_hint(glimpse(text), domains)
        raise


def _alike(model: LoadedModel, facts: Acquisition) -> Wanted:
    try:
        check_facts(facts, "the image that the target is to be like")
    except InputError as error:
        error.fix += _nearest_hint(facts, _domains(model))
        raise
    return _wanted(model, facts, {}, ())


def _wanted(model: LoadedModel, facts: Acquisition, origin: dict[str, Any], warnings: tuple[Warned, ...]) -> Wanted:
    domains, card = _domains(model), model.card
    facts = with_modality(facts).with_facts(plane=_PLANE)
    sentence = describe(facts)
    tokens.encode(sentence, model.method.text_context(model.config))  # raises if it is too long
    nearest = nearest_domain(facts, domains)
    modality = role_of(facts)
    near = role_of(domains[nearest.name])
    scale_of = next((name for name in (modality.value, near.value) if name in card.targets), card.targets[0])
    described = {
        **origin,
        "facts": facts.to_dict(),
        "sentence": sentence,
        "nearest_known": {"name": nearest.name, "distance": nearest.distance, "differences": list(nearest.differences)},
        "intensities_of": scale_of,
    }
    noticed = (*warnings, *_vague(facts, nearest.name), *domain_warnings(facts, domains))
    return Wanted(modality, scale_of, facts, described, noticed)


def _vague(facts: Acquisition, nearest: str) -> tuple[Warned, ...]:
    if facts.sequence or facts.modality in ("CT", "CBCT", "PET"):
        return ()
    found = "neither a sequence nor a modality other than MR is said, so what will be shown is open"
    return (Warned("MX-TXT-013", found, "target text", f"name one; nearest known: {nearest}"),)


def _plane_warning(facts: Acquisition) -> tuple[Warned, ...]:
    if facts.plane in (None, _PLANE):
        return ()
    found = f"the plane '{facts.plane}' has no influence: the volume is made from {_PLANE} slices, on the source's grid"
    return (Warned("MX-TXT-014", found, "target text", "look at the result in any plane"),)


def _nearest_hint(facts: Acquisition, domains: Mapping[str, Acquisition]) -> str:
    """Return what an error's advice ends with: the known domain nearest to what could be read."""
    if not domains:
        return ""
    said = "nearest known to the model" if facts.known() else "the model knows, for example"
    return f"; {said}: {nearest_domain(facts, domains).name}"
