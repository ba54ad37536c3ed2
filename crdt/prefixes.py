"""The prefix table: which keys exist and by which rule one value is made of several owners' entries.

- *single-writer*: an entry counts only in the log of the owner to whom the key belongs, which the rule's
  `classify` tells from key and value. Anything else is kept in its log, not shown, and counted.
- *multi-writer*: the value with the greatest (version, writer) over all logs counts. Values travel in an
  envelope that carries this stamp, so that a copy of an entry in another log keeps it. A removal is an
  envelope without payload: it is never collected, since a tombstone that vanished would let a value
  that it once beat shine again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import cbor2

from crdt.errors import UnknownPrefix


class Claim(Enum):
    """What an entry of a single-writer prefix is, seen from the log it stands in."""

    OWN = "own"
    FOREIGN = "foreign"
    UNREADABLE = "unreadable"


class Rule(Enum):
    """How the entries of several owners for one key make one value."""

    SINGLE_WRITER = "single-writer"
    MULTI_WRITER = "multi-writer"


Classify = Callable[[str, str, bytes], Claim]
"""(owner of the log, key, value) -> what the entry is. Pure, and the same on every node."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """One registered prefix. `classify` is given for single-writer prefixes, and only for these."""

    name: str
    rule: Rule
    classify: Classify | None = None

    def __post_init__(self) -> None:
        if (self.classify is None) != (self.rule is Rule.MULTI_WRITER):
            raise ValueError(f"prefix {self.name!r}: a classifier belongs to single-writer prefixes")


class Envelope(NamedTuple):
    """A multi-writer value with its stamp. Payload None: removed."""

    version: int
    writer: str
    payload: bytes | None


VERSION_LIMIT = 2**53


def seal(envelope: Envelope) -> bytes:
    """Encode an envelope as canonical CBOR."""
    return cbor2.dumps([envelope.version, envelope.writer, envelope.payload], canonical=True)


def unseal(value: bytes) -> Envelope | None:
    """Decode an envelope; None if the bytes are not one."""
    try:
        parts = cbor2.loads(value)
    except (cbor2.CBORDecodeError, ValueError, OverflowError, RecursionError, MemoryError):
        return None
    match parts:
        case [int(version), str(writer), (bytes() | None) as payload] if (
            type(version) is int and 0 < version < VERSION_LIMIT
        ):
            return Envelope(version, writer, payload)
    return None


class PrefixTable:
    """The registered prefixes, looked up by a key's part up to and including its first colon."""

    __slots__ = ("_by_name",)

    def __init__(self, *prefixes: Prefix) -> None:
        self._by_name = {prefix.name: prefix for prefix in prefixes}
        if len(self._by_name) != len(prefixes):
            raise ValueError("a prefix is registered twice")
        if any(name.find(":") != len(name) - 1 for name in self._by_name):
            raise ValueError("a prefix ends in its only colon")

    def of(self, key: str) -> Prefix | None:
        """The prefix that a key lives under, or None (a newer node's, or nonsense)."""
        return self._by_name.get(key[: key.find(":") + 1])

    def require(self, key: str) -> Prefix:
        """Like `of`; raises UnknownPrefix."""
        prefix = self.of(key)
        if prefix is None:
            raise UnknownPrefix(key, tuple(self._by_name))
        return prefix
