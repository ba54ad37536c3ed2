"""Who is checked when."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from meshd.workers.health_machine import HealthSettings, Status
from meshd.workers.health_schedule import (
    RECOVER_INTERVAL_S,
    CheckRequest,
    CheckTarget,
    HealthSchedule,
    mode_for,
)

SETTINGS = HealthSettings()
TARGET = CheckTarget("http://127.0.0.1:8000", "http", "/health", 5.0, "top-secret")


def schedule(seed: int = 1) -> HealthSchedule:
    return HealthSchedule(random.Random(seed))


def drive(
    checks: HealthSchedule,
    until: float,
    took: Callable[[CheckRequest], float] = lambda _: 0.0,
    start: float = 0.0,
) -> list[tuple[float, CheckRequest]]:
    """Let every check pass after `took` seconds; return the starts in order."""
    started: list[tuple[float, CheckRequest]] = []
    flying: list[tuple[float, CheckRequest]] = []
    now = start
    while now <= until:
        for end, request in [flight for flight in flying if flight[0] <= now]:
            flying.remove((end, request))
            checks.finished(request.passed(), now)
        for request in checks.due(now, 1000):
            started.append((now, request))
            flying.append((now + took(request), request))
        times = [end for end, _ in flying]
        deadline = checks.next_deadline()
        times += [] if deadline is None else [deadline]
        if not times:
            break
        now = max(now, min(times))
    return started


@pytest.mark.req("LIF-6")
def test_a_pending_worker_is_checked_at_once_and_fast_and_then_at_intervals() -> None:
    checks = schedule()
    checks.watch("w", 1, TARGET, SETTINGS, "fast", 100.0)
    assert checks.next_deadline() == 100.0
    started = drive(checks, 160.0, start=100.0)
    fast = [at for at, request in started if request.fast]
    assert fast == [100.0 + 0.5 * n for n in range(20)]
    slow = [at for at, request in started if not request.fast]
    assert slow[0] == pytest.approx(fast[-1] + 10.0, abs=1.0)
    gaps = [b - a for a, b in pairwise(slow)]
    assert all(9.0 <= gap <= 11.0 for gap in gaps)
    assert len(set(gaps)) == len(gaps), "the interval varies"


@pytest.mark.req("LIF-6")
def test_a_healthy_worker_passes_twice_well_within_two_seconds() -> None:
    checks = schedule()
    checks.watch("w", 1, TARGET, SETTINGS, "fast", 0.0)
    started = drive(checks, 2.0, took=lambda _: 0.3)
    assert [at for at, _ in started][:2] == [0.0, 0.5]


@pytest.mark.req("LIF-6")
def test_workers_registered_together_do_not_fall_into_step() -> None:
    checks = schedule()
    for number in range(500):
        checks.watch(str(number), 1, TARGET, SETTINGS, "normal", 0.0)
    started = drive(checks, 9.99)
    per_second = [sum(1 for at, _ in started if second <= at < second + 1) for second in range(10)]
    assert min(per_second) > 25
    assert max(per_second) < 80


@pytest.mark.req("LIF-6")
def test_a_slow_worker_delays_only_itself() -> None:
    checks = schedule()
    checks.watch("slow", 1, TARGET, SETTINGS, "fast", 0.0)
    checks.watch("quick", 1, TARGET, SETTINGS, "fast", 0.0)
    started = drive(checks, 9.9, took=lambda request: 5.0 if request.id == "slow" else 0.01)
    assert [at for at, request in started if request.id == "slow"] == [0.0, 5.0]
    assert len([at for at, request in started if request.id == "quick"]) == 20


@pytest.mark.req("LIF-6")
def test_any_number_of_workers_that_answer_nothing_leaves_room_for_the_others() -> None:
    checks = HealthSchedule(random.Random(5))
    for number in range(1000):
        checks.watch(f"dead{number}", 1, TARGET, SETTINGS, "normal", 0.0)
    started: dict[str, list[float]] = {}
    flying: list[tuple[float, CheckRequest]] = []
    now = 0.0
    while now < 300.0:
        for end, request in [flight for flight in flying if flight[0] <= now]:
            flying.remove((end, request))
            checks.finished(request.passed(), now)
        if now == 100.0:
            checks.watch("well", 1, TARGET, SETTINGS, "fast", now)
        for request in checks.due(now, 128 - len(flying)):
            started.setdefault(request.id, []).append(now)
            flying.append((now + (5.0 if request.id.startswith("dead") else 0.25), request))
        assert len(flying) <= 128
        now += 0.25
    well = started["well"]
    assert well[0] == 100.0
    assert len([at for at in well if at < 110.0]) == 20
    assert max(b - a for a, b in pairwise(well)) <= 11.25
    assert all(len(started[f"dead{number}"]) >= 3 for number in range(1000)), "nor are they forgotten"


@pytest.mark.req("LIF-6")
def test_a_slow_worker_that_answers_promptly_again_is_one_of_the_others() -> None:
    checks = HealthSchedule(random.Random(5), slow_at_once=1)
    for name in ("a", "b", "c"):
        checks.watch(name, 1, TARGET, SETTINGS, "fast", 0.0)
    for request in checks.due(0.0, 10):
        checks.finished(request.failed("no answer within 5 s"), 5.0)
    (slow,) = checks.due(5.0, 10)
    assert checks.next_deadline() is None
    checks.finished(slow.passed(), 5.1)
    second = checks.due(5.6, 10)
    assert len(second) == 2
    assert slow.id in [request.id for request in second]
    checks.unwatch(next(request.id for request in second if request.id != slow.id))
    assert len(checks.due(6.0, 10)) == 1, "its room is free again"


@pytest.mark.req("LIF-6")
def test_no_more_checks_are_handed_out_than_asked_for_and_the_longest_overdue_comes_first() -> None:
    checks = schedule()
    for number in range(300):
        checks.watch(f"{number:03}", 1, TARGET, SETTINGS, "fast", float(number))
    first = checks.due(1000.0, 128)
    assert [request.id for request in first] == [f"{number:03}" for number in range(128)]
    assert checks.in_flight == 128
    assert checks.due(1000.0, 0) == []
    checks.finished(first[0].passed(), 1000.0)
    assert [request.id for request in checks.due(1000.0, 1)] == ["128"]
    assert checks.in_flight == 128


@pytest.mark.req("LIF-6")
def test_a_worker_has_one_check_in_flight() -> None:
    checks = schedule()
    checks.watch("w", 1, TARGET, SETTINGS, "fast", 0.0)
    (request,) = checks.due(0.0, 10)
    assert checks.due(1e6, 10) == []
    assert checks.next_deadline() is None
    checks.check_now("w", 3.0)
    assert checks.due(1e6, 10) == []
    assert checks.finished(request.failed("timed out"), 7.0) is request
    assert checks.next_deadline() == 7.0, "it outlasted its interval and is repeated at once"


@pytest.mark.req("LIF-3")
def test_a_failed_worker_is_checked_about_once_a_minute() -> None:
    checks = schedule()
    checks.watch("w", 1, TARGET, SETTINGS, "recover", 0.0)
    started = [at for at, _ in drive(checks, 3600.0)]
    assert started[0] >= 0.9 * RECOVER_INTERVAL_S
    gaps = [b - a for a, b in pairwise(started)]
    assert all(54.0 <= gap <= 66.0 for gap in gaps)
    assert 55 <= len(started) <= 65


@pytest.mark.req("REG-6")
def test_a_result_of_an_older_revision_is_dropped() -> None:
    checks = schedule()
    checks.watch("w", 1, TARGET, SETTINGS, "fast", 0.0)
    (old,) = checks.due(0.0, 1)
    checks.watch("w", 2, TARGET, SETTINGS, "fast", 0.1)
    assert checks.in_flight == 0
    (new,) = checks.due(0.1, 1)
    assert checks.finished(old.failed("timed out"), 0.2) is None
    assert checks.in_flight == 1
    assert checks.finished(new.passed(), 0.3) is new
    assert checks.finished(new.passed(), 0.3) is None, "a result counts once"


@pytest.mark.req("REG-6")
def test_a_result_is_dropped_when_the_worker_was_removed_and_registered_again() -> None:
    checks = schedule()
    checks.watch("w", 1, TARGET, SETTINGS, "fast", 0.0)
    (old,) = checks.due(0.0, 1)
    checks.unwatch("w")
    assert (len(checks), checks.in_flight, "w" in checks) == (0, 0, False)
    assert checks.finished(old.passed(), 0.1) is None
    checks.watch("w", 1, TARGET, SETTINGS, "fast", 0.2)
    assert checks.due(0.2, 1)
    assert checks.finished(old.passed(), 0.3) is None
    assert checks.in_flight == 1


@pytest.mark.req("REG-6")
def test_a_change_of_mode_keeps_the_check_in_flight_unless_what_is_asked_changed() -> None:
    checks = schedule()
    checks.watch("w", 1, TARGET, SETTINGS, "fast", 0.0)
    (request,) = checks.due(0.0, 1)
    checks.watch("w", 1, TARGET, SETTINGS, "normal", 0.1)
    assert checks.next_deadline() is None
    assert checks.finished(request.passed(), 0.2) is request
    deadline = checks.next_deadline()
    assert deadline is not None
    assert 9.0 <= deadline <= 11.0

    (request,) = checks.due(20.0, 1)
    other_key = CheckTarget(TARGET.url, "http", "/health", 5.0, "another")
    checks.watch("w", 1, other_key, SETTINGS, "fast", 20.1)
    assert checks.finished(request.failed("HTTP 401"), 20.2) is None
    assert [request.target for request in checks.due(20.2, 1)] == [other_key]


def test_an_unwatched_worker_is_never_due_and_unwatching_twice_is_fine() -> None:
    checks = schedule()
    checks.watch("w", 1, TARGET, SETTINGS, "fast", 0.0)
    checks.unwatch("w")
    checks.unwatch("w")
    assert checks.due(1e9, 10) == []
    assert checks.next_deadline() is None


def test_a_check_can_be_brought_forward() -> None:
    checks = schedule()
    checks.watch("w", 1, TARGET, SETTINGS, "recover", 0.0)
    checks.check_now("w", 1.0)
    checks.check_now("unknown", 1.0)
    assert [request.id for request in checks.due(1.0, 10)] == ["w"]
    assert checks.mode("w") == "recover"
    assert checks.mode("unknown") is None


def test_deadlines_that_went_stale_do_not_pile_up() -> None:
    checks = schedule()
    for number in range(10_000):
        checks.watch(str(number % 10), number, TARGET, SETTINGS, "normal", 0.0)
    assert len(checks._prompt) <= 65
    assert sorted(request.id for request in checks.due(10.0, 100)) == [str(n) for n in range(10)]


@pytest.mark.req("SEC-3")
def test_an_api_key_is_not_in_the_repr_of_a_check() -> None:
    checks = schedule()
    checks.watch("w", 1, TARGET, SETTINGS, "fast", 0.0)
    assert "top-secret" not in repr(checks.due(0.0, 1))


@pytest.mark.req("LIF-1", "LIF-3", "LIF-6")
@pytest.mark.parametrize(
    ("status", "local", "recovering", "off"),
    [
        ("pending", "fast", "fast", None),
        ("ready", "normal", "normal", None),
        ("not_ready", "normal", "normal", None),
        ("failed", None, "recover", None),
        ("draining", None, None, None),
    ],
)
def test_the_status_says_how_a_worker_is_watched(
    status: Status, local: str | None, recovering: str | None, off: str | None
) -> None:
    assert mode_for(status, SETTINGS) == local
    assert mode_for(status, HealthSettings(recovers=True)) == recovering
    assert mode_for(status, HealthSettings(disabled=True, recovers=True)) == off
