"""The persisters: nothing is lost, nothing blocks, a failing disk is survived and told of."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import structlog.testing
import trio

from crdt.persist import PutMeta, StoreOp
from meshd.errors import StorageError
from meshd.runtime import DirectPersister, Persister, ThreadPersister
from meshd.storage import MemoryDisk, MemoryStorage


class GatedStorage(MemoryStorage):
    """A storage whose writes wait until the test lets them through; remembers each transaction."""

    def __init__(self, disk: MemoryDisk) -> None:
        super().__init__(disk)
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.transactions: list[list[StoreOp]] = []
        self.bugs = 0

    def _write(self, ops: Sequence[StoreOp], forced: bool) -> None:
        self.entered.set()
        assert self.gate.wait(10)
        if self.bugs:
            self.bugs -= 1
            raise RuntimeError("a bug")
        super()._write(ops, forced)
        self.transactions.append(list(ops))


@asynccontextmanager
async def writing(storage: MemoryStorage) -> AsyncIterator[ThreadPersister]:
    persister = ThreadPersister(storage)
    async with trio.open_nursery() as nursery:
        await nursery.start(persister.run)
        yield persister
        nursery.cancel_scope.cancel()


def number(value: int) -> tuple[StoreOp, ...]:
    return (PutMeta("n", b"%d" % value),)


def stored(disk: MemoryDisk) -> dict[str, bytes]:
    return MemoryStorage(disk).load().meta


async def entered(storage: GatedStorage) -> None:
    await trio.to_thread.run_sync(storage.entered.wait, 10)
    storage.entered.clear()


@pytest.mark.req("CRD-8")
async def test_what_was_submitted_before_a_flush_is_on_disk_after_it() -> None:
    disk = MemoryDisk()
    async with writing(MemoryStorage(disk)) as persister:
        assert await persister.flush()
        persister.submit(number(1))
        assert await persister.flush()
        assert disk.content()[2] == {"n": b"1"}
        persister.submit(number(2))
        persister.submit((PutMeta("generation", b"3"),), durable=True)
        assert await persister.flush()
        assert disk.unforced == 0


async def test_while_one_transaction_is_written_all_that_comes_is_folded_into_the_next() -> None:
    storage = GatedStorage(MemoryDisk())
    async with writing(storage) as persister:
        persister.submit(number(0))
        await entered(storage)
        for value in range(1, 5001):
            persister.submit(number(value))
        assert persister.status()["pending"] == 1
        storage.gate.set()
        assert await persister.flush()
        assert storage.transactions == [list(number(0)), list(number(5000))]


@pytest.mark.req("CRD-8")
async def test_a_disk_that_refuses_is_tried_again_nothing_is_lost_and_status_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("meshd.runtime.persister.DISK_RETRY_MIN_S", 0.001)
    disk = MemoryDisk()
    async with writing(MemoryStorage(disk)) as persister:
        disk.fail_writes = "no space left on device"
        with structlog.testing.capture_logs() as lines:
            persister.submit((PutMeta("kept", b"1"), *number(1)))
            assert not await persister.flush()
            persister.submit(number(2))
            assert not await persister.flush()
            status = persister.status()
            assert status["ok"] is False
            assert "no space left" in str(status["last_error"])
            disk.fail_writes = None
            while not await persister.flush():
                await trio.lowlevel.checkpoint()
        assert persister.status() == {"ok": True, "pending": 0, "transactions": 1, "last_error": None}
        assert [line["event"] for line in lines] == ["storage_failed", "storage_recovered"]
    assert stored(disk) == {"kept": b"1", "n": b"2"}


async def test_a_bug_in_a_storage_does_not_end_the_writer_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshd.runtime.persister.DISK_RETRY_MIN_S", 0.001)
    storage = GatedStorage(MemoryDisk())
    storage.gate.set()
    storage.bugs = 2
    async with writing(storage) as persister:
        with structlog.testing.capture_logs() as lines:
            persister.submit(number(1))
            while not await persister.flush():
                await trio.lowlevel.checkpoint()
        assert isinstance(lines[0]["exc_info"], RuntimeError)
        assert storage.transactions == [list(number(1))]


@pytest.mark.req("SYN-14")
async def test_what_still_waits_at_stop_is_written_before_the_storage_is_closed() -> None:
    disk = MemoryDisk()
    storage = GatedStorage(disk)
    async with writing(storage) as persister:
        persister.submit(number(1))
        await entered(storage)
        persister.submit(number(2))
        storage.gate.set()
    assert storage.detached
    assert stored(disk) == {"n": b"2"}


async def test_a_disk_that_never_answers_does_not_hold_up_the_stop_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("meshd.runtime.persister.DISK_STOP_S", 0.01)
    storage = GatedStorage(MemoryDisk())
    with structlog.testing.capture_logs() as lines:
        async with writing(storage) as persister:
            persister.submit(number(1))
            await entered(storage)
    assert [line["event"] for line in lines] == ["storage_stop_timeout"]
    storage.gate.set()


async def test_the_direct_persister_keeps_what_the_disk_refused_for_the_next_write() -> None:
    disk = MemoryDisk()
    persister: Persister = DirectPersister(MemoryStorage(disk))
    disk.fail_writes = "full"
    persister.submit((PutMeta("kept", b"1"),))
    assert not await persister.flush()
    assert persister.status()["ok"] is False
    disk.fail_writes = None
    persister.submit(number(2), durable=True)
    assert await persister.flush()
    assert disk.content()[2] == {"kept": b"1", "n": b"2"}
    assert disk.unforced == 0


def test_storage_errors_say_that_they_are_ours() -> None:
    assert StorageError("full").http_status == 500
