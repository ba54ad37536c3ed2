"""The tables in a heartbeat: what changed since the last one on this connection, a bounded part of it.

What does not fit stays due, and goes with a heartbeat of its own at once. So a table that lying peers filled
never makes a node send a frame that the next one must refuse.
"""

from __future__ import annotations

from collections.abc import Container
from itertools import islice

from crdt.lww_map import LwwMap
from meshd.protocol.members import DOWN, Members
from meshd.protocol.session import Session
from meshd.wire.limits import HEARTBEAT_MEMBERS, HEARTBEAT_ROWS
from meshd.wire.messages import MemberRow, VectorRow


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


def peer_names(session: Session, names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Whom this node is connected to; None if the peer was told just that."""
    if names == session.peers_announced:
        return None
    session.peers_announced = names
    return names


def _take(due: dict[str, None], most: int) -> list[str]:
    if len(due) <= most:
        taken = list(due)
        due.clear()
        return taken
    taken = list(islice(due, most))
    for name in taken:
        del due[name]
    return taken
