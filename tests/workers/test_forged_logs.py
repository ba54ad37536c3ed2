"""A log forged in a running node's name, as a peer may hold it while ownership is not strict (SYN-7)."""

from __future__ import annotations

import pytest

from crdt.delta import Transfer, Verdict
from crdt.owner_log import OwnerLog
from meshd.workers.health_machine import HealthSettings
from meshd.workers.record import WorkerRecord, encode_record
from tests.support.mesh_planes import MeshPlanes, mesh
from tests.support.planes import URL, Planes, spec

__all__ = ["mesh"]

OTHER = "http://10.0.0.2:8000"


@pytest.mark.req("SYN-7", "SYN-1")
def test_what_a_running_node_registered_is_asserted_against_a_log_that_claims_to_have_taken_it_on(
    mesh: MeshPlanes,
) -> None:
    for name in "abc":
        mesh.start(name, tuple(other for other in "abc" if other != name))
    mesh.run(5)
    changed, removed = mesh.register("a", priority=1), mesh.register("a", OTHER)
    mesh.run(2)
    mesh.events("a")
    true = mesh.nodes["a"].map.own
    forged = OwnerLog("a", (true.gen[0] + 1, 7))
    forged.lineage = {true.gen: true.max}
    record = WorkerRecord(spec(priority=9), "ready", "a", 99)
    forged.append(changed.key, encode_record(record), 1)
    forged.append(removed.key, None, 2)
    cut = Transfer(forged.head(), 0, True, tuple(forged.entries.values()))
    assert mesh.nodes["b"].map.apply(cut).verdict is Verdict.SWAPPED
    mesh.nodes["b"].replicator.log_changed("a")
    mesh.run(15)
    assert mesh.events("a") == []
    for name in "abc":
        assert set(mesh.workers(name)) == {URL, OTHER}
        worker = mesh.planes[name].registry.by_url(URL)
        assert worker is not None
        assert (worker.id, worker.spec.priority) == (changed.id, 1)
    assert mesh.converged()


@pytest.mark.req("SYN-7")
def test_who_writes_under_others_keys_is_counted_and_named(mesh: MeshPlanes) -> None:
    for name in "ab":
        mesh.start(name, ("b" if name == "a" else "a",))
    mesh.run(5)
    worker = mesh.register("a")
    mesh.run(2)
    mesh.put("b", worker.key, encode_record(WorkerRecord(spec(priority=9), "ready", "a", 99)))
    mesh.run(2)
    for name in "ab":
        assert mesh.nodes[name].map.view.foreign == {worker.key: {"b"}}
        assert mesh.nodes[name].map.view.foreign_writes == {"b": (1, worker.key)}
    named = [
        fields["owner"] for name, event, fields in mesh.notices if (name, event) == ("a", "foreign_entries")
    ]
    assert named == ["b"]
    mesh.delete("b", worker.key)
    mesh.run(2)
    assert mesh.nodes["a"].map.view.foreign == {}
    assert mesh.nodes["a"].map.view.foreign_writes == {"b": (2, worker.key)}
    assert mesh.nodes["a"].map.view.winners[worker.key].owner == "a"


@pytest.mark.req("LIF-7")
def test_a_rank_is_checked_at_the_base_that_its_spec_names() -> None:
    planes = Planes("a", health=HealthSettings())
    asked: list[str] = []
    planes.watch = lambda node, target: asked.append(target.url)
    planes["a"].register("http://10.0.0.9:8000", dp_base_url="http://10.0.0.1:8000", dp_rank=2, dp_size=4)
    planes.run(1)
    assert set(asked) == {"http://10.0.0.1:8000"}
