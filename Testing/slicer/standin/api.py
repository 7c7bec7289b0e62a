"""What the real application offers, by class: the golden record slicer_api.json."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


@dataclass(frozen=True)
class ClassApi:
    """Names of one class: properties with their C++ types, methods, signals with their signatures."""

    name: str
    types: dict[str, str] = field(default_factory=dict)
    writable: frozenset[str] = frozenset()
    constants: frozenset[str] = frozenset()
    methods: frozenset[str] = frozenset()
    signals: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def kind(self, name: str) -> str | None:
        """Return "property", "constant", "signal", "method" or, where the class has no such name, None."""
        if name in self.types:
            return "constant" if name in self.constants else "property"
        if name in self.signals:
            return "signal"
        return "method" if name in self.methods else None


# every object has these; the record lists them for some classes only
EVERY_OBJECT = {"className", "delete", "help", "inherits"}


@functools.cache
def record(name: str) -> dict:
    """Return the golden record of that file name."""
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def known_classes() -> dict[str, dict]:
    """Return the golden record of each class, by its name without the module."""
    return {name.split(".")[-1]: entry for name, entry in record("slicer_api.json")["classes"].items()}


@functools.cache
def class_api(name: str) -> ClassApi | None:
    """Return the names of a class with those it shares with its base, or None where nothing was recorded."""
    entry = known_classes().get(name)
    if entry is None:
        return None
    base = class_api(entry["like"].split(".")[-1]) if "like" in entry else None
    types, writable, constants = dict(base.types if base else ()), set(base.writable if base else ()), set()
    constants |= set(base.constants if base else ())
    for key, facts in entry["properties"].items():
        types[key] = facts["type"]
        writable.discard(key)
        if facts["writable"]:
            writable.add(key)
        elif facts["writable"] is None:
            constants.add(key)
    if "objectName" in types:
        types["name"] = "QString"
    signals: dict[str, tuple[str, ...]] = dict(base.signals if base else {})
    for signature in entry["signals"]:
        key = signature.split("(")[0]
        signals[key] = tuple(dict.fromkeys((*signals.get(key, ()), signature)))
    methods = set(entry["methods"]) | EVERY_OBJECT | set(base.methods if base else ())
    return ClassApi(name, types, frozenset(writable), frozenset(constants), frozenset(methods), signals)
