"""The loop of health checks, on virtual time, with checkers that a test scripts."""

from __future__ import annotations

import random
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog
import trio
import trio.testing

from meshd.workers.health_loop import HealthLoop
from meshd.workers.health_machine import HealthSettings
from meshd.workers.health_schedule import CheckRequest, CheckResult, CheckTarget, HealthSchedule, Mode

Log = list[MutableMapping[str, Any]]


class Plane:
    """A schedule, and the results in order of arrival."""

    def __init__(self) -> None:
        self.schedule = HealthSchedule(random.Random(2))
        self.results: list[tuple[float, CheckResult]] = []
        self.refuses: set[str] = set()

    def watch(self, name: str, mode: Mode = "fast", timeout_s: float = 5.0, scheme: str = "http") -> None:
        target = CheckTarget(f"{scheme}://{name}", scheme, "/health", timeout_s)
        self.schedule.watch(name, 1, target, HealthSettings(), mode, trio.current_time())

    def due_checks(self, now: float, limit: int) -> list[CheckRequest]:
        return self.schedule.due(now, limit)

    def next_check(self) -> float | None:
        return self.schedule.next_deadline()

    def check_done(self, result: CheckResult, now: float) -> None:
        self.schedule.finished(result, now)
        self.results.append((now, result))
        if result.id in self.refuses:
            raise RuntimeError("the plane has a fault with this one")

    def of(self, name: str) -> list[tuple[float, bool, str | None]]:
        return [(at, result.passed, result.cause) for at, result in self.results if result.id == name]


class Scripted:
    """A checker that takes a time per host, or raises."""

    def __init__(self) -> None:
        self.takes_s: dict[str, float] = {}
        self.raises: set[str] = set()
        self.at_once = 0
        self.most_at_once = 0
        self.closed = 0

    def close(self) -> None:
        self.closed += 1

    async def check(self, target: CheckTarget) -> str | None:
        name = target.url.partition("://")[2]
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if name in self.raises:
                raise ValueError("a bug")
            await trio.sleep(self.takes_s.get(name, 0.01))
        finally:
            self.at_once -= 1
        return None


@pytest.fixture
def log() -> Iterator[Log]:
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.mark.req("LIF-6")
async def test_a_new_worker_is_checked_at_once_when_the_loop_is_woken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    plane, checker = Plane(), Scripted()
    loop = HealthLoop(plane, {"http": checker})
    async with trio.open_nursery() as nursery:
        await nursery.start(loop.run)
        await trio.sleep(3.0)
        started = trio.current_time()
        plane.watch("w")
        loop.wake()
        await trio.sleep(1.9)
        assert [round(at - started, 2) for at, _, _ in plane.of("w")] == [0.01, 0.51, 1.01, 1.51]
        nursery.cancel_scope.cancel()


@pytest.mark.req("LIF-6")
async def test_at_most_128_checks_run_at_once_and_all_get_their_turn(
    autojump_clock: trio.testing.MockClock,
) -> None:
    plane, checker = Plane(), Scripted()
    for number in range(1000):
        plane.watch(f"w{number}")
        checker.takes_s[f"w{number}"] = 1.0
    loop = HealthLoop(plane, {"http": checker})
    async with trio.open_nursery() as nursery:
        await nursery.start(loop.run)
        await trio.sleep(0.5)
        assert loop.in_flight == 128
        await trio.sleep(8.0)
        nursery.cancel_scope.cancel()
    assert checker.most_at_once == 128
    assert {result.id for _, result in plane.results} == {f"w{number}" for number in range(1000)}


@pytest.mark.req("LIF-6")
async def test_slow_workers_delay_no_other(autojump_clock: trio.testing.MockClock) -> None:
    plane, checker = Plane(), Scripted()
    for number in range(100):
        plane.watch(f"slow{number}", timeout_s=60.0)
        checker.takes_s[f"slow{number}"] = 50.0
    plane.watch("quick")
    loop = HealthLoop(plane, {"http": checker})
    async with trio.open_nursery() as nursery:
        await nursery.start(loop.run)
        await trio.sleep(9.9)
        nursery.cancel_scope.cancel()
    assert len(plane.of("quick")) == 20
    assert (loop.in_flight, checker.closed) == (0, 1)


@pytest.mark.req("LIF-4")
async def test_a_checker_that_crashes_or_overruns_is_a_failed_check_of_one_worker(
    autojump_clock: trio.testing.MockClock, log: Log
) -> None:
    plane, checker = Plane(), Scripted()
    checker.raises.add("bug")
    checker.takes_s["stuck"] = 1e9
    for name in ("bug", "stuck", "well"):
        plane.watch(name, timeout_s=1.0)
    plane.watch("odd", scheme="gopher")
    loop = HealthLoop(plane, {"http": checker})
    async with trio.open_nursery() as nursery:
        await nursery.start(loop.run)
        await trio.sleep(5.0)
        nursery.cancel_scope.cancel()
    assert plane.of("bug")[0][1:] == (False, "the check itself failed: ValueError")
    assert plane.of("stuck")[0][1:] == (False, "no answer within 1 s")
    assert plane.of("odd")[0][1:] == (False, "gopher:// workers cannot be checked")
    assert all(passed for _, passed, _ in plane.of("well"))
    assert [entry["log_level"] for entry in log if entry["event"] == "health_checker_crashed"][:1] == [
        "error"
    ]


async def test_a_result_that_the_plane_cannot_take_ends_no_other_checks(
    autojump_clock: trio.testing.MockClock, log: Log
) -> None:
    plane, checker = Plane(), Scripted()
    plane.refuses.add("poison")
    plane.watch("poison")
    plane.watch("well")
    loop = HealthLoop(plane, {"http": checker})
    async with trio.open_nursery() as nursery:
        await nursery.start(loop.run)
        await trio.sleep(5.0)
        nursery.cancel_scope.cancel()
    assert len(plane.of("well")) == 10
    assert loop.in_flight == 0
    refused = [entry["worker_id"] for entry in log if entry["event"] == "health_result_not_taken"]
    assert set(refused) == {"poison"}


async def test_a_loop_without_work_sleeps(autojump_clock: trio.testing.MockClock) -> None:
    plane = Plane()
    asked = 0

    def due_checks(now: float, limit: int) -> list[CheckRequest]:
        nonlocal asked
        asked += 1
        return []

    plane.due_checks = due_checks  # type: ignore[method-assign]  # counts how often the loop turns
    loop = HealthLoop(plane, {})
    async with trio.open_nursery() as nursery:
        await nursery.start(loop.run)
        await trio.sleep(1000)
        nursery.cancel_scope.cancel()
    assert asked == 1
