"""Events about workers, in order, to any number of subscribers, none of whom can hold up the others.

Owns the numbering, the short history for readers that come back, and each subscriber's bounded queue. Rules
it keeps (REG-7): an event is told after the registry shows the new state, and carries that state; a
subscriber that falls behind loses the events but no final state: it gets one `resync` with a snapshot of the
present, and goes on from there. Memory is bounded whatever subscribers do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

from meshd.workers.worker import Worker

Kind = Literal["registered", "replaced", "removed", "status_changed", "origin_changed", "resync"]

QUEUE_LIMIT: Final = 1024
"""Events that wait for one subscriber; one more, and it gets a resync instead."""

HISTORY_LIMIT: Final = 4096
"""Events kept for readers that come back and name the last one they saw."""


class Event(NamedTuple):
    """One thing that happened to a worker, or a resync.

    `worker` is the state after it (for `removed`: the last one; None for a resync). `previous` is the former
    status of `status_changed`, the former origin of `origin_changed`, and the former id of a `replaced`
    worker that another claim now serves; None elsewhere. `snapshot` holds all workers, for a resync alone.
    """

    id: int
    kind: Kind
    worker: Worker | None
    previous: str | None = None
    snapshot: tuple[Worker, ...] = ()


class Subscription:
    """One reader's queue. `notify` is called, without arguments, when there may be something to take."""

    __slots__ = ("_hub", "_lagging", "_queue", "notify")

    def __init__(self, hub: EventHub, notify: Callable[[], None]) -> None:
        self._hub = hub
        self._queue: deque[Event] = deque()
        self._lagging = False
        self.notify = notify

    def take(self, limit: int = QUEUE_LIMIT) -> list[Event]:
        """Return what is waiting, oldest first, at most `limit` events; never blocks.

        After an overflow the first event is one `resync` with all workers as they are now.
        """
        if self._lagging:
            self._lagging = False
            self._queue.clear()
            return [self._hub.resync()]
        if not self._queue:
            return []
        return [self._queue.popleft() for _ in range(min(limit, len(self._queue)))]

    def close(self) -> None:
        """End the subscription; closing twice is fine."""
        self._hub.drop(self)

    def offer(self, event: Event) -> None:
        """Queue an event (the hub calls this)."""
        if not self._lagging:
            if len(self._queue) < QUEUE_LIMIT:
                self._queue.append(event)
            else:
                self._lagging = True
                self._queue.clear()
        self.notify()


class EventHub:
    """Numbers events and hands them to all subscribers. `snapshot` returns all workers as they are now."""

    def __init__(self, snapshot: Callable[[], Sequence[Worker]]) -> None:
        self._snapshot = snapshot
        self._subscriptions: dict[Subscription, None] = {}
        self._history: deque[Event] = deque(maxlen=HISTORY_LIMIT)
        self.last_id = 0
        """Number of the newest event; 0 before the first."""

    def subscribe(self, notify: Callable[[], None] = lambda: None) -> Subscription:
        """Start a subscription that gets every event from now on."""
        subscription = Subscription(self, notify)
        self._subscriptions[subscription] = None
        return subscription

    def drop(self, subscription: Subscription) -> None:
        """Hand this subscription nothing more."""
        self._subscriptions.pop(subscription, None)

    def __len__(self) -> int:
        """Return how many subscriptions there are."""
        return len(self._subscriptions)

    def emit(self, kind: Kind, worker: Worker, previous: str | None = None) -> Event:
        """Number an event and hand it to all subscribers. The registry shows the new state already."""
        self.last_id += 1
        event = Event(self.last_id, kind, worker, previous)
        self._history.append(event)
        for subscription in tuple(self._subscriptions):
            subscription.offer(event)
        return event

    def resync(self) -> Event:
        """Return a resync with all workers as they are now, under the newest event's number."""
        return Event(self.last_id, "resync", None, None, tuple(self._snapshot()))

    def since(self, id: int) -> list[Event] | None:
        """Return the events after number `id`; None if that one is too old, or not of this life."""
        if id > self.last_id or id < self.last_id - len(self._history):
            return None
        return [event for event in self._history if event.id > id]
