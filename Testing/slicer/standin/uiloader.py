"""Reading real .ui files: what Qt Designer wrote must fit the classes, or the test fails."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from PySide6.QtCore import QBuffer, QByteArray, QIODevice
from PySide6.QtUiTools import QUiLoader

from .api import class_api
from .attributes import constant
from .objects import CUSTOM, qt_class, wrapper_of
from .values import native_class


def load_ui(path: Any) -> Any:
    """Return the widget of a .ui file, as slicer.util.loadUI does; what the file asks and no class has is refused."""
    if not Path(path).is_file():
        raise RuntimeError(f"Could not load UI file: file not found {path}\n\n")
    tree = ElementTree.parse(path).getroot()
    _check(tree, Path(path).name)
    connections = tree.find("connections")
    if connections is not None:
        tree.remove(connections)
    enums = _take_enums(tree)
    widget = _load(tree, path)
    for name, key, value in enums:
        setattr(_named(widget, name), key, value)
    for connection in () if connections is None else connections.iter("connection"):
        _connect(widget, {part.tag: part.text for part in connection})
    return widget


def _load(tree: ElementTree.Element, path: Any) -> Any:
    loader = QUiLoader()
    for custom in CUSTOM.values():
        loader.registerCustomWidget(custom)
    buffer = QBuffer()
    buffer.setData(QByteArray(ElementTree.tostring(tree)))
    buffer.open(QIODevice.OpenModeFlag.ReadOnly)
    native = loader.load(buffer)
    if native is None:
        raise RuntimeError(f"Could not load UI file: {path}\n\n{loader.errorString()}")
    return wrapper_of(native)


def _check(tree: ElementTree.Element, file: str) -> None:
    """Refuse classes and properties that the application has not."""
    for widget in tree.iter("widget"):
        name = widget.get("class")
        native = CUSTOM.get(name) or native_class(name)
        if native is None:
            raise RuntimeError(f"{file}: the stand-in for Slicer has no widget class {name} (of {widget.get('name')})")
        api = class_api(name)
        for entry in widget.findall("property"):
            key = entry.get("name")
            known = native.staticMetaObject.indexOfProperty(key) >= 0 if api is None else key in api.writable
            if not known and entry.get("stdset") != "0":
                raise RuntimeError(f"{file}: {name} {widget.get('name')} has no property {key!r}")


def _take_enums(tree: ElementTree.Element) -> list[tuple[str, str, int]]:
    """Take the enums of ctk's classes, which Qt's loader does not know, out of the tree: widget, property, value."""
    found = []
    for widget in tree.iter("widget"):
        for entry in widget.findall("property"):
            value = entry.find("enum") if entry.find("enum") is not None else entry.find("set")
            if value is None or value.text.split("::")[0] not in CUSTOM:
                continue
            owner = qt_class(value.text.split("::")[0])
            number = 0
            for word in value.text.split("|"):
                number |= int(constant(owner, word.split("::")[-1]))
            found.append((widget.get("name"), entry.get("name"), number))
            widget.remove(entry)
    return found


def _named(widget: Any, name: str) -> Any:
    return widget if widget.objectName == name else widget.findChild("QObject", name)


def _connect(widget: Any, parts: dict[str, str]) -> None:
    sender, receiver = _named(widget, parts["sender"]), _named(widget, parts["receiver"])
    slot = getattr(receiver, parts["slot"].split("(")[0])
    takes = 0 if parts["slot"].endswith("()") else 1
    if not sender.connect(parts["signal"], lambda *arguments: slot(*arguments[:takes])):
        raise RuntimeError(f"{parts['sender']} has no signal {parts['signal']}")
