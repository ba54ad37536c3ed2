"""All connections of a node: greeting them, keeping one per peer, heartbeats over them, giving up the silent.

`open` maps a peer's name to the one session that counts for it. What content moves over a session is
`replication`'s business; who lives is `members`'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from crdt.errors import MapError
from crdt.lww_map import LwwMap
from meshd.protocol.dialing import Dialer
from meshd.protocol.effects import CloseConnection, Notice, Wake
from meshd.protocol.greeting import Greeting, name_clash, own_hello, refusal, settle
from meshd.protocol.hearing import Hearing
from meshd.protocol.heartbeat import Heart
from meshd.protocol.members import LEFT_FOR_RESTART, LEFT_WITHDRAWN, Members, StateChange
from meshd.protocol.ownership import Ownership
from meshd.protocol.replication import Replicator
from meshd.protocol.session import Phase, Session
from meshd.protocol.settings import NodeSettings
from meshd.wire.errors import WireError
from meshd.wire.limits import MAX_WAITING
from meshd.wire.messages import (
    Begin,
    Data,
    Heartbeat,
    Hello,
    Leave,
    MemberRow,
    Message,
    Ping,
    Pong,
    Pull,
    Reject,
    Unknown,
)

if TYPE_CHECKING:
    import random

PEERS_TOLD_S = 0.1
"""How long after a connection came or went the others are told, with all that changed meanwhile."""


class Connections:
    """The sessions of one node and what they say to each other."""

    def __init__(
        self,
        settings: NodeSettings,
        store: LwwMap,
        members: Members,
        dialer: Dialer,
        ownership: Ownership,
        rng: random.Random,
        emit: Callable[[Wake | CloseConnection | Notice], None],
        member_changed: Callable[[StateChange | None], None],
        heard_clock: Callable[[str, int], None],
    ) -> None:
        self._settings = settings
        self._map = store
        self._members = members
        self._dialer = dialer
        self._ownership = ownership
        self._emit = emit
        self._member_changed = member_changed
        self._heard_clock = heard_clock
        self.replicator: Replicator
        self.by_conn: dict[int, Session] = {}
        self.open: dict[str, Session] = {}
        self.heart = Heart(settings, store, members, ownership.nonce, self.open, rng)
        self._hearing = Hearing(settings, members, dialer, self.heart, self.open, member_changed)
        self._contested: dict[int, Session] = {}
        self._silent_at = float("inf")
        """Before this, no open session has been silent for too long; it may be too early, never too late."""
        self._beat_at: float | None = None

    # -- what the driver tells -------------------------------------------------------------------

    def opened(self, conn: int, dialled: str | None, remote: str, now: float) -> None:
        """A transport connection stands."""
        self.by_conn[conn] = Session(conn, dialled, remote, now, self._wake, heard_at=now)
        self._wake(conn)

    def closed(self, conn: int, reason: str, now: float) -> None:
        """A transport connection is gone."""
        session = self.by_conn.pop(conn, None)
        if session is None:
            return
        self._contested.pop(conn, None)
        was_open = self.open.get(session.name) is session
        if was_open:
            del self.open[session.name]
            self.heart.peers_changed()
            self.replicator.session_closed(now)
            self._peers_changed(now)
            self._emit(Notice("info", "peer_disconnected", {"peer": session.name, "reason": reason}))
            for waiting in list(self._contested.values()):
                if waiting.contest == conn and waiting.phase is Phase.CONTESTED:
                    self._open(waiting, now)
        if session.dialled is None:
            return
        if session.close_reason == "redundant" or session.rejected:
            self._dialer.hold_off(session.dialled, now)
        elif self._dialer.failed(session.dialled, session.close_reason or reason, now) and not was_open:
            why = session.close_reason or reason
            self._emit(Notice("info", "dial_failed", {"address": session.dialled, "reason": why}))

    def receive(self, session: Session, message: Message, now: float) -> None:
        """A message arrived. Raises WireError if it has no place here: close the connection then."""
        session.heard_at = now
        if session.quiet:
            self._hearing.heard_again(session)
            self._peers_changed(now)
        if session.phase is Phase.GREETING:
            self._greet(session, message, now)
        elif session.phase is Phase.OPEN:
            self._receive_open(session, message, now)
        elif session.phase is Phase.CONTESTED:
            if isinstance(message, Reject):
                self._rejected(session, message, now)
            elif len(session.waiting) >= MAX_WAITING:
                self.close(session, "said too much while its name was contested")
            else:
                session.waiting.append(message)

    def close(self, session: Session, reason: str) -> None:
        """Give up a connection; the driver closes it once its last words are out."""
        if session.phase is not Phase.CLOSING:
            self._contested.pop(session.conn, None)
            session.phase = Phase.CLOSING
            session.close_reason = session.close_reason or reason
            self._emit(CloseConnection(session.conn, reason))

    def _wake(self, conn: int) -> None:
        self._emit(Wake(conn))

    # -- greeting --------------------------------------------------------------------------------

    def _greet(self, session: Session, message: Message, now: float) -> None:
        match message:
            case Reject():
                self._rejected(session, message, now)
            case Hello():
                self._hello(session, message, now)
            case _:
                raise WireError(f"{type(message).__name__} before Hello")

    def _hello(self, session: Session, hello: Hello, now: float) -> None:
        me = self._settings.node
        session.name, session.nonce = hello.node, hello.nonce
        session.row = MemberRow(hello.node, hello.nonce, 0, 0, hello.address, hello.zone, hello.version)
        present = self.open.get(hello.node)
        decision = settle(session, hello, me, self._ownership.nonce, present)
        if decision is Greeting.SELF:
            if session.dialled is not None:
                self._dialer.is_self(session.dialled)
            self.close(session, "leads to this node itself")
            return
        reject = refusal(hello, me, self._settings.cluster)
        if reject is not None:
            self._refuse(session, reject)
        elif decision is Greeting.REDUNDANT:
            if session.dialled is not None:
                self._dialer.succeeded(session.dialled, hello.node)
            session.close_reason = "redundant"
            self.close(session, "redundant")
        elif decision is Greeting.CONTEST:
            assert present is not None
            session.phase = Phase.CONTESTED
            self._contested[session.conn] = session
            self._contest(session, present, now)
        else:
            self._open(session, now)

    def _contest(self, session: Session, present: Session, now: float) -> None:
        session.contest = present.conn
        session.contest_until = now + 2 * self._settings.probe_timeout_s
        session.contest_token = self.heart.next_token()
        present.pings.append(session.contest_token)
        self._wake(present.conn)

    def _refuse(self, session: Session, reject: Reject) -> None:
        fields = {"remote": session.remote, "peer": session.name, "code": reject.code, "reason": reject.text}
        self._emit(Notice("warning", "peer_refused", dict(fields)))
        session.reject = reject
        self.close(session, f"refused: {reject.text}")
        self._wake(session.conn)

    def _rejected(self, session: Session, reject: Reject, now: float) -> None:
        fields: dict[str, object] = {
            "remote": session.dialled or session.remote,
            "code": reject.code,
            "reason": reject.text,
        }
        self._emit(Notice("warning", "refused_by_peer", fields))
        session.rejected = True
        self.close(session, f"refused by the other side: {reject.text}")

    def _open(self, session: Session, now: float) -> None:
        assert session.row is not None
        present = self.open.pop(session.name, None)
        if present is not None:
            present.close_reason = "redundant"
            self.close(present, "replaced by another connection to the same node")
        self._contested.pop(session.conn, None)
        self._silent_at = min(self._silent_at, session.heard_at + self._settings.down_after_s)
        session.phase = Phase.OPEN
        session.opened_at = now
        self.open[session.name] = session
        for other in self._contested.values():
            if other.name == session.name and other.nonce != session.nonce:
                self._contest(other, session, now)  # the life that it now has to outlast
        self.heart.peers_changed()
        if session.dialled is not None:
            self._dialer.succeeded(session.dialled, session.name)
        self._member_changed(self._members.contact(session.row, now))
        session.members_dirty.update(dict.fromkeys(member.name for member in self._members))
        self.replicator.session_opened(session)
        session.heartbeat_due = True
        self._emit(Notice("info", "peer_connected", {"peer": session.name, "remote": session.remote}))
        self._peers_changed(now)
        self._wake(session.conn)
        self._hear_waiting(session, now)

    def _hear_waiting(self, session: Session, now: float) -> None:
        """What the peer said while its name was contested counts now."""
        waiting, session.waiting = session.waiting, []
        try:
            for message in waiting:
                self.receive(session, message, now)
        except (WireError, MapError) as error:
            fields: dict[str, object] = {"remote": session.remote, "peer": session.name, "reason": str(error)}
            self._emit(Notice("warning", "bad_peer_input", fields))
            self.close(session, f"bad input: {error}")

    def _peers_changed(self, now: float) -> None:
        """Whom this node is connected to is told soon; when a cluster meets, many changes at once."""
        if self._beat_at is not None:
            self._beat_at = min(self._beat_at, now + PEERS_TOLD_S)

    # -- open sessions ---------------------------------------------------------------------------

    def _receive_open(self, session: Session, message: Message, now: float) -> None:
        match message:
            case Data():
                self.replicator.data(session, message, now)
            case Begin():
                self.replicator.begin(session, message, now)
            case Heartbeat():
                self._heartbeat(session, message, now)
            case Ping(token):
                session.pongs.append(token)
                self._wake(session.conn)
            case Pong(token):
                self._pong(session, token, now)
            case Pull():
                self.replicator.pulled(session, message, now)
            case Leave(withdrawn):
                left = LEFT_WITHDRAWN if withdrawn else LEFT_FOR_RESTART
                self._member_changed(self._members.says_left(session.name, left, now))
            case Reject():
                self._rejected(session, message, now)
            case Hello():
                raise WireError("a second Hello")
            case Unknown(kind):
                self._emit(
                    Notice("debug", "unknown_message", {"peer": session.name, "type": kind}),
                )

    def _heartbeat(self, session: Session, beat: Heartbeat, now: float) -> None:
        self._heard_clock(session.name, beat.hlc)
        if beat.token:
            session.pongs.append(beat.token)
            self._wake(session.conn)
        self._hearing.rows(session, beat.members, now)
        session.digest = beat.digest
        if beat.peers is not None:
            peers = frozenset(beat.peers)
            self._hearing.lost_by(session, session.peers - peers, now)
            session.peers = peers
            session.strangers_at = -1
            session.peers_known = True
        for vector_row in beat.rows:
            if vector_row.owner == self._settings.node:
                self._ownership.heard(vector_row.have, now)
        self.replicator.vector_heard(session, beat.rows, beat.done, now)
        self.replicator.first_vector_heard(session, now)

    def _pong(self, session: Session, token: int, now: float) -> None:
        if token == session.token and session.token_sent_at is not None:
            member = self._members.get(session.name)
            if member is not None:
                sample = now - session.token_sent_at
                member.rtt_s = sample if member.rtt_s is None else 0.75 * member.rtt_s + 0.25 * sample
            session.token_sent_at = None
        for waiting in list(self._contested.values()):
            if waiting.contest_token == token:
                self._refuse(waiting, name_clash(waiting.name))

    # -- time ------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Beat if it is time, settle contests, give up silent connections."""
        if self._beat_at is None or now >= self._beat_at:
            self.heart.beat += 1
            self._beat_at = now + self._settings.heartbeat_s
            for session in self.open.values():
                self._hearing.quiet_now(session, now)
                session.heartbeat_due = True
                self._wake(session.conn)
        for session in list(self._contested.values()):
            if now >= session.contest_until and session.phase is Phase.CONTESTED:
                self._open(session, now)
        if now >= self._silent_at:
            self._give_up_silent(now)

    def _give_up_silent(self, now: float) -> None:
        longest_s = self._settings.down_after_s
        self._silent_at = float("inf")
        for session in list(self.by_conn.values()):
            if session.phase is Phase.OPEN:
                if now - session.heard_at >= longest_s:
                    self.close(session, "silent for too long")
                else:
                    self._silent_at = min(self._silent_at, session.heard_at + longest_s)

    def resumed(self, paused_s: float, now: float) -> None:
        """This process did not run for a while: nobody's silence grew meanwhile."""
        for session in self.by_conn.values():
            session.heard_at = min(now, session.heard_at + paused_s)

    def next_deadline(self) -> float:
        """When `tick` has something to do."""
        beat_at = self._beat_at if self._beat_at is not None else 0.0
        return min(
            (s.contest_until for s in self._contested.values() if s.contest_until < beat_at), default=beat_at
        )

    # -- sending ---------------------------------------------------------------------------------

    def next_message(self, session: Session, now: float, hlc: Callable[[], int]) -> Message | None:
        """What to send over this connection now, most urgent first; computed at this moment."""
        if session.hello_due:
            session.hello_due = False
            return own_hello(self._settings, self._ownership.nonce, self.heart.address)
        if session.reject is not None:
            reject, session.reject = session.reject, None
            return reject
        if session.phase is not Phase.OPEN:
            return None
        if session.leave is not None:
            leave, session.leave = session.leave, None
            return leave
        if session.pongs:
            return Pong(session.pongs.popleft())
        if session.pings:
            return Ping(session.pings.popleft())
        if session.heartbeat_due:
            return self.heart.message(session, now, hlc())
        if session.pulls:
            owner = next(iter(session.pulls))
            return Pull(owner, session.pulls.pop(owner))
        return self.replicator.next_frame(session)
