"""The limit on open files."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from meshd.runtime.descriptors import raise_open_files

_START_LOW = """
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
from meshd.runtime.descriptors import raise_open_files
print(raise_open_files(512), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.req("SEC-4")
def test_a_low_soft_limit_on_open_files_is_raised() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    done = subprocess.run([sys.executable, "-c", _START_LOW], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["512", "512", str(hard)]


def test_a_soft_limit_is_never_lowered() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert raise_open_files(8) == before[0]
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_the_hard_limit_is_respected_and_a_refusal_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(_which: int, limits: tuple[int, int]) -> None:
        asked.append(limits)
        raise ValueError("not allowed")

    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_open_files() == 1024
    assert asked == [(4096, 4096)]
