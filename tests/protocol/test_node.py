"""The node as a whole, several of them joined in memory on virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.protocol.session import Phase
from meshd.wire.messages import Hello
from tests.support.pump import Disk, Pump


def mesh(*names: str, seed: int = 1, **settings: Any) -> Pump:
    pump = Pump(seed)
    for name in names:
        pump.start(name, seeds=(names[0],) if name != names[0] else (), **settings)
    pump.run(3.0)
    return pump


@pytest.mark.req("MSH-3")
def test_a_write_reaches_every_peer_within_a_few_network_delays() -> None:
    pump = mesh("a", "b", "c")
    pump.put("a", "worker:a/1", b"one")
    pump.run(0.005)
    assert pump.values("b") == pump.values("c") == {"worker:a/1": b"one"}


@pytest.mark.req("MSH-3")
def test_a_write_wakes_its_senders_before_it_is_told_on_its_own_node() -> None:
    pump = mesh("a", "b")
    node = pump.nodes["a"]
    node.take_effects()
    node.put("worker:a/1", b"v")
    kinds = [type(effect).__name__ for effect in node.take_effects()]
    assert kinds == ["Persist", "Wake", "KeysChanged"]


def test_nodes_that_know_one_seed_connect_to_each_other() -> None:
    pump = mesh("a", "b", "c", "d")
    for name, node in pump.nodes.items():
        assert set(node.connections.open) == set("abcd") - {name}


@pytest.mark.req("SYN-2", "CRD-8")
def test_a_restarted_node_keeps_its_keys_and_its_peers_never_miss_them() -> None:
    pump = mesh("a", "b", "c")
    for i in range(50):
        pump.put("a", f"worker:a/{i}", b"x%d" % i)
    pump.run(1.0)
    pump.changed["b"].clear()
    pump.crash("a")
    pump.run(2.0)
    assert len(pump.values("b")) == 50
    pump.start("a", seeds=("b",))
    pump.run(3.0)
    assert pump.converged()
    assert len(pump.values("a")) == 50
    assert pump.changed["b"] == []


@pytest.mark.req("CRD-4", "SYN-16")
def test_a_node_with_a_lost_disk_gets_its_entries_back_from_its_peers() -> None:
    pump = mesh("a", "b", "c")
    for i in range(20):
        pump.put("a", f"worker:a/{i}", b"x%d" % i)
    pump.delete("a", "worker:a/0")
    pump.run(1.0)
    pump.crash("a")
    pump.run(1.0)
    pump.start("a", seeds=("b",), disk=Disk())
    pump.put("a", "worker:a/new", b"new")
    pump.run(5.0)
    assert pump.converged()
    want = {f"worker:a/{i}": b"x%d" % i for i in range(1, 20)} | {"worker:a/new": b"new"}
    assert pump.values("a") == pump.values("c") == want


@pytest.mark.req("CRD-4")
def test_a_torn_tail_is_taken_back_from_peers_and_a_removal_since_then_stands() -> None:
    pump = mesh("a", "b")
    pump.put("a", "worker:a/1", b"old")
    pump.put("a", "worker:a/2", b"old")
    pump.run(1.0)
    torn = pump.disks["a"].copy()
    pump.put("a", "worker:a/1", b"newer")
    pump.put("a", "worker:a/3", b"late")
    pump.run(1.0)
    pump.crash("a")
    pump.crash("b")
    pump.start("a", disk=torn)
    pump.delete("a", "worker:a/2")
    pump.run(1.0)
    pump.start("b", seeds=("a",))
    pump.run(5.0)
    assert pump.converged()
    assert pump.values("b") == {"worker:a/1": b"newer", "worker:a/3": b"late"}


@pytest.mark.req("MSH-4")
def test_a_cut_between_two_nodes_is_bridged_by_a_third() -> None:
    pump = mesh("a", "b", "c")
    pump.cut("a", "b")
    pump.run(3.0)
    pump.put("a", "worker:a/1", b"one")
    pump.run(0.01)
    assert pump.values("b") == {"worker:a/1": b"one"}
    assert pump.nodes["b"].owner_state("a") == "alive"


@pytest.mark.req("MSH-4")
def test_a_healed_partition_converges_both_ways() -> None:
    pump = mesh("a", "b", "c")
    pump.cut("a", "b")
    pump.cut("a", "c")
    pump.run(20.0)
    assert pump.nodes["b"].owner_state("a") == "down"
    pump.put("a", "worker:a/1", b"one")
    pump.put("b", "worker:b/1", b"two")
    pump.mend()
    pump.run(10.0)
    assert pump.converged()
    assert len(pump.values("c")) == 2
    assert pump.nodes["b"].owner_state("a") == "alive"


@pytest.mark.req("MSH-6")
def test_a_node_of_another_cluster_is_refused_on_both_sides() -> None:
    pump = mesh("a")
    pump.start("x", seeds=("a",), cluster="other")
    pump.run(3.0)
    assert pump.nodes["a"].connections.open == {}
    told = {(name, event) for name, event, _ in pump.notices}
    assert ("a", "peer_refused") in told
    assert ("x", "peer_refused") in told


@pytest.mark.req("CRD-6")
def test_collected_tombstones_stay_dead_on_a_node_that_was_away() -> None:
    pump = mesh("a", "b", "c", tombstone_grace_s=5.0)
    pump.put("a", "worker:a/1", b"one")
    pump.put("a", "worker:a/2", b"two")
    pump.run(1.0)
    pump.crash("c")
    pump.delete("a", "worker:a/1")
    pump.run(20.0)
    assert not pump.nodes["a"].map.own.tombstones
    assert not pump.nodes["b"].map.logs["a"].tombstones
    pump.start("c", seeds=("a",), tombstone_grace_s=5.0)
    pump.run(5.0)
    assert pump.converged()
    assert pump.values("c") == {"worker:a/2": b"two"}


@pytest.mark.req("SYN-13")
def test_a_dead_owner_is_forgotten_once_and_comes_back_when_it_returns() -> None:
    pump = mesh("a", "b", "c", forget_after_s=30.0)
    pump.put("a", "worker:a/1", b"one")
    pump.run(1.0)
    pump.crash("a")
    pump.run(60.0)
    assert pump.values("b") == pump.values("c") == {}
    pump.start("a", seeds=("b",), forget_after_s=30.0)
    pump.run(5.0)
    assert pump.converged()
    assert pump.values("c") == {"worker:a/1": b"one"}


@pytest.mark.req("SYN-13")
def test_restarts_of_the_others_do_not_set_back_the_age_of_a_dead_owner() -> None:
    pump = mesh("a", "b", "d", "c", forget_after_s=900.0)
    pump.put("c", "worker:c/1", b"one")
    pump.run(1.0)
    pump.crash("c")
    for _ in range(6):
        for name in ("a", "b", "d"):
            pump.run(100.0)
            pump.crash(name)
            pump.run(1.0)
            pump.start(name, seeds=("a", "b"), forget_after_s=900.0)
            pump.run(1.0)
            assert pump.nodes[name].owner_state("c") != "alive"
    assert pump.values("a") == pump.values("b") == pump.values("d") == {}


@pytest.mark.req("CRD-4")
def test_of_two_processes_with_one_copied_disk_the_older_stops_publishing() -> None:
    pump = mesh("a", "b")
    pump.put("a", "worker:a/1", b"one")
    pump.run(1.0)
    clone = pump.disks["a"].copy()
    pump.cut("a", "b")
    pump.start("a2", seeds=("b",), disk=clone, called="a")
    pump.run(2.0)
    pump.crash("a2")
    pump.mend()
    pump.run(5.0)
    assert pump.converged()
    assert pump.nodes["a"].ownership.halted == ""


@pytest.mark.req("MSH-6")
def test_a_second_live_process_under_a_name_is_refused() -> None:
    pump = mesh("a", "b")
    pump.start("a2", seeds=("b",), disk=pump.disks["a"].copy(), called="a")
    pump.run(5.0)
    assert pump.nodes["b"].connections.open["a"].nonce == pump.nodes["a"].ownership.nonce
    assert pump.nodes["a2"].connections.open == {}
    assert any(fields.get("code") == "NAME_CLASH" for name, _, fields in pump.notices if name == "a2")


@pytest.mark.req("MSH-4")
def test_an_idle_mesh_moves_no_entries() -> None:
    pump = mesh("a", "b", "c")
    for i in range(100):
        pump.put("a", f"worker:a/{i}", b"x")
    pump.run(5.0)
    before = pump.entries_moved
    pump.run(30.0)
    assert pump.entries_moved == before
    assert before == 200


@pytest.mark.req("MSH-6")
def test_of_several_that_wait_for_a_name_one_gets_it() -> None:
    pump = mesh("b")
    node = pump.nodes["b"]
    for conn, nonce in ((901, 11), (902, 22), (903, 33)):
        node.connection_opened(conn, None, f"a:{conn}", pump.now)
        node.receive(conn, Hello(1, 1, "default", "a", nonce, "a:1", "", "1"), pump.now)
    assert node.connections.open["a"].conn == 901
    node.connection_closed(901, "reset", pump.now)
    first, second = node.connections.by_conn[902], node.connections.by_conn[903]
    assert node.connections.open["a"] is first
    assert (first.phase, second.phase) == (Phase.OPEN, Phase.CONTESTED)
    node.tick(pump.now + 2.0)  # the first gives no sign that it lives
    assert node.connections.open["a"] is second
    assert (first.phase, second.phase) == (Phase.CLOSING, Phase.OPEN)
