"""What a health check does to a worker: the five statuses and the table of moves between them.

Owns: the statuses, the thresholds in force for one worker, and the health state of one worker.
Rules it keeps: LIF-1 (where a worker starts), LIF-2 (thresholds), LIF-3 (`failed` and `draining`),
LIF-4 (when a cause is news), REG-5 (what a replacement does), SYN-5 (an import's two verdicts).

Everything here is pure. A move is looked up in a table; input that the table does not know raises
`IllegalInput`, and since states are immutable, nothing has changed then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, cast

if TYPE_CHECKING:
    from meshd.config import HealthConfig

Status = Literal["pending", "ready", "not_ready", "failed", "draining"]

WORST_FIRST: Final[tuple[Status, ...]] = ("failed", "draining", "not_ready", "pending", "ready")
"""All statuses, the worst first; only `ready` is routable."""

FAILED_AFTER: Final = 3
"""`not_ready` becomes `failed` after this many times the failure threshold."""

PENDING_LIMIT: Final = 10
"""`pending` becomes `failed` after this many times the failure threshold, in counted checks."""


class IllegalInput(ValueError):
    """A caller's mistake: an unknown status, a failure without cause, a command out of place.

    Nothing was changed.
    """


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """The settings in force for one worker (its own over the node's). Raises `IllegalInput` out of range."""

    success_threshold: int = 2
    """Consecutive passes that make a worker `ready`; >= 1."""
    failure_threshold: int = 3
    """Consecutive failures that take a `ready` worker out of rotation; >= 1."""
    check_interval_s: float = 10.0
    """Seconds between the starts of two checks, once the fast window is over; > 0."""
    timeout_s: float = 5.0
    """Seconds that one check may take from connecting to the last byte it needs; > 0."""
    health_path: str = "/health"
    """Path asked over HTTP; starts with a slash."""
    disabled: bool = False
    """No checks: the worker counts as `ready` without."""
    drain_settle_s: float = 5.0
    """Seconds between draining and removal; 0 removes at once."""
    fast_interval_s: float = 0.5
    """Seconds between checks while the fast window lasts; > 0."""
    fast_window_s: float = 10.0
    """Seconds, from the moment a worker is `pending`, during which checks are fast and count for nothing."""
    pending_passes: int = 2
    """Consecutive passes that take a worker out of `pending`: the success threshold, or 1 for an import."""
    recovers: bool = False
    """Whether a `failed` worker is still checked, and comes back as `pending` on a pass."""

    def __post_init__(self) -> None:
        """Refuse values with which the machine could never move, or the schedule would spin."""
        for name in ("success_threshold", "failure_threshold", "pending_passes"):
            if getattr(self, name) < 1:
                raise IllegalInput(f"{name} must be at least 1")
        for name in ("check_interval_s", "timeout_s", "fast_interval_s"):
            if not getattr(self, name) > 0:
                raise IllegalInput(f"{name} must be greater than 0")
        for name in ("drain_settle_s", "fast_window_s"):
            if not getattr(self, name) >= 0:
                raise IllegalInput(f"{name} must not be negative")
        if not self.health_path.startswith("/"):
            raise IllegalInput("health_path must start with /")


def node_settings(health: HealthConfig) -> HealthSettings:
    """Return the node's settings, as they hold for a worker that says nothing itself."""
    return HealthSettings(
        success_threshold=health.success_threshold,
        failure_threshold=health.failure_threshold,
        check_interval_s=health.check_interval_secs,
        timeout_s=health.timeout_secs,
        health_path=health.health_path,
        disabled=health.disable_health_check,
        drain_settle_s=health.drain_settle_secs,
        fast_interval_s=health.fast_interval_s,
        fast_window_s=health.fast_window_s,
        pending_passes=health.success_threshold,
        recovers=health.recover_failed_workers,
    )


_FIELDS: Final[Mapping[str, tuple[str, type]]] = {
    "timeout_secs": ("timeout_s", float),
    "check_interval_secs": ("check_interval_s", float),
    "success_threshold": ("success_threshold", int),
    "failure_threshold": ("failure_threshold", int),
    "disable_health_check": ("disabled", bool),
    "drain_settle_secs": ("drain_settle_s", float),
    "health_path": ("health_path", str),
}


def effective(worker_health: Mapping[str, object] | None, node: HealthSettings) -> HealthSettings:
    """Return the settings in force for a local worker: what its spec's `health` gives beats the node's.

    Absent and null members take the node's value; members unknown here are left alone.
    Raises `IllegalInput` for a value of the wrong type or out of range.
    """
    changes: dict[str, object] = {}
    for name, value in (worker_health or {}).items():
        if value is None or name not in _FIELDS:
            continue
        field, kind = _FIELDS[name]
        changes[field] = _typed(name, value, kind)
    if not changes:
        return node
    changes["pending_passes"] = changes.get("success_threshold", node.success_threshold)
    return replace(node, **changes)  # type: ignore[arg-type]  # each value was matched to its field's type above


def effective_import(worker_health: Mapping[str, object] | None, node: HealthSettings) -> HealthSettings:
    """Return the settings with which this node checks an import (LIF-10, SYN-5).

    How often, how long and how many are this node's choice; where to ask, and whether the worker can
    be asked at all, only its spec knows. One pass makes it `ready`, and `failed` is no grave.
    """
    own = effective(worker_health, node)
    return replace(node, health_path=own.health_path, disabled=own.disabled, pending_passes=1, recovers=True)


def _typed(name: str, value: object, kind: type) -> object:
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, bool):
        raise IllegalInput(f"{name} must be a number")
    if not isinstance(value, kind):
        raise IllegalInput(f"{name} must be a {kind.__name__}")
    return value


class HealthState(NamedTuple):
    """The health of one worker as this node sees it."""

    status: Status
    since: float
    """Monotonic seconds at which the status was taken on."""
    passes: int = 0
    """Consecutive passes since the last failure or transition."""
    failures: int = 0
    """Consecutive failures since the last pass or transition."""
    checks_while_pending: int = 0
    """Checks counted towards the pending limit; those of the fast window are not."""
    last_error: str | None = None
    """Cause of the last failure, kept until the worker is well again."""


def initial(settings: HealthSettings, now: float) -> HealthState:
    """Return the state in which a worker starts: `pending`, or `ready` where nobody will check it."""
    return HealthState("ready" if settings.disabled else "pending", now)


# --- checks ---------------------------------------------------------------------------------------


class _Move(NamedTuple):
    """Go to `target` once the streak of like outcomes reaches `needed`."""

    target: Status
    needed: Callable[[HealthSettings], int]
    allowed: Callable[[HealthSettings], bool] = lambda _: True


_STAY: Final = None
_CHECKS: Final[Mapping[tuple[Status, bool], _Move | None]] = {
    # (status, passed)
    ("pending", True): _Move("ready", lambda s: s.pending_passes),
    ("pending", False): _STAY,  # only the pending limit ends it
    ("ready", True): _STAY,
    ("ready", False): _Move("not_ready", lambda s: s.failure_threshold),
    ("not_ready", True): _Move("ready", lambda s: s.success_threshold),
    ("not_ready", False): _Move("failed", lambda s: FAILED_AFTER * s.failure_threshold),
    ("failed", True): _Move("pending", lambda _: 1, allowed=lambda s: s.recovers),
    ("failed", False): _STAY,
    ("draining", True): _STAY,
    ("draining", False): _STAY,
}


def on_check(
    state: HealthState,
    passed: bool,
    cause: str | None,
    settings: HealthSettings,
    counts_for_pending: bool,
    now: float,
) -> HealthState:
    """Return the state after one finished check.

    `cause` says why it failed and is None for a pass. `counts_for_pending` is False for checks of the
    fast window. `draining` is left alone, and so is `failed` unless the settings let it recover.
    Raises `IllegalInput` if outcome and cause contradict each other or the status is unknown.
    """
    if passed != (cause is None) or cause == "":
        raise IllegalInput("a failed check needs a cause, and a passed one has none")
    try:
        move = _CHECKS[state.status, passed]
    except KeyError:
        raise IllegalInput(f"unknown status {state.status!r}") from None
    if state.status == "draining" or (state.status == "failed" and not settings.recovers):
        return state
    if passed:
        state = state._replace(passes=state.passes + 1, failures=0)
        streak = state.passes
    else:
        state = state._replace(passes=0, failures=state.failures + 1, last_error=cause)
        streak = state.failures
    if state.status == "pending" and counts_for_pending:
        state = state._replace(checks_while_pending=state.checks_while_pending + 1)

    if move is not None and move.allowed(settings) and streak >= move.needed(settings):
        return _enter(state, move.target, now)
    if (
        state.status == "pending"
        and counts_for_pending
        and state.checks_while_pending >= PENDING_LIMIT * settings.failure_threshold
    ):
        return _enter(state, "failed", now)
    if state.status == "ready" and passed:
        return state._replace(last_error=None)
    return state


def _enter(state: HealthState, status: Status, now: float) -> HealthState:
    """Take on a status with all counters at zero; the cause goes once the worker is well."""
    return HealthState(status, now, last_error=None if status == "ready" else state.last_error)


def cause_is_news(before: HealthState, after: HealthState) -> bool:
    """Whether the step brought a cause that has not been logged yet (LIF-4: once per change of cause)."""
    return after.last_error is not None and after.last_error != before.last_error


# --- commands -------------------------------------------------------------------------------------

Command = Literal["replace", "drain", "undrain"]

_KEEP: Final = "keep"  # the state stays as it is, counters and since included
_START: Final = "start"  # start over: pending, or ready where nobody checks
_READY_IF_OFF: Final = "ready_if_off"  # ready if checks are now off, else keep
_DRAIN: Final = "drain"

_COMMANDS: Final[Mapping[tuple[Status, Command], str]] = {
    ("pending", "replace"): _READY_IF_OFF,
    ("ready", "replace"): _KEEP,
    ("not_ready", "replace"): _READY_IF_OFF,
    ("failed", "replace"): _START,
    ("draining", "replace"): _KEEP,
    ("pending", "drain"): _DRAIN,
    ("ready", "drain"): _DRAIN,
    ("not_ready", "drain"): _DRAIN,
    ("failed", "drain"): _DRAIN,
    ("draining", "drain"): _KEEP,
    ("draining", "undrain"): _START,
}


def on_command(state: HealthState, command: Command, settings: HealthSettings, now: float) -> HealthState:
    """Return the state after an operator's command; `settings` are those in force after it.

    `replace`: a failed worker starts over; switching checks off makes a pending, not_ready or failed one
    ready; all else stays (REG-5). `undrain` starts over, since nobody watched meanwhile; it is illegal
    for a worker that does not drain. Raises `IllegalInput`.
    """
    match _COMMANDS.get((state.status, command)):
        case "keep":
            return state
        case "start":
            return initial(settings, now)
        case "ready_if_off":
            return HealthState("ready", now) if settings.disabled else state
        case "drain":
            return _enter(state, "draining", now)
    raise IllegalInput(f"{command!r} is not possible for a worker that is {state.status}")


# --- two verdicts ---------------------------------------------------------------------------------


def worse(owner_word: str, own: str) -> Status:
    """Return the worse of two statuses. Raises `IllegalInput` for an unknown one."""
    for status in (owner_word, own):
        if status not in WORST_FIRST:
            raise IllegalInput(f"unknown status {status!r}")
    return min(cast(Status, owner_word), cast(Status, own), key=WORST_FIRST.index)


def import_status(owner_word: str, own: str | None, owner_down: bool) -> Status:
    """Return an import's status from its owner's word and this node's own checks (SYN-5).

    `own` is None where the import is not checked here: then the owner's (last) word alone counts.
    While the owner is down its word is stale, and own checks alone count.
    """
    if own is None:
        return worse(owner_word, owner_word)
    return worse(own, own) if owner_down else worse(owner_word, own)
