"""How logs, entries and meta values look as database rows. Pure: bytes in, values out.

Every row carries a CRC-32 over its key and its body, so that a flipped bit is found when the row is
read, also in fields which the log's own hash does not cover (tombstones, dots, stamps, meta).
Bodies are msgpack arrays; a trailing field that a later version adds is ignored by this one.
"""

from __future__ import annotations

import zlib
from typing import Any

import msgpack  # type: ignore[import-untyped]  # ships no types

from crdt.types import Entry, LogHead


class RowError(ValueError):
    """A row does not decode or does not match its checksum."""


def row_crc(key: str, body: bytes) -> int:
    """CRC-32 of a row, an unsigned 32-bit integer."""
    return zlib.crc32(body, zlib.crc32(key.encode()))


def row_matches(key: Any, body: Any, crc: Any) -> bool:
    """Whether a row is what was once written; false also for columns of another type."""
    try:
        return row_crc(key, body) == int(crc)
    except (TypeError, AttributeError, ValueError):
        return False


def pack_entry(entry: Entry) -> bytes:
    """The body of an entry's row: everything but its key."""
    return msgpack.packb(entry[1:])  # type: ignore[no-any-return]  # ships no types


def unpack_entry(key: str, body: bytes, crc: int) -> Entry:
    """The entry of one row; raises RowError."""
    if not row_matches(key, body, crc):
        raise RowError(f"the row of key {key!r} does not match its checksum")
    try:
        seq, dot, hlc, value, sig = msgpack.unpackb(body, use_list=False)[:5]
    except (ValueError, TypeError) as err:
        raise RowError(f"the row of key {key!r} does not decode: {err}") from err
    return check_entry(key, seq, dot, hlc, value, sig)


def check_entry(key: Any, seq: Any, dot: Any, hlc: Any, value: Any, sig: Any) -> Entry:
    """The entry of these fields; raises RowError where one has another type than an entry's."""
    # type() rather than isinstance(): this runs once per row at start, and bool is not wanted.
    fits = (
        type(key) is str
        and type(seq) is int
        and type(hlc) is int
        and (value is None or type(value) is bytes)
        and (sig is None or type(sig) is bytes)
        and (dot is None or _are_ints(dot, 3))
    )
    if not fits:
        raise RowError(f"the row of key {key!r} holds something that is not an entry")
    return key, seq, dot, hlc, value, sig


def pack_head(head: LogHead) -> bytes:
    """The body of a log's row: everything but its owner."""
    return msgpack.packb(tuple(head[1:]))  # type: ignore[no-any-return]  # ships no types


def unpack_head(owner: str, body: bytes, crc: int) -> LogHead:
    """The head of one log's row; raises RowError."""
    if not row_matches(owner, body, crc):
        raise RowError(f"the head of the log of {owner!r} does not match its checksum")
    try:
        gen, base, maximum, floor, hash_, lineage, signature = msgpack.unpackb(body, use_list=False)[:7]
        if not (_are_ints(gen, 2) and all(_are_ints(step, 3) for step in lineage)):
            raise TypeError("generation or lineage of another shape")
        if not all(type(part) is int for part in (base, maximum, floor, hash_)):
            raise TypeError("a number is missing")
    except (ValueError, TypeError) as err:
        raise RowError(f"the head of the log of {owner!r} does not decode: {err}") from err
    return LogHead(owner, gen, base, maximum, floor, hash_, lineage, signature)


def _are_ints(parts: Any, count: int) -> bool:
    return type(parts) is tuple and len(parts) == count and all(type(part) is int for part in parts)
