"""What one daemon's API keeps while it runs: the event log and what feeds it, the guard, the metrics.

Rules: events are taken over synchronously, when they happen, so that a stream is one task switch behind the
registry; the API keeps no copy of any worker or member. `close` undoes every subscription.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import trio

from meshd.api import limits, openapi, readings
from meshd.api.codec import Write, encoder, write_list
from meshd.api.eventlog import EventLog
from meshd.api.guard import Guard
from meshd.api.metrics import DaemonCollector, RequestMetrics, new_registry
from meshd.api.worker_json import Clock, encode_workers, worker_info
from meshd.errors import StorageError, Unavailable
from meshd.workers.claims import owner_is_down

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from meshd.api.backend import Daemon
    from meshd.api.table import Operation
    from meshd.protocol.effects import MemberChanged
    from meshd.workers.worker import Worker


class ApiState:
    """The API's side of one daemon. Made and used on the trio thread."""

    def __init__(
        self, daemon: Daemon, operations: Sequence[Operation], guard: Guard, clock: Clock | None = None
    ) -> None:
        self.daemon = daemon
        self.operations = operations
        self.guard = guard
        self.clock = clock or Clock(trio.current_time, time.time)
        # A fresh life for each start: ids of another start must not resume here.
        self.log = EventLog(os.urandom(6).hex())
        self.registry = new_registry()
        self.metrics = RequestMetrics(self.registry)
        self.saving_snapshot = False
        self.registry.register(DaemonCollector(self._read))
        self._events = daemon.plane.events.subscribe(self._take_events)
        self._capacity = daemon.capacity.watch(self._take_capacity)
        self._capacity.take()  # what is true already is part of every snapshot and no event
        self.log.settle = self._take_capacity
        daemon.mesh.subscribe_members(self._member_changed)
        daemon.mesh.subscribe_keys(lambda _keys: self.log.hand_out())

    # --- events -----------------------------------------------------------------------------------

    def _take_events(self) -> None:
        for event in self._events.take():
            if event.worker is None:
                # The hub lost events before we took them: every stream must look at the whole again.
                self.log.break_off()
                continue
            data: dict[str, Any] = {"worker": self.worker_info(event.worker)}
            if event.previous is not None:
                data["previous"] = event.previous
            self.log.append(event.kind, encoder.encode(data))

    def _member_changed(self, change: MemberChanged) -> None:
        if self.log.closed:
            return
        data: dict[str, Any] = {"member": {"name": change.name, "state": change.state}}
        if change.previous is not None:
            data["previous"] = change.previous
        self.log.append("member", encoder.encode(data))

    def _take_capacity(self) -> None:
        latest = self._capacity.take()
        if latest is not None and not self.log.closed:
            self.log.append("capacity", encoder.encode(latest._asdict()))

    async def write_snapshot(self, write: Write) -> None:
        """Write everything that events tell of, as one JSON object, in pieces."""
        workers = list(self.daemon.plane.registry)
        rest = encoder.encode({"members": readings.members(self), "capacity": readings.capacity(self, None)})
        await write(b'{"workers":')
        await write_list(workers, self.encode_workers, write)
        await write(b"," + rest[1:])

    # --- what handlers read -----------------------------------------------------------------------

    def now(self) -> float:
        """Return monotonic seconds."""
        return self.clock.monotonic()

    def wall_ms(self) -> int:
        """Return Unix time in milliseconds."""
        return int(self.clock.wall() * 1000)

    def encode_workers(self, workers: list[Worker]) -> bytes:
        """Return the JSON list of some workers."""
        return encode_workers(workers, self.clock, self._owner_down)

    def worker_info(self, worker: Worker) -> dict[str, Any]:
        """Return a worker as the API shows it."""
        return worker_info(worker, self.clock.offset(), self._owner_down)

    def _owner_down(self, owner: str) -> bool:
        return owner_is_down(self.daemon.mesh.node.owner_state(owner))

    def open_stream(self) -> Callable[[int], None]:
        """Return what counts a stream; raises Unavailable when too many are open."""
        if self.metrics.open_streams >= limits.MAX_STREAMS:
            raise Unavailable(f"{limits.MAX_STREAMS} event streams are open already; close one, or share one")
        return self.metrics.stream

    async def written(self) -> None:
        """Send what a command left to be sent, and return when it is on disk."""
        self.daemon.mesh.after_write()
        if not await self.daemon.mesh.flush():
            raise StorageError(
                "the change is in force, but the disk refuses it: it is lost if the daemon stops now; "
                "its log tells the cause"
            )

    @cached_property
    def openapi(self) -> bytes:
        """The OpenAPI document as JSON, made when it is first asked for."""
        return encoder.encode(openapi.build(self.operations, self.daemon.version))

    @cached_property
    def docs(self) -> str:
        """The docs page, made when it is first asked for."""
        return openapi.docs_page(self.operations, self.daemon.version)

    def _read(self) -> Iterator[Metric]:
        return readings.read_daemon(self)

    def close(self) -> None:
        """End all streams and subscriptions."""
        self._events.close()
        self._capacity.close()
        self.log.close()
