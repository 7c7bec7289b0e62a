"""What the panel shows for what is chosen: which roles are missing, which models fit, whether Apply can be pressed.

A function from plain data to plain data, so that every state of the panel can be tested without one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from MedXlateCore.models.catalogue import InstalledPackage
from MedXlateSlicerLib.models import ModelChoice, choices_for, preferred, roles_read, targets_made
from MedXlateSlicerLib.texts import tr as _

__all__ = ["PanelState", "RoleState", "panel_state"]


@dataclass(frozen=True)
class RoleState:
    """One row of the sources.

    Attributes:
        role: such as ``T1``.
        state: ``used``, ``missing`` (required, not chosen), ``optional`` (may be chosen) or ``unused`` (the model does
            not read it).
    """

    role: str
    state: Literal["used", "missing", "optional", "unused"]

    @property
    def text(self) -> str:
        """The state in a word."""
        return {"used": _("used"), "missing": _("missing"), "optional": _("optional"), "unused": _("not used")}[
            self.state
        ]


@dataclass(frozen=True)
class PanelState:
    """What follows from the choices.

    Attributes:
        roles: rows to show.
        targets: what can be made, whatever the sources.
        target: what will be made; empty if no model is installed.
        offered: models that make it from the sources.
        model: the one that will be used, or None.
        model_text: what the other models lack.
        takes_region: the model takes a region of interest.
        speaks: the model may be told its target in words.
        draws_samples: the model draws samples, so that there may be several.
        samples_text: what samples are good for, or that there are none.
        region_text: what the region will do.
        can_apply: Apply can be pressed.
        hint: what is missing before that.
    """

    roles: tuple[RoleState, ...]
    targets: tuple[str, ...]
    target: str
    offered: tuple[ModelChoice, ...]
    model: ModelChoice | None
    model_text: str
    takes_region: bool
    region_text: str
    speaks: bool
    draws_samples: bool
    samples_text: str
    can_apply: bool
    hint: str


def panel_state(
    entries: Sequence[InstalledPackage],
    present: Collection[str],
    *,
    target: str = "",
    model: str = "",
    used_segments: int = 0,
    empty_segments: int = 0,
) -> PanelState:
    """Return what the panel shows.

    Args:
        entries: installed models.
        present: roles of the chosen sources.
        target: what the user wants; empty to suggest one.
        model: the model the user wants; empty, or one that does not fit, for the fitting one with most sources.
        used_segments: segments that are used as a region.
        empty_segments: how many of these have nothing drawn in them.
    """
    targets = targets_made(entries)
    wanted = target if target in targets else _suggested(entries, targets, present)
    choices = choices_for(entries, wanted, tuple(present))
    chosen = preferred(choices, model)
    others = [choice for choice in choices if not choice.fits]
    nearest = chosen or min(others, key=lambda choice: len(choice.missing), default=None)
    hint = _hint(wanted, chosen, nearest)
    takes_region = chosen is not None and chosen.card.prompts == "region"
    return PanelState(
        roles=_roles(entries, present, nearest),
        targets=targets,
        target=wanted,
        offered=tuple(choice for choice in choices if choice.fits),
        model=chosen,
        model_text=_("Not offered: {reasons}.").format(reasons="; ".join(c.why_not for c in others)) if others else "",
        takes_region=takes_region,
        region_text=_region_text(chosen, takes_region, used_segments, empty_segments),
        speaks=chosen is not None and chosen.card.speaks,
        draws_samples=chosen is not None and chosen.card.draws_samples,
        samples_text=_samples_text(chosen),
        can_apply=not hint,
        hint=hint,
    )


def _suggested(entries: Sequence[InstalledPackage], targets: Sequence[str], present: Collection[str]) -> str:
    """Return a target that is not there yet, one that can be made first."""

    def rank(target: str) -> tuple[bool, bool]:
        return target in present, preferred(choices_for(entries, target, tuple(present))) is None

    return min(targets, key=rank, default="")


def _roles(
    entries: Sequence[InstalledPackage], present: Collection[str], model: ModelChoice | None
) -> tuple[RoleState, ...]:
    read = roles_read(entries)
    return tuple(RoleState(role, _role_state(role, role in present, model)) for role in read)


def _role_state(
    role: str, is_chosen: bool, model: ModelChoice | None
) -> Literal["used", "missing", "optional", "unused"]:
    if model is None or role not in model.reads:
        return "unused"
    if is_chosen:
        return "used"
    return "missing" if role in model.sources else "optional"


def _hint(target: str, chosen: ModelChoice | None, nearest: ModelChoice | None) -> str:
    if not target:
        return _("No model is installed: add one under Models.")
    if chosen is None and nearest is not None:
        return _("Choose a volume for {roles}.").format(roles=_(" and ").join(nearest.missing))
    return ""


def _samples_text(chosen: ModelChoice | None) -> str:
    if chosen is None:
        return ""
    if not chosen.card.draws_samples:
        return _("The model {name} draws no samples: it makes the same image every time.").format(name=chosen.name)
    return _("The image is the mean of the samples: smoother than a single one. More samples take longer.")


def _region_text(chosen: ModelChoice | None, takes_region: bool, used: int, empty: int) -> str:
    if chosen is not None and not takes_region:
        text = _("The model {name} takes no region of interest.").format(name=chosen.name)
        return f"{text} {_('The segments will not be used.')}" if used else text
    if not used:
        return _("No segment is used: the image is made without a region.")
    if empty:
        return _("{empty} of {used} used segments are empty.").format(empty=empty, used=used)
    return _("The region is used as drawn (segments: {used}).").format(used=used)
