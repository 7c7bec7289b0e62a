"""Values across the border between PySide6 and what PythonQt shows of it: enums are ints, lists are tuples."""

from __future__ import annotations

import contextlib
import enum
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets
from shiboken6 import Shiboken
from shibokensupport.signature import get_signature

MODULES = (QtCore, QtGui, QtWidgets, QtUiTools)
# enum types that PythonQt names after their flags
FLAG_NAMES = {"StandardButton": "StandardButtons"}


class EnumValue(int):
    """A number that knows the name of its C++ enum; `|` gives a plain int."""

    _native: Any = None

    def __repr__(self) -> str:
        return int.__repr__(self)


@functools.cache
def enum_class(name: str) -> type[EnumValue]:
    """Return the type of the values of a C++ enum."""
    return type(name, (EnumValue,), {})


def enum_value(native: enum.Enum) -> EnumValue:
    """Return a PySide enumerator as PythonQt shows it."""
    name = type(native).__name__
    shown = enum_class(FLAG_NAMES.get(name, name))(native.value)
    shown._native = native
    return shown


def native_class(name: str) -> Any:
    """Return PySide's class of that name, or None."""
    return next((getattr(module, name) for module in MODULES if hasattr(module, name)), None)


@functools.cache
def enumerators(native: Any) -> dict[str, EnumValue]:
    """Return all enumerators of a PySide class and its bases, as PythonQt flattens them."""
    found: dict[str, EnumValue] = {}
    for base in reversed(getattr(native, "__mro__", (native,))):
        for value in vars(base).values():
            if isinstance(value, enum.EnumMeta):
                found.update({key: enum_value(member) for key, member in value.__members__.items()})
    return found


def unwrap(value: Any) -> Any:
    """Return the PySide value of a stand-in value."""
    if isinstance(value, EnumValue):
        return int(value) if value._native is None else value._native
    if isinstance(value, (list, tuple)):
        return [unwrap(item) for item in value]
    return vars(value).get("_q", value) if hasattr(value, "__dict__") else value


def wrap(value: Any) -> Any:
    """Return a PySide value as PythonQt shows it."""
    if value is None or (isinstance(value, (bool, int, float, str, EnumValue)) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, enum.Enum):
        return enum_value(value)
    if isinstance(value, (list, tuple)):
        return tuple(wrap(item) for item in value)
    if isinstance(value, (QtCore.QObject, Shiboken.Object)):
        from .objects import wrapper_of

        return wrapper_of(value)
    return value


def call(function: Callable, arguments: Sequence[Any], keywords: dict[str, Any], label: str) -> Any:
    """Call a PySide function; plain ints become enums where it wants them, a refusal is PythonQt's ValueError."""
    given = [unwrap(argument) for argument in arguments]
    keywords = {key: unwrap(value) for key, value in keywords.items()}
    try:
        return wrap(function(*given, **keywords))
    except TypeError as error:
        for candidate in with_enums(function, given):
            with contextlib.suppress(TypeError):
                return wrap(function(*candidate, **keywords))
        shown = ", ".join(repr(argument) for argument in arguments)
        raise ValueError(
            f"Could not find matching overload for given arguments:\n({shown}) of {label}\n{error}"
        ) from None


def with_enums(function: Callable, given: list[Any]) -> list[list[Any]]:
    """Return the arguments with ints turned into the enums of each overload that has them."""
    signatures = get_signature(function)
    found = []
    for signature in signatures if isinstance(signatures, list) else [signatures]:
        if not isinstance(signature, inspect.Signature):
            continue
        parameters = [p for p in signature.parameters.values() if p.name != "self"]
        if len(parameters) >= len(given):
            found.append([as_enum(value, p.annotation) for value, p in zip(given, parameters, strict=False)])
    return found


def as_enum(value: Any, annotation: Any) -> Any:
    """Return an int as the enum that a parameter wants, anything else as it is."""
    if isinstance(annotation, enum.EnumMeta) and isinstance(value, int):
        with contextlib.suppress(ValueError):
            return annotation(value)
    return value
