"""The map as the workers of this node see it: reading what counts, writing as this node, private facts.

Own removals are remembered beyond their tombstones, and without a limit of time: a peer that was away may
come back after any while with an entry that this node had lost before it removed the key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from crdt.errors import IllegalKey, LimitExceeded
from crdt.lww_map import META_REMOVED, Change, LwwMap
from crdt.persist import PutMeta, StoreOp
from crdt.types import VALUE, Dot, dot_of
from meshd.errors import BadRequest, StoreFull, TooLarge
from meshd.workers.store_view import StoreEntry


class LocalStore:
    """Implements `meshd.workers.store_view.Store` and `Meta` over the map of this node.

    `stamp` gives a hybrid timestamp; `written` takes what a write changed; `persist` takes private facts.
    """

    def __init__(
        self,
        store: LwwMap,
        meta: dict[str, bytes],
        stamp: Callable[[], int],
        written: Callable[[Change], None],
        persist: Callable[[tuple[StoreOp, ...]], None],
        owner_state: Callable[[str], str],
        restored: Callable[[], bool],
    ) -> None:
        self._map = store
        self._meta = meta
        self._stamp = stamp
        self._written = written
        self._persist = persist
        self.owner_state = owner_state
        self.restored = restored
        self.nonce = 0
        """The boot nonce of this life; entries whose dot carries it were written in it."""
        removed: dict[str, Dot] = {}
        for name in [name for name in meta if name.startswith(META_REMOVED)]:
            words = meta.pop(name).split()
            if len(words) == 3 and all(word.isdigit() for word in words):
                removed[name[len(META_REMOVED) :]] = (int(words[0]), int(words[1]), int(words[2]))
        store.removed.update(sorted(removed.items(), key=lambda item: item[1]))

    @property
    def node_name(self) -> str:
        """This node's name, the owner of what it writes."""
        return self._map.node

    def visible(self, key: str) -> StoreEntry | None:
        """The entry that counts for `key`; tombstones are hidden."""
        found = self._map.visible(key)
        return None if found is None else self._entry(key, found.owner, found.value)

    def own(self, key: str) -> StoreEntry | None:
        """This node's own live entry for `key`, whether or not it counts."""
        entry = self._map.own.entries.get(key)
        if entry is None or entry[VALUE] is None:
            return None
        return self._entry(key, self._map.node, entry[VALUE])

    def _entry(self, key: str, owner: str, value: bytes) -> StoreEntry:
        log = self._map.logs[owner]
        entry = log.entries[key]
        this_life = owner == self._map.node and dot_of(entry, log.gen)[1] == self.nonce
        return StoreEntry(key, owner, value, entry[1], this_life)

    def own_deleted_in_this_life(self, key: str) -> bool:
        """Whether this node removed `key` itself, remembered for as long as it might come back from peers."""
        return key in self._map.removed

    def take_overruled(self, key: str) -> bool:
        """Whether another life of this node changed or removed the own value of `key`; told once."""
        overruled = key in self._map.overruled
        self._map.overruled.discard(key)
        return overruled

    def visible_keys(self, prefix: str) -> Iterable[str]:
        """The visible keys under a prefix."""
        return self._map.visible_keys(prefix)

    def put(self, key: str, value: bytes, observed: bool = False) -> None:
        """Write a value as this node. Raises TooLarge, StoreFull or BadRequest, having stored nothing."""
        self._write(lambda: self._map.put(key, value, self._stamp(), observed))

    def delete(self, key: str) -> None:
        """Remove `key` as this node; without an own value there is nothing to do. Raises as `put`."""
        self._write(lambda: self._map.delete(key, self._stamp()))

    def _write(self, write: Callable[[], Change]) -> None:
        try:
            change = write()
        except LimitExceeded as error:
            if error.unit == "keys":
                hint = "; raise store.max_keys, or remove workers" if error.field == "store" else ""
                raise StoreFull(f"{error}{hint}") from error
            raise TooLarge(str(error), field=error.field) from error
        except IllegalKey as error:
            raise BadRequest(str(error), field=error.field) from error
        if change.ops:
            self._written(change)

    def put_meta(self, name: str, value: bytes | None) -> None:
        """Keep a private fact of this node on its disk; None forgets it."""
        if value is None:
            self._meta.pop(name, None)
        else:
            self._meta[name] = value
        self._persist((PutMeta(name, value),))

    def meta_items(self, prefix: str) -> list[tuple[str, bytes]]:
        """Private facts whose name starts with `prefix`."""
        return [(name, value) for name, value in self._meta.items() if name.startswith(prefix)]
