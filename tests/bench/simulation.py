"""`python -m tests.bench.simulation [NODES...]`: simulated node-seconds per second, all invariants on.

A cluster meets, agrees on two workers per node, and is then left alone: heartbeats, health checks of every
worker by every node, reconcile passes. Measured in CPU time of this process, which other work on the machine
disturbs less than the wall clock; the aims of 5, 50 and 500 nodes are 1,000, 300 and 100.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from meshd.testing import SimCluster
from tests.bench.figures import Figure, table

SPAN_S = {5: 120.0, 50: 10.0, 500: 1.0}
"""Simulated seconds that are measured, by number of nodes."""
AIMS = {5: 1000, 50: 300, 500: 100}
USUAL = (5, 50)
"""Measured unless told otherwise: 500 nodes take more than ten minutes and 9 GB to meet, so ask for them."""


class Speed(NamedTuple):
    """What a cluster of this size was simulated at."""

    nodes: int
    node_seconds_per_cpu_s: float
    events_per_cpu_s: float
    met_cpu_s: float
    """CPU seconds until all nodes had met and agreed."""


def measure(nodes: int, span_s: float, warm_up_s: float = 3.0) -> Speed:
    """Simulate a cluster that has nothing to do but to stay alive."""
    began = time.process_time()
    cluster = SimCluster(nodes, seed=1, trace=False)
    for number, node in enumerate(cluster):
        for each in (0, 1) if nodes <= 50 else ():
            node.register(f"http://10.{number // 250}.{number % 250}.{each + 1}:8000")
    cluster.run_for(warm_up_s)
    if nodes <= 50:
        cluster.converge()
    met = time.process_time()
    events = cluster.heap.done
    cluster.run_for(span_s)
    took = time.process_time() - met
    return Speed(nodes, nodes * span_s / took, (cluster.heap.done - events) / took, met - began)


def figures(nodes: Sequence[int] = USUAL) -> Iterator[Figure]:
    """Measure clusters of these sizes, one after another."""
    for count in nodes:
        speed = measure(count, SPAN_S.get(count, 10.0))
        note = f"{speed.events_per_cpu_s:,.0f} events/s; met in {speed.met_cpu_s:.1f} s of CPU"
        name = f"simulate {count} nodes"
        aim = AIMS.get(count)
        yield Figure(name, speed.node_seconds_per_cpu_s, "node-s/s", aim, note, at_least=True)


def main() -> int:
    """Measure and show; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.simulation", description=__doc__)
    parser.add_argument("nodes", type=int, nargs="*", default=list(USUAL))
    for figure in figures(parser.parse_args().nodes):
        print(table([figure]).splitlines()[1], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
