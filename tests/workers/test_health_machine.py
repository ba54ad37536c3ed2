"""The table of statuses, row by row."""

from __future__ import annotations

import random
from typing import cast

import pytest

from meshd.workers.health_machine import (
    WORST_FIRST,
    Command,
    HealthSettings,
    HealthState,
    IllegalInput,
    Status,
    cause_is_news,
    effective,
    effective_import,
    import_status,
    initial,
    on_check,
    on_command,
    worse,
)

LOCAL = HealthSettings()
IMPORT = effective_import(None, LOCAL)
OFF = HealthSettings(disabled=True)


def run(
    checks: str, state: HealthState, settings: HealthSettings = LOCAL, counts: bool = True, start: float = 0.0
) -> HealthState:
    """Apply a string of checks, S for success and F for failure, one a second from `start` + 1."""
    for number, letter in enumerate(checks, 1):
        cause = None if letter == "S" else "connection refused"
        state = on_check(state, letter == "S", cause, settings, counts, start + number)
    return state


def at(status: str) -> HealthState:
    return HealthState(cast(Status, status), 0.0)


@pytest.mark.req("LIF-1")
def test_a_worker_starts_pending_with_checks_and_ready_without() -> None:
    assert initial(LOCAL, 5.0) == HealthState("pending", 5.0)
    assert initial(OFF, 5.0) == HealthState("ready", 5.0)


@pytest.mark.req("LIF-1")
def test_the_own_setting_of_a_worker_beats_the_one_of_its_node_both_ways() -> None:
    assert not effective({"disable_health_check": False}, OFF).disabled
    assert effective({"disable_health_check": True}, LOCAL).disabled
    assert effective({}, OFF).disabled
    assert effective({"disable_health_check": None}, OFF).disabled


@pytest.mark.req("LIF-2")
@pytest.mark.parametrize(
    ("start", "checks", "end"),
    [
        ("pending", "S", "pending"),
        ("pending", "SS", "ready"),
        ("pending", "SFS", "pending"),
        ("pending", "SFSS", "ready"),
        ("ready", "FF", "ready"),
        ("ready", "FFSFF", "ready"),
        ("ready", "FFF", "not_ready"),
        ("not_ready", "S", "not_ready"),
        ("not_ready", "SFS", "not_ready"),
        ("not_ready", "SS", "ready"),
        ("not_ready", "F" * 8, "not_ready"),
        ("not_ready", "F" * 8 + "S" + "F" * 8, "not_ready"),
        ("not_ready", "F" * 9, "failed"),
        ("pending", "F" * 29, "pending"),
        ("pending", "F" * 30, "failed"),
        ("pending", "FS" * 14 + "F", "pending"),
        ("pending", "FS" * 15, "failed"),
        ("pending", "F" * 28 + "SS", "ready"),
    ],
)
def test_thresholds_move_a_local_worker(start: str, checks: str, end: str) -> None:
    assert run(checks, at(start)).status == end


@pytest.mark.req("LIF-2")
def test_thresholds_are_those_of_the_settings() -> None:
    settings = effective({"success_threshold": 1, "failure_threshold": 2}, LOCAL)
    assert run("S", at("pending"), settings).status == "ready"
    assert run("FF", at("ready"), settings).status == "not_ready"
    assert run("S", at("not_ready"), settings).status == "ready"
    assert run("F" * 6, at("not_ready"), settings).status == "failed"
    assert run("F" * 20, at("pending"), settings).status == "failed"


@pytest.mark.req("LIF-2")
def test_a_flapping_worker_fails_although_its_last_check_passed() -> None:
    state = run("FS" * 15, at("pending"))
    assert state.status == "failed"
    assert state.since == 30.0
    assert state.last_error == "connection refused"


@pytest.mark.req("LIF-2")
def test_counters_start_from_zero_after_a_transition() -> None:
    not_ready = run("FFF", at("ready"))
    assert not_ready == HealthState("not_ready", 3.0, 0, 0, 0, "connection refused")
    assert run("F" * 8, not_ready, start=3.0).status == "not_ready"
    assert run("SS", not_ready, start=3.0) == HealthState("ready", 5.0)
    assert run("SS", at("pending")) == HealthState("ready", 2.0)


@pytest.mark.req("LIF-2", "LIF-6")
def test_checks_of_the_fast_window_do_not_count_towards_the_pending_limit() -> None:
    after_window = run("F" * 200, at("pending"), counts=False)
    assert (after_window.status, after_window.checks_while_pending) == ("pending", 0)
    assert run("F" * 29, after_window).status == "pending"
    assert run("F" * 30, after_window).status == "failed"


@pytest.mark.req("LIF-2", "LIF-6")
def test_passes_of_the_fast_window_make_a_worker_ready() -> None:
    assert run("SS", at("pending"), counts=False).status == "ready"


@pytest.mark.req("LIF-3")
def test_failed_is_terminal_for_a_local_worker() -> None:
    failed = HealthState("failed", 1.0, last_error="timed out")
    assert run("S" * 50, failed) is failed
    assert run("F" * 50, failed) is failed


@pytest.mark.req("LIF-3")
def test_a_failed_local_worker_comes_back_as_pending_where_that_is_switched_on() -> None:
    settings = HealthSettings(recovers=True)
    failed = HealthState("failed", 1.0, last_error="timed out")
    assert run("FFF", failed, settings).status == "failed"
    assert run("FS", failed, settings)[:5] == ("pending", 2.0, 0, 0, 0)
    assert run("SS", failed, settings).status == "pending"
    assert run("SSS", failed, settings).status == "ready"


@pytest.mark.req("LIF-3", "SYN-5")
def test_a_failed_import_comes_back_as_pending_and_then_with_one_more_pass() -> None:
    assert run("S", at("failed"), IMPORT).status == "pending"
    assert run("SS", at("failed"), IMPORT).status == "ready"


@pytest.mark.req("SYN-5")
def test_one_pass_of_its_own_check_makes_an_import_ready_but_not_one_that_was_well_before() -> None:
    assert run("S", at("pending"), IMPORT).status == "ready"
    assert run("S", at("not_ready"), IMPORT).status == "not_ready"


@pytest.mark.req("LIF-3")
def test_checks_leave_a_draining_worker_alone() -> None:
    draining = HealthState("draining", 1.0)
    for settings in (LOCAL, IMPORT):
        assert run("FSFFFFFFFFFFFSSSS", draining, settings) is draining


@pytest.mark.req("LIF-4")
def test_a_cause_is_news_once_per_change() -> None:
    state = at("pending")
    news = []
    for cause in ("refused", "refused", None, "refused", "HTTP 503", "HTTP 503", "refused"):
        after = on_check(state, cause is None, cause, LOCAL, True, 1.0)
        news.append(cause_is_news(state, after))
        state = after
    assert news == [True, False, False, False, True, False, True]


@pytest.mark.req("LIF-4")
def test_a_cause_goes_when_the_worker_is_well() -> None:
    assert run("FSS", at("pending")).last_error is None
    assert run("FS", at("ready")).last_error is None
    assert run("FS", at("pending")).last_error == "connection refused"


def test_illegal_input_raises_and_changes_nothing() -> None:
    state = at("pending")
    for passed, cause in ((True, "why?"), (False, None), (False, "")):
        with pytest.raises(IllegalInput):
            on_check(state, passed, cause, LOCAL, True, 1.0)
    with pytest.raises(IllegalInput):
        on_check(at("healthy"), True, None, LOCAL, True, 1.0)
    with pytest.raises(IllegalInput):
        on_command(at("ready"), "undrain", LOCAL, 1.0)
    with pytest.raises(IllegalInput):
        on_command(at("ready"), cast(Command, "restart"), LOCAL, 1.0)
    with pytest.raises(IllegalInput):
        worse("ready", "unknown")
    with pytest.raises(IllegalInput):
        import_status("up", None, False)
    assert state == at("pending")


@pytest.mark.req("REG-5")
@pytest.mark.parametrize(
    ("status", "checked", "unchecked"),
    [
        ("pending", "pending", "ready"),
        ("ready", "ready", "ready"),
        ("not_ready", "not_ready", "ready"),
        ("failed", "pending", "ready"),
        ("draining", "draining", "draining"),
    ],
)
def test_a_replacement_keeps_the_status_with_the_named_exceptions(
    status: Status, checked: str, unchecked: str
) -> None:
    state = HealthState(status, 1.0, 1, 0, 4, "why")
    kept = on_command(state, "replace", LOCAL, 9.0)
    assert kept.status == checked
    assert (kept is state) == (status != "failed")
    assert on_command(state, "replace", OFF, 9.0).status == unchecked


@pytest.mark.req("LIF-9")
def test_a_drained_worker_starts_over_when_it_is_undrained() -> None:
    for status in WORST_FIRST:
        assert on_command(at(status), "drain", LOCAL, 1.0).status == "draining"
    assert on_command(at("draining"), "undrain", LOCAL, 1.0) == HealthState("pending", 1.0)
    assert on_command(at("draining"), "undrain", OFF, 1.0) == HealthState("ready", 1.0)


@pytest.mark.req("LIF-10", "SYN-5")
def test_an_import_is_checked_with_the_settings_of_this_node_at_the_path_of_the_worker() -> None:
    node = HealthSettings(check_interval_s=7.0, failure_threshold=5)
    spec = {"check_interval_secs": 1, "failure_threshold": 1, "health_path": "/ping", "future": [1]}
    settings = effective_import(spec, node)
    assert (settings.check_interval_s, settings.failure_threshold) == (7.0, 5)
    assert settings.health_path == "/ping"
    assert effective_import({"disable_health_check": True}, node).disabled


@pytest.mark.req("LIF-1")
def test_settings_of_a_wrong_type_or_out_of_range_are_refused_by_name() -> None:
    for name, value in (
        ("timeout_secs", 0),
        ("timeout_secs", float("nan")),
        ("timeout_secs", True),
        ("check_interval_secs", "10"),
        ("success_threshold", 0),
        ("failure_threshold", 1.5),
        ("disable_health_check", 1),
        ("drain_settle_secs", -1),
        ("health_path", "health"),
    ):
        with pytest.raises(IllegalInput):
            effective({name: value}, LOCAL)


@pytest.mark.req("SYN-5", "SYN-6", "LIF-10")
def test_the_status_of_an_import_is_the_worse_of_two_verdicts() -> None:
    order = ["failed", "draining", "not_ready", "pending", "ready"]
    for i, word in enumerate(order):
        for j, own in enumerate(order):
            assert worse(word, own) == order[min(i, j)]
            assert import_status(word, own, owner_down=False) == order[min(i, j)]
            assert import_status(word, own, owner_down=True) == own
        assert import_status(word, None, owner_down=False) == word
        assert import_status(word, None, owner_down=True) == word


@pytest.mark.req("LIF-2", "LIF-3")
def test_any_sequence_of_checks_keeps_to_the_thresholds() -> None:
    rng = random.Random(4)
    for _ in range(200):
        settings = HealthSettings(
            success_threshold=rng.randint(1, 3),
            failure_threshold=rng.randint(1, 4),
            pending_passes=rng.randint(1, 3),
            recovers=rng.random() < 0.5,
        )
        state, streak, pending = at("pending"), 0, 0
        last: bool | None = None
        for now in range(120):
            passed = rng.random() < 0.5
            counts = rng.random() < 0.7
            streak = streak + 1 if passed == last else 1
            last = passed
            pending += counts
            after = on_check(state, passed, None if passed else "x", settings, counts, float(now))
            expected = _model(state.status, passed, streak, pending, counts, settings)
            assert after.status == expected
            if after.status != state.status:
                streak, pending, last = 0, 0, None
            state = after


def _model(
    status: str, passed: bool, streak: int, pending: int, counts: bool, settings: HealthSettings
) -> str:
    """The requirement's sentences once more, written another way."""
    if status == "pending":
        if passed and streak >= settings.pending_passes:
            return "ready"
        return "failed" if counts and pending >= 10 * settings.failure_threshold else "pending"
    if status == "ready":
        return "not_ready" if not passed and streak >= settings.failure_threshold else "ready"
    if status == "not_ready":
        if passed and streak >= settings.success_threshold:
            return "ready"
        return "failed" if not passed and streak >= 3 * settings.failure_threshold else "not_ready"
    return "pending" if passed and settings.recovers else "failed"
