"""What the node wants on disk gets there from here, without the event loop ever waiting for a disk.

One writer thread. While it writes a transaction, further operations are folded together (newest state per
key), and go as the next one: so the more there is to write, the fewer transactions it takes, and what
waits never exceeds what the map holds. A disk that refuses is tried again with growing pauses; nothing is
dropped, `status` tells.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import structlog
import trio

from crdt.persist import StoreOp
from meshd.errors import StorageError
from meshd.runtime.limits import DISK_RETRY_MAX_S, DISK_RETRY_MIN_S, DISK_STOP_S, LINGER_S
from meshd.storage.fold import OpFold
from meshd.storage.interface import Storage

_log = structlog.get_logger(__name__)


class Persister(Protocol):
    """Where the driver hands operations over."""

    def submit(self, ops: Sequence[StoreOp], durable: bool = False) -> None:
        """Take operations; they reach the disk soon, in order. Never blocks, never fails.

        With `durable`, they count as committed only once they are forced to the disk.
        """

    async def flush(self) -> bool:
        """Wait for all that was submitted before; true once committed, false if the disk refuses now."""

    def status(self) -> dict[str, object]:
        """For people: `ok`, `pending` (keys that wait), `transactions`, `last_error`."""


class DirectPersister:
    """Writes at once, in the caller: for tests on a mock clock, where a thread would be out of time."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._waiting = OpFold()
        self._durable = False
        self._transactions = 0
        self._last_error: str | None = None

    def submit(self, ops: Sequence[StoreOp], durable: bool = False) -> None:
        """Write now; what the disk refuses is kept and goes with the next submission."""
        self._waiting.add(ops)
        self._durable = self._durable or durable
        self._try()

    async def flush(self) -> bool:
        """Try again what is left over."""
        await trio.lowlevel.checkpoint()
        if self._waiting:
            self._try()
        return not self._waiting

    def status(self) -> dict[str, object]:
        """As `Persister.status`."""
        return _status(self._last_error, len(self._waiting), self._transactions)

    def _try(self) -> None:
        write = self._storage.write_durably if self._durable else self._storage.write
        try:
            write(self._waiting.ops())
        except StorageError as err:
            self._last_error = str(err)
        else:
            self._waiting, self._durable, self._last_error = OpFold(), False, None
            self._transactions += 1


class ThreadPersister:
    """A `Persister` with a writer thread; alive while `run` runs."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._condition = threading.Condition()
        # Guarded by the condition; all counted in submissions.
        self._waiting = OpFold()
        self._durable = False
        self._submitted = 0
        self._stopping = False
        # Set on the trio thread only.
        self._committed = 0
        self._handed_over = 0
        """Of what was submitted, how much the thread was told to write."""
        self._attempts_failed = 0
        self._transactions = 0
        self._last_error: str | None = None
        self._progress = trio.Event()
        self._submission = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread = threading.Thread(target=self._work, name="meshd-storage", daemon=True)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled; then write what is left and close the storage, within DISK_STOP_S."""
        self._token = trio.lowlevel.current_trio_token()
        self._thread.start()
        task_status.started()
        try:
            while True:
                await self._submission.wait()
                self._submission = trio.Event()
                if self._handed_over < self._submitted:
                    await trio.sleep(LINGER_S)
                    self._go()
        finally:
            with self._condition:
                self._stopping = True
                self._condition.notify()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._thread.join, DISK_STOP_S)
            if self._thread.is_alive():
                _log.error("storage_stop_timeout", waited_s=DISK_STOP_S, hint="the disk does not answer")
            else:
                self._storage.close()

    def submit(self, ops: Sequence[StoreOp], durable: bool = False) -> None:
        """Take operations; they reach the disk soon, in order. Never blocks, never fails.

        With `durable`, they count as committed only once they are forced to the disk.
        """
        with self._condition:
            self._waiting.add(ops)
            self._durable = self._durable or durable
            self._submitted += 1
        self._submission.set()

    def _go(self) -> None:
        """Have the thread write what waits."""
        self._handed_over = self._submitted
        with self._condition:
            self._condition.notify()

    async def flush(self) -> bool:
        """Wait for all that was submitted before; true once committed, false if the disk refuses now."""
        target, failed_before = self._submitted, self._attempts_failed
        self._go()
        await trio.lowlevel.checkpoint()
        while self._committed < target:
            if self._attempts_failed > failed_before:
                return False
            await self._progress.wait()
        return True

    def status(self) -> dict[str, object]:
        """As `Persister.status`."""
        with self._condition:
            pending = len(self._waiting)
        return _status(self._last_error, pending, self._transactions)

    def _work(self) -> None:
        """The writer thread."""
        pause_s = DISK_RETRY_MIN_S
        while True:
            with self._condition:
                while not (self._waiting or self._stopping):
                    self._condition.wait()
                if not self._waiting:
                    return
                batch, self._waiting = self._waiting, OpFold()
                durable, self._durable = self._durable, False
                reached = self._submitted
            write = self._storage.write_durably if durable else self._storage.write
            try:
                write(batch.ops())
            except (
                Exception
            ) as err:  # a bug in here must not end the thread in silence either: it is reported
                with self._condition:
                    batch.add(self._waiting.ops())
                    self._waiting = batch
                    self._durable = self._durable or durable
                    self._tell(self._failed, err)
                    if self._stopping:
                        return
                    self._condition.wait_for(self._is_stopping, pause_s)
                pause_s = min(pause_s * 2, DISK_RETRY_MAX_S)
            else:
                pause_s = DISK_RETRY_MIN_S
                self._tell(self._wrote, reached)

    def _is_stopping(self) -> bool:
        return self._stopping

    def _tell(self, what: object, argument: object) -> None:
        assert self._token is not None
        try:
            self._token.run_sync_soon(what, argument)  # type: ignore[arg-type]
        except trio.RunFinishedError:
            return  # nobody is left to be told

    def _wrote(self, reached: int) -> None:
        if self._last_error is not None:
            _log.info("storage_recovered", after=self._last_error)
        self._committed = reached
        self._transactions += 1
        self._last_error = None
        self._announce()

    def _failed(self, err: Exception) -> None:
        text = str(err) or repr(err)
        if text != self._last_error:
            bug = None if isinstance(err, StorageError) else err
            _log.error("storage_failed", error=text, hint="writes are kept and tried again", exc_info=bug)
        self._last_error = text
        self._attempts_failed += 1
        self._announce()

    def _announce(self) -> None:
        self._progress.set()
        self._progress = trio.Event()


def _status(error: str | None, pending: int, transactions: int) -> dict[str, object]:
    return {"ok": error is None, "pending": pending, "transactions": transactions, "last_error": error}
