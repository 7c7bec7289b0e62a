"""Directions of translation: which modalities lead to which, written ``T1,T2->T1ce``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from MedXlateCore.errors import UsageError
from MedXlateCore.volume import Modality

__all__ = ["Direction", "choose_direction", "modalities_of", "parse_direction"]

ARROWS = ("->", "→")


@dataclass(frozen=True)
class Direction:
    """One translation.

    Attributes:
        sources: names of the source modalities, in channel order.
        target: name of the modality that is made.
    """

    sources: tuple[str, ...]
    target: str

    @property
    def is_reconstruction(self) -> bool:
        """True if the only source is the target itself."""
        return self.sources == (self.target,)

    def __str__(self) -> str:
        return f"{','.join(self.sources)}->{self.target}"


def parse_direction(text: str, where: str = "") -> Direction:
    """Read ``T1,T2->T1ce``; an arrow (→) and spaces are welcome, modalities have any usual spelling.

    A modality may lead to itself alone, ``T1->T1``: a reconstruction, which shows what a model can at best.

    Raises:
        UsageError: ``MX-USE-050`` (not of this form, or a modality twice), ``MX-USE-010`` (no such modality).
    """
    arrow = next((sign for sign in ARROWS if text.count(sign) == 1), "")
    left, _, right = text.partition(arrow) if arrow else (text, "", "")
    names = [name.strip() for name in (*left.split(","), right)]
    if not arrow or not all(names):
        raise _refused(f"'{text}' is no direction", where)
    *sources, target = (Modality.parse(name).value for name in names)
    direction = Direction(tuple(sources), target)
    if len({*sources, target}) != len(names) and not direction.is_reconstruction:
        raise _refused(f"'{text}' names a modality twice", where)
    return direction


def modalities_of(directions: Iterable[Direction]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the source and the target modalities of several directions, each once, in order of appearance."""
    known = tuple(directions)
    sources = dict.fromkeys(name for direction in known for name in direction.sources)
    return tuple(sources), tuple(dict.fromkeys(direction.target for direction in known))


def choose_direction(directions: Sequence[Direction], target: str, present: Collection[str]) -> int:
    """Return the position of the direction that leads to a target from what is there.

    The first listed one whose sources are all present; if there is none, the first listed one, whose missing sources
    the caller will name.

    Raises:
        ValueError: no direction leads to the target; callers check that before.
    """
    fitting = [n for n, direction in enumerate(directions) if direction.target == target]
    if not fitting:
        raise ValueError(f"no direction leads to {target}")
    return next((n for n in fitting if set(directions[n].sources) <= set(present)), fitting[0])


def _refused(found: str, where: str) -> UsageError:
    return UsageError(
        "MX-USE-050",
        found,
        expected="SOURCE->TARGET or SOURCE,SOURCE->TARGET with different modalities, such as T1,T2->T1ce",
        where=where,
        fix="correct the direction",
    )
