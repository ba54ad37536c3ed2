"""SYN-7, SYN-11: a member that writes what is not its to write has no effect on any node.

These tests use a raw client of the mesh protocol, with strict ownership off: whatever the client sends is
taken for what its member says.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from crdt.owner_log import OwnerLog
from meshd.workers.model import parse_spec
from meshd.workers.record import WorkerRecord, encode_record, worker_key
from tests.support.conformance import UNCHECKED, Fleet, Node, given_addresses, holds_for, kinds_of, opened
from tests.support.intruder import Intruder
from tests.support.processes import eventually, log_events

URL = "http://127.0.0.1:9"
THEIRS = "http://10.6.6.6:6666"


def _record(owner: str, url: str, **fields: object) -> bytes:
    spec = parse_spec({"url": url, "health": UNCHECKED, **fields})
    return encode_record(WorkerRecord(spec=spec, status="ready", owner=owner, revision=9))


@pytest.fixture
def intruder(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[Intruder]:
    """A member that every node takes for one of them, and forgets in the end."""
    if given_addresses():
        pytest.skip("speaks this implementation's mesh protocol")
    name = f"zoe-{abs(hash(request.node.nodeid)) % 10**6}"
    targets = [node.daemon.mesh for node in fleet]
    with Intruder(name, next(iter(fleet)).cluster, targets) as intruder:
        fleet.each(partial(_takes_for_a_member, name=name), "takes it for a member")
        yield intruder
    a = next(iter(fleet))
    eventually(lambda: a.call("POST", f"/mesh/forget/{name}", {}).status in (202, 404), "it is forgotten")
    fleet.each(partial(_holds_nothing_of, owner=name), "has dropped its log")


def _takes_for_a_member(node: Node, name: str) -> bool:
    return any(row["name"] == name and row["state"] == "alive" for row in node.members())


def _holds_nothing_of(node: Node, owner: str) -> bool:
    return not node.get("/mesh/vector").get(owner, {}).get("gen")


@pytest.mark.req("SYN-7", "SYN-1")
def test_a_foreign_value_and_a_foreign_tombstone_for_a_workers_key_have_no_effect(
    fleet: Fleet, intruder: Intruder
) -> None:
    a, b, c = fleet
    id = a.register(URL, priority=5, health=UNCHECKED)
    removed = a.register(f"{URL}/removed", health=UNCHECKED)
    fleet.settle(URL, "ready")
    a.remove(removed)
    fleet.settle(f"{URL}/removed", None)
    key = worker_key(a.name, URL)
    assert key == f"worker:{id}"
    digests = {node.get("/mesh/status")["digest"] for node in fleet}
    with a.events() as on_a, b.events() as on_b, c.events() as on_c:
        streams = [opened(stream) for stream in (on_a, on_b, on_c)]
        intruder.log.append(key, _record(a.name, URL, priority=99), 1)
        intruder.log.append(worker_key(a.name, f"{URL}/removed"), _record(a.name, f"{URL}/removed"), 2)
        intruder.log.append(worker_key(a.name, f"{URL}/never"), None, 3)
        # Something of its own, by which it shows that all before has arrived.
        intruder.log.append(worker_key(intruder.name, THEIRS), _record(intruder.name, THEIRS), 4)
        intruder.publish()
        fleet.settle(THEIRS, "ready")
        for node in fleet:
            shown = [(entry["owner"], entry["visible"], entry["foreign"]) for entry in node.entries(id)]
            assert shown == [(a.name, True, False), (intruder.name, False, True)]
            assert node.get("/mesh/status")["counts"]["foreign"] == 2
            assert node.metrics()["meshd_foreign"] == 2
        intruder.log.append(key, None, 5)
        intruder.log.append(worker_key(intruder.name, THEIRS), None, 6)
        intruder.publish()
        fleet.settle(THEIRS, None)
        fleet.let_reconcile(2)
        for node in fleet:
            worker = node.worker(URL)
            assert (worker["id"], worker["owner"], worker["priority"], worker["status"]) == (
                id,
                a.name,
                5,
                "ready",
            )
            assert list(node.workers()) == [URL]
    for stream in streams:
        assert kinds_of(stream, URL) == []
        assert kinds_of(stream, f"{URL}/removed") == []
    assert {node.get("/mesh/status")["digest"] for node in fleet} == digests
    for node in fleet:
        told = [event for event in log_events(node.daemon) if event.get("event") == "foreign_entries"]
        assert {event["owner"] for event in told} == {intruder.name}
        assert told[0]["level"] == "warning"


def _shows(node: Node, url: str, id: str, priority: int) -> bool:
    worker = node.worker(url)
    return bool(worker) and (worker["id"], worker["priority"]) == (id, priority)


@pytest.mark.req("SYN-7", "SYN-5", "SYN-1")
def test_a_forged_log_of_an_owner_changes_none_of_its_workers_for_long_and_none_on_itself(
    fleet: Fleet, intruder: Intruder
) -> None:
    a, _, _ = fleet
    ids = [a.register(f"{URL}/{number}", priority=number, health=UNCHECKED) for number in range(2)]
    for number in range(2):
        fleet.settle(f"{URL}/{number}", "ready")
    newest = a.get("/mesh/vector")[a.name]["max"]
    eventually(lambda: intruder.knows(a.name).max == newest, "the intruder has heard of a's log")
    true = intruder.knows(a.name)
    with a.events() as stream:
        opened(stream)
        # It claims to have taken on all that a wrote, knows nothing of one worker, and lies about the other.
        forged = OwnerLog(a.name, (true.gen[0] + 1, 7))
        forged.lineage = {true.gen: true.max}
        forged.append(worker_key(a.name, f"{URL}/0"), _record(a.name, f"{URL}/0", priority=99), 1)
        forged.append(worker_key(a.name, f"{URL}/1"), None, 2)
        intruder.send(forged)
        eventually(lambda: not a.get("/mesh/status")["gen"].startswith(f"{true.gen[0]}."), "a moves above it")
        for number, id in enumerate(ids):
            fleet.each(partial(_shows, url=f"{URL}/{number}", id=id, priority=number), "shows what a says")
        eventually(
            lambda: len({n.get("/mesh/status")["digest"] for n in fleet}) == 1, "all hold the same map"
        )
        # The same, offered to a as a copy of its own log.
        again = OwnerLog(a.name, (true.gen[0] + 9, 8))
        again.lineage = {intruder.knows(a.name).gen: intruder.knows(a.name).max}
        again.append(worker_key(a.name, f"{URL}/0"), _record(a.name, f"{URL}/0", priority=98), 1)
        intruder.send(again, offer=True, to=[a.name])
        intruder.log.append(worker_key(intruder.name, THEIRS), _record(intruder.name, THEIRS), 4)
        intruder.publish()
        fleet.settle(THEIRS, "ready")
        fleet.let_reconcile(2)
        for number in range(2):
            fleet.settle(f"{URL}/{number}", "ready")
            assert [node.worker(f"{URL}/{number}")["priority"] for node in fleet] == [number] * 3
    assert kinds_of(stream, f"{URL}/0") == kinds_of(stream, f"{URL}/1") == []


@pytest.mark.req("SYN-11", "SYN-7")
def test_a_record_that_cannot_be_read_replaces_what_it_updated_and_stops_nothing(
    fleet: Fleet, intruder: Intruder
) -> None:
    a, _, _ = fleet
    key = worker_key(intruder.name, THEIRS)
    intruder.log.append(key, _record(intruder.name, THEIRS), 1)
    intruder.publish()
    fleet.settle(THEIRS, "ready")
    intruder.log.append(key, b"\xff no record", 2)
    intruder.publish()
    fleet.settle(THEIRS, None)
    for node in fleet:
        (entry,) = node.get(f"/mesh/store/{key}")["entries"]
        assert (entry["owner"], entry["visible"], entry["readable"]) == (intruder.name, True, False)
        assert node.get("/mesh/status")["counts"]["unreadable"] == 1
        assert node.metrics()["meshd_unreadable"] == 1
    assert len({node.get("/mesh/status")["digest"] for node in fleet}) == 1
    a.register(URL, health=UNCHECKED)
    fleet.settle(URL, "ready")
    fleet.let_reconcile(1)
    holds_for(lambda: fleet.statuses(THEIRS) == [None] * 3, 0.3, "it stays away")
    intruder.log.append(key, _record(intruder.name, THEIRS, priority=3), 3)
    intruder.publish()
    fleet.settle(THEIRS, "ready")
    assert [node.get("/mesh/status")["counts"]["unreadable"] for node in fleet] == [0, 0, 0]
