"""What a node wants done, in order. A driver performs effects; the simulator does too, its own way."""

from __future__ import annotations

from dataclasses import dataclass, field

from crdt.persist import StoreOp


@dataclass(frozen=True, slots=True)
class Wake:
    """`next_message(conn)` may have something to send."""

    conn: int


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Send what `next_message` still yields (at most a `Reject`), then close."""

    conn: int
    reason: str


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect to `address` ("host:port"), then call `connection_opened` or `dial_failed`."""

    address: str


@dataclass(frozen=True, slots=True)
class Persist:
    """Store these in one transaction, after those of every earlier Persist.

    `durable`: must be on the disk itself before anything more is sent.
    """

    ops: tuple[StoreOp, ...]
    durable: bool = False


@dataclass(frozen=True, slots=True)
class KeysChanged:
    """The visible value of these keys changed."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """A member is new (`previous` None) or changed its state."""

    name: str
    state: str
    previous: str | None


@dataclass(frozen=True, slots=True)
class Notice:
    """A line for the log. `level` is debug, info, warning or error."""

    level: str
    event: str
    fields: dict[str, object] = field(default_factory=dict)


Effect = Wake | CloseConnection | Dial | Persist | KeysChanged | MemberChanged | Notice
