"""Snapshots.

Nothing is lost on the way, nothing damaged is believed, and restoring an old one harms nobody.
"""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.lww_map import LwwMap
from crdt.owner_log import OwnerLog
from crdt.persist import PutEntries, PutLog, PutMeta
from crdt.prefixes import Claim, Envelope, Prefix, PrefixTable, Rule, seal, unseal
from meshd.errors import DataDirLocked, DataDirMismatch, StorageError
from meshd.storage import (
    Snapshot,
    SnapshotError,
    StoredState,
    open_sqlite,
    read_offline,
    read_snapshot,
    restore_snapshot,
    snapshot_chunks,
)

PREFIXES = PrefixTable(
    Prefix("worker:", Rule.SINGLE_WRITER, lambda owner, key, value: Claim.OWN),
    Prefix("config:", Rule.MULTI_WRITER),
)


def log_of(owner: str, count: int = 700) -> OwnerLog:
    log = OwnerLog(owner, (4, 99))
    log.lineage = {(3, 5): 17}
    for number in range(count):
        log.append(f"worker:{owner}-{number}", bytes([number % 251]) * 600, number, (3, 5, number + 1))
    log.append(f"worker:{owner}-gone", None, 1)
    return log


def state_of(*logs: OwnerLog, **meta: bytes) -> StoredState:
    return StoredState({log.owner: log for log in logs}, {"node": b"a", "cluster": b"c", **meta})


def saved(state: StoredState) -> bytes:
    return b"".join(snapshot_chunks(state, taken_ms=1_700_000_000_000))


def reread(data: bytes) -> Snapshot:
    return read_snapshot(io.BytesIO(data))


@pytest.mark.req("CRD-8")
def test_a_snapshot_comes_back_as_it_was_saved() -> None:
    state = state_of(log_of("a"), log_of("b", 3), gen_counter=b"4", hlc=b"\x00\xff")
    snapshot = reread(saved(state))
    assert (snapshot.node, snapshot.cluster, snapshot.taken_ms) == ("a", "c", 1_700_000_000_000)
    assert snapshot.state.meta == state.meta
    for owner, log in state.logs.items():
        assert snapshot.state.logs[owner].head() == log.head()
        assert list(snapshot.state.logs[owner].entries.items()) == list(log.entries.items())
    assert snapshot.summary()["owners"] == [
        {"owner": "a", "gen": "4.0000000000000063", "max": 701, "floor": 0, "live": 700, "tombstones": 1},
        {"owner": "b", "gen": "4.0000000000000063", "max": 4, "floor": 0, "live": 3, "tombstones": 1},
    ]


SMALL = saved(state_of(log_of("a", 5), log_of("b", 2), gen_counter=b"4"))


@pytest.mark.req("CRD-8")
@given(st.integers(0, len(SMALL) - 1), st.integers(1, 255))
def test_a_snapshot_with_any_byte_altered_is_refused(place: int, change: int) -> None:
    altered = bytearray(SMALL)
    altered[place] ^= change
    with pytest.raises(SnapshotError):
        reread(bytes(altered))


@pytest.mark.req("CRD-8")
def test_a_snapshot_cut_short_anywhere_or_with_a_tail_is_refused() -> None:
    for size in range(len(SMALL)):
        with pytest.raises(SnapshotError):
            reread(SMALL[:size])
    with pytest.raises(SnapshotError, match="more after the end"):
        reread(SMALL + b"\0")


@given(st.binary(max_size=200))
def test_bytes_that_are_no_snapshot_raise_nothing_but_the_snapshot_error(noise: bytes) -> None:
    for data in (noise, b"meshd-snapshot 1\n" + noise):
        with pytest.raises(SnapshotError):
            reread(data)


def test_a_snapshot_of_a_later_format_says_so() -> None:
    with pytest.raises(SnapshotError, match="newer format"):
        reread(b"meshd-snapshot 2\n" + SMALL)


def test_damaged_or_unbound_data_is_not_saved() -> None:
    with pytest.raises(SnapshotError, match="damaged"):
        snapshot_chunks(StoredState(meta={"node": b"a", "cluster": b"c"}, problems=["torn"]), 0)
    with pytest.raises(SnapshotError, match="nothing to save"):
        snapshot_chunks(StoredState(), 0)


@pytest.fixture
def running(tmp_path: Path) -> Path:
    """A data directory of node `a` with its log and that of `b`."""
    storage = open_sqlite(tmp_path / "data", "normal", "a", "c")
    storage.load()
    for log in (log_of("a", 5), log_of("b", 2)):
        storage.write([PutLog(log.head()), PutEntries(log.owner, tuple(log.entries.values()))])
    storage.write([PutMeta("gen_counter", b"4"), PutMeta("contact:b", b"12")])
    storage.close()
    return tmp_path / "data"


def snapshot_of(data_dir: Path) -> Snapshot:
    return reread(saved(read_offline(data_dir)))


@pytest.mark.req("CRD-8")
def test_a_snapshot_is_taken_beside_a_running_daemon(running: Path) -> None:
    storage = open_sqlite(running, "normal", "a", "c")
    storage.load()
    storage.write([PutMeta("hlc", b"7")])
    assert snapshot_of(running).state.meta["hlc"] == b"7"
    storage.close()


@pytest.mark.req("CRD-4", "CRD-8")
def test_a_restored_node_keeps_its_keys_under_a_generation_never_used_before(
    running: Path, tmp_path: Path
) -> None:
    snapshot = snapshot_of(running)
    gens = set()
    for number, random_bits in enumerate((1, 2)):
        target = tmp_path / f"restored-{number}"
        assert restore_snapshot(snapshot, target, PREFIXES, random_bits) == []
        storage = open_sqlite(target, "normal", "a", "c")
        state = storage.load()
        storage.close()
        own = state.logs["a"]
        assert state.problems == []
        assert {key: entry[4] for key, entry in own.entries.items()} == {
            key: entry[4] for key, entry in log_of("a", 5).entries.items()
        }
        assert own.gen[0] == 5
        assert own.covers((4, 99), 6)
        assert own.covers((3, 5), 17)
        assert state.meta["gen_counter"] == b"5"
        assert "contact:b" not in state.meta
        assert list(state.logs) == ["a"]
        gens.add(own.gen)
    assert len(gens) == 2


@pytest.mark.req("CRD-6", "CRD-8")
def test_an_old_snapshot_does_not_bring_back_what_was_removed_since(running: Path, tmp_path: Path) -> None:
    snapshot = snapshot_of(running)
    # Life goes on after the snapshot: a key is removed, its tombstone collected, and a peer has seen it all.
    after = LwwMap("a", PREFIXES, logs=read_offline(running).logs)
    after.start_life((5, 123))
    after.delete("worker:a-3", 0)
    after.put("worker:a-new", b"new", 0)
    after.collect_own(after.own.max)
    at_the_peer = OwnerLog.restore(after.own.head(), tuple(after.own.entries.values()))

    restore_snapshot(snapshot, tmp_path / "restored", PREFIXES, 77)
    restored = read_offline(tmp_path / "restored")
    again = LwwMap("a", PREFIXES, logs=restored.logs)
    again.start_life((6, 456))
    assert again.visible("worker:a-3") is not None
    again.absorb_own(at_the_peer, (7, 456))
    assert again.visible("worker:a-3") is None
    assert again.visible("worker:a-new") is not None
    assert again.visible("worker:a-2") is not None


@pytest.mark.req("CRD-3", "CRD-8")
def test_cluster_wide_settings_that_others_wrote_are_restored_with_their_stamps(tmp_path: Path) -> None:
    mine, theirs = OwnerLog("a", (1, 1)), OwnerLog("b", (1, 2))
    mine.append("config:x", seal(Envelope(1, "a", b"old")), 1)
    theirs.append("config:x", seal(Envelope(2, "b", b"new")), 2)
    theirs.append("worker:b-1", b"worker", 3)
    restore_snapshot(reread(saved(state_of(mine, theirs))), tmp_path / "restored", PREFIXES, 1)
    logs = read_offline(tmp_path / "restored").logs
    assert list(logs) == ["a"]
    assert list(logs["a"].entries) == ["config:x"]
    value = logs["a"].entries["config:x"][4]
    assert value is not None
    assert unseal(value) == Envelope(2, "b", b"new")


@pytest.mark.req("CRD-8")
def test_restoring_replaces_a_store_only_when_asked_and_keeps_the_former_one(running: Path) -> None:
    snapshot = snapshot_of(running)
    before = (running / "meshd.db").read_bytes()
    with pytest.raises(StorageError, match="holds a store already"):
        restore_snapshot(snapshot, running, PREFIXES, 1)
    assert (running / "meshd.db").read_bytes() == before
    assert restore_snapshot(snapshot, running, PREFIXES, 1, replace=True) == ["meshd.db.before-restore-1"]
    assert (running / "meshd.db.before-restore-1").read_bytes() == before
    assert read_offline(running).meta["gen_counter"] == b"5"
    (running / "meshd.db").write_bytes(b"garbage")
    assert restore_snapshot(snapshot, running, PREFIXES, 2, replace=True)[0] == "meshd.db.before-restore-2"
    assert (running / "meshd.db.before-restore-2").read_bytes() == b"garbage"
    assert read_offline(running).problems == []
    assert not (running / "workshop").exists()


@pytest.mark.req("SYN-2", "CRD-8")
def test_a_running_daemon_and_another_nodes_directory_are_left_alone(running: Path, tmp_path: Path) -> None:
    snapshot = snapshot_of(running)
    storage = open_sqlite(running, "normal", "a", "c")
    storage.load()
    with pytest.raises(DataDirLocked):
        restore_snapshot(snapshot, running, PREFIXES, 1, replace=True)
    storage.close()
    other = open_sqlite(tmp_path / "other", "normal", "b", "c")
    other.load()
    other.close()
    with pytest.raises(DataDirMismatch, match="'b'"):
        restore_snapshot(snapshot, tmp_path / "other", PREFIXES, 1, replace=True)
