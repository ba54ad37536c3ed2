"""A replicated map small enough to reason about: dictionaries instead of a protocol.

`FakeMesh` joins `FakeStore`s, which keep the worker room's `Store` protocol. What a store writes reaches the
others when the test says so (`deliver`), so that a test can hold back, cut and reorder; the single-writer
rule is applied as the real map applies it. `FakeStore.changed` collects the keys whose visible entry changed,
until `take_changed`.
"""

from __future__ import annotations

from collections.abc import Iterable

from crdt.prefixes import Claim as Ownership
from meshd.errors import TooLarge
from meshd.workers.record import classify
from meshd.workers.store_view import StoreEntry


class FakeMesh:
    """Stores that may exchange their logs, and who of them is up."""

    def __init__(self) -> None:
        self.stores: dict[str, FakeStore] = {}
        self.cuts: set[frozenset[str]] = set()
        self.states: dict[str, str] = {}
        """State of each node as every other node sees it; alive unless set."""

    def store(self, name: str) -> FakeStore:
        """Make a node's store and join it."""
        store = self.stores[name] = FakeStore(self, name)
        return store

    def deliver(self) -> bool:
        """Bring every log to every store that is not cut off from its owner; whether anything changed."""
        changed = False
        for source in self.stores.values():
            for target in self.stores.values():
                if source is not target and frozenset((source.node_name, target.node_name)) not in self.cuts:
                    changed |= target.receive(source.node_name, source.logs[source.node_name])
        return changed

    def cut(self, *names: str) -> None:
        """Let two nodes exchange nothing."""
        self.cuts.add(frozenset(names))

    def heal(self) -> None:
        """Undo all cuts."""
        self.cuts.clear()


class FakeStore:
    """One node's replica: a log per owner, and what is visible of them."""

    def __init__(self, mesh: FakeMesh, name: str) -> None:
        self._mesh = mesh
        self._name = name
        self.logs: dict[str, dict[str, bytes]] = {name: {}}
        self.seq = 0
        self.written: dict[str, int] = {}
        """Own key -> seq, of what the present life wrote."""
        self.deleted: set[str] = set()
        self.overruled: set[str] = set()
        self.is_restored = True
        self.refuse_over_bytes = 262_144
        self.changed: dict[str, None] = {}
        self.writes: list[tuple[str, bytes | None]] = []
        """Every own write in order; None is a tombstone."""

    @property
    def node_name(self) -> str:
        """The name of the node."""
        return self._name

    def restart(self) -> None:
        """Begin a new life with the same disk: nothing was written in it yet."""
        self.written.clear()
        self.writes.clear()
        self.changed.clear()

    def lose_disk(self) -> None:
        """Begin a new life knowing nothing."""
        self.restart()
        self.deleted.clear()
        self.logs = {self._name: {}}

    def receive(self, owner: str, log: dict[str, bytes]) -> bool:
        """Take on an owner's whole log; whether anything changed."""
        mine = self.logs.setdefault(owner, {})
        keys = {key for key in mine.keys() | log.keys() if mine.get(key) != log.get(key)}
        self.logs[owner] = dict(log)
        self.changed.update(dict.fromkeys(sorted(keys)))
        return bool(keys)

    def give_back(self, log: dict[str, bytes]) -> None:
        """Get own entries of a former life from a peer; those written or deleted in this life win."""
        mine = self.logs[self._name]
        for key, value in log.items():
            if key not in self.written and key not in self.deleted and mine.get(key) != value:
                mine[key] = value
                self.changed[key] = None

    def forget(self, owner: str) -> None:
        """Drop an owner's log."""
        self.changed.update(dict.fromkeys(self.logs.pop(owner, {})))

    def take_changed(self) -> list[str]:
        """Return the keys whose entries changed since the last call."""
        keys = list(self.changed)
        self.changed.clear()
        return keys

    # --- the Store protocol -------------------------------------------------------------------------

    def visible(self, key: str) -> StoreEntry | None:
        """Return the entry that counts for a key."""
        unreadable: StoreEntry | None = None
        for owner in sorted(self.logs):
            value = self.logs[owner].get(key)
            if value is None:
                continue
            entry = StoreEntry(key, owner, value, self.seq, owner == self._name and key in self.written)
            match classify(owner, key, value):
                case Ownership.OWN:
                    return entry
                case Ownership.UNREADABLE:
                    unreadable = unreadable or entry
                case Ownership.FOREIGN:
                    continue
        return unreadable

    def own(self, key: str) -> StoreEntry | None:
        """Return this node's own live entry."""
        value = self.logs[self._name].get(key)
        if value is None:
            return None
        return StoreEntry(key, self._name, value, self.seq, key in self.written)

    def own_deleted_in_this_life(self, key: str) -> bool:
        """Whether this life deleted the key."""
        return key in self.deleted

    def overrule(self, key: str, value: bytes | None) -> None:
        """Another life of this node wrote or removed an own key, and a peer gave that back."""
        if value is None:
            self.logs[self._name].pop(key, None)
        else:
            self.logs[self._name][key] = value
        self.overruled.add(key)
        self.changed[key] = None

    def take_overruled(self, key: str) -> bool:
        """Whether `overrule` was called for the key since this was asked or the key was written."""
        overruled = key in self.overruled
        self.overruled.discard(key)
        return overruled

    def visible_keys(self, prefix: str) -> Iterable[str]:
        """Return the keys under a prefix that are visible."""
        keys = sorted({key for log in self.logs.values() for key in log if key.startswith(prefix)})
        return [key for key in keys if self.visible(key) is not None]

    def put(self, key: str, value: bytes, observed: bool = False) -> None:
        """Write an own entry."""
        if len(value) > self.refuse_over_bytes:
            raise TooLarge("the value is over the limit of store.max_value_bytes")
        self.seq += 1
        self.logs[self._name][key] = value
        self.written[key] = self.seq
        self.deleted.discard(key)
        self.overruled.discard(key)
        self.writes.append((key, value))
        self.changed[key] = None

    def delete(self, key: str) -> None:
        """Write an own tombstone."""
        self.seq += 1
        self.logs[self._name].pop(key, None)
        self.written.pop(key, None)
        self.deleted.add(key)
        self.writes.append((key, None))
        self.changed[key] = None

    def owner_state(self, owner: str) -> str:
        """Return a member's state."""
        return "alive" if owner == self._name else self._mesh.states.get(owner, "alive")

    def restored(self) -> bool:
        """Whether former own entries are known."""
        return self.is_restored
