"""What every test may rely on: requirement marks that are checked, a clean environment, small fixtures.

Rules: a mark may name only requirements that tests/requirements.md lists; no test sees MESHD_* variables of
the shell it was started from; randomness comes from a seed, so that a failure repeats.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support.reqs import Requirement, read_requirements

ROOT = Path(__file__).resolve().parent.parent

# Wall time says nothing on a shared machine, and the same examples everywhere make a red run repeatable.
hypothesis.settings.register_profile("meshd", deadline=None, database=None)
hypothesis.settings.register_profile("ci", deadline=None, database=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "meshd")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--req",
        action="append",
        default=[],
        metavar="ID",
        help="run only tests that hold ID, e.g. SYN-4 or SYN",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    known = read_requirements()
    unknown = [
        f"{item.nodeid} names {identifier}, which tests/requirements.md does not list"
        for item in items
        for identifier in _ids(item)
        if identifier not in known
    ]
    if unknown:
        raise pytest.UsageError("\n".join(unknown))
    wanted: list[str] = config.getoption("--req")
    if wanted:
        kept = [item for item in items if any(_matches(i, w) for i in _ids(item) for w in wanted)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def _ids(item: pytest.Item) -> list[str]:
    return [str(arg) for mark in item.iter_markers("req") for arg in mark.args]


def _matches(identifier: str, wanted: str) -> bool:
    return identifier == wanted or identifier.startswith(f"{wanted}-")


@pytest.fixture(autouse=True)
def _no_settings_from_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("MESHD_") or name == "NOTIFY_SOCKET":
            monkeypatch.delenv(name)


@pytest.fixture
def root() -> Path:
    """The repository's top directory."""
    return ROOT


@pytest.fixture
def rng() -> random.Random:
    """A generator with a fixed seed."""
    return random.Random(20_240_601)


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A fresh directory (0700) whose path is short enough for unix sockets, which tmp_path need not be."""
    path = Path(tempfile.mkdtemp(prefix="meshd-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def requirements() -> dict[str, Requirement]:
    """Every requirement of tests/requirements.md by its id."""
    return read_requirements()
