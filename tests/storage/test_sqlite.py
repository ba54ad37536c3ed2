"""What only the store on SQLite has: files, permissions, damage, a schema, and many rows."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from crdt.owner_log import OwnerLog
from crdt.persist import PutEntries, PutLog, PutMeta
from meshd.errors import DataDirMismatch, StorageError
from meshd.storage import StoredState, open_sqlite, read_offline
from meshd.storage.sqlite_store import ROWS_PER_STATEMENT

NAME = "meshd.db"


def log_of(owner: str, count: int = 50, size_bytes: int = 100) -> OwnerLog:
    log = OwnerLog(owner, (1, 7))
    for number in range(count):
        log.append(f"worker:{owner}-{number}", number.to_bytes(4, "big") * (size_bytes // 4), number)
    log.append(f"worker:{owner}-gone", None, count)
    return log


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory of node `a` with the logs of `a` and `b`, closed."""
    data_dir = tmp_path / "data"
    storage = open_sqlite(data_dir, "normal", "a", "c")
    storage.load()
    for owner in ("a", "b"):
        log = log_of(owner)
        storage.write([PutLog(log.head()), PutEntries(owner, tuple(log.entries.values()))])
    storage.write([PutMeta("gen_counter", b"5")])
    storage.close()
    return data_dir


def load(data_dir: Path, node: str = "a") -> StoredState:
    storage = open_sqlite(data_dir, "normal", node, "c")
    state = storage.load()
    storage.close()
    return state


def edit(data_dir: Path, *statements: str) -> None:
    db = sqlite3.connect(data_dir / NAME)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


@pytest.mark.req("CRD-8")
def test_directory_and_files_are_readable_by_the_owner_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        data_dir = tmp_path / "deep" / "data"
        storage = open_sqlite(data_dir, "normal", "a", "c")
        storage.load()
        storage.write([PutMeta("hlc", b"1")])
        assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in data_dir.iterdir()}
        assert set(modes) == {NAME, NAME + "-wal", NAME + "-shm", "meshd.lock"}
        assert set(modes.values()) == {0o600}
        storage.close()
    finally:
        os.umask(old)


def test_an_open_directory_is_left_as_it_is_and_warned_about(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    state = load(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert len(state.problems) == 1
    assert "chmod 700" in state.problems[0]


@pytest.mark.req("CRD-8")
@pytest.mark.parametrize("offset", [0, 20, 100, 4096, 8192, 30_000])
def test_a_garbled_page_is_found_the_file_set_aside_and_the_node_starts(data: Path, offset: int) -> None:
    with (data / NAME).open("r+b") as file:
        file.seek(offset)
        file.write(bytes(range(160, 224)))
    before = (data / NAME).read_bytes()
    state = load(data)
    assert state.problems
    assert state.set_aside == [NAME + ".corrupt-1"]
    assert (data / (NAME + ".corrupt-1")).read_bytes()[: len(before)] == before
    for owner, log in state.logs.items():
        assert log.head() == log_of(owner).head()
    again = load(data)
    assert again.problems == again.set_aside == []
    assert again.logs.keys() == state.logs.keys()
    assert again.meta == state.meta


@pytest.mark.req("CRD-8")
@pytest.mark.parametrize(
    "content", [b"not a database at all", b"SQLite format 3\0" + b"\0" * 200, b"\0" * 10_000]
)
def test_a_file_that_is_no_database_is_set_aside_whole(data: Path, content: bytes) -> None:
    (data / NAME).write_bytes(content)
    state = load(data)
    assert state.fresh
    assert state.logs == {}
    assert "damaged" in state.problems[0]
    assert (data / (NAME + ".corrupt-1")).read_bytes() == content


@pytest.mark.req("CRD-8")
def test_a_truncated_file_is_found(data: Path) -> None:
    whole = (data / NAME).read_bytes()
    for number, size in enumerate((100, 4096, len(whole) // 2 // 4096 * 4096, len(whole) - 1), start=1):
        (data / NAME).write_bytes(whole[:size])
        state = load(data)
        assert state.set_aside == [f"{NAME}.corrupt-{number}"]
        assert state.problems


@pytest.mark.req("CRD-8")
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET body = x'93010203' WHERE rowid = 3",
        "UPDATE entries SET body = 'text' WHERE rowid = 3",
        "UPDATE entries SET key = 'worker:renamed' WHERE rowid = 3",
        "UPDATE entries SET crc = crc + 1 WHERE key LIKE 'worker:a-gone'",
        "DELETE FROM entries WHERE key = 'worker:a-7'",
        "UPDATE logs SET body = x'00' WHERE owner = 'a'",
        "UPDATE logs SET owner = 'z' WHERE owner = 'a'",
        "DELETE FROM logs WHERE owner = 'a'",
    ],
)
def test_damage_to_one_log_costs_that_log_only_and_is_reported(data: Path, statement: str) -> None:
    edit(data, statement)
    state = load(data)
    assert list(state.logs) == ["b"]
    assert state.logs["b"].head() == log_of("b").head()
    assert state.meta["gen_counter"] == b"5"
    assert not state.fresh
    assert state.problems
    assert state.set_aside == [NAME + ".corrupt-1"]
    assert load(data).problems == []


@pytest.mark.req("CRD-8")
def test_a_damaged_meta_value_is_dropped_and_reported_not_believed(data: Path) -> None:
    edit(data, "UPDATE meta SET body = '4' WHERE name = 'gen_counter'")
    state = load(data)
    assert "gen_counter" not in state.meta
    assert sorted(state.logs) == ["a", "b"]
    assert "gen_counter" in state.problems[0]


@pytest.mark.req("CRD-8")
def test_a_write_ahead_log_without_its_database_is_not_believed(data: Path) -> None:
    (data / NAME).rename(data / "elsewhere")
    (data / (NAME + "-wal")).write_bytes(b"left over")
    state = load(data)
    assert state.fresh
    assert state.set_aside == [NAME + ".corrupt-1-wal"]


@pytest.mark.req("SYN-2")
def test_a_mismatch_names_the_way_out(data: Path) -> None:
    storage = open_sqlite(data, "normal", "b", "c")
    with pytest.raises(DataDirMismatch) as refusal:
        storage.load()
    assert refusal.value.field == "node.name"
    for way_out in ("'a'", "--data-dir", "move the old one away"):
        assert way_out in refusal.value.message
    assert sorted(load(data).logs) == ["a", "b"]


@pytest.mark.req("CRD-8")
def test_a_database_of_a_newer_meshd_is_refused_and_not_touched(data: Path) -> None:
    edit(data, "PRAGMA user_version = 99")
    before = (data / NAME).read_bytes()
    storage = open_sqlite(data, "normal", "a", "c")
    with pytest.raises(StorageError, match="format 99"):
        storage.load()
    assert (data / NAME).read_bytes() == before


@pytest.mark.req("CTL-1")
def test_a_data_directory_is_read_offline_beside_a_running_daemon_and_nothing_is_changed(data: Path) -> None:
    storage = open_sqlite(data, "normal", "a", "c")
    storage.load()
    storage.write([PutMeta("hlc", b"9")])
    state = read_offline(data)
    assert sorted(state.logs) == ["a", "b"]
    assert state.meta["hlc"] == b"9"
    storage.close()
    edit(data, "DELETE FROM entries WHERE key = 'worker:a-7'")
    assert list(read_offline(data).logs) == ["b"]
    assert read_offline(data).damaged_owners == ["a"]
    assert not list(data.glob("*corrupt*"))
    with pytest.raises(StorageError):
        read_offline(data / "nowhere")


@pytest.mark.req("CRD-8")
def test_a_log_of_many_records_is_loaded_as_it_was_written(tmp_path: Path) -> None:
    """More than three statements' worth of rows. The time that 100,000 take is a figure of `make bench`."""
    storage = open_sqlite(tmp_path / "data", "normal", "a", "c")
    storage.load()
    log = log_of("a", 3 * ROWS_PER_STATEMENT, 600)
    storage.write([PutLog(log.head()), PutEntries("a", tuple(log.entries.values()))])
    storage.close()
    state = load(tmp_path / "data")
    assert state.problems == []
    assert state.logs["a"].head() == log.head()
    assert list(state.logs["a"].entries.items()) == list(log.entries.items())
