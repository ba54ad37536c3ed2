"""What a node keeps so as not to search for it is never out of date: deadlines, contests, names, strangers.

One node is told whatever may happen to connections, in any order: names that clash, contests ended by an
answer, by time or by an end; pauses; rows of any age. After each step a search is made, and compared.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt.types import Have
from meshd.protocol.effects import CloseConnection
from meshd.protocol.heartbeat import MEASURE_EVERY_S
from meshd.protocol.members import ALIVE
from meshd.protocol.node import MeshNode
from meshd.protocol.replication import REFUSED_PAUSE_S
from meshd.protocol.session import Phase, Session
from meshd.protocol.settings import NodeSettings
from meshd.wire.messages import (
    PROTOCOL_VERSION,
    Data,
    Heartbeat,
    Hello,
    Leave,
    MemberRow,
    Message,
    Ping,
    Pong,
    Reject,
    VectorRow,
)
from tests.support.maps import table

WALL_MS = 1_700_000_000_000
FOREVER = float("inf")

CONNS = st.integers(1, 4)
NAMES = st.sampled_from(["b", "b", "c"])
NONCES = st.integers(5, 6)
HAVES = st.builds(
    lambda gen, top: Have((gen, 5), top, 0, top, (gen, 5), 0), st.integers(0, 2), st.integers(0, 2)
)
ROWS = st.builds(
    MemberRow, NAMES, NONCES, st.integers(1, 5), st.integers(0, 1), st.just("x:1"), st.just(""), st.just("1")
)
BEATS = st.builds(
    Heartbeat,
    st.just(0),
    st.integers(0, 3),
    st.integers(0, 1),
    st.lists(st.builds(VectorRow, st.sampled_from(["a", "b", "c"]), HAVES), max_size=2).map(tuple),
    st.lists(ROWS, max_size=3).map(tuple),
    st.one_of(st.none(), st.sets(st.sampled_from(["a", "b", "c", "d"])).map(lambda s: tuple(sorted(s)))),
    st.just(0),
)
STEPS = st.one_of(
    st.tuples(st.just("hello"), CONNS, NAMES, NONCES),
    st.tuples(st.just("hello"), CONNS, NAMES, NONCES),
    st.tuples(st.just("say"), CONNS, BEATS),
    st.tuples(st.just("say"), CONNS, st.sampled_from([Ping(1), Leave(False), Reject("NAME_CLASH", "taken")])),
    st.tuples(st.just("answer"), CONNS, CONNS),
    st.tuples(st.sampled_from(["close", "hear", "drain"]), CONNS),
    st.tuples(st.just("tick"), st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0, 7.5, 1000.0])),
    st.tuples(st.just("wait"), st.sampled_from([1, 3, 8])),
    st.tuples(st.just("put"), st.integers(0, 9)),
)


class World:
    """A node called `a` and what happens to it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.node = MeshNode(NodeSettings(node="a"), table(), random.Random(1), 0.0, lambda: WALL_MS)
        self.node.address = "a:1"
        self.dialled = {1: None, 2: "x:1", 3: None, 4: "y:1"}
        for number in range(3):
            self.put(number)
        self.hello(1, "b", 5)
        self.say(1, Heartbeat(0, 0, 0, (), (), ("a",), 0))
        self.drain(1)

    def session(self, conn: int) -> Session | None:
        return self.node.connections.by_conn.get(conn)

    def hello(self, conn: int, name: str, nonce: int) -> None:
        if self.session(conn) is None:
            self.node.connection_opened(conn, self.dialled[conn], "r:9", self.now)
            greeting = Hello(
                PROTOCOL_VERSION, PROTOCOL_VERSION, "default", name, nonce, f"{name}:1", "", "", ()
            )
            self.say(conn, greeting)

    def say(self, conn: int, message: Message) -> None:
        self.node.receive(conn, message, self.now)

    def answer(self, conn: int, contested: int) -> None:
        """`conn` answers what `contested` waits for."""
        session = self.session(contested)
        if session is not None and session.contest_token:
            self.say(conn, Pong(session.contest_token))

    def close(self, conn: int) -> None:
        self.node.connection_closed(conn, "reset", self.now)

    def drain(self, conn: int) -> None:
        """All frames that are due go out, unless the content of the log does."""
        while (message := self.node.next_message(conn, self.now)) is not None and not (
            isinstance(message, Data) and message.last
        ):
            pass

    def hear(self, conn: int) -> None:
        """The driver does what the node wants done: what was given up is closed."""
        for effect in self.node.take_effects():
            if isinstance(effect, CloseConnection):
                self.close(effect.conn)

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.node.tick(self.now)

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.tick(1.0)
            self.check()

    def put(self, number: int) -> None:
        self.node.put(f"worker:a/{number}", b"v")

    def check(self) -> None:
        """Compare what is kept with what a search finds."""
        node, conns = self.node, self.node.connections
        replicator, heart, down_s = node.replicator, conns.heart, node.settings.down_after_s
        sessions = conns.by_conn.values()
        assert conns._contested == {s.conn: s for s in sessions if s.phase is Phase.CONTESTED}
        assert all(s.phase is Phase.CLOSING for s in sessions if s.close_reason)
        assert {s.conn for s in conns.open.values()} <= set(conns.by_conn)
        assert all(s.phase in (Phase.OPEN, Phase.CLOSING) for s in conns.open.values())
        assert all(conns.open.get(s.name) is s for s in sessions if s.phase is Phase.OPEN)
        silences = [s.heard_at + down_s for s in sessions if s.phase is Phase.OPEN]
        assert conns._silent_at <= min(silences, default=FOREVER)
        deadlines = [s.contest_until for s in conns._contested.values()]
        assert conns.next_deadline() == min([conns._beat_at or 0.0, *deadlines])
        retries = [at for s in conns.open.values() for at in s.retry_at.values()]
        assert replicator._retry_at <= min(retries, default=FOREVER)
        assert all(at <= self.now + REFUSED_PAUSE_S for at in retries)
        due = [behind.at for behind in replicator._behind.values()]
        assert (replicator.next_deadline() or 0.0) <= min(due + retries, default=FOREVER)
        settling = [s.opened_at + replicator._grace_s for s in conns.open.values() if not s.settled]
        assert replicator._settle_at <= min(settling, default=FOREVER)
        heard = sorted(name for name, s in conns.open.items() if not s.quiet)
        assert heart._names is None or heart._names == tuple(heard)
        for session in conns.open.values():
            assert session.measure_at <= self.now + MEASURE_EVERY_S
            if session.strangers_at == node.roster.moves:
                assert session.strangers == node.roster.names() - session.peers - {session.name}
        assert node.roster.alive == {m.name for m in node.roster if m.state == ALIVE}
        row = heart.own_row()
        assert (row.beat, row.left, row.address) == (heart.beat, heart.left, node.address)


@pytest.mark.req("MSH-2", "MSH-6")
@settings(max_examples=200)
@given(st.lists(STEPS, min_size=10, max_size=60))
def test_what_a_node_keeps_is_what_a_search_would_find(steps: list[tuple[object, ...]]) -> None:
    world = World()
    for what, *arguments in steps:
        getattr(world, str(what))(*arguments)
        world.check()
