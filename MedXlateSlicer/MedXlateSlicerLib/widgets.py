"""Small helpers for Qt widgets as Python sees them in 3D Slicer: properties are attributes, not methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from MedXlateCore import __version__
from MedXlateCore.errors import MedXlateError

__all__ = ["Section", "cell", "chosen", "details", "fill_combo", "quiet", "set_row", "set_text"]

Widget = Any


class Section:
    """A part of the panel whose widgets show parameters.

    Args:
        ui: the panel's widgets by name.
        parameters: returns the parameters, or None without a scene.
    """

    def __init__(self, ui: Any, parameters: Callable[[], Any]) -> None:
        self._ui = ui
        self._parameters = parameters


@contextmanager
def quiet(*widgets: Widget) -> Iterator[None]:
    """Keep widgets from telling that they are changed."""
    before = [widget.blockSignals(True) for widget in widgets]
    try:
        yield
    finally:
        for widget, was in zip(widgets, before, strict=True):
            widget.blockSignals(was)


def fill_combo(combo: Widget, items: Sequence[tuple[str, str]], wanted: str) -> None:
    """Show these texts with their values in a combo box and select a value (the first where it is not there)."""
    values = [value for _, value in items]
    shown = [(combo.itemText(index), combo.itemData(index)) for index in range(combo.count)]
    with quiet(combo):
        if shown != list(items):
            combo.clear()
            for text, value in items:
                combo.addItem(text, value)
        if values:
            combo.setCurrentIndex(values.index(wanted) if wanted in values else 0)


def chosen(combo: Widget) -> str:
    """Return the value of a combo box's current item; empty if there is none."""
    return (combo.itemData(combo.currentIndex) or "") if combo.count else ""


def set_text(widget: Widget, text: str) -> None:
    """Set a label's or a read-only editor's text; labels without text take no room."""
    if widget.className() == "QPlainTextEdit":
        if widget.plainText != text:
            widget.plainText = text
    elif widget.text != text:
        widget.text = text
    if widget.className() == "QLabel" and widget.wordWrap:
        widget.visible = bool(text)


def set_row(table: Widget, row: int, texts: Sequence[str], tip: str = "") -> None:
    """Fill a row of a table with texts."""
    import qt

    for column, text in enumerate(texts):
        item = qt.QTableWidgetItem(text)
        item.setToolTip(tip or text)
        table.setItem(row, column, item)


def cell(table: Widget, row: int, column: int) -> str:
    """Return the text of a table's cell; empty if there is none."""
    item = table.item(row, column)
    return "" if item is None else item.text()


def details(error: MedXlateError, settings: Sequence[str] = ()) -> str:
    """Return what somebody who is asked for help needs: the error, the settings, the versions."""
    import sys

    import slicer

    versions = f"MedXlate {__version__}, Slicer {slicer.app.applicationVersion}, Python {sys.version.split()[0]}"
    return "\n".join([error.as_text(), "", *settings, versions])
