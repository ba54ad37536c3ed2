"""Who is sent what of which log, and what becomes of what arrives.

- An owner pushes its own log to every peer the moment it changes. A third node passes a log on unasked
  only to a peer that has no connection to the owner, and only one of the possible relays does so.
- Everything else is pulled: a vector that shows a peer ahead is answered with a request, after a pause if
  the owner itself is connected and should be sending. So nothing lost stays lost, and nothing travels thrice.
- What is sent is computed when there is room to send it, from what the peer is believed to have; once the
  peer has dealt with a transfer, its own word replaces the belief.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crdt.delta import Transfer, Verdict
from crdt.lww_map import Change, LwwMap
from crdt.owner_log import OwnerLog
from crdt.types import NOTHING, VALUE, Have
from meshd.protocol.session import Incoming, Outgoing, Phase, Session
from meshd.wire.errors import WireError
from meshd.wire.limits import MAX_OWNERS, MAX_PULLS_QUEUED, MAX_STAGED_TRANSFERS, OUTGOING_TRANSFERS
from meshd.wire.messages import Begin, Data, Pull, VectorRow

if TYPE_CHECKING:
    import random

PULL_AGAIN_S = 3.0
"""A request that brought nothing is made again, to another peer if there is one, after this long."""
REFUSED_PAUSE_S = 5.0
"""A log that a peer did not take is not sent to it again for this long."""
MAX_STAGED_BYTES = 2 * 1024**3
"""Incomplete transfers held per connection."""


@dataclass(slots=True)
class _Behind:
    """An owner of whose log some peer has more than this node; `at`: when to ask."""

    at: float


def is_ahead(theirs: Have, mine: Have) -> bool:
    """Whether a replica at `theirs` has something that one at `mine` could take."""
    if theirs.gen[0] <= mine.fence:
        return False
    if theirs.gen != mine.gen:
        return theirs.gen > mine.gen
    if theirs.max != mine.max:
        return theirs.max > mine.max
    return theirs.hash > mine.hash or theirs.floor > mine.floor


class Replicator:
    """Moves logs between this node's map and its open sessions (`sessions`: peer name -> session)."""

    def __init__(
        self,
        store: LwwMap,
        sessions: dict[str, Session],
        heartbeat_s: float,
        rng: random.Random,
        changed: Callable[[Change], None],
        offered: Callable[[OwnerLog, float], None],
        uncovered: Callable[[str, float], None],
        silence: Callable[[str], float],
        learnt: Callable[[str, float], None],
        is_alive: Callable[[str], bool],
    ) -> None:
        self._map = store
        self._me = store.node
        self._sessions = sessions
        self._grace_s = 2 * heartbeat_s
        self._rng = rng
        self._changed = changed
        self._offered = offered
        self._uncovered = uncovered
        self._silence = silence
        self._learnt = learnt
        self._is_alive = is_alive
        self._behind: dict[str, _Behind] = {}
        self._retry_at = float("inf")
        """Before this no session has a retry that is due; it may be too early, never too late."""
        self._settle_at = float("inf")
        """As much for sessions that are to settle."""
        self.own_log_halted: Callable[[], bool] = bool
        """True while another process lives under this node's name: the own log is sent to nobody."""
        self.met: Callable[[str, float], None] = lambda name, now: None
        """Told of every peer that connects, with the time."""
        self.received_transfers = 0
        self.sent_transfers = 0
        self.sent_entries = 0

    # -- news ------------------------------------------------------------------------------------

    def log_changed(self, owner: str, source: int = 0) -> None:
        """This node's copy of `owner`'s log changed; `source`: the connection that it came by."""
        for session in self._sessions.values():
            session.vector_dirty[owner] = None
            if owner in session.retry_at and session.refused[owner] != self._map.have(owner).gen:
                del session.retry_at[owner]  # another gen was refused
            if session.conn != source and self._pushes(owner, session):
                session.mark(owner)

    def _pushes(self, owner: str, session: Session) -> bool:
        if not session.peers_known:
            return False  # it has not told yet what it holds
        if owner == self._me:
            return True
        if session.name == owner or owner in session.peers or not session.settled:
            return False
        relays = (
            other.name
            for other in self._sessions.values()
            if owner in other.peers and session.name in other.peers
        )
        return all(self._me < name for name in relays)

    def session_opened(self, session: Session) -> None:
        """A peer is connected: it hears the whole vector, and the own log is looked at for it."""
        self._settle_at = min(self._settle_at, session.opened_at + self._grace_s)
        owners = sorted(self._map.owners())
        if session.name in owners:
            session.vector_dirty[session.name] = None  # first: what a first heartbeat leaves out, we lack
        session.vector_dirty.update(dict.fromkeys(owners))
        self.met(session.name, session.opened_at)

    def session_closed(self, now: float) -> None:
        """Requests made over a closed connection are made anew elsewhere."""
        for behind in self._behind.values():
            behind.at = min(behind.at, now)

    def vector_heard(self, session: Session, rows: Iterable[VectorRow], done: int, now: float) -> None:
        """A heartbeat told what the peer has."""
        for row in rows:
            if not self._takes_note(session, row.owner):
                continue
            session.reported[row.owner] = row.have
            if self._map.heard_of(row.owner, row.have.known):
                self._announce(row.owner)
            self._compare(session, row.owner, now)
        for owner, number in list(session.unconfirmed.items()):
            if number <= done:
                del session.unconfirmed[owner]
                self._confirm(session, owner, now)

    def _takes_note(self, session: Session, owner: str) -> bool:
        """Whether there is room for another owner's row: a peer may name as many as it likes."""
        if owner in session.reported or owner in self._sessions or owner == self._me:
            return True
        if len(session.reported) >= MAX_OWNERS:
            return False
        return len(self._map.known) < MAX_OWNERS or owner in self._map.known or owner in self._map.logs

    def first_vector_heard(self, session: Session, now: float) -> None:
        """After the first heartbeat of a peer: an owner it did not name it holds nothing of."""
        self._compare(session, self._me, now)

    def _announce(self, owner: str) -> None:
        for session in self._sessions.values():
            session.vector_dirty[owner] = None

    def _compare(self, session: Session, owner: str, now: float) -> None:
        theirs = session.reported.get(owner, NOTHING)
        if owner not in session.unconfirmed and owner not in session.outgoing:
            session.believed[owner] = theirs
        if self._pushes(owner, session) and self._map.lacks(owner, session.belief(owner)):
            session.mark(owner)
        if owner != self._me and owner not in self._behind and is_ahead(theirs, self._map.have(owner)):
            owner_sends = self._is_alive(owner)
            self._behind[owner] = _Behind(now + (self._grace_s if owner_sends else 0.0))

    def _confirm(self, session: Session, owner: str, now: float) -> None:
        if owner in session.outgoing:
            return
        believed = session.belief(owner)
        theirs = session.reported.get(owner, NOTHING)
        session.believed[owner] = theirs
        refused = theirs.gen < believed.gen or (theirs.gen == believed.gen and theirs.max < believed.max)
        if refused and believed.gen != self._map.have(owner).gen:
            session.mark(owner)  # it has moved on meanwhile
        elif refused:
            session.refused[owner] = believed.gen
            session.retry_at[owner] = now + REFUSED_PAUSE_S
            self._retry_at = min(self._retry_at, now + REFUSED_PAUSE_S)

    # -- asking ----------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Make the requests that are due, and look again at what peers refused."""
        for owner, behind in list(self._behind.items()):
            if behind.at <= now:
                self._ask(owner, behind, now)
        if now >= self._settle_at:
            self._settle(now)
        if now >= self._retry_at:
            self._retry(now)

    def _settle(self, now: float) -> None:
        self._settle_at = float("inf")
        for session in self._sessions.values():
            if session.settled:
                continue
            if session.peers_known and now - session.opened_at >= self._grace_s:
                session.settled = True
                for owner in self._map.logs:
                    if owner not in session.peers:
                        self._compare(session, owner, now)
            else:
                self._settle_at = min(self._settle_at, session.opened_at + self._grace_s)

    def _retry(self, now: float) -> None:
        self._retry_at = float("inf")
        for session in self._sessions.values():
            for owner, at in list(session.retry_at.items()):
                if at <= now:
                    del session.retry_at[owner]
                    self._compare(session, owner, now)
                else:
                    self._retry_at = min(self._retry_at, at)

    def _ask(self, owner: str, behind: _Behind, now: float) -> None:
        mine = self._map.have(owner)
        ahead = [s for s in self._sessions.values() if is_ahead(s.reported.get(owner, NOTHING), mine)]
        if not ahead:
            del self._behind[owner]
            return
        if not any(self._receives(session, owner) for session in self._sessions.values()):
            self._rng.choice(ahead).ask(owner, mine)
        behind.at = now + PULL_AGAIN_S

    @staticmethod
    def _receives(session: Session, owner: str) -> bool:
        return any(i.begin is not None and i.begin.head.owner == owner for i in session.incoming.values())

    def pulled(self, session: Session, pull: Pull, now: float) -> None:
        """The peer asks for what it lacks of a log."""
        if len(session.dirty) >= MAX_PULLS_QUEUED and pull.owner not in session.dirty:
            return
        if pull.owner not in session.outgoing:
            session.unconfirmed.pop(pull.owner, None)
            session.retry_at.pop(pull.owner, None)
            session.believed[pull.owner] = pull.have
            session.mark(pull.owner)

    def next_deadline(self) -> float | None:
        """When to look for the next request or retry that is due, or None."""
        at = min((behind.at for behind in self._behind.values()), default=self._retry_at)
        at = min(at, self._retry_at)
        return None if at == float("inf") else at

    # -- sending ---------------------------------------------------------------------------------

    def next_frame(self, session: Session) -> Begin | Data | None:
        """The next frame of content for the peer, computed now; None if it lacks nothing."""
        self._fill(session)
        for owner, outgoing in session.outgoing.items():
            frame = outgoing.next_frame()
            if isinstance(frame, Data):
                del session.outgoing[owner]
                self.sent_entries += len(frame.entries)
                if frame.last:
                    self._sent(session, owner, outgoing)
                else:
                    session.outgoing[owner] = outgoing  # at the end: transfers take turns
            return frame
        return None

    def _fill(self, session: Session) -> None:
        for owner in list(session.dirty):
            if len(session.outgoing) >= OUTGOING_TRANSFERS:
                return
            if owner in session.outgoing:
                continue
            del session.dirty[owner]
            if owner in session.retry_at or (owner == self._me and self.own_log_halted()):
                continue
            transfer = self._map.lacking(owner, session.belief(owner))
            if transfer is not None:
                self._start(session, owner, transfer, offer=False)

    def _start(self, session: Session, owner: str, transfer: Transfer, offer: bool) -> None:
        session.started += 1
        silence_s = int(self._silence(owner))
        session.outgoing[owner] = Outgoing(transfer, session.started, offer, silence_s)
        session.wake(session.conn)

    def _sent(self, session: Session, owner: str, outgoing: Outgoing) -> None:
        session.finished += 1
        self.sent_transfers += 1
        if outgoing.offer:
            return
        head = outgoing.transfer.head
        have = session.belief(owner)
        session.believed[owner] = have._replace(gen=head.gen, max=head.max, floor=head.floor, hash=head.hash)
        session.unconfirmed[owner] = session.finished
        if owner in session.dirty:
            session.wake(session.conn)

    def way_to(self, owner: str, but: str = "") -> Session | None:
        """The session with an owner, or with a neighbour of it other than `but`; None if there is none."""
        direct = self._sessions.get(owner)
        if direct is not None:
            return direct
        near = (s for s in self._sessions.values() if owner in s.peers and s.name != but)
        return next(near, None)

    def offer(self, session: Session, log: OwnerLog) -> None:
        """Send a copy of its own log to its owner (or towards it), which has lost part of it."""
        if log.owner not in session.outgoing:
            copy = Transfer(log.head(), 0, True, tuple(log.entries.values()))
            self._start(session, log.owner, copy, offer=True)

    # -- receiving -------------------------------------------------------------------------------

    def begin(self, session: Session, begin: Begin, now: float) -> None:
        """A transfer starts. Raises WireError if too many are half received."""
        if begin.number in session.incoming or len(session.incoming) >= MAX_STAGED_TRANSFERS:
            raise WireError("too many transfers at once, or a transfer number twice")
        head = begin.head
        if begin.offer:
            takes = head.owner == self._me or self.way_to(head.owner, session.name) is not None
        elif not self._takes_note(session, head.owner):
            takes = False
        else:
            if self._map.heard_of(head.owner, head.gen):
                self._announce(head.owner)
            verdict = self._map.judge(Transfer(head, begin.start, begin.full, ()))
            takes = verdict in (Verdict.APPLIED, Verdict.SWAPPED)
            if not takes:
                self._refused(session, begin, verdict, now)
        session.incoming[begin.number] = Incoming(begin if takes else None)

    def data(self, session: Session, data: Data, now: float) -> None:
        """A page arrives. Raises WireError or MapError if it is not what a correct peer sends."""
        incoming = session.incoming.get(data.number)
        if incoming is None:
            raise WireError(f"a page of transfer {data.number}, which never began")
        if incoming.begin is not None:
            size = sum(len(e[VALUE] or b"") + len(e[0]) + 64 for e in data.entries)
            incoming.entries.extend(data.entries)
            incoming.size_bytes += size
            session.staged_bytes += size
            if session.staged_bytes > MAX_STAGED_BYTES:
                raise WireError(f"over {MAX_STAGED_BYTES} bytes of incomplete transfers")
        if data.last:
            del session.incoming[data.number]
            session.staged_bytes -= incoming.size_bytes
            session.done += 1
            if incoming.begin is not None:
                self._complete(session, incoming.begin, incoming, now)

    def _complete(self, session: Session, begin: Begin, incoming: Incoming, now: float) -> None:
        head, entries = begin.head, tuple(incoming.entries)
        incoming.entries = []
        self.received_transfers += 1
        if begin.offer:
            copy = OwnerLog.restore(head, entries)
            if head.owner == self._me:
                self._offered(copy, now)
            elif (way := self.way_to(head.owner, session.name)) is not None and way is not session:
                self.offer(way, copy)
            return
        change = self._map.apply(Transfer(head, begin.start, begin.full, entries))
        if change.verdict in (Verdict.APPLIED, Verdict.SWAPPED):
            self._changed(change)
            if session.name != head.owner:
                self._learnt(head.owner, float(begin.silence_s))
            self.log_changed(head.owner, session.conn)
        else:
            self._refused(session, begin, change.verdict, now)

    def _refused(self, session: Session, begin: Begin, verdict: Verdict, now: float) -> None:
        owner = begin.head.owner
        session.vector_dirty[owner] = None
        if owner == self._me:
            return
        if verdict is Verdict.GAP:
            session.ask(owner, self._map.have(owner))
        elif verdict is Verdict.CONFLICT and not begin.full:
            session.ask(owner, NOTHING)  # a full copy that conflicts too waits for the owner's next gen
        elif verdict is Verdict.UNCOVERED:
            self._uncovered(owner, now)

    def open_sessions(self) -> list[Session]:
        """The sessions over which logs move."""
        return [session for session in self._sessions.values() if session.phase is Phase.OPEN]
