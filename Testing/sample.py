"""Which methods go through the long per-method tests every time; the others do in `make test-slow`.

The contract battery runs for every registered method every time.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

__all__ = ["sampled"]

EVERY_TIME = {"tlp", "medprompt", "aldm", "eva_i2i", "unet", "pix2pix3d"}


def sampled(names: Iterable[str]) -> list[object]:
    """Return the names as parameters of a test, those that are not looked at every time marked as slow."""
    return [name if name in EVERY_TIME else pytest.param(name, marks=pytest.mark.slow) for name in names]
