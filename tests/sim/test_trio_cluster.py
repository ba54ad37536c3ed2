"""The runtime itself on a mock clock behaves as the event heap says."""

from __future__ import annotations

import pytest

from meshd.testing import SimCluster
from tests.support.sim_runs import OTHER, URL, under_trio


@pytest.mark.req("SIM-1", "SIM-2")
def test_the_runtime_goes_through_partition_and_crash_on_a_mock_clock() -> None:
    trace = under_trio(3)
    told = {(line.place, line.text) for line in trace.lines}
    assert ("c", f"removed {URL} mesh ready") in told
    assert ("c", f"status_changed {OTHER} mesh ready") in told
    assert ("b", "a is suspect") in told


@pytest.mark.req("SIM-1")
def test_both_ways_to_simulate_come_to_the_same_end() -> None:
    under_trio(3)
    cluster = SimCluster(3, seed=3)
    cluster.run_for(2)
    cluster["a"].register(URL)
    cluster.run_until(lambda: all(node.routable() for node in cluster), 5)
    cluster.partition(["a"])
    cluster.run_for(12)
    cluster["b"].register(OTHER)
    cluster["a"].remove(URL, drain=False)
    cluster.heal()
    cluster.converge()
    cluster.crash("b")
    cluster.run_for(3)
    cluster.start("b")
    cluster.converge()
    cluster.run_until(lambda: cluster["c"].routable() == {OTHER}, 5)
