"""The sans-I/O node: told what happened and when, it answers with effects and with frames to send.

It composes the parts: connections and greeting, members, dialing, replication, the own log and forgetting.
Every public method is synchronous and leaves a consistent state; whatever must be done outside is in
`take_effects()`, in order. `store` is the map as the workers of this node see it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from crdt.errors import MapError
from crdt.lww_map import Change, LwwMap
from crdt.owner_log import OwnerLog
from crdt.persist import PutMeta, StoreOp
from crdt.prefixes import PrefixTable
from meshd.protocol import reads
from meshd.protocol.connections import Connections
from meshd.protocol.cutoff import CutOff
from meshd.protocol.dialing import Dialer
from meshd.protocol.effects import Dial, Effect, KeysChanged, MemberChanged, Notice, Persist, Wake
from meshd.protocol.forgetting import FORGET_PREFIX, Forgetting
from meshd.protocol.local_store import LocalStore
from meshd.protocol.members import (
    ALIVE,
    LEFT,
    LEFT_FOR_RESTART,
    LEFT_WITHDRAWN,
    SUSPECT,
    Member,
    Members,
    StateChange,
)
from meshd.protocol.offers import Offers
from meshd.protocol.ownership import META_COUNTER, META_LINE, Ownership
from meshd.protocol.replication import Replicator
from meshd.protocol.settings import NodeSettings
from meshd.protocol.stamps import Stamps
from meshd.wire.errors import WireError
from meshd.wire.messages import Leave, Message

if TYPE_CHECKING:
    import random

LEARN_S = 2.0
"""A start without a disk waits so long for peers that know what it owned."""
META_PEERS = "peers"
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
        self.started_at = now
        self._now = self._ticked_at = now
        self._ready = False
        self.map = LwwMap(settings.node, prefixes, settings.limits, logs)
        own = self.map.logs.get(settings.node)
        self._stamp = Stamps(own, settings.max_drift_ms, wall_clock, self._emit)
        self._foreign_told: dict[str, int] = {}
        self._learnt = own is not None
        self.store = LocalStore(
            self.map,
            meta,
            self._stamp,
            self._own_changed,
            self._persist,
            self.owner_state,
            self.restored,
        )
        self.put, self.delete = self.store.put, self.store.delete
        self.visible, self.visible_keys = self.store.visible, self.store.visible_keys
        line = frozenset(int(word) for word in meta.get(META_LINE, b"").split() if word.isdigit())
        self.forgetting = Forgetting(
            self.map, settings.forget_after_s, settings.fence_keep_s, meta, self._changed, now
        )
        self.ownership = Ownership(
            self.map,
            _int(meta.get(META_COUNTER)),
            line,
            settings.tombstone_grace_s,
            rng,
            self._own_moved,
            self._emit,
            now,
        )
        self.store.nonce = self.ownership.nonce
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
            self._stamp.heard,
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
            self._may_send,
        )
        self.replicator.own_log_halted = self.ownership.is_halted
        self.connections.replicator = self.replicator
        self._offers = Offers(
            self.map, self.connections.open, rng, self.replicator.way_to, self.replicator.offer
        )
        self.replicator.met = self._offers.met
        self._ready = True
        remembered = meta.get(META_PEERS, b"").decode("utf-8", "replace").split("\n")
        self._remembered = tuple(filter(None, remembered))
        self._remembered_at = -1
        """The roster's `moves` when its addresses were last looked at."""
        self.cut_off = CutOff(settings.down_after_s, settings.forget_after_s)
        self.dialer.add(self._remembered, "remembered", now, 2 * settings.heartbeat_s)

    # -- what the driver tells -------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Where peers reach this node, `host:port`; the driver sets it once it listens."""
        return self.connections.heart.address

    @address.setter
    def address(self, value: str) -> None:
        self.connections.heart.address = value

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

    def receive(self, conn: int, message: Message, now: float) -> None:
        """A message arrived. One that no correct peer sends costs the connection and changes nothing."""
        session = self.connections.by_conn.get(conn)
        if session is None:
            return
        self._now = now
        try:
            self.connections.receive(session, message, now)
        except (WireError, MapError) as error:
            self.garbage(conn, str(error), now)

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

    def next_message(self, conn: int, now: float) -> Message | None:
        """What to send on a connection now, or None; computed at this moment, never queued."""
        self._woken.discard(conn)
        session = self.connections.by_conn.get(conn)
        if session is None:
            return None
        return self.connections.next_message(session, now, self._stamp)

    def tick(self, now: float) -> None:
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
        self._offers.tick(now)
        self._forget(now)
        self._remember_peers()
        self._dial(now)

    def next_deadline(self) -> float | None:
        """When to call `tick` next, in monotonic seconds."""
        times = [
            self.connections.next_deadline(),
            self.roster.next_deadline(),
            self.replicator.next_deadline(),
            self.ownership.next_deadline(),
            self.dialer.next_deadline(),
            self._offers.next_deadline(),
        ]
        return min((at for at in times if at is not None), default=None)

    def take_effects(self) -> list[Effect]:
        """What the calls since the last take want done, in order."""
        effects, self._effects = self._effects, []
        return effects

    def owner_state(self, owner: str) -> str:
        """alive, suspect, down, left, or unknown."""
        return self.roster.state_of(owner) or "unknown"

    def restored(self) -> bool:
        """Whether what former lives owned is known, or has been waited for long enough."""
        return self._learnt or self._now - self.started_at >= LEARN_S

    # -- leaving and forgetting ------------------------------------------------------------------

    def leave(self, withdrawn: bool, now: float) -> None:
        """Tell every peer that this node stops; `withdrawn`: its workers are gone with it."""
        self.connections.heart.left = LEFT_WITHDRAWN if withdrawn else LEFT_FOR_RESTART
        for session in self.connections.open.values():
            session.leave = Leave(withdrawn)
            self._emit(Wake(session.conn))

    def forget(self, owner: str, now: float) -> bool:
        """Drop a dead owner's entries here. Returns whether there were any; a live owner keeps its own."""
        if self.roster.state_of(owner) == ALIVE:
            return False
        forgotten = self.forgetting.forget(owner, self._stamp())
        member = self.roster.get(owner)
        if member is not None:
            self._drop_member(member)
        if forgotten:
            self._emit(Notice("info", "owner_forgotten", {"owner": owner}))
            self.replicator.log_changed(owner)
            self.replicator.log_changed(self.settings.node)
        return forgotten

    def forget_everywhere(self, owner: str, now: float) -> bool:
        """Have every node forget a dead owner's entries, those that are away as soon as they are back.

        Returns False, having done nothing, if this node holds nothing of that owner or the owner lives.
        """
        log = self.map.logs.get(owner)
        if log is None or owner == self.settings.node or self.roster.state_of(owner) == ALIVE:
            return False
        counter = max(log.gen[0], self.map.known.get(owner, log.gen)[0])
        self.put(FORGET_PREFIX + owner, str(counter).encode())
        self._forget(now)
        return True

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

    def store_places(
        self, prefix: str, tombstones: bool, limit: int, after: str | None
    ) -> list[tuple[str, str]]:
        """(key, owner) of what `store_entries` would show, for whoever shows it piece by piece."""
        return reads.places(self, prefix, tombstones, limit, after or "")

    def store_row(self, key: str, owner: str, wall_ms: int) -> dict[str, Any] | None:
        """One entry of one log; None if it is gone."""
        log = self.map.logs.get(owner)
        return None if log is None or key not in log.entries else reads.entry(self, wall_ms, key, owner)

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

    def _persist(self, ops: tuple[StoreOp, ...]) -> None:
        self._emit(Persist(ops))

    def _may_send(self, owner: str) -> bool:
        return self.roster.state_of(owner) in (ALIVE, SUSPECT)

    def _changed(self, change: Change) -> None:
        if change.ops:
            self._emit(Persist(change.ops))
        self._keys_changed(change.keys)
        self._say_foreign()

    def _say_foreign(self) -> None:
        """Name who writes what is not theirs to write; each time there is twice as much, so no log fills."""
        for owner, (writes, key) in self.map.view.foreign_writes.items():
            if writes >= 2 * self._foreign_told.get(owner, 0):
                self._foreign_told[owner] = writes
                fields: dict[str, object] = {"owner": owner, "key": key, "writes": writes}
                self._emit(Notice("warning", "foreign_entries", fields))

    def _keys_changed(self, keys: tuple[str, ...]) -> None:
        if keys:
            self._emit(KeysChanged(keys))
            self.forgetting.read(keys)

    def _own_changed(self, change: Change) -> None:
        if change.ops:
            self._emit(Persist(change.ops))
        # Peers are told before anybody here: they are further away.
        self.replicator.log_changed(self.settings.node)
        self._keys_changed(change.keys)

    def _own_moved(self, change: Change) -> None:
        starting = not self._ready
        if change.ops:
            self._emit(Persist(change.ops, durable=starting))
        if not starting:
            self._keys_changed(change.keys)
            self.replicator.log_changed(self.settings.node)

    def _member_changed(self, change: StateChange | None) -> None:
        if change is None:
            return
        if change.previous == ALIVE and change.state == SUSPECT:
            self.cut_off.lost(change.name, self._now)
        elif change.state == ALIVE:
            self.cut_off.back(change.name)
        elif change.state == LEFT:
            self.cut_off.left(change.name)
        level = "info" if change.state == ALIVE or change.previous is None else "warning"
        fields: dict[str, object] = {
            "member": change.name,
            "state": change.state,
            "previous": change.previous,
        }
        self._emit(Notice(level, "member_state", fields))
        self._emit(MemberChanged(change.name, change.state, change.previous))

    def _offered(self, copy: OwnerLog, now: float) -> None:
        self.ownership.offered(copy, now)
        self._learnt = True

    def _uncovered(self, owner: str, now: float) -> None:
        self._offers.uncovered(owner, now)

    def _forget(self, now: float) -> None:
        if self.cut_off.update(self.roster.alive, now):
            self._say_cut_off(now)
        connected = bool(self.connections.open) and not self.cut_off.holds_clock(now)
        for owner in self.forgetting.tick(now, connected, self.roster.alive):
            self.forget(owner, now)
        for owner in self.forgetting.asked_for():
            self.forget(owner, now)
        if connected:
            for member in self.roster.expired(now, self.settings.forget_after_s, self.map.logs):
                self._drop_member(member)

    def _drop_member(self, member: Member) -> None:
        self.roster.drop(member.name)
        if all(other.address != member.address for other in self.roster):
            self.dialer.drop(member.address)

    def _say_cut_off(self, now: float) -> None:
        if self.cut_off.since is None:
            self._emit(Notice("warning", "links_back", {"node": self.settings.node}))
        else:
            reason = "most members fell silent at once: this node takes itself for the cut-off one"
            self._emit(Notice("error", "cut_off", {"node": self.settings.node, "reason": reason}))

    def _remember_peers(self) -> None:
        if self._remembered_at == self.roster.moves:
            return
        self._remembered_at = self.roster.moves
        rows = sorted(m.address for m in self.roster if m.state == ALIVE and m.address)
        addresses = tuple(rows[:MAX_REMEMBERED_PEERS])
        if addresses and addresses != self._remembered:
            self._remembered = addresses
            self._emit(Persist((PutMeta(META_PEERS, "\n".join(addresses).encode()),)))

    def _dial(self, now: float) -> None:
        for address in self.dialer.due(now, self.connections.open):
            self._emit(Dial(address))


def _int(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() else 0
