"""Qt objects as PythonQt shows them: properties are attributes, the rest are slots, signals connect by signature."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from PySide6 import QtCore, QtWidgets

from .api import class_api
from .attributes import (
    METHODS,
    attach,
    builtin_qt_slot,
    class_name,
    connections,
    constant,
    kind_of,
    lacking,
    native_method,
    plain_slot,
    read_property,
    signatures,
    subclassed,
    write_property,
)
from .dialogs import ASKING, WAITING, Dialogs
from .strict import BoundSignal
from .values import call, enumerators, native_class, unwrap

# classes of ctk and qMRML by name, written on PySide6; filled where they are defined
CUSTOM: dict[str, type] = {}
# who answers dialogs; set for each test
ASK: Dialogs = Dialogs()


class Value:
    """A Qt value without properties (QSize, QColor, an item of a table): everything is a slot."""

    _NATIVE: Any = None

    def __init__(self, *arguments: Any) -> None:
        object.__setattr__(self, "_q", raw(self._NATIVE, arguments, type(self).__name__))
        remember(self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        label, api = type(self).__name__, class_api(type(self).__name__)
        constants = enumerators(type(self)._NATIVE)
        if name in constants and (api is None or api.kind(name) == "constant"):
            return constants[name]
        if (api is not None and api.kind(name) is None) or (api is None and not hasattr(self._q, name)):
            raise AttributeError(f"{label} has no attribute named '{name}'")
        return builtin_qt_slot(label, name, getattr(self._q, name, lacking(label, name)))

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in vars(self) and not subclassed(self):
            raise AttributeError(f"{type(self).__name__} attribute '{name}' does not exist")
        object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and (self._q is other._q or self._q == other._q)

    __hash__ = None

    def __repr__(self) -> str:
        name = type(self).__name__
        shown = re.search(r"\(([-\d., ]+)\)\s*$", repr(self._q))
        return f"{name} ({shown.group(1) if shown else name}{',' if shown else ''} at: {id(self._q):#x})"


class Instance:
    """A QObject: attributes follow the golden record of its class; where there is none, Qt's own meta object."""

    _NATIVE: Any = None

    def __init__(self, *arguments: Any) -> None:
        object.__setattr__(self, "_q", raw(self._NATIVE, arguments, type(self).__name__))
        remember(self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        label, kind = class_name(self), kind_of(self, name)
        if kind is None:
            raise AttributeError(f"{label} has no attribute named '{name}'")
        if kind == "property":
            return read_property(self, name)
        if kind == "constant":
            return constant(type(self), name)
        if kind == "signal":
            return BoundSignal(self, signatures(self, name)[-1])
        if name in METHODS or waits(self, name):
            return python_slot(self, name)
        return builtin_qt_slot(label, name, native_method(self, name))

    def __setattr__(self, name: str, value: Any) -> None:
        kind = kind_of(self, name)
        if kind == "property":
            write_property(self, name, value)
        elif kind is None and (name.startswith("_") or subclassed(self)):
            object.__setattr__(self, name, value)
        else:
            raise AttributeError(
                f"{class_name(self)} attribute '{name}' does not exist or cannot be assigned; "
                "creating new attributes on C++ objects is not allowed"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Instance) and self._q is other._q

    def __hash__(self) -> int:
        return id(self._q)

    def __repr__(self) -> str:
        if not self._q.isWidgetType():
            return f"{class_name(self)} ({class_name(self)} at: {id(self._q):#x})"
        name = self._q.objectName()
        return f"{class_name(self)}({id(self._q):#x}" + (f', name="{name}"' if name else "") + ") "

    def connect(self, signature: str, slot: Callable) -> bool:
        """Connect a signal; False, without an error, where the class has none of that signature."""
        wanted = signature.replace(" ", "").replace("const", "").replace("&", "")
        if wanted not in (known.replace("&", "") for known in signatures(self, wanted.split("(")[0])):
            return False
        connections(self).setdefault(wanted, []).append((slot, attach(self._q, wanted, slot)))
        return True

    def disconnect(self, signature: str, slot: Callable | None = None) -> bool:
        """Undo `connect` for one slot, or for all of the signal."""
        wanted = signature.replace(" ", "")
        mine = connections(self).get(wanted, [])
        gone = [pair for pair in mine if slot is None or pair[0] == slot]
        for pair in gone:
            QtCore.QObject.disconnect(pair[1])
            mine.remove(pair)
        return bool(gone)

    def emit(self, signature: str, *arguments: Any) -> None:
        """Send a signal, as a call of it does."""
        getattr(self._q, signature.split("(")[0]).emit(*(unwrap(argument) for argument in arguments))


def raw(native: Any, arguments: tuple, label: str) -> Any:
    """Make the PySide object, unless there is one already."""
    if len(arguments) == 1 and isinstance(arguments[0], Existing):
        return arguments[0].native
    made = []
    call(lambda *given: made.append(native(*given)), arguments, {}, label)
    return made[0]


class Existing:
    """Marks an object that Qt made: its wrapper makes none."""

    def __init__(self, native: Any) -> None:
        self.native = native


def remember(wrapper: Any) -> None:
    """Keep one wrapper for each object, so that what Python adds to it stays."""
    if hasattr(wrapper._q, "__dict__"):
        wrapper._q.__dict__["_standin"] = wrapper


def wrapper_of(native: Any) -> Any:
    """Return the wrapper of a PySide object."""
    known = getattr(native, "__dict__", {}).get("_standin")
    if known is not None:
        return known
    if isinstance(native, QtCore.QObject):
        meta = native.metaObject()
        while meta.className() not in CUSTOM and native_class(meta.className()) is None:
            meta = meta.superClass()
        return qt_class(meta.className())(Existing(native))
    return qt_class(type(native).__name__)(Existing(native))


class ClassOfQt(type):
    """Class attributes: enumerators and static functions (QTimer.singleShot, QFileDialog.getOpenFileName)."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        api = class_api(cls.__name__)
        if api is not None and api.kind(name) == "constant":
            return constant(cls, name)
        if name in enumerators(cls._NATIVE):
            return enumerators(cls._NATIVE)[name]
        if name in ASKING.get(cls.__name__, ()):
            return functools.partial(ASK.ask, cls.__name__, name)
        function = getattr(cls._NATIVE, name, None)
        if function is None or (api is not None and api.kind(name) is None):
            raise AttributeError(f"type object '{cls.__name__}' has no attribute '{name}'")
        return builtin_qt_slot(cls.__name__, name, function)


@functools.cache
def qt_class(name: str) -> type:
    """Return the class of that name, as `qt`, `ctk` or `slicer` hold it."""
    native = CUSTOM.get(name) or native_class(name)
    if native is None:
        raise AttributeError(f"the stand-in for Slicer has no Qt class {name}")
    base = Instance if issubclass(native, QtCore.QObject) else Value
    return ClassOfQt(name, (base,), {"_NATIVE": native, "_GENERATED": name, "__doc__": f"{name} as PythonQt shows it."})


def waits(wrapper: Instance, name: str) -> bool:
    """Say whether the method would wait for the user."""
    return name in WAITING and isinstance(wrapper._q, (QtWidgets.QDialog, QtWidgets.QMenu))


def python_slot(wrapper: Instance, name: str) -> builtin_qt_slot:
    """Return a function of the stand-in as a slot of the object; one that would wait asks the test."""
    function = METHODS.get(name, lambda owner, *ignored: ASK.execute(owner, class_name(owner)))
    return plain_slot(class_name(wrapper), name, functools.partial(function, wrapper))
