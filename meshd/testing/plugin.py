"""The pytest plugin: the fixture `mesh_cluster`, which makes simulated clusters.

Whoever has meshd installed has the fixture. A test that fails is shown with the seed of each of its clusters
and the last lines of what happened there. `--mesh-seed N` runs all tests on another seed,
`--mesh-seed random` on a fresh one, which is told at the top of the run.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from meshd.testing.cluster import SimCluster

LINES = 120
"""Lines of a cluster's trace that are shown with a failure."""

_CLUSTERS = pytest.StashKey["list[SimCluster]"]()
_SEED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--mesh-seed`."""
    parser.getgroup("meshd").addoption(
        "--mesh-seed",
        default="0",
        metavar="N",
        help="seed of simulated clusters that are given none, or 'random'",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Settle the seed."""
    wanted = str(config.getoption("--mesh-seed"))
    if wanted != "random" and not (wanted.isascii() and wanted.isdigit()):
        raise pytest.UsageError("--mesh-seed takes a number or 'random'")
    config.stash[_SEED] = random.SystemRandom().randrange(10**6) if wanted == "random" else int(wanted)


def pytest_report_header(config: pytest.Config) -> str | None:
    """Tell a seed that is not the usual one."""
    seed = config.stash[_SEED]
    return f"mesh-seed: {seed}" if seed else None


@pytest.fixture
def mesh_cluster(request: pytest.FixtureRequest) -> Callable[..., SimCluster]:
    """Make simulated clusters: `mesh_cluster(3, settings={...})`, with the arguments of `SimCluster`.

    The seed is that of the run unless one is given. For a cluster that outlives a test, make a `SimCluster`.
    """
    made = request.node.stash.setdefault(_CLUSTERS, [])

    def make(nodes: Any = 3, **options: Any) -> SimCluster:
        from meshd.testing.cluster import SimCluster

        options.setdefault("seed", request.config.stash[_SEED])
        cluster = SimCluster(nodes, start=False, **{k: v for k, v in options.items() if k != "start"})
        made.append(cluster)
        if options.get("start", True):
            for name in cluster.nodes:
                cluster.start(name)
        return cluster

    return make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show a failed test's clusters with it."""
    report = yield
    if report.when in ("setup", "call") and report.failed:
        for cluster in item.stash.get(_CLUSTERS, []):
            lines = "\n".join(str(line) for line in cluster.trace.lines[-LINES:])
            title = f"simulated cluster, seed {cluster.seed}, at {cluster.now:.3f} s"
            report.sections.append((title, lines))
    return report
