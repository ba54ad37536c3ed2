"""What this node says of itself and others once a second: its heartbeat to every peer.

A heartbeat tells what changed since the last one on its connection, a bounded part of it; what does not fit
stays due, and goes with a heartbeat of its own at once. So a table that lying peers filled never makes a node
send a frame that the next one must refuse.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from crdt.lww_map import LwwMap
from meshd.protocol.members import DOWN, NOT_LEFT, Members
from meshd.protocol.session import Session
from meshd.protocol.settings import NodeSettings
from meshd.wire.limits import HEARTBEAT_MEMBERS, HEARTBEAT_ROWS, MAX_PEER_NAMES
from meshd.wire.messages import Heartbeat, MemberRow, VectorRow

if TYPE_CHECKING:
    import random

MEASURE_EVERY_S = 5.0
"""How often the round trip to a peer is measured: a heartbeat then asks for an answer."""


class Heart:
    """The heartbeats of the life `nonce` of a node; `sessions`: peer name -> open session."""

    def __init__(
        self,
        settings: NodeSettings,
        store: LwwMap,
        members: Members,
        nonce: int,
        sessions: Mapping[str, Session],
        rng: random.Random,
    ) -> None:
        self._settings = settings
        self._map = store
        self._members = members
        self._nonce = nonce
        self._sessions = sessions
        self._token = rng.getrandbits(32)
        self._row: MemberRow | None = None
        self._names: tuple[str, ...] | None = None
        self.beat = 0
        """Counts the beats of this life."""
        self.address = ""
        """Where peers reach this node, `host:port`."""
        self.left = NOT_LEFT
        """Whether this node says that it goes, and how; see `members`."""

    def next_token(self) -> int:
        """A token for a question whose answer repeats it; never 0."""
        self._token = (self._token + 1) & 0xFFFFFFFF or 1
        return self._token

    def own_row(self) -> MemberRow:
        """This node's own row in the member table."""
        row, settings = self._row, self._settings
        if row is None or row.beat != self.beat or row.left != self.left or row.address != self.address:
            row = self._row = MemberRow(
                settings.node,
                self._nonce,
                self.beat,
                self.left,
                self.address,
                settings.zone,
                settings.version,
            )
        return row

    def peers_changed(self) -> None:
        """A session was opened or closed."""
        self._names = None

    def message(self, session: Session, now: float, hlc: int) -> Heartbeat:
        """The heartbeat for a peer, computed now."""
        self.spread_members()
        rows = vector_rows(session, self._map)
        members = member_rows(session, self.own_row(), self._members, self._map.logs)
        session.heartbeat_due = bool(session.vector_dirty or session.members_dirty)
        token = 0
        if now >= session.measure_at:
            session.measure_at = now + MEASURE_EVERY_S
            session.token = token = self.next_token()
            session.token_sent_at = now
        peers = self._peer_names(session)
        return Heartbeat(hlc, session.done, token, rows, members, peers, self._map.digest)

    def _peer_names(self, session: Session) -> tuple[str, ...] | None:
        """From whom this node hears over its own connections; None if the peer was told just that."""
        if self._names is None:
            heard = (name for name, session in self._sessions.items() if not session.quiet)
            self._names = tuple(sorted(heard))[:MAX_PEER_NAMES]
        if self._names == session.peers_announced:
            return None
        session.peers_announced = self._names
        return self._names

    def spread_members(self, source: Session | None = None) -> None:
        """Changed rows are due to each peer that does not hear from that member; `source` just told them."""
        members, changed = self._members, self._members.changed
        if not changed:
            return
        for session in self._sessions.values():
            if session is source:
                continue
            if session.strangers_at != members.moves:
                session.strangers = members.names() - session.peers - {session.name}
                session.strangers_at = members.moves
            if session.strangers:
                session.members_dirty.update((name, None) for name in changed if name in session.strangers)
        changed.clear()


def vector_rows(session: Session, store: LwwMap) -> tuple[VectorRow, ...]:
    """Rows of this node's vector that the peer does not know yet."""
    rows = []
    for owner in _take(session.vector_dirty, HEARTBEAT_ROWS):
        have = store.have(owner)
        if session.announced.get(owner) != have:
            session.announced[owner] = have
            rows.append(VectorRow(owner, have))
    return tuple(rows)


def member_rows(
    session: Session, own: MemberRow, members: Members, owns: Container[str]
) -> tuple[MemberRow, ...]:
    """This node's own row, and those of others that changed.

    Not the peer's, which knows itself, nor of those to whom it is connected: it takes their own word alone.
    Nor of dead members of whom nothing is left (`owns`: names of owners of logs): else such a row would
    wander from node to node for ever, each forgetting it in its turn.
    """
    rows = [own]
    for name in _take(session.members_dirty, HEARTBEAT_MEMBERS):
        member = members.get(name)
        if member is None or name == session.name or name in session.peers:
            continue
        if member.state != DOWN or name in owns:
            rows.append(member.row)
    return tuple(rows)


def _take(due: dict[str, None], most: int) -> list[str]:
    if len(due) <= most:
        taken = list(due)
        due.clear()
        return taken
    taken = list(islice(due, most))
    for name in taken:
        del due[name]
    return taken
