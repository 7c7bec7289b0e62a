"""Deterministic damage to files, as disks, networks and programs do it. Every mutation follows from its seed."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

__all__ = ["MUTATORS", "garble_nifti_header", "mutate"]

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
