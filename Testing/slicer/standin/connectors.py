"""Typed parameters and the widgets that show them: the pairs that the application knows, no others."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, get_args, get_origin

import slicer

from .validators import (
    Choice,
    Decimals,
    Maximum,
    Minimum,
    SingleStep,
    WithinRange,
    findFirstAnnotation,
    splitAnnotations,
)

# class name: signal, how to read, how to write
SIMPLE: dict[str, tuple[str, Callable, Callable]] = {
    "QCheckBox": ("stateChanged(int)", lambda w: w.checked, lambda w, v: setattr(w, "checked", v)),
    "QPushButton": ("toggled(bool)", lambda w: w.checked, lambda w, v: setattr(w, "checked", v)),
    "QLineEdit": ("textChanged(QString)", lambda w: w.text, lambda w, v: setattr(w, "text", v)),
    "QTextEdit": ("textChanged()", lambda w: w.toPlainText(), lambda w, v: w.setPlainText(v)),
    "QSlider": ("valueChanged(int)", lambda w: w.value, lambda w, v: setattr(w, "value", v)),
    "QSpinBox": ("valueChanged(int)", lambda w: w.value, lambda w, v: setattr(w, "value", v)),
    "QDoubleSpinBox": ("valueChanged(double)", lambda w: w.value, lambda w, v: setattr(w, "value", v)),
    "ctkSliderWidget": ("valueChanged(double)", lambda w: w.value, lambda w, v: setattr(w, "value", v)),
    "ctkPathLineEdit": (
        "currentPathChanged(QString)",
        lambda w: w.currentPath,
        lambda w, v: setattr(w, "currentPath", str(v)),
    ),
    "ctkDirectoryButton": (
        "directoryChanged(QString)",
        lambda w: w.directory,
        lambda w, v: setattr(w, "directory", str(v)),
    ),
    "qMRMLNodeComboBox": (
        "currentNodeChanged(vtkMRMLNode*)",
        lambda w: w.currentNode(),
        lambda w, v: w.setCurrentNode(v),
    ),
}
TYPES = {
    "QCheckBox": (bool,),
    "QPushButton": (bool,),
    "QLineEdit": (str,),
    "QTextEdit": (str,),
    "QSlider": (int,),
    "QSpinBox": (int,),
    "QDoubleSpinBox": (float,),
    "ctkSliderWidget": (float,),
}
NUMBERS = ("QSlider", "QSpinBox", "QDoubleSpinBox", "ctkSliderWidget")
PATHS = ("ctkPathLineEdit", "ctkDirectoryButton")


class Connector:
    """One widget and the parameter it shows."""

    def __init__(self, widget: Any, signal: str, read: Callable[[], Any], write: Callable[[Any], None]) -> None:
        self._widget, self._signal, self.read, self.write = widget, signal, read, write
        self._callback: Callable | None = None

    def widget(self) -> Any:
        """Return the widget."""
        return self._widget

    def onChanged(self, callback: Callable | None) -> None:
        """Call the function at every change of the widget; None ends that."""
        if self._callback is not None:
            self._widget.disconnect(self._signal, self._callback)
        self._callback = None
        if callback is not None:

            def run() -> None:  # a slot without arguments: the signal's are dropped
                callback()

            self._callback = run
            self._widget.connect(self._signal, run)


def node_types(kind: Any) -> list[str]:
    """Return the class names of a node type or a union of them, nothing for other types."""
    kinds = get_args(kind) if get_origin(kind) is not None else (kind,)
    nodes = [k for k in kinds if isinstance(k, type) and issubclass(k, slicer.vtkMRMLNode)]
    return [k.__name__ for k in nodes] if len(nodes) == len([k for k in kinds if k is not type(None)]) else []


def createGuiConnector(widget: Any, datatype: Any) -> Connector:
    """Return the connector of a widget and a type; RuntimeError where the application has none for the pair."""
    kind, annotations = splitAnnotations(datatype)
    name = type(widget).__name__
    if name == "QComboBox":
        return combo_connector(widget, kind, annotations)
    fits = kind in TYPES.get(name, ())
    fits |= name in PATHS and isinstance(kind, type) and issubclass(kind, PurePath)
    fits |= name == "qMRMLNodeComboBox" and bool(node_types(kind))
    if not fits:
        raise RuntimeError(f"Unable to create GUI connector from datatype '{datatype}' to widget type '{type(widget)}'")
    if name in NUMBERS:
        set_limits(widget, name, annotations)
    if name == "qMRMLNodeComboBox":
        widget.nodeTypes = node_types(kind)
    if name == "QPushButton":
        widget.checkable = True
    signal, read, write = SIMPLE[name]
    convert = kind if name in PATHS else (lambda value: value)
    return Connector(widget, signal, lambda: convert(read(widget)), lambda value: write(widget, value))


def set_limits(widget: Any, name: str, annotations: list[Any]) -> None:
    """Give a number's widget the range, decimals and step of the annotations."""
    for kind, key in ((Decimals, "decimals"), (SingleStep, "singleStep")):
        hint = findFirstAnnotation(annotations, kind)
        if hint is not None:
            setattr(widget, key, hint.value)
    within = findFirstAnnotation(annotations, WithinRange)
    low, high = (within or findFirstAnnotation(annotations, kind) for kind in (Minimum, Maximum))
    if name in ("QSlider", "ctkSliderWidget") and (low is None or high is None):
        raise RuntimeError(f"Cannot have a connection to {name} where the number is unbounded.")
    widest = 2**31 - 1 if name in ("QSlider", "QSpinBox") else float("inf")
    widget.minimum = -widest if low is None else low.minimum
    widget.maximum = widest if high is None else high.maximum


def combo_connector(widget: Any, kind: Any, annotations: list[Any]) -> Connector:
    """Return the connector of a QComboBox: the members of an enum, or the choices of a Choice annotation."""
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        label = getattr(kind, "label", lambda member: member.name)
        values = [(label(member), member) for member in kind]
    else:
        choice = findFirstAnnotation(annotations, Choice)
        if choice is None or kind not in (int, float, str, bool):
            raise RuntimeError("ComboBoxToStringableConnector requires the Choice annotation to be used.")
        values = [(str(value), value) for value in choice.choices]
    widget.clear()
    widget.addItems([text for text, _ in values])
    known = [value for _, value in values]
    return Connector(
        widget,
        "currentIndexChanged(int)",
        lambda: known[widget.currentIndex],
        lambda value: widget.setCurrentIndex(known.index(value)),
    )
