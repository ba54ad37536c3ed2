"""What this node writes about its own workers: records, tombstones, and what stays on its own disk.

Owns every write of the worker room to the store and to the node's private facts. Rules it keeps: only local
workers are written, and only a record that differs from what is there (SYN-3); a worker that other nodes
cannot reach is kept on this node's disk instead (SYN-15); API keys are on that disk, apart from the records,
and in a record only sealed (SYN-12); once this node has withdrawn its workers it writes no more (SYN-14).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from meshd.workers.record import WorkerRecord, encode_record
from meshd.workers.store_view import Meta, Store
from meshd.workers.worker import Worker

SECRET: Final = "worker_secret:"
"""Name of the fact that keeps a local worker's API key: this and the worker's id."""
UNPUBLISHED: Final = "worker_local:"
"""Name of the fact that keeps the record of a local worker that is not published."""


class Sealer(Protocol):
    """Seals API keys with the cluster's secret (SYN-12). Deterministic: equal keys seal to equal bytes."""

    def seal(self, id: str, api_key: str) -> bytes:
        """Return the key sealed for the worker with this id."""

    def unseal(self, id: str, sealed: bytes) -> str | None:
        """Return the key, or None if it was sealed with a secret that is not known here."""


@dataclass(slots=True)
class Counters:
    """What the plane has done since it started; for metrics."""

    published: int = 0
    tombstoned: int = 0
    publish_errors: int = 0


class Publisher:
    """Writes local workers. `wake` is called when something was written that has to be sent."""

    def __init__(self, store: Store, meta: Meta, sealer: Sealer | None, wake: Callable[[], None]) -> None:
        self._store = store
        self._meta = meta
        self._wake = wake
        self.sealer = sealer
        self.publish_loopback = False
        self.leaving = False
        """Whether this node's workers are withdrawn, so that nothing is published any more."""
        self.counters = Counters()
        self.secrets = {
            name[len(SECRET) :]: value.decode(errors="replace") for name, value in meta.meta_items(SECRET)
        }
        """Worker id -> API key, of local workers, those of a former life included."""

    def may_publish(self, worker: Worker) -> bool:
        """Whether a local worker is of use to other nodes (SYN-15)."""
        return worker.reachable or self.publish_loopback

    def tombstone(self, key: str) -> None:
        """Write an own tombstone."""
        self._store.delete(key)
        self.counters.tombstoned += 1
        self._wake()

    def unpublished(self) -> list[tuple[str, bytes]]:
        """Return (id, record) of all local workers that this node's disk keeps."""
        return [(name[len(UNPUBLISHED) :], value) for name, value in self._meta.meta_items(UNPUBLISHED)]

    def forget_unpublished(self, id: str) -> None:
        """Drop the record of a local worker from this node's disk."""
        self._meta.put_meta(UNPUBLISHED + id, None)

    def record_of(self, worker: Worker) -> WorkerRecord:
        """Return a local worker's record."""
        sealed = None
        if worker.api_key and self.sealer is not None:
            sealed = self.sealer.seal(worker.id, worker.api_key)
        return WorkerRecord(
            spec=worker.spec,
            status=worker.held_word or worker.status,
            owner=self._store.node_name,
            revision=worker.revision,
            removing=worker.drain_until is not None,
            protected=bool(worker.api_key),
            sealed_key=sealed,
            extra=worker.extra,
        )

    def publish(self, old: Worker | None, new: Worker, observed: bool = False) -> Worker:
        """Write the record if it differs from what is kept; return the worker with its encoded value.

        `observed`: nobody asked for the change (see `Store.put`).
        """
        value = new.value
        if value is None or old is None or not _same_record(old, new):
            value = encode_record(self.record_of(new))
        if value is not new.value:
            new = msgspec.structs.replace(new, value=value)
        if self.leaving:
            return new
        stored = self._store.own(new.key)
        if self.may_publish(new):
            if stored is None and observed and old is not None and old.is_local:
                return new  # it went for a reason that `settle` knows, or settle will put it back
            if stored is None or stored.value != value:
                self._store.put(new.key, value, observed)
                self.counters.published += 1
                self._wake()
            return new
        if stored is not None:
            self.tombstone(new.key)
        if stored is not None or old is None or old.value != value:
            self._meta.put_meta(UNPUBLISHED + new.id, value)
        return new

    def withdraw(self, worker: Worker) -> None:
        """Take a local worker's record out of the store and off this node's disk."""
        if self._store.own(worker.key) is not None:
            self.tombstone(worker.key)
        if not self.may_publish(worker):
            self.forget_unpublished(worker.id)

    def keep_secret(self, old: Worker | None, new: Worker | None) -> None:
        """Keep a local worker's API key on this node's disk for as long as it is registered here."""
        before = old.api_key if old is not None and old.is_local else None
        after = new.api_key if new is not None and new.is_local else None
        if before == after:
            return
        local = new if new is not None and new.is_local else old
        if local is not None:
            self.put_secret(local.id, after)

    def put_secret(self, id: str, api_key: str | None) -> None:
        """Keep the API key of the worker with this id; None or an empty one forgets it."""
        if api_key:
            self.secrets[id] = api_key
            self._meta.put_meta(SECRET + id, api_key.encode())
        elif self.secrets.pop(id, None) is not None:
            self._meta.put_meta(SECRET + id, None)


def _same_record(old: Worker, new: Worker) -> bool:
    """Whether two states of a local worker surely have the same record: so it is after most checks."""
    return (
        old.is_local
        and old.spec is new.spec
        and (old.held_word or old.status) == (new.held_word or new.status)
        and old.revision == new.revision
        and old.api_key == new.api_key
        and (old.drain_until is None) == (new.drain_until is None)
    )
