"""Facts in free text, such as ``T1 after gadolinium, fat suppressed, TE 3 ms at 3T, axial``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from MedXlateCore.prompts import glossary
from MedXlateCore.prompts.glossary import ORDINALS

__all__ = ["FreeText", "read_free_text"]

Fact = tuple[str, Any]
Reader = Callable[[re.Match[str]], list[Fact]]

_NUMBER = r"(?P<number>\d+(?:\.\d+)?)"
_IS = r"\s*(?:time\s*)?(?:=|:|\bof\b|\bis\b)?\s*"
_TIME = rf"{_NUMBER}\s*(?P<unit>milliseconds?|msecs?|ms|seconds?|secs?|s)?(?![a-z])"
_AGENT = r"(?:gadolinium|gadobutrol|gado|gad|gd|contrast(?:[\s-]*(?:agent|medium|media|material))?|agent|enhancement)\b"
_SEPARATORS = " \t,;:/|+()[]{}'\"-=."
_FILLER_WORDS = (
    "a acquired acquisition after an and angle as at axis before by case data dataset degrees echo field for from "
    "head-coil image images imaging in is it like look looks made make me of on or phase plane please scan scanned "
    "scanner scans sequence series show showing slice slices study taken that the this time to using very view volume "
    "want weighted weighting which with"
)
_FILLERS = frozenset(_FILLER_WORDS.split())


@dataclass(frozen=True)
class FreeText:
    """What was read: facts in the order found (one may come twice), and the words left over."""

    facts: tuple[Fact, ...]
    not_understood: tuple[str, ...]


def read_free_text(text: str) -> FreeText:
    """Read one sentence (or line) of free text.

    Facts are attributes of ``Acquisition``; ``no_fat_suppression`` is one more, for what an acquisition cannot say.
    """
    left, found = text, []
    for pattern, reader in _patterns():
        for match in list(pattern.finditer(left)):
            found += [(match.start(), fact) for fact in reader(match)]
            left = left[: match.start()] + "\0" * len(match[0]) + left[match.end() :]
    facts = tuple(fact for _, fact in sorted(found, key=lambda item: item[0]))
    return FreeText(facts, tuple(_left_over(left)))


def _left_over(text: str) -> Iterator[str]:
    """Yield runs of words that nobody understood."""
    for part in re.split(r"[\0,;:]+", text):
        run: list[str] = []
        for word in [*part.split(), ""]:
            bare = word.strip(_SEPARATORS)
            if bare and bare.lower() not in _FILLERS:
                run.append(bare)
            elif run:
                yield " ".join(run)
                run = []


def _fixed(*facts: Fact) -> Reader:
    return lambda match: list(facts)


def _number(name: str) -> Reader:
    return lambda match: [(name, float(match["number"]))]


def _time_ms(name: str) -> Reader:
    def read(match: re.Match[str]) -> list[Fact]:
        """Return a time in ms; without a unit it is in ms."""
        in_seconds = (match["unit"] or "").lower().startswith("s")
        return [(name, round(float(match["number"]) * (1000.0 if in_seconds else 1.0), 3))]

    return read


def _phase(match: re.Match[str]) -> list[Fact]:
    word = match["phase"].lower()
    return [("dynamic_phase", ORDINALS.index(word) + 1 if word in ORDINALS else int(re.sub(r"\D", "", word)))]


def _quoted_name(match: re.Match[str]) -> list[Fact]:
    return [("coil" if match["what"].lower() == "coil" else "scanner_model", match["name"])]


def _timed(names: str, fact: str) -> Iterator[tuple[str, Reader]]:
    """Yield ways to give a time: ``TE 3 ms``, ``echo time of 3 ms``, ``3 ms TE``."""
    yield rf"\b(?:{names}){_IS}{_TIME}", _time_ms(fact)
    yield rf"(?<![\d.]){_TIME}\s*(?:{names})\b", _time_ms(fact)


def _sources() -> Iterator[tuple[str, Reader]]:
    """Yield patterns and readers; what comes first wins, and what is read is not read again."""
    yield r'"(?P<name>[^"]+)"\s*(?P<what>scanner|system|coil)', _quoted_name
    yield from _numbers()
    yield from _contrast()
    yield from _sequences()
    yield from _techniques()
    yield from _names()


def _numbers() -> Iterator[tuple[str, Reader]]:
    yield from _timed("te|echo\\s+time|echo", "echo_time_ms")
    yield from _timed("tr|repetition\\s+time|repetition", "repetition_time_ms")
    yield from _timed("ti|inversion\\s+time|inversion", "inversion_time_ms")
    degrees = r"(?:°|degrees?\b|deg\b)"
    flip = r"(?:flip\s*angle|flip|fa)"
    yield rf"\b{flip}{_IS}{_NUMBER}\s*{degrees}?", _number("flip_angle_deg")
    yield rf"(?<![\d.]){_NUMBER}\s*-?{degrees}(?:\s*{flip}\b)?", _number("flip_angle_deg")
    yield rf"\bb\s*[-_]?\s*(?:value|factor)?{_IS}{_NUMBER}(?:\s*s\s*/\s*mm(?:\^?2|²))?", _number("b_value_s_per_mm2")
    yield rf"(?<![\d.]){_NUMBER}[\s-]*(?:t|tesla)\b(?!\d)", _number("field_strength_t")
    yield rf"(?<![\d.]){_NUMBER}\s*kvp?\b", _number("tube_voltage_kv")
    yield rf"(?<![\d.]){_NUMBER}\s*ma\b", _number("tube_current_ma")
    yield rf"\bexposure{_IS}{_TIME}", _time_ms("exposure_time_ms")
    after = r"(?:after|post|past|p\.?)[\s-]*(?:injection|contrast|agent|gadolinium|gd|i\.?v?\.?)\b"
    yield (
        rf"(?<![\d.]){_NUMBER}\s*(?:seconds?|secs?|s)\s+{after}",
        lambda match: [("dynamic_seconds", float(match["number"])), ("contrast_agent", True)],
    )
    yield (
        rf"\b(?P<phase>{'|'.join(ORDINALS)}|\d+(?:st|nd|rd|th))\s+(?:(?:post[\s-]*contrast|dynamic)\s+phase"
        r"|post[\s-]*contrast|phase)\b",
        _phase,
    )
    yield r"\bpre[\s-]*contrast\s+phase\b", _fixed(("dynamic_phase", 0))


def _contrast() -> Iterator[tuple[str, Reader]]:
    without, given = _fixed(("contrast_agent", False)), _fixed(("contrast_agent", True))
    iv = r"(?:(?:i\.?v\.?|intravenous|any|the|a)\s+)*"
    both = _fixed(("contrast_agent", True), ("contrast_agent", False))
    yield rf"\bwith(?:out)?\s+(?:and|or|&)\s+with(?:out)?\s+{iv}{_AGENT}", both
    yield rf"\b(?:without|w/o|no|non|not|before|pre)[\s-]*{iv}(?:contrast[\s-]*enhanced|enhanced|{_AGENT})", without
    yield r"\b(?:unenhanced|native|precontrast|nonenhanced)\b", without
    yield rf"(?:\b(?:with|after|post|plus)|\+)[\s-]*{iv}{_AGENT}", given
    yield r"\b(?:contrast|gadolinium|gd)[\s-]*enhanced\b|\benhanced\b|\bpostcontrast\b|\bpost[\s-]gd\b", given
    yield r"\bt1[\s-]*(?:ce|c\+|c|gd|km|post|\+c|\+)(?![a-z])", _fixed(("sequence", "T1"), ("contrast_agent", True))
    yield r"\bce[\s-]*t1w?\b", _fixed(("sequence", "T1"), ("contrast_agent", True))
    yield rf"\b(?:{_AGENT})", given


def _sequences() -> Iterator[tuple[str, Reader]]:
    weighted = r"(?:[\s-]*(?:weighted|weighting|wi|w))?\b"
    yield (
        rf"\bt1{weighted}[\s-]*(?:\bflair|\bfluid[\s-]attenuated\s+inversion\s+recovery)\b",
        _fixed(("sequence", "T1"), ("scanning_sequence", ("IR",))),
    )
    yield (
        rf"\b(?:t2{weighted}[\s-]*)?(?:\bflair|\bfluid[\s-]attenuated\s+inversion\s+recovery)\b",
        _fixed(("sequence", "FLAIR")),
    )
    yield r"\b(?:mp[\s-]?rage|mp2rage)\b", _fixed(("sequence", "T1"), ("scanning_sequence", ("GR", "IR")))
    yield (
        r"\b(?:spgr|flash|fspgr|vibe|bravo)\b",
        _fixed(("sequence", "T1"), ("scanning_sequence", ("GR",)), ("sequence_variant", ("SP",))),
    )
    yield r"\bt2(?:\*|[\s-]?star)(?:[\s-]*(?:weighted|w)\b)?", _fixed(("sequence", "T2*"))
    yield rf"\bt1{weighted}", _fixed(("sequence", "T1"))
    yield rf"\bt2{weighted}", _fixed(("sequence", "T2"))
    yield rf"\b(?:pd|proton[\s-]*density){weighted}", _fixed(("sequence", "PD"))
    yield rf"\b(?:dwi|diffusion){weighted}", _fixed(("sequence", "DWI"))
    yield rf"\b(?:swi|susceptibility){weighted}", _fixed(("sequence", "SWI"))
    yield rf"\b(?:pwi|perfusion){weighted}", _fixed(("sequence", "perfusion"))


def _techniques() -> Iterator[tuple[str, Reader]]:
    fat = r"fat[\s-]*(?:suppress(?:ed|ion)|saturat(?:ed|ion)|sat)\b"
    yield rf"\b(?:without|no|non)[\s-]*{fat}", _fixed(("no_fat_suppression", True))
    yield rf"\b(?:(?:with|and)\s+)?(?:{fat}|fs\b)", _fixed(("scan_options", ("FS",)))
    yield (
        r"\b(?:turbo|fast)[\s-]*spin[\s-]*echo\b|\b(?:tse|fse|rare)\b",
        _fixed(("scanning_sequence", ("SE",)), ("sequence_variant", ("SK",))),
    )
    yield r"\b(?:epi|echo[\s-]*planar(?:\s+imaging)?)\b", _fixed(("scanning_sequence", ("EP",)))
    yield (
        r"\bspoiled[\s-]+gradient(?:[\s-]*recalled)?[\s-]*echo\b",
        _fixed(("scanning_sequence", ("GR",)), ("sequence_variant", ("SP",))),
    )
    yield r"\b(?:gre|gradient[\s-]*echo)\b", _fixed(("scanning_sequence", ("GR",)))
    yield r"\bspin[\s-]*echo\b", _fixed(("scanning_sequence", ("SE",)))
    skull = r"\bskull[\s-]*(?:strip(?:ped|ping)|removed)\b|\bbrain[\s-]*(?:extracted|only)\b|\bwithout\s+skull\b"
    yield skull, _fixed(("preprocessing", ("skull removed",)))


_EVERYDAY: dict[str, dict[str, tuple[str, ...]]] = {
    "modality": {"MR": ("mr imaging",), "CT": ("cat scan",), "CBCT": ("cone beam ct",)},
    "organ": {
        "head": ("cranial", "cranium"), "brain": ("cerebral", "cerebrum", "neuro"), "breast": ("breasts", "mammary"),
        "abdomen": ("abdominal",), "pelvis": ("pelvic",), "chest": ("thorax", "thoracic"), "heart": ("cardiac",),
        "lung": ("lungs", "pulmonary"), "kidney": ("kidneys", "renal"), "liver": ("hepatic",),
        "cervical spine": ("c-spine", "cspine"), "lumbar spine": ("l-spine", "lspine"), "spine": ("spinal",),
        "eye": ("eyes", "ocular"), "orbit": ("orbits",),
    },
    "plane": {"axial": ("transversal", "transaxial"), "coronal": ("cor",), "sagittal": ("sag",)},
}  # fmt: skip


def _names() -> Iterator[tuple[str, Reader]]:
    """Yield every name of the glossary, longest first, and everyday ones."""
    named: list[tuple[str, Fact]] = []
    single = (
        ("sequence", glossary.SEQUENCES), ("modality", glossary.MODALITIES), ("organ", glossary.ORGANS),
        ("plane", glossary.PLANES), ("scanner_model", glossary.SCANNERS),
    )  # fmt: skip
    several = (
        ("scanning_sequence", glossary.SCANNING_SEQUENCES), ("sequence_variant", glossary.SEQUENCE_VARIANTS),
        ("scan_options", glossary.SCAN_OPTIONS), ("preprocessing", glossary.PREPROCESSING),
    )  # fmt: skip
    for fact, names in single:
        named += [(phrase, (fact, value)) for value, phrases in names.items() for phrase in phrases]
        everyday = _EVERYDAY.get(fact, {})
        named += [(phrase, (fact, value)) for value, phrases in everyday.items() for phrase in phrases]
    for fact, names in several:
        named += [(phrase, (fact, (value,))) for value, phrases in names.items() for phrase in phrases]
    for phrase, value in sorted(named, key=lambda item: -len(item[0])):
        spelled = r"[\s-]+".join(map(re.escape, re.split(r"[\s-]+", phrase)))
        yield rf"(?<!\w){spelled}(?!\w)", _fixed(value)


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[re.Pattern[str], Reader], ...]:
    return tuple((re.compile(source, re.IGNORECASE | re.ASCII), reader) for source, reader in _sources())
