"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TEST = """
import pytest

@pytest.fixture
def routed(mesh_cluster):
    cluster = mesh_cluster(1, seed=8)
    cluster.run_until(lambda: cluster["a"].routable(), 1)

def test_whose_fixture_fails(routed):
    pass

def test_that_fails(mesh_cluster):
    cluster = mesh_cluster(2)
    cluster["a"].register("http://10.0.0.1:8000")
    cluster.run_for(1)
    assert cluster.seed == 0
    assert False

def test_that_passes(mesh_cluster):
    assert mesh_cluster(1, seed=7).seed == 7
"""


def run_pytest(folder: Path, *options: str) -> str:
    """What a pytest of its own says."""
    (folder / "test_mine.py").write_text(TEST, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "meshd.testing.plugin",
        "-p",
        "no:cacheprovider",
        *options,
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


@pytest.mark.slow
@pytest.mark.req("SIM-4")
def test_a_failed_test_is_shown_with_the_seed_and_what_happened(tmp_path: Path) -> None:
    told = run_pytest(tmp_path)
    assert "1 failed, 1 passed, 1 error" in told
    assert "simulated cluster, seed 8, at 1.000 s" in told
    assert "simulated cluster, seed 0, at 1.000 s" in told
    assert "command  register http://10.0.0.1:8000" in told


@pytest.mark.slow
@pytest.mark.req("SIM-4")
def test_a_run_can_be_given_another_seed_and_tells_it(tmp_path: Path) -> None:
    told = run_pytest(tmp_path, "--mesh-seed", "12")
    assert "mesh-seed: 12" in told
    assert "assert 12 == 0" in told


@pytest.mark.req("SIM-4")
def test_the_plugin_imports_nothing_until_it_is_used() -> None:
    code = "import meshd.testing.plugin, sys; print('crdt' in sys.modules, 'trio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.req("SIM-4")
def test_pytest_finds_the_plugin_where_meshd_is_installed(root: Path) -> None:
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.entry-points.pytest11]\n"meshd.testing.plugin" = "meshd.testing.plugin"' in text
