"""Forgetting, and the commands that look at the mesh, on running daemons."""

from __future__ import annotations

import json
import subprocess

import pytest

from meshd.demo.processes import Daemon, program
from tests.support.processes import Mesh, MeshMaker, eventually, everywhere

UNCHECKED = {"health": {"disable_health_check": True}}
URL = "http://10.255.255.9:8000"


def meshctl(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    command = [program("meshctl"), "--addr", f"http://{daemon.api}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60.0, check=False)


def state_of(daemon: Daemon, name: str) -> str | None:
    members = daemon.get("/mesh/members")["members"]
    return next((str(member["state"]) for member in members if member["name"] == name), None)


@pytest.mark.req("SYN-13", "CTL-3")
def test_a_dead_node_is_forgotten_everywhere_and_what_it_has_is_back_when_it_returns(
    make_mesh: MeshMaker,
) -> None:
    mesh = make_mesh("a", "b", "c", "d", settings={"mesh.heartbeat_s": 0.2}).start()
    mesh["b"].register({"url": URL, **UNCHECKED})
    everywhere(mesh, lambda daemon: URL in daemon.workers(), "the worker is listed")
    refused = meshctl(mesh["a"], "forget", "b", "--yes")
    assert refused.returncode == 1
    assert "alive" in refused.stderr
    assert meshctl(mesh["a"], "forget", "nobody", "--yes").returncode == 1
    mesh["b"].kill()
    eventually(lambda: state_of(mesh["a"], "b") == "down", "b is down")
    assert URL in mesh["c"].workers()
    done = meshctl(mesh["a"], "forget", "b", "--yes")
    assert done.returncode == 0, done.stderr
    others = [mesh[name] for name in "acd"]
    everywhere(others, lambda daemon: URL not in daemon.workers(), "b is forgotten")
    mesh["b"].start()
    mesh["b"].wait_ready()
    everywhere(mesh, lambda daemon: URL in daemon.workers(), "b asserts its worker again")


@pytest.mark.req("CTL-3", "CTL-6")
def test_the_commands_that_look_agree_with_what_is(mesh: Mesh) -> None:
    worker = mesh["a"].register({"url": URL, **UNCHECKED})
    everywhere(mesh, lambda daemon: URL in daemon.workers(), "the worker is listed")

    def acknowledged() -> bool:
        told = json.loads(meshctl(mesh["b"], "explain", worker, "-o", "json").stdout)
        return bool(told["entries"][0]["acknowledged"] == {"a": True, "c": True})

    eventually(acknowledged, "b knows that all have it")
    text = meshctl(mesh["b"], "explain", worker).stdout
    assert "shows what a wrote" in text
    assert "from a, which is connected" in text
    sound = meshctl(mesh["c"], "doctor")
    assert sound.returncode == 0, sound.stdout
    eventually(lambda: meshctl(mesh["a"], "partitions").returncode == 0, "one group")
    groups = json.loads(meshctl(mesh["a"], "partitions", "-o", "json").stdout)["groups"]
    assert groups == [["a", "b", "c"]]
    assert {row["name"] for row in json.loads(meshctl(mesh["a"], "rtt", "-o", "json").stdout)["peers"]} == {
        "b",
        "c",
    }
    sides = (f"http://{mesh['a'].api}", str(mesh["c"].data_dir))
    assert meshctl(mesh["a"], "diff", *sides).returncode == 0
    assert meshctl(mesh["a"], "check").returncode == 0
    mesh["a"].call("DELETE", f"/workers/{worker}?drain=0").expect(202)
    everywhere(mesh, lambda daemon: URL not in daemon.workers(), "the worker is gone")
