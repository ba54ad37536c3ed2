"""One connection to a peer: what is due on it, what the peer has, what is half received.

A session is a record with little behaviour; `node`, `replication` and `ownership` act on it. Nothing here
queues content: owners are marked dirty, and what is sent is computed when there is room to send it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from crdt.delta import Transfer
from crdt.types import NOTHING, VALUE, Entry, Gen, Have
from meshd.wire.limits import PAGE_BYTES, PAGE_ENTRIES
from meshd.wire.messages import Begin, Data, Leave, MemberRow, Message, Reject


class Phase(Enum):
    """How far a connection has come."""

    GREETING = "greeting"  # waits for the peer's Hello
    CONTESTED = "contested"  # said hello under a name that another live connection holds
    OPEN = "open"
    CLOSING = "closing"  # only a Reject or Leave may still go out


@dataclass(slots=True)
class Outgoing:
    """A cut under way to the peer, and how far it got."""

    transfer: Transfer
    number: int
    offer: bool
    silence_s: int
    begun: bool = False
    position: int = 0

    def next_frame(self) -> Begin | Data:
        """The next frame of the transfer; `Data.last` marks the end."""
        head, start, full, entries = self.transfer
        if not self.begun:
            self.begun = True
            return Begin(self.number, head, start, full, self.offer, self.silence_s)
        size, end = 0, self.position
        while end < len(entries) and end - self.position < PAGE_ENTRIES and size < PAGE_BYTES:
            value = entries[end][VALUE]
            size += len(value) if value is not None else 0
            end += 1
        page = entries[self.position : end]
        self.position = end
        return Data(self.number, end == len(entries), page)


@dataclass(slots=True)
class Incoming:
    """A transfer half received. `begin` None: it was refused, its pages are dropped."""

    begin: Begin | None
    entries: list[Entry] = field(default_factory=list)
    size_bytes: int = 0


@dataclass(slots=True)
class Session:
    """State of connection `conn`. `dialled` is the address this node connected to, None if it was called."""

    conn: int
    dialled: str | None
    remote: str
    opened_at: float
    wake: Callable[[int], None]

    phase: Phase = Phase.GREETING
    name: str = ""
    nonce: int = 0
    row: MemberRow | None = None
    close_reason: str = ""
    rejected: bool = False
    """The peer refused this connection, maybe after it seemed open: it will again if asked again at once."""

    hello_due: bool = True
    reject: Reject | None = None
    leave: Leave | None = None
    heartbeat_due: bool = False
    pongs: deque[int] = field(default_factory=lambda: deque(maxlen=8))
    pings: deque[int] = field(default_factory=lambda: deque(maxlen=8))
    pulls: dict[str, Have] = field(default_factory=dict)

    token: int = 0
    """Of the last heartbeat that asked for an answer, to measure the round trip."""
    token_sent_at: float | None = None
    """When that was; None once it is answered."""
    measure_at: float = 0.0
    """From when on a heartbeat asks again."""
    heard_at: float = 0.0
    quiet: bool = False
    """Open, but nothing has come for long enough that this node asks others about the peer."""
    contest: int = 0
    """On a contested session: the connection that holds the name. 0: none."""
    contest_token: int = 0
    contest_until: float = 0.0
    waiting: list[Message] = field(default_factory=list)
    """What a contested peer said meanwhile: to it the connection may be open already."""

    reported: dict[str, Have] = field(default_factory=dict)
    """The peer's vector as it last told."""
    believed: dict[str, Have] = field(default_factory=dict)
    """The peer's vector once everything sent has arrived and was taken."""
    unconfirmed: dict[str, int] = field(default_factory=dict)
    """Owner -> how many transfers the peer must have dealt with before its word on it counts again."""
    refused: dict[str, Gen] = field(default_factory=dict)
    """Owner -> gen of its log that the peer did not take last."""
    retry_at: dict[str, float] = field(default_factory=dict)
    """Owner -> when to offer again what the peer did not take."""
    dirty: dict[str, None] = field(default_factory=dict)
    """Owners of whose logs the peer may lack something that this node is to send."""
    outgoing: dict[str, Outgoing] = field(default_factory=dict)
    started: int = 0
    finished: int = 0

    announced: dict[str, Have] = field(default_factory=dict)
    vector_dirty: dict[str, None] = field(default_factory=dict)
    members_dirty: dict[str, None] = field(default_factory=dict)
    peers_announced: tuple[str, ...] | None = None
    digest: int | None = None
    """Of the peer's visible map, as it last told."""
    peers: frozenset[str] = frozenset()
    """Nodes that the peer hears from over connections of its own, as it last told."""
    peers_known: bool = False
    strangers: frozenset[str] = frozenset()
    """Members to whom the peer has no connection, for the table of members as it was at `strangers_at`."""
    strangers_at: int = -1
    settled: bool = False
    """Open for long enough that the peer's other connections stand too, if they ever will."""

    incoming: dict[int, Incoming] = field(default_factory=dict)
    staged_bytes: int = 0
    done: int = 0

    @property
    def initiator_is_me(self) -> bool:
        """Whether this node opened the connection."""
        return self.dialled is not None

    def belief(self, owner: str) -> Have:
        """What the peer holds of `owner`'s log once everything under way has arrived."""
        return self.believed.get(owner, NOTHING)

    def mark(self, owner: str) -> None:
        """The peer may lack something of `owner`: look when there is room to send."""
        self.dirty[owner] = None
        self.wake(self.conn)

    def ask(self, owner: str, have: Have) -> None:
        """Ask the peer for what this node lacks of `owner`, standing at `have`."""
        self.pulls[owner] = have
        self.wake(self.conn)
