"""Messages to msgpack bodies and back: `[type, field, ...]`.

Decoding checks type, range and count of every field before a message exists. Fields that a newer
version appends to a message are ignored; those that it appends to a member row are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]  # ships no annotations

from crdt.types import COUNTER_LIMIT, Entry, Have, LogHead
from meshd.wire import limits
from meshd.wire.errors import WireError
from meshd.wire.messages import (
    Begin,
    Data,
    Heartbeat,
    Hello,
    Leave,
    MemberRow,
    Message,
    Ping,
    Pong,
    Pull,
    Reject,
    Unknown,
    VectorRow,
)

_HELLO: Final = 1
_REJECT: Final = 2
_HEARTBEAT: Final = 3
_PING: Final = 4
_PONG: Final = 5
_PULL: Final = 6
_BEGIN: Final = 7
_DATA: Final = 8
_LEAVE: Final = 9
_TYPE_LIMIT: Final = 2**16

_pack: Callable[[object], bytes] = msgpack.Packer(use_bin_type=True, autoreset=True).pack


def encode(message: Message) -> bytes:
    """The body of a frame. Every message that nodes build encodes; `Unknown` is never sent."""
    match message:
        case Data(number, last, entries):
            return _pack((_DATA, number, last, entries))
        case Heartbeat(hlc, done, token, rows, members, peers, digest):
            packed_rows = [(row.owner, _flat_have(row.have)) for row in rows]
            packed_members = [(*member[:7], *member.extra) for member in members]
            return _pack((_HEARTBEAT, hlc, done, token, packed_rows, packed_members, peers, digest))
        case Ping(token):
            return _pack((_PING, token))
        case Pong(token):
            return _pack((_PONG, token))
        case Pull(owner, have):
            return _pack((_PULL, owner, _flat_have(have)))
        case Begin(number, head, start, full, offer, silence_s):
            flat = (
                head.owner,
                *head.gen,
                head.base,
                head.max,
                head.floor,
                head.hash,
                head.lineage,
                head.signature,
            )
            return _pack((_BEGIN, number, flat, start, full, offer, silence_s))
        case Hello(low, high, cluster, node, nonce, address, zone, version, features):
            return _pack((_HELLO, low, high, cluster, node, nonce, address, zone, version, features))
        case Reject(code, text):
            return _pack((_REJECT, code, text))
        case Leave(withdrawn):
            return _pack((_LEAVE, withdrawn))
        case Unknown():
            raise AssertionError("a message of unknown type is never sent")


def decode(body: bytes | bytearray | memoryview) -> Message:
    """The message in a frame's body. Raises WireError, and nothing else, for every other input."""
    try:
        parts = msgpack.unpackb(body, use_list=False, raw=False, strict_map_key=True)
    except (ValueError, RecursionError, MemoryError, TypeError, OverflowError) as error:
        raise WireError(f"not msgpack: {type(error).__name__}") from error
    if type(parts) is not tuple or not parts:
        raise WireError("a message is an array that starts with its type")
    kind = _int(parts[0], "type", _TYPE_LIMIT)
    reader = _READERS.get(kind)
    if reader is None:
        return Unknown(kind)
    try:
        return reader(parts)
    except IndexError as error:
        raise WireError(f"message of type {kind} with {len(parts) - 1} fields is too short") from error


def _int(value: object, field: str, below: int = limits.MAX_INT + 1) -> int:
    if type(value) is not int or not 0 <= value < below:
        raise WireError(f"{field} is not an integer from 0 to {below - 1}")
    return value


def _bool(value: object, field: str) -> bool:
    if type(value) is not bool:
        raise WireError(f"{field} is not a boolean")
    return value


def _str(value: object, field: str, most: int = limits.MAX_TEXT_CHARS) -> str:
    if type(value) is not str or len(value) > most:
        raise WireError(f"{field} is not text of at most {most} characters")
    return value


def _name(value: object, field: str) -> str:
    text = _str(value, field, limits.MAX_NAME_CHARS)
    if not text:
        raise WireError(f"{field} is empty")
    return text


def _array(value: object, field: str, most: int) -> tuple[Any, ...]:
    if type(value) is not tuple or len(value) > most:
        raise WireError(f"{field} is not an array of at most {most}")
    return value


def _row(value: object, field: str, least: int) -> tuple[Any, ...]:
    if type(value) is not tuple or len(value) < least:
        raise WireError(f"{field} is not an array of {least}")
    return value


def _flat_have(have: Have) -> tuple[int, ...]:
    return (*have.gen, have.max, have.floor, have.hash, *have.known, have.fence)


def _have(value: object) -> Have:
    row = _row(value, "have", 8)
    signed = limits.MAX_SIGNED + 1
    gen = (_int(row[0], "counter", COUNTER_LIMIT), _int(row[1], "nonce", signed))
    known = (_int(row[5], "known counter", COUNTER_LIMIT), _int(row[6], "known nonce", signed))
    top, floor = _int(row[2], "max", signed), _int(row[3], "floor", signed)
    if floor > top:
        raise WireError("floor lies above max")
    return Have(gen, top, floor, _int(row[4], "hash"), known, _int(row[7], "fence", COUNTER_LIMIT))


def _head(value: object) -> LogHead:
    row = _row(value, "head", 9)
    signed = limits.MAX_SIGNED + 1
    lineage = []
    for item in _array(row[7], "lineage", limits.MAX_LINEAGE_ROWS):
        former = _row(item, "lineage row", 3)
        lineage.append(
            (
                _int(former[0], "lineage counter", COUNTER_LIMIT),
                _int(former[1], "lineage nonce", signed),
                _int(former[2], "lineage seq", signed),
            )
        )
    signature = row[8]
    if signature is not None and (type(signature) is not bytes or len(signature) > limits.MAX_TEXT_CHARS):
        raise WireError("signature of a head is neither nil nor short bytes")
    top, floor = _int(row[4], "max", signed), _int(row[5], "floor", signed)
    if floor > top:
        raise WireError("floor lies above max")
    return LogHead(
        _name(row[0], "owner"),
        (_int(row[1], "counter", COUNTER_LIMIT), _int(row[2], "nonce", signed)),
        _int(row[3], "base", signed),
        top,
        floor,
        _int(row[6], "hash"),
        tuple(lineage),
        signature,
    )


def _check_entry(entry: object) -> None:
    """Raise WireError unless `entry` is an Entry as it stands in memory: it is kept as decoded."""
    if type(entry) is not tuple or len(entry) != 6:
        raise WireError("an entry has six fields")
    key, seq, dot, hlc, value, signature = entry
    if type(key) is not str or not key or len(key) > limits.MAX_KEY_BYTES:
        raise WireError(f"key of an entry is not text of 1 to {limits.MAX_KEY_BYTES} characters")
    if type(seq) is not int or not 0 < seq <= limits.MAX_SIGNED:
        raise WireError("seq of an entry is out of range")
    if type(hlc) is not int or not 0 <= hlc <= limits.MAX_SIGNED:
        raise WireError("stamp of an entry is out of range")
    if value is not None and (type(value) is not bytes or len(value) > limits.MAX_VALUE_BYTES):
        raise WireError(f"value of an entry is neither nil nor bytes of at most {limits.MAX_VALUE_BYTES}")
    if signature is not None and (type(signature) is not bytes or len(signature) > limits.MAX_TEXT_CHARS):
        raise WireError("signature of an entry is neither nil nor short bytes")
    if dot is not None:
        if type(dot) is not tuple or len(dot) != 3:
            raise WireError("dot of an entry is neither nil nor three integers")
        _int(dot[0], "dot counter", COUNTER_LIMIT)
        _int(dot[1], "dot nonce", limits.MAX_SIGNED + 1)
        _int(dot[2], "dot seq", limits.MAX_SIGNED + 1)


def _read_data(parts: tuple[Any, ...]) -> Data:
    entries: tuple[Entry, ...] = _array(parts[3], "entries", limits.MAX_PAGE_ENTRIES)
    for entry in entries:
        _check_entry(entry)
    return Data(_int(parts[1], "transfer"), _bool(parts[2], "last"), entries)


def _member(value: object) -> MemberRow:
    if type(value) is tuple and len(value) == 7:  # as nodes of this version say it, and there are many
        name, nonce, beat, left, address, zone, version = value
        if (
            (type(name) is str and 0 < len(name) <= limits.MAX_NAME_CHARS)
            and (type(nonce) is int and 0 <= nonce <= limits.MAX_SIGNED)
            and (type(beat) is int and 0 <= beat <= limits.MAX_SIGNED)
            and (type(left) is int and 0 <= left < 256)
            and (type(address) is str and len(address) <= limits.MAX_TEXT_CHARS)
            and (type(zone) is str and len(zone) <= limits.MAX_NAME_CHARS)
            and (type(version) is str and len(version) <= limits.MAX_TEXT_CHARS)
        ):
            return MemberRow(name, nonce, beat, left, address, zone, version)
    return _member_slowly(value)


def _member_slowly(value: object) -> MemberRow:
    """Any member row; says what is wrong with it."""
    row = _row(value, "member", 7)
    if len(row) > 32:
        raise WireError("a member row has more than 32 fields")
    if len(row) > 7 and len(_pack(row[7:])) > limits.MAX_EXTRA_BYTES:
        raise WireError(f"a member row has more than {limits.MAX_EXTRA_BYTES} bytes of further fields")
    return MemberRow(
        _name(row[0], "member name"),
        _int(row[1], "member nonce", limits.MAX_SIGNED + 1),
        _int(row[2], "member beat", limits.MAX_SIGNED + 1),
        _int(row[3], "member left", 256),
        _str(row[4], "member address"),
        _str(row[5], "member zone", limits.MAX_NAME_CHARS),
        _str(row[6], "member version"),
        row[7:],
    )


def _read_heartbeat(parts: tuple[Any, ...]) -> Heartbeat:
    rows = []
    for item in _array(parts[4], "vector", limits.MAX_VECTOR_ROWS):
        row = _row(item, "vector row", 2)
        rows.append(VectorRow(_name(row[0], "owner"), _have(row[1])))
    members = tuple(_member(item) for item in _array(parts[5], "members", limits.MAX_MEMBER_ROWS))
    peers = parts[6]
    if peers is not None:
        peers = tuple(_name(item, "peer") for item in _array(peers, "peers", limits.MAX_PEER_NAMES))
    return Heartbeat(
        _int(parts[1], "hlc", limits.MAX_SIGNED + 1),
        _int(parts[2], "done"),
        _int(parts[3], "token"),
        tuple(rows),
        members,
        peers,
        _int(parts[7], "digest"),
    )


def _read_hello(parts: tuple[Any, ...]) -> Hello:
    features = tuple(_str(item, "feature") for item in _array(parts[9], "features", limits.MAX_FEATURES))
    return Hello(
        _int(parts[1], "lowest protocol version", 2**16),
        _int(parts[2], "highest protocol version", 2**16),
        _name(parts[3], "cluster"),
        _name(parts[4], "node"),
        _int(parts[5], "nonce", limits.MAX_SIGNED + 1),
        _str(parts[6], "address"),
        _str(parts[7], "zone", limits.MAX_NAME_CHARS),
        _str(parts[8], "version"),
        features,
    )


def _read_begin(parts: tuple[Any, ...]) -> Begin:
    return Begin(
        _int(parts[1], "transfer"),
        _head(parts[2]),
        _int(parts[3], "start", limits.MAX_SIGNED + 1),
        _bool(parts[4], "full"),
        _bool(parts[5], "offer"),
        _int(parts[6], "silence", limits.MAX_SIGNED + 1),
    )


_READERS: Final[dict[int, Callable[[tuple[Any, ...]], Message]]] = {
    _HELLO: _read_hello,
    _REJECT: lambda parts: Reject(_str(parts[1], "code"), _str(parts[2], "text")),
    _HEARTBEAT: _read_heartbeat,
    _PING: lambda parts: Ping(_int(parts[1], "token")),
    _PONG: lambda parts: Pong(_int(parts[1], "token")),
    _PULL: lambda parts: Pull(_name(parts[1], "owner"), _have(parts[2])),
    _BEGIN: _read_begin,
    _DATA: _read_data,
    _LEAVE: lambda parts: Leave(_bool(parts[1], "withdrawn")),
}
