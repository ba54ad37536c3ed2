"""The simulator decides nothing itself: it makes the calls that the driver and the worker loops make."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

NOT_DRIVING = {
    "reconcile_stats",  # figures of the loop, which has a CPU to measure
    "step",  # both in one, for tests
    "registry",  # reading
    "events",
    "settings",
    "has_news",
    "rejoin",  # a simulated leave waits for a disk that refuses, so there is nothing to take back
}


def calls_on(paths: list[Path], names: set[str]) -> set[str]:
    """What is called (or read) on variables or attributes with these names."""
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                holder = node.value
                name = holder.id if isinstance(holder, ast.Name) else getattr(holder, "attr", "")
                if name in names:
                    found.add(node.attr)
    return found


@pytest.mark.req("SIM-1")
def test_the_simulator_drives_the_node_by_the_calls_of_the_driver(root: Path) -> None:
    runtime = [root / "meshd/runtime/driver.py", root / "meshd/runtime/mesh.py"]
    drivers = calls_on(runtime, {"node"}) - {"address"}
    simulated = calls_on([root / "meshd/testing/process.py"], {"node"}) - {"address"}
    assert drivers <= simulated
    assert simulated - drivers <= {"map", "store"}


@pytest.mark.req("SIM-1")
def test_the_simulator_drives_the_plane_by_the_calls_of_the_loops(root: Path) -> None:
    rooms = [root / "meshd/workers", root / "meshd"]
    loops = [path for room in rooms for path in room.glob("*_loop.py")] + [root / "meshd/daemon.py"]
    driven = calls_on(loops, {"plane", "_plane"}) - NOT_DRIVING
    driving = [root / "meshd/testing/process.py", root / "meshd/testing/loops.py"]
    simulated = calls_on(driving, {"plane", "_plane"}) - NOT_DRIVING
    assert simulated == driven


@pytest.mark.req("SIM-1")
def test_daemon_and_simulator_build_nodes_by_the_same_functions(root: Path) -> None:
    for path in ("meshd/main.py", "meshd/testing/process.py", "meshd/testing/trio_cluster.py"):
        text = (root / path).read_text(encoding="utf-8")
        assert "build_node(" in text
        assert "build_plane(" in text
        assert "MeshNode(" not in text
        assert "WorkerPlane(" not in text
