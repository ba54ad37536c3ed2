"""The store on disk: SQLite with a write-ahead log, one writer, one transaction per `write`.

Tables (all with rowids: at our row size `WITHOUT ROWID` halves the write rate):
  logs(id, owner, body, crc)      one head per owner's log
  entries(log, key, body, crc)    one row per key of a log, live or tombstone
  meta(name, body, crc)           small named values, among them the node and cluster the file belongs to

Rules: `PRAGMA user_version` names the schema; a file of a newer schema is refused, never "repaired".
Damage is looked for at three depths when loading: SQLite's own structure check, a checksum per row, and
each log's hash over its live entries. A file that fails the first is moved aside whole. If single rows or
logs fail, the file is moved aside as well, and a new one is written with everything that verified.

Durability: `normal` forces to the disk at checkpoints only (a power cut may lose the last moments, a
crash of the process loses nothing); `full` at every transaction. `write_durably` forces always.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from crdt.persist import DropKeys, DropLog, PutEntries, PutLog, PutMeta, ReplaceLog, StoreOp
from crdt.types import KEY, Entry, LogHead
from meshd.errors import DataDirMismatch, StorageError
from meshd.storage.data_dir import (
    DATABASE_NAME,
    WORKSHOP_NAME,
    DirectoryLock,
    create_private,
    orphaned_companions,
    prepare_directory,
    put_in_place,
    sync_directory,
)
from meshd.storage.interface import StoredState
from meshd.storage.rows import pack_entry, pack_head, row_crc
from meshd.storage.sqlite_read import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    Damaged,
    check_format,
    lenient_text,
    raise_if_damaged,
    read_state,
    rows_of,
)

#: Rows per INSERT. One statement is one release of the interpreter lock, so big ones keep the writer from
#: being starved by a busy main thread; SQLite allows 32,766 parameters.
ROWS_PER_STATEMENT = 256
#: The write-ahead log is cut back to this after a checkpoint, so that one burst does not hold disk for ever.
WAL_LIMIT_BYTES = 16 * 1024 * 1024

_SCHEMA = (
    "CREATE TABLE logs(id INTEGER PRIMARY KEY, owner TEXT NOT NULL UNIQUE, body BLOB NOT NULL,"
    " crc INTEGER NOT NULL)",
    "CREATE TABLE entries(log INTEGER NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL, crc INTEGER NOT NULL,"
    " UNIQUE(log, key))",
    "CREATE TABLE meta(name TEXT NOT NULL UNIQUE, body BLOB NOT NULL, crc INTEGER NOT NULL)",
)


def rebuild(workshop: Path, node_name: str, cluster: str, keep: StoredState) -> None:
    """Make a database in the directory `workshop` that holds `keep`, closed and forced to the disk."""
    shutil.rmtree(workshop, ignore_errors=True)
    storage = open_sqlite(workshop, "full", node_name, cluster)
    storage.load()
    ops: list[StoreOp] = [PutMeta(name, value) for name, value in keep.meta.items()]
    ops += [ReplaceLog(log.head(), tuple(log.entries.values())) for log in keep.logs.values()]
    storage.write_durably(ops)
    storage.close()


def open_sqlite(data_dir: Path, durability: str, node_name: str, cluster: str) -> SqliteStorage:
    """Open (or make) the store of one node in `data_dir` and lock the directory.

    `durability` is "normal" or "full". Raises DataDirLocked if another process uses the directory,
    DataDirMismatch if it belongs to another node or cluster, StorageError if it cannot be used at all.
    """
    if durability not in ("normal", "full"):
        raise ValueError(f"durability is 'normal' or 'full', not {durability!r}")
    try:
        warnings = prepare_directory(data_dir)
        lock = DirectoryLock(data_dir)
    except OSError as err:
        raise StorageError(f"the data directory {data_dir} cannot be used: {err.strerror or err}") from err
    return SqliteStorage(data_dir, durability, node_name, cluster, lock, warnings)


class SqliteStorage:
    """A `Storage` over one SQLite file. Made by `open_sqlite`."""

    def __init__(
        self,
        data_dir: Path,
        durability: str,
        node_name: str,
        cluster: str,
        lock: DirectoryLock,
        warnings: list[str],
    ) -> None:
        self._data_dir = data_dir
        self._path = data_dir / DATABASE_NAME
        self._sync_level = "FULL" if durability == "full" else "NORMAL"
        self._node_name = node_name
        self._cluster = cluster
        self._lock = lock
        self._warnings = warnings
        self._db: sqlite3.Connection | None = None
        self._log_ids: dict[str, int] = {}
        self._next_log_id = 1

    def load(self) -> StoredState:
        """Open and verify the file; what is damaged is moved aside and reported, never raised.

        Raises DataDirMismatch, and StorageError where the disk itself refuses.
        """
        state = StoredState(problems=list(self._warnings))
        try:
            self._load_into(state)
        except (sqlite3.Error, OSError) as err:
            self.close()
            raise StorageError(f"the database {self._path} cannot be opened: {err}") from err
        except BaseException:
            self.close()
            raise
        return state

    def _load_into(self, state: StoredState) -> None:
        shutil.rmtree(self._data_dir / WORKSHOP_NAME, ignore_errors=True)  # left over by a crash
        if orphaned_companions(self._path):
            state.problems.append(f"{self._path} was missing beside its write-ahead log; started empty")
            self._replace_file(state, StoredState())
            return
        if create_private(self._path):
            sync_directory(self._data_dir)
        elif self._path.stat().st_size == 0:
            state.problems.append(f"the database {self._path} was there and empty; started empty")
        try:
            self._open()
            loaded = read_state(self._connection())
            self._check_owner(loaded.meta)
        except Damaged as err:
            state.problems.append(
                f"the database {self._path} is damaged ({err}); it was set aside, and we start empty"
            )
            self._replace_file(state, StoredState())
            return
        state.logs, state.meta, state.fresh = loaded.logs, loaded.meta, loaded.fresh
        state.damaged_owners = loaded.damaged_owners
        if loaded.problems:
            state.problems += loaded.problems
            state.problems.append(
                f"the damaged database was set aside; what could be verified was kept in {self._path}"
            )
            self._replace_file(state, loaded)
        elif loaded.fresh:
            self._bind()
            state.meta = {"node": self._node_name.encode(), "cluster": self._cluster.encode()}

    def _open(self) -> None:
        try:
            # The writer thread is not the one that loads; there is never more than one at a time.
            self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5.0)
            self._db.text_factory = lenient_text
            check_format(self._db, self._path)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(f"PRAGMA synchronous={self._sync_level}")
            self._db.execute(f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}")
            if self._db.execute("PRAGMA user_version").fetchone()[0] == 0:
                with self._transaction(durably=True) as cursor:
                    for statement in _SCHEMA:
                        cursor.execute(statement)
                    cursor.execute(f"PRAGMA application_id={APPLICATION_ID}")
                    cursor.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        except sqlite3.Error as err:
            raise_if_damaged(err)
            raise
        self._log_ids = {}
        self._next_log_id = 1
        for number, owner in rows_of(self._db, "SELECT id, owner FROM logs"):
            self._log_ids[owner] = number
            self._next_log_id = max(self._next_log_id, number + 1)

    def _check_owner(self, meta: dict[str, bytes]) -> None:
        for what, mine in (("node", self._node_name), ("cluster", self._cluster)):
            theirs = meta.get(what, mine.encode()).decode("utf-8", "replace")
            if theirs != mine:
                setting = "node.name" if what == "node" else "node.cluster"
                raise DataDirMismatch(
                    f"the data directory {self._data_dir} belongs to {what} {theirs!r}, not {mine!r}: "
                    f"start it with {setting} = {theirs!r}, or give this node its own directory "
                    "with --data-dir, or move the old one away if its workers are no longer wanted",
                    field=setting,
                )

    def _bind(self) -> None:
        self.write_durably(
            [PutMeta("node", self._node_name.encode()), PutMeta("cluster", self._cluster.encode())]
        )

    def _replace_file(self, state: StoredState, keep: StoredState) -> None:
        """Set the present file aside and put one in its place that holds `keep`; a crash loses neither."""
        self._disconnect()
        workshop = self._data_dir / WORKSHOP_NAME
        rebuild(workshop, self._node_name, self._cluster, keep)
        state.set_aside += put_in_place(workshop / DATABASE_NAME, self._path, "corrupt")
        shutil.rmtree(workshop)
        state.meta = {**keep.meta, "node": self._node_name.encode(), "cluster": self._cluster.encode()}
        self._open()

    def write(self, ops: Sequence[StoreOp]) -> None:
        """Apply all operations as one transaction; raises StorageError and applies none of them."""
        self._write(ops, durably=False)

    def write_durably(self, ops: Sequence[StoreOp]) -> None:
        """Like `write`, and forced to the disk before it returns, with everything written before it."""
        self._write(ops, durably=True)

    def _write(self, ops: Sequence[StoreOp], durably: bool) -> None:
        ids_before, next_before = dict(self._log_ids), self._next_log_id
        try:
            with self._transaction(durably) as cursor:
                for op in ops:
                    self._apply(cursor, op)
        except BaseException as err:
            self._log_ids, self._next_log_id = ids_before, next_before
            if isinstance(err, sqlite3.Error):
                raise StorageError(f"the database {self._path} did not take a write: {err}") from err
            raise

    def _apply(self, cursor: sqlite3.Cursor, op: StoreOp) -> None:
        match op:
            case PutMeta(name, None):
                cursor.execute("DELETE FROM meta WHERE name=?", (name,))
            case PutMeta(name, value):
                assert value is not None
                cursor.execute(
                    "INSERT INTO meta(name, body, crc) VALUES(?,?,?) "
                    "ON CONFLICT(name) DO UPDATE SET body=excluded.body, crc=excluded.crc",
                    (name, value, row_crc(name, value)),
                )
            case PutLog(head):
                self._put_head(cursor, head)
            case PutEntries(owner, entries):
                self._put_entries(cursor, owner, entries)
            case DropKeys(owner, keys):
                number = self._log_ids.get(owner)
                cursor.executemany(
                    "DELETE FROM entries WHERE log=? AND key=?", ((number, key) for key in keys)
                )
            case ReplaceLog(head, entries):
                self._drop_log(cursor, head.owner)
                self._put_head(cursor, head)
                self._put_entries(cursor, head.owner, entries)
            case DropLog(owner):
                self._drop_log(cursor, owner)

    def _put_head(self, cursor: sqlite3.Cursor, head: LogHead) -> None:
        number = self._log_ids.get(head.owner)
        if number is None:
            number = self._log_ids[head.owner] = self._next_log_id
            self._next_log_id += 1
        body = pack_head(head)
        cursor.execute(
            "INSERT INTO logs(id, owner, body, crc) VALUES(?,?,?,?) "
            "ON CONFLICT(id) DO UPDATE SET body=excluded.body, crc=excluded.crc",
            (number, head.owner, body, row_crc(head.owner, body)),
        )

    def _put_entries(self, cursor: sqlite3.Cursor, owner: str, entries: Sequence[Entry]) -> None:
        number = self._log_ids.get(owner)
        if number is None:
            # A head always comes first; entries without one could never be verified at load.
            raise ValueError(f"entries for the log of {owner!r}, which has no head")
        for start in range(0, len(entries), ROWS_PER_STATEMENT):
            part = entries[start : start + ROWS_PER_STATEMENT]
            parameters: list[object] = []
            for entry in part:
                body = pack_entry(entry)
                parameters += (number, entry[KEY], body, row_crc(entry[KEY], body))
            cursor.execute(
                "INSERT INTO entries(log, key, body, crc) VALUES"
                + ",".join(["(?,?,?,?)"] * len(part))
                + " ON CONFLICT(log, key) DO UPDATE SET body=excluded.body, crc=excluded.crc",
                parameters,
            )

    def _drop_log(self, cursor: sqlite3.Cursor, owner: str) -> None:
        number = self._log_ids.pop(owner, None)
        if number is not None:
            cursor.execute("DELETE FROM entries WHERE log=?", (number,))
            cursor.execute("DELETE FROM logs WHERE id=?", (number,))

    @contextmanager
    def _transaction(self, durably: bool) -> Iterator[sqlite3.Cursor]:
        db = self._connection()
        force = durably and self._sync_level != "FULL"
        if force:
            db.execute("PRAGMA synchronous=FULL")
        try:
            cursor = db.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite may have rolled back itself (disk full)
                    cursor.execute("ROLLBACK")
                raise
        finally:
            if force:
                db.execute("PRAGMA synchronous=NORMAL")

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise StorageError(f"the database {self._path} is closed")
        return self._db

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def close(self) -> None:
        """Fold the write-ahead log into the file, close it and unlock the directory. Idempotent."""
        if self._db is not None:
            with suppress(sqlite3.Error):  # the log is folded in at the next start instead
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._disconnect()
        self._lock.release()
