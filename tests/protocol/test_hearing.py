"""What rows of members that arrive bring about, also those that tell nothing new."""

from __future__ import annotations

import random

import pytest

from meshd.protocol.effects import Dial
from meshd.protocol.members import ALIVE, SUSPECT
from meshd.protocol.node import MeshNode
from meshd.protocol.settings import NodeSettings
from meshd.wire.messages import PROTOCOL_VERSION, Heartbeat, Hello, MemberRow
from tests.support.maps import table

WALL_MS = 1_700_000_000_000


def row(name: str, beat: int) -> MemberRow:
    return MemberRow(name, 5, beat, 0, f"{name}:1", "", "")


def called_by(*names: str) -> MeshNode:
    """A node `a` that was called by nodes of these names, on connections 1, 2..., each at beat 1."""
    node = MeshNode(NodeSettings(node="a"), table(), random.Random(1), 0.0, lambda: WALL_MS)
    node.address = "a:1"
    for conn, name in enumerate(names, 1):
        node.connection_opened(conn, None, f"{name}:9", 0.0)
        hello = Hello(PROTOCOL_VERSION, PROTOCOL_VERSION, "default", name, 5, f"{name}:1", "", "", ())
        node.receive(conn, hello, 0.0)
        say(node, conn, 0.0, row(name, 1))
    return node


def say(node: MeshNode, conn: int, now: float, *rows: MemberRow) -> None:
    node.receive(conn, Heartbeat(0, 0, 0, (), rows, ("a",), 0), now)


@pytest.mark.req("MSH-1", "MSH-3")
def test_a_caller_that_is_lost_is_dialled_once_a_neighbour_tells_its_address_even_with_nothing_new() -> None:
    node = called_by("b", "c")
    node.connection_closed(1, "reset", 0.5)
    say(node, 2, 0.6, row("c", 1), row("b", 1))
    node.tick(1.2)
    assert Dial("b:1") in node.take_effects()


@pytest.mark.req("MSH-2")
def test_a_suspect_that_speaks_itself_is_alive_though_its_beat_has_not_risen() -> None:
    node = called_by("b")
    for tenths in range(40):
        node.tick(tenths / 10)
    assert node.roster.state_of("b") == SUSPECT
    say(node, 1, 4.0, row("b", 1))
    assert node.roster.state_of("b") == ALIVE


@pytest.mark.req("MSH-2")
def test_a_peer_that_says_what_a_neighbour_has_told_already_is_heard_all_the_same() -> None:
    node = called_by("b", "c")
    for tenths in range(25):  # b's connection falls quiet, so that others are heard about it
        node.tick(tenths / 10)
    say(node, 2, 2.5, row("c", 2), row("b", 4))
    say(node, 1, 3.4, row("b", 4))
    for tenths in range(35, 65):
        node.tick(tenths / 10)
    assert node.roster.state_of("b") == ALIVE
