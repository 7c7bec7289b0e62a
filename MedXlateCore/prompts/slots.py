"""Places in a sentence where a fact stands: how a value is told, what it looks like, and how it is read back."""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from MedXlateCore.prompts import glossary
from MedXlateCore.prompts.glossary import ORDINALS, Names

__all__ = ["SLOTS", "Choose", "Slot", "is_latin", "plain_name", "told_number"]

Choose = Callable[[Sequence[str]], str]
_QUOTED = r'"[^"]*"'


class Slot(ABC):
    """One fact's place.

    ``pattern`` is a regular expression without groups; what it matches is what ``say`` returns.
    """

    @property
    @abstractmethod
    def pattern(self) -> str:
        """What a told value looks like."""

    @abstractmethod
    def say(self, value: Any, choose: Choose) -> str:
        """Return a value in words; ``choose`` picks among names."""

    @abstractmethod
    def read(self, text: str) -> Any:
        """Return the value of a text that ``pattern`` matches."""

    @abstractmethod
    def told(self, value: Any) -> Any:
        """Return the value as the words hold it (rounded; names without quotation marks); None if nothing is left."""

    def phrases(self) -> tuple[str, ...]:
        """Return every name that ``say`` can use, for the vocabulary."""
        return ()


@dataclass(frozen=True)
class NameSlot(Slot):
    """A value with names of its own, or any other text in quotation marks."""

    names: Names
    open: bool = True

    @cached_property
    def _by_phrase(self) -> dict[str, object]:
        return {phrase.lower(): value for value, phrases in self.names.items() for phrase in phrases}

    @cached_property
    def pattern(self) -> str:
        """Names, longest first, or a quoted text."""
        phrases = sorted(self._by_phrase, key=lambda phrase: (-len(phrase), phrase))
        return "(?:" + "|".join([*map(re.escape, phrases), *([_QUOTED] if self.open else [])]) + ")"

    def say(self, value: Any, choose: Choose) -> str:
        """Return one of the value's names."""
        return choose(self.names[value]) if value in self.names else f'"{value}"'

    def read(self, text: str) -> Any:
        """Return the value of a name."""
        return text[1:-1] if text.startswith('"') else self._by_phrase[text.lower()]

    def told(self, value: Any) -> Any:
        """Return the value; of a free text what can stand in quotation marks."""
        return value if value in self.names or not isinstance(value, str) else plain_name(value) or None

    def phrases(self) -> tuple[str, ...]:
        """Return the names."""
        return tuple(phrase for names in self.names.values() for phrase in names)


@dataclass(frozen=True)
class ListSlot(Slot):
    """Several names with commas between."""

    item: NameSlot

    @cached_property
    def pattern(self) -> str:
        """Items with commas between."""
        return f"{self.item.pattern}(?:, {self.item.pattern})*"

    def say(self, value: Any, choose: Choose) -> str:
        """Return the items' names."""
        return ", ".join(self.item.say(part, choose) for part in value)

    def read(self, text: str) -> tuple[Any, ...]:
        """Return the items."""
        return tuple(self.item.read(part) for part in re.findall(self.item.pattern, text, re.IGNORECASE | re.ASCII))

    def told(self, value: Any) -> tuple[Any, ...]:
        """Return the items that can be told."""
        return tuple(told for part in value if (told := self.item.told(part)) is not None)

    def phrases(self) -> tuple[str, ...]:
        """Return the items' names."""
        return self.item.phrases()


@dataclass(frozen=True)
class NumberSlot(Slot):
    """A number with one decimal; with ``short`` a whole number has none."""

    short: bool = False

    @property
    def pattern(self) -> str:
        """Digits, and decimals where there are some."""
        return r"\d+(?:\.\d+)?"

    def say(self, value: Any, choose: Choose) -> str:
        """Return the rounded number."""
        number = told_number(value)
        if round(number, 1) != number:
            return f"{number:.3f}"
        return f"{number:.0f}" if self.short and number.is_integer() else f"{number:.1f}"

    def read(self, text: str) -> float:
        """Return the number."""
        return float(text)

    def told(self, value: Any) -> float:
        """Return the number as rounded."""
        return told_number(value)


class PhaseSlot(Slot):
    """The phase of a dynamic series: before the agent, or the n-th after it."""

    @cached_property
    def pattern(self) -> str:
        """Pre-contrast, or an ordinal and post-contrast."""
        return rf"(?:pre-contrast|(?:{'|'.join(ORDINALS)}|\d+(?:st|nd|rd|th)) post-contrast)"

    def say(self, value: Any, choose: Choose) -> str:
        """Return the phase in words."""
        if value == 0:
            return "pre-contrast"
        if value <= len(ORDINALS):
            return f"{ORDINALS[value - 1]} post-contrast"
        ending = "th" if value % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")
        return f"{value}{ending} post-contrast"

    def read(self, text: str) -> int:
        """Return the phase's number."""
        word = text.lower().split()[0]
        if word == "pre-contrast":
            return 0
        return ORDINALS.index(word) + 1 if word in ORDINALS else int(word[:-2])

    def told(self, value: Any) -> int:
        """Return the phase."""
        return int(value)

    def phrases(self) -> tuple[str, ...]:
        """Return the ordinals and their endings."""
        return (*(f"{word} post-contrast" for word in ORDINALS), "pre-contrast", "st", "nd", "rd", "th")


def told_number(value: float) -> float:
    """Return a number as sentences hold it: one decimal (EVA-I2I's prompts), three for what that would round to 0."""
    return round(float(value), 1) if value >= 0.05 else round(float(value), 3)


def plain_name(text: str) -> str:
    """Return a name that can stand in quotation marks: Latin letters, one space between words, no quotation marks."""
    kept = "".join(c for c in text.replace('"', "'") if is_latin(c))
    return " ".join("".join(c if c.isprintable() else " " for c in kept).split())


def is_latin(character: str) -> bool:
    """True for Latin letters, for everything that is no letter, and for the signs of micro and ordinals."""
    return (
        not character.isalpha()
        or character.isascii()
        or character in "µºª"
        or unicodedata.name(character, "").startswith("LATIN")
    )


SLOTS: dict[str, Slot] = {
    "modality": NameSlot(glossary.MODALITIES, open=False),
    "sequence": NameSlot(glossary.SEQUENCES),
    "organ": NameSlot(glossary.ORGANS),
    "plane": NameSlot(glossary.PLANES, open=False),
    "contrast_agent": NameSlot(glossary.CONTRAST, open=False),
    "b_value_s_per_mm2": NumberSlot(short=True),
    "dynamic_phase": PhaseSlot(),
    "dynamic_seconds": NumberSlot(),
    "scanner_model": NameSlot(glossary.SCANNERS),
    "field_strength_t": NumberSlot(),
    "tube_voltage_kv": NumberSlot(short=True),
    "tube_current_ma": NumberSlot(short=True),
    "exposure_time_ms": NumberSlot(short=True),
    "coil": NameSlot({}),
    "scanning_sequence": ListSlot(NameSlot(glossary.SCANNING_SEQUENCES)),
    "sequence_variant": ListSlot(NameSlot(glossary.SEQUENCE_VARIANTS)),
    "scan_options": ListSlot(NameSlot(glossary.SCAN_OPTIONS)),
    "flip_angle_deg": NumberSlot(),
    "echo_time_ms": NumberSlot(),
    "repetition_time_ms": NumberSlot(),
    "inversion_time_ms": NumberSlot(),
    "preprocessing": ListSlot(NameSlot(glossary.PREPROCESSING)),
}
"""Place of every fact, by attribute of ``Acquisition``."""
