"""Rules that keep combinations of acquisition parameters out of training, so that a test can show generalisation."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.errors import UsageError
from MedXlateCore.prompts.acquisition_text import parse

__all__ = ["HoldOut"]

_RANGED = {
    "te": "echo_time_ms",
    "tr": "repetition_time_ms",
    "ti": "inversion_time_ms",
    "flip": "flip_angle_deg",
    "kv": "tube_voltage_kv",
    "ma": "tube_current_ma",
}
_RANGE = re.compile(r"\s*(?P<name>[a-z]+)\s*=\s*(?P<low>\d+(?:\.\d+)?)?\s*\.\.\s*(?P<high>\d+(?:\.\d+)?)?\s*", re.I)


@dataclass(frozen=True)
class HoldOut:
    """A rule that matches acquisitions with all of some facts and all of some ranges.

    Attributes:
        text: as the user wrote it.
        facts: must all be true; of lists, every item must occur.
        ranges: lowest and highest value by attribute of ``Acquisition``, both included.
    """

    text: str
    facts: Acquisition
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> HoldOut:
        """Read a rule: conditions with ``+`` between, in words or as ranges.

        Examples: ``T1+contrast+fat_suppressed+1.5T``, ``FLAIR+te=..100``, ``te=60..80``, ``T2 without contrast``.

        Raises:
            UsageError: ``MX-USE-192``, not readable; ``MX-TXT-004`` or ``-005``, conditions that exclude each other.
        """
        ranges: dict[str, tuple[float, float]] = {}
        words: list[str] = []
        for condition in text.split("+"):
            match = _RANGE.fullmatch(condition)
            if match is None:
                words.append(condition.replace("_", " "))
                continue
            name, low, high = match["name"].lower(), float(match["low"] or 0), float(match["high"] or math.inf)
            if name not in _RANGED or not low < high or (match["low"] is None and match["high"] is None):
                raise _unreadable(text, f"a range such as te=60..80 or tr=..500 of one of {', '.join(_RANGED)}")
            ranges[_RANGED[name]] = (low, high)
        return cls(text.strip(), _facts(words, text), ranges)

    def matches(self, facts: Acquisition) -> bool:
        """True if an acquisition has all that the rule names."""
        known = facts.known()
        for name, wanted in self.facts.known().items():
            value = known.get(name)
            if value != wanted and not (isinstance(wanted, tuple) and value and set(wanted) <= set(value)):
                return False
        return all(name in known and low <= known[name] <= high for name, (low, high) in self.ranges.items())


def _facts(words: list[str], text: str) -> Acquisition:
    if not words:
        return Acquisition()
    if not all(word.strip() for word in words):
        raise _unreadable(text, "words or ranges between the plus signs")
    try:
        parsed = parse(", ".join(words))
    except UsageError as error:
        if error.code in ("MX-TXT-004", "MX-TXT-005"):
            raise
        raise _unreadable(text, error.expected or "words about an acquisition") from error
    if parsed.not_understood:
        raise _unreadable(text, f"words that are understood, not '{', '.join(parsed.not_understood)}'")
    return parsed.facts


def _unreadable(text: str, expected: str) -> UsageError:
    return UsageError(
        "MX-USE-192",
        f"the rule '{text}' cannot be read",
        expected=expected,
        where="hold-out",
        fix="for example T1+contrast+fat_suppressed+1.5T, or T2+te=90..110",
    )
