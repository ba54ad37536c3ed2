"""A reconcile pass that finds nothing: it writes nothing, and others have their turn after every slice.

What it costs in time is a figure of `make bench`.
"""

from __future__ import annotations

import math
from functools import partial

import pytest

from meshd.workers.reconcile_loop import SLICE, reconcile
from tests.support.mesh_planes import MeshPlanes, mesh
from tests.support.planes import spec
from tests.support.steps import work_per_step

__all__ = ["mesh"]

COUNT = 10 * SLICE + 7
SLICES = math.ceil(COUNT / SLICE)


class Writes:
    """The mesh handle of the loop: notes whether a slice left anything to be written."""

    def __init__(self, cluster: MeshPlanes, name: str) -> None:
        self._node = cluster.nodes[name]
        self.effects: list[object] = []
        self.slices = 0

    def after_write(self) -> None:
        """Take what the slice left."""
        self.slices += 1
        self.effects += self._node.take_effects()


@pytest.mark.req("SYN-10")
@pytest.mark.parametrize("health", [{}, {"check_interval_secs": 7, "failure_threshold": 5}])
async def test_a_pass_that_finds_nothing_writes_nothing_and_gives_others_their_turn(
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
        stats = plane.reconcile_stats
        workers = plane.registry.list().workers
        assert len(workers) == COUNT
        own = mesh.nodes[name].map.own
        before = (own.max, mesh.nodes[name].map.digest, mesh.events(name))
        sender = Writes(mesh, name)
        compared = stats.compared
        with work_per_step(partial(getattr, stats, "compared")) as steps:
            await reconcile(plane, sender)
        assert sum(steps) == stats.compared - compared == stats.last_compared == COUNT
        assert max(steps) <= SLICE
        assert len(steps) == SLICES
        assert sender.slices >= SLICES
        assert stats.last_repairs == 0
        assert sender.effects == []
        assert mesh.events(name) == []
        assert (own.max, mesh.nodes[name].map.digest) == before[:2]
        assert all(now is then for now, then in zip(plane.registry.list().workers, workers, strict=True))
