"""How attributes of Qt objects are read, written, called and connected, by the rules of PythonQt."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from PySide6 import QtCore
from shiboken6 import Shiboken

from .api import ClassApi, class_api
from .strict import trimmed
from .values import EnumValue, call, enum_class, enumerators, native_class, unwrap, wrap

# signals that Qt 6 names otherwise
RENAMED_SIGNALS = {
    "activated(QString)": "textActivated(QString)",
    "highlighted(QString)": "textHighlighted(QString)",
    "currentIndexChanged(QString)": "currentTextChanged(QString)",
    "valueChanged(QString)": "textChanged(QString)",
    "buttonClicked(int)": "idClicked(int)",
    "buttonToggled(int,bool)": "idToggled(int,bool)",
}
RENAMED_METHODS = {"exec_": "exec"}
# C++ types that a Python value of these types may be stored in; anything else is handed to Qt as it is
ACCEPTED = {"QString": (str,), "bool": (bool, int), "int": (int, float), "double": (int, float), "float": (int, float)}


class builtin_qt_slot:
    """A method of a Qt object, as an attribute gives it."""

    def __init__(self, owner: str, name: str, function: Callable) -> None:
        self._owner, self.__name__, self._function = owner, name, function

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return call(self._function, arguments, keywords, f"{self._owner}.{self.__name__}")

    def __repr__(self) -> str:
        return f"<qt slot {self.__name__} of {self._owner} instance>"


def subclassed(wrapper: Any) -> bool:
    """Say whether the object's class was derived in Python: its instances may have attributes of their own."""
    return "_GENERATED" not in vars(type(wrapper))


def class_name(wrapper: Any) -> str:
    """Return the name of the C++ class."""
    return type(wrapper)._GENERATED


def kind_of(wrapper: Any, name: str) -> str | None:
    """Return "property", "constant", "signal", "method" or None."""
    api: ClassApi | None = class_api(class_name(wrapper))
    if api is not None:
        return "method" if api.kind(name) is None and name in RENAMED_METHODS else api.kind(name)
    if name == "name" or wrapper._q.metaObject().indexOfProperty(name) >= 0:
        return "property"
    if name in enumerators(type(wrapper)._NATIVE):
        return "constant"
    if signatures(wrapper, name):
        return "signal"
    return "method" if name in METHODS or hasattr(wrapper._q, name) else None


def signatures(wrapper: Any, name: str) -> tuple[str, ...]:
    """Return the signatures of a signal."""
    api = class_api(class_name(wrapper))
    if api is not None:
        return api.signals.get(name, ())
    meta = wrapper._q.metaObject()
    methods = (meta.method(index) for index in range(meta.methodCount()))
    texts = (
        m.methodSignature().data().decode() for m in methods if m.methodType() == QtCore.QMetaMethod.MethodType.Signal
    )
    return tuple(text for text in texts if text.split("(")[0] == name)


def constant(cls: type, name: str) -> EnumValue:
    """Return an enumerator; its type is named as the golden record says."""
    api = class_api(cls._GENERATED)
    for native in (
        cls._NATIVE,
        *(native_class(n) for n in ("QDir", "QFileDialog", "QComboBox", "QFrame", "QMessageBox")),
    ):
        if name in enumerators(native):
            found = enumerators(native)[name]
            shown = enum_class(api.types[name].split(":")[-1] if api else type(found).__name__)(int(found))
            shown._native = found._native
            return shown
    raise NotImplementedError(f"the stand-in for Slicer lacks the enumerator {cls.__name__}.{name}")


def read_property(wrapper: Any, name: str) -> Any:
    """Return the value of a property."""
    native = wrapper._q
    name = "objectName" if name == "name" else name
    if native.metaObject().indexOfProperty(name) >= 0:
        return wrap(native.property(name))
    getter = getattr(native, name, None)
    if getter is None:
        raise NotImplementedError(f"the stand-in for Slicer lacks {class_name(wrapper)}.{name}")
    return wrap(getter())


def write_property(wrapper: Any, name: str, value: Any) -> None:
    """Set a property, refusing what its C++ type cannot hold."""
    native, api = wrapper._q, class_api(class_name(wrapper))
    name = "objectName" if name == "name" else name
    if api is not None:
        accepted = ACCEPTED.get(api.types[name])
        if name not in api.writable:
            raise AttributeError(f"Property '{name}' of {class_name(wrapper)} object is not writable")
        if accepted and not isinstance(value, accepted):
            given = f"{type(value).__name__} ({value})"
            raise AttributeError(
                f"Property '{name}' of type '{api.types[name]}' does not accept an object of type {given}"
            )
        value = int(value) if api.types[name] == "int" else value
    if native.metaObject().indexOfProperty(name) < 0:
        native_method(wrapper, f"set{name[0].upper()}{name[1:]}")(unwrap(value))
    elif not native.setProperty(name, int(value) if isinstance(value, EnumValue) else unwrap(value)):
        raise AttributeError(f"Property '{name}' of {class_name(wrapper)} does not accept {value!r}")


def native_method(wrapper: Any, name: str) -> Callable:
    """Return PySide's method; a setter of a property that has none sets the property."""
    native, wanted = wrapper._q, RENAMED_METHODS.get(name, name)
    if hasattr(native, wanted):
        return getattr(native, wanted)
    key = name[3:4].lower() + name[4:]
    if name.startswith("set") and native.metaObject().indexOfProperty(key) >= 0:
        return lambda value: native.setProperty(key, value) and None
    return lacking(class_name(wrapper), name)


def lacking(label: str, name: str) -> Callable:
    """Return a function that says what the stand-in lacks."""

    def refuse(*arguments: Any) -> None:
        raise NotImplementedError(f"the stand-in for Slicer lacks {label}.{name}")

    return refuse


def connections(wrapper: Any) -> dict[str, list]:
    """Return what was connected to the object, by signature."""
    return vars(wrapper).setdefault("_connections", {})


def attach(native: Any, signature: str, slot: Callable) -> Any:
    """Connect a Python slot to a signal of a PySide object; return Qt's connection."""
    known = re.sub(r"vtk\w+\*", "PyObject", signature)
    if native.metaObject().indexOfSignal(known) < 0:
        known = RENAMED_SIGNALS.get(signature, known)
    if native.metaObject().indexOfSignal(known) < 0:
        raise NotImplementedError(f"the stand-in for Slicer lacks the signal {signature} of {type(native).__name__}")

    def run(*arguments: Any) -> None:
        given = tuple(wrap(argument) for argument in arguments)
        slot(*(given if not isinstance(slot, builtin_qt_slot) else given[: slot_arity(slot, given)]))

    def run_trimmed(*arguments: Any) -> None:
        slot(*trimmed(slot, tuple(wrap(argument) for argument in arguments)))

    chosen = run if isinstance(slot, builtin_qt_slot) else run_trimmed
    # the signal object tells PySide how many arguments to pass on, a bare *arguments function gets all
    return QtCore.QObject.connect(native, QtCore.SIGNAL(known), chosen)


def slot_arity(slot: builtin_qt_slot, given: tuple) -> int:
    """Return how many of the arguments a Qt slot takes: all where a setter, none otherwise."""
    return len(given) if slot.__name__.startswith("set") else 0


class plain_slot(builtin_qt_slot):
    """A slot written in Python: takes and gives stand-in values."""

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


plain_slot.__name__ = "builtin_qt_slot"


def _matching(wrapper: Any, kind: Any, name: str | None) -> tuple:
    wanted = kind if isinstance(kind, str) else kind._GENERATED
    found = [child for child in wrapper._q.findChildren(QtCore.QObject) if name in (None, "", child.objectName())]
    return tuple(wrap(child) for child in found if child.inherits(wanted))


def _find_child(wrapper: Any, kind: Any, name: str | None = None) -> Any:
    return next(iter(_matching(wrapper, kind, name)), None)


def _delete(wrapper: Any) -> None:
    Shiboken.delete(wrapper._q)


METHODS: dict[str, Callable] = {
    "className": class_name,
    "children": lambda wrapper: wrap(wrapper._q.children()),
    "findChild": _find_child,
    "findChildren": lambda wrapper, kind, name=None: _matching(wrapper, kind, name),
    "inherits": lambda wrapper, name: wrapper._q.inherits(name),
    "property": lambda wrapper, name: wrap(wrapper._q.property(name)),
    "setProperty": lambda wrapper, name, value: wrapper._q.setProperty(name, unwrap(value)),
    "delete": _delete,
}
