"""Snapshots: one file that holds what a node's disk held at one moment, and how it comes back.

Format: the line `meshd-snapshot 1`, then chunks of `length, crc32, body` (4 bytes each, big-endian,
before the body); bodies are msgpack arrays that begin with a word: `info`, `meta`, `log`, `entries`, and
at last `end` with the SHA-256 of everything before it and the counts. Chunks with other words are
skipped, so later versions may add some. A file that is cut short, altered, or does not add up to its
logs' hashes is refused as a whole, before anything is touched.

Restoring is a short life of the node, offline: it begins a generation above the snapshot's, so no seq is
used twice, and its lineage says what it took on, so that peers who know of later removals keep them.
Replicas of other nodes are not restored (they may be long forgotten; those that live send theirs anew),
only cluster-wide settings that they won are, stamps unchanged.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgpack  # type: ignore[import-untyped]  # ships no types

from crdt.errors import CorruptLog
from crdt.lww_map import LwwMap
from crdt.owner_log import OwnerLog
from crdt.prefixes import PrefixTable
from crdt.types import VALUE, Entry, LogHead, boot_nonce, format_gen
from meshd.errors import StorageError
from meshd.storage.interface import StoredState
from meshd.storage.rows import RowError, check_entry, pack_head, row_crc, unpack_head

MAGIC = b"meshd-snapshot 1\n"
#: The line that any version begins with, up to its number.
_MAGIC_ANY = b"meshd-snapshot "
#: A chunk of entries is closed at this size; one entry is never split.
_CHUNK_BYTES = 256 * 1024
#: The largest chunk that is read: one entry of the largest value there can be, with room.
_CHUNK_LIMIT_BYTES = 8 * 1024 * 1024
_META_COUNTER = "gen_counter"
#: What a disk remembers of its peers and of its present life; none of it holds once time has passed
#: elsewhere.
_META_NOT_RESTORED = ("fresh_nonces", "contact:")


class SnapshotError(StorageError):
    """The file is not a snapshot that can be trusted; nothing was changed."""

    code = "SNAPSHOT_INVALID"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A verified snapshot.

    `taken_ms` is its time, in ms since 1970; `digest` the SHA-256 of its content, in hex.
    """

    node: str
    cluster: str
    taken_ms: int
    digest: str
    state: StoredState

    def summary(self) -> dict[str, object]:
        """For people: whose it is, when it was taken, and what it holds of each owner."""
        owners = [
            {
                "owner": owner,
                "gen": format_gen(log.gen),
                "max": log.max,
                "floor": log.floor,
                "live": log.live_count,
                "tombstones": len(log.entries) - log.live_count,
            }
            for owner, log in sorted(self.state.logs.items())
        ]
        return {
            "node": self.node,
            "cluster": self.cluster,
            "taken_ms": self.taken_ms,
            "format": 1,
            "sha256": self.digest,
            "owners": owners,
        }


def snapshot_chunks(state: StoredState, taken_ms: int) -> Iterator[bytes]:
    """The bytes of a snapshot, piece by piece, of what `read_offline` or `load` found.

    It holds the workers' API keys where the disk does: store it as privately as the data directory. Raises
    SnapshotError, before any byte, for a state that is damaged or belongs to no node.
    """
    if state.problems:
        raise SnapshotError(f"the data is damaged and not worth keeping: {'; '.join(state.problems)}")
    try:
        node, cluster = state.meta["node"].decode(), state.meta["cluster"].decode()
    except (KeyError, UnicodeDecodeError) as err:
        raise SnapshotError("the data directory belongs to no node yet: there is nothing to save") from err
    return _chunks(state, node, cluster, taken_ms)


def _chunks(state: StoredState, node: str, cluster: str, taken_ms: int) -> Iterator[bytes]:
    sha = hashlib.sha256()

    def out(*body: object) -> bytes:
        packed: bytes = msgpack.packb(body)
        chunk = len(packed).to_bytes(4, "big") + zlib.crc32(packed).to_bytes(4, "big") + packed
        sha.update(chunk)
        return chunk

    sha.update(MAGIC)
    yield MAGIC
    yield out("info", node, cluster, taken_ms)
    for name, value in sorted(state.meta.items()):
        yield out("meta", name, value)
    entry_count = 0
    for owner, log in sorted(state.logs.items()):
        yield out("log", owner, pack_head(log.head()))
        for page in _pages(log):
            entry_count += len(page)
            yield out("entries", page)
    counts = (len(state.meta), len(state.logs), entry_count)
    yield out("end", sha.digest(), counts)


def _pages(log: OwnerLog) -> Iterator[list[Entry]]:
    page: list[Entry] = []
    size = 0
    for entry in log.entries.values():
        page.append(entry)
        size += len(entry[VALUE] or b"") + 64
        if size >= _CHUNK_BYTES:
            yield page
            page, size = [], 0
    if page:
        yield page


def read_snapshot(source: BinaryIO) -> Snapshot:
    """Read and verify a whole snapshot; raises SnapshotError for anything else."""
    first = source.readline(64)
    if first != MAGIC:
        if first.startswith(_MAGIC_ANY):
            raise SnapshotError(
                "this snapshot has a newer format: use the meshd that made it, or a later one"
            )
        raise SnapshotError("this is no snapshot of meshd")
    reader = _Reader()
    sha = hashlib.sha256(first)
    while not reader.ended:
        prefix = _exactly(source, 8)
        size, crc = int.from_bytes(prefix[:4], "big"), int.from_bytes(prefix[4:], "big")
        if size > _CHUNK_LIMIT_BYTES:
            raise SnapshotError(f"a chunk of {size} bytes is over the limit of {_CHUNK_LIMIT_BYTES}")
        packed = _exactly(source, size)
        if zlib.crc32(packed) != crc:
            raise SnapshotError("a chunk does not match its checksum: the file was altered or damaged")
        before = sha.digest()
        sha.update(prefix + packed)
        reader.take(packed, before)
    if source.read(1):
        raise SnapshotError("there is more after the end of the snapshot")
    return reader.result(sha.hexdigest())


def _exactly(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise SnapshotError("the snapshot is cut short")
    return data


class _Reader:
    """Puts the chunks together again."""

    def __init__(self) -> None:
        self.ended = False
        self._info: tuple[str, str, int] | None = None
        self._meta: dict[str, bytes] = {}
        self._logs: dict[str, OwnerLog] = {}
        self._head: LogHead | None = None
        self._entries: list[Entry] = []
        self._entry_count = 0

    def take(self, packed: bytes, before: bytes) -> None:
        try:
            word, *fields = msgpack.unpackb(packed, use_list=False)
            self._take(word, fields, before)
        except (ValueError, TypeError, KeyError, IndexError, CorruptLog, RowError) as err:
            raise SnapshotError(f"the snapshot does not add up: {err}") from err

    def _take(self, word: object, fields: list[Any], before: bytes) -> None:
        if word == "info":
            node, cluster, taken_ms = fields[:3]
            _expect(type(node) is str and type(cluster) is str and type(taken_ms) is int, "its info")
            self._info = (node, cluster, taken_ms)
        elif word == "meta":
            name, value = fields[:2]
            _expect(type(name) is str and type(value) is bytes, "a stored value")
            self._meta[name] = value
        elif word == "log":
            self._finish_log()
            owner, head = fields[:2]
            _expect(type(owner) is str and type(head) is bytes and owner not in self._logs, "a log")
            self._head = unpack_head(owner, head, row_crc(owner, head))
        elif word == "entries":
            _expect(self._head is not None and type(fields[0]) is tuple, "entries")
            for entry in fields[0]:
                self._entries.append(check_entry(*entry))
            self._entry_count += len(fields[0])
        elif word == "end":
            self._finish_log()
            counts = (len(self._meta), len(self._logs), self._entry_count)
            _expect(fields[0] == before and fields[1] == counts, "its end")
            self.ended = True

    def _finish_log(self) -> None:
        if self._head is not None:
            self._logs[self._head.owner] = OwnerLog.restore(self._head, self._entries)
        self._head, self._entries = None, []

    def result(self, digest: str) -> Snapshot:
        if self._info is None:
            raise SnapshotError("the snapshot does not say whose it is")
        node, cluster, taken_ms = self._info
        state = StoredState(self._logs, self._meta, fresh=False)
        return Snapshot(node, cluster, taken_ms, digest, state)


def _expect(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(f"{what} has another shape than it should")


def restored_state(snapshot: Snapshot, prefixes: PrefixTable, random_bits: int) -> StoredState:
    """What a disk holds after `snapshot` was restored to it: the node's own log under a new generation.

    `random_bits` (63 of them) make the generation unlike any other; the same snapshot restored twice
    gives two.
    """
    state = snapshot.state
    logs = {
        owner: OwnerLog.restore(log.head(), tuple(log.entries.values())) for owner, log in state.logs.items()
    }
    store = LwwMap(snapshot.node, prefixes, logs=logs)
    own = logs.get(snapshot.node)
    stored = state.meta.get(_META_COUNTER, b"0")
    counter = 1 + max(int(stored) if stored.isdigit() else 0, own.gen[0] if own is not None else 0)
    store.start_life((counter, boot_nonce(counter, random_bits)))
    for owner in state.logs:
        store.forget(owner, snapshot.taken_ms << 16)
    meta = {name: value for name, value in state.meta.items() if not name.startswith(_META_NOT_RESTORED)}
    meta[_META_COUNTER] = str(counter).encode()
    return StoredState({snapshot.node: store.own}, meta)
