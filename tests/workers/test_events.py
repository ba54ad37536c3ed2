"""Events: their order, what they carry, and readers that fall behind."""

from __future__ import annotations

import pytest

from meshd.workers.events import HISTORY_LIMIT, QUEUE_LIMIT
from meshd.workers.health_machine import HealthSettings
from tests.support.planes import URL, Planes, spec

OTHER = "http://10.0.0.2:8000"


@pytest.mark.req("REG-7")
def test_events_come_in_order_after_the_registry_shows_the_new_state() -> None:
    planes = Planes("a")
    node = planes["a"]
    shown: list[tuple[str, object, object]] = []

    def look() -> None:
        for event in subscription.take():
            shown.append((event.kind, event.worker, node.plane.registry.by_url(URL)))

    subscription = node.plane.events.subscribe(look)
    worker = node.register()
    node.plane.replace(worker.id, spec(priority=1), None, 0)
    node.plane.drain(worker.id, 0)
    last = node.worker()
    node.plane.remove(worker.id, 0)
    assert [kind for kind, _, _ in shown] == ["registered", "replaced", "status_changed", "removed"]
    assert all(carried is present for _, carried, present in shown[:-1])
    assert shown[-1][1:] == (last, None)


@pytest.mark.req("REG-7")
def test_a_status_event_tells_the_former_status() -> None:
    planes = Planes("a", health=HealthSettings(success_threshold=1))
    planes["a"].register()
    planes.run(1)
    registered, ready = planes["a"].events()
    assert registered.kind == "registered"
    assert (ready.kind, ready.previous) == ("status_changed", "pending")
    assert ready.worker is not None
    assert ready.worker.status == "ready"


@pytest.mark.req("REG-7")
def test_a_subscriber_that_falls_behind_gets_one_resync_with_the_present_and_goes_on_from_there() -> None:
    planes = Planes("a")
    node = planes["a"]
    slow = node.plane.events.subscribe()
    worker = node.register()
    for number in range(QUEUE_LIMIT + 10):
        node.plane.patch(worker.id, {"priority": 100 + number}, None, 0)
    node.register(OTHER)
    (resync,) = slow.take()
    assert resync.kind == "resync"
    assert {known.url for known in resync.snapshot} == {URL, OTHER}
    assert resync.id == node.plane.events.last_id
    node.plane.remove(worker.id, 0)
    assert [event.kind for event in slow.take()] == ["removed"]
    assert slow.take() == []


@pytest.mark.req("REG-7")
def test_a_slow_subscriber_costs_the_others_nothing() -> None:
    planes = Planes("a")
    planes["a"].plane.events.subscribe()
    worker = planes["a"].register()
    for number in range(QUEUE_LIMIT + 10):
        planes["a"].plane.patch(worker.id, {"priority": 100 + number}, None, 0)
        assert planes["a"].kinds()[-1] in ("replaced", "registered")


@pytest.mark.req("REG-7")
def test_a_reader_that_comes_back_gets_what_it_missed_or_is_told_that_it_is_too_late() -> None:
    planes = Planes("a")
    node = planes["a"]
    worker = node.register()
    seen = node.plane.events.last_id
    node.plane.drain(worker.id, 0)
    missed = node.plane.events.since(seen)
    assert missed is not None
    assert [event.kind for event in missed] == ["status_changed"]
    assert node.plane.events.since(node.plane.events.last_id) == []
    assert node.plane.events.since(999_999) is None
    for number in range(HISTORY_LIMIT + 1):
        node.plane.patch(worker.id, {"priority": 100 + number}, None, 0)
    assert node.plane.events.since(seen) is None


def test_a_closed_subscription_gets_nothing_more() -> None:
    planes = Planes("a")
    subscription = planes["a"].plane.events.subscribe()
    subscription.close()
    subscription.close()
    planes["a"].register()
    assert subscription.take() == []
    assert len(planes["a"].plane.events) == 1
