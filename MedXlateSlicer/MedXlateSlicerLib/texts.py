"""Texts of the panels in the user's language."""

from __future__ import annotations

__all__ = ["tr"]


def tr(text: str) -> str:
    """Return a text in the application's language; as it is where no application runs (tests, scripts)."""
    try:
        from slicer.i18n import getContext, translate
    except ImportError:
        return text
    translated: str = translate(getContext(__file__), text)
    return translated
