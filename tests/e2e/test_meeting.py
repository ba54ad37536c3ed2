"""Daemons find each other: by zeroconf without any address, by a seed that is not there yet, by name."""

from __future__ import annotations

import time
import uuid

import pytest

from meshd.demo.processes import Daemon
from tests.support.processes import MeshMaker, alive, eventually

_UNCHECKED = {"disable_health_check": True}


@pytest.mark.req("MSH-1", "MSH-6")
def test_two_daemons_without_any_address_meet_by_zeroconf(make_mesh: MeshMaker) -> None:
    settings = {"discovery.zeroconf": "true"}
    # Clusters of their own: other tests on this machine must not be met.
    ours, theirs = f"e2e-{uuid.uuid4().hex[:8]}", f"e2e-{uuid.uuid4().hex[:8]}"
    mesh = make_mesh("a", "b", join=False, cluster=ours, settings=settings)
    stranger = make_mesh("stranger", join=False, cluster=theirs, settings=settings)
    stranger.start()
    mesh.start()
    url = "http://127.0.0.1:9"
    mesh["a"].register({"url": url, "health": _UNCHECKED})
    eventually(lambda: mesh["b"].workers().get(url, {}).get("status") == "ready", "b lists a's worker")
    assert alive(stranger["stranger"]) == {"stranger"}
    assert not stranger["stranger"].workers()


@pytest.mark.req("MSH-1")
def test_a_seed_that_is_not_there_yet_is_tried_until_it_is(make_mesh: MeshMaker) -> None:
    mesh = make_mesh("a", "b")
    mesh["b"].start()
    mesh["b"].wait_ready()
    time.sleep(1.5)
    assert alive(mesh["b"]) == {"b"}
    mesh["a"].start()
    mesh["a"].wait_ready()
    mesh.wait_met()


@pytest.mark.req("MSH-1", "CTL-4")
def test_a_daemon_joins_a_running_mesh_when_it_is_told_an_address(make_mesh: MeshMaker) -> None:
    mesh = make_mesh("a", "b", join=False)
    for daemon in mesh:
        daemon.start()
        daemon.wait_ready()
    mesh["b"].call("POST", "/mesh/join", {"peers": [mesh["a"].mesh]}).expect(202)
    mesh.wait_met()


@pytest.mark.req("MSH-6")
def test_another_cluster_is_refused_and_both_sides_say_so(make_mesh: MeshMaker) -> None:
    ours = make_mesh("a", cluster="ours").start()
    theirs = make_mesh("b", cluster="theirs")
    theirs["b"].join = (ours["a"].mesh,)
    theirs.start()

    def says_why(log: str, other: str) -> bool:
        return any("cluster" in line and other in line for line in log.splitlines())

    eventually(lambda: says_why(theirs["b"].log.read_text(), "ours"), "b says that the cluster is another")
    eventually(lambda: says_why(ours["a"].log.read_text(), "theirs"), "a says that the cluster is another")
    assert alive(ours["a"]) == {"a"}
    assert alive(theirs["b"]) == {"b"}


@pytest.mark.req("MSH-1")
def test_port_0_picks_ports_and_writes_them_down(make_mesh: MeshMaker) -> None:
    mesh = make_mesh("a")
    daemon = Daemon(mesh.children, mesh.folder, "picked", cluster=mesh.cluster)
    daemon.start()
    daemon.wait_ready()
    assert not daemon.mesh.endswith(":0")
    assert not daemon.api.endswith(":0")
    assert daemon.get("/mesh/status")["node"] == "picked"
    assert any(daemon.api in line and "ready" in line for line in daemon.log.read_text().splitlines())
    assert daemon.stop() == 0
