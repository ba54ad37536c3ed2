"""A mistake in a test is told where it is made, not by a failure somewhere else, or by a test that passes."""

from __future__ import annotations

import random

import pytest
from trio._core import _run

from meshd.testing import Invariant, Latency, SimCluster, SimTimeout
from meshd.testing.health import Answer
from meshd.testing.trio_cluster import Scenario, TrioCluster, run_seeded

URL = "http://10.0.0.1:8000"

pytestmark = pytest.mark.req("SIM-4")


def test_an_answer_that_no_worker_gives_is_refused() -> None:
    cluster = SimCluster(1)
    broken: Answer = "broken"  # type: ignore[assignment]  # the mistake
    with pytest.raises(ValueError, match="pass, fail, timeout, flap, not 'broken'"):
        cluster.set_health(URL, broken)


@pytest.mark.parametrize("numbers", [(-1.0, 0.0), (1.0, -0.1), (float("nan"), 0.0)])
def test_a_latency_below_zero_is_refused(numbers: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        Latency(*numbers)


@pytest.mark.parametrize("rate", [0.0, -1.0])
def test_a_clock_that_stands_or_runs_backwards_is_refused(rate: float) -> None:
    cluster = SimCluster(1)
    with pytest.raises(ValueError, match="pause it"):
        cluster.clock_drift("a", rate)
    cluster.run_for(1)


def test_an_invariant_without_a_name_or_with_that_of_another_is_refused() -> None:
    class Mine(Invariant):
        """Has no name."""

    class Named(Invariant):
        """Has one."""

        name = "mine"

    for kinds in ([Mine], [Named, Named]):
        with pytest.raises(ValueError, match="needs a `name`"):
            SimCluster(1, invariants=kinds)


async def fails(cluster: TrioCluster) -> None:
    """A user's own assertion."""
    await cluster.run_for(1)
    assert cluster["a"].routable() == {URL}


async def waits(cluster: TrioCluster) -> None:
    """For what does not come about."""
    await cluster.run_until(lambda: False, 1)


async def partitions(cluster: TrioCluster) -> None:
    """With a name that is none."""
    cluster.partition(["a", "z"])


async def starts(cluster: TrioCluster) -> None:
    """A node that is none."""
    await cluster.start("z")


@pytest.mark.parametrize(
    ("scenario", "error", "text"),
    [
        (fails, AssertionError, "10.0.0.1"),
        (waits, SimTimeout, "not so within 1 s"),
        (partitions, ValueError, "there is no node 'z'; there are a, b"),
        (starts, ValueError, "there is no node 'z'; there are a, b"),
    ],
)
def test_what_a_scenario_raises_comes_out_of_trio_as_it_is_with_the_trace(
    scenario: Scenario, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as raised:
        run_seeded(scenario, nodes=2, seed=5)
    (note,) = raised.value.__notes__
    assert "under trio, seed 5" in note
    assert "start b" in note


def test_a_node_that_runs_is_not_started_again_and_many_are_named_as_elsewhere() -> None:
    async def scenario(cluster: TrioCluster) -> None:
        await cluster.start("a")
        assert list(cluster.nodes) == list(SimCluster(28, start=False).nodes)

    run_seeded(scenario, nodes=28)


def test_no_nodes_are_no_cluster_under_trio() -> None:
    with pytest.raises(ValueError, match="at least one node"):
        run_seeded(waits, nodes=0)


def test_a_seeded_run_leaves_the_chance_of_other_tests_alone() -> None:
    async def scenario(cluster: TrioCluster) -> None:
        await cluster.run_for(1)

    chance: random.Random = _run._r
    before = chance.getstate()
    run_seeded(scenario, nodes=1, seed=1)
    assert chance.getstate() == before
