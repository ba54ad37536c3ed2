"""Planes over real mesh nodes on virtual time: restarts, lost disks, foreign writers, cuts."""

from __future__ import annotations

import random

import pytest

from meshd.errors import MeshdError
from meshd.workers.record import WorkerRecord, encode_record, worker_id, worker_key
from tests.support.mesh_planes import MeshPlanes, mesh
from tests.support.planes import URL, spec
from tests.support.pump import Disk

__all__ = ["mesh"]

OTHER = "http://10.0.0.2:8000"


def start(mesh: MeshPlanes, *names: str) -> None:
    for name in names:
        mesh.start(name, tuple(other for other in names if other != name))
    mesh.run(5)


@pytest.mark.req("SYN-1", "SYN-2", "SYN-3")
def test_a_worker_is_everywhere_under_one_id_and_gone_everywhere_after_its_removal(mesh: MeshPlanes) -> None:
    start(mesh, "a", "b", "c")
    worker = mesh.register("a")
    mesh.run(1)
    for name in "bc":
        assert mesh.workers(name) == {URL: (worker.id, "mesh", "a")}
    mesh.remove("a", worker.id)
    mesh.run(1)
    assert [mesh.workers(name) for name in "abc"] == [{}, {}, {}]


@pytest.mark.req("SYN-2", "SYN-13", "SYN-16")
@pytest.mark.parametrize("lost_disk", [False, True])
def test_a_killed_node_is_missed_by_nobody_and_returns_with_the_same_workers(
    mesh: MeshPlanes, lost_disk: bool
) -> None:
    start(mesh, "a", "b", "c")
    ids = {mesh.register("a", f"http://10.0.0.{n}:8000").id for n in range(1, 21)}
    mesh.run(2)
    for name in "bc":
        mesh.events(name)
    mesh.crash("a")
    mesh.run(30)
    mesh.start("a", ("b", "c"), Disk() if lost_disk else None)
    mesh.run(30)
    assert {id for id, origin, owner in mesh.workers("a").values() if origin == "local"} == ids
    for name in "bc":
        assert {id for id, _, _ in mesh.workers(name).values()} == ids
        assert [event.kind for event in mesh.events(name)] == []


@pytest.mark.req("SYN-16", "SYN-7")
@pytest.mark.parametrize("lost_disk", [False, True])
def test_a_removed_worker_does_not_come_back_when_every_node_restarts_in_turn(
    mesh: MeshPlanes, lost_disk: bool
) -> None:
    start(mesh, "a", "b", "c")
    gone, kept = mesh.register("a"), mesh.register("a", OTHER)
    mesh.run(2)
    mesh.cut("a", "c")
    mesh.cut("b", "c")
    mesh.remove("a", gone.id)
    mesh.run(2)
    assert URL in mesh.workers("c")
    mesh.mend()
    for name in "abc":
        mesh.crash(name)
        mesh.run(3)
        mesh.start(name, tuple(other for other in "abc" if other != name), Disk() if lost_disk else None)
        mesh.run(30)
        for each in "abc":
            assert set(mesh.workers(each)) <= {OTHER} or (name, each) == ("a", "c")
    mesh.run(30)
    for name in "abc":
        assert set(mesh.workers(name)) == {OTHER}
        assert mesh.workers(name)[OTHER][0] == kept.id


@pytest.mark.req("SYN-16")
def test_what_is_registered_and_removed_before_the_peers_answer_a_lost_disk_stays_so(
    mesh: MeshPlanes,
) -> None:
    start(mesh, "a", "b")
    mesh.register("a", priority=1)
    mesh.register("a", OTHER)
    mesh.run(2)
    mesh.crash("a")
    mesh.run(2)
    mesh.start("a", ("b",), Disk())
    mesh.register("a", priority=7)
    other = mesh.register("a", OTHER)
    mesh.remove("a", other.id)
    mesh.run(30)
    for name in "ab":
        assert set(mesh.workers(name)) == {URL}
        worker = mesh.planes[name].registry.by_url(URL)
        assert worker is not None
        assert worker.spec.priority == 7


@pytest.mark.req("SYN-7", "SYN-1")
def test_a_value_or_tombstone_by_anybody_else_changes_no_worker_on_any_node(mesh: MeshPlanes) -> None:
    start(mesh, "a", "b", "c")
    worker = mesh.register("a", priority=1)
    mesh.run(2)
    before = {name: mesh.planes[name].registry.by_url(URL) for name in "abc"}
    forged = encode_record(WorkerRecord(spec(priority=9), "failed", "a", 99))
    mesh.put("b", worker.key, forged)
    mesh.run(3)
    assert {name: mesh.planes[name].registry.by_url(URL) for name in "abc"} == before
    mesh.delete("b", worker.key)
    mesh.run(3)
    assert {name: mesh.planes[name].registry.by_url(URL) for name in "abc"} == before


@pytest.mark.req("SYN-11")
def test_an_unreadable_update_is_unreadable_on_every_node_alike(mesh: MeshPlanes) -> None:
    start(mesh, "a", "b", "c")
    worker = mesh.register("a")
    mesh.run(2)
    mesh.put("a", worker_key("a", OTHER), b"\xff")
    mesh.run(3)
    for name in "bc":
        assert set(mesh.planes[name].unreadable) == {worker_key("a", OTHER)}
        assert set(mesh.workers(name)) == {URL}
    assert worker.id in {id for id, _, _ in mesh.workers("b").values()}


@pytest.mark.req("SYN-4", "SYN-9", "MSH-4")
@pytest.mark.parametrize("seed", range(6))
def test_after_any_commands_cuts_and_restarts_all_nodes_agree_with_their_owners(
    mesh: MeshPlanes, seed: int
) -> None:
    rng = random.Random(seed)
    names = ("a", "b", "c")
    start(mesh, *names)
    urls = [f"http://10.0.0.{n}:8000" for n in range(1, 7)]
    wanted: dict[str, set[str]] = {name: set() for name in names}
    for _ in range(60):
        name, url = rng.choice(names), rng.choice(urls)
        match rng.randrange(8):
            case 0 | 1 | 2 if name in mesh.planes:
                mesh.planes[name].register_or_replace(spec(url, priority=rng.randrange(9)), mesh.now)
                mesh._perform(name)
                wanted[name].add(url)
            case 3 | 4 if name in mesh.planes:
                try:
                    mesh.remove(name, worker_id(name, url))
                    wanted[name].discard(url)
                except MeshdError:
                    pass  # it is not registered here
            case 5:
                mesh.cut(*rng.sample(names, 2))
            case 6:
                mesh.mend()
            case 7 if name in mesh.planes:
                mesh.crash(name)
                mesh.run(rng.random() * 5)
                mesh.start(name, tuple(other for other in names if other != name))
            case _:
                pass
        mesh.run(rng.random() * 3)
    mesh.mend()
    mesh.run(60)
    everything = set().union(*wanted.values())
    for name in names:
        workers = mesh.workers(name)
        assert set(workers) == everything
        for url, (id, origin, owner) in workers.items():
            assert (origin == "local") == (url in wanted[name])
            assert url in wanted[owner]
            assert id == worker_id(owner, url)
            worker = mesh.planes[name].registry.by_url(url)
            assert worker is not None
            claims = {claim.owner for claim in worker.claims} | ({name} if worker.is_local else set())
            assert claims == {each for each in names if url in wanted[each]}
