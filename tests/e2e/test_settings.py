"""Settings while daemons run: cluster-wide ones over the mesh, and a node's own by reload."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from meshd.demo.processes import Daemon
from tests.support.processes import EventStream, MeshMaker, eventually, everywhere

URL = "http://10.255.255.1:8000"


def capacity(daemon: Daemon) -> object:
    return daemon.get("/capacity")["capacity"]


@pytest.mark.req("CRD-3", "CTL-3", "CAP-4")
def test_an_override_set_on_one_node_is_in_force_on_all_and_outlives_restarts(make_mesh: MeshMaker) -> None:
    mesh = make_mesh("a", "b", "c").start()
    with EventStream(mesh["c"], "?types=capacity") as stream:
        eventually(lambda: stream.of("snapshot"), "the stream stands")
        began = time.monotonic()
        mesh["a"].call("PUT", "/config/capacity.override", {"value": 321}).expect(200)
        event = eventually(lambda: stream.of("capacity"), "c tells its capacity")[0]
        assert event.data["capacity"] == 321
        assert event.at - began < 1.0
    everywhere(mesh, lambda daemon: capacity(daemon) == 321, "the override is in force")
    mesh["b"].call("PUT", "/config/health.disable_health_check", {"value": True}).expect(200)
    everywhere(
        mesh,
        lambda daemon: daemon.get("/config/health.disable_health_check")["in_force"] is True,
        "checks are off",
    )
    mesh["c"].register({"url": URL})
    everywhere(mesh, lambda daemon: daemon.workers()[URL]["status"] == "ready", "nobody checks it")
    mesh["a"].stop()
    mesh["b"].call("DELETE", "/config/capacity.override").expect(200)
    mesh["a"].start()
    mesh["a"].wait_ready()
    everywhere(mesh, lambda daemon: capacity(daemon) != 321, "the override is taken back")
    assert mesh["a"].get("/config/health.disable_health_check")["in_force"] is True
    refused = mesh["a"].call("PUT", "/config/capacity.override", {"value": 70000}).expect(400).json()
    assert refused["field"] == "capacity.override"


@pytest.mark.req("CTL-3", "SYN-16")
def test_sighup_and_reload_take_on_the_file_and_a_bad_one_changes_nothing(
    make_mesh: MeshMaker, tmp_path: Path
) -> None:
    mesh = make_mesh("a", "b")
    file = tmp_path / "meshd.toml"
    file.write_text(f'[[worker]]\nurl = "{URL}"\n')
    mesh["a"].env = {"MESHD_CONFIG": str(file)}
    mesh.start()
    everywhere(mesh, lambda daemon: URL in daemon.workers(), "the declared worker is listed")
    file.write_text(
        f'[capacity]\noverride = 5\n[store]\nmax_keys = 77\n[[worker]]\nurl = "{URL}"\npriority = 9\n'
    )
    mesh["a"].child.signal(signal.SIGHUP)
    eventually(lambda: capacity(mesh["a"]) == 5, "SIGHUP is taken on")
    everywhere(mesh, lambda daemon: daemon.workers()[URL]["priority"] == 9, "the worker is changed")
    answer = mesh["a"].call("POST", "/reload", {}).expect(200).json()
    assert (answer["applied"], answer["needs_restart"]) == ([], ["store.max_keys"])
    file.write_text("[capacity]\noverride = 6\nbogus = 1\n")
    refused = mesh["b"].call("POST", "/reload", {}).expect(200).json()  # b has no file: nothing is different
    assert (refused["applied"], refused["needs_restart"]) == ([], [])
    assert "capacity.bogus" in mesh["a"].call("POST", "/reload", {}).expect(400).json()["error"]
    assert capacity(mesh["a"]) == 5
    assert URL in mesh["a"].workers()
    file.write_text("[health]\ndrain_settle_secs = 0\n")
    mesh["a"].call("POST", "/reload", {}).expect(200)
    everywhere(mesh, lambda daemon: URL not in daemon.workers(), "the worker left the file and the mesh")
