"""The faults that the memory storage can play, each as its disk would."""

from __future__ import annotations

import pytest

from crdt.owner_log import OwnerLog
from crdt.persist import PutEntries, PutLog, PutMeta
from meshd.errors import StorageError
from meshd.storage import MemoryDisk, MemoryStorage
from meshd.storage.memory import UNDO_LIMIT


def counted(disk: MemoryDisk) -> int:
    storage = MemoryStorage(disk)
    value = storage.load().meta.get("n", b"0")
    storage.close()
    return int(value)


def write_numbers(
    disk: MemoryDisk, first: int, last: int, durable: int = 0, durability: str = "normal"
) -> None:
    storage = MemoryStorage(disk, durability=durability)
    for number in range(first, last + 1):
        write = storage.write_durably if number == durable else storage.write
        write([PutMeta("n", b"%d" % number)])


@pytest.mark.req("CRD-8")
def test_a_crash_loses_a_suffix_of_unforced_transactions_only() -> None:
    disk = MemoryDisk()
    write_numbers(disk, 1, 5, durable=3)
    assert disk.unforced == 2
    assert disk.crash(lose=1) == 1
    assert counted(disk) == 4
    write_numbers(disk, 5, 6)
    assert disk.crash(lose=99) == 3
    assert counted(disk) == 3


@pytest.mark.req("CRD-8")
def test_full_durability_loses_nothing_unless_the_disk_lies() -> None:
    disk = MemoryDisk()
    write_numbers(disk, 1, 5, durability="full")
    assert disk.crash(lose=3) == 0
    assert counted(disk) == 5
    assert disk.crash(lose=3, lying=True) == 3
    assert counted(disk) == 2


def test_only_the_last_transactions_can_be_undone() -> None:
    disk = MemoryDisk()
    write_numbers(disk, 1, UNDO_LIMIT + 10)
    assert disk.crash(lose=10_000, lying=True) == UNDO_LIMIT
    assert counted(disk) == 10


def test_a_handle_from_before_the_crash_is_dead() -> None:
    disk = MemoryDisk()
    storage = MemoryStorage(disk)
    disk.crash()
    with pytest.raises(StorageError):
        storage.write([PutMeta("n", b"1")])
    storage.close()
    assert counted(disk) == 0


def test_a_disk_that_fails_writes_changes_nothing_until_it_works_again() -> None:
    disk = MemoryDisk()
    storage = MemoryStorage(disk)
    disk.fail_writes = "no space left"
    with pytest.raises(StorageError, match="no space left"):
        storage.write([PutMeta("n", b"1")])
    disk.fail_writes = None
    storage.write([PutMeta("n", b"2")])
    storage.close()
    assert counted(disk) == 2


def test_a_lost_disk_a_clone_and_an_image_put_back_are_what_they_say() -> None:
    disk = MemoryDisk()
    write_numbers(disk, 1, 2)
    image = disk.clone()
    write_numbers(image, 3, 3)
    disk.crash()
    write_numbers(disk, 7, 9)
    assert (counted(image.clone()), counted(disk.clone())) == (3, 9)
    disk.revert(image)
    assert counted(disk) == 3
    disk.wipe()
    assert counted(disk) == 0
    image.crash()
    assert counted(image) == 3


@pytest.mark.req("CRD-8")
def test_a_garbled_value_costs_that_log_only_and_is_reported() -> None:
    disk = MemoryDisk()
    storage = MemoryStorage(disk)
    for owner in ("a", "b"):
        log = OwnerLog(owner, (1, 1))
        log.append("worker:1", b"value", 1)
        storage.write([PutLog(log.head()), PutEntries(owner, tuple(log.entries.values()))])
    disk.crash()
    assert not disk.garble("a", "worker:none")
    assert disk.garble("a", "worker:1")
    state = MemoryStorage(disk).load()
    assert list(state.logs) == ["b"]
    assert state.damaged_owners == ["a"]
    assert len(state.problems) == len(state.set_aside) == 1
    disk.crash()
    assert MemoryStorage(disk).load().problems == []
