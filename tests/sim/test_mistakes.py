"""What a test says of nodes that are not there, or that makes no sense, is refused where it is said."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshd.errors import WorkerOwnedByPeer
from meshd.testing import Latency, SimCluster

URL = "http://10.0.0.1:8000"


@pytest.mark.req("SIM-4")
@pytest.mark.parametrize(
    "mistake",
    [
        lambda cluster: cluster["q"],
        lambda cluster: cluster.crash("q"),
        lambda cluster: cluster.isolate("q"),
        lambda cluster: cluster.partition(["a", "q"], ["b"]),
        lambda cluster: cluster.cut("a", "q"),
        lambda cluster: cluster.stall("q", "a"),
        lambda cluster: cluster.mend("q", "a"),
        lambda cluster: cluster.reset("a", "q"),
        lambda cluster: cluster.half_open("a", "q"),
        lambda cluster: cluster.slow("q", 1.0),
        lambda cluster: cluster.loss(0.1, "q"),
        lambda cluster: cluster.delay(Latency(0.1), "a", "q"),
        lambda cluster: cluster.fill_disk("q"),
        lambda cluster: cluster.keep_image("q"),
        lambda cluster: cluster.clock_jump("q", 1.0),
        lambda cluster: cluster.set_health(URL, "fail", seen_by="q"),
        lambda cluster: cluster.start("a", join=["q"]),
        lambda cluster: cluster.link("a", "q"),
    ],
)
def test_a_node_that_is_not_there_is_never_passed_over(mistake: Callable[[SimCluster], object]) -> None:
    cluster = SimCluster(3, seed=1)
    with pytest.raises(ValueError, match="there is no node 'q'; there are a, b, c"):
        mistake(cluster)
    assert not cluster.faults


@pytest.mark.req("SIM-4")
@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (lambda cluster: cluster.partition(["a", "b"], ["b", "c"]), "on one side of a partition"),
        (lambda cluster: cluster.cut("a", "a"), "two ends to a link"),
        (lambda cluster: cluster.loss(3), "between 0 and 1"),
        (lambda cluster: cluster.slow("a", -1), "only take longer"),
        (lambda cluster: cluster.crash("a", lose=-1), "0 transactions or more"),
        (lambda cluster: cluster.run_for(-5), "time passes forwards"),
        (lambda cluster: cluster.add("a"), "there is a node 'a' already"),
        (lambda cluster: cluster.add("d", node__name="x"), "named when it is made"),
        (lambda cluster: SimCluster(0), "one node or more"),
        (lambda cluster: SimCluster(["a", "a"]), "a name of its own"),
    ],
)
def test_what_makes_no_sense_is_refused(mistake: Callable[[SimCluster], object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        mistake(SimCluster(3, seed=1))


@pytest.mark.req("SIM-4")
def test_a_command_about_another_nodes_worker_names_that_node() -> None:
    cluster = SimCluster(2, seed=1)
    cluster["a"].register(URL)
    cluster.run_until(lambda: URL in cluster["b"].workers(), 5)
    with pytest.raises(WorkerOwnedByPeer, match="a"):
        cluster["b"].drain(URL)
