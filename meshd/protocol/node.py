"""The sans-I/O node: told what happened and when, it answers with effects and with frames to send.

It composes the parts: connections and greeting, members, dialing, replication, the own log and forgetting.
Every public method is synchronous and leaves a consistent state; whatever must be done outside is in
`take_effects()`, in order. `put` and `delete` make it the store that the workers see.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from crdt.errors import LimitExceeded, MapError
from crdt.hlc import HybridClock
from crdt.lww_map import Change, LwwMap
from crdt.owner_log import OwnerLog
from crdt.persist import PutMeta, StoreOp
from crdt.prefixes import PrefixTable
from crdt.types import VALUE, Dot, dot_of
from meshd.errors import StoreFull, TooLarge
from meshd.protocol import reads
from meshd.protocol.connections import Connections
from meshd.protocol.dialing import Dialer
from meshd.protocol.effects import Dial, Effect, KeysChanged, MemberChanged, Notice, Persist, Wake
from meshd.protocol.forgetting import META_REMOVED, Forgetting
from meshd.protocol.members import ALIVE, LEFT_FOR_RESTART, LEFT_WITHDRAWN, Members, StateChange
from meshd.protocol.ownership import META_COUNTER, META_FRESH, Ownership
from meshd.protocol.replication import Replicator
from meshd.protocol.session import Session
from meshd.protocol.settings import NodeSettings
from meshd.wire.errors import WireError
from meshd.wire.messages import Leave, Message
from meshd.workers.store_view import StoreEntry

if TYPE_CHECKING:
    import random

LEARN_S = 2.0
"""A start without a disk waits so long for peers that know what it owned."""
OFFER_SPREAD_S = 0.2
"""Peers that hold the same copy of a lost log wait up to this long, so that one of them offers it first."""
OFFER_AGAIN_S = 5.0
META_PEERS = "peers"
META_HLC = "hlc"
MAX_REMEMBERED_PEERS = 256


class MeshNode:
    """One node of the mesh, without sockets, clocks or disk.

    `logs` and `meta` are what the disk held; `wall_clock` gives ms since 1970 for stamps on local writes.
    """

    def __init__(
        self,
        settings: NodeSettings,
        prefixes: PrefixTable,
        rng: random.Random,
        now: float,
        wall_clock: Callable[[], int],
        logs: Mapping[str, OwnerLog] | None = None,
        meta: Mapping[str, bytes] | None = None,
    ) -> None:
        self.settings = settings
        self._rng = rng
        self._wall_clock = wall_clock
        self._effects: list[Effect] = []
        self._woken: set[int] = set()
        meta = dict(meta or {})
        self._meta: dict[str, bytes] = meta
        self.started_at = now
        self._now = self._ticked_at = now
        self._ready = False
        self.map = LwwMap(settings.node, prefixes, settings.limits, logs)
        self._load_removed(meta)
        self._hlc = HybridClock(settings.max_drift_ms, _int(meta.get(META_HLC)))
        self._skewed: dict[str, bool] = {}
        self._had_own_log = settings.node in self.map.logs
        self._learnt = self._had_own_log
        self._removed_at: deque[tuple[float, str, Dot]] = deque(
            (now, key, dot) for key, dot in self.map.removed.items()
        )
        self._offers: dict[str, float] = {}
        fresh = frozenset(int(word) for word in meta.get(META_FRESH, b"").split() if word.isdigit())
        self.forgetting = Forgetting(
            self.map, settings.forget_after_s, settings.fence_keep_s, meta, self._changed, now
        )
        self.ownership = Ownership(
            self.map,
            _int(meta.get(META_COUNTER)),
            fresh,
            settings.tombstone_grace_s,
            rng,
            self._own_moved,
            self._effects.append,
            now,
        )
        self.roster = Members(settings.node, settings.suspect_after_s, settings.down_after_s, now)
        self.dialer = Dialer(rng)
        self.connections = Connections(
            settings,
            self.map,
            self.roster,
            self.dialer,
            self.ownership,
            rng,
            self._emit,
            self._member_changed,
            self._heard_clock,
        )
        self.replicator = Replicator(
            self.map,
            self.connections.open,
            settings.heartbeat_s,
            rng,
            self._changed,
            self._offered,
            self._uncovered,
            self.forgetting.silence,
            self.forgetting.learnt,
            lambda owner: self.roster.state_of(owner) == ALIVE,
        )
        self.connections.replicator = self.replicator
        self._ready = True
        remembered = meta.get(META_PEERS, b"").decode("utf-8", "replace").split("\n")
        self._remembered = tuple(filter(None, remembered))
        self.dialer.add(self._remembered, "remembered", now, 2 * settings.heartbeat_s)

    # -- what the driver tells -------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Where peers reach this node, `host:port`; the driver sets it once it listens."""
        return self.connections.address

    @address.setter
    def address(self, value: str) -> None:
        self.connections.address = value

    def add_addresses(self, addresses: Iterable[str], source: str, now: float) -> None:
        """Addresses to try were found. Those given by hand (`join`) are tried at once, known or not."""
        addresses = [address for address in addresses if address != self.address]
        self.dialer.add(addresses, source, now)
        if source == "join":
            self.dialer.retry_now(addresses, now)
        self._dial(now)

    def connection_opened(self, conn: int, dialled: str | None, remote: str, now: float) -> None:
        """A connection stands; `dialled` is the address of the Dial effect, None if a peer called."""
        self.connections.opened(conn, dialled, remote, now)

    def dial_failed(self, address: str, reason: str, now: float) -> None:
        """A wanted connection did not come about."""
        if self.dialer.failed(address, reason, now):
            self._emit(Notice("info", "dial_failed", {"address": address, "reason": reason}))

    def receive(self, conn: int, message: Message, now: float, wall_ms: int) -> None:
        """A message arrived. One that no correct peer sends costs the connection and changes nothing."""
        session = self.connections.by_conn.get(conn)
        if session is None:
            return
        self._now = now
        try:
            self.connections.receive(session, message, now)
        except (WireError, MapError) as error:
            self.garbage(conn, str(error), now)
        self.connections.member_row_changed()

    def garbage(self, conn: int, reason: str, now: float) -> None:
        """Bytes came that are no message, or a message that has no place."""
        session = self.connections.by_conn.get(conn)
        if session is None:
            return
        fields: dict[str, object] = {"remote": session.remote, "peer": session.name, "reason": reason}
        self._emit(Notice("warning", "bad_peer_input", fields))
        self.connections.close(session, f"bad input: {reason}")

    def connection_closed(self, conn: int, reason: str, now: float) -> None:
        """The connection is gone."""
        self.connections.closed(conn, reason, now)

    def next_message(self, conn: int, now: float, wall_ms: int) -> Message | None:
        """What to send on a connection now, or None; computed at this moment, never queued."""
        self._woken.discard(conn)
        session = self.connections.by_conn.get(conn)
        if session is None:
            return None
        return self.connections.next_message(session, now, self._stamp)

    def tick(self, now: float, wall_ms: int) -> None:
        """Time went by: beat, suspect, dial, ask, collect, forget."""
        paused_s = now - self._ticked_at - self.settings.suspect_after_s / 2
        self._now = self._ticked_at = now
        if paused_s > 0:
            self.connections.resumed(paused_s, now)
        for change in self.roster.tick(now):
            self._member_changed(change)
        self.connections.tick(now)
        self.replicator.tick(now)
        self.ownership.tick(now)
        self.replicator.own_log_halted = bool(self.ownership.halted)
        self._offer(now)
        self._forget(now)
        self._age_removed(now)
        self._remember_peers()
        self._dial(now)
        self.connections.member_row_changed()

    def next_deadline(self) -> float | None:
        """When to call `tick` next, in monotonic seconds."""
        times = [
            self.connections.next_deadline(),
            self.roster.next_deadline(),
            self.replicator.next_deadline(),
            self.ownership.next_deadline(),
            self.dialer.next_deadline(),
            min(self._offers.values(), default=None),
        ]
        return min((at for at in times if at is not None), default=None)

    def take_effects(self) -> list[Effect]:
        """What the calls since the last take want done, in order."""
        effects, self._effects = self._effects, []
        return effects

    # -- the store that workers see --------------------------------------------------------------

    @property
    def node_name(self) -> str:
        """This node's name, the owner of what it writes."""
        return self.settings.node

    def visible(self, key: str) -> StoreEntry | None:
        """The entry that counts for `key`; tombstones are hidden."""
        found = self.map.visible(key)
        if found is None:
            return None
        return self._entry(key, found.owner, found.value)

    def own(self, key: str) -> StoreEntry | None:
        """This node's own live entry for `key`, whether or not it counts."""
        entry = self.map.own.entries.get(key)
        if entry is None or entry[VALUE] is None:
            return None
        return self._entry(key, self.settings.node, entry[VALUE])

    def _entry(self, key: str, owner: str, value: bytes) -> StoreEntry:
        entry = self.map.logs[owner].entries[key]
        mine = owner == self.settings.node
        this_life = mine and dot_of(entry, self.map.own.gen)[1] == self.ownership.nonce
        return StoreEntry(key, owner, value, entry[1], this_life)

    def own_deleted_in_this_life(self, key: str) -> bool:
        """Whether this node removed `key` itself, remembered for as long as it might come back from peers."""
        return key in self.map.removed

    def visible_keys(self, prefix: str) -> Iterable[str]:
        """The visible keys under a prefix."""
        return self.map.visible_keys(prefix)

    def put(self, key: str, value: bytes) -> None:
        """Write a value as this node. Raises TooLarge or StoreFull, having stored nothing."""
        was_removed = key in self.map.removed
        try:
            change = self.map.put(key, value, self._stamp())
        except LimitExceeded as error:
            if error.field == "store":
                raise StoreFull(f"{error}; raise store.max_keys, or remove workers") from error
            raise TooLarge(str(error), field=error.field) from error
        ops = (*change.ops, PutMeta(META_REMOVED + key, None)) if was_removed else change.ops
        self._own_changed(Change(change.verdict, change.keys, ops))

    def delete(self, key: str) -> None:
        """Remove `key` as this node; without an own value there is nothing to do."""
        change = self.map.delete(key, self._stamp())
        if not change.ops:
            return
        dot = self.map.removed.get(key)
        ops: tuple[StoreOp, ...] = change.ops
        if dot is not None:
            self._removed_at.append((self._now, key, dot))
            ops = (*ops, _removed_op(key, dot))
        self._own_changed(Change(change.verdict, change.keys, ops))

    def owner_state(self, owner: str) -> str:
        """alive, suspect, down, left, or unknown."""
        return self.roster.state_of(owner) or "unknown"

    def restored(self) -> bool:
        """Whether what former lives owned is known, or has been waited for long enough."""
        return self._learnt or self._now - self.started_at >= LEARN_S

    def put_meta(self, name: str, value: bytes | None) -> None:
        """Keep a private fact of this node on its disk; None forgets it."""
        if value is None:
            self._meta.pop(name, None)
        else:
            self._meta[name] = value
        self._emit(Persist((PutMeta(name, value),)))

    def meta_items(self, prefix: str) -> list[tuple[str, bytes]]:
        """Private facts whose name starts with `prefix`."""
        return [(name, value) for name, value in self._meta.items() if name.startswith(prefix)]

    # -- leaving and forgetting ------------------------------------------------------------------

    def leave(self, withdrawn: bool, now: float) -> None:
        """Tell every peer that this node stops; `withdrawn`: its workers are gone with it."""
        self.connections.left = LEFT_WITHDRAWN if withdrawn else LEFT_FOR_RESTART
        for session in self.connections.open.values():
            session.leave = Leave(withdrawn)
            self._emit(Wake(session.conn))

    def forget(self, owner: str, now: float) -> bool:
        """Drop a dead owner's entries here. Returns whether there were any; a live owner keeps its own."""
        if self.roster.state_of(owner) == ALIVE:
            return False
        forgotten = self.forgetting.forget(owner, self._stamp())
        if forgotten:
            self._emit(Notice("info", "owner_forgotten", {"owner": owner}))
            self.replicator.log_changed(owner)
            self.replicator.log_changed(self.settings.node)
        return forgotten

    # -- what it shows ---------------------------------------------------------------------------

    def status(self, now: float, wall_ms: int) -> dict[str, Any]:
        """Identity, gen, counts and digest."""
        return reads.status(self, now)

    def members(self, now: float, wall_ms: int) -> list[dict[str, Any]]:
        """Every member, this node first."""
        return reads.members(self, now, wall_ms)

    def peer_views(self) -> dict[str, list[str]]:
        """Node -> nodes that it is connected to."""
        return reads.peers(self)

    def vector(self) -> dict[str, dict[str, Any]]:
        """Owner -> what this node holds of its log."""
        return reads.vector(self)

    def store_entries(
        self, prefix: str, tombstones: bool, limit: int, after: str | None, wall_ms: int
    ) -> list[dict[str, Any]]:
        """Entries in the order of their keys, from the first key after `after`."""
        return reads.entries(self, wall_ms, prefix, tombstones, limit, after or "")

    def store_entry(self, key: str, wall_ms: int) -> list[dict[str, Any]]:
        """Everything held under one key, the entry that counts first."""
        return reads.key_entries(self, wall_ms, key)

    # -- within ----------------------------------------------------------------------------------

    def _emit(self, effect: Effect) -> None:
        if isinstance(effect, Wake):
            if effect.conn in self._woken:
                return
            self._woken.add(effect.conn)
        self._effects.append(effect)

    def _stamp(self) -> int:
        return self._hlc.stamp(self._wall_clock())

    def _changed(self, change: Change) -> None:
        if change.ops:
            self._emit(Persist(change.ops))
        if change.keys:
            self._emit(KeysChanged(change.keys))

    def _own_changed(self, change: Change) -> None:
        self._changed(change)
        self.replicator.log_changed(self.settings.node)

    def _own_moved(self, change: Change) -> None:
        moved = [_removed_op(key, dot) for key, dot in self.map.removed.items() if dot[2] == 0]
        starting = not self._ready
        ops = (*change.ops, *moved)
        if ops:
            self._emit(Persist(ops, durable=starting))
        if change.keys:
            self._emit(KeysChanged(change.keys))
        if not starting:
            self.replicator.log_changed(self.settings.node)

    def _member_changed(self, change: StateChange | None) -> None:
        if change is None:
            return
        level = "info" if change.state == ALIVE else "warning"
        fields: dict[str, object] = {
            "member": change.name,
            "state": change.state,
            "previous": change.previous,
        }
        self._emit(Notice(level, "member_state", fields))
        self._emit(MemberChanged(change.name, change.state, change.previous))

    def _heard_clock(self, name: str, hlc: int) -> None:
        ahead_ms = self._hlc.observe(hlc, self._wall_clock())
        skewed = abs(ahead_ms) > self.settings.max_drift_ms
        if skewed and not self._skewed.get(name, False):
            fields: dict[str, object] = {"peer": name, "ahead_ms": ahead_ms}
            self._emit(Notice("warning", "clock_skew", fields))
        self._skewed[name] = skewed

    def _offered(self, copy: OwnerLog, now: float) -> None:
        self.ownership.offered(copy, now)
        self._learnt = True

    def _uncovered(self, owner: str, now: float) -> None:
        if owner not in self._offers:
            self._offers[owner] = now + self._rng.random() * OFFER_SPREAD_S

    def _offer(self, now: float) -> None:
        for owner, at in list(self._offers.items()):
            if at > now:
                continue
            log = self.map.logs.get(owner)
            if log is None or self.map.known.get(owner, log.gen) <= log.gen:
                del self._offers[owner]
                continue
            self._offers[owner] = now + OFFER_AGAIN_S
            session = self.connections.open.get(owner) or self._towards(owner)
            if session is not None:
                self.replicator.offer(session, log)

    def _towards(self, owner: str) -> Session | None:
        sessions = self.connections.open.values()
        return next((session for session in sessions if owner in session.peers), None)

    def _forget(self, now: float) -> None:
        connected = bool(self.connections.open)

        def is_alive(owner: str) -> bool:
            return self.roster.state_of(owner) == ALIVE

        for owner in self.forgetting.tick(now, connected, is_alive):
            self.forget(owner, now)

    def _load_removed(self, meta: dict[str, bytes]) -> None:
        for name in [name for name in meta if name.startswith(META_REMOVED)]:
            words = meta.pop(name).split()
            if len(words) == 3 and all(word.isdigit() for word in words):
                self.map.removed[name[len(META_REMOVED) :]] = (int(words[0]), int(words[1]), int(words[2]))

    def _age_removed(self, now: float) -> None:
        ops: list[StoreOp] = []
        while self._removed_at and now - self._removed_at[0][0] >= self.settings.forget_after_s:
            _, key, dot = self._removed_at.popleft()
            present = self.map.removed.get(key)
            if present is not None and (present == dot or present[2] == 0):
                del self.map.removed[key]
                ops.append(PutMeta(META_REMOVED + key, None))
        if ops:
            self._emit(Persist(tuple(ops)))

    def _remember_peers(self) -> None:
        rows = sorted(m.address for m in self.roster if m.state == ALIVE and m.address)
        addresses = tuple(rows[:MAX_REMEMBERED_PEERS])
        if addresses and addresses != self._remembered:
            self._remembered = addresses
            self._emit(Persist((PutMeta(META_PEERS, "\n".join(addresses).encode()),)))

    def _dial(self, now: float) -> None:
        for address in self.dialer.due(now, set(self.connections.open)):
            self._emit(Dial(address))


def _removed_op(key: str, dot: Dot) -> PutMeta:
    return PutMeta(META_REMOVED + key, " ".join(map(str, dot)).encode())


def _int(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() else 0
