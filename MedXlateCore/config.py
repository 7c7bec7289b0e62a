"""Configuration: plain mappings (TOML, JSON) to frozen dataclasses and back, with errors that name the key.

One reader serves the training files, the methods' architectures and recipes, and model cards. Nothing in a
configuration is ever executed: it holds numbers, texts, truth values, lists and tables only.

TOML has no null. Where a field may be ``None``, the text ``"none"`` stands for it.
"""

from __future__ import annotations

import difflib
import enum
import json
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from MedXlateCore.errors import MedXlateError, UsageError

__all__ = ["nearest", "parse_toml", "read_dataclass", "read_toml", "set_value", "to_mapping", "to_toml", "unknown_key"]

T = TypeVar("T")
NONE_TEXT = "none"
MAX_TOML_BYTES = 1 << 20


def read_dataclass(kind: type[T], mapping: Mapping[str, Any], where: str = "", base: T | None = None) -> T:
    """Build the frozen dataclass ``kind`` from a mapping, checking names and types on the way.

    Args:
        kind: a dataclass; fields may be bool, int, float, str, ``Literal``, enum, ``Path``, ``X | None``, ``tuple``,
            ``list``, ``dict[str, X]``, ``Any`` or another dataclass.
        mapping: keys are field names. Whole numbers are accepted for floats, never truth values for numbers.
        where: name of the table for messages, such as ``training.toml [model]``.
        base: take what the mapping leaves out from this object (a preset) instead of the defaults.

    Raises:
        UsageError: ``MX-USE-040`` (unknown key), ``MX-USE-041`` (wrong type), ``MX-USE-042`` (value not allowed),
            ``MX-USE-043`` (a required key is missing); or whatever the dataclass itself raises.
    """
    _expect(isinstance(mapping, Mapping), mapping, "a table", where)
    known = {f.name: f for f in fields(kind) if f.init}  # type: ignore[arg-type]
    for key in mapping:
        if key not in known:
            raise unknown_key(str(key), known, where)
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, fld in known.items():
        default = getattr(base, name) if base is not None else _default(fld)
        if name in mapping:
            values[name] = _convert(hints[name], mapping[name], _join(where, name), default)
        elif default is MISSING:
            raise UsageError(
                "MX-USE-043", f"the key '{name}' is missing", expected=_describe(hints[name]), where=where, fix="add it"
            )
        else:
            values[name] = default
    try:
        return kind(**values)
    except MedXlateError as error:
        error.where = error.where or where
        raise


def to_mapping(obj: Any) -> Any:
    """Return a dataclass (or any value in one) as plain JSON-able data: dicts, lists, numbers, texts, None."""
    if is_dataclass(obj) and not isinstance(obj, type):
        return {f.name: to_mapping(getattr(obj, f.name)) for f in fields(obj) if f.init}
    if isinstance(obj, Mapping):
        return {str(key): to_mapping(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [to_mapping(value) for value in obj]
    if isinstance(obj, enum.Enum):
        return obj.value
    return str(obj) if isinstance(obj, Path) else obj


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UsageError: ``MX-USE-044``, the file is missing, too large, not UTF-8 or not TOML.
    """
    problem = ""
    data = b""
    try:
        if path.stat().st_size > MAX_TOML_BYTES:
            problem = f"it has {path.stat().st_size} bytes"
        else:
            data = path.read_bytes()
    except OSError as error:
        problem = str(error.strerror or error)
    if problem:
        raise UsageError(
            "MX-USE-044",
            f"the configuration cannot be read: {problem}",
            expected=f"a TOML file of at most {MAX_TOML_BYTES} bytes",
            where=str(path),
            fix="check the path and its permissions",
        )
    return parse_toml(data, str(path))


def parse_toml(data: bytes, where: str) -> dict[str, Any]:
    """Parse TOML text; ``where`` names it in messages.

    Raises:
        UsageError: ``MX-USE-044``, not UTF-8 or not TOML.
    """
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            "MX-USE-044",
            f"the configuration is not valid TOML: {error}",
            expected="UTF-8 text in TOML format",
            where=where,
            fix="correct the line that the message names",
        ) from error


def set_value(mapping: dict[str, Any], assignment: str) -> None:
    """Apply one ``table.key=value`` override in place; the value is read as TOML, or as text if it is not TOML.

    Raises:
        UsageError: ``MX-USE-045``, no ``=``, an empty name, or a path through something that is not a table.
    """
    name, sign, text = assignment.partition("=")
    keys = [key.strip() for key in name.split(".")]
    if not sign or not all(keys):
        raise UsageError(
            "MX-USE-045",
            f"the override '{assignment}' cannot be read",
            expected="table.key=value, such as training.steps=100",
            where="--set",
            fix="write the name, an equals sign and the value without spaces",
        )
    table = mapping
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise UsageError(
                "MX-USE-045",
                f"the override '{assignment}' goes through '{key}', which holds the value {table!r}",
                expected="the name of a table",
                where="--set",
                fix="leave out the last part of the name",
            )
    try:
        table[keys[-1]] = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        table[keys[-1]] = text.strip()


def to_toml(mapping: Mapping[str, Any]) -> str:
    """Return plain data as TOML text that ``read_toml`` reads back to the same values (None becomes ``"none"``)."""
    return "\n".join(_toml_table(mapping, ())).strip() + "\n"


def unknown_key(key: str, known: Iterable[str], where: str) -> UsageError:
    """Return the error for a key nobody reads, naming the nearest valid one."""
    names = sorted(known)
    return UsageError(
        "MX-USE-040",
        f"the key '{key}' is not known",
        expected=f"one of {', '.join(names)}" if names else "no keys here",
        where=where,
        fix=f"did you mean '{guess}'?" if (guess := nearest(key, names)) else "remove it or correct its name",
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word closest in spelling, or an empty text if none is close."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.55)
    return by_lower[close[0]] if close else ""


def _default(fld: Field[Any]) -> Any:
    if fld.default is not MISSING:
        return fld.default
    return fld.default_factory() if fld.default_factory is not MISSING else MISSING


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _expect(condition: bool, value: Any, expected: str, where: str) -> None:
    if not condition:
        raise UsageError(
            "MX-USE-041",
            f"the value {value!r} is of the wrong type ({type(value).__name__})",
            expected=expected,
            where=where,
            fix="give a value of the expected type",
        )


def _describe(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, args))
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(arg) for arg in args)
    if origin is tuple and args[-1] is not Ellipsis:
        return f"a list of {len(args)} values ({', '.join(_describe(arg) for arg in args)})"
    if origin in (tuple, list):
        return f"a list of {_describe(args[0])} values"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "one of " + ", ".join(repr(member.value) for member in hint)
    if origin is dict or (isinstance(hint, type) and is_dataclass(hint)):
        return "a table"
    names = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        type(None): f'"{NONE_TEXT}"',
    }
    return names.get(hint, str(hint))


def _convert(hint: Any, value: Any, where: str, default: Any = MISSING) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(hint, args, value, where, default)
    if origin is Literal:
        if value not in args or type(value) not in {type(arg) for arg in args}:
            raise _not_allowed(value, [str(arg) for arg in args], where)
        return value
    if origin in (tuple, list):
        return _convert_sequence(hint, origin, args, value, where)
    if origin is dict:
        _expect(isinstance(value, Mapping), value, "a table", where)
        return {str(key): _convert(args[1], item, _join(where, str(key))) for key, item in value.items()}
    if isinstance(hint, type) and is_dataclass(hint):
        if isinstance(value, hint):
            return value
        return read_dataclass(hint, value, where, base=default if isinstance(default, hint) else None)
    return _convert_scalar(hint, value, where)


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        names = [str(member.value) for member in hint]
        if not isinstance(value, str) or value not in names:
            raise _not_allowed(value, names, where)
        return hint(value)
    if hint is Path:
        _expect(isinstance(value, (str, Path)), value, "a path", where)
        return Path(value)
    if hint is float:
        _expect(isinstance(value, (int, float)) and not isinstance(value, bool), value, "a number", where)
        if not math.isfinite(value):
            raise _not_allowed(value, ["a finite number"], where)
        return float(value)
    _expect(type(value) is hint, value, _describe(hint), where)
    return value


def _convert_union(hint: Any, args: tuple[Any, ...], value: Any, where: str, default: Any) -> Any:
    if type(None) in args and value in (None, NONE_TEXT):
        return None
    others = [arg for arg in args if arg is not type(None)]
    if len(others) == 1:
        return _convert(others[0], value, where, default)
    for arg in others:
        try:
            return _convert(arg, value, where, default)
        except UsageError:
            continue
    _expect(False, value, _describe(hint), where)
    return None


def _convert_sequence(hint: Any, origin: type, args: tuple[Any, ...], value: Any, where: str) -> Any:
    _expect(isinstance(value, (list, tuple)), value, _describe(hint), where)
    if origin is list or args[-1] is Ellipsis:
        kinds = [args[0]] * len(value)
    else:
        kinds = list(args)
        _expect(len(value) == len(kinds), value, _describe(hint), where)
    return origin(
        _convert(kind, item, f"{where}[{n}]") for n, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _not_allowed(value: Any, allowed: list[str], where: str) -> UsageError:
    guess = nearest(str(value), allowed)
    return UsageError(
        "MX-USE-042",
        f"the value {value!r} is not allowed",
        expected=f"one of {', '.join(allowed)}",
        where=where,
        fix=f"did you mean '{guess}'?" if guess else "choose one of the expected values",
    )


def _toml_table(mapping: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    tables = {key: value for key, value in mapping.items() if isinstance(value, Mapping)}
    lines = [f"{_toml_key(key)} = {_toml_value(value)}" for key, value in mapping.items() if key not in tables]
    if path and (lines or not tables):
        lines.insert(0, f"[{'.'.join(map(_toml_key, path))}]")
    if lines:
        lines.append("")
    for key, value in tables.items():
        lines += _toml_table(value, (*path, key))
    return lines


def _toml_key(key: str) -> str:
    bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if bare else _toml_text(key)


def _toml_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml_value(value: Any) -> str:
    if value is None:
        return f'"{NONE_TEXT}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_toml_key(k)} = {_toml_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, str):
        return _toml_text(value)
    return repr(value)
