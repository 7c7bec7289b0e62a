"""The modules `qt` and `ctk`, whose classes are made at their first use."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from PySide6 import QtCore

from . import objects
from .values import enumerators, native_class


class _Namespace:
    """`qt.Qt`: the enumerators of Qt's namespace."""

    def __getattr__(self, name: str) -> Any:
        found = enumerators(QtCore.Qt)
        if name not in found:
            raise AttributeError(f"type object 'Qt' has no attribute '{name}'")
        return found[name]


class QtModule(ModuleType):
    """`import qt`: classes of Qt, as PythonQt shows them."""

    Qt = _Namespace()

    def __getattr__(self, name: str) -> Any:
        if (
            name.startswith("_")
            or name.startswith("ctk")
            or (name not in objects.CUSTOM and native_class(name) is None)
        ):
            raise AttributeError(f"module 'qt' has no attribute '{name}'")
        return objects.qt_class(name)


class CtkModule(ModuleType):
    """`import ctk`: the widgets of the Common Toolkit that the golden record lists."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("ctk") or name not in objects.CUSTOM:
            raise AttributeError(f"module 'ctk' has no attribute '{name}'")
        return objects.qt_class(name)
