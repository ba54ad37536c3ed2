"""Folding many operations into few: the newest state per key, so that waiting work stays bounded.

While a transaction is being written, further operations pile up here. Folding keeps one entry per key,
one head per log and one value per meta name, so what waits never exceeds what the map itself holds,
however long the disk is away. Folded operations applied as one transaction leave the same state as the
originals applied in order.
"""

from __future__ import annotations

from collections.abc import Iterable

from crdt.persist import DropKeys, DropLog, PutEntries, PutLog, PutMeta, ReplaceLog, StoreOp
from crdt.types import KEY, Entry, LogHead


class _LogFold:
    """What waits for one owner's log. `cleared`: everything that the disk holds of it goes first."""

    __slots__ = ("cleared", "entries", "head")

    def __init__(self) -> None:
        self.cleared = False
        self.head: LogHead | None = None
        self.entries: dict[str, Entry | None] = {}

    def clear(self) -> None:
        self.cleared = True
        self.head = None
        self.entries = {}


class OpFold:
    """Operations in waiting, newest state per key. `len` counts keys, heads and meta values."""

    def __init__(self) -> None:
        self._logs: dict[str, _LogFold] = {}
        self._meta: dict[str, bytes | None] = {}

    def __len__(self) -> int:
        return len(self._meta) + sum(len(log.entries) + 1 for log in self._logs.values())

    def __bool__(self) -> bool:
        return bool(self._meta or self._logs)

    def add(self, ops: Iterable[StoreOp]) -> None:
        """Fold operations in, in order."""
        for op in ops:
            match op:
                case PutMeta(name, value):
                    self._meta[name] = value
                case PutLog(head):
                    self._log(head.owner).head = head
                case PutEntries(owner, entries):
                    waiting = self._log(owner).entries
                    for entry in entries:
                        waiting[entry[KEY]] = entry
                case DropKeys(owner, keys):
                    waiting = self._log(owner).entries
                    for key in keys:
                        waiting[key] = None
                case ReplaceLog(head, entries):
                    log = self._log(head.owner)
                    log.clear()
                    log.head = head
                    log.entries = {entry[KEY]: entry for entry in entries}
                case DropLog(owner):
                    self._log(owner).clear()

    def ops(self) -> list[StoreOp]:
        """The folded operations; applied as one transaction they leave what all that was added leaves."""
        ops: list[StoreOp] = [PutMeta(name, value) for name, value in self._meta.items()]
        for owner, log in self._logs.items():
            puts = tuple(entry for entry in log.entries.values() if entry is not None)
            if log.cleared and log.head is not None:
                ops.append(ReplaceLog(log.head, puts))
                continue
            if log.cleared:
                ops.append(DropLog(owner))
                continue
            if log.head is not None:
                ops.append(PutLog(log.head))
            if puts:
                ops.append(PutEntries(owner, puts))
            drops = tuple(key for key, entry in log.entries.items() if entry is None)
            if drops:
                ops.append(DropKeys(owner, drops))
        return ops

    def _log(self, owner: str) -> _LogFold:
        log = self._logs.get(owner)
        if log is None:
            log = self._logs[owner] = _LogFold()
        return log
