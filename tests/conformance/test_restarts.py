"""SYN-2, SYN-13, SYN-14, SYN-16: workers outlive the node that owns them, and end when they are to end."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from meshd.demo.processes import Daemon
from tests.support.backends import Backend
from tests.support.conformance import UNCHECKED, Fleet, Node, SlowRequest, holds_for, opened, transitions
from tests.support.processes import Mesh, Watch, eventually, log_events

FleetMaker = Callable[..., tuple[Mesh, Fleet]]
URL = "http://127.0.0.1:9"


def _again(daemon: Daemon) -> None:
    daemon.start()
    daemon.wait_ready()


def _state(node: Node, name: str) -> str | None:
    return next((str(row["state"]) for row in node.members() if row["name"] == name), None)


@pytest.mark.req("SYN-16", "SYN-2", "SYN-5")
def test_a_nodes_own_former_state_gossiped_back_during_its_restart_undoes_nothing(
    make_fleet: FleetMaker, tmp_path: Path
) -> None:
    mesh, fleet = make_fleet("a", "b", "c")
    a, b, c = fleet
    kept = a.register(f"{URL}/kept", priority=1, health=UNCHECKED)
    gone = a.register(f"{URL}/gone", health=UNCHECKED)
    fleet.settle(f"{URL}/gone", "ready")
    # An older state of its disk comes back, while its peers hold the newer one.
    assert mesh["a"].stop() == 0
    shutil.copytree(mesh["a"].data_dir, tmp_path / "backup", ignore=shutil.ignore_patterns("*.sock"))
    _again(mesh["a"])
    eventually(lambda: a.worker(f"{URL}/gone").get("origin") == "local", "its workers are back")
    a.call("PATCH", f"/workers/{kept}", {"priority": 2}).expect(202)
    a.remove(gone)
    new = a.register(f"{URL}/new", health=UNCHECKED)
    wanted = {f"{URL}/kept": (kept, 2), f"{URL}/new": (new, 50)}

    def shown(node: Node) -> bool:
        return {url: (w["id"], w["priority"]) for url, w in node.workers().items()} == wanted

    fleet.each(shown, "has the newer state")
    mesh["a"].kill()
    shutil.rmtree(mesh["a"].data_dir)
    shutil.copytree(tmp_path / "backup", mesh["a"].data_dir)
    judge = {url: id for url, (id, _) in wanted.items()}

    def fault(listed: dict[str, dict[str, object]]) -> str | None:
        found = {url: worker["id"] for url, worker in listed.items()}
        return None if found == judge else f"other workers: {found}"

    with Watch(b, fault) as on_b, Watch(c, fault) as on_c:
        _again(mesh["a"])
        fleet.each(shown, "has the newer state again")
        assert {worker["origin"] for worker in a.workers().values()} == {"local"}
        fleet.let_reconcile(2)
        fleet.each(shown, "keeps it")
    on_b.check()
    on_c.check()
    eventually(lambda: len({node.get("/mesh/status")["digest"] for node in fleet}) == 1, "one digest")


@pytest.mark.req("SYN-16", "LIF-1")
def test_a_restored_worker_is_checked_anew_and_its_record_keeps_its_word_until_then(
    make_fleet: FleetMaker, backend: Backend, other_backend: Backend
) -> None:
    mesh, fleet = make_fleet("a", "b")
    a, b = fleet
    ids = {url: a.register(url, health={"timeout_secs": 5}) for url in (backend.url, other_backend.url)}
    for url in ids:
        fleet.settle(url, "ready")
    with b.events() as stream:
        opened(stream)
        mesh["a"].kill()
        backend.delay_s = 1.0
        _again(mesh["a"])
        eventually(lambda: a.status(backend.url) == "pending", "it waits for its first check")
        assert [entry["value"]["status"] for entry in a.entries(ids[backend.url])] == ["ready"]
        other_backend.stop()
        fleet.settle(backend.url, "ready")
        eventually(lambda: "ready" not in fleet.statuses(other_backend.url), "the dead one is ready nowhere")
    assert transitions(stream, backend.url) == []


@pytest.mark.req("SYN-13", "SYN-5")
def test_imports_of_a_dead_owner_are_judged_by_own_checks_until_it_is_forgotten_or_back(
    make_fleet: FleetMaker, backend: Backend, other_backend: Backend
) -> None:
    mesh, fleet = make_fleet("a", "b", "c")
    a, b, c = fleet
    ids = {a.register(backend.url), a.register(other_backend.url)}
    for url in (backend.url, other_backend.url):
        fleet.settle(url, "ready")
    assert b.ctl("forget", "a", "-y").returncode == 1, "a live owner is not forgotten"
    mesh["a"].kill()
    peers = Fleet((b, c))
    peers.each(lambda node: _state(node, "a") == "down", "the owner is known to be down")
    other_backend.health = 503
    peers.each(lambda node: node.has(other_backend.url, "not_ready"), "own checks count")
    assert peers.statuses(backend.url) == ["ready", "ready"]
    other_backend.health = 200
    peers.settle(other_backend.url, "ready")
    assert b.ctl("forget", "a", "-y").returncode == 0
    peers.settle(backend.url, None)
    peers.settle(other_backend.url, None)
    peers.let_reconcile(2)
    assert not b.workers()
    assert not c.workers()
    _again(mesh["a"])
    for url in (backend.url, other_backend.url):
        fleet.settle(url, "ready")
    assert {worker["id"] for worker in c.workers().values()} == ids


@pytest.mark.req("SYN-13")
def test_an_owner_is_forgotten_once_its_time_is_over_and_never_while_it_lives(make_fleet: FleetMaker) -> None:
    mesh, fleet = make_fleet("a", "b", "c", **{"sync.forget_after_s": 2, "sync.fence_keep_s": 600})
    a, b, c = fleet
    a.register(f"{URL}/a", health=UNCHECKED)
    b.register(f"{URL}/b", health=UNCHECKED)
    fleet.settle(f"{URL}/a", "ready")
    fleet.settle(f"{URL}/b", "ready")
    started = time.monotonic()
    with c.events() as stream:
        opened(stream)
        mesh["a"].kill()
        Fleet((b, c)).each(lambda node: f"{URL}/a" not in node.workers(), "a is forgotten")
        assert time.monotonic() - started >= 2
        holds_for(lambda: f"{URL}/b" in c.workers(), 1.0, "a live owner keeps its entries", every_s=0.2)
        Fleet((b, c)).let_reconcile(2)
    assert [event.data["worker"]["url"] for event in stream.of("removed")] == [f"{URL}/a"]
    _again(mesh["a"])
    fleet.settle(f"{URL}/a", "ready")


@pytest.mark.req("SYN-14")
def test_sigterm_finishes_running_requests_and_leaves_the_workers_with_the_peers(
    make_fleet: FleetMaker,
) -> None:
    mesh, fleet = make_fleet("a", "b")
    a, b = fleet
    first = a.register(URL, health=UNCHECKED)
    slow = SlowRequest(a, "PUT", f"/workers/{first}", {"url": URL, "priority": 9, "health": UNCHECKED})
    mesh["a"].child.signal(signal.SIGTERM)
    eventually(lambda: "stopping" in {event.get("event") for event in log_events(mesh["a"])}, "it stops")
    assert slow.finish() == 202
    assert mesh["a"].child.wait(15.0) == 0
    eventually(lambda: _state(b, "a") == "left", "it said that it leaves")
    eventually(lambda: b.worker(URL).get("priority") == 9, "the last change has reached the peer")
    assert b.status(URL) == "ready"
    Fleet((b,)).let_reconcile(2)
    assert b.worker(URL)["id"] == first
    _again(mesh["a"])
    eventually(lambda: a.worker(URL).get("origin") == "local", "it has its worker back")
    assert a.worker(URL)["priority"] == 9


@pytest.mark.req("SYN-14")
@pytest.mark.parametrize("how", ["leave", "on_stop"])
def test_a_node_that_withdraws_takes_its_workers_with_it(make_fleet: FleetMaker, how: str) -> None:
    mesh, fleet = make_fleet("a", "b", **({"sync.on_stop": "withdraw"} if how == "on_stop" else {}))
    a, b = fleet
    id = a.register(URL, health=UNCHECKED)
    fleet.settle(URL, "ready")
    if how == "leave":
        assert a.ctl("leave", "-y").returncode == 0
    else:
        mesh["a"].stop()
    eventually(lambda: not b.workers(), "its workers are gone with it")
    eventually(lambda: all(entry["tombstone"] for entry in b.entries(id)), "they were tombstoned")
    if mesh["a"].running:
        mesh["a"].child.wait(15.0)


@pytest.mark.req("SYN-16")
def test_with_on_start_withdraw_what_is_not_registered_again_in_time_is_tombstoned(
    make_fleet: FleetMaker,
) -> None:
    mesh, fleet = make_fleet("a", "b", **{"sync.on_start": "withdraw", "sync.startup_grace_s": 2})
    a, b = fleet
    again = a.register(f"{URL}/again", health=UNCHECKED)
    a.register(f"{URL}/not", health=UNCHECKED)
    fleet.settle(f"{URL}/not", "ready")
    mesh["a"].kill()
    _again(mesh["a"])
    assert a.register(f"{URL}/again", health=UNCHECKED) == again
    assert b.status(f"{URL}/not") == "ready"
    fleet.settle(f"{URL}/not", None)
    fleet.let_reconcile(2)
    assert [worker["id"] for worker in b.workers().values()] == [again]


@pytest.mark.req("SYN-2")
def test_a_node_that_lost_its_disk_writes_the_same_keys_and_orphans_nothing(make_fleet: FleetMaker) -> None:
    mesh, fleet = make_fleet("a", "b")
    a, b = fleet
    ids = {a.register(f"{URL}/{number}", health=UNCHECKED) for number in range(3)}
    fleet.settle(f"{URL}/2", "ready")
    mesh["a"].kill()
    shutil.rmtree(mesh["a"].data_dir)
    mesh["a"].join = (mesh["b"].mesh,)
    _again(mesh["a"])
    again = a.call("POST", "/workers", {"url": f"{URL}/0", "health": UNCHECKED})
    assert again.status in (202, 409)
    assert again.json()["worker_id"] in ids
    fleet.each(lambda node: {w["id"] for w in node.workers().values()} == ids, "has the same workers")
    eventually(lambda: {w["origin"] for w in a.workers().values()} == {"local"}, "they are its own again")
    keys = {entry["key"] for entry in b.get("/mesh/store?prefix=worker:")["entries"]}
    assert keys == {f"worker:{id}" for id in ids}


@pytest.mark.req("SYN-2")
@pytest.mark.parametrize("other", ["name", "cluster"])
def test_a_data_directory_of_another_node_or_cluster_is_refused_with_the_way_out(
    lone: Callable[..., Daemon], other: str
) -> None:
    daemon = lone("first")
    _again(daemon)
    daemon.stop()
    second = lone("second" if other == "name" else "first")
    second.cluster = "elsewhere" if other == "cluster" else second.cluster
    second.data_dir = daemon.data_dir
    second.start()
    assert second.child.wait(20.0) not in (0, -6, -11)
    said = second.child.log_tail()
    assert "Traceback" not in said
    assert str(daemon.data_dir) in said
    assert "first" in said if other == "name" else "conformance" in said
    _again(daemon)


@pytest.mark.req("REG-4", "SYN-16")
def test_declared_workers_are_registered_once_however_often_the_daemon_starts(
    lone: Callable[..., Daemon], tmp_path: Path
) -> None:
    config = tmp_path / "meshd.toml"
    entry = f'[[worker]]\nurl = "{URL}"\npriority = %d\nhealth = {{ disable_health_check = true }}\n'
    config.write_text(entry % 3, "utf-8")
    daemon = lone("declared")
    plain = daemon.argv
    daemon.argv = lambda: [*plain(), "--config", str(config)]  # type: ignore[method-assign]  # a handle has no option for it
    seen = []
    for _ in range(2):
        _again(daemon)
        node = Node(daemon.api, daemon)
        (worker,) = node.workers().values()
        assert node.get(f"/workers/{worker['id']}")["origin"] == "local"
        seen.append((worker["id"], worker["revision"], worker["priority"], worker["status"]))
        daemon.stop()
    assert seen[0] == seen[1]
    config.write_text(entry % 4, "utf-8")
    _again(daemon)
    (worker,) = Node(daemon.api, daemon).workers().values()
    assert (worker["id"], worker["priority"]) == (seen[0][0], 4)
    assert worker["revision"] > seen[0][1]
