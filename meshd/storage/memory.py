"""A store without a disk, for tests and simulation, that can be made to fail as disks do.

`MemoryDisk` is what outlives a process: it holds the transactions. `MemoryStorage` is one process's
handle on it, with the semantics of the store on SQLite. A crash (`MemoryDisk.crash`) drops a suffix of
the transactions that were not forced to the disk; faults beyond that (a disk that lies about forcing, a
lost disk, a machine put back to an old image, a cloned directory) have a method each. A transaction is
kept or lost as a whole, as SQLite keeps it.

Rules: no clock, no randomness: the caller, who has the seed, says what is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from crdt.errors import CorruptLog
from crdt.owner_log import OwnerLog
from crdt.persist import DropKeys, DropLog, PutEntries, PutLog, PutMeta, ReplaceLog, StoreOp
from crdt.types import KEY, SEQ, VALUE, Entry, LogHead
from meshd.errors import DataDirLocked, DataDirMismatch, StorageError
from meshd.storage.interface import StoredState

#: Transactions that a lying disk may still lose; older ones are folded into the image.
UNDO_LIMIT = 256


@dataclass(slots=True)
class _Image:
    """The content of a disk: heads and entries per owner, and meta values."""

    heads: dict[str, LogHead] = field(default_factory=dict)
    entries: dict[str, dict[str, Entry]] = field(default_factory=dict)
    meta: dict[str, bytes] = field(default_factory=dict)

    def copy(self) -> _Image:
        entries = {owner: dict(held) for owner, held in self.entries.items()}
        return _Image(dict(self.heads), entries, dict(self.meta))

    def apply(self, ops: Sequence[StoreOp]) -> None:
        for op in ops:
            match op:
                case PutMeta(name, None):
                    self.meta.pop(name, None)
                case PutMeta(name, value):
                    assert value is not None
                    self.meta[name] = value
                case PutLog(head):
                    self.heads[head.owner] = head
                    self.entries.setdefault(head.owner, {})
                case PutEntries(owner, entries):
                    held = self.entries[owner]
                    for entry in entries:
                        held[entry[KEY]] = entry
                case DropKeys(owner, keys):
                    held = self.entries.get(owner, {})
                    for key in keys:
                        held.pop(key, None)
                case ReplaceLog(head, entries):
                    self.heads[head.owner] = head
                    self.entries[head.owner] = {entry[KEY]: entry for entry in entries}
                case DropLog(owner):
                    self.heads.pop(owner, None)
                    self.entries.pop(owner, None)


class MemoryDisk:
    """What is left when a process dies. One `MemoryStorage` at a time may hold it."""

    def __init__(self) -> None:
        self._image = _Image()
        self._recent: deque[tuple[StoreOp, ...]] = deque()
        self._unforced = 0
        self._owners: set[str] = set()
        self.damaged: set[str] = set()
        """Owners whose stored logs will not verify: the next load leaves them out."""
        self.holder: MemoryStorage | None = None
        self.fail_writes: str | None = None
        """While set, every write raises StorageError with this reason and changes nothing."""
        self.transactions = 0
        """Transactions taken since the disk was made."""

    def append(self, ops: Sequence[StoreOp], forced: bool) -> None:
        """Take one transaction; `forced` makes it and all before it survive an honest crash.

        Raises ValueError for entries of a log that has no head, as they could never be verified.
        """
        owners = set(self._owners)
        for op in ops:
            match op:
                case PutLog(head) | ReplaceLog(head, _):
                    owners.add(head.owner)
                case DropLog(owner):
                    owners.discard(owner)
                case PutEntries(owner, _) if owner not in owners:
                    raise ValueError(f"entries for the log of {owner!r}, which has no head")
                case _:
                    pass
        self._owners = owners
        self._recent.append(tuple(ops))
        self._unforced = 0 if forced else self._unforced + 1
        self.transactions += 1
        while len(self._recent) > UNDO_LIMIT:
            self._image.apply(self._recent.popleft())
            self._unforced = min(self._unforced, len(self._recent))

    @property
    def unforced(self) -> int:
        """How many of the newest transactions a power cut may take."""
        return self._unforced

    def crash(self, lose: int = 0, *, lying: bool = False) -> int:
        """The process dies and the newest `lose` transactions are gone; returns how many really went.

        At most the unforced ones go, unless the disk was `lying` when it said that it had forced them:
        then up to UNDO_LIMIT go (a torn tail).
        """
        lose = min(lose, len(self._recent) if lying else self._unforced)
        for _ in range(lose):
            self._recent.pop()
        self._unforced = max(0, self._unforced - lose)
        self._detach()
        return lose

    def wipe(self) -> None:
        """The disk is lost; an empty one takes its place."""
        self._image = _Image()
        self._recent.clear()
        self._unforced = 0
        self.damaged.clear()
        self._detach()

    def clone(self) -> MemoryDisk:
        """A second disk with the same content: a copied directory, or an image to go back to later."""
        other = MemoryDisk()
        other._image = self._present()
        other._owners = set(other._image.heads)
        other.damaged = set(self.damaged)
        return other

    def revert(self, image: MemoryDisk) -> None:
        """Put the machine back to an image taken earlier with `clone`."""
        self._image = image._present()
        self._recent.clear()
        self._unforced = 0
        self.damaged = set(image.damaged)
        self._detach()

    def garble(self, owner: str, key: str | None = None) -> bool:
        """Flip a bit in one stored value, for the next load to find; false where no such live entry is.

        Without a key, in the head of the owner's log; false where there is no log of it.
        """
        self._image = self._present()
        self._recent.clear()
        self._unforced = 0
        if key is None:
            head = self._image.heads.get(owner)
            if head is None:
                return False
            self._image.heads[owner] = head._replace(hash=head.hash ^ 1)
            self.damaged.add(owner)
            return True
        entry = self._image.entries.get(owner, {}).get(key)
        if entry is None or entry[VALUE] is None:
            return False
        value = entry[VALUE] or b"\0"
        garbled = bytes([value[0] ^ 1]) + value[1:]
        self._image.entries[owner][key] = (key, entry[SEQ], entry[2], entry[3], garbled, entry[5])
        self.damaged.add(owner)
        return True

    def content(self) -> tuple[dict[str, LogHead], dict[str, dict[str, Entry]], dict[str, bytes]]:
        """Heads, entries by owner and key, and meta, as a load would read them before verifying."""
        image = self._present()
        return image.heads, image.entries, image.meta

    def forced_meta(self) -> dict[str, bytes]:
        """The meta values that even the worst honest crash would leave."""
        image = _Image(meta=dict(self._image.meta))
        for ops in list(self._recent)[: len(self._recent) - self._unforced]:
            image.apply([op for op in ops if isinstance(op, PutMeta)])
        return image.meta

    def drop_log(self, owner: str) -> None:
        """Forget a log that does not verify, as the store on SQLite does when it sets a file aside."""
        self._image = self._present()
        self._recent.clear()
        self._image.apply([DropLog(owner)])
        self._owners.discard(owner)
        self.damaged.discard(owner)
        self._unforced = 0

    def _present(self) -> _Image:
        image = self._image.copy()
        for ops in self._recent:
            image.apply(ops)
        return image

    def _detach(self) -> None:
        self._owners = set(self._present().heads)
        if self.holder is not None:
            self.holder.detached = True
            self.holder = None


class MemoryStorage:
    """A `Storage` on a `MemoryDisk`.

    Raises DataDirLocked if another live handle holds the disk. With `node_name` (and `cluster`) the disk
    is bound to them as a data directory is, and `load` raises DataDirMismatch for another's; without, it
    is not bound.
    """

    def __init__(
        self,
        disk: MemoryDisk | None = None,
        *,
        durability: str = "normal",
        node_name: str | None = None,
        cluster: str = "default",
    ) -> None:
        self.disk = MemoryDisk() if disk is None else disk
        if self.disk.holder is not None:
            raise DataDirLocked("the disk is in use by another process")
        self.disk.holder = self
        self.detached = False
        self._full = durability == "full"
        self._identity = None if node_name is None else {"node": node_name, "cluster": cluster}

    def load(self) -> StoredState:
        """Read everything, verify it, leave out what is damaged."""
        heads, entries, meta = self.disk.content()
        state = StoredState(meta=meta)
        for owner, head in heads.items():
            try:
                held = sorted(entries[owner].values(), key=lambda entry: entry[SEQ])
                state.logs[owner] = OwnerLog.restore(head, held)
            except CorruptLog as err:
                state.problems.append(f"the log of {owner!r} was left out: {err}")
                state.damaged_owners.append(owner)
                state.set_aside.append(f"memory.corrupt-{len(state.set_aside) + 1}")
                self.disk.drop_log(owner)
        state.fresh = not (state.logs or state.meta)
        if self._identity is not None:
            self._bind(state)
        return state

    def _bind(self, state: StoredState) -> None:
        assert self._identity is not None
        for what, mine in self._identity.items():
            theirs = state.meta.get(what, mine.encode()).decode()
            if theirs != mine:
                self.close()
                raise DataDirMismatch(f"the disk belongs to {what} {theirs!r}, not {mine!r}")
        bound = {what: mine.encode() for what, mine in self._identity.items()}
        if any(state.meta.get(what) != mine for what, mine in bound.items()):
            self.write_durably([PutMeta(what, mine) for what, mine in bound.items()])
            state.meta |= bound

    def write(self, ops: Sequence[StoreOp]) -> None:
        """Apply all operations as one transaction; raises StorageError and applies none of them."""
        self._write(ops, forced=self._full)

    def write_durably(self, ops: Sequence[StoreOp]) -> None:
        """Like `write`, and no honest crash takes it or anything before it back."""
        self._write(ops, forced=True)

    def _write(self, ops: Sequence[StoreOp], forced: bool) -> None:
        if self.detached:
            raise StorageError("the store is closed")
        if self.disk.fail_writes is not None:
            raise StorageError(f"the disk did not take a write: {self.disk.fail_writes}")
        self.disk.append(ops, forced)

    def close(self) -> None:
        """Let go of the disk. Idempotent."""
        if not self.detached:
            self.detached = True
            self.disk.holder = None
