"""Objects of the application written in plain Python, with the attribute rules of their golden record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .api import class_api


class Signals:
    """Connections by signature, as `object.connect("changed(int)", f)` makes them."""

    def __init__(self) -> None:
        self._slots: dict[str, list[Callable]] = {}

    def add(self, signature: str, slot: Callable) -> None:
        """Call `slot` whenever the signal of that signature is emitted."""
        self._slots.setdefault(signature, []).append(slot)

    def drop(self, signature: str, slot: Callable | None = None) -> bool:
        """Forget one slot, or all of a signal; say whether there was one."""
        kept = [] if slot is None else [s for s in self._slots.get(signature, []) if s != slot]
        dropped = len(kept) < len(self._slots.get(signature, []))
        self._slots[signature] = kept
        return dropped

    def emit(self, signature: str, *arguments: Any) -> None:
        """Call the slots of the signal in the order they were connected."""
        for slot in list(self._slots.get(signature, [])):
            slot(*trimmed(slot, arguments))


def trimmed(slot: Callable, arguments: tuple) -> tuple:
    """Return as many of a signal's arguments as the slot takes: PythonQt drops the rest."""
    code = getattr(getattr(slot, "__func__", slot), "__code__", None)
    if code is None or code.co_flags & 0x04:
        return arguments
    takes = code.co_argcount - (1 if hasattr(slot, "__self__") else 0)
    return arguments[: max(takes, 0)]


class Strict:
    """Base of stand-ins without a widget: a name outside the golden record of the class raises AttributeError.

    Subclasses implement the names they need; one that the real class has and they lack raises NotImplementedError.
    """

    _API = ""

    def __init__(self) -> None:
        object.__setattr__(self, "_signals", Signals())

    def __getattr__(self, name: str) -> Any:
        api = class_api(self._API)
        if name.startswith("_") or api is None or api.kind(name) is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if api.kind(name) == "signal":
            return BoundSignal(self, api.signals[name][-1])
        raise NotImplementedError(f"the stand-in for Slicer lacks {self._API}.{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and not isinstance(getattr(type(self), name, None), property):
            raise AttributeError(f"{type(self).__name__}: attribute {name!r} does not exist or is not writable")
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name} ({name} at: {id(self):#x})"

    def connect(self, signature: str, slot: Callable) -> bool:
        """Connect a signal; False where the class has no such signal, as PythonQt does."""
        api = class_api(self._API)
        wanted = signature.replace(" ", "")
        if api is None or wanted not in api.signals.get(wanted.split("(")[0], ()):
            return False
        self._signals.add(wanted, slot)
        return True

    def disconnect(self, signature: str, slot: Callable | None = None) -> bool:
        """Undo `connect`."""
        return self._signals.drop(signature.replace(" ", ""), slot)

    def className(self) -> str:
        """Return the name of the C++ class."""
        return type(self).__name__


class BoundSignal:
    """A signal as an attribute: `object.changed.connect(f)`."""

    def __init__(self, owner: Any, signature: str) -> None:
        self._owner, self._signature = owner, signature

    def connect(self, slot: Callable) -> bool:
        """Connect the slot."""
        return self._owner.connect(self._signature, slot)

    def disconnect(self, slot: Callable | None = None) -> bool:
        """Disconnect the slot, or all."""
        return self._owner.disconnect(self._signature, slot)
