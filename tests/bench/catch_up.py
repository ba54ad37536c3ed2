"""How long an empty fourth node takes to hold everything that three others hold.

The node starts alone and is ready; the clock runs from the request that names it a member
(`POST /mesh/join`) until its registry holds every worker. So the start of a Python process
is not part of it; that is told beside.
"""

from __future__ import annotations

import time
from functools import partial

from tests.bench.figures import Figure
from tests.bench.loading import holds
from tests.support.processes import PATIENCE_S, Mesh, agree, eventually


def measure(mesh: Mesh, count: int, repeats: int, aim_s: float | None) -> list[Figure]:
    """Let an empty node join `repeats` times and take the median; `count` workers are there already."""
    took: list[float] = []
    started: list[float] = []
    for number in range(repeats):
        newcomer = mesh.add(f"new{count}x{number}", join=False)
        before = time.perf_counter()
        newcomer.start()
        newcomer.wait_ready()
        started.append(time.perf_counter() - before)
        joined = time.perf_counter()
        newcomer.call("POST", "/mesh/join", {"peers": [mesh["a"].mesh]}).expect(202)
        eventually(partial(holds, count, newcomer), f"{count} workers", 4 * PATIENCE_S, 0.005)
        took.append(time.perf_counter() - joined)
        eventually(partial(agree, (mesh["a"], newcomer)), "the same digest")
        newcomer.stop()
        del mesh.daemons[newcomer.name]
    took.sort()
    started.sort()
    note = f"median of {repeats}, from joining; start to ready {started[len(started) // 2]:.2f} s"
    return [Figure(f"empty fourth node holds {count:,} workers", took[len(took) // 2], "s", aim_s, note)]
