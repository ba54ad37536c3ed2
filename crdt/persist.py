"""What must reach the disk, as plain data: the map says what, `meshd.storage` knows how.

Operations are applied in order; a batch of them is one transaction.
"""

from __future__ import annotations

from dataclasses import dataclass

from crdt.types import Entry, LogHead


@dataclass(frozen=True, slots=True)
class PutLog:
    """Store (insert or overwrite) the head of an owner's log."""

    head: LogHead


@dataclass(frozen=True, slots=True)
class PutEntries:
    """Store entries of an owner's log, each under its key."""

    owner: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class DropKeys:
    """Remove entries (collected tombstones) of an owner's log."""

    owner: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReplaceLog:
    """Replace head and entries of an owner's log as a whole."""

    head: LogHead
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class DropLog:
    """Remove an owner's log."""

    owner: str


@dataclass(frozen=True, slots=True)
class PutMeta:
    """Store a small named value; None removes it."""

    name: str
    value: bytes | None


StoreOp = PutLog | PutEntries | DropKeys | ReplaceLog | DropLog | PutMeta
