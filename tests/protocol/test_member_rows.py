"""Whose rows a heartbeat carries: of members that the peer hears itself, none; of those that it lost, all."""

from __future__ import annotations

import itertools

import pytest

from meshd.testing import SimCluster
from meshd.testing.checks import Invariant
from meshd.testing.names import node_names
from meshd.testing.process import Process
from meshd.wire.messages import Heartbeat, Message


class Rows(Invariant):
    """Counts the member rows of heartbeats, the sender's own apart."""

    name = "rows"
    carried = 0

    def sent(self, process: Process, message: Message) -> None:
        """Count."""
        if isinstance(message, Heartbeat):
            self.carried += len(message.members) - 1


@pytest.mark.req("MSH-4")
def test_where_all_are_connected_nobody_passes_on_what_all_hear_themselves() -> None:
    cluster = SimCluster(6, seed=3, invariants=(Rows,))
    rows = cluster.checks.invariants["rows"]
    assert isinstance(rows, Rows)
    cluster.run_for(5)
    rows.carried = 0
    cluster.run_for(10)
    assert rows.carried == 0


@pytest.mark.req("MSH-2")
def test_a_peer_that_lost_a_member_hears_of_it_from_the_others() -> None:
    cluster = SimCluster(3, seed=4)
    cluster.run_for(5)
    cluster.partition(["a"], ["b"], ["c"])
    cluster.mend("a", "c")
    cluster.mend("b", "c")
    cluster.run_for(60)
    assert cluster["a"].peers() == {"c"}
    assert cluster["a"].members() == {"b": "alive", "c": "alive"}
    assert cluster["b"].members() == {"a": "alive", "c": "alive"}


NAMES = node_names(8)
SPARSE = {
    "chain": list(itertools.pairwise(NAMES)),
    "ring": list(zip(NAMES, NAMES[1:] + NAMES[:1], strict=True)),
    "star": [(NAMES[0], name) for name in NAMES[1:]],
}


def all_say(cluster: SimCluster, name: str, state: str) -> float:
    """Wait until every other node says so of the member; returns how long that took, in seconds."""
    others = [place for place in cluster if place.name != name]
    return cluster.run_until(lambda: all(place.members().get(name) == state for place in others), 20)


@pytest.mark.req("MSH-2", "MSH-3")
@pytest.mark.parametrize("shape", sorted(SPARSE))
def test_where_few_are_connected_everybody_still_learns_what_becomes_of_everybody(shape: str) -> None:
    cluster = SimCluster(NAMES, seed=5, links=SPARSE[shape], invariants=())
    for name in NAMES:
        all_say(cluster, name, "alive")
    last = NAMES[-1]  # an end of the chain, a ray of the star
    cluster.crash(last)
    assert all_say(cluster, last, "down") < 18
    cluster.start(last)
    assert all_say(cluster, last, "alive") < 15
    cluster.stop(last)
    assert all_say(cluster, last, "left") < len(NAMES)
    cluster.start(last)
    assert all_say(cluster, last, "alive") < 15
