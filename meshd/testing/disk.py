"""A simulated process's way to its disk: writing takes time, and a process that dies leaves its queue behind.

Does on virtual time what the runtime's writer thread does: one transaction at a time, what waits is folded
together, a disk that refuses is tried again, and `when_committed` tells when an API call may be answered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from crdt.persist import StoreOp
from meshd.errors import StorageError
from meshd.runtime.limits import DISK_RETRY_MIN_S
from meshd.storage.fold import OpFold
from meshd.storage.interface import Storage


class SimPersister:
    """Writes to `storage`; `later(delay_s, action)` plans for as long as the process lives."""

    def __init__(
        self, storage: Storage, later: Callable[[float, Callable[[], None]], None], write_s: float
    ) -> None:
        """`write_s`: how long a transaction takes, in seconds."""
        self._storage = storage
        self._later = later
        self.write_s = write_s
        self._waiting = OpFold()
        self._durable = False
        self._writing: OpFold | None = None
        self._writing_durably = False
        self._submitted = self._reached = self._committed = 0
        self._waiters: list[tuple[int, Callable[[], None]]] = []
        self._flushes: list[tuple[int, Callable[[], None]]] = []

    def submit(self, ops: Sequence[StoreOp], durable: bool = False) -> None:
        """Take operations; they reach the disk soon, in order."""
        self._waiting.add(ops)
        self._durable = self._durable or durable
        self._submitted += 1
        if self._writing is None:
            self._start()

    def when_committed(self, action: Callable[[], None]) -> None:
        """Call `action` once all that was submitted before is committed."""
        if self._committed >= self._submitted:
            action()
        else:
            self._waiters.append((self._submitted, action))

    def flush(self, action: Callable[[], None]) -> None:
        """Call `action` once all that was submitted before is committed, or the disk refused again."""
        if self._committed >= self._submitted:
            action()
        else:
            self._flushes.append((self._submitted, action))

    @property
    def idle(self) -> bool:
        """Whether the disk has all that was submitted."""
        return self._committed >= self._submitted

    def _start(self) -> None:
        self._writing, self._waiting = self._waiting, OpFold()
        self._writing_durably, self._durable = self._durable, False
        self._reached = self._submitted
        self._later(self.write_s, self._finish)

    def _finish(self) -> None:
        assert self._writing is not None
        write = self._storage.write_durably if self._writing_durably else self._storage.write
        try:
            write(self._writing.ops())
        except StorageError:
            self._later(DISK_RETRY_MIN_S, self._finish)
            flushes, self._flushes = self._flushes, []
            for _, action in flushes:
                action()
            return
        self._writing = None
        self._committed = self._reached
        waiters = self._waiters + self._flushes
        due = [action for target, action in waiters if target <= self._committed]
        self._waiters = [waiter for waiter in self._waiters if waiter[0] > self._committed]
        self._flushes = [waiter for waiter in self._flushes if waiter[0] > self._committed]
        for action in due:
            action()
        if self._waiting and self._writing is None:
            self._start()
