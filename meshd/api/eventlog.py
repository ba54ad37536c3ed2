"""The events of this daemon as streams see them: one bounded ring, read by any number of cursors.

Each event is encoded once, when it happens. A stream holds only a number, its cursor; it owns no queue, so a
client that does not read costs nothing but its connection. A cursor that the ring has left behind learns so
(`after` returns None), and its stream sends one `resync` and a snapshot: no final state is ever lost (REG-7).

Event ids are `<life>-<number>`: the life is random for each start of the daemon, so an id from before a
restart is recognised as unknown instead of resuming at an unrelated event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final, NamedTuple

import trio

from meshd.api import limits

KINDS: Final = (
    "registered",
    "replaced",
    "removed",
    "status_changed",
    "origin_changed",
    "capacity",
    "member",
    "resync",
)
"""What `types=` may name.

Every stream starts with a `snapshot` and is told of each `resync`, whatever it names.
"""


class LoggedEvent(NamedTuple):
    """One event as it is sent: its number, its kind, and its complete Server-Sent Events frame."""

    number: int
    kind: str
    frame: bytes


def frame_of(kind: str, event_id: str, data: bytes) -> bytes:
    """Make the bytes of one event; `data` is JSON on one line, as msgspec writes it."""
    return b"event: %b\nid: %b\ndata: %b\n\n" % (kind.encode(), event_id.encode(), data)


class EventLog:
    """The newest events, bounded in number and bytes, and a place to wait for the next.

    Everything but `wait` is synchronous and belongs to the trio thread. `life` is any short word without a
    dash.
    """

    def __init__(
        self, life: str, *, max_events: int = limits.RING_EVENTS, max_bytes: int = limits.RING_BYTES
    ) -> None:
        self._life = life
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._ring: deque[LoggedEvent] = deque()
        self._ring_bytes = 0
        self._parked = trio.lowlevel.ParkingLot()
        self._at_once: dict[Callable[[], bool], None] = {}
        self.newest = 0
        self.settle: Callable[[], None] = lambda: None
        """Adds what is true already and waits to be told: called before a snapshot, which covers it."""
        self.closing = trio.Event()

    @property
    def closed(self) -> bool:
        """Whether the daemon stops, so that every stream ends."""
        return self.closing.is_set()

    def append(self, kind: str, data: bytes) -> None:
        """Add one event and wake every stream. Costs the same however many streams there are to wake."""
        self.newest += 1
        frame = frame_of(kind, self.event_id(self.newest), data)
        self._ring.append(LoggedEvent(self.newest, kind, frame))
        self._ring_bytes += len(frame)
        while len(self._ring) > self._max_events or self._ring_bytes > self._max_bytes:
            self._ring_bytes -= len(self._ring.popleft().frame)
        self._parked.unpark_all()

    def break_off(self) -> None:
        """Forget the ring: whoever is behind must resync. For the time when events themselves were lost."""
        self.newest += 1
        self._ring.clear()
        self._ring_bytes = 0
        self._parked.unpark_all()

    def after(self, cursor: int, limit: int = 256) -> list[LoggedEvent] | None:
        """Return up to `limit` events after `cursor`, or None if some of them are gone from the ring."""
        missing = self.newest - cursor
        if missing <= 0:
            return []
        start = len(self._ring) - missing
        if start < 0:
            return None
        ring = self._ring
        return [ring[index] for index in range(start, min(start + limit, len(ring)))]

    def event_id(self, number: int) -> str:
        """Return the id that people and clients see for event `number`."""
        return f"{self._life}-{number}"

    def number_of(self, event_id: str) -> int | None:
        """Return the number in an id of this life that was given out already, else None."""
        life, dash, digits = event_id.rpartition("-")
        if not dash or life != self._life or not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
            return None
        number = int(digits)
        return number if number <= self.newest else None

    async def wait(self, at_once: Callable[[], bool] | None = None) -> None:
        """Sleep until something is added or the log is closed. Check for news before: there is no memory.

        `at_once`, if given, is what `hand_out` calls until this returns; it sends what is new without
        waiting, and returns whether it did.
        """
        if self.closed:
            await trio.lowlevel.checkpoint()
            return
        if at_once is None:
            await self._parked.park()
            return
        self._at_once[at_once] = None
        try:
            await self._parked.park()
        finally:
            self._at_once.pop(at_once, None)

    def hand_out(self) -> None:
        """Have streams that were waiting send what is new before anybody else runs.

        Each does so once before its own turn, so that many events in one go are few writes, and some streams
        only, so that it stays short; the others send in their turn.
        """
        for send in list(islice(self._at_once, limits.STREAMS_AT_ONCE)):
            if send():
                self._at_once.pop(send, None)

    def close(self) -> None:
        """End every stream: none waits any longer, and each sends what it has and stops."""
        self.closing.set()
        self._parked.unpark_all()
