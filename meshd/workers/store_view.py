"""The store as the workers see it: two small protocols, and nothing of how a mesh works.

Owns the seam between the worker plane and the replicated map. `Store` is the map (the node of the protocol
implements it); `Meta` keeps this node's private facts on its own disk. All calls are synchronous and return
at once; what they write is handed to disk and peers by whoever drives the node. Values are opaque bytes here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol


class StoreEntry(NamedTuple):
    """A live entry. `this_life`: the present life of this node wrote it itself; told of own entries only."""

    key: str
    owner: str
    value: bytes
    seq: int
    this_life: bool


class Store(Protocol):
    """What the worker plane asks of the replicated map."""

    @property
    def node_name(self) -> str:
        """This node's name: the owner of what `put` writes."""

    def visible(self, key: str) -> StoreEntry | None:
        """Return the entry that counts for a key, which may be unreadable; tombstones are hidden."""

    def own(self, key: str) -> StoreEntry | None:
        """Return this node's own live entry for a key, whether or not it counts."""

    def own_deleted_in_this_life(self, key: str) -> bool:
        """Whether this node removed that key itself since its log was last split from its peers' copies."""

    def take_overruled(self, key: str) -> bool:
        """Whether another life of this node has changed or removed its own value of a key; told once.

        That happens where this life began from a disk that lacked the newest writes (an old snapshot, a torn
        tail) and peers gave them back: what this life restored from its disk is then older than the store.
        """

    def visible_keys(self, prefix: str) -> Iterable[str]:
        """Return all keys under a prefix that have a visible entry."""

    def put(self, key: str, value: bytes, observed: bool = False) -> None:
        """Write an own entry. Raises TooLarge or StoreFull before anything is stored.

        `observed`: nobody asked for it, the node only notes what it sees of its own entry. Should peers give
        back what somebody asked for in a life that this node's disk has lost, then that counts.
        """

    def delete(self, key: str) -> None:
        """Write an own tombstone."""

    def owner_state(self, owner: str) -> str:
        """Return alive, suspect, down, left or unknown."""

    def restored(self) -> bool:
        """Whether former entries of this node are known; False while a start without disk still asks its
        peers.
        """


class Meta(Protocol):
    """This node's private facts, kept on its disk and never sent to anybody."""

    def put_meta(self, name: str, value: bytes | None) -> None:
        """Keep a fact under a name; None forgets it."""

    def meta_items(self, prefix: str) -> Iterable[tuple[str, bytes]]:
        """Return the names and values of all facts whose name starts with `prefix`, as they were last put."""


class MemoryMeta:
    """Facts that last as long as the object: for tests, and for nodes without a disk."""

    def __init__(self) -> None:
        self._facts: dict[str, bytes] = {}

    def put_meta(self, name: str, value: bytes | None) -> None:
        """Keep or forget a fact."""
        if value is None:
            self._facts.pop(name, None)
        else:
            self._facts[name] = value

    def meta_items(self, prefix: str) -> list[tuple[str, bytes]]:
        """Return the facts under a prefix, in the order first put."""
        return [(name, value) for name, value in self._facts.items() if name.startswith(prefix)]
