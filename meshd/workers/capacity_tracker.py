"""The latest capacity, kept right through every change of the registry, and those who watch it.

Owns the sums (`CapacityBook`) and what servers told about their limits. Rules it keeps: it is right as soon
as it exists and whenever it is read, since reading takes in all events that wait (CAP-3); after a `resync`
all is counted anew from the snapshot; value and source are one object; a watcher always gets the latest,
also what changed before it came (CAP-4). Pure: `capacity_loop` wakes it, asks servers, logs, and starts it
anew after a crash (CAP-7). Closed, it holds nothing of the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from meshd.workers.capacity import (
    LABEL,
    CapacityBook,
    CapacitySettings,
    CapacitySnapshot,
    bad_label,
    compute,
    ready_of,
)
from meshd.workers.events import Event, EventHub, Subscription
from meshd.workers.worker import Worker

BATCH: Final = 512
"""Events taken at once; counting one costs some microseconds."""

Workers = Callable[[], Iterable[Worker]]


class CapacityWatch:
    """One watcher. `notify` is called when there may be something to take."""

    __slots__ = ("_seen", "_tracker", "notify")

    def __init__(self, tracker: CapacityTracker, notify: Callable[[], None]) -> None:
        self._tracker = tracker
        self._seen: CapacitySnapshot | None = None
        self.notify = notify

    def take(self) -> CapacitySnapshot | None:
        """Return the latest capacity, or None if this watcher has it; the first call always returns it."""
        latest = self._tracker.read()
        if latest == self._seen:
            return None
        self._seen = latest
        return latest

    def close(self) -> None:
        """End the watch; closing twice is fine."""
        self._tracker.drop_watch(self)


class CapacityTracker:
    """The capacity of the workers that are ready here."""

    def __init__(self, events: EventHub, workers: Workers, settings: CapacitySettings) -> None:
        """Count `workers()`, all that are registered, and follow `events` from now on."""
        self._hub: EventHub | None = events
        self._workers: Workers | None = workers
        self._settings = settings
        self._book = CapacityBook()
        self._told: dict[str, int] = {}
        self._asked_again: dict[str, Worker] = {}
        self._subscription: Subscription | None = None
        self._watches: dict[CapacityWatch, None] = {}
        self._snapshot = compute((), settings)
        self._warned: dict[str, str] = {}
        self._warnings: list[tuple[str, str, str]] = []
        self.notify: Callable[[], None] = _nobody
        """Called when events wait to be taken in."""
        self.failure: Exception | None = None
        """What went wrong in the last read; the loop starts the tracker anew then."""
        self.recomputes = 0
        """How often the capacity was computed; for metrics."""
        self.restart()

    # --- reading ------------------------------------------------------------------------------------

    def read(self) -> CapacitySnapshot:
        """Return the capacity as it is now. Never raises: after a crash it is the last one known."""
        if self.failure is None:
            try:
                self.catch_up()
            except Exception as error:
                self.failure = error
                self.notify()
        return self._snapshot

    def for_model(self, model: str) -> CapacitySnapshot:
        """Return the capacity for one model, by id or alias (see `CapacityBook.for_model`)."""
        self.read()
        return self._book.for_model(model, self._settings)

    def watch(self, notify: Callable[[], None] = lambda: None) -> CapacityWatch:
        """Start a watch; its first `take` returns the capacity as it is then."""
        watch = CapacityWatch(self, notify)
        self._watches[watch] = None
        return watch

    def drop_watch(self, watch: CapacityWatch) -> None:
        """Notify this watcher no more."""
        self._watches.pop(watch, None)

    # --- following ----------------------------------------------------------------------------------

    def restart(self) -> None:
        """Subscribe anew and count all workers anew; what servers told is kept for those still there."""
        if self._hub is None or self._workers is None:
            return
        if self._subscription is not None:
            self._subscription.close()
        self.failure = None
        self._subscription = self._hub.subscribe(lambda: self.notify())
        self._recount(self._workers())
        self._publish()

    def catch_up(self) -> None:
        """Take in all events that wait. Raises whatever went wrong; `restart` mends it."""
        changed = False
        while self._subscription is not None and (events := self._subscription.take(BATCH)):
            for event in events:
                self._take_in(event)
            changed = True
        if changed:
            self._publish()

    def apply_settings(self, settings: CapacitySettings) -> None:
        """Take on settings at once."""
        self._settings = settings
        self._publish()

    def close(self) -> None:
        """Let go of the registry; the last capacity can still be read."""
        if self._subscription is not None:
            self._subscription.close()
        self._hub = self._workers = self._subscription = None
        self._asked_again.clear()
        self.notify = _nobody

    # --- what servers tell --------------------------------------------------------------------------

    def take_to_ask(self) -> list[Worker]:
        """Return the ready workers whose servers are to be asked, since they came or changed (CAP-6).

        Each is returned once; one that a label decides for is never among them.
        """
        workers = list(self._asked_again.values())
        self._asked_again.clear()
        return workers

    def told(self, worker: Worker, max_running_requests: int | None, now_registered: Worker | None) -> None:
        """Note what a worker's server said, None if it does not tell.

        `now_registered` is the worker now served for that URL: what was said of a server that has been
        replaced or removed meanwhile is dropped.
        """
        if now_registered is None or now_registered.revision != worker.revision:
            return
        if max_running_requests is None:
            self._told.pop(worker.url, None)
        else:
            self._told[worker.url] = max_running_requests
        self._count(now_registered)
        self._publish()

    def take_warnings(self) -> list[tuple[str, str, str]]:
        """Return (url, label, value) of labels that cannot be used, each once per value."""
        warnings, self._warnings = self._warnings, []
        return warnings

    # --- inside -------------------------------------------------------------------------------------

    def _recount(self, workers: Iterable[Worker]) -> None:
        self._book = CapacityBook()
        urls = set()
        for worker in workers:
            urls.add(worker.url)
            self._count(worker)
            self._ask(worker)
        for kept in (self._told, self._warned, self._asked_again):
            for url in [url for url in kept if url not in urls]:
                kept.pop(url)

    def _take_in(self, event: Event) -> None:
        if event.kind == "resync":
            self._recount(event.snapshot)
            return
        worker = event.worker
        if worker is None:
            return
        if event.kind == "removed":
            self._book.drop(worker.url)
            for kept in (self._told, self._warned, self._asked_again):
                kept.pop(worker.url, None)
            return
        self._count(worker)
        self._ask(worker)

    def _count(self, worker: Worker) -> None:
        if worker.status == "ready":
            self._book.put(ready_of(worker, self._told.get(worker.url)))
        else:
            self._book.drop(worker.url)

    def _ask(self, worker: Worker) -> None:
        """Remember to ask a worker's server, and to warn about a label that cannot be used."""
        labels = worker.spec.labels
        if labels:
            name = bad_label(labels)
            if name is None:
                self._warned.pop(worker.url, None)
            elif self._warned.get(worker.url) != labels[name]:
                self._warned[worker.url] = labels[name]
                self._warnings.append((worker.url, name, labels[name]))
        if worker.status == "ready" and LABEL not in labels:
            self._asked_again[worker.url] = worker
        else:
            self._asked_again.pop(worker.url, None)

    def _publish(self) -> None:
        self.recomputes += 1
        snapshot = self._book.snapshot(self._settings)
        if snapshot == self._snapshot:
            return
        self._snapshot = snapshot
        for watch in tuple(self._watches):
            watch.notify()


def _nobody() -> None:
    """Wake nobody."""
