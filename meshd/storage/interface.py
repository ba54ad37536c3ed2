"""What the rest of meshd may expect of a store on disk, whatever it is made of.

Owns: the `Storage` protocol and the state handed over at start. Keeps these rules:

* one `write` is one transaction: after a crash either all of it is there or none;
* writes are applied in the order in which they are made, and a crash loses only a
  suffix of them (nothing in the middle);
* `write_durably` returns only after the bytes have been forced to the disk, and
  everything written before it is then on the disk as well;
* a `StorageError` from a write means that none of it was applied; the same operations may be tried again;
* `load` returns only logs whose entries reproduce their hash; whatever did not is
  set aside, left out and named in `problems`.

Values are opaque here: storage knows logs, keys and bytes, never workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from crdt.owner_log import OwnerLog
from crdt.persist import StoreOp


@dataclass(slots=True)
class StoredState:
    """Everything a node finds on its disk when it starts.

    `logs` maps owner to its verified log, `meta` name to opaque bytes. `problems` holds one
    sentence per thing that was found damaged, `set_aside` the names of the files that were moved
    out of the way, `damaged_owners` the owners whose log was left out because it did not verify.
    `fresh` is true when nothing was there: a first start, a lost disk, or a file set aside whole.
    """

    logs: dict[str, OwnerLog] = field(default_factory=dict)
    meta: dict[str, bytes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)
    damaged_owners: list[str] = field(default_factory=list)
    fresh: bool = True


class Storage(Protocol):
    """A node's disk. `load` first and once, then writes from one thread at a time, then `close`."""

    def load(self) -> StoredState:
        """Read everything, verify it, set aside what is damaged."""

    def write(self, ops: Sequence[StoreOp]) -> None:
        """Apply all operations as one transaction; raises `errors.StorageError` and applies none of them."""

    def write_durably(self, ops: Sequence[StoreOp]) -> None:
        """Like `write`, and forced to the disk before it returns, whatever the durability setting."""

    def close(self) -> None:
        """Release files and locks; what was written stays. Idempotent."""
