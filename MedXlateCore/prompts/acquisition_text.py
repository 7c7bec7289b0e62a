"""Facts about an acquisition as sentences, and sentences as facts.

What is said, in which order, and what must be said follow EVA-I2I (Cell Reports Methods; "Data and prompts"); the
wordings are our own (``wordings``). ``parse`` reads our own sentences back exactly, and free text as far as it goes.

Example:
    >>> describe(Acquisition(modality="MR", sequence="T1", organ="brain", plane="axial"))
    'T1-weighted MR image of the brain. Axial plane.'
    >>> parse("T1 brain after gadolinium, TE 3 ms at 3T").facts.field_strength_t
    3.0
"""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from MedXlateCore.acquisition import Acquisition, Plane
from MedXlateCore.errors import UsageError, Warned
from MedXlateCore.prompts import tokens
from MedXlateCore.prompts.free_text import read_free_text
from MedXlateCore.prompts.glossary import REGIONS_OF_ORGANS, SEQUENCES
from MedXlateCore.prompts.slots import Choose, is_latin
from MedXlateCore.prompts.wordings import KINDS, SentenceKind, as_told, read_sentence, split_sentences

__all__ = ["Parsed", "Sentence", "as_told", "describe", "glimpse", "misfits", "parse", "sentences", "with_modality"]

_LETTERS_A_WORD = 40  # the most that is read of a text, times its context
_OF_MR = (
    "field_strength_t", "b_value_s_per_mm2", "flip_angle_deg", "echo_time_ms", "repetition_time_ms",
    "inversion_time_ms", "scanning_sequence", "sequence_variant",
)  # fmt: skip
_OF_CT = ("tube_voltage_kv", "tube_current_ma", "exposure_time_ms")
_MISFITS = {"MR": _OF_CT, "CT": _OF_MR, "CBCT": _OF_MR, "PET": (*_OF_MR, *_OF_CT)}
_MR_SEQUENCES = frozenset(SEQUENCES) - {"FDG"}


@dataclass(frozen=True)
class Sentence:
    """One sentence of a prompt: what it is about (a name of ``wordings.KINDS``), its text, whether it must be there."""

    kind: str
    text: str
    mandatory: bool


@dataclass(frozen=True)
class Parsed:
    """What was read from a text.

    Attributes:
        facts: what was understood.
        not_understood: words that were not, in their order.
        warnings: ``MX-TXT-010`` where words were not understood.
    """

    facts: Acquisition
    not_understood: tuple[str, ...] = ()
    warnings: tuple[Warned, ...] = ()


def describe(
    facts: Acquisition,
    *,
    optional: Literal["all", "none", "some"] | None = None,
    rng: random.Random | None = None,
    plane: Plane | None = None,
    detail: Literal["full", "varied"] = "full",
    dropout: float = 0.5,
) -> str:
    """Return a prompt: the sentences of an acquisition with spaces between.

    Args:
        facts: what is known.
        optional: ``all`` optional sentences (the default without ``rng``), ``none``, or ``some``: each but
            those that ``dropout`` takes (the default with ``rng``, as in training).
        rng: draws wordings and names; without it the first ones are taken, and the text is always the same.
        plane: viewing plane, in place of the facts' own.
        dropout: probability with which ``some`` leaves out an optional sentence.
        detail: ``varied`` also draws texts that say less, as in training: the organ generalised or left out, scanner
            or field strength alone, fewer times. Such texts are ``compatible`` but not equal when read back.

    Raises:
        UsageError: ``MX-TXT-007``, ``some`` or ``varied`` without ``rng``.
    """
    chosen = optional or ("some" if rng else "all")
    if rng is None and (chosen == "some" or detail == "varied"):
        raise UsageError(
            "MX-TXT-007",
            "a prompt with something left to chance needs a source of randomness",
            expected="rng",
            where="describe",
            fix="give rng=random.Random(seed), or ask for all or none of the optional sentences",
        )
    known = as_told(facts if plane is None else facts.with_facts(plane=plane))
    choose: Choose = rng.choice if rng is not None else _first
    texts = []
    for kind in KINDS:
        told: Mapping[str, Any] = kind.known(known)
        if not told and kind.mandatory != "always":
            continue
        keep = (
            kind.is_mandatory(known)
            or chosen == "all"
            or (chosen == "some" and rng is not None and rng.random() < 1 - dropout)
        )
        if keep:
            if rng is not None and detail == "varied":
                told = _less(kind, told, rng)
            texts.append(kind.say(told, choose))
    return " ".join(texts)


def sentences(facts: Acquisition) -> tuple[Sentence, ...]:
    """Return all sentences of an acquisition in their order and first wording."""
    told = as_told(facts)
    return tuple(
        Sentence(kind.name, kind.say(kind.known(told), _first), kind.is_mandatory(told))
        for kind in KINDS
        if kind.known(told) or kind.mandatory == "always"
    )


def _first(names: Sequence[str]) -> str:
    return names[0]


def _coin(rng: random.Random) -> bool:
    return rng.random() < 0.5


def _less(kind: SentenceKind, told: Mapping[str, Any], rng: random.Random) -> Mapping[str, Any]:
    """Return facts that say less, at random: one third each keeps, generalises, leaves out the organ."""
    if "organ" in told:
        organ = rng.choice((told["organ"], REGIONS_OF_ORGANS.get(told["organ"], told["organ"]), None))
        return {name: value for name, value in {**told, "organ": organ}.items() if value is not None}
    if not kind.partial or _coin(rng):
        return told
    kept = [name for name in told if _coin(rng)] or [rng.choice(list(told))]
    return {name: told[name] for name in kept}


def parse(text: str, *, context: int = tokens.CONTEXT) -> Parsed:
    """Read facts from a text: our own sentences exactly, anything else as free text.

    Args:
        text: sentences of ``describe``, or words such as ``FLAIR brain sagittal`` or ``T1 after gadolinium, 3T``.
        context: most tokens that the model reads, start and end included.

    Raises:
        UsageError: ``MX-TXT-001`` (no words), ``MX-TXT-002`` (longer than the context), ``MX-TXT-003`` (not in Latin
            letters), ``MX-TXT-004`` (two values for one fact), ``MX-TXT-005`` (a fact of another modality, such as CT
            with TE), ``MX-TXT-006`` (nothing was understood), ``MX-USE-200`` (a value that cannot be).
    """
    _check_text(text, context)
    text = re.sub(r"[^\S\n]+", " ", text)
    found: dict[str, Any] = {}
    free: list[str] = []
    not_understood: list[str] = []
    own = 0
    for sentence in split_sentences(text):
        ours = read_sentence(sentence)
        if ours is None:
            free.append(sentence)
        else:
            own += 1
            _merge(found, ours[1], text)
    for sentence in free:
        read = read_free_text(sentence)
        for name, value in read.facts:
            _merge(found, {name: value}, text)
        not_understood += read.not_understood
    if found.pop("no_fat_suppression", False) and "FS" in found.get("scan_options", ()):
        raise _contradiction("with and without fat suppression", text)
    if not own and not found:
        raise _nothing(text)
    facts = with_modality(Acquisition(**found)) if free else Acquisition(**found)
    if wrong := misfits(facts):
        raise _misfit(facts, wrong, text)
    return Parsed(facts, tuple(not_understood), _warnings(not_understood))


def glimpse(text: str) -> Acquisition:
    """Return what can be read of a text that ``parse`` refuses: of two values of one fact the first. Never raises."""
    latin = "".join(character for character in text[: _LETTERS_A_WORD * tokens.CONTEXT] if is_latin(character))
    facts = Acquisition()
    for sentence in split_sentences(latin):
        ours = read_sentence(sentence)
        for name, value in ours[1].items() if ours else read_free_text(sentence).facts:
            if name != "no_fat_suppression" and name not in facts.known():
                with contextlib.suppress(UsageError):  # a value that cannot be
                    facts = facts.with_facts(**{name: value})
    return facts


def misfits(facts: Acquisition) -> tuple[str, ...]:
    """Return the names of facts that the modality does not have, such as an echo time of CT."""
    known = facts.known()
    wrong = [name for name in _MISFITS.get(facts.modality or "", ()) if name in known]
    not_mr = facts.modality in ("CT", "CBCT", "PET")
    if (not_mr and facts.sequence in _MR_SEQUENCES) or (facts.modality == "MR" and facts.sequence == "FDG"):
        wrong.append("sequence")
    if not_mr and facts.fat_suppressed:
        wrong.append("scan_options")
    return tuple(wrong)


def with_modality(facts: Acquisition) -> Acquisition:
    """Return the facts with MR as modality where only MR has such a sequence, such times or such a field strength.

    Nobody who writes freely says MR besides FLAIR or 3 T.
    """
    known = facts.known()
    of_mr = facts.sequence in _MR_SEQUENCES or any(name in known for name in _OF_MR)
    return facts.with_facts(modality="MR") if facts.modality is None and of_mr else facts


def _merge(found: dict[str, Any], more: Mapping[str, Any], text: str) -> None:
    for name, value in more.items():
        earlier = found.get(name)
        if isinstance(value, tuple) and earlier is not None:
            found[name] = (*earlier, *(part for part in value if part not in earlier))
        elif earlier is not None and earlier != value:
            raise _contradiction(f"{name} as {_shown(name, earlier)} and as {_shown(name, value)}", text)
        else:
            found[name] = value


def _shown(name: str, value: object) -> str:
    if name == "contrast_agent":
        return "with" if value else "without"
    return f"{value:g}" if isinstance(value, float) else f"'{value}'"


def _check_text(text: str, context: int) -> None:
    if not any(character.isalnum() for character in text):
        raise UsageError(
            "MX-TXT-001",
            "the text says nothing",
            expected="words about an acquisition",
            where=f"'{text[:40]}'",
            fix="for example: T1-weighted MR image of the brain. With contrast agent. Axial plane.",
        )
    foreign = [character for character in text if not is_latin(character)]
    if foreign:
        raise UsageError(
            "MX-TXT-003",
            f"the text has letters that are not Latin: {''.join(dict.fromkeys(foreign))[:20]}",
            expected="English words in Latin letters",
            where=f"'{text[:60]}'",
            fix="write it in English, for example: T2-weighted MR image of the brain",
        )
    tokens.encode(text[: _LETTERS_A_WORD * context], context)  # raises if it is too long
    if len(text) > _LETTERS_A_WORD * context:
        raise tokens.too_long(text, f"{len(text)} letters", f"{_LETTERS_A_WORD * context}")


def _contradiction(what: str, text: str) -> UsageError:
    return UsageError(
        "MX-TXT-004",
        f"the text contradicts itself: {what}",
        expected="one value for each fact",
        where=f"'{text[:80]}'",
        fix="remove one of the two",
    )


def _misfit(facts: Acquisition, names: Sequence[str], text: str) -> UsageError:
    return UsageError(
        "MX-TXT-005",
        f"the text gives {', '.join(names)} for {facts.modality}",
        expected=f"facts that {facts.modality} has",
        where=f"'{text[:80]}'",
        fix="remove these facts, or correct the modality",
    )


def _nothing(text: str) -> UsageError:
    return UsageError(
        "MX-TXT-006",
        "nothing in the text was understood",
        expected="words such as T1, FLAIR, CT, brain, contrast, fat-suppressed, TE 3 ms, 3T, axial",
        where=f"'{text[:80]}'",
        fix="name at least a sequence or a modality",
    )


def _warnings(not_understood: Sequence[str]) -> tuple[Warned, ...]:
    if not not_understood:
        return ()
    told = ", ".join(f"'{words}'" for words in not_understood)
    return (Warned("MX-TXT-010", f"not understood: {told}", "text", "it has no influence; say it in other words"),)
