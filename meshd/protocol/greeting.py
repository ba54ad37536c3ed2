"""The first frames of a connection: who may join, and what to do with two connections under one name.

- Another cluster, or no protocol version in common: refused, with the reason on both sides.
- This very process: the address is its own and is not dialled again.
- A name that another live connection holds under another life: the newcomer waits while the old life is
  asked for a sign. An answer means two processes under one name, and the newcomer is refused; silence means
  that the newcomer *is* the node, restarted or moved.
- Two connections of the same life: both sides keep the one that the lesser name opened.
"""

from __future__ import annotations

from enum import Enum

from meshd.protocol.session import Session
from meshd.protocol.settings import NodeSettings
from meshd.wire.messages import PROTOCOL_VERSION, Hello, Reject

FEATURES = ("offers", "relays")


class Greeting(Enum):
    """What becomes of a connection whose Hello arrived."""

    OPEN = "open"
    REPLACE = "replace"  # open it, and close the one that held the name
    REDUNDANT = "redundant"  # close it: the other connection to the same life stays
    CONTEST = "contest"  # wait for a sign of the life that holds the name
    SELF = "self"
    REFUSE = "refuse"


def own_hello(settings: NodeSettings, nonce: int, address: str) -> Hello:
    """What the life `nonce` of a node that listens at `address` says first."""
    return Hello(
        PROTOCOL_VERSION,
        PROTOCOL_VERSION,
        settings.cluster,
        settings.node,
        nonce,
        address,
        settings.zone,
        settings.version,
        FEATURES,
    )


def refusal(hello: Hello, me: str, cluster: str) -> Reject | None:
    """Why a Hello cannot be accepted, in words for the other side; None if it can."""
    if hello.cluster != cluster:
        return Reject(
            "WRONG_CLUSTER", f"this node belongs to cluster {cluster!r}, the caller to {hello.cluster!r}"
        )
    if not hello.protocol_min <= PROTOCOL_VERSION <= hello.protocol_max:
        return Reject(
            "WRONG_PROTOCOL",
            f"this node speaks protocol {PROTOCOL_VERSION},"
            f" the caller {hello.protocol_min} to {hello.protocol_max}",
        )
    if hello.node == me:
        return name_clash(me)
    return None


def name_clash(name: str) -> Reject:
    """The refusal of a second process under a live node's name."""
    return Reject("NAME_CLASH", f"another live node is called {name!r}: give each node its own node.name")


def settle(session: Session, hello: Hello, me: str, nonce: int, present: Session | None) -> Greeting:
    """Decide over a Hello that is not refused otherwise. `present`: the open session under that name."""
    if hello.node == me and hello.nonce == nonce:
        return Greeting.SELF
    if present is None:
        return Greeting.OPEN
    if present.nonce != hello.nonce:
        return Greeting.CONTEST
    if session.initiator_is_me == present.initiator_is_me:
        return Greeting.REPLACE
    lesser_opened = session.initiator_is_me == (me < hello.node)
    return Greeting.REPLACE if lesser_opened else Greeting.REDUNDANT
