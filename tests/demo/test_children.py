"""Children and folders never outlive the program that made them, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from meshd.demo.children import Child, ChildFailed, Children
from meshd.demo.guard import start_time

pytestmark = pytest.mark.slow

_SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
_DEAF = [
    sys.executable,
    "-S",
    "-c",
    "import signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)",
]

_PARENT = """
import sys, time
from pathlib import Path
from meshd.demo.children import Children
children = Children()
folder = children.folder()
sleep = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
child = children.spawn("sleeper", sleep, folder / "log")
print(child.pid, folder, flush=True)
time.sleep(600)
"""


def _gone(pid: int, within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if start_time(pid) is None:
            return True
        time.sleep(0.02)
    return False


def _removed(folder: Path, within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not folder.exists()


def test_leaving_the_block_ends_children_and_removes_folders(tmp_path: Path) -> None:
    with Children() as children:
        folder = children.folder()
        child = children.spawn("sleeper", _SLEEP, tmp_path / "log")
        assert child.running
    assert child.process.returncode == -signal.SIGTERM
    assert not folder.exists()


def test_an_error_inside_the_block_ends_children_too(tmp_path: Path) -> None:
    started: list[Child] = []

    def interrupted() -> None:
        with Children() as children:
            started.append(children.spawn("sleeper", _SLEEP, tmp_path / "log"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not started[0].running


def test_a_child_that_ignores_the_request_is_killed_after_the_grace(tmp_path: Path) -> None:
    children = Children()
    child = children.spawn("deaf", _DEAF, tmp_path / "log")
    while "deaf" not in child.log_tail():
        time.sleep(0.01)
    children.close(grace_s=0.1)
    assert child.process.returncode == -signal.SIGKILL


def test_a_stopped_child_is_ended_in_order(tmp_path: Path) -> None:
    with Children() as children:
        child = children.spawn("sleeper", _SLEEP, tmp_path / "log")
        child.signal(signal.SIGSTOP)
        assert child.terminate(10.0) == -signal.SIGTERM


def test_a_child_that_does_not_end_in_time_is_reported_with_its_log(tmp_path: Path) -> None:
    with Children() as children:
        child = children.spawn("deaf", _DEAF, tmp_path / "log")
        while "deaf" not in child.log_tail():
            time.sleep(0.01)
        with pytest.raises(ChildFailed) as caught:
            child.terminate(0.1)
        assert "deaf still runs" in str(caught.value)
        child.kill()


def test_nothing_can_be_started_after_closing(tmp_path: Path) -> None:
    children = Children()
    children.close()
    children.close()
    with pytest.raises(ValueError):
        children.spawn("late", _SLEEP, tmp_path / "log")


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks into /proc")
def test_the_guard_cleans_up_when_the_program_is_killed_outright() -> None:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid, folder = parent.stdout.readline().split()
    assert Path(folder).is_dir()
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert _gone(int(pid))
    assert _removed(Path(folder))


_KILLED_IN_SPAWN = """
import os, subprocess, sys
from pathlib import Path
from meshd.demo.children import Child, Children
children = Children()
folder = children.folder()

def killed(self, name, process, log, owner):
    print(process.pid, folder, flush=True)
    os.kill(os.getpid(), 9)

Child.__init__ = killed
children.spawn("sleeper", [sys.executable, "-S", "-c", "import time; time.sleep(600)"], folder / "log")
"""


def test_a_program_that_is_killed_the_moment_it_has_started_a_child_leaves_it_to_the_guard() -> None:
    parent = subprocess.run(
        [sys.executable, "-c", _KILLED_IN_SPAWN], capture_output=True, text=True, check=False
    )
    pid, folder = parent.stdout.split()
    assert parent.returncode == -signal.SIGKILL
    assert _gone(int(pid))
    assert _removed(Path(folder))


def test_children_start_and_stop_though_the_guard_is_gone(tmp_path: Path) -> None:
    with Children() as children:
        children._guard.kill()
        children._guard.wait()
        child = children.spawn("sleeper", _SLEEP, tmp_path / "log")
        assert child.running
    assert child.process.returncode == -signal.SIGTERM
