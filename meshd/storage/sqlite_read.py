"""Reading and verifying a SQLite store, with or without the right to write in it.

Damage is sorted by depth. A file whose structure SQLite rejects, or whose tables are not ours, raises
`Damaged`. Rows that fail their checksum and logs that do not add up to their hash are left out of the
state and named in its `problems`. Faults of the disk that may pass (busy, unreadable, no permission) stay
`sqlite3.Error`: they are no reason to move anybody's data aside.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crdt.errors import CorruptLog
from crdt.owner_log import OwnerLog
from crdt.types import SEQ, Entry, LogHead
from meshd.errors import StorageError
from meshd.storage.data_dir import DATABASE_NAME
from meshd.storage.interface import StoredState
from meshd.storage.rows import RowError, row_matches, unpack_entry, unpack_head

SCHEMA_VERSION = 1
#: "mshd", so that `file` and we can tell our databases from others.
APPLICATION_ID = 0x6D736864

_PASSING_FAULTS = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
    )
)


class Damaged(Exception):
    """The file as a whole cannot be trusted."""


def raise_if_damaged(err: sqlite3.Error) -> None:
    """Raise Damaged if the error speaks of the file's content rather than of the disk's present mood."""
    code = getattr(err, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    if code & 0xFF not in _PASSING_FAULTS:
        raise Damaged(str(err)) from err


def lenient_text(raw: bytes) -> str:
    """Decode a text column. Broken UTF-8 becomes replacement marks, which then fail the row's checksum."""
    return raw.decode("utf-8", "replace")


def read_offline(data_dir: Path) -> StoredState:
    """Read a data directory without locking, binding or repairing it: for `meshctl --data-dir`.

    Works beside a running daemon. Raises StorageError if there is no database or it cannot be read.
    """
    path = data_dir / DATABASE_NAME
    try:
        db = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5.0, isolation_level=None
        )
        db.text_factory = lenient_text
        try:
            db.execute("BEGIN")  # all reads see one moment, while the daemon goes on writing
            check_format(db, path)
            return read_state(db)
        finally:
            db.close()
    except (sqlite3.Error, Damaged) as err:
        raise StorageError(f"the database {path} cannot be read: {err}") from err


def check_format(db: sqlite3.Connection, path: Path) -> None:
    """Pass an empty file or one of our schema; raises Damaged for a foreign one, else StorageError."""
    version = rows_of(db, "PRAGMA user_version")[0][0]
    owner = rows_of(db, "PRAGMA application_id")[0][0]
    if (version, owner) == (0, 0) and not rows_of(db, "SELECT name FROM sqlite_master LIMIT 1"):
        return
    if owner != APPLICATION_ID:
        raise Damaged("it is not a meshd database")
    if version != SCHEMA_VERSION:
        raise StorageError(
            f"the database {path} has format {version}, and this meshd reads format {SCHEMA_VERSION}: "
            "start the newer meshd that wrote it, or give this node another directory with --data-dir"
        )


def read_state(db: sqlite3.Connection) -> StoredState:
    """Read and verify everything. Damaged rows are left out and named; a broken file raises."""
    state = StoredState()
    verdict = rows_of(db, "PRAGMA quick_check(1)")
    if [tuple(row) for row in verdict] != [("ok",)]:
        raise Damaged(str(verdict[0][0]).splitlines()[0] if verdict else "no verdict")
    for name, body, crc in rows_of(db, "SELECT name, body, crc FROM meta"):
        if row_matches(name, body, crc):
            state.meta[name] = body
        else:
            state.problems.append(f"the stored value {name!r} does not match its checksum")
    heads: dict[int, LogHead | None] = {}
    entries: dict[int, list[Entry]] = {}
    for number, owner, body, crc in rows_of(db, "SELECT id, owner, body, crc FROM logs"):
        entries[number] = []
        try:
            heads[number] = unpack_head(owner, body, crc)
        except RowError as err:
            heads[number] = None
            state.damaged_owners.append(owner)
            state.problems.append(str(err))
    broken: dict[int, str] = {}
    for number, key, body, crc in iterate(db, "SELECT log, key, body, crc FROM entries"):
        try:
            entries[number].append(unpack_entry(key, body, crc))
        except RowError as err:
            broken.setdefault(number, str(err))
        except KeyError:
            broken.setdefault(number, f"the row of key {key!r} belongs to no log")
    for number, head in heads.items():
        if head is not None:
            _restore(state, head, entries[number], broken.pop(number, None))
    state.problems += broken.values()
    state.fresh = not (state.logs or state.meta)
    return state


def _restore(state: StoredState, head: LogHead, entries: list[Entry], fault: str | None) -> None:
    if fault is None:
        try:
            entries.sort(key=_seq)
            state.logs[head.owner] = OwnerLog.restore(head, entries)
            return
        except CorruptLog as err:
            fault = str(err)
    state.damaged_owners.append(head.owner)
    state.problems.append(f"the log of {head.owner!r} was left out: {fault}")


def _seq(entry: Entry) -> int:
    return entry[SEQ]


def rows_of(db: sqlite3.Connection, statement: str) -> list[tuple[Any, ...]]:
    """All rows of a query; raises Damaged where the file is at fault."""
    return list(iterate(db, statement))


def iterate(db: sqlite3.Connection, statement: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a query, one by one; raises Damaged where the file is at fault."""
    try:
        yield from db.execute(statement)
    except sqlite3.Error as err:
        raise_if_damaged(err)
        raise
