"""Putting a snapshot into a data directory, so that a crash leaves the old store or the new.

The new database is made beside the old one, closed, and renamed over it; the old one keeps a name of its
own.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

from crdt.prefixes import PrefixTable
from meshd.errors import DataDirMismatch, StorageError
from meshd.storage.data_dir import (
    DATABASE_NAME,
    WORKSHOP_NAME,
    DirectoryLock,
    prepare_directory,
    put_in_place,
)
from meshd.storage.snapshot import Snapshot, restored_state
from meshd.storage.sqlite_read import read_offline
from meshd.storage.sqlite_store import rebuild


def restore_snapshot(
    snapshot: Snapshot, data_dir: Path, prefixes: PrefixTable, random_bits: int, *, replace: bool = False
) -> list[str]:
    """Make `data_dir` a node's disk as `snapshot` says.

    Returns the names under which the former store was kept.

    The daemon of that directory must be stopped (DataDirLocked otherwise). A directory that holds a store
    already is refused unless `replace`, and one of another node or cluster always (DataDirMismatch).
    `random_bits`: 63 of them. Raises StorageError if the disk refuses.
    """
    try:
        prepare_directory(data_dir)
        lock = DirectoryLock(data_dir)
        try:
            return _restore(snapshot, data_dir, prefixes, random_bits, replace)
        finally:
            lock.release()
    except OSError as err:
        raise StorageError(
            f"the snapshot could not be restored to {data_dir}: {err.strerror or err}"
        ) from err


def _restore(
    snapshot: Snapshot, data_dir: Path, prefixes: PrefixTable, random_bits: int, replace: bool
) -> list[str]:
    database = data_dir / DATABASE_NAME
    if database.exists():
        _refuse_another_owner(snapshot, data_dir)
        if not replace:
            raise StorageError(
                f"{data_dir} holds a store already: restore to an empty directory, "
                "or ask for it to be replaced"
            )
    workshop = data_dir / WORKSHOP_NAME
    restored = restored_state(snapshot, prefixes, random_bits)
    rebuild(workshop, snapshot.node, snapshot.cluster, restored)
    _fold(database)
    kept = put_in_place(workshop / DATABASE_NAME, database, "before-restore")
    shutil.rmtree(workshop)
    return kept


def _refuse_another_owner(snapshot: Snapshot, data_dir: Path) -> None:
    try:
        meta = read_offline(data_dir).meta
    except StorageError:
        return  # what cannot be read says nothing about its owner
    for what, mine in (("node", snapshot.node), ("cluster", snapshot.cluster)):
        theirs = meta.get(what, mine.encode()).decode("utf-8", "replace")
        if theirs != mine:
            raise DataDirMismatch(
                f"the data directory {data_dir} belongs to {what} {theirs!r}, "
                f"and the snapshot to {mine!r}: restore it to another directory"
            )


def _fold(database: Path) -> None:
    """Fold the former database's write-ahead log into it, so that it is kept as one file if it can be."""
    if database.exists():
        with suppress(sqlite3.Error):  # a damaged one is kept as it is, with its companions
            db = sqlite3.connect(database)
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.close()
