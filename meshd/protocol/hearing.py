"""What a node hears of others, and from whom it hears it: rows of the member table as they arrive.

Of a member that speaks over its own connection nobody else's word is taken, until that connection falls
quiet: then others are asked, by no longer naming it among those that this node hears from, and their word
counts. So a link that lost one direction kills nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from meshd.protocol.dialing import GOSSIP_HEAD_START_S, Dialer
from meshd.protocol.heartbeat import Heart
from meshd.protocol.members import ALIVE, LEFT, Members, StateChange
from meshd.protocol.session import Session
from meshd.protocol.settings import NodeSettings
from meshd.wire.messages import MemberRow

QUIET_BEATS = 2.0
"""A peer that says nothing for so many heartbeats is not heard from here: others are to tell of it."""


class Hearing:
    """The rows that reach one node; `sessions`: peer name -> open session."""

    def __init__(
        self,
        settings: NodeSettings,
        members: Members,
        dialer: Dialer,
        heart: Heart,
        sessions: Mapping[str, Session],
        member_changed: Callable[[StateChange | None], None],
    ) -> None:
        self._me = settings.node
        self._heartbeat_s = settings.heartbeat_s
        self._members = members
        self._dialer = dialer
        self._heart = heart
        self._sessions = sessions
        self._member_changed = member_changed

    # -- who is heard ----------------------------------------------------------------------------

    def quiet_now(self, session: Session, now: float) -> None:
        """Look whether a peer has fallen quiet."""
        if not session.quiet and self._is_silent(session, now):
            session.quiet = True
            self._heart.peers_changed()

    def heard_again(self, session: Session) -> None:
        """A quiet peer has said something."""
        session.quiet = False
        self._heart.peers_changed()

    def lost_by(self, session: Session, lost: frozenset[str], now: float) -> None:
        """A peer does not hear from these any more: it wants to hear of them, at once of those who live."""
        for name in sorted(lost):
            session.members_dirty[name] = None
            held = self._sessions.get(name)
            if held is not None and not self._is_silent(held, now):
                session.heartbeat_due = True
                session.wake(session.conn)

    def _is_silent(self, session: Session, now: float) -> bool:
        return now - session.heard_at >= QUIET_BEATS * self._heartbeat_s

    # -- what is heard ---------------------------------------------------------------------------

    def rows(self, session: Session, rows: Iterable[MemberRow], now: float) -> None:
        """Rows arrived: the peer's own, and those that it passes on."""
        gossip = any(row.name != session.name for row in rows)
        if gossip:
            self._heart.spread_members()
        for row in rows:
            known = self._members.get(row.name)
            if known is not None and known.row == row and row.name != session.name:
                session.members_dirty.pop(row.name, None)  # most neighbours bring the same
                if known.state == ALIVE and self._dialer.knows(row.address):
                    continue
            self._row(session, row, now)
        if gossip:
            self._heart.spread_members(session)

    def _row(self, session: Session, row: MemberRow, now: float) -> None:
        if row.name == self._me:
            return
        if row.name == session.name:
            if row.nonce == session.nonce:
                self._member_changed(self._members.contact(row, now))
            return
        held = self._sessions.get(row.name)
        if held is not None and not (held.quiet and held.nonce == row.nonce):
            return  # its own word comes over its own connection
        self._member_changed(self._members.rumour(row, now))
        member = self._members.get(row.name)
        if member is not None and member.state != LEFT and member.address != self._heart.address:
            delay = GOSSIP_HEAD_START_S if self._me > row.name else 0.0
            self._dialer.add((member.address,), "gossip", now, delay)
