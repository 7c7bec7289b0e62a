"""QSettings in memory: what a test stores is gone after it."""

from __future__ import annotations

from typing import Any

from .strict import Strict


class QSettings(Strict):
    """The application's settings; all objects over one store see the same values."""

    _API = "QSettings"

    def __init__(self, store: dict[str, Any]) -> None:
        super().__init__()
        self._store, self._groups = store, []

    def _key(self, key: str) -> str:
        return "/".join([*self._groups, key.strip("/")])

    def _below(self) -> list[str]:
        prefix = "".join(f"{group}/" for group in self._groups)
        return sorted(key[len(prefix) :] for key in self._store if key.startswith(prefix))

    def value(self, key: str, default: Any = None) -> Any:
        """Return the value of the key, or the default."""
        return self._store.get(self._key(key), default)

    def setValue(self, key: str, value: Any) -> None:
        """Store a value."""
        self._store[self._key(key)] = tuple(value) if isinstance(value, list) else value

    def contains(self, key: str) -> bool:
        """Say whether the key has a value."""
        return self._key(key) in self._store

    def remove(self, key: str) -> None:
        """Forget the key and all below it; the empty key stands for the group."""
        full = self._key(key).rstrip("/")
        for stored in [k for k in self._store if k == full or k.startswith(f"{full}/") or not full]:
            del self._store[stored]

    def beginGroup(self, group: str) -> None:
        """Put a group before the keys that follow."""
        self._groups.append(group.strip("/"))

    def endGroup(self) -> None:
        """Leave the group."""
        self._groups.pop()

    def group(self) -> str:
        """Return the current group."""
        return "/".join(self._groups)

    def allKeys(self) -> tuple[str, ...]:
        """Return all keys of the group."""
        return tuple(self._below())

    def childKeys(self) -> tuple[str, ...]:
        """Return the keys right below the group."""
        return tuple(key for key in self._below() if "/" not in key)

    def childGroups(self) -> tuple[str, ...]:
        """Return the groups right below the group."""
        return tuple(dict.fromkeys(key.split("/")[0] for key in self._below() if "/" in key))

    def clear(self) -> None:
        """Forget everything."""
        self._store.clear()

    def sync(self) -> None:
        """Do nothing: there is no file."""


class ctkSettings(QSettings):
    """What slicer.app gives out."""
