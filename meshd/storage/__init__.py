"""The embedded database behind one small interface: what a node knows survives its process here.

`open_sqlite` is the store of a daemon, `MemoryStorage` that of tests and simulations; one test suite
holds both. `read_offline` looks into a data directory without touching it. No trio in this room:
`meshctl` imports it.
"""

from meshd.storage.interface import Storage, StoredState
from meshd.storage.memory import MemoryDisk, MemoryStorage
from meshd.storage.restore import restore_snapshot
from meshd.storage.snapshot import Snapshot, SnapshotError, read_snapshot, snapshot_chunks
from meshd.storage.sqlite_read import read_offline
from meshd.storage.sqlite_store import SqliteStorage, open_sqlite

__all__ = [
    "MemoryDisk",
    "MemoryStorage",
    "Snapshot",
    "SnapshotError",
    "SqliteStorage",
    "Storage",
    "StoredState",
    "open_sqlite",
    "read_offline",
    "read_snapshot",
    "restore_snapshot",
    "snapshot_chunks",
]
