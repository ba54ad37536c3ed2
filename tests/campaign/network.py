"""Virtual time and an unreliable network for nodes in one process.

A connection is a pair of ordered streams, as TCP gives: a message is late, or the connection breaks and all
that was under way is gone, but nothing is lost or turned round within it. A blocked direction stalls what is
sent over it; both ends learn of that by silence alone. Everything is deterministic for a seed.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from meshd.wire.codec import decode, encode
from meshd.wire.messages import Message

DIAL_TIMEOUT_S = 1.0
WINDOW = 3
"""Messages under way in one direction; more wait with their sender, as with TCP."""


class Host(Protocol):
    """What the network asks of the place that a connection ends at."""

    def deliver(self, place: str, life: int, conn: int, message: Message) -> None:
        """A message arrived."""

    def room(self, place: str, life: int, conn: int) -> None:
        """More may be sent on a connection."""

    def closed(self, place: str, life: int, conn: int, reason: str) -> None:
        """A connection is gone."""

    def opened(self, place: str, life: int, conn: int, dialled: str | None, remote: str) -> None:
        """A connection stands."""

    def dial_failed(self, place: str, life: int, address: str, reason: str) -> None:
        """No connection came about."""

    def life_of(self, place: str) -> int | None:
        """The life that runs at a place, or None."""


@dataclass(eq=False)
class End:
    """One end of a connection, at a life of a place. `inbox`: what is under way to it, with its due times."""

    place: str
    life: int
    conn: int
    far: End | None = None
    inbox: deque[tuple[float, bytes | Message]] = field(default_factory=deque)
    pumping: bool = False
    gone: bool = False


class Network:
    """Links between places, on virtual time. `now` in seconds."""

    def __init__(self, rng: random.Random, host: Host, codec: bool) -> None:
        self.now = 1000.0
        self.delay_s = 0.002
        """Mean delay of a message."""
        self.blocked: set[tuple[str, str]] = set()
        """(from, to): directions in which nothing arrives."""
        self.cut_for_good: set[tuple[str, str]] = set()
        """Directions that healing leaves blocked."""
        self.messages = 0
        self._rng = rng
        self._host = host
        self._codec = codec
        self._ends: dict[tuple[str, int], End] = {}
        self._next_conn = 1
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    # -- time ------------------------------------------------------------------------------------

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Run `action` at a time."""
        self._order += 1
        heapq.heappush(self._events, (max(when, self.now), self._order, action))

    def next_event(self) -> float | None:
        """When something happens next."""
        return self._events[0][0] if self._events else None

    def run_due(self) -> None:
        """Run what is due now."""
        while self._events and self._events[0][0] <= self.now:
            heapq.heappop(self._events)[2]()

    # -- connections -----------------------------------------------------------------------------

    def dial(self, place: str, life: int, address: str) -> None:
        """Connect from a place to `address`, the name of a place with a port."""
        target = address.partition(":")[0]

        def attempt() -> None:
            if self._host.life_of(place) != life:
                return
            far_life = self._host.life_of(target)
            if far_life is None:
                self._host.dial_failed(place, life, address, "refused")
                return
            near = End(place, life, self._next_conn)
            far = End(target, far_life, self._next_conn + 1, near)
            near.far = far
            self._next_conn += 2
            self._ends[place, near.conn] = near
            self._ends[target, far.conn] = far
            self._host.opened(place, life, near.conn, address, address)
            self._host.opened(target, far_life, far.conn, None, f"{place}:9")

        def give_up() -> None:
            if self._host.life_of(place) == life:
                self._host.dial_failed(place, life, address, "timed out")

        if (place, target) in self.blocked or (target, place) in self.blocked:
            self.at(self.now + DIAL_TIMEOUT_S, give_up)
        else:
            self.at(self.now + self._delay(), attempt)

    def has_room(self, place: str, conn: int) -> bool:
        """Whether a connection takes another message now; one that is gone swallows all."""
        end = self._ends.get((place, conn))
        return end is None or end.far is None or end.far.gone or len(end.far.inbox) < WINDOW

    def send(self, place: str, conn: int, message: Message) -> None:
        """Put a message on its way."""
        end = self._ends.get((place, conn))
        if end is None or end.far is None or end.far.gone:
            return
        self.messages += 1
        inbox = end.far.inbox
        due = self.now + self._delay()
        if inbox:
            due = max(due, inbox[-1][0])
        inbox.append((due, encode(message) if self._codec else message))
        self._pump(end.far)

    def close(self, place: str, conn: int, reason: str) -> None:
        """One end closes; the other hears of it when the path allows, else it has to find out by itself."""
        end = self._ends.pop((place, conn), None)
        if end is None or end.gone:
            return
        end.gone = True
        self._host.closed(place, end.life, conn, reason)
        far = end.far
        if far is not None and not far.gone and (place, far.place) not in self.blocked:
            self.at(self.now + self._delay(), lambda: self._lost(far, "connection reset"))

    def place_died(self, place: str) -> None:
        """All connections of a place end without a word to it."""
        for end in [end for end in self._ends.values() if end.place == place]:
            end.gone = True
            del self._ends[place, end.conn]
            far = end.far
            if far is not None and not far.gone and (place, far.place) not in self.blocked:
                self.at(self.now + self._delay(), lambda far=far: self._lost(far, "connection reset"))  # type: ignore[misc]

    def break_link(self, one: str, other: str) -> None:
        """Connections between two places break; what was under way is lost."""
        for end in list(self._ends.values()):
            if end.place == one and end.far is not None and end.far.place == other:
                self._lost(end, "broken")
                self._lost(end.far, "broken")

    def block_only(self, directions: set[tuple[str, str]]) -> None:
        """Exactly these directions carry nothing, besides those cut for good; what was stalled goes on."""
        self.blocked = directions | self.cut_for_good
        for end in list(self._ends.values()):
            self._pump(end)

    def _lost(self, end: End, reason: str) -> None:
        if not end.gone:
            end.gone = True
            self._ends.pop((end.place, end.conn), None)
            self._host.closed(end.place, end.life, end.conn, reason)

    def _delay(self) -> float:
        return self.delay_s * (0.25 + self._rng.expovariate(1.0))

    def _pump(self, end: End) -> None:
        if end.pumping or not end.inbox or end.far is None or (end.far.place, end.place) in self.blocked:
            return
        end.pumping = True
        self.at(end.inbox[0][0], lambda: self._arrive(end))

    def _arrive(self, end: End) -> None:
        end.pumping = False
        if end.gone or end.far is None or (end.far.place, end.place) in self.blocked:
            return
        while end.inbox and end.inbox[0][0] <= self.now and not end.gone:
            body = end.inbox.popleft()[1]
            message = decode(body) if isinstance(body, bytes) else body
            self._host.deliver(end.place, end.life, end.conn, message)
        self._pump(end)
        far = end.far
        if not far.gone and len(end.inbox) < WINDOW:
            self._host.room(far.place, far.life, far.conn)
