"""A connection under a name that another one holds, and a life that met another one under its name."""

from __future__ import annotations

import random

import pytest

from crdt.types import NO_GEN, Have
from meshd.protocol.node import MeshNode
from meshd.protocol.session import Phase
from meshd.protocol.settings import NodeSettings
from meshd.wire.limits import MAX_WAITING
from meshd.wire.messages import PROTOCOL_VERSION, Heartbeat, Hello, Ping, Pong, VectorRow
from tests.support.maps import table
from tests.support.pump import Pump

WALL_MS = 1_700_000_000_000


def hello(nonce: int) -> Hello:
    return Hello(PROTOCOL_VERSION, PROTOCOL_VERSION, "default", "b", nonce, "b:1", "", "", ())


def contested() -> MeshNode:
    """A node whose peer `b` holds connection 1, and says hello on connection 2 in another life."""
    node = MeshNode(NodeSettings(node="a"), table(), random.Random(1), 0.0, lambda: WALL_MS)
    for conn, nonce in ((1, 5), (2, 6)):
        node.connection_opened(conn, None, "b:9", 0.0)
        node.receive(conn, hello(nonce), 0.0)
    assert node.connections.open["b"].conn == 1
    return node


@pytest.mark.req("MSH-6")
def test_what_a_contested_peer_said_counts_once_the_name_is_its_own() -> None:
    node = contested()
    have = Have((3, 6), 7, 0, 1, (3, 6), 0)
    node.receive(2, Heartbeat(0, 0, 1, (VectorRow("b", have),), (), ("a",), 0), 0.1)
    node.tick(2.0)
    session = node.connections.open["b"]
    assert session.conn == 2
    assert session.reported["b"] == have
    assert session.peers == {"a"}


@pytest.mark.req("SEC-4")
def test_a_contested_peer_that_never_stops_talking_is_closed() -> None:
    node = contested()
    for _ in range(MAX_WAITING + 1):
        node.receive(2, Ping(1), 0.1)
    node.tick(2.0)
    assert 2 not in {session.conn for session in node.connections.open.values()}


@pytest.mark.req("SEC-4")
def test_nonsense_said_while_contested_costs_only_that_connection() -> None:
    node = contested()
    node.receive(2, hello(6), 0.1)  # a second Hello
    node.tick(2.0)
    assert node.map.have("b").gen == NO_GEN
    assert node.connections.by_conn[2].close_reason.startswith("bad input")


@pytest.mark.req("MSH-6")
def test_a_life_that_came_by_another_connection_still_answers_for_its_name() -> None:
    node = contested()
    node.connection_opened(3, None, "b:9", 0.1)
    node.receive(3, hello(5), 0.1)  # the life that holds the name calls anew
    node.connection_closed(1, "replaced", 0.2)
    newcomer = node.connections.by_conn[2]
    assert node.connections.open["b"].conn == 3
    assert newcomer.contest_token in node.connections.open["b"].pings
    node.receive(3, Pong(newcomer.contest_token), 0.9)
    node.tick(5.0)
    assert node.connections.open["b"].conn == 3
    assert newcomer.close_reason.startswith("refused")


@pytest.mark.req("MSH-6")
def test_of_two_newcomers_the_first_may_prove_that_it_lives() -> None:
    node = contested()
    node.connection_opened(3, None, "b:9", 0.1)
    node.receive(3, hello(7), 0.1)
    node.connection_closed(1, "reset", 0.2)
    assert node.connections.open["b"].conn == 2
    node.receive(2, Pong(node.connections.by_conn[3].contest_token), 0.3)
    node.tick(5.0)
    assert node.connections.open["b"].conn == 2
    assert node.connections.by_conn[3].phase is Phase.CLOSING


@pytest.mark.req("MSH-6", "SEC-4")
def test_a_newcomer_that_was_refused_gets_no_name_in_the_same_breath() -> None:
    node = contested()
    node.connection_opened(3, None, "b:9", 0.0)
    node.receive(3, hello(6), 0.0)
    # What is said while it waits is heard once it is open: here a guess at what the other one waits for.
    node.receive(2, Pong(node.connections.by_conn[3].contest_token), 0.1)
    node.tick(1.0)
    assert node.connections.open["b"].conn == 2
    assert node.connections.by_conn[3].phase is Phase.CLOSING


@pytest.mark.req("MSH-6", "SEC-4")
def test_a_refused_node_does_not_knock_more_often_than_every_few_seconds() -> None:
    pump = Pump()
    pump.start("a")
    pump.start("b", seeds=("a",))
    pump.run(3.0)
    pump.start("b2", seeds=("a",), called="b")
    pump.run(60.0)
    knocks = [name for name, event, _ in pump.notices if (name, event) == ("b2", "refused_by_peer")]
    assert 5 < len(knocks) < 30


@pytest.mark.req("MSH-2", "MSH-6")
def test_the_silence_of_a_newcomer_counts_from_its_last_word_not_from_when_it_got_the_name() -> None:
    node = MeshNode(NodeSettings(node="a"), table(), random.Random(1), 0.0, lambda: WALL_MS)
    node.connection_opened(1, None, "b:9", 0.0)
    node.receive(1, hello(5), 0.0)
    for tenths in range(146):
        now = tenths / 10
        if tenths < 75:
            node.receive(1, Ping(1), now)
        if tenths == 69:
            node.connection_opened(2, None, "b:9", now)
            node.receive(2, hello(6), now)
        node.tick(now)
    assert node.connections.by_conn[2].phase is Phase.CLOSING


@pytest.mark.req("CRD-4")
def test_a_life_that_stopped_for_another_one_goes_on_once_that_one_is_gone() -> None:
    pump = Pump()
    pump.start("a")
    pump.start("b", seeds=("a",))
    pump.run(3.0)
    own = pump.nodes["a"].ownership
    nonce = own.nonce + (1 << 40)
    for _ in range(3):
        gen = (own.gen[0] + 1, nonce)
        own.heard(Have(gen, 0, 0, 0, gen, 0), pump.now)
    assert own.halted
    pump.put("a", "worker:a/1", b"one")
    pump.run(30.0)
    assert pump.values("b") == {}
    pump.run(40.0)
    assert own.halted == ""
    assert pump.values("b") == {"worker:a/1": b"one"}
