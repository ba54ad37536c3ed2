"""The vocabulary between nodes. Every message is a frozen dataclass; sequences are tuples.

A connection starts with `Hello` from both sides. Then `Heartbeat` carries liveness, what changed in
the sender's version vector and in its member table; `Data` pages carry transfers; `Pull` asks for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from crdt.types import Entry, Have, LogHead

PROTOCOL_VERSION = 1
"""The version this code speaks; `Hello` carries the range that its sender could speak."""


@dataclass(frozen=True, slots=True)
class Hello:
    """First frame in both directions: who speaks, in which cluster, under which life (`nonce`)."""

    protocol_min: int
    protocol_max: int
    cluster: str
    node: str
    nonce: int
    address: str
    zone: str
    version: str
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reject:
    """The connection is refused; `code` is for programs, `text` for people. Sent before closing."""

    code: str
    text: str


class MemberRow(NamedTuple):
    """What gossip says of one member. `beat` counts its heartbeats in the life `nonce`.

    `extra` holds fields of newer versions, passed on as they came.
    """

    name: str
    nonce: int
    beat: int
    left: int
    address: str
    zone: str
    version: str
    extra: tuple[object, ...] = ()


class VectorRow(NamedTuple):
    """One owner's row of the sender's version vector."""

    owner: str
    have: Have


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Proof of life with all that changed since the previous heartbeat on this connection.

    `hlc` is the sender's clock. `done` counts the transfers of the receiver that the sender has dealt with,
    whether it took them or not: rows in this heartbeat include them. `token` wants a `Pong`. `peers` (None:
    unchanged) names the nodes to which the sender holds open connections. `digest`: of its visible map.
    """

    hlc: int
    done: int
    token: int
    rows: tuple[VectorRow, ...]
    members: tuple[MemberRow, ...]
    peers: tuple[str, ...] | None
    digest: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to a heartbeat or ping, at once."""

    token: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a `Pong`: is the process behind this connection still there?"""

    token: int


@dataclass(frozen=True, slots=True)
class Pull:
    """Asks for what the sender lacks of `owner`'s log, standing at `have`."""

    owner: str
    have: Have


@dataclass(frozen=True, slots=True)
class Begin:
    """Starts a transfer: `number` counts the sender's transfers on this connection from 1.

    `offer`: the log is a copy of the receiver's own (or of a node the receiver is to pass it to) that its
    owner's lineage does not cover. `silence_s`: for how long, in seconds, the sender has not heard of the
    owner. Pages follow in `Data`.
    """

    number: int
    head: LogHead
    start: int
    full: bool
    offer: bool
    silence_s: int


@dataclass(frozen=True, slots=True)
class Data:
    """A page of transfer `number`, entries in seq order. `last`: the transfer is complete with it."""

    number: int
    last: bool
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Leave:
    """The sender stops. `withdrawn`: it took its workers with it, rather than leaving them for a restart."""

    withdrawn: bool


@dataclass(frozen=True, slots=True)
class Unknown:
    """A message of a type that this version does not know: a newer node's; ignored."""

    type: int


Message = Hello | Reject | Heartbeat | Ping | Pong | Pull | Begin | Data | Leave | Unknown
