"""Domains (modalities) of the directions that one network learns, and the network for one direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from MedXlateCore.directions import modalities_of, parse_direction
from MedXlateCore.models.blocks.checks import check_architecture

__all__ = ["Domains", "Towards"]


@dataclass(frozen=True)
class Domains:
    """The modalities of one-source directions, numbered: targets in order of appearance, then what is only a source.

    Attributes:
        names: the modalities.
        pairs: source and target of each direction, as positions in ``names``.
        targets: how many of them, the first ones, are anyone's target.
    """

    names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    targets: int

    @classmethod
    def of(cls, directions: Sequence[str], at_most: int) -> Domains:
        """Read the directions of a configuration.

        Args:
            directions: texts such as ``T1->T2``.
            at_most: how many modalities there may be.

        Raises:
            UsageError: ``MX-MOD-005`` (none, several sources, or too many modalities), ``MX-USE-050`` and
                ``MX-USE-010`` (not a direction).
        """
        known = [parse_direction(text, "directions") for text in directions]
        single = bool(known) and all(len(direction.sources) == 1 for direction in known)
        check_architecture(single, "directions", list(directions), "one direction or more, each from one source")
        sources, targets = modalities_of(known)
        names = tuple(dict.fromkeys((*targets, *sources)))
        check_architecture(len(names) <= at_most, "directions", list(directions), f"at most {at_most} modalities")
        pairs = tuple((names.index(direction.sources[0]), names.index(direction.target)) for direction in known)
        return cls(names, pairs, len(targets))


class Towards(nn.Module):
    """A network ``forward(images, roi, direction)`` for one of its directions; shares all weights with it."""

    def __init__(self, network: nn.Module, direction: int) -> None:
        super().__init__()
        self.network, self.direction = network, direction

    def forward(self, images: Tensor, roi: Tensor | None = None) -> Tensor:
        """Synthesise the direction's target."""
        return self.network(images, roi, self.direction)
