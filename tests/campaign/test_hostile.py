"""A peer that says anything at all: it may lose its connection, the node loses nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt.owner_log import OwnerLog
from crdt.types import COUNTER_LIMIT, Entry, Have, LogHead
from meshd.protocol.effects import CloseConnection
from meshd.protocol.node import MeshNode
from meshd.protocol.settings import NodeSettings
from meshd.wire.limits import MAX_INT, MAX_SIGNED
from meshd.wire.messages import (
    PROTOCOL_VERSION,
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
    VectorRow,
)
from tests.support.maps import key, table

WALL_MS = 1_700_000_000_000

owners = st.sampled_from(["a", "b", "c", "somebody"])
small = st.integers(0, 4)
counters = st.sampled_from([0, 1, 2, 3, COUNTER_LIMIT - 1])
numbers = st.sampled_from([0, 1, 2, 3, 4, MAX_SIGNED])
gens = st.tuples(counters, st.sampled_from([0, 1, 2, MAX_SIGNED]))
wholes = st.sampled_from([0, 1, 2, MAX_INT])
haves = st.builds(Have, gens, numbers, st.just(0), wholes, gens, counters)
keys = st.builds(key, owners, small) | st.sampled_from(["config:x", "forget:a", "forget:c", "forget:", "x"])
values = st.sampled_from([None, b"", b"1", b"!", b"\x83\x01\x61b\x41\x39", b"\x83\x01\x61c\xf6"])
entries: st.SearchStrategy[Entry] = st.tuples(
    keys, numbers.filter(bool), st.none() | st.tuples(counters, small, small), numbers, values, st.none()
)


@st.composite
def heads(draw: st.DrawFn) -> LogHead:
    lineage = draw(st.lists(st.tuples(counters, small, small), max_size=2))
    top = draw(numbers)
    return LogHead(
        draw(owners),
        draw(gens),
        draw(small),
        top,
        draw(st.integers(0, min(top, 4))),
        draw(wholes),
        tuple(lineage),
    )


@st.composite
def transfers(draw: st.DrawFn) -> list[Message]:
    """A transfer whose entries add up to its head, whatever they say."""
    number, owner = draw(small), draw(owners)
    log = OwnerLog(owner, draw(gens))
    log.lineage = dict(draw(st.lists(st.tuples(gens, small), max_size=2)))
    for name, value in draw(st.lists(st.tuples(keys, values), max_size=4)):
        log.append(name, value, 0)
    full = draw(st.booleans())
    begin = Begin(number, log.head(), draw(small), full, draw(st.booleans()), draw(numbers))
    return [begin, Data(number, True, tuple(log.entries.values()))]


members = st.builds(
    MemberRow,
    owners,
    small,
    numbers,
    small,
    st.sampled_from(["", "b:1", "nonsense"]),
    st.just(""),
    st.just(""),
)
single: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Heartbeat,
        hlc=numbers,
        done=wholes,
        token=wholes,
        rows=st.lists(st.builds(VectorRow, owners, haves), max_size=3).map(tuple),
        members=st.lists(members, max_size=3).map(tuple),
        peers=st.none() | st.lists(owners, max_size=3).map(tuple),
        digest=wholes,
    ),
    st.builds(Begin, small, heads(), numbers, st.booleans(), st.booleans(), numbers),
    st.builds(Data, small, st.booleans(), st.lists(entries, max_size=3).map(tuple)),
    st.builds(Pull, owners, haves),
    st.builds(Ping, wholes),
    st.builds(Pong, wholes),
    st.builds(Leave, st.booleans()),
    st.builds(Reject, st.just("X"), st.just("")),
    st.builds(Unknown, small),
    st.builds(
        Hello, *(st.just(PROTOCOL_VERSION),) * 2, st.just("default"), owners, small, *(st.just(""),) * 3
    ),
)
speeches = st.lists(single.map(lambda message: [message]) | transfers(), max_size=15)


@pytest.mark.req("SEC-4", "SYN-7")
@settings(max_examples=300)
@given(speeches, st.integers(0, 2**32))
def test_whatever_a_peer_says_costs_at_most_its_connection(speech: list[list[Message]], seed: int) -> None:
    node = MeshNode(NodeSettings(node="a"), table(), random.Random(seed), 0.0, lambda: WALL_MS)
    node.put(key("a", 1), b"mine")
    node.put("config:x", b"mine")
    now = 0.0
    closed = True
    for messages in speech:
        now += 0.4
        if closed:
            node.connection_opened(1, None, "b:9", now)
            node.receive(1, Hello(1, 1, "default", "b", 7, "b:1", "", "", ()), now)
        for message in messages:
            node.receive(1, message, now)
        while node.next_message(1, now) is not None:
            pass
        node.tick(now)
        closed = any(isinstance(effect, CloseConnection) for effect in node.take_effects())
        if closed:
            node.connection_closed(1, "closed", now)
    own = node.map.own
    assert own.entries[key("a", 1)][4] == b"mine"
    assert own.gen[0] < 2**52
    found = node.visible(key("a", 1))
    assert found is not None
    assert (found.owner, found.value) == ("a", b"mine")
    for owner, log in node.map.logs.items():
        assert OwnerLog.restore(log.head(), log.entries.values()).hash == log.hash, owner
