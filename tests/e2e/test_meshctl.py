"""The installed `meshctl` against running daemons: tables, JSON, exit codes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from meshd.demo.children import Children
from meshd.demo.processes import Daemon, program
from tests.support.openai_server import start_servers
from tests.support.processes import Mesh, free_port


def _meshctl(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [program("meshctl"), "--addr", f"http://{daemon.api}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60.0, check=False)


@pytest.mark.req("CTL-1", "CTL-3", "CTL-6")
def test_a_worker_is_added_waited_for_listed_and_removed(
    mesh: Mesh, children: Children, tmp_path: Path
) -> None:
    server = start_servers(children, tmp_path, 1)[0]
    added = _meshctl(mesh["a"], "worker", "add", server.url, "-o", "json")
    assert added.returncode == 0, added.stderr
    worker_id = json.loads(added.stdout)["worker_id"]
    for daemon in mesh:
        waited = _meshctl(daemon, "worker", "wait", worker_id, "--timeout", "20")
        assert waited.returncode == 0, waited.stderr
    listed = json.loads(_meshctl(mesh["b"], "worker", "ls", "-o", "json").stdout)
    assert [worker["url"] for worker in listed["workers"]] == [server.url]
    assert server.url in _meshctl(mesh["c"], "worker", "ls").stdout
    assert _meshctl(mesh["b"], "worker", "rm", worker_id).returncode != 0
    assert _meshctl(mesh["a"], "converge", "--wait", "--timeout", "20").returncode == 0
    removed = _meshctl(mesh["a"], "worker", "rm", worker_id)
    assert removed.returncode == 0, removed.stderr


@pytest.mark.req("CTL-1", "CTL-2")
def test_members_info_and_keys_are_shown_over_the_unix_socket_too(mesh: Mesh) -> None:
    command = [program("meshctl"), "--addr", mesh["a"].socket, "members", "-o", "json"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60.0, check=True)
    assert {member["name"] for member in json.loads(shown.stdout)["members"]} == {"a", "b", "c"}
    for arguments in (("info",), ("members",), ("kv", "ls")):
        assert _meshctl(mesh["b"], *arguments).returncode == 0


@pytest.mark.req("CTL-6")
def test_an_unreachable_daemon_is_exit_code_3_and_wrong_usage_2(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    unreachable = subprocess.run(
        [program("meshctl"), "--addr", address, "members"],
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )
    assert unreachable.returncode == 3
    assert "Traceback" not in unreachable.stderr
    usage = subprocess.run(
        [program("meshctl"), "worker", "fly"], capture_output=True, timeout=60.0, check=False
    )
    assert usage.returncode == 2
