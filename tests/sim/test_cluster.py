"""The simulated cluster: what each command does, on virtual time."""

from __future__ import annotations

import pytest

from meshd.errors import WorkerAlreadyExists
from meshd.testing import NotRunning, SimCluster, SimTimeout

URL = "http://10.0.0.1:8000"
OTHER = "http://10.0.0.2:8000"


@pytest.mark.req("SIM-1", "SIM-4")
def test_a_worker_registered_on_one_node_is_routed_to_on_all() -> None:
    cluster = SimCluster(3, seed=1)
    cluster.run_for(2)
    cluster["a"].register(URL)
    cluster.run_until(lambda: all(node.routable() == {URL} for node in cluster), 5)
    cluster.converge()


@pytest.mark.req("SIM-2", "SIM-3", "MSH-4")
def test_both_sides_of_a_partition_go_on_and_agree_afterwards() -> None:
    cluster = SimCluster(5, seed=2)
    cluster.run_for(2)
    cluster.partition(["a", "b"], ["c", "d", "e"])
    cluster.run_for(15)
    assert cluster["a"].members() == {"b": "alive", "c": "down", "d": "down", "e": "down"}
    cluster["a"].register(URL)
    cluster["c"].register(OTHER)
    cluster.converge()
    assert set(cluster["b"].workers()) == {URL}
    assert set(cluster["e"].workers()) == {OTHER}
    cluster.heal()
    cluster.converge()
    assert all(set(node.workers()) == {URL, OTHER} for node in cluster)


@pytest.mark.req("SIM-2", "SYN-16")
def test_a_crashed_node_comes_back_with_its_workers() -> None:
    cluster = SimCluster(3, seed=3)
    cluster["a"].register(URL)
    cluster.run_for(5)
    cluster.crash("a")
    with pytest.raises(NotRunning):
        cluster["a"].workers()
    cluster.run_for(20)
    assert cluster["b"].members()["a"] == "down"
    assert cluster["b"].routable() == {URL}
    cluster.start("a")
    cluster.converge()
    worker = cluster["a"].worker(URL)
    assert worker is not None
    assert worker.is_local


@pytest.mark.req("SIM-2", "SYN-16", "CRD-4")
def test_a_lost_disk_costs_no_worker_that_a_peer_still_holds() -> None:
    cluster = SimCluster(3, seed=4)
    cluster["a"].register(URL)
    cluster.run_for(5)
    cluster.lose_disk("a")
    cluster.start("a")
    cluster.converge()
    worker = cluster["a"].worker(URL)
    assert worker is not None
    assert worker.is_local


@pytest.mark.req("SIM-1")
def test_commands_answer_as_the_api_would() -> None:
    cluster = SimCluster(2, seed=5)
    cluster["a"].register(URL)
    with pytest.raises(WorkerAlreadyExists):
        cluster["a"].register(URL)


@pytest.mark.req("SIM-1")
def test_what_does_not_come_about_is_told() -> None:
    cluster = SimCluster(2, seed=6)
    with pytest.raises(SimTimeout, match="not so within 3 s"):
        cluster.run_until(lambda: bool(cluster["a"].workers()), 3)
    assert cluster.now == pytest.approx(3.0)


@pytest.mark.req("SIM-2", "SIM-4", "MSH-4")
def test_nodes_that_reach_only_their_neighbours_agree_through_these() -> None:
    ring = list(zip("abcdefgh", "bcdefgha", strict=True))
    cluster = SimCluster(8, seed=3, links=ring)
    cluster.run_for(5)
    assert cluster["a"].peers() == {"b", "h"}
    cluster["a"].register(URL)
    cluster.run_until(lambda: all(node.routable() == {URL} for node in cluster), 10)
    cluster.partition("abcd", "efgh")
    cluster.run_for(20)
    cluster.heal()
    cluster.converge()
    assert "e" not in cluster["a"].peers()  # what was never linked is not healed
    cluster.link("a", "e")
    cluster.run_until(lambda: "e" in cluster["a"].peers(), 30)
