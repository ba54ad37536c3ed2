"""Heartbeats whose tables somebody else filled: no correct node is made to send what another refuses."""

from __future__ import annotations

import pytest

from crdt.types import NO_GEN, Have
from meshd.protocol.node import MeshNode
from meshd.wire.codec import decode, encode
from meshd.wire.errors import WireError
from meshd.wire.limits import (
    HEARTBEAT_MEMBERS,
    HEARTBEAT_ROWS,
    MAX_FRAME_BYTES,
    MAX_NAME_CHARS,
    MAX_OWNERS,
    MAX_TEXT_CHARS,
)
from meshd.wire.messages import Heartbeat, Hello, MemberRow, Message, VectorRow
from tests.support.pump import Pump

ABSENT = Have((1, 1), 0, 0, 0, (1, 1), 0)
LIAR, READER = 900_001, 900_002


def greet(node: MeshNode, conn: int, name: str, now: float) -> None:
    node.connection_opened(conn, None, "192.0.2.1:1", now)
    node.receive(conn, Hello(1, 1, node.settings.cluster, name, 5, "192.0.2.1:1", "", "0"), now)


def beat(
    *, rows: tuple[VectorRow, ...] = (), members: tuple[MemberRow, ...] = (), digest: int = 0
) -> Heartbeat:
    return Heartbeat(0, 0, 0, rows, members, (), digest)


def said(node: MeshNode, conn: int, now: float) -> list[Message]:
    """All that the node has to say on a connection, through the codec; every frame within the limit."""
    messages = []
    while (message := node.next_message(conn, now)) is not None:
        body = encode(message)
        assert len(body) <= MAX_FRAME_BYTES
        messages.append(decode(body))
    return messages


def lone_node() -> tuple[Pump, MeshNode]:
    pump = Pump()
    node = pump.start("a")
    greet(node, LIAR, "liar", pump.now)
    return pump, node


@pytest.mark.req("SEC-4")
def test_no_more_owners_are_noted_than_the_limit_however_many_a_peer_names() -> None:
    pump, node = lone_node()
    for part in range(3):
        rows = tuple(VectorRow(f"o{part}.{i}", ABSENT) for i in range(MAX_OWNERS // 2))
        node.receive(LIAR, beat(rows=rows), pump.now)
    assert len(node.map.known) <= MAX_OWNERS + 1
    greet(node, READER, "reader", pump.now)
    own_row = VectorRow("reader", Have((1, 5), 0, 0, 0, (1, 5), 0))
    node.receive(READER, beat(rows=(own_row,)), pump.now)
    assert node.map.known["reader"] == (1, 5)


@pytest.mark.req("SEC-4")
def test_owners_without_a_gen_are_not_noted_without_end_either() -> None:
    pump, node = lone_node()
    nothing = Have(NO_GEN, 0, 0, 0, NO_GEN, 0)
    for part in range(3):
        rows = tuple(VectorRow(f"o{part}.{i}", nothing) for i in range(MAX_OWNERS // 2))
        node.receive(LIAR, beat(rows=rows), pump.now)
    assert len(node.connections.by_conn[LIAR].reported) <= MAX_OWNERS


@pytest.mark.req("SEC-4")
def test_a_full_table_reaches_a_new_peer_whole_in_frames_that_it_takes() -> None:
    pump, node = lone_node()
    rows = tuple(VectorRow(f"o{i}", ABSENT) for i in range(3 * HEARTBEAT_ROWS))
    long_name, address = "\U0001f600" * (MAX_NAME_CHARS - 5), "é" * (MAX_TEXT_CHARS - 2) + ":1"
    members = tuple(
        MemberRow(f"{long_name}{i:05}", 1, 1, 0, address, "", address) for i in range(3 * HEARTBEAT_MEMBERS)
    )
    node.receive(LIAR, beat(rows=rows), pump.now)
    node.receive(LIAR, beat(members=members), pump.now)
    greet(node, READER, "reader", pump.now)
    beats = [message for message in said(node, READER, pump.now) if isinstance(message, Heartbeat)]
    assert {row.owner for each in beats for row in each.rows} >= {row.owner for row in rows}
    assert {row.name for each in beats for row in each.members} >= {row.name for row in members}
    assert said(node, READER, pump.now) == []


@pytest.mark.req("SEC-4")
def test_two_nodes_stay_connected_whatever_a_third_says() -> None:
    pump = Pump()
    pump.start("a")
    pump.start("b", seeds=("a",))
    pump.run(3.0)
    node = pump.nodes["a"]
    greet(node, LIAR, "liar", pump.now)
    for part in range(2):
        rows = tuple(VectorRow(f"o{part}.{i}", ABSENT) for i in range(9000))
        node.receive(LIAR, beat(rows=rows), pump.now)
        members = tuple(MemberRow(f"m{part}.{i}", 1, 1, 0, "", "", "0") for i in range(9000))
        node.receive(LIAR, beat(members=members), pump.now)
    pump.notices.clear()
    pump.put("a", "worker:a/1", b"one")
    pump.run(2.0)
    assert pump.values("b") == {"worker:a/1": b"one"}
    assert not [fields for _, event, fields in pump.notices if event == "bad_peer_input"]


@pytest.mark.req("MSH-3")
def test_the_first_heartbeat_names_what_is_held_of_the_peers_own_log() -> None:
    pump, node = lone_node()
    others = tuple(VectorRow(f"o{i}", ABSENT) for i in range(2 * HEARTBEAT_ROWS))
    known = VectorRow("reader", Have((3, 5), 0, 0, 0, (3, 5), 0))
    node.receive(LIAR, beat(rows=(*others, known)), pump.now)
    greet(node, READER, "reader", pump.now)
    first = next(message for message in said(node, READER, pump.now) if isinstance(message, Heartbeat))
    assert "reader" in {row.owner for row in first.rows}


@pytest.mark.req("SEC-4", "MSH-6")
def test_what_newer_versions_add_to_a_member_row_is_kept_within_a_bound() -> None:
    kept = MemberRow("n", 1, 1, 0, "", "", "9", ("blue", 7))
    message = decode(encode(beat(members=(kept,))))
    assert isinstance(message, Heartbeat)
    assert message.members == (kept,)
    with pytest.raises(WireError):
        decode(encode(beat(members=(kept._replace(extra=("x" * 2000,)),))))


@pytest.mark.req("SYN-13", "SEC-4")
def test_members_of_whom_nothing_is_left_are_forgotten_and_do_not_come_back_by_gossip() -> None:
    pump = Pump()
    for name in ("a", "b", "c"):
        pump.start(name, seeds=() if name == "a" else ("a",), forget_after_s=100.0)
    pump.run(3.0)
    node = pump.nodes["a"]
    greet(node, LIAR, "liar", pump.now)
    node.receive(LIAR, beat(members=(MemberRow("ghost", 1, 1, 0, "192.0.2.2:1", "", "0"),)), pump.now)
    node.connection_closed(LIAR, "gone", pump.now)
    pump.run(60.0)
    assert pump.nodes["b"].owner_state("ghost") == "down"
    pump.crash("c")
    pump.run(1.0)
    pump.start("c", seeds=("a", "b"), forget_after_s=100.0)
    pump.run(80.0)
    for each in pump.nodes.values():
        assert {member.name for member in each.roster} == {"a", "b", "c"} - {each.settings.node}
    assert "192.0.2.2:1" not in pump.nodes["a"].dialer.addresses()
