"""Which texts say something true of which image: the positive pairs of contrastive training.

EVA-I2I (Cell Reports Methods; training of DCLIP): text i fits image j if every sentence of i is an allowed variant of
a sentence of j and every mandatory sentence of j appears. The relation is reflexive; it is not symmetric once optional
sentences are left out: a short text fits an image with many facts, whose long text need not fit the other image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.prompts.glossary import REGIONS_OF_ORGANS
from MedXlateCore.prompts.wordings import KINDS, SentenceKind, as_told, read_sentence, split_sentences

__all__ = ["compatible", "compatible_pairs", "regions_of"]


def compatible(text: str, case: Acquisition) -> bool:
    """True if a text of ``describe`` fits an image with these facts.

    Args:
        text: sentences of ``describe``; a text with any other sentence fits nothing.
        case: the image's facts, its plane included.
    """
    return _fits(_told(text), *_expected(case))


def compatible_pairs(texts: Sequence[str], cases: Sequence[Acquisition]) -> NDArray[np.bool_]:
    """Return ``M[i, j]``: text i fits image j; bool [len(texts), len(cases)]."""
    expected = [_expected(case) for case in cases]
    pairs = [[_fits(told, *facts) for facts in expected] for told in map(_told, texts)]
    return np.array(pairs, dtype=np.bool_).reshape(len(texts), len(cases))


def regions_of(organ: str) -> Iterator[str]:
    """Yield the larger parts of the body that may stand for an organ, the nearest first."""
    while (larger := REGIONS_OF_ORGANS.get(organ)) is not None:
        organ = larger
        yield organ


@lru_cache(maxsize=4096)
def _told(text: str) -> tuple[tuple[SentenceKind, Mapping[str, Any]], ...] | None:
    found = [read_sentence(sentence) for sentence in split_sentences(text)]
    read = tuple(sentence for sentence in found if sentence is not None)
    return read if read and len(read) == len(found) else None


@lru_cache(maxsize=4096)
def _expected(case: Acquisition) -> tuple[dict[str, dict[str, Any]], frozenset[str]]:
    facts = as_told(case)
    return {kind.name: kind.known(facts) for kind in KINDS}, frozenset(
        kind.name for kind in KINDS if kind.is_mandatory(facts)
    )


def _fits(
    told: tuple[tuple[SentenceKind, Mapping[str, Any]], ...] | None,
    expected: Mapping[str, Mapping[str, Any]],
    mandatory: frozenset[str],
) -> bool:
    if told is None:
        return False
    said = {kind.name for kind, _ in told}
    return mandatory <= said and all(_is_variant(kind, facts, expected[kind.name]) for kind, facts in told)


def _is_variant(kind: SentenceKind, told: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    if told == expected:
        return True
    if kind.partial:
        return bool(told) and all(expected.get(name) == value for name, value in told.items())
    if "organ" not in expected:
        return False
    organ = told.get("organ")
    rest = {name: value for name, value in told.items() if name != "organ"}
    same = rest == {name: value for name, value in expected.items() if name != "organ"}
    return same and (organ is None or organ in regions_of(expected["organ"]))
