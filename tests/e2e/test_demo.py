"""`python -m meshd.demo` shows the whole story and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="looks into /proc")


@contextmanager
def _demo(tmp_path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The demo as a process, and a mark that all its descendants carry in their environment."""
    mark = f"MESHD_E2E_MARK_{uuid.uuid4().hex}"
    process = subprocess.Popen(
        [sys.executable, "-m", "meshd.demo", *arguments],
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1", "TEST_MARK": mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process, mark
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _left_behind(mark: str) -> list[str]:
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in environ.read_bytes():
                found.append(environ.parent.name)
        except OSError:
            continue  # It has just ended, or it is not ours to read.
    return found


def _nothing_left(mark: str, folder: Path, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while (_left_behind(mark) or any(folder.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _left_behind(mark)
    assert not any(folder.iterdir())


def _read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            return
    raise AssertionError(f"the demo ended before it said {text!r}:\n{''.join(said)}")


@pytest.mark.req("SYN-1")
def test_the_demo_shows_three_agreeing_views_and_a_restart(tmp_path: Path) -> None:
    with _demo(tmp_path, "--once") as (process, mark):
        said, _ = process.communicate(timeout=120.0)
        assert process.returncode == 0, said
        for piece in ("Three daemons start", "Four ready workers", "heard: Who are you?", "the same ids"):
            assert piece in said
        assert "What to try next" in said
        _nothing_left(mark, tmp_path)


@pytest.mark.req("CTL-4")
@pytest.mark.parametrize(
    ("after", "number", "code"),
    [
        ("Four OpenAI-compatible servers start", signal.SIGINT, 130),
        ("Three daemons start", signal.SIGINT, 130),
        ("amber is killed", signal.SIGTERM, 143),
        ("Everything runs until Ctrl-C", signal.SIGINT, 0),
    ],
)
def test_the_demo_leaves_nothing_behind_when_it_is_interrupted(
    tmp_path: Path, after: str, number: signal.Signals, code: int
) -> None:
    with _demo(tmp_path) as (process, mark):
        _read_until(process, after)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60.0)
        assert process.returncode == code, said
        _nothing_left(mark, tmp_path)


@pytest.mark.req("CTL-4")
def test_the_demo_leaves_nothing_behind_when_it_is_killed_outright(tmp_path: Path) -> None:
    with _demo(tmp_path) as (process, mark):
        _read_until(process, "Three daemons start")
        process.kill()
        process.wait()
        _nothing_left(mark, tmp_path)
