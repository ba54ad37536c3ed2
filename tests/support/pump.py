"""Several mesh nodes joined in memory on virtual time: every effect performed, every frame through the codec.

Small on purpose: no faults beyond cutting links, crashing and restarting. Deterministic for a seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from crdt.owner_log import OwnerLog
from crdt.persist import DropKeys, DropLog, PutEntries, PutLog, PutMeta, ReplaceLog, StoreOp
from crdt.prefixes import Claim, Prefix, PrefixTable, Rule
from crdt.types import Entry, LogHead
from meshd.protocol.effects import CloseConnection, Dial, KeysChanged, MemberChanged, Notice, Persist, Wake
from meshd.protocol.forgetting import FORGET_PREFIX
from meshd.protocol.node import MeshNode
from meshd.protocol.settings import NodeSettings
from meshd.wire.codec import decode, encode


def prefixes() -> PrefixTable:
    """`worker:` keys belong to the owner named behind the colon, up to a slash; `config:` to everybody."""

    def classify(owner: str, key: str, value: bytes) -> Claim:
        if value.startswith(b"!"):
            return Claim.UNREADABLE
        return Claim.OWN if key.startswith(f"worker:{owner}/") else Claim.FOREIGN

    return PrefixTable(
        Prefix("worker:", Rule.SINGLE_WRITER, classify),
        Prefix("config:", Rule.MULTI_WRITER),
        Prefix(FORGET_PREFIX, Rule.MULTI_WRITER),
    )


@dataclass
class Disk:
    """What a node has on disk: applied ops, folded."""

    heads: dict[str, LogHead] = field(default_factory=dict)
    entries: dict[str, dict[str, Entry]] = field(default_factory=dict)
    meta: dict[str, bytes] = field(default_factory=dict)

    def apply(self, ops: tuple[StoreOp, ...]) -> None:
        for op in ops:
            match op:
                case PutLog(head):
                    self.heads[head.owner] = head
                case PutEntries(owner, entries):
                    self.entries.setdefault(owner, {}).update({e[0]: e for e in entries})
                case DropKeys(owner, keys):
                    for key in keys:
                        self.entries[owner].pop(key, None)
                case ReplaceLog(head, entries):
                    self.heads[head.owner] = head
                    self.entries[head.owner] = {e[0]: e for e in entries}
                case DropLog(owner):
                    self.heads.pop(owner, None)
                    self.entries.pop(owner, None)
                case PutMeta(name, None):
                    self.meta.pop(name, None)
                case PutMeta(name, value):
                    assert value is not None
                    self.meta[name] = value

    def logs(self) -> dict[str, OwnerLog]:
        restored = {}
        for owner, head in self.heads.items():
            entries = sorted(self.entries.get(owner, {}).values(), key=lambda e: e[1])
            restored[owner] = OwnerLog.restore(head, entries)
        return restored

    def copy(self) -> Disk:
        return Disk(dict(self.heads), {o: dict(e) for o, e in self.entries.items()}, dict(self.meta))


@dataclass
class _End:
    """One end of a connection: its node (and that node's life), its number, and the other end."""

    node: str
    life: int
    conn: int
    peer: _End | None = None


class Pump:
    """A cluster. `run(seconds)` lets virtual time pass; `cut(a, b)` and `mend()` act on links."""

    def __init__(self, seed: int = 1, delay_s: float = 0.001) -> None:
        self.rng = random.Random(seed)
        self.delay_s = delay_s
        self.now = 1000.0
        self.nodes: dict[str, MeshNode] = {}
        self.disks: dict[str, Disk] = {}
        self.lives: dict[str, int] = {}
        self.notices: list[tuple[str, str, dict[str, object]]] = []
        self.changed: dict[str, list[str]] = {}
        self.cuts: set[frozenset[str]] = set()
        self.frames = 0
        self.entries_moved = 0
        self._ends: dict[tuple[str, int, int], _End] = {}
        self._next_conn = 1
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._tick_at: dict[str, float] = {}

    def wall_ms(self) -> int:
        return int(self.now * 1000) + 1_700_000_000_000

    def start(
        self,
        name: str,
        seeds: tuple[str, ...] = (),
        disk: Disk | None = None,
        called: str = "",
        **settings: Any,
    ) -> MeshNode:
        """Start a life at place `name`; the node is called the same, unless `called` otherwise."""
        self.disks[name] = disk if disk is not None else self.disks.get(name, Disk())
        self.lives[name] = self.lives.get(name, 0) + 1
        stored = self.disks[name]
        node = MeshNode(
            NodeSettings(node=called or name, **settings),
            prefixes(),
            random.Random(self.rng.getrandbits(64)),
            self.now,
            self.wall_ms,
            stored.logs(),
            stored.meta,
        )
        node.address = f"{name}:1"
        self.nodes[name] = node
        self.changed[name] = []
        node.add_addresses([f"{seed}:1" for seed in seeds], "static", self.now)
        self._perform(name)
        return node

    def crash(self, name: str) -> None:
        del self.nodes[name]
        for key, end in list(self._ends.items()):
            if end.node == name:
                self._ends.pop(key, None)
                if end.peer is not None:
                    self._later(self.delay_s, self._closer(end.peer, "connection reset"))

    def cut(self, a: str, b: str) -> None:
        self.cuts.add(frozenset((a, b)))
        for end in list(self._ends.values()):
            if end.peer is not None and {end.node, end.peer.node} == {a, b}:
                self._drop(end, "cut")

    def mend(self) -> None:
        self.cuts.clear()

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            at = self._next_time()
            if at is None or at > until:
                self.now = until
                return
            self.now = max(self.now, at)
            self._fire()

    def converged(self) -> bool:
        return len({node.map.digest for node in self.nodes.values()}) == 1

    # -- within

    def _next_time(self) -> float | None:
        times = [event[0] for event in self._events]
        for name, node in self.nodes.items():
            deadline = node.next_deadline()
            if deadline is not None:
                times.append(max(deadline, self._tick_at.get(name, 0.0) + 0.0005))
        return min(times, default=None)

    def _fire(self) -> None:
        due = sorted((e for e in self._events if e[0] <= self.now), key=lambda e: (e[0], e[1]))
        self._events = [e for e in self._events if e[0] > self.now]
        for _, _, action in due:
            action()
        for name in sorted(self.nodes):
            node = self.nodes.get(name)
            if node is None:
                continue
            deadline = node.next_deadline()
            if deadline is not None and deadline <= self.now:
                self._tick_at[name] = self.now
                node.tick(self.now)
                self._perform(name)

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        self._order += 1
        self._events.append((self.now + delay_s, self._order, action))

    def _perform(self, name: str) -> None:
        node = self.nodes.get(name)
        while node is not None and (effects := node.take_effects()):
            for effect in effects:
                match effect:
                    case Wake(conn):
                        self._drain(name, conn)
                    case CloseConnection(conn, reason):
                        self._drain(name, conn)
                        end = self._ends.get((name, self.lives[name], conn))
                        if end is not None:
                            self._drop(end, reason)
                    case Dial(address):
                        self._later(self.delay_s, self._dialler(name, self.lives[name], address))
                    case Persist(ops):
                        self.disks[name].apply(ops)
                    case KeysChanged(keys):
                        self.changed[name].extend(keys)
                    case MemberChanged():
                        pass
                    case Notice(_, event, fields):
                        self.notices.append((name, event, fields))

    def _drain(self, name: str, conn: int) -> None:
        node = self.nodes[name]
        end = self._ends.get((name, self.lives[name], conn))
        while (message := node.next_message(conn, self.now)) is not None:
            self.frames += 1
            self.entries_moved += len(getattr(message, "entries", ()))
            if end is not None and end.peer is not None:
                self._later(self.delay_s, self._deliverer(end.peer, encode(message)))

    def _deliverer(self, end: _End, body: bytes) -> Callable[[], None]:
        def deliver() -> None:
            if self._ends.get((end.node, end.life, end.conn)) is end and end.node in self.nodes:
                self.nodes[end.node].receive(end.conn, decode(body), self.now)
                self._perform(end.node)

        return deliver

    def _dialler(self, name: str, life: int, address: str) -> Callable[[], None]:
        def dial() -> None:
            if name not in self.nodes or self.lives[name] != life:
                return
            target = address.removesuffix(":1")
            if target not in self.nodes or frozenset((name, target)) in self.cuts:
                self.nodes[name].dial_failed(address, "refused", self.now)
                self._perform(name)
                return
            near = _End(name, life, self._next_conn)
            far = _End(target, self.lives[target], self._next_conn + 1, near)
            near.peer = far
            self._next_conn += 2
            for end in (near, far):
                self._ends[end.node, end.life, end.conn] = end
            self.nodes[name].connection_opened(near.conn, address, address, self.now)
            self.nodes[target].connection_opened(far.conn, None, f"{name}:9", self.now)
            self._perform(name)
            self._perform(target)

        return dial

    def _drop(self, end: _End, reason: str) -> None:
        self._closer(end, reason)()
        if end.peer is not None:
            self._later(self.delay_s, self._closer(end.peer, reason))

    def _closer(self, end: _End, reason: str) -> Callable[[], None]:
        def close() -> None:
            if self._ends.pop((end.node, end.life, end.conn), None) is not None and end.node in self.nodes:
                self.nodes[end.node].connection_closed(end.conn, reason, self.now)
                self._perform(end.node)

        return close

    def put(self, name: str, key: str, value: bytes) -> None:
        self.nodes[name].put(key, value)
        self._perform(name)

    def delete(self, name: str, key: str) -> None:
        self.nodes[name].delete(key)
        self._perform(name)

    def values(self, name: str, prefix: str = "") -> dict[str, bytes]:
        node = self.nodes[name]
        return {key: found.value for key in node.visible_keys(prefix) if (found := node.visible(key))}
