"""What random campaigns found, told as stories: each was a bug in the daemon, and is not any more."""

from __future__ import annotations

import pytest

from meshd.testing import SimCluster

URL = "http://10.0.0.1:8000"


def torn_after_ready(command: str) -> SimCluster:
    """A disk that loses everything after the registration; what was asked later is with the peers alone.

    On its return the node sees the worker become ready, and writes that down before it meets anybody.
    """
    cluster = SimCluster(3, seed=31)
    cluster.run_for(2)
    a = cluster["a"]
    a.register(URL, labels={"mark": "old"})
    cluster.run_for(0.1)
    before = a.disk.transactions
    cluster.run_for(3)
    if command == "remove":
        a.remove(URL, drain=False)
    else:
        a.register_or_replace(URL, labels={"mark": "new"})
    cluster.run_for(1)
    cluster.crash("a", lose=a.disk.transactions - before, lying=True)
    cluster.isolate("a")
    cluster.start("a")
    cluster.run_for(10)
    assert a.routable() == {URL}
    cluster.heal()
    cluster.converge()
    return cluster


@pytest.mark.req("SYN-16", "CRD-4", "SIM-3")
def test_a_status_that_an_older_disk_came_to_undoes_no_removal() -> None:
    cluster = torn_after_ready("remove")
    assert all(node.workers() == {} for node in cluster)


@pytest.mark.req("SYN-16", "CRD-4", "SIM-3")
def test_a_status_that_an_older_disk_came_to_undoes_no_replacement() -> None:
    cluster = torn_after_ready("replace")
    assert all(node.workers()[URL].spec.labels == {"mark": "new"} for node in cluster)


@pytest.mark.req("SYN-16", "LIF-3", "SIM-3")
@pytest.mark.parametrize("last", ["draining", "ready"])
def test_a_drain_or_its_end_that_only_peers_remember_is_taken_on(last: str) -> None:
    cluster = SimCluster(2, seed=32)
    a = cluster["a"]
    a.register(URL)
    cluster.run_for(3)
    if last == "ready":
        a.drain(URL)
        cluster.run_for(1)
    cluster.restart("a")
    cluster.run_for(2)
    if last == "draining":
        a.drain(URL)
    else:
        a.undrain(URL)
    cluster.run_for(1)
    cluster.crash("a", lose=13)
    cluster.start("a")
    cluster.run_for(5)
    cluster.converge()
    assert [node.workers()[URL].status for node in cluster] == [last, last]
