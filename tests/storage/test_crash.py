"""Crash safety: whatever moment a crash picks, the next start finds a prefix of the transactions, whole.

The images of a crash are made from the files themselves. A write-ahead log grows at its end, so every
moment of a write is a prefix of it; a checkpoint copies its pages into the database, so every moment of
one is some of these pages copied. On top of that come tails that are garbage, a log that began anew over
its old content, replacements of a damaged database that die at each of their steps, and real processes
that are killed.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from crdt.owner_log import OwnerLog
from crdt.persist import PutEntries, PutLog, PutMeta
from crdt.prefixes import Claim, Prefix, PrefixTable, Rule
from meshd.storage import (
    SqliteStorage,
    StoredState,
    open_sqlite,
    read_offline,
    read_snapshot,
    restore_snapshot,
    snapshot_chunks,
)
from meshd.storage import data_dir as data_dir_module
from tests.support.disk_work import CLUSTER, NODE, differences, expected, step_of, steps

ROOT = Path(__file__).resolve().parents[2]
SEED = 5
STEPS = 16
WAL_HEADER_BYTES, FRAME_HEADER_BYTES, PAGE_BYTES = 32, 24, 4096
FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES
#: Places within a frame where a write may have ended: its header and its page, begun and half done.
WITHIN_FRAME = (0, 1, 12, FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + PAGE_BYTES // 2, FRAME_BYTES - 1)


class Files:
    """The bytes of a database and its write-ahead log at one moment."""

    def __init__(self, directory: Path) -> None:
        self.database = (directory / "meshd.db").read_bytes()
        self.wal = (directory / "meshd.db-wal").read_bytes()


def log_of(owner: str, count: int) -> OwnerLog:
    log = OwnerLog(owner, (4, 99))
    for number in range(count):
        log.append(f"worker:{owner}-{number}", bytes([number]) * 600, number)
    return log


@pytest.fixture
def image(tmp_path: Path) -> Callable[[bytes, bytes], StoredState]:
    """Starts a node on a crash image, lets it go on writing, and starts it again.

    Gives what the first start found.
    """
    place = tmp_path / "image"

    def start(database: bytes, wal: bytes) -> StoredState:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(0o700)
        (place / "meshd.db").write_bytes(database)
        (place / "meshd.db-wal").write_bytes(wal)
        storage = open_sqlite(place, "normal", NODE, CLUSTER)
        state = storage.load()
        assert differences(state, SEED) == []
        storage.write([PutMeta("after", b"crash")])
        storage.close()
        again = read_offline(place)
        assert differences(again, SEED) == []
        assert again.meta["after"] == b"crash"
        return state

    return start


@pytest.fixture
def worked(tmp_path: Path) -> Iterator[tuple[SqliteStorage, Path]]:
    """A store after STEPS transactions, all of them still in its write-ahead log."""
    directory = tmp_path / "data"
    storage = open_sqlite(directory, "normal", NODE, CLUSTER)
    storage.load()
    work(storage, 1, STEPS)
    yield storage, directory
    storage.close()


def work(storage: SqliteStorage, first: int, last: int) -> None:
    for step in steps(SEED):
        if step.number > last:
            return
        if step.number >= first:
            (storage.write_durably if step.durable else storage.write)(step.ops)


def checkpoint(directory: Path) -> None:
    db = sqlite3.connect(directory / "meshd.db")
    busy, _, _ = db.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
    assert busy == 0
    db.close()


@pytest.mark.req("CRD-8", "CRD-4")
@pytest.mark.slow
def test_a_crash_at_any_point_of_any_write_leaves_a_prefix_of_the_transactions(
    worked: tuple[SqliteStorage, Path], image: Callable[[bytes, bytes], StoredState]
) -> None:
    files = Files(worked[1])
    frames = (len(files.wal) - WAL_HEADER_BYTES) // FRAME_BYTES
    assert frames > STEPS
    reached = []
    for cut in (0, 7, WAL_HEADER_BYTES - 1):
        reached.append(step_of(image(files.database, files.wal[:cut])))
    for frame in range(frames):
        for within in WITHIN_FRAME:
            cut = WAL_HEADER_BYTES + frame * FRAME_BYTES + within
            reached.append(step_of(image(files.database, files.wal[:cut])))
    reached.append(step_of(image(files.database, files.wal)))
    assert reached == sorted(reached)
    assert set(reached) == set(range(STEPS + 1))


@pytest.mark.req("CRD-8", "CRD-4")
@pytest.mark.slow
def test_a_garbled_tail_leaves_a_prefix_of_the_transactions(
    worked: tuple[SqliteStorage, Path], image: Callable[[bytes, bytes], StoredState]
) -> None:
    files = Files(worked[1])
    rng = random.Random(1)
    reached = set()
    for _ in range(150):
        place = rng.randrange(len(files.wal))
        garbled = bytearray(files.wal)
        match rng.randrange(3):
            case 0:
                garbled[place] ^= 1 << rng.randrange(8)
            case 1:
                garbled[place:] = rng.randbytes(len(garbled) - place)
            case _:
                garbled[place:] = bytes(len(garbled) - place)
        reached.add(step_of(image(files.database, bytes(garbled))))
    assert len(reached) > 10


@pytest.mark.req("CRD-8")
@pytest.mark.slow
def test_a_crash_at_any_point_of_a_checkpoint_loses_nothing(
    worked: tuple[SqliteStorage, Path], image: Callable[[bytes, bytes], StoredState]
) -> None:
    files = Files(worked[1])
    newest: dict[int, bytes] = {}
    for start in range(WAL_HEADER_BYTES, len(files.wal) - FRAME_BYTES + 1, FRAME_BYTES):
        page_number = int.from_bytes(files.wal[start : start + 4], "big")
        newest[page_number] = files.wal[start + FRAME_HEADER_BYTES : start + FRAME_BYTES]
    database = bytearray(files.database)
    for page_number, page in sorted(newest.items()):
        place = (page_number - 1) * PAGE_BYTES
        database.extend(bytes(max(0, place + PAGE_BYTES - len(database))))
        for part in (page[: PAGE_BYTES // 2], page):
            database[place : place + len(part)] = part
            assert step_of(image(bytes(database), files.wal)) == STEPS


@pytest.mark.req("CRD-8")
@pytest.mark.slow
def test_a_crash_while_a_new_write_ahead_log_grows_over_the_old_one_loses_nothing_older(
    worked: tuple[SqliteStorage, Path], image: Callable[[bytes, bytes], StoredState]
) -> None:
    storage, directory = worked
    checkpoint(directory)
    old = Files(directory)
    work(storage, STEPS + 1, STEPS + 4)
    new = Files(directory)
    assert len(new.wal) == len(old.wal)
    assert new.database == old.database
    changed = max(place for place in range(len(new.wal)) if new.wal[place] != old.wal[place])
    cuts = [0, 1, 16, 31, *range(WAL_HEADER_BYTES, changed + FRAME_BYTES, FRAME_BYTES // 3)]
    reached = [step_of(image(old.database, new.wal[:cut] + old.wal[cut:])) for cut in cuts]
    assert reached[0] == STEPS
    assert reached == sorted(reached)
    assert reached[-1] == STEPS + 4


class DeadlyCalls:
    """Ends the process, as a power cut would, at the n-th step of replacing a file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, deadly: int) -> None:
        self._left = deadly
        self._patch(monkeypatch, os, "link")
        self._patch(monkeypatch, Path, "rename")
        self._patch(monkeypatch, Path, "replace")
        self._patch(monkeypatch, shutil, "rmtree")
        self._patch(monkeypatch, data_dir_module, "sync_directory")
        self._patch(monkeypatch, SqliteStorage, "write_durably")

    def _patch(self, monkeypatch: pytest.MonkeyPatch, where: object, name: str) -> None:
        real = getattr(where, name)

        def counted(*args: object, **more: object) -> object:
            self._left -= 1
            if self._left == 0:
                os._exit(9)
            return real(*args, **more)

        monkeypatch.setattr(where, name, counted)


def dies(monkeypatch: pytest.MonkeyPatch, deadly: int, action: Callable[[], object]) -> bool:
    """Run `action` in a process of its own that dies at its step number `deadly`; whether it got that far."""
    pid = os.fork()
    if pid == 0:
        try:
            DeadlyCalls(monkeypatch, deadly)
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 9)
    return status == 9


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A directory of `a` in which the log of `b` is damaged, and the log of `a` is not."""
    directory = tmp_path / "damaged"
    storage = open_sqlite(directory, "normal", "a", "c")
    storage.load()
    for owner in ("a", "b"):
        log = log_of(owner, 20)
        storage.write([PutLog(log.head()), PutEntries(owner, tuple(log.entries.values()))])
    storage.write([PutMeta("gen_counter", b"4")])
    storage.close()
    db = sqlite3.connect(directory / "meshd.db")
    db.execute("DELETE FROM entries WHERE key = 'worker:b-7'")
    db.commit()
    db.close()
    return directory


@pytest.mark.req("CRD-8")
@pytest.mark.slow
def test_a_crash_while_a_damaged_file_is_set_aside_loses_neither_it_nor_what_was_sound(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = log_of("a", 20).head()
    deadly = 1
    while True:
        place = tmp_path / f"crash-{deadly}"
        shutil.copytree(damaged, place)
        died = dies(monkeypatch, deadly, partial(start, place))
        state = start(place)
        assert state.logs["a"].head() == sound
        assert list(state.logs) == ["a"]
        assert state.meta["gen_counter"] == b"4"
        aside = [read_offline_file(path) for path in place.glob("meshd.db.corrupt-?")]
        assert any("b" in damaged_owners for damaged_owners in aside)
        assert not (place / "workshop").exists()
        if not died:
            break
        deadly += 1
    assert deadly > 5


def start(directory: Path) -> StoredState:
    storage = open_sqlite(directory, "normal", "a", "c")
    state = storage.load()
    storage.close()
    return state


def read_offline_file(database: Path) -> list[str]:
    """The owners whose logs are damaged in a file that was set aside."""
    copy = database.parent / "look"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    shutil.copy(database, copy / "meshd.db")
    owners = read_offline(copy).damaged_owners
    shutil.rmtree(copy)
    return owners


@pytest.mark.req("CRD-8")
@pytest.mark.slow
def test_a_crash_while_a_snapshot_is_restored_leaves_the_old_store_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefixes = PrefixTable(Prefix("worker:", Rule.SINGLE_WRITER, lambda owner, key, value: Claim.OWN))
    before = tmp_path / "before"
    storage = open_sqlite(before, "normal", "a", "c")
    storage.load()
    log = log_of("a", 20)
    storage.write(
        [PutLog(log.head()), PutEntries("a", tuple(log.entries.values())), PutMeta("gen_counter", b"4")]
    )
    storage.close()
    snapshot = read_snapshot(io.BytesIO(b"".join(snapshot_chunks(read_offline(before), 0))))
    outcomes = set()
    deadly = 1
    while True:
        place = tmp_path / f"crash-{deadly}"
        shutil.copytree(before, place)
        died = dies(
            monkeypatch, deadly, partial(restore_snapshot, snapshot, place, prefixes, 1, replace=True)
        )
        state = start(place)
        assert state.problems == []
        assert state.logs["a"].live_count == 20
        outcomes.add(state.meta["gen_counter"])
        if not died:
            break
        deadly += 1
    assert outcomes == {b"4", b"5"}
    assert deadly > 4


@pytest.mark.req("CRD-8", "CRD-4")
@pytest.mark.slow
def test_a_killed_writer_loses_nothing_that_it_was_told_is_written(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    rng = random.Random(2)
    reached = 0
    for _ in range(6):
        command = [
            sys.executable,
            "-m",
            "tests.support.disk_work",
            str(directory),
            str(SEED),
            str(reached + 1),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as writer:
            assert writer.stdout is not None
            try:
                told = [writer.stdout.readline() for _ in range(rng.randint(1, 60))]
            finally:
                writer.send_signal(signal.SIGKILL)
            told += writer.stdout.read().split(b"\n")[:-1]
        acknowledged = max(int(number) for number in told)
        storage = open_sqlite(directory, "normal", NODE, CLUSTER)
        state = storage.load()
        storage.close()
        assert differences(state, SEED) == []
        reached = step_of(state)
        assert reached >= acknowledged
    assert expected(SEED, reached).logs
