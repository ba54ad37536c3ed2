"""Fixtures of the end-to-end tests: processes that are always reaped, and a mesh of three.

After each test (or module) that used a mesh, the logs of its daemons are read: an error or
a traceback there fails the test even if everything it looked at was right.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from meshd.demo.children import Children
from tests.support.processes import Mesh, MeshMaker, log_events


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here starts processes: mark it slow."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slow)


@contextmanager
def _mesh_maker(folder: Path) -> Iterator[tuple[MeshMaker, Children]]:
    made: list[Mesh] = []
    with Children() as children:

        def make(*names: str, **options: Any) -> Mesh:
            place = folder / f"mesh{len(made)}"
            place.mkdir()
            made.append(Mesh(children, place, names or ("a", "b", "c"), **options))
            return made[-1]

        yield make, children
        for mesh in made:
            mesh.stop()
    complaints = [
        f"{daemon.name}: {event}"
        for mesh in made
        for daemon in mesh
        if daemon.log.exists()
        for event in log_events(daemon)
        if event.get("level") in ("error", "critical") or "exception" in event or "raw" in event
    ]
    assert not complaints, "\n".join(complaints[:10])


@pytest.fixture
def children() -> Iterator[Children]:
    """Processes of one test."""
    with Children() as children:
        yield children


@pytest.fixture
def make_mesh(tmp_path: Path) -> Iterator[MeshMaker]:
    """`make_mesh("a", "b", settings={...})` gives a mesh that is not started yet; one per call."""
    with _mesh_maker(tmp_path) as (make, _):
        yield make


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """Three daemons a, b, c that met; shared by a module whose tests leave them as they were."""
    with _mesh_maker(tmp_path_factory.mktemp("e2e")) as (make, _):
        yield make().start()
