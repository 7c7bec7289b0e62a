"""Values of DICOM attributes, taken with care: what cannot be read counts as not there.

pydicom reads lazily: a damaged value raises only when it is looked at, and which exception it raises depends on the
damage. Everything here therefore goes through :func:`element_value`. Names of attributes are DICOM's (PS3.6).
"""

from __future__ import annotations

import contextlib
import logging
import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = [
    "FrameTags",
    "codes",
    "element_value",
    "first_item",
    "number",
    "numbers",
    "quiet",
    "reading_errors",
    "text",
]

_DAMAGE = (
    ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, OSError, RecursionError, RuntimeError,
    TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip

_LONGEST_TEXT = 64  # a long string (LO), PS3.5


@cache
def reading_errors() -> tuple[type[Exception], ...]:
    """Return what pydicom raises on damaged files: its own exceptions, and whatever a damaged value leads to."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (*_DAMAGE, BytesLengthException, InvalidDicomError)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's remarks on values that break the standard to itself: they quote the values, which may be names."""
    log = logging.getLogger("pydicom")
    before = log.disabled
    log.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = before


def element_value(dataset: Dataset | None, keyword: str | tuple[int, int]) -> Any:
    """Return an attribute's value, by keyword or tag; None where it is absent, empty or not readable."""
    if dataset is None:
        return None
    try:
        value = dataset.get(keyword) if isinstance(keyword, str) else getattr(dataset.get(keyword), "value", None)
        return None if value is None or (hasattr(value, "__len__") and len(value) == 0) else value
    except reading_errors():
        return None


def numbers(dataset: Dataset | None, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return an attribute of ``count`` numbers, NaN and infinity included; None where it is not that."""
    value = element_value(dataset, keyword)
    try:
        found = tuple(float(item) for item in ([value] if isinstance(value, (int, float, str)) else value or ()))
    except reading_errors():
        return None
    return found if len(found) == count else None


def number(dataset: Dataset | None, keyword: str | tuple[int, int]) -> float | None:
    """Return an attribute of one finite number (the first of several); None where it is not that."""
    value = element_value(dataset, keyword)
    try:
        if value is not None and not isinstance(value, (int, float, str, bytes)):
            value = value[0]
        found = None if value is None else float(value)
    except reading_errors():
        return None
    return found if found is not None and math.isfinite(found) else None


def text(dataset: Dataset | None, keyword: str) -> str:
    """Return an attribute's text without spaces at its ends, at most 64 characters; empty where there is none."""
    value = element_value(dataset, keyword)
    return "" if value is None else " ".join(str(value).split())[:_LONGEST_TEXT]


def codes(dataset: Dataset | None, keyword: str) -> tuple[str, ...]:
    """Return an attribute of one or several codes (CS) in upper case; ``NONE`` and empty ones left out."""
    value = element_value(dataset, keyword)
    items = value.split("\\") if isinstance(value, str) else value or ()
    try:
        found = (str(item).strip().upper()[:16] for item in items)
        return tuple(code for code in found if code not in {"", "NONE"})
    except reading_errors():
        return ()


def first_item(dataset: Dataset | None, sequence: str) -> Dataset | None:
    """Return the first item of a sequence; None where there is none."""
    items = element_value(dataset, sequence)
    try:
        return items[0] if items else None
    except reading_errors():
        return None


class FrameTags:
    """The attributes of one frame, wherever the file has them: for the frame, for all frames, or at the top.

    Args:
        dataset: the file's header.
        frame: the frame, from 0.
    """

    def __init__(self, dataset: Dataset, frame: int = 0) -> None:
        self.dataset = dataset
        self.shared = first_item(dataset, "SharedFunctionalGroupsSequence")
        items = element_value(dataset, "PerFrameFunctionalGroupsSequence")
        self.own = items[frame] if items is not None and frame < len(items) else None

    @property
    def enhanced(self) -> bool:
        """True for the multi-frame objects that describe each frame."""
        return self.own is not None or self.shared is not None

    def group(self, sequence: str, keyword: str) -> Dataset:
        """Return the item that holds ``keyword``: of the frame's functional group, the shared one, or the file."""
        for groups in (self.own, self.shared):
            item = first_item(groups, sequence)
            if item is not None and keyword in item:
                return item
        return self.dataset

    def number(self, sequence: str, *keywords: str) -> float | None:
        """Return the first finite number under one of the keywords."""
        found = (number(self.group(sequence, keyword), keyword) for keyword in keywords)
        return next((value for value in found if value is not None), None)

    def numbers(self, sequence: str, keyword: str, count: int) -> tuple[float, ...] | None:
        """As :func:`numbers`, of this frame."""
        return numbers(self.group(sequence, keyword), keyword, count)

    def codes(self, sequence: str, keyword: str) -> tuple[str, ...]:
        """As :func:`codes`, of this frame."""
        return codes(self.group(sequence, keyword), keyword)

    def text(self, sequence: str, keyword: str) -> str:
        """As :func:`text`, of this frame."""
        return text(self.group(sequence, keyword), keyword)
