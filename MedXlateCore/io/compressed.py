"""Compressed voxel data inflated to its end, with checksum, and never beyond the size that its header announces.

Common readers stop early: some miss a damaged checksum, others a truncated stream (see ``Testing/faults``). Here a
stream counts as read only when its end was reached and its CRC-32 (gzip) or Adler-32 (zlib) is right.
"""

from __future__ import annotations

import zlib

from MedXlateCore.errors import InputError, Warned

__all__ = ["GZIP", "GZIP_OR_ZLIB", "MAX_DEFLATE_RATIO", "inflate", "inflate_prefix", "refuse_absurd_size"]

GZIP = 31
GZIP_OR_ZLIB = 47
MAX_DEFLATE_RATIO = 1040
"""No deflate stream grows by more than about 1032 times; a header that announces more cannot be true."""

_CHUNK = 2**20


def inflate_prefix(data: bytes, count: int, where: str, kind: int = GZIP) -> bytes:
    """Return up to the first ``count`` inflated bytes, to look at a header. Nothing is verified yet.

    Raises:
        InputError: ``MX-FIL-030``.
    """
    try:
        return zlib.decompressobj(kind).decompress(data[:65536], count)
    except zlib.error as error:
        raise _damaged(str(error), where) from error


def inflate(data: bytes | memoryview, limit: int, where: str, kind: int = GZIP) -> tuple[bytearray, list[Warned]]:
    """Inflate a whole stream (several gzip members in a row are one stream) and verify it.

    Args:
        data: the compressed bytes.
        limit: most bytes to accept; the stream is abandoned at the first byte more.
        where: file name for messages.
        kind: ``GZIP`` or ``GZIP_OR_ZLIB``.

    Returns:
        The inflated bytes, and a recorded warning ``MX-FIL-050`` if zero bytes follow the stream.

    Raises:
        InputError: ``MX-FIL-030`` (damaged or truncated), ``MX-FIL-031`` (other bytes follow the stream),
            ``MX-FIL-045`` (more than ``limit`` bytes inside).
    """
    out = bytearray()
    rest = memoryview(data)
    while True:
        rest = _inflate_member(rest, out, limit, where, kind)
        if bytes(rest[:2]) != b"\x1f\x8b":
            break
    if not len(rest):
        return out, []
    if any(rest):
        raise InputError(
            "MX-FIL-031",
            f"{len(rest)} unknown bytes follow the compressed data",
            expected="the file's end",
            where=where,
            fix="the file was damaged or two files were joined; copy or export it again",
        )
    return out, [Warned("MX-FIL-050", f"{len(rest)} zero bytes behind the compressed data were ignored", where)]


def _inflate_member(data: memoryview, out: bytearray, limit: int, where: str, kind: int) -> memoryview:
    """Append one member's bytes to ``out`` and return what follows it."""
    stream = zlib.decompressobj(kind)
    position = 0
    try:
        while not stream.eof:
            piece = stream.unconsumed_tail
            if not piece:
                piece = bytes(data[position : position + _CHUNK])
                position += len(piece)
            if not piece:
                raise _damaged("the compressed data ends too early", where)
            out += stream.decompress(piece, limit - len(out) + 1)
            if len(out) > limit:
                raise InputError(
                    "MX-FIL-045",
                    "the file holds more data than its header announces",
                    expected=f"at most {limit} bytes",
                    where=where,
                    fix="the header or the data is wrong; export the file again",
                )
    except zlib.error as error:
        raise _damaged(str(error), where) from error
    return data[position - len(stream.unused_data) :]


def refuse_absurd_size(expected: int, stored: int, limit: int, where: str, packed: bool) -> None:
    """Refuse, before anything is allocated, a header that announces more bytes than allowed or than can be there.

    Raises:
        InputError: ``MX-FIL-035`` (above the limit), ``MX-FIL-034`` (the file is too short for it).
    """
    if expected > limit:
        raise InputError(
            "MX-FIL-035",
            f"the header announces {expected} bytes",
            expected=f"at most {limit} bytes",
            where=where,
            fix="the header is damaged, or the image must be cropped before it is used here",
        )
    if stored * (MAX_DEFLATE_RATIO if packed else 1) < expected:
        raise short_data(f"{stored} {'compressed ' if packed else ''}bytes", expected, where)


def short_data(found: str, expected: int, where: str) -> InputError:
    """Return the error for a file that ends before its last voxel (``MX-FIL-034``)."""
    return InputError(
        "MX-FIL-034",
        f"the file is too short: {found}",
        expected=f"{expected} bytes, as its header announces",
        where=where,
        fix="the file was cut off; copy, download or export it again",
    )


def _damaged(reason: str, where: str) -> InputError:
    return InputError(
        "MX-FIL-030",
        f"the compressed data is damaged ({reason})",
        expected="a complete gzip or zlib stream with a right checksum",
        where=where,
        fix="copy, download or export the file again",
    )
