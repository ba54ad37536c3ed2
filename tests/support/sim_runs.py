"""Runs whose traces are compared between processes: `python -m tests.support.sim_runs heap|storm|trio SEED`.

Prints one line: the hash of the trace, and how many lines it has.
"""

from __future__ import annotations

import sys

from meshd.testing import Trace
from meshd.testing.plan import make_plan
from meshd.testing.play import play
from meshd.testing.trio_cluster import TrioCluster, run_seeded

URL = "http://10.0.0.1:8000"
OTHER = "http://10.0.0.2:8000"


def on_the_heap(seed: int) -> Trace:
    """A random plan with all faults, on virtual time."""
    cluster = play(make_plan(seed, safety_s=30.0), trace=True).cluster
    assert cluster is not None
    return cluster.trace


def storms(seed: int) -> Trace:
    """A long random plan with all faults, closer together."""
    cluster = play(make_plan(seed, "storm"), trace=True).cluster
    assert cluster is not None
    return cluster.trace


async def scenario(cluster: TrioCluster) -> None:
    """A partition, a crash and a restart, with workers that come and go."""
    await cluster.run_for(2)
    cluster["a"].register(URL)
    await cluster.run_until(lambda: all(node.routable() for node in cluster.nodes.values()), 5)
    cluster.partition(["a"])
    await cluster.run_for(12)
    cluster["b"].register(OTHER)
    cluster["a"].remove(URL, drain=False)
    cluster.heal()
    await cluster.converge()
    await cluster["b"].crash()
    await cluster.run_for(3)
    await cluster.start("b")
    await cluster.converge()
    await cluster.run_until(lambda: cluster["c"].routable() == {OTHER}, 5)


def under_trio(seed: int) -> Trace:
    """The runtime itself, on a mock clock."""
    return run_seeded(scenario, nodes=3, seed=seed)


if __name__ == "__main__":
    trace = {"heap": on_the_heap, "storm": storms, "trio": under_trio}[sys.argv[1]](int(sys.argv[2]))
    sys.stdout.write(f"{trace.digest()} {len(trace.lines)}\n")
