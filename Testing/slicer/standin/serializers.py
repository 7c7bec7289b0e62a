"""How typed values are kept in a vtkMRMLScriptedModuleNode: texts under names, nodes as references."""

from __future__ import annotations

import enum
import types
from collections.abc import MutableMapping, MutableSequence
from pathlib import Path, PurePath
from typing import Any, Union, get_args, get_origin

import slicer
import slicer.util

from .validators import IsInstance, NotNone, Validator, splitAnnotations


class Serializer:
    """Keeps one type of value as text."""

    accepts: Any = object

    def __init__(self, kind: Any = str) -> None:
        self.kind = kind
        self.validators: list[Validator] = []

    def validate(self, value: Any) -> None:
        """Raise where a validator refuses the value."""
        for validator in self.validators:
            validator.validate(value)

    def default(self) -> Any:
        """Return the value of a parameter without a default of its own."""
        return self.kind()

    def to_text(self, value: Any) -> str:
        """Return the value as text."""
        return str(value)

    def from_text(self, text: str) -> Any:
        """Return the value of a text."""
        return self.kind(text)

    def isIn(self, node: Any, name: str) -> bool:
        """Say whether the node holds a value."""
        return node.HasParameter(name)

    def write(self, node: Any, name: str, value: Any) -> None:
        """Keep the value."""
        self.validate(value)
        node.SetParameter(name, self.to_text(value))

    def read(self, node: Any, name: str) -> Any:
        """Return the value."""
        return self.from_text(node.GetParameter(name))

    def remove(self, node: Any, name: str) -> None:
        """Forget the value."""
        node.UnsetParameter(name)


class BoolSerializer(Serializer):
    """True and False."""

    def from_text(self, text: str) -> bool:
        """Return the truth value of the text."""
        return text == "True"


class EnumSerializer(Serializer):
    """Members by name."""

    def default(self) -> Any:
        """Return the first member."""
        return next(iter(self.kind))

    def to_text(self, value: Any) -> str:
        """Return the member's name."""
        return value.name

    def from_text(self, text: str) -> Any:
        """Return the member of that name."""
        return self.kind[text]


class NodeSerializer(Serializer):
    """Nodes as references; the empty parameter of the same name says that one was set."""

    def default(self) -> None:
        """Return None."""

    def write(self, node: Any, name: str, value: Any) -> None:
        """Keep a reference."""
        self.validate(value)
        with slicer.util.NodeModify(node):
            node.SetParameter(name, "")
            node.SetNodeReferenceID(name, None if value is None else value.GetID())

    def read(self, node: Any, name: str) -> Any:
        """Return the node, None where it is gone."""
        return node.GetNodeReference(name)

    def remove(self, node: Any, name: str) -> None:
        """Forget the reference."""
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


class ObservedList(MutableSequence):
    """A list that writes itself back at every change."""

    def __init__(self, values: list, save: Any) -> None:
        self._list, self._save = values, save

    def __repr__(self) -> str:
        return f"ObservedList({self._list})"

    def __eq__(self, other: object) -> bool:
        return self._list == (other._list if isinstance(other, ObservedList) else other)

    __hash__ = None

    def __len__(self) -> int:
        return len(self._list)

    def __getitem__(self, index: Any) -> Any:
        return self._list[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._list[index] = value
        self._save(self._list)

    def __delitem__(self, index: Any) -> None:
        del self._list[index]
        self._save(self._list)

    def insert(self, index: int, value: Any) -> None:
        """Put a value in and write the list back."""
        self._list.insert(index, value)
        self._save(self._list)


class ObservedDict(MutableMapping):
    """A dictionary that writes itself back at every change."""

    def __init__(self, values: dict, save: Any) -> None:
        self._dict, self._save = values, save

    def __repr__(self) -> str:
        return f"ObservedDict({self._dict})"

    def __eq__(self, other: object) -> bool:
        return self._dict == (other._dict if isinstance(other, ObservedDict) else other)

    __hash__ = None

    def __len__(self) -> int:
        return len(self._dict)

    def __iter__(self) -> Any:
        return iter(self._dict)

    def __getitem__(self, key: Any) -> Any:
        return self._dict[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._dict[key] = value
        self._save(self._dict)

    def __delitem__(self, key: Any) -> None:
        del self._dict[key]
        self._save(self._dict)


class TupleSerializer(Serializer):
    """Tuples, an entry under each index."""

    def __init__(self, parts: list[Serializer]) -> None:
        super().__init__(tuple)
        self.parts = parts

    def default(self) -> tuple:
        """Return the parts' defaults."""
        return tuple(part.default() for part in self.parts)

    def isIn(self, node: Any, name: str) -> bool:
        """Say whether the first entry is there."""
        return self.parts[0].isIn(node, f"{name}_0")

    def write(self, node: Any, name: str, value: Any) -> None:
        """Keep every entry."""
        self.validate(value)
        with slicer.util.NodeModify(node):
            for index, (part, item) in enumerate(zip(self.parts, value, strict=True)):
                part.write(node, f"{name}_{index}", item)

    def read(self, node: Any, name: str) -> tuple:
        """Return the tuple."""
        return tuple(part.read(node, f"{name}_{index}") for index, part in enumerate(self.parts))

    def remove(self, node: Any, name: str) -> None:
        """Forget every entry."""
        for index, part in enumerate(self.parts):
            part.remove(node, f"{name}_{index}")


class ListSerializer(Serializer):
    """Lists: the length and an entry under each index."""

    def __init__(self, part: Serializer) -> None:
        super().__init__(list)
        self.part = part

    def isIn(self, node: Any, name: str) -> bool:
        """Say whether there is a length."""
        return node.HasParameter(f"{name}_len")

    def write(self, node: Any, name: str, value: Any) -> None:
        """Keep all entries; one that is refused leaves the list as it was."""
        self.validate(value)
        values = list(value)
        for item in values:
            self.part.validate(item)
        with slicer.util.NodeModify(node):
            self.remove(node, name)
            for index, item in enumerate(values):
                self.part.write(node, f"{name}_{index}", item)
            node.SetParameter(f"{name}_len", str(len(values)))

    def entries(self, node: Any, name: str) -> list:
        """Return the entries as a plain list."""
        length = int(node.GetParameter(f"{name}_len") or 0)
        return [self.part.read(node, f"{name}_{index}") for index in range(length)]

    def read(self, node: Any, name: str) -> Any:
        """Return the list; changes of it are written back."""
        return ObservedList(self.entries(node, name), lambda values: self.write(node, name, values))

    def remove(self, node: Any, name: str) -> None:
        """Forget all entries."""
        for index in range(int(node.GetParameter(f"{name}_len") or 0)):
            self.part.remove(node, f"{name}_{index}")
        node.UnsetParameter(f"{name}_len")


class DictSerializer(ListSerializer):
    """Dictionaries as lists of pairs."""

    def __init__(self, key: Serializer, value: Serializer) -> None:
        super().__init__(TupleSerializer([key, value]))
        self.kind = dict

    def write(self, node: Any, name: str, value: Any) -> None:
        """Keep all pairs."""
        super().write(node, name, dict(value).items())

    def read(self, node: Any, name: str) -> Any:
        """Return the dictionary; changes of it are written back."""
        return ObservedDict(dict(self.entries(node, name)), lambda values: self.write(node, name, values))


class UnionSerializer(Serializer):
    """One of several types, each under its index; None is a type of its own."""

    def __init__(self, kinds: tuple) -> None:
        super().__init__(None)
        self.kinds = kinds
        self.parts = [None if kind is type(None) else serializer_for(kind) for kind in kinds]

    def default(self) -> Any:
        """Return None where that is allowed, else the first type's default."""
        return None if None in self.parts else self.parts[0].default()

    def _fitting(self, value: Any) -> int:
        for index, part in enumerate(self.parts):
            if part is None:
                if value is None:
                    return index
                continue
            try:
                part.validate(value)
            except (TypeError, ValueError):
                continue
            if value is not None or isinstance(part, NodeSerializer):
                return index
        raise TypeError(f"Unable to write value '{value}' of type '{type(value)}'")

    def isIn(self, node: Any, name: str) -> bool:
        """Say whether a value of any type is there."""
        return any(self._has(node, name, index) for index in range(len(self.parts)))

    def _has(self, node: Any, name: str, index: int) -> bool:
        part = self.parts[index]
        return node.HasParameter(f"{name}_{index}") if part is None else part.isIn(node, f"{name}_{index}")

    def write(self, node: Any, name: str, value: Any) -> None:
        """Keep the value under its type's index only."""
        index = self._fitting(value)
        with slicer.util.NodeModify(node):
            self.remove(node, name)
            if self.parts[index] is None:
                node.SetParameter(f"{name}_{index}", "True")
            else:
                self.parts[index].write(node, f"{name}_{index}", value)

    def read(self, node: Any, name: str) -> Any:
        """Return the value."""
        for index, part in enumerate(self.parts):
            if self._has(node, name, index):
                return None if part is None else part.read(node, f"{name}_{index}")
        return self.default()

    def remove(self, node: Any, name: str) -> None:
        """Forget the value."""
        for index, part in enumerate(self.parts):
            if part is None:
                node.UnsetParameter(f"{name}_{index}")
            elif part.isIn(node, f"{name}_{index}"):
                part.remove(node, f"{name}_{index}")


def plain_serializer(kind: Any) -> tuple[Serializer, list[Validator]]:
    """Return the serializer of a type that is one value, and its own validators."""
    if kind is bool:
        return BoolSerializer(bool), [NotNone(), IsInstance(bool)]
    if kind in (int, float):
        return Serializer(kind), [NotNone(), IsInstance((int, float) if kind is float else int)]
    if kind is str or (isinstance(kind, type) and issubclass(kind, PurePath)):
        return Serializer(kind), [NotNone(), IsInstance(Path if kind is Path else kind)]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return EnumSerializer(kind), [NotNone(), IsInstance(kind)]
    if isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode):
        return NodeSerializer(kind), [IsInstance(kind)]
    raise TypeError(f"Unable to create serializer for type: {kind}")


def serializer_for(annotated: Any) -> Serializer:
    """Return the serializer of a type, with the validators of its annotations."""
    kind, annotations = splitAnnotations(annotated)
    origin, parts = get_origin(kind), get_args(kind)
    validators: list[Validator] = []
    if origin is list:
        serializer: Serializer = ListSerializer(serializer_for(parts[0]))
    elif origin is tuple:
        serializer = TupleSerializer([serializer_for(part) for part in parts])
    elif origin is dict:
        serializer = DictSerializer(serializer_for(parts[0]), serializer_for(parts[1]))
    elif origin in (Union, types.UnionType):
        serializer = UnionSerializer(parts)
    elif hasattr(kind, "_pack_serializer"):
        serializer = kind._pack_serializer()
    else:
        serializer, validators = plain_serializer(kind)
    serializer.validators = [*validators, *(a for a in annotations if isinstance(a, Validator))]
    return serializer
