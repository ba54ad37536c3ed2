"""The tracker's loop, on virtual time, with a server source that a test scripts."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog
import trio
import trio.testing

from meshd.workers.capacity import CapacitySettings
from meshd.workers.capacity_loop import rank_of, run_capacity_loop, target_of
from meshd.workers.capacity_tracker import CapacityTracker
from meshd.workers.events import EventHub
from meshd.workers.health_schedule import CheckTarget
from meshd.workers.server_info import NotAnswered, Rank
from meshd.workers.worker import Worker
from tests.support.workers import make_worker

Log = list[MutableMapping[str, Any]]


class Servers:
    """Servers that tell what the test says: a limit, None, or what to raise."""

    def __init__(self, **answers: int | Exception | None) -> None:
        self.answers: dict[str, int | Exception | None] = {
            f"http://{name}": answer for name, answer in answers.items()
        }
        self.asked: list[tuple[float, str]] = []
        self.at_once = 0
        self.most_at_once = 0

    def tells(self, target: CheckTarget) -> bool:
        return target.runtime_type != "external"

    async def max_running_requests(self, target: CheckTarget, rank: Rank = Rank()) -> int | None:  # noqa: B008  # a constant
        self.asked.append((trio.current_time(), target.url))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await trio.sleep(0.01)
        self.at_once -= 1
        answer = self.answers.get(target.url)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Fleet:
    def __init__(self, *workers: Worker) -> None:
        self.workers = {worker.url: worker for worker in workers}
        self.hub = EventHub(self.all)

    def all(self) -> list[Worker]:
        return list(self.workers.values())

    def put(self, worker: Worker) -> None:
        self.workers[worker.url] = worker
        self.hub.emit("status_changed", worker)


@pytest.fixture
def log() -> Iterator[Log]:
    with structlog.testing.capture_logs() as entries:
        yield entries


def events_of(log: Log, event: str) -> Log:
    return [entry for entry in log if entry["event"] == event]


async def start(
    nursery: trio.Nursery, fleet: Fleet, servers: Servers, settings: CapacitySettings | None = None
) -> CapacityTracker:
    tracker = CapacityTracker(fleet.hub, fleet.all, settings or CapacitySettings())
    await nursery.start(run_capacity_loop, tracker, fleet.workers.get, servers)
    return tracker


@pytest.mark.req("CAP-6")
async def test_what_a_server_tells_counts_soon(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    fleet = Fleet(make_worker("http://a"), make_worker("http://b"))
    servers = Servers(a=10, b=None)
    async with trio.open_nursery() as nursery:
        tracker = await start(nursery, fleet, servers)
        watch = tracker.watch()
        await trio.sleep(0.1)
        assert tracker.read()[:2] == (74, "mixed")
        servers.answers["http://b"] = 5
        fleet.put(make_worker("http://b", "not_ready"))
        fleet.put(make_worker("http://b"))
        await trio.sleep(0.1)
        assert tracker.read()[:2] == (15, "worker_reported")
        latest = watch.take()
        assert latest is not None
        assert latest.capacity == 15
        nursery.cancel_scope.cancel()


@pytest.mark.req("CAP-6")
async def test_only_workers_that_gave_a_sign_of_telling_are_asked(
    autojump_clock: trio.testing.MockClock, log: Log
) -> None:
    fleet = Fleet(
        make_worker("http://never-seen", checks_passed=0),
        make_worker("http://named", checks_passed=0, runtime="vllm"),
        make_worker("http://cloud", runtime="external"),
        make_worker("http://labelled", labels={"max_running_requests": "nonsense"}),
    )
    servers = Servers()
    async with trio.open_nursery() as nursery:
        await start(nursery, fleet, servers)
        await trio.sleep(1000)
        nursery.cancel_scope.cancel()
    assert [url for _, url in servers.asked] == ["http://named"]
    (warning,) = events_of(log, "worker_label_unusable")
    assert (warning["url"], warning["value"]) == ("http://labelled", "nonsense")


@pytest.mark.req("CAP-6")
async def test_a_server_that_does_not_answer_is_asked_again_and_then_left_alone(
    autojump_clock: trio.testing.MockClock, log: Log
) -> None:
    fleet = Fleet(make_worker("http://a"))
    servers = Servers(a=NotAnswered("connection refused"))
    async with trio.open_nursery() as nursery:
        await start(nursery, fleet, servers)
        await trio.sleep(10_000)
        assert [round(at) for at, _ in servers.asked] == [0, 5, 35, 335]
        fleet.put(make_worker("http://a", "not_ready"))
        fleet.put(make_worker("http://a"))
        await trio.sleep(1)
        assert len(servers.asked) == 5
        fleet.workers.clear()
        await trio.sleep(1000)
        assert len(servers.asked) == 6, "a worker that is gone is not asked for ever"
        nursery.cancel_scope.cancel()


@pytest.mark.req("CAP-6")
async def test_a_worker_replaced_while_its_server_is_asked_is_asked_again(
    autojump_clock: trio.testing.MockClock, log: Log
) -> None:
    fleet = Fleet(make_worker("http://a"))
    servers = Servers(a=10)
    async with trio.open_nursery() as nursery:
        tracker = await start(nursery, fleet, servers)
        await trio.sleep(0.005)
        fleet.put(make_worker("http://a", revision=2))
        await trio.sleep(1)
        assert len(servers.asked) == 2
        assert tracker.read()[:2] == (10, "worker_reported")
        nursery.cancel_scope.cancel()


@pytest.mark.req("CAP-6")
async def test_few_servers_are_asked_at_once(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    fleet = Fleet(*(make_worker(f"http://{number}") for number in range(100)))
    servers = Servers()
    async with trio.open_nursery() as nursery:
        await start(nursery, fleet, servers)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert len(servers.asked) == 100
    assert servers.most_at_once == 8


@pytest.mark.req("CAP-4")
async def test_a_change_of_tier_is_logged_at_once_and_changes_of_value_at_most_once_a_second(
    autojump_clock: trio.testing.MockClock, log: Log
) -> None:
    fleet = Fleet()
    async with trio.open_nursery() as nursery:
        await start(nursery, fleet, Servers())
        await trio.sleep(0.1)
        for number in range(50):
            fleet.put(make_worker(f"http://{number}"))
            await trio.sleep(0.001)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    shown = [(entry["capacity"], entry["source"]) for entry in events_of(log, "capacity_changed")]
    assert shown == [(1024, "legacy_fallback"), (64, "mixed"), (3200, "mixed")]


@pytest.mark.req("CAP-3", "CAP-4")
async def test_in_a_burst_watchers_are_told_now_and_then_and_readers_at_any_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    fleet = Fleet()
    async with trio.open_nursery() as nursery:
        tracker = await start(nursery, fleet, Servers())
        await trio.sleep(0.1)
        told: list[float] = []
        watch = tracker.watch(lambda: told.append(trio.current_time()))
        for number in range(50):
            fleet.put(make_worker(f"http://{number}"))
            await trio.sleep(0.001)
        await trio.sleep(0.1)
        assert 2 <= len(told) <= 4
        latest = watch.take()
        assert latest is not None
        assert latest.workers_available == 50
        fleet.put(make_worker("http://late"))
        assert tracker.read().workers_available == 51
        nursery.cancel_scope.cancel()


@pytest.mark.req("CAP-4")
async def test_a_change_of_tier_alone_is_logged(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    fleet = Fleet(make_worker("http://a"))
    async with trio.open_nursery() as nursery:
        await start(nursery, fleet, Servers())
        await trio.sleep(0.1)
        fleet.put(make_worker("http://a", labels={"max_running_requests": "64"}))
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    last = events_of(log, "capacity_changed")[-1]
    assert (last["capacity"], last["source"]) == (64, "worker_reported")
    assert (last["previous"], last["previous_source"]) == (64, "mixed")


@pytest.mark.req("CAP-7")
async def test_a_crash_inside_the_tracker_is_logged_and_mended_after_a_second(
    autojump_clock: trio.testing.MockClock, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(make_worker("http://a"))
    async with trio.open_nursery() as nursery:
        tracker = await start(nursery, fleet, Servers())
        await trio.sleep(0.1)

        def crash() -> None:
            raise RuntimeError("the sum does not add up")

        with monkeypatch.context() as patch:
            patch.setattr(tracker, "_publish", crash)
            fleet.put(make_worker("http://b"))
            await trio.sleep(0.1)
        fleet.put(make_worker("http://c"))
        assert tracker.read().capacity == 64, "still the last one known"
        await trio.sleep(1.1)
        assert tracker.read()[:2] == (192, "mixed")
        fleet.put(make_worker("http://d"))
        await trio.sleep(0.1)
        assert tracker.read()[:2] == (256, "mixed")
        nursery.cancel_scope.cancel()
    (entry,) = events_of(log, "capacity_tracker_crashed")
    assert "the sum does not add up" in repr(entry["exc_info"])
    assert entry["log_level"] == "error"


@pytest.mark.req("CAP-7")
async def test_a_tracker_that_cannot_even_restart_goes_on_trying(
    autojump_clock: trio.testing.MockClock, log: Log
) -> None:
    fleet = Fleet(make_worker("http://a"))
    broken = False

    def workers() -> list[Worker]:
        if broken:
            raise RuntimeError("no list today")
        return fleet.all()

    async with trio.open_nursery() as nursery:
        tracker = CapacityTracker(fleet.hub, workers, CapacitySettings())
        await nursery.start(run_capacity_loop, tracker, fleet.workers.get, Servers())
        broken = True
        tracker.failure = RuntimeError("first crash")
        tracker.notify()
        await trio.sleep(5)
        assert len(events_of(log, "capacity_tracker_crashed")) >= 3
        broken = False
        fleet.put(make_worker("http://b"))
        await trio.sleep(2)
        assert tracker.read()[:2] == (128, "mixed")
        nursery.cancel_scope.cancel()


@pytest.mark.req("CAP-7")
async def test_one_odd_server_does_not_crash_the_tracker(
    autojump_clock: trio.testing.MockClock, log: Log
) -> None:
    fleet = Fleet(make_worker("http://a"), make_worker("http://b"))
    servers = Servers(a=ValueError("odd"), b=5)
    async with trio.open_nursery() as nursery:
        tracker = await start(nursery, fleet, servers)
        await trio.sleep(5)
        assert tracker.read()[:2] == (69, "mixed")
        nursery.cancel_scope.cancel()
    assert len(events_of(log, "server_info_crashed")) == 1
    assert events_of(log, "capacity_tracker_crashed") == []


@pytest.mark.req("CAP-7")
async def test_a_loop_that_ended_keeps_no_registry_alive(
    autojump_clock: trio.testing.MockClock, log: Log
) -> None:
    fleet = Fleet(make_worker("http://a"))
    async with trio.open_nursery() as nursery:
        tracker = await start(nursery, fleet, Servers())
        nursery.cancel_scope.cancel()
    gone = weakref.ref(fleet)
    del fleet, nursery
    gc.collect()
    assert gone() is None
    assert tracker.read().capacity == 64


def test_a_rank_is_asked_at_the_address_of_its_server() -> None:
    worker = make_worker("http://a:1@3")
    assert target_of(worker).url == "http://a:1@3"
    assert target_of(worker).scheme == "http"
    assert rank_of(worker) == Rank(3, None)
    assert rank_of(make_worker("http://a:1")) == Rank(None, None)
    assert rank_of(make_worker("ipc://@3")) == Rank(None, None)
