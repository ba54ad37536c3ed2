"""`python -m tests.bench.simulation [NODES...]`: simulated node-seconds per second, all invariants on.

A cluster meets, agrees on two workers per node, and is then left alone: heartbeats, health checks of every
worker by every node, reconcile passes. Up to FULL_MESH nodes are all connected to each other, as meshd does
wherever it can. Of more nodes each reaches but LINKS others, as behind firewalls, has no worker, and hears
of the rest through those: a full mesh of 500 would hold 125 million vector rows.

Measured in CPU time of this process, which other work on the machine disturbs less than the wall clock; the
aims of 5, 50 and 500 nodes are 1,000, 300 and 100.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from meshd.testing import SimCluster
from tests.bench.figures import Figure, table

SPAN_S = {5: 120.0, 50: 10.0, 500: 3.0}
"""Simulated seconds that are measured, by number of nodes."""
AIMS = {5: 1000, 50: 300, 500: 100}
USUAL = (5, 50)
"""Measured unless told otherwise: 500 nodes take minutes and 2.5 GB to meet, so ask for them."""
FULL_MESH = 100
LINKS = 6


class Speed(NamedTuple):
    """What a cluster of this size was simulated at."""

    nodes: int
    node_seconds_per_cpu_s: float
    events_per_cpu_s: float
    met_cpu_s: float
    """CPU seconds until all nodes had met and agreed."""


def _links(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """A ring with random links across, LINKS for each node on average."""
    rng = random.Random(1)
    for number, name in enumerate(names):
        yield name, names[(number + 1) % len(names)]
        for other in rng.sample(names, LINKS // 2 - 1):
            if other != name:
                yield name, other


def measure(nodes: int, span_s: float, warm_up_s: float = 5.0) -> Speed:
    """Simulate a cluster that has nothing to do but to stay alive."""
    began = time.process_time()
    small = nodes <= FULL_MESH
    names = [f"node-{number}" for number in range(nodes)]
    cluster = SimCluster(names, seed=1, trace=False, links=None if small else _links(names))
    for number, node in enumerate(cluster):
        for each in (0, 1) if small else ():
            node.register(f"http://10.{number // 250}.{number % 250}.{each + 1}:8000")
    cluster.run_for(warm_up_s)
    if small:
        cluster.converge()
    else:
        assert all(len(process.node.map.logs) == nodes for process in cluster.running())
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
