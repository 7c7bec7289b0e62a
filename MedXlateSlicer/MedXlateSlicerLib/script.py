"""Translation from scripts: the panel's path without a panel, waiting for the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from MedXlateCore.errors import InputError, InternalError, UsageError
from MedXlateCore.models.catalogue import list_packages
from MedXlateCore.models.sampling import Sampling
from MedXlateCore.prompts.acquisition_text import glimpse
from MedXlateCore.volume import Modality
from MedXlateCore.weighting import role_of
from MedXlateSlicerLib.estimates import Store
from MedXlateSlicerLib.models import ModelChoice, choices_for, preferred, targets_made
from MedXlateSlicerLib.nodes import Node
from MedXlateSlicerLib.regions import full_uses
from MedXlateSlicerLib.runner import Runner
from MedXlateSlicerLib.translator import Request, Translator

__all__ = ["translate_nodes"]


def translate_nodes(
    scene: Node,
    runner: Runner,
    store: Store,
    sources: Mapping[str, Node],
    target: str = "",
    *,
    target_text: str = "",
    model: str = "",
    segmentation: Node | None = None,
    uses: Mapping[str, str] | None = None,
    device: str = "auto",
    sampling: Sampling | None = None,
    uncertainty: bool = False,
) -> Node:
    """Make a synthetic volume from volume nodes and return its node.

    Args:
        scene: the nodes' scene.
        runner: drives the run; polled here until it ends.
        store: settings.
        sources: volume nodes by role (any alias).
        target: the modality to make.
        target_text: the target in words, in its place, see ``MedXlateCore.prompts.acquisition_text.parse``.
        model: a model's name; empty for the fitting one with most sources (in words: of those that can be told).
        segmentation: where a region is drawn, or None.
        uses: what its segments are used as; None for what their names suggest.
        device: see ``MedXlateCore.devices.choose_device``.
        sampling: how samples are drawn; None for the model's own way, and for models that draw none.
        uncertainty: also add the samples' standard deviation, under the result in the subject hierarchy.

    Raises:
        InputError: ``MX-SLI-045``, no model fits.
        UsageError: ``MX-USE-207`` (a modality and words), ``MX-USE-010`` (no such modality, or neither).
        MedXlateError: as the run itself.
    """
    by_role = {Modality.parse(role).value: node for role, node in sources.items()}
    _check_once(target, target_text)
    wanted = "" if target_text else Modality.parse(target).value
    choice = _told(target_text, tuple(by_role), model) if target_text else _choice(wanted, tuple(by_role), model)
    uses = full_uses(segmentation, {}) if uses is None else uses
    request = Request(
        by_role, choice, wanted, segmentation=segmentation, uses=uses, device=device,
        sampling=sampling, uncertainty=uncertainty, run_in="panel", target_text=target_text,
    )  # fmt: skip
    translator = Translator(scene, lambda place: runner, store, lambda: None)
    try:
        translator.start(request)
        while translator.busy:
            translator.poll()
    finally:
        translator.close()
    status = translator.status
    if status.error is not None:
        raise status.error
    if status.result is None:
        raise InternalError("MX-INT-001", "a run ended without a result", fix="run again")
    return status.result


def _check_once(target: str, target_text: str) -> None:
    """Refuse a target that is given in both ways, with ``MX-USE-207``."""
    if target and target_text:
        raise UsageError(
            "MX-USE-207",
            f"the target is given as {target} and in words",
            expected="a modality or a text",
            where="target",
            fix="leave one of them out",
        )


def _choice(target: str, present: Sequence[str], model: str) -> ModelChoice:
    """Return the model that makes a modality: the named one, or the fitting one with most sources."""
    entries = list_packages()
    choices = choices_for(entries, target, present)
    found = preferred([choice for choice in choices if not model or choice.name == model])
    if found is None:
        lacking = "; ".join(c.why_not for c in choices if not c.fits and (not model or c.name == model))
        raise InputError(
            "MX-SLI-045",
            f"no model makes {target} from {', '.join(present) or 'nothing'}",
            expected=lacking or f"a target among {', '.join(targets_made(entries)) or 'none'}",
            where=model,
            fix="give more sources, or add a model",
        )
    return found


def _told(text: str, present: Sequence[str], model: str) -> ModelChoice:
    """Return the model that is told in words: the named one, or one that fits. Its run looks at the text closely."""
    role = role_of(glimpse(text)).value
    choices: list[ModelChoice] = []
    for entry in list_packages():
        if entry.card is not None and entry.card.speaks and model in ("", entry.name):
            known = entry.card.targets
            choices += choices_for([entry], role if role in known else known[0], present)
    found = preferred(choices)
    if found is None:
        raise InputError(
            "MX-SLI-045",
            f"no model makes an image in words from {', '.join(present) or 'nothing'}",
            expected="; ".join(choice.why_not for choice in choices) or "a model that can be told in words (EVA-I2I)",
            where=model,
            fix="give more sources, or add such a model",
        )
    return found
