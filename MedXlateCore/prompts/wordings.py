"""The sentences: which facts each one tells, when it must be there, and the ways to say it.

Order, and which sentences are mandatory, follow EVA-I2I's prompts (Cell Reports Methods; "Data and prompts"); the
wordings are our own. In a wording, ``{fact}`` is the place of a fact, and ``[...]`` is left out unless its fact is
told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.prompts.slots import SLOTS, Choose

__all__ = ["KINDS", "SentenceKind", "as_told", "read_sentence", "split_sentences", "vocabulary_texts"]

_PIECE = re.compile(r"\[([^\]]*)\]|([^\[\]]+)")
_PLACE = re.compile(r"\{(\w+)\}")
_SENTENCE = re.compile(r'(?:"[^"]*"|\.(?=\d)|[^".;\n])+')


@dataclass(frozen=True)
class SentenceKind:
    """One sentence of a prompt.

    Attributes:
        name: what it is about.
        facts: attributes of ``Acquisition`` that it tells.
        wordings: ways to say it; the first one is used where nothing is drawn at random.
        mandatory: ``always``; ``present``, if one of its facts is known; ``optional``.
        partial: True if it may tell some of its facts only (scanner and/or field strength; shorter lists of times).
    """

    name: str
    facts: tuple[str, ...]
    wordings: tuple[str, ...]
    mandatory: Literal["always", "present", "optional"] = "present"
    partial: bool = False

    def known(self, facts: Acquisition) -> dict[str, Any]:
        """Return the facts that this sentence tells of an acquisition."""
        known = facts.known()
        return {name: known[name] for name in self.facts if name in known}

    def is_mandatory(self, facts: Acquisition) -> bool:
        """True if a prompt of this acquisition must have this sentence; fat saturation must always be said."""
        if self.mandatory == "always":
            return True
        known = self.known(facts)
        if not known or self.mandatory == "present":
            return bool(known)
        return "fat" in self.say(known, lambda names: names[0]).lower()

    def say(self, facts: Mapping[str, Any], choose: Choose) -> str:
        """Return the sentence with a capital letter and a full stop; ``choose`` picks wording and names."""

        def told(piece: re.Match[str]) -> str:
            """Return a part of the sentence, or nothing where one of its facts is not known."""
            part = piece[1] if piece[1] is not None else piece[2]
            if any(name not in facts for name in _PLACE.findall(part)):
                return ""
            return _PLACE.sub(lambda place: SLOTS[place[1]].say(facts[place[1]], choose), part)

        text = _PIECE.sub(told, choose(self.wordings)).removeprefix(", ")
        return f"{text[0].upper()}{text[1:]}."

    @cached_property
    def patterns(self) -> tuple[re.Pattern[str], ...]:
        """One regular expression a wording, with a group a fact."""
        return tuple(re.compile(_expression(wording), re.IGNORECASE | re.ASCII) for wording in self.wordings)

    def read(self, sentence: str) -> dict[str, Any] | None:
        """Return the facts of a sentence (without its full stop), or None if it is not of this kind."""
        for pattern in self.patterns:
            match = pattern.fullmatch(sentence) or pattern.fullmatch(f", {sentence}")
            if match is None:
                continue
            if self.mandatory == "always" or any(match.groups()):  # "Acquired." alone tells nothing
                return {name: SLOTS[name].read(text) for name, text in match.groupdict().items() if text is not None}
        return None


def _expression(wording: str) -> str:
    parts = []
    for optional, plain in _PIECE.findall(wording):
        inner = "".join(
            f"(?P<{part}>{SLOTS[part].pattern})" if n % 2 else re.escape(part)
            for n, part in enumerate(_PLACE.split(optional or plain))
        )
        parts.append(f"(?:{inner})?" if optional else inner)
    return "".join(parts)


KINDS: tuple[SentenceKind, ...] = (
    SentenceKind(
        "subject",
        ("sequence", "modality", "organ", "b_value_s_per_mm2"),
        (
            "[{sequence} ][{modality} ]image[ of the {organ}][, b-value {b_value_s_per_mm2} s/mm2]",
            "[{sequence} ][{modality} ]scan[ of the {organ}][ with b = {b_value_s_per_mm2} s/mm2]",
            "[{modality} ]acquisition[ of the {organ}][, {sequence}][, b-value {b_value_s_per_mm2}]",
            "[{sequence} ][{modality} ]data[ showing the {organ}][, b {b_value_s_per_mm2}]",
        ),
        mandatory="always",
    ),
    SentenceKind("contrast", ("contrast_agent",), ("{contrast_agent}", "Agent: {contrast_agent}")),
    SentenceKind(
        "scanner",
        ("scanner_model", "field_strength_t"),
        (
            "Acquired[ on a {scanner_model} scanner][ at {field_strength_t} T]",
            "Scanner:[ {scanner_model}][ {field_strength_t} tesla]",
            "Imaging system[ {scanner_model}][ with a field of {field_strength_t} T]",
        ),
        mandatory="optional",
        partial=True,
    ),
    SentenceKind(
        "tube",
        ("tube_voltage_kv", "tube_current_ma", "exposure_time_ms"),
        (
            "X-ray tube[ at {tube_voltage_kv} kV][ with {tube_current_ma} mA][ for {exposure_time_ms} ms]",
            "Tube settings:[ {tube_voltage_kv} kVp][ {tube_current_ma} mA][ exposure {exposure_time_ms} ms]",
        ),
        mandatory="optional",
    ),
    SentenceKind(
        "dynamic",
        ("dynamic_phase", "dynamic_seconds"),
        (
            "Dynamic series[, {dynamic_phase} phase][, {dynamic_seconds} seconds after injection]",
            "Dynamic contrast study[: {dynamic_phase}][ at {dynamic_seconds} s]",
        ),
    ),
    SentenceKind("coil", ("coil",), ("Receive coil {coil}", "Received with the coil {coil}"), mandatory="optional"),
    SentenceKind(
        "scanning sequence",
        ("scanning_sequence",),
        ("Pulse sequence: {scanning_sequence}", "{scanning_sequence} sequence", "Sequence type {scanning_sequence}"),
        mandatory="optional",
    ),
    SentenceKind(
        "variant",
        ("sequence_variant",),
        ("Sequence variant: {sequence_variant}", "Variant {sequence_variant}"),
        mandatory="optional",
    ),
    SentenceKind(
        "options",
        ("scan_options",),
        ("Scan options: {scan_options}", "Acquired with {scan_options}", "Using {scan_options}"),
        mandatory="optional",
    ),
    SentenceKind(
        "timing",
        ("flip_angle_deg", "echo_time_ms", "repetition_time_ms", "inversion_time_ms"),
        (
            "[flip angle {flip_angle_deg} degrees][, echo time {echo_time_ms} ms]"
            "[, repetition time {repetition_time_ms} ms][, inversion time {inversion_time_ms} ms]",
            "[, flip angle {flip_angle_deg}][, TE {echo_time_ms} ms][, TR {repetition_time_ms} ms]"
            "[, TI {inversion_time_ms} ms]",
            "[, FA {flip_angle_deg}][, TE {echo_time_ms}][, TR {repetition_time_ms}][, TI {inversion_time_ms}]",
        ),
        mandatory="optional",
        partial=True,
    ),
    SentenceKind(
        "preprocessing",
        ("preprocessing",),
        ("Preprocessing: {preprocessing}", "Image after processing: {preprocessing}"),
    ),
    SentenceKind(
        "plane", ("plane",), ("{plane} plane", "{plane} slice", "Viewed in the {plane} plane", "{plane} view")
    ),
)  # fmt: skip
"""All sentences, in their order."""


def as_told(facts: Acquisition) -> Acquisition:
    """Return the facts as sentences hold them: numbers with one decimal, names without quotation marks.

    What ``parse`` reads from ``describe`` equals this. Facts that already have one decimal and Latin names are kept.
    """
    return Acquisition(**{name: SLOTS[name].told(value) for name, value in facts.known().items()})


def split_sentences(text: str) -> tuple[str, ...]:
    """Split a text at full stops, semicolons and ends of lines, but not in numbers or quotation marks."""
    return tuple(part.strip() for part in _SENTENCE.findall(text) if part.strip())


@lru_cache(maxsize=4096)
def read_sentence(sentence: str) -> tuple[SentenceKind, Mapping[str, Any]] | None:
    """Return what one of our own sentences (without its full stop) tells, or None if it is none of ours."""
    for kind in KINDS:
        facts = kind.read(sentence)
        if facts is not None:
            return kind, facts
    return None


def vocabulary_texts() -> Iterable[str]:
    """Return every text that our sentences are made of: wordings without their places, and names."""
    for kind in KINDS:
        for wording in kind.wordings:
            yield re.sub(r"[\[\]]", "", _PLACE.sub(" ", wording))
    for slot in SLOTS.values():
        yield from slot.phrases()
