"""A node whose disk is older than what it wrote: what peers give back counts, nothing removed returns."""

from __future__ import annotations

import pytest

from meshd.workers.health_machine import HealthSettings
from meshd.workers.model import parse_spec
from meshd.workers.record import WorkerRecord, encode_record, worker_key
from tests.support.planes import URL, Planes

KEY = worker_key("a", URL)


def record(status: str = "ready", revision: int = 1, removing: bool = False, **fields: object) -> bytes:
    spec = parse_spec({"url": URL, **fields})
    return encode_record(WorkerRecord(spec, status, "a", revision, removing=removing))


def returned() -> Planes:
    """Node `a` after a start from an older disk on which its worker still is, and a peer."""
    planes = Planes("a", "b")
    planes["a"].register()
    planes.settle()
    planes["a"].restart()
    planes.settle()
    assert planes["a"].status() == "ready"
    planes["a"].kinds()
    return planes


@pytest.mark.req("SYN-16", "CRD-4")
def test_a_worker_that_another_life_removed_goes_and_is_not_asserted_again() -> None:
    planes = returned()
    writes = len(planes["a"].store.writes)
    planes["a"].store.overrule(KEY, None)
    planes.settle()
    planes["a"].plane.mark_all(planes.now)
    planes.settle()
    assert [planes[name].status() for name in "ab"] == [None, None]
    assert planes["a"].kinds() == ["removed"]
    assert len(planes["a"].store.writes) == writes


@pytest.mark.req("SYN-9")
def test_the_next_claim_takes_over_from_it() -> None:
    planes = returned()
    planes["b"].register()
    planes.settle()
    planes["a"].store.overrule(KEY, None)
    planes.settle()
    assert (planes["a"].worker().origin, planes["a"].worker().owner) == ("mesh", "b")


@pytest.mark.req("SYN-16")
def test_a_change_that_another_life_made_is_taken_on() -> None:
    planes = returned()
    planes["a"].store.overrule(KEY, record(revision=7, priority=3))
    planes.settle()
    for name in "ab":
        worker = planes[name].worker()
        assert (worker.spec.priority, worker.revision, worker.status) == (3, 7, "ready")
    assert planes["a"].worker().is_local


@pytest.mark.req("SYN-16", "LIF-9")
def test_a_removal_that_was_draining_goes_on() -> None:
    planes = Planes("a", "b", health=HealthSettings(disabled=True, drain_settle_s=4))
    planes["a"].register()
    planes.settle()
    planes["a"].store.overrule(KEY, record("draining", removing=True))
    planes.settle()
    assert [planes[name].status() for name in "ab"] == ["draining", "draining"]
    planes.run(5)
    assert [planes[name].status() for name in "ab"] == [None, None]


@pytest.mark.req("SYN-16")
def test_only_another_status_is_not_taken_on_since_this_lifes_checks_are_newer() -> None:
    planes = returned()
    planes["a"].store.overrule(KEY, record("not_ready"))
    planes.settle()
    assert [planes[name].status() for name in "ab"] == ["ready", "ready"]


@pytest.mark.req("REG-1")
def test_a_worker_registered_again_afterwards_stays() -> None:
    planes = returned()
    planes["a"].store.overrule(KEY, None)
    planes.settle()
    planes["a"].register()
    planes["a"].plane.mark_all(planes.now)
    planes.settle()
    assert [planes[name].status() for name in "ab"] == ["ready", "ready"]


@pytest.mark.req("SYN-16", "CRD-4")
def test_a_check_that_ends_before_the_removal_is_looked_at_does_not_undo_it() -> None:
    planes = Planes("a", "b", health=HealthSettings(failure_threshold=1, drain_settle_s=0))
    planes["a"].register()
    planes.run(3)
    assert planes["a"].status() == "ready"
    planes["a"].store.overrule(KEY, None)
    planes.now += 60
    for request in planes["a"].plane.due_checks(planes.now, 10):
        planes["a"].plane.check_done(request.failed("refused"), planes.now)
    assert planes["a"].status() == "not_ready"
    planes.settle()
    assert [planes[name].status() for name in "ab"] == [None, None]


@pytest.mark.req("SYN-16", "LIF-3")
def test_a_removal_that_another_life_called_off_to_drain_alone_is_called_off() -> None:
    planes = Planes("a", "b", health=HealthSettings(disabled=True, drain_settle_s=4))
    planes["a"].register()
    planes.settle()
    planes["a"].store.overrule(KEY, record("draining", removing=True))
    planes.settle()
    planes["a"].store.overrule(KEY, record("draining"))
    planes.settle()
    planes.run(5)
    assert [planes[name].status() for name in "ab"] == ["draining", "draining"]
