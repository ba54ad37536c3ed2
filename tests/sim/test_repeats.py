"""One seed gives one run, in whatever process and under whatever hash seed; another seed gives another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def trace_of(root: Path, mode: str, seed: int, hash_seed: str) -> str:
    """The trace's hash, from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.sim_runs", mode, str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.slow
@pytest.mark.req("SIM-1")
@pytest.mark.parametrize("mode", ["heap", "trio"])
def test_one_seed_gives_one_trace_in_every_process(root: Path, mode: str) -> None:
    first = trace_of(root, mode, 5, "1")
    assert trace_of(root, mode, 5, "4242") == first
    assert trace_of(root, mode, 6, "1") != first


@pytest.mark.slow
@pytest.mark.req("SIM-1")
@pytest.mark.parametrize("seed", [12, 13, 14, 20])
def test_no_set_decides_in_which_order_nodes_hear_of_owners(root: Path, seed: int) -> None:
    assert trace_of(root, "storm", seed, "1") == trace_of(root, "storm", seed, "2")
