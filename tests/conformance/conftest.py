"""The meshes of the conformance suite.

The tests speak HTTP and `meshctl`, and would pass against any implementation of the API. Three meshes are
shared by the whole run, each started when a test first asks for it:

- `fleet`: three nodes alike. `CONFORMANCE_API=HOST:PORT,HOST:PORT,HOST:PORT` names running daemons to use
  instead (one mesh, no workers, intervals of a second or less); tests that need more are skipped then.
- `special`: three nodes of different settings (see `special`).
- `make_fleet`: daemons of one test alone, to be killed and restarted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from meshd.demo.children import Children
from meshd.demo.processes import Daemon
from tests.support.backends import Backend
from tests.support.conformance import Fleet, LongCut, Node, given_addresses
from tests.support.processes import Mesh, free_port, log_events

FAST: dict[str, object] = {
    "sync.reconcile_interval_s": 0.5,
    "health.check_interval_secs": 0.25,
    "health.fast_interval_s": 0.1,
    "health.fast_window_s": 2,
    "health.timeout_secs": 1,
    "health.drain_settle_secs": 0.5,
}
SECRET = "a secret that only the members of this cluster know 0123456789"
EXPECTED_ERRORS = {"cut_off", "own_log_reused", "own_log_halted"}
"""What nodes may say as errors in these tests: they are robbed of their peers and lied to."""

FleetMaker = Callable[..., tuple[Mesh, Fleet]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here starts processes: mark it slow. What waits for a long time is looked at last."""
    here = Path(__file__).parent
    ours = [item for item in items if here in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.slow)
    last = [item for item in ours if "long_cut" in getattr(item, "fixturenames", ())]
    items[:] = [item for item in items if item not in last] + last


@contextmanager
def _daemons(
    children: Children,
    folder: Path,
    names: tuple[str, ...],
    settings: Mapping[str, object],
    own: Mapping[str, Mapping[str, object]],
) -> Iterator[Mesh]:
    mesh = Mesh(children, folder, names, cluster="conformance", settings={**FAST, **settings})
    for name, more in own.items():
        mesh[name].settings.update(more)
    mesh.start()
    try:
        yield mesh
    finally:
        mesh.stop()
    complaints = [
        f"{daemon.name}: {event}"
        for daemon in mesh
        for event in log_events(daemon)
        if (event.get("level") in ("error", "critical") and event.get("event") not in EXPECTED_ERRORS)
        or "exception" in event
        or "raw" in event
    ]
    assert not complaints, "\n".join(complaints[:10])


def _fleet_of(mesh: Mesh) -> Fleet:
    return Fleet([Node(daemon.api, daemon) for daemon in mesh])


@pytest.fixture(scope="session")
def _children() -> Iterator[Children]:
    with Children() as children:
        yield children


@pytest.fixture(scope="session")
def _shared(_children: Children, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    given = given_addresses()
    if given:
        yield Fleet([Node(address) for address in given])
        return
    with _daemons(_children, tmp_path_factory.mktemp("shared"), ("a", "b", "c"), {}, {}) as mesh:
        yield _fleet_of(mesh)


@pytest.fixture
def fleet(_shared: Fleet) -> Iterator[Fleet]:
    """Three nodes of one mesh, without workers before and after the test."""
    yield _shared
    _shared.clear()


@pytest.fixture(scope="session")
def _special(_children: Children, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    if given_addresses():
        pytest.skip("needs settings of its own")
    folder = tmp_path_factory.mktemp("special")
    secret = folder / "secret"
    secret.write_text(SECRET, "utf-8")
    secret.chmod(0o600)
    own: dict[str, dict[str, object]] = {
        "quiet": {"health.disable_health_check": "true", "security.secret_file": secret},
        "strict": {"health.remove_failed_workers": "true", "security.secret_file": secret},
        "bare": {
            "sync.publish_loopback": "false",
            "health.fast_window_s": 0,
            "capacity.override": 77,
        },
    }
    with _daemons(_children, folder, tuple(own), {}, own) as mesh:
        yield _fleet_of(mesh)


@pytest.fixture
def special(_special: Fleet) -> Iterator[Fleet]:
    """`quiet`, `strict` and `bare`, one mesh of three nodes, without workers before and after the test.

    quiet: health checks are off. strict: failed local workers are removed. Both have the cluster's secret.
    bare: has no secret, publishes no worker on loopback, checks without a fast window, capacity pinned to 77.
    """
    yield _special
    _special.clear()


@pytest.fixture
def make_fleet(tmp_path: Path) -> Iterator[FleetMaker]:
    """`make_fleet("a", "b", "sync.on_start"="withdraw")`: a mesh of this test alone, and its nodes.

    Settings are for all of its daemons; heartbeats are fast, so that a death is soon known.
    """
    if given_addresses():
        pytest.skip("starts and stops daemons")
    with Children() as children:
        stack: list[Any] = []

        def make(*names: str, **settings: object) -> tuple[Mesh, Fleet]:
            folder = tmp_path / f"mesh{len(stack)}"
            folder.mkdir()
            quick = {"mesh.heartbeat_s": 0.25, **settings}
            manager = _daemons(children, folder, names, quick, {})
            mesh = manager.__enter__()
            stack.append(manager)
            return mesh, _fleet_of(mesh)

        yield make
        for manager in stack:
            manager.__exit__(None, None, None)


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """`lone("a", config="...toml...", **settings)`: a daemon alone that is not started yet."""
    if given_addresses():
        pytest.skip("starts and stops daemons")
    with Children() as children, tempfile.TemporaryDirectory(prefix="meshd-", dir="/tmp") as short:
        made: list[Daemon] = []

        def make(name: str, **settings: object) -> Daemon:
            ports = (free_port(), free_port())
            daemon = Daemon(
                children, Path(short), name, cluster="conformance", settings={**FAST, **settings}, ports=ports
            )
            made.append(daemon)
            return daemon

        yield make
        for daemon in made:
            if daemon.running:
                daemon.stop()


@pytest.fixture
def backend() -> Iterator[Backend]:
    """An inference server that is well."""
    with Backend() as backend:
        yield backend


@pytest.fixture
def other_backend() -> Iterator[Backend]:
    """Another one."""
    with Backend() as backend:
        yield backend


@pytest.fixture(scope="session")
def _long_cut(request: pytest.FixtureRequest) -> Iterator[LongCut | None]:
    """Begins with the first test of the run, if the run has a test that looks at it in the end."""
    names = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    if "long_cut" not in names or given_addresses():
        yield None
        return
    # A mesh of its own: the others are cleared after every test.
    folder = request.getfixturevalue("tmp_path_factory").mktemp("cut")
    own: dict[str, dict[str, object]] = {
        "owner": {"health.disable_health_check": "true"},
        "checker": {"health.remove_failed_workers": "true"},
        "third": {"health.disable_health_check": "true"},
    }
    children = request.getfixturevalue("_children")
    with _daemons(children, folder, tuple(own), {}, own) as mesh, Backend() as backend:
        yield LongCut(_fleet_of(mesh), backend)


@pytest.fixture(autouse=True)
def _begin_the_long_cut(_long_cut: LongCut | None) -> None:
    """Have the cut begin with whatever test comes first, so that it is over when it is looked at."""


@pytest.fixture
def long_cut(_long_cut: LongCut | None) -> LongCut:
    """The cut that began with the run."""
    if _long_cut is None:
        pytest.skip("needs settings of its own")
    return _long_cut
