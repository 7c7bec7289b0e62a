"""Words to numbers: a closed vocabulary of the words of our own sentences, digits and punctuation.

A number is told digit by digit (``2.5`` is ``2``, ``.``, ``5``), so that a value never seen still has meaning. Text is
read in lower case; a word outside the vocabulary becomes the unknown token. Free text should first be parsed and
described again (``acquisition_text``): then every word but quoted names is known.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.errors import UsageError
from MedXlateCore.prompts.wordings import vocabulary_texts

__all__ = [
    "CONTEXT",
    "END",
    "PAD",
    "START",
    "UNKNOWN",
    "VOCABULARY",
    "VOCABULARY_SIZE",
    "decode",
    "encode",
    "encode_batch",
    "too_long",
    "vocabulary_sha256",
    "words",
]

CONTEXT = 256
PAD, START, END, UNKNOWN = range(4)
_SPECIAL = ("<pad>", "<start>", "<end>", "<unknown>")
_PUNCTUATION = tuple(".,:;-+*/=%()'\"&_#")
_DIGITS = tuple("0123456789")
_WORD = re.compile(r"[^\W\d_]+|[^\s]")


def words(text: str) -> list[str]:
    """Split a text into words, single digits and punctuation, in lower case."""
    return _WORD.findall(text.lower())


def _vocabulary() -> tuple[str, ...]:
    fixed = (*_SPECIAL, *_PUNCTUATION, *_DIGITS)
    own = {word for text in vocabulary_texts() for word in words(text)}
    return (*fixed, *sorted(own - set(fixed)))


VOCABULARY: tuple[str, ...] = _vocabulary()
"""Every token by its number: special ones, punctuation, digits, then words in alphabetical order."""

VOCABULARY_SIZE = len(VOCABULARY)
_NUMBERS = {word: number for number, word in enumerate(VOCABULARY)}


def encode(text: str, context: int = CONTEXT) -> list[int]:
    """Return a text's tokens: start, words, end; not padded.

    Args:
        text: a prompt.
        context: most tokens, start and end included.

    Raises:
        UsageError: ``MX-TXT-002``, the text is longer than the context.
    """
    found = words(text)
    if len(found) + 2 > context:
        raise too_long(text, f"{len(found)} words, digits and signs", str(context - 2))
    return [START, *(_NUMBERS.get(word, UNKNOWN) for word in found), END]


def too_long(text: str, found: str, most: str) -> UsageError:
    """Return ``MX-TXT-002`` for a text that has more than a model can read."""
    return UsageError(
        "MX-TXT-002",
        f"the text has {found}",
        expected=f"at most {most}",
        where=f"'{text[:60]}...'",
        fix="say less: sequence, organ, contrast agent and plane come first",
    )


def encode_batch(texts: Iterable[str], context: int = CONTEXT, *, full: bool = False) -> NDArray[np.int64]:
    """Return tokens [N, L], padded with ``PAD`` to the longest text, or to the context if ``full``.

    Raises:
        UsageError: ``MX-TXT-002``, a text is longer than the context.
    """
    rows = [encode(text, context) for text in texts]
    batch = np.full((len(rows), context if full else max(map(len, rows), default=0)), PAD, np.int64)
    for n, row in enumerate(rows):
        batch[n, : len(row)] = row
    return batch


def decode(tokens: Iterable[int]) -> str:
    """Return the tokens' words with spaces between, without special tokens but the unknown one; for people to read."""
    return " ".join(VOCABULARY[token] for token in tokens if token not in (PAD, START, END))


def vocabulary_sha256() -> str:
    """Return the hash of the vocabulary: a model trained with another one must not be used with this one."""
    return hashlib.sha256("\n".join(VOCABULARY).encode()).hexdigest()
