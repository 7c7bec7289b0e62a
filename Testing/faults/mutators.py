"""Deterministic damage to files, as disks, networks and programs do it. Every mutation follows from its seed."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

__all__ = ["MUTATORS", "garble_nifti_header", "mutate", "mutate_json", "mutate_safetensors"]

Mutator = Callable[[bytes, np.random.Generator, bytes], bytes]


def flip_bits(data: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Flip one to three bits anywhere."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        out[int(rng.integers(len(out)))] ^= 1 << int(rng.integers(8))
    return bytes(out)


def flip_body_bit(data: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Flip one bit behind the first 20 bytes, where the payload is."""
    out = bytearray(data)
    out[int(rng.integers(min(20, len(out) - 1), len(out)))] ^= 1 << int(rng.integers(8))
    return bytes(out)


def truncate(data: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Cut the end off; half of the time only a few bytes."""
    if rng.random() < 0.5:
        return data[: len(data) - int(rng.integers(1, min(12, len(data))))]
    return data[: int(rng.integers(1, len(data)))]


def drop_block(data: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Leave a block out."""
    start, stop = _block(data, rng)
    return data[:start] + data[stop:]


def repeat_block(data: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Have a block twice."""
    start, stop = _block(data, rng)
    return data[:stop] + data[start:]


def zero_block(data: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Turn a block into zeros, as a lost disk sector."""
    start, stop = _block(data, rng)
    return data[:start] + bytes(stop - start) + data[stop:]


def random_block(data: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Turn a block into noise."""
    start, stop = _block(data, rng)
    return data[:start] + rng.bytes(stop - start) + data[stop:]


def insert_noise(data: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Insert a few random bytes."""
    at = int(rng.integers(len(data)))
    return data[:at] + rng.bytes(int(rng.integers(1, 40))) + data[at:]


def splice(data: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Begin as one file and end as another."""
    return data[: int(rng.integers(1, len(data)))] + other[int(rng.integers(1, len(other))) :]


def append_noise(data: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Have bytes behind the end."""
    return data + rng.bytes(int(rng.integers(1, 100)))


MUTATORS: tuple[Mutator, ...] = (
    flip_bits,
    flip_body_bit,
    truncate,
    drop_block,
    repeat_block,
    zero_block,
    random_block,
    insert_noise,
    splice,
    append_noise,
)


def mutate(data: bytes, seed: int, other: bytes) -> tuple[str, bytes]:
    """Return the mutation's name and the damaged bytes; ``other`` is a second file for splices."""
    rng = np.random.default_rng(seed)
    mutator = MUTATORS[seed % len(MUTATORS)]
    return mutator.__name__, mutator(data, rng, other)


def garble_nifti_header(data: bytes, seed: int) -> bytes:
    """Put an extreme value into one to three fields of an uncompressed NIfTI-1 file, or flip header bits."""
    rng = np.random.default_rng(seed)
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        if rng.random() < 0.3:
            out[int(rng.integers(348))] ^= 1 << int(rng.integers(8))
            continue
        offset, form = _FIELDS[int(rng.integers(len(_FIELDS)))]
        values = _FLOATS if form == "f" else _SHORTS if form == "h" else _INTS
        struct.pack_into("<" + form, out, offset, values[int(rng.integers(len(values)))])
    return bytes(out)


_INTS = (0, 1, -1, 348, 540, 2**31 - 1, -(2**31))
_SHORTS = (0, 1, 2, -1, 3, 4, 7, 8, 16, 64, 255, 32767, -32768, 128, 1024)
_FLOATS = (0.0, -1.0, 1.0, 1e-30, 1e30, 3.4e38, float("nan"), float("inf"), float("-inf"), 352.0, 1e6)
_FIELDS = (
    [(0, "i"), (70, "h"), (72, "h"), (252, "h"), (254, "h"), (120, "h"), (344, "i")]
    + [(40 + 2 * n, "h") for n in range(8)]
    + [(76 + 4 * n, "f") for n in range(8)]
    + [(offset, "f") for offset in (108, 112, 116)]
    + [(256 + 4 * n, "f") for n in range(18)]
)


def _block(data: bytes, rng: np.random.Generator) -> tuple[int, int]:
    start = int(rng.integers(len(data)))
    return start, min(len(data), start + int(rng.integers(1, 65)))


# --- JSON ----------------------------------------------------------------------------------------------------------

_RAW = "@raw@"  # stands where text goes that json.dumps would not write
_RAW_TEXTS = (
    "NaN", "Infinity", "-Infinity", "1e999", "9" * 400, "9" * 5000, "-0", "01", "+1", "0x10", "1_000", "'a'", "True",
    "[" * 50 + "]" * 50, "[" * 5000, '{"a":' * 300 + "1" + "}" * 300, "undefined", '"\\x41"', '"\\ud800"',
)  # fmt: skip
_ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 16, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 0.0, -0.0, 0.5, 1e308, -1e-308,
    "", "0", "1", "1.0", "1e5", "none", "null", "true", "T1", "t1ce", "label", "\0", "\u202e", "e\u0301", "\ufeff",
    "x" * 9000, "../model.safetensors", "/etc/passwd", "..\\..\\model.safetensors", "C:\\model.safetensors", "Ｔ１",
    "\\\\host\\share\\m.safetensors", "file:///etc/passwd", "CON.safetensors", "model.safetensors\0.txt", "~/a",
    "a/b.safetensors", "$(touch x)", "${HOME}", "__import__('os')", [], {}, [[]], [None], [1, 2, 3], {"a": 1},
    {"": ""}, {"__class__": "os"},
)  # fmt: skip


def mutate_json(data: Any, seed: int) -> bytes:
    """Return plain data as JSON text with one to three values, keys or branches spoilt."""
    rng = np.random.default_rng(seed)
    data, raw = copy.deepcopy(data), ""
    for _ in range(int(rng.integers(1, 4)) if rng.random() < 0.3 else 1):
        places = list(_places(data))
        if not places:
            break
        raw = _JSON_MUTATORS[int(rng.integers(len(_JSON_MUTATORS)))](*_pick(places, rng), rng) or raw
    text = json.dumps(data, indent=None if rng.random() < 0.5 else 2)
    return text.replace(f'"{_RAW}"', raw or "null").encode()


def _pick(items: Any, rng: np.random.Generator) -> Any:
    return items[int(rng.integers(len(items)))]


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every (table or list, key) of plain data."""
    if isinstance(data, dict | list):
        for key, value in list(data.items()) if isinstance(data, dict) else list(enumerate(data)):
            yield data, key
            yield from _places(value)


def _odd_value(parent: Any, key: Any, rng: np.random.Generator) -> None:
    parent[key] = copy.deepcopy(_pick(_ODD, rng))


def _raw_value(parent: Any, key: Any, rng: np.random.Generator) -> str:
    parent[key] = _RAW
    return str(_pick(_RAW_TEXTS, rng))


def _other_type(parent: Any, key: Any, rng: np.random.Generator) -> None:
    value = parent[key]
    if isinstance(value, str):
        parent[key] = _pick(([value], {value: value}, len(value), list(value)), rng)
    elif isinstance(value, list):
        parent[key] = _pick((dict(enumerate(value)), str(value), value[0] if value else None), rng)
    elif isinstance(value, dict):
        parent[key] = _pick(([*value], [*value.items()], json.dumps(value)), rng)
    else:
        parent[key] = _pick((str(value), [value], bool(value), float(value or 0)), rng)


def _nudge(parent: Any, key: Any, rng: np.random.Generator) -> None:
    """Change a value by as little as a damaged byte would: a digit, a letter, an entry."""
    value = parent[key]
    if isinstance(value, bool) or value is None:
        parent[key] = not value
    elif isinstance(value, int | float):
        parent[key] = _pick((value + 1, -value, value * 10, float(np.nextafter(float(value), 9e9))), rng)
    elif isinstance(value, str) and value:
        at = int(rng.integers(len(value)))
        parent[key] = value[:at] + _pick(("", "x", value[at].swapcase() * 2, "é", " "), rng) + value[at + 1 :]
    elif isinstance(value, list) and value:
        _pick((value.reverse, value.pop, lambda: value.append(value[0])), rng)()


def _remove(parent: Any, key: Any, rng: np.random.Generator) -> None:
    del parent[key]


def _rename(parent: Any, key: Any, rng: np.random.Generator) -> None:
    if isinstance(parent, dict):
        parent[_pick((f"{key} ", str(key).upper(), f"{key}s", "", "\u0000", str(key)[::-1]), rng)] = parent.pop(key)


def _add(parent: Any, key: Any, rng: np.random.Generator) -> None:
    if isinstance(parent, dict):
        parent[_pick(("extra", "__init__", "pickle", "é", "x" * 9000), rng)] = copy.deepcopy(_pick(_ODD, rng))


def _repeat_key(parent: Any, key: Any, rng: np.random.Generator) -> str:
    """Have a key twice, with another value the second time."""
    value = parent[key]
    parent[key] = _RAW
    first, second = json.dumps(value), json.dumps(_pick(_ODD, rng))
    return f"{first}, {json.dumps(str(key))}: {second}" if isinstance(parent, dict) else f"{first}, {second}"


def _swap(parent: Any, key: Any, rng: np.random.Generator) -> None:
    other = _pick(list(parent) if isinstance(parent, dict) else range(len(parent)), rng)
    parent[key], parent[other] = parent[other], parent[key]


_JSON_MUTATORS = (_odd_value, _raw_value, _other_type, _nudge, _nudge, _remove, _rename, _add, _repeat_key, _swap)


# --- safetensors ---------------------------------------------------------------------------------------------------

_LENGTHS = (0, 1, 2, 2**24, 2**31, 2**32 + 2, 2**63, 2**64 - 1)
_DTYPES = ("F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64", "f32", "", "F32 ", 32, None, ["F32"])
_NUMBERS = (0, 1, -1, 2**31, 2**62, 2**63, 2**64, 1.0, 1.5, True, "0", None, [], 10**30)


def mutate_safetensors(data: bytes, seed: int) -> bytes:
    """Spoil the header of a safetensors file (its length, a tensor's type, shape or place, its metadata, any JSON)."""
    rng = np.random.default_rng(seed)
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    kind = rng.random()
    if kind < 0.1:
        claimed = int(_pick(_LENGTHS, rng)) if rng.random() < 0.5 else max(0, length + int(rng.integers(-12, 13)))
        return claimed.to_bytes(8, "little") + data[8:]
    if kind < 0.35:
        text = mutate_json(header, seed)
    else:
        entry = header[_pick([key for key in header if key != "__metadata__"], rng)]
        _spoil_entry(entry, header, rng)
        text = json.dumps(header).encode()
    if rng.random() < 0.1:
        text += b" " * int(rng.integers(1, 20))
    if rng.random() < 0.1:
        body = _pick((body + bytes(8), body[:-4], b"", body[4:] + body[:4]), rng)
    return len(text).to_bytes(8, "little") + text + body


def _spoil_entry(entry: dict[str, Any], header: dict[str, Any], rng: np.random.Generator) -> None:
    other = header[_pick([key for key in header if key != "__metadata__"], rng)]
    start, stop = entry["data_offsets"]
    shape = list(entry["shape"])
    key, value = _pick(
        (
            ("dtype", _pick(_DTYPES, rng)),
            ("shape", shape[::-1]),
            ("shape", [*shape, 1]),
            ("shape", [int(np.prod(shape))]),
            ("shape", [_pick(_NUMBERS, rng), *shape[1:]]),
            ("shape", _pick((None, {}, "1", [], [[1]], [2**62, 4], [0, *shape]), rng)),
            ("data_offsets", [start + 4, stop + 4]),
            ("data_offsets", [stop, start]),
            ("data_offsets", [start, stop - 4]),
            ("data_offsets", list(other["data_offsets"])),
            ("data_offsets", [_pick(_NUMBERS, rng), _pick(_NUMBERS, rng)]),
            ("data_offsets", _pick((None, {}, [], [start], [start, stop, stop], "0"), rng)),
            ("extra", _pick(_ODD, rng)),
        ),
        rng,
    )
    entry[key] = copy.deepcopy(value)
