"""Daemons that crash, restart or lose their disk come back with the same workers; nobody misses one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from meshd.demo.children import Children
from meshd.demo.processes import Daemon
from tests.support.openai_server import start_servers
from tests.support.processes import Mesh, MeshMaker, Watch, agree, eventually, everywhere

Workers = dict[str, dict[str, object]]


def _ids(daemon: Daemon) -> dict[str, str]:
    return {url: worker["id"] for url, worker in daemon.workers().items()}


def _all_ready(mesh: Mesh, count: int) -> bool:
    return all(
        [worker["status"] for worker in daemon.workers().values()] == ["ready"] * count for daemon in mesh
    )


def _state(daemon: Daemon, name: str) -> str:
    return next(str(m["state"]) for m in daemon.get("/mesh/members")["members"] if m["name"] == name)


def _mesh_with_servers(make_mesh: MeshMaker, children: Children, folder: Path) -> tuple[Mesh, dict[str, str]]:
    """Three daemons; three ready workers on a, one each on b and c. Returns the ids by URL."""
    mesh = make_mesh().start()
    servers = start_servers(children, folder, 5)
    for name, server in zip("aaabc", servers, strict=True):
        mesh[name].register({"url": server.url})
    eventually(lambda: _all_ready(mesh, 5), "five workers are ready on all")
    return mesh, _ids(mesh["a"])


@pytest.mark.req("SYN-2", "SYN-13", "SYN-16", "CRD-8", "MSH-6")
@pytest.mark.parametrize("down", ["until its peers noticed", "for a moment"])
def test_a_killed_daemon_comes_back_with_the_same_ids_and_its_peers_never_miss_a_worker(
    make_mesh: MeshMaker, children: Children, tmp_path: Path, down: str
) -> None:
    mesh, ids = _mesh_with_servers(make_mesh, children, tmp_path)

    def fault(listed: Workers) -> str | None:
        if {url: worker["id"] for url, worker in listed.items()} != ids:
            return f"other workers: {sorted(listed)}"
        unready = [url for url, worker in listed.items() if worker["status"] != "ready"]
        return f"not ready: {unready}" if unready else None

    with Watch(mesh["b"], fault) as watch_b, Watch(mesh["c"], fault) as watch_c:
        mesh["a"].kill()
        if down == "until its peers noticed":
            everywhere((mesh["b"], mesh["c"]), lambda peer: _state(peer, "a") == "down", "calls a down")
        mesh["a"].start()
        mesh["a"].wait_ready()
        mesh.wait_met()
        eventually(lambda: _all_ready(mesh, 5), "five workers are ready on all again")
        eventually(lambda: agree(mesh), "all hold the same map")
    watch_b.check()
    watch_c.check()
    assert [_ids(daemon) for daemon in mesh] == [ids] * 3
    assert [mesh["a"].workers()[url]["origin"] for url in ids].count("local") == 3


@pytest.mark.req("SYN-2", "SYN-16", "CRD-4")
def test_a_daemon_that_lost_its_disk_gets_its_workers_back_from_its_peers(
    make_mesh: MeshMaker, children: Children, tmp_path: Path
) -> None:
    mesh, ids = _mesh_with_servers(make_mesh, children, tmp_path)

    def fault(listed: Workers) -> str | None:
        found = {url: worker["id"] for url, worker in listed.items()}
        return None if found == ids else f"other workers: {found}"

    with Watch(mesh["b"], fault) as watch_b, Watch(mesh["c"], fault) as watch_c:
        mesh["a"].kill()
        shutil.rmtree(mesh["a"].data_dir)
        # The node that others join has lost every address: it is told one again.
        mesh["a"].join = (mesh["b"].mesh,)
        mesh["a"].start()
        mesh["a"].wait_ready()
        eventually(lambda: _ids(mesh["a"]) == ids, "a lists all workers again")
        eventually(lambda: _all_ready(mesh, 5), "five workers are ready on all again")
    watch_b.check()
    watch_c.check()
    assert [mesh["a"].workers()[url]["origin"] for url in ids].count("local") == 3


@pytest.mark.req("CRD-6", "SYN-4", "SYN-14")
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_removed_worker_stays_away_after_every_daemon_was_restarted_in_turn(
    make_mesh: MeshMaker, children: Children, tmp_path: Path, how: str
) -> None:
    mesh, ids = _mesh_with_servers(make_mesh, children, tmp_path)
    removed = next(url for url, worker in mesh["a"].workers().items() if worker["origin"] == "local")
    mesh["a"].call("DELETE", f"/workers/{ids[removed]}?drain=0").expect(202)
    left = {url: worker_id for url, worker_id in ids.items() if url != removed}
    everywhere(mesh, lambda daemon: _ids(daemon) == left, "lists the others only")

    def fault(listed: Workers) -> str | None:
        found = {url: worker["id"] for url, worker in listed.items()}
        return None if found == left else f"other workers: {found}"

    for daemon in mesh:
        others = [Watch(other, fault) for other in mesh if other is not daemon]
        with others[0], others[1]:
            if how == "stopped":
                assert daemon.stop() == 0
            else:
                daemon.kill()
            daemon.start()
            daemon.wait_ready()
            everywhere([daemon], lambda restarted: _ids(restarted) == left, "lists the others only")
            mesh.wait_met()
        for watch in others:
            watch.check()
    eventually(lambda: _all_ready(mesh, 4), "the other workers are ready on all")
    eventually(lambda: agree(mesh), "all hold the same map")
    assert [_ids(daemon) for daemon in mesh] == [left] * 3


@pytest.mark.req("SYN-14")
def test_a_daemon_stops_in_order_within_a_few_seconds_and_leaves_no_socket(make_mesh: MeshMaker) -> None:
    mesh = make_mesh("a", "b").start()
    assert mesh["a"].stop(timeout_s=8.0) == 0
    assert not (mesh["a"].data_dir / "meshd.sock").exists()


@pytest.mark.req("SYN-2")
def test_another_node_name_on_the_same_data_directory_is_refused_with_the_way_out(
    make_mesh: MeshMaker,
) -> None:
    mesh = make_mesh("a").start()
    mesh["a"].stop()
    other = Daemon(mesh.children, mesh.folder, "other", cluster=mesh.cluster)
    other.data_dir = mesh["a"].data_dir
    other.start()
    assert other.child.wait(20.0) not in (0, -6, -11)
    said = other.child.log_tail()
    assert "Traceback" not in said
    assert "other" in said
    assert str(other.data_dir) in said
