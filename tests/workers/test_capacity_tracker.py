"""The tracker follows events, and whoever watches gets the latest."""

from __future__ import annotations

import gc
import weakref

import pytest

from meshd.workers.capacity import CapacitySettings
from meshd.workers.capacity_tracker import CapacityTracker
from meshd.workers.events import QUEUE_LIMIT, EventHub
from meshd.workers.health_machine import Status
from meshd.workers.worker import Worker
from tests.support.workers import make_worker


class Fleet:
    """A registry's worth of workers with its events."""

    def __init__(self, *workers: Worker) -> None:
        self.workers = {worker.url: worker for worker in workers}
        self.hub = EventHub(self.all)

    def all(self) -> list[Worker]:
        return list(self.workers.values())

    def put(self, worker: Worker) -> None:
        known = self.workers.get(worker.url)
        self.workers[worker.url] = worker
        if known is None:
            self.hub.emit("registered", worker)
        elif known.status != worker.status:
            self.hub.emit("status_changed", worker, known.status)
        else:
            self.hub.emit("replaced", worker)

    def remove(self, url: str) -> None:
        self.hub.emit("removed", self.workers.pop(url))

    def tracker(self, settings: CapacitySettings | None = None) -> CapacityTracker:
        return CapacityTracker(self.hub, self.all, settings or CapacitySettings())


@pytest.mark.req("CAP-3")
def test_it_is_right_as_soon_as_it_exists() -> None:
    fleet = Fleet(make_worker("http://1"), make_worker("http://2", "pending"))
    assert fleet.tracker().read()[:3] == (64, "mixed", 1)


@pytest.mark.req("CAP-3")
def test_it_follows_every_change() -> None:
    fleet = Fleet()
    tracker = fleet.tracker()
    assert tracker.read()[:3] == (1024, "legacy_fallback", 0)
    fleet.put(make_worker("http://1", "pending"))
    assert tracker.read()[:3] == (1024, "legacy_fallback", 0)
    fleet.put(make_worker("http://1"))
    assert tracker.read()[:3] == (64, "mixed", 1)
    fleet.put(make_worker("http://1", labels={"max_running_requests": "8"}))
    assert tracker.read()[:3] == (8, "worker_reported", 1)
    fleet.put(make_worker("http://2", models=("m",)))
    assert tracker.read()[:3] == (72, "mixed", 2)
    fleet.remove("http://1")
    assert tracker.read()[:3] == (64, "mixed", 1)


@pytest.mark.req("CAP-3")
@pytest.mark.parametrize("status", ["not_ready", "failed", "draining", "pending"])
def test_it_shrinks_when_a_worker_stops_being_ready(status: Status) -> None:
    fleet = Fleet(make_worker("http://1"), make_worker("http://2"))
    tracker = fleet.tracker()
    fleet.put(make_worker("http://2", status))
    assert tracker.read()[:3] == (64, "mixed", 1)


@pytest.mark.req("CAP-3")
def test_after_a_resync_all_is_counted_anew() -> None:
    fleet = Fleet(make_worker("http://gone", labels={"max_running_requests": "9"}))
    tracker = fleet.tracker()
    fleet.remove("http://gone")
    for number in range(QUEUE_LIMIT + 10):
        fleet.put(make_worker(f"http://{number}", labels={"max_running_requests": "1"}))
    assert tracker.read()[:3] == (QUEUE_LIMIT + 10, "worker_reported", QUEUE_LIMIT + 10)


@pytest.mark.req("CAP-4")
def test_a_watcher_that_subscribes_after_an_unwatched_change_gets_the_latest() -> None:
    fleet = Fleet()
    tracker = fleet.tracker()
    fleet.put(make_worker("http://1"))
    watch = tracker.watch()
    latest = watch.take()
    assert latest is not None
    assert latest[:3] == (64, "mixed", 1)
    assert watch.take() is None


@pytest.mark.req("CAP-4")
def test_a_watcher_gets_only_the_newest_of_several_changes() -> None:
    fleet = Fleet()
    tracker = fleet.tracker()
    woken: list[int] = []
    watch = tracker.watch(lambda: woken.append(1))
    watch.take()
    for number in range(5):
        fleet.put(make_worker(f"http://{number}"))
    tracker.catch_up()
    assert woken == [1]
    latest = watch.take()
    assert latest is not None
    assert latest.capacity == 5 * 64
    watch.close()
    watch.close()
    fleet.remove("http://1")
    tracker.catch_up()
    assert woken == [1]


@pytest.mark.req("CAP-4")
def test_a_change_of_tier_alone_is_a_change() -> None:
    fleet = Fleet(make_worker("http://1"))
    tracker = fleet.tracker()
    watch = tracker.watch()
    watch.take()
    fleet.put(make_worker("http://1", labels={"max_running_requests": "64"}))
    latest = watch.take()
    assert latest is not None
    assert latest[:3] == (64, "worker_reported", 1)


@pytest.mark.req("CAP-4")
def test_events_that_change_nothing_wake_no_watcher() -> None:
    fleet = Fleet(make_worker("http://1"))
    tracker = fleet.tracker()
    woken: list[int] = []
    tracker.watch(lambda: woken.append(1))
    fleet.put(make_worker("http://1", revision=2))
    tracker.catch_up()
    assert woken == []
    assert tracker.recomputes == 2


@pytest.mark.req("CAP-3")
def test_settings_apply_at_once() -> None:
    tracker = Fleet(make_worker("http://1")).tracker()
    watch = tracker.watch()
    watch.take()
    tracker.apply_settings(CapacitySettings(override=3))
    assert watch.take() == (3, "override", 1, {"*": 64}, {"a": 64})


@pytest.mark.req("CAP-6")
def test_servers_are_asked_when_a_worker_becomes_ready_and_no_label_decides() -> None:
    fleet = Fleet(make_worker("http://1"), make_worker("http://2", labels={"max_running_requests": "5"}))
    tracker = fleet.tracker()
    assert [worker.url for worker in tracker.take_to_ask()] == ["http://1"]
    assert tracker.take_to_ask() == []
    fleet.put(make_worker("http://1", "not_ready"))
    tracker.read()
    assert tracker.take_to_ask() == []
    fleet.put(make_worker("http://1"))
    fleet.put(make_worker("http://3", labels={"max_num_seqs": "7"}))
    tracker.read()
    assert [worker.url for worker in tracker.take_to_ask()] == ["http://1", "http://3"]
    fleet.put(make_worker("http://3", revision=2))
    fleet.put(make_worker("http://3", "draining"))
    tracker.read()
    assert tracker.take_to_ask() == []


@pytest.mark.req("CAP-6")
def test_what_a_server_told_counts_until_the_worker_is_removed() -> None:
    worker = make_worker("http://1", labels={"max_num_seqs": "7"})
    fleet = Fleet(worker)
    tracker = fleet.tracker()
    assert tracker.read()[:2] == (7, "worker_reported")
    tracker.told(worker, 30, worker)
    assert tracker.read()[:2] == (30, "worker_reported")
    fleet.put(make_worker("http://1", "not_ready", revision=2))
    fleet.put(make_worker("http://1", revision=2))
    assert tracker.read()[:2] == (30, "worker_reported")
    tracker.told(worker, None, make_worker("http://1", revision=2))
    assert tracker.read()[:2] == (30, "worker_reported"), "said of an older revision"
    newer = make_worker("http://1", revision=2)
    tracker.told(newer, None, newer)
    assert tracker.read()[:2] == (64, "mixed")
    tracker.told(newer, 20, newer)
    fleet.remove("http://1")
    fleet.put(make_worker("http://1"))
    assert tracker.read()[:2] == (64, "mixed")
    tracker.told(newer, 20, None)
    assert tracker.read()[:2] == (64, "mixed")


@pytest.mark.req("CAP-6")
def test_a_label_that_cannot_be_used_is_warned_about_once_per_value() -> None:
    fleet = Fleet(make_worker("http://1", labels={"max_running_requests": "lots"}))
    tracker = fleet.tracker()
    assert tracker.read()[:2] == (64, "mixed")
    assert tracker.take_warnings() == [("http://1", "max_running_requests", "lots")]
    fleet.put(make_worker("http://1", labels={"max_running_requests": "lots"}, revision=2))
    tracker.read()
    assert tracker.take_warnings() == []
    fleet.put(make_worker("http://1", labels={"max_running_requests": "-1"}, revision=3))
    tracker.read()
    assert tracker.take_warnings() == [("http://1", "max_running_requests", "-1")]
    assert tracker.take_to_ask() == []


@pytest.mark.req("CAP-7")
def test_a_crash_leaves_the_last_value_readable_and_a_restart_counts_anew() -> None:
    fleet = Fleet(make_worker("http://1"))
    tracker = fleet.tracker()
    woken: list[int] = []
    tracker.notify = lambda: woken.append(1)

    def crash() -> None:
        raise RuntimeError("a watcher's mistake")

    watch = tracker.watch(crash)
    fleet.put(make_worker("http://2"))
    fleet.put(make_worker("http://3"))
    assert tracker.read().capacity in (64, 192)
    assert str(tracker.failure) == "a watcher's mistake"
    assert woken
    watch.close()
    fleet.remove("http://1")
    tracker.restart()
    assert tracker.read()[:3] == (128, "mixed", 2)
    assert len(fleet.hub) == 1, "the former life's subscription is gone"


@pytest.mark.req("CAP-7")
def test_closed_it_keeps_no_registry_alive() -> None:
    fleet = Fleet(make_worker("http://1"))
    tracker = fleet.tracker()
    assert len(fleet.hub) == 1
    tracker.close()
    assert len(fleet.hub) == 0
    gone = weakref.ref(fleet)
    del fleet
    gc.collect()
    assert gone() is None
    tracker.restart()
    assert tracker.read()[:2] == (64, "mixed")
    assert tracker.for_model("m")[:2] == (64, "mixed")
