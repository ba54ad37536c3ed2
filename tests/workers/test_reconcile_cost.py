"""What a reconcile pass costs where it finds nothing, in processor time: the figures of a large mesh."""

from __future__ import annotations

import time

import pytest

from meshd.workers.reconcile_loop import SLICE
from tests.support.mesh_planes import MeshPlanes, mesh
from tests.support.planes import spec

__all__ = ["mesh"]

COUNT = 10_000
PASS_S = 0.1
SLICE_S = 0.01


@pytest.mark.slow
@pytest.mark.req("SYN-10")
@pytest.mark.parametrize("health", [{}, {"check_interval_secs": 7, "failure_threshold": 5}])
def test_a_pass_over_ten_thousand_workers_that_finds_nothing_is_cheap(
    mesh: MeshPlanes, health: dict[str, object]
) -> None:
    mesh.start("a", ("b",))
    mesh.start("b", ("a",))
    mesh.run(5)
    for number in range(COUNT):
        url = f"http://10.0.{number // 250}.{number % 250}:8000"
        mesh.planes["a"].register(spec(url, **({"health": health} if health else {})), mesh.now)
    mesh.run(10)
    for name in "ab":  # on its owner, and where all of them are imports
        plane = mesh.planes[name]
        assert len(plane.registry.list().workers) == COUNT
        passes = []
        slices = []
        for _ in range(5):
            plane.mark_all(mesh.now)
            spent = []
            more = True
            while more:
                began = time.thread_time()
                more = plane.step_sweep(mesh.now, SLICE)
                spent.append(time.thread_time() - began)
            passes.append(sum(spent))
            slices.append(max(spent))
            assert plane.reconcile_stats.last_repairs == 0
        # The best of some, since others use the machine too.
        assert min(passes) < PASS_S, passes
        assert min(slices) < SLICE_S, slices
