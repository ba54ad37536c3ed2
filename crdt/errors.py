"""What the map refuses, and what that did to its state: nothing, in every case.

MapError
├── LimitExceeded   a local write is over a bound; names the field, the bound and the size
├── UnknownPrefix   a local write to a key outside the prefix table
├── IllegalKey      a local write to a key that no wire and no disk could carry
├── CorruptLog      stored or received entries do not add up to their head
└── IllegalDelta    a transfer that breaks the protocol (bad order, seq outside its range)
"""

from __future__ import annotations


class MapError(Exception):
    """Base of all errors of the replicated map. The state is as it was before the call."""


class LimitExceeded(MapError):
    """A local write is over a limit. Nothing was stored."""

    def __init__(self, field: str, limit: int, actual: int, unit: str = "bytes") -> None:
        super().__init__(f"{field} is {actual} {unit}, over the limit of {limit} {unit}")
        self.field = field
        self.limit = limit
        self.actual = actual
        self.unit = unit


class UnknownPrefix(MapError):
    """A local write to a key that no registered prefix covers. Nothing was stored."""

    def __init__(self, key: str, prefixes: tuple[str, ...]) -> None:
        super().__init__(f"key {key!r} has no registered prefix; known are: {', '.join(prefixes)}")
        self.field = "key"


class IllegalKey(MapError):
    """A local write to a key with lone surrogates, which are no text. Nothing was stored."""

    def __init__(self, key: str) -> None:
        super().__init__(f"key {key!r} is not valid Unicode text")
        self.field = "key"


class CorruptLog(MapError):
    """The entries of a log do not hash to what its head says."""


class IllegalDelta(MapError):
    """A peer sent entries that no correct peer sends. Nothing was applied."""
