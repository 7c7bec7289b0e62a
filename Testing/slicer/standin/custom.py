"""Classes of ctk and qMRML on PySide6: properties and signals are declared from the golden record."""

from __future__ import annotations

import re
from typing import Any

from PySide6.QtCore import Property, Signal
from PySide6.QtWidgets import QWidget

from .api import known_classes
from .objects import CUSTOM

# C++ types that Qt keeps as they are; enums, nodes and the like are kept as any value
PROPERTY_TYPES = {"QString": str, "bool": bool, "int": int, "double": float, "QStringList": "QStringList"}
DEFAULTS: dict[str, Any] = {"QString": "", "bool": False, "int": 0, "double": 0.0, "QStringList": ()}
SIGNAL_TYPES = {"QString": str, "bool": bool, "int": int, "double": float, "QStringList": "QStringList"}


class Stored:
    """Keeps the values of declared properties and tells `changed` when one is set."""

    def stored(self, name: str) -> Any:
        """Return the value of a declared property."""
        return self.__dict__.setdefault("_stored", {}).get(name, self.DEFAULTS[name])

    def store(self, name: str, value: Any) -> None:
        """Set the value of a declared property."""
        before = self.stored(name)
        self.__dict__["_stored"][name] = value
        if value != before:
            self.changed(name, value)

    def changed(self, name: str, value: Any) -> None:
        """Do what the change of a property brings; nothing unless a class says so."""


def declared_property(name: str, kind: str) -> Property:
    """Return a Qt property whose value is stored."""
    # PySide passes lists for string lists; PythonQt shows tuples, which `wrap` makes of them
    return Property(
        PROPERTY_TYPES.get(kind, "QVariant"),
        lambda self: list(self.stored(name)) if kind == "QStringList" else self.stored(name),
        lambda self, value: self.store(name, tuple(value) if kind == "QStringList" else value),
    )


def declared_signals(signatures: list[str], taken: set[str]) -> dict[str, Signal]:
    """Return the signals by name, overloads together; those of a base class are left to it."""
    overloads: dict[str, list[tuple]] = {}
    for signature in signatures:
        name, arguments = re.match(r"(\w+)\((.*)\)", signature).groups()
        types = tuple(SIGNAL_TYPES.get(a.replace("&", ""), object) for a in arguments.split(",")) if arguments else ()
        overloads.setdefault(name, []).append(types)
    return {
        name: Signal(*kinds) if len(kinds) > 1 else Signal(*kinds[0])
        for name, kinds in overloads.items()
        if name not in taken
    }


def define(name: str, base: type = QWidget, body: type | None = None, **defaults: Any) -> type:
    """Make and register the class of that name: golden names, the behaviour of `body`, given defaults."""
    entry = known_classes()[name]
    meta = base.staticMetaObject
    own = {
        k: v["type"]
        for k, v in entry["properties"].items()
        if v["writable"] is not None and meta.indexOfProperty(k) < 0
    }
    members = {k: v for k, v in vars(body or object).items() if k not in ("__dict__", "__weakref__", "__doc__")}
    namespace: dict[str, Any] = declared_signals(entry["signals"], {k for k in dir(base) if not k.startswith("_")})
    namespace |= {key: declared_property(key, kind) for key, kind in own.items() if key not in members}
    namespace |= members if body else {}
    namespace["DEFAULTS"] = (
        {k: DEFAULTS.get(kind) for k, kind in own.items()} | getattr(body, "DEFAULTS", {}) | defaults
    )
    CUSTOM[name] = type(base)(name, (base, Stored), namespace)
    return CUSTOM[name]
