"""One suite over every storage: whatever it is made of, a node may rely on the same things."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from crdt.owner_log import OwnerLog
from crdt.persist import DropKeys, DropLog, PutEntries, PutLog, PutMeta, ReplaceLog, StoreOp
from crdt.types import FENCE_NONCE
from meshd.errors import DataDirLocked, DataDirMismatch, StorageError
from meshd.storage import MemoryDisk, MemoryStorage, Storage, StoredState, open_sqlite

Opener = Callable[..., Storage]


@pytest.fixture(params=["sqlite-normal", "sqlite-full", "memory-normal", "memory-full"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    kind, durability = request.param.split("-")
    disk = MemoryDisk()

    def opener(node: str = "a", cluster: str = "c") -> Storage:
        if kind == "sqlite":
            return open_sqlite(tmp_path / "data", durability, node, cluster)
        return MemoryStorage(disk, durability=durability, node_name=node, cluster=cluster)

    return opener


def filled_log(owner: str, count: int = 5) -> OwnerLog:
    log = OwnerLog(owner, (3, 2**62))
    for number in range(count):
        log.append(
            f"worker:{number}", b"v%d" % number, 2**60 + number, (1, 9, number + 1) if number % 2 else None
        )
    log.append("worker:gone", None, 77)
    log.lineage = {(1, 9): 4, (2, FENCE_NONCE): 0}
    return log


def everything(log: OwnerLog) -> list[StoreOp]:
    return [PutLog(log.head()), PutEntries(log.owner, tuple(log.entries.values()))]


def load_again(storage: Storage, reopen: Opener) -> StoredState:
    storage.close()
    again = reopen()
    state = again.load()
    again.close()
    return state


def same(one: OwnerLog, other: OwnerLog) -> bool:
    return one.head() == other.head() and list(one.entries.items()) == list(other.entries.items())


@pytest.mark.req("CRD-8")
def test_a_first_start_finds_nothing_and_says_so(reopen: Opener) -> None:
    storage = reopen()
    state = storage.load()
    storage.close()
    assert state.fresh
    assert (state.logs, state.problems, state.set_aside) == ({}, [], [])


@pytest.mark.req("CRD-8")
def test_what_was_written_is_there_after_a_restart_in_seq_order(reopen: Opener) -> None:
    storage = reopen()
    storage.load()
    log = filled_log("a")
    storage.write([*everything(log), PutMeta("gen_counter", b"\x03")])
    log.append("worker:0", b"newer", 2**60 + 99)
    storage.write([PutLog(log.head()), PutEntries("a", tuple(log.since(6)))])
    state = load_again(storage, reopen)
    assert not state.fresh
    assert state.problems == []
    assert same(state.logs["a"], log)
    assert [entry[1] for entry in state.logs["a"].entries.values()] == [2, 3, 4, 5, 6, 7]
    assert state.meta["gen_counter"] == b"\x03"


@pytest.mark.req("CRD-8")
def test_heads_and_entries_keep_every_field_at_the_ends_of_their_ranges(reopen: Opener) -> None:
    storage = reopen()
    storage.load()
    log = OwnerLog("knoten-ü\n\0", (2**53 - 1, 2**63 - 1))
    log.extend([("k" * 512, 2**53 - 2, (2**53 - 1, 2**63 - 1, 2**53), 2**64 - 1, b"", b"s" * 64)], 2**53 - 1)
    log.extend([("ключ\0", 2**53, None, 0, b"\0" * 262144, None)], 2**53)
    log.floor, log.base, log.signature = 2**53 - 5, 2**53 - 6, b"signed"
    storage.write(everything(log))
    assert same(load_again(storage, reopen).logs[log.owner], log)


@pytest.mark.req("CRD-8")
def test_dropped_keys_dropped_logs_and_removed_meta_stay_gone(reopen: Opener) -> None:
    storage = reopen()
    storage.load()
    mine, other = filled_log("a"), filled_log("b")
    storage.write([*everything(mine), *everything(other), PutMeta("fence:b", b"1"), PutMeta("hlc", b"2")])
    dropped = mine.collect(mine.max)
    storage.write(
        [PutLog(mine.head()), DropKeys("a", tuple(dropped)), DropLog("b"), PutMeta("fence:b", None)]
    )
    storage.write([DropLog("never heard of"), DropKeys("nor of this", ("k",)), PutMeta("nor this", None)])
    state = load_again(storage, reopen)
    assert dropped == ["worker:gone"]
    assert list(state.logs) == ["a"]
    assert same(state.logs["a"], mine)
    assert "fence:b" not in state.meta
    assert state.meta["hlc"] == b"2"


@pytest.mark.req("CRD-8")
def test_a_replaced_log_holds_nothing_of_the_old_one(reopen: Opener) -> None:
    storage = reopen()
    storage.load()
    storage.write(everything(filled_log("b", 40)))
    successor = OwnerLog("b", (4, 1))
    successor.append("worker:only", b"x", 5)
    storage.write([ReplaceLog(successor.head(), tuple(successor.entries.values()))])
    assert same(load_again(storage, reopen).logs["b"], successor)


@pytest.mark.req("CRD-8")
def test_many_rows_in_one_operation_are_all_stored(reopen: Opener) -> None:
    storage = reopen()
    storage.load()
    log = filled_log("a", 3000)
    storage.write_durably(everything(log))
    assert same(load_again(storage, reopen).logs["a"], log)


@pytest.mark.req("CRD-8")
def test_a_transaction_that_fails_half_way_leaves_nothing_behind(reopen: Opener) -> None:
    storage = reopen()
    storage.load()
    storage.write([PutMeta("hlc", b"before")])
    headless = filled_log("z")
    with pytest.raises(ValueError, match="no head"):
        storage.write(
            [
                PutMeta("hlc", b"after"),
                *everything(filled_log("b")),
                PutEntries("z", tuple(headless.since(0))),
            ]
        )
    storage.write([PutMeta("later", b"works")])
    state = load_again(storage, reopen)
    assert state.meta["hlc"] == b"before"
    assert state.meta["later"] == b"works"
    assert state.logs == {}


@pytest.mark.req("SYN-2")
def test_a_data_directory_refuses_another_node_name_or_cluster_and_keeps_its_content(reopen: Opener) -> None:
    storage = reopen()
    storage.load()
    storage.write([PutMeta("gen_counter", b"7")])
    storage.close()
    for node, cluster in (("b", "c"), ("a", "other")):
        stranger = reopen(node, cluster)
        with pytest.raises(DataDirMismatch) as refusal:
            stranger.load()
        assert "'a'" in str(refusal.value) or "'c'" in str(refusal.value)
    owner = reopen()
    assert owner.load().meta["gen_counter"] == b"7"
    owner.close()


@pytest.mark.req("SYN-2")
def test_two_processes_cannot_use_one_directory_at_once(reopen: Opener) -> None:
    first = reopen()
    first.load()
    with pytest.raises(DataDirLocked):
        reopen()
    first.close()
    second = reopen()
    second.load()
    second.close()


def test_a_closed_storage_takes_no_writes_and_closes_again_without_complaint(reopen: Opener) -> None:
    storage = reopen()
    storage.load()
    storage.close()
    storage.close()
    with pytest.raises(StorageError):
        storage.write([PutMeta("hlc", b"1")])
