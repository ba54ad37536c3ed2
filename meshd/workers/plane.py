"""The worker plane: registry, sync, health and capacity composed, without I/O.

Owns nothing but the composition: trio loops, the API and the simulator all drive this one object. Rules it
keeps: every call is synchronous and leaves the plane whole; the time is given; work that may be long (`step`)
is done in slices. Who drives it calls `tick` when `next_deadline` has come, `step` while it says that work is
left, makes the checks of `due_checks` and brings their results to `check_done`, and is told of all new work
by `wake`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec

from meshd.workers.commands import Commands
from meshd.workers.core import Core, Notice, PlaneSettings
from meshd.workers.events import EventHub
from meshd.workers.health_machine import cause_is_news, on_check
from meshd.workers.health_schedule import CheckRequest, CheckResult
from meshd.workers.model import WorkerSpec
from meshd.workers.publishing import Counters, Sealer
from meshd.workers.record import PREFIX
from meshd.workers.registry import Registry
from meshd.workers.store_view import MemoryMeta, Meta, Store
from meshd.workers.sync import ReconcileStats, Sync, Unreadable
from meshd.workers.why import explain_url
from meshd.workers.worker import Worker

if TYPE_CHECKING:
    import random

AT_ONCE: Final = 16
"""Keys that `take_in` looks at within the call; some 50 us each."""


class WorkerPlane:
    """All that this node knows of workers, and may do with them. Times are monotonic seconds."""

    def __init__(
        self,
        settings: PlaneSettings,
        store: Store,
        rng: random.Random,
        now: float,
        *,
        meta: Meta | None = None,
        sealer: Sealer | None = None,
    ) -> None:
        self._core = Core(settings, store, MemoryMeta() if meta is None else meta, rng, sealer)
        self._sync = Sync(self._core, now)
        self._commands = Commands(self._core, self._sync)
        self._sync.restore_unpublished(now)
        self._sync.mark(store.visible_keys(PREFIX))

    # --- reading ------------------------------------------------------------------------------------

    @property
    def registry(self) -> Registry:
        """The workers that are served; only the plane changes it."""
        return self._core.registry

    @property
    def events(self) -> EventHub:
        """Events about workers."""
        return self._core.events

    @property
    def settings(self) -> PlaneSettings:
        """The settings in force."""
        return self._core.settings

    @property
    def node_name(self) -> str:
        """This node's name."""
        return self._core.node

    @property
    def counters(self) -> Counters:
        """What was written to the store so far."""
        return self._core.publisher.counters

    @property
    def reconcile_stats(self) -> ReconcileStats:
        """What reconcile passes found and cost."""
        return self._sync.stats

    @property
    def unreadable(self) -> dict[str, Unreadable]:
        """Worker keys whose entry counts and cannot be read, with the reason."""
        return self._sync.unreadable

    def explain_url(self, url: str, now: float) -> dict[str, object]:
        """Say why a URL is or is not routable here; see `why`. Raises BadRequest for a URL that is none."""
        return explain_url(self._core, url, now)

    # --- hooks --------------------------------------------------------------------------------------

    def on_wake(self, wake: Callable[[], None]) -> None:
        """Have `wake` called, too, whenever there may be something new to do. It must not block or raise."""
        before = self._core.wake

        def both() -> None:
            before()
            wake()

        self._core.wake = both

    def on_notice(self, notice: Notice) -> None:
        """Have `notice(level, event, fields)` called with what should be logged."""
        self._core.notice = notice

    # --- commands -----------------------------------------------------------------------------------

    def register(self, spec: WorkerSpec, now: float) -> Worker:
        """Register a new local worker, or claim an imported URL. See `Commands.register`."""
        return self._commands.register(spec, now)

    def register_or_replace(self, spec: WorkerSpec, now: float) -> Worker:
        """Register, or replace if the spec differs. See `Commands.register_or_replace`."""
        return self._commands.register_or_replace(spec, now)

    def replace(self, id: str, spec: WorkerSpec, if_match: int | None, now: float) -> Worker:
        """Overwrite a local worker. See `Commands.replace`."""
        return self._commands.replace(id, spec, if_match, now)

    def patch(self, id: str, patch: object, if_match: int | None, now: float) -> Worker:
        """Change some fields of a local worker. See `Commands.patch`."""
        return self._commands.patch(id, patch, if_match, now)

    def remove(self, id: str, now: float, drain: bool = True) -> None:
        """Drain a local worker, then remove it. See `Commands.remove`."""
        self._commands.remove(id, now, drain)

    def drain(self, id: str, now: float) -> Worker:
        """Take a local worker out of rotation everywhere. See `Commands.drain`."""
        return self._commands.drain(id, now)

    def undrain(self, id: str, now: float) -> Worker:
        """Bring a draining worker back. See `Commands.undrain`."""
        return self._commands.undrain(id, now)

    def withdraw(self) -> None:
        """Tombstone all own workers and publish nothing from now on: this node leaves (SYN-14)."""
        core = self._core
        core.publisher.leaving = True
        for worker in list(core.registry):
            if worker.is_local:
                core.publisher.withdraw(worker)

    def rejoin(self, now: float) -> None:
        """Publish again after a withdrawal."""
        self._core.publisher.leaving = False
        self._sync.mark_everything()

    def reconfigure(self, settings: PlaneSettings, now: float, *, sealer: Sealer | None = None) -> None:
        """Take on other settings and secrets; every worker and its checks are brought in line with them."""
        self._core.publisher.sealer = sealer
        self._core.apply_settings(settings)
        self._sync.settings_changed()

    # --- sync ---------------------------------------------------------------------------------------

    def keys_changed(self, keys: Iterable[str], now: float) -> None:
        """The visible entries of these keys changed: look at them."""
        self._sync.mark(keys)

    def take_in(self, keys: tuple[str, ...], now: float) -> bool:
        """As `keys_changed`; a few keys are looked at at once, unless others wait. Returns whether any wait.

        So a worker is visible here as soon as its record has arrived, and ten thousand hold nothing up.
        """
        busy = self._sync.has_news
        self._sync.mark(keys)
        if not busy and len(keys) <= AT_ONCE:
            self._sync.step_news(now, AT_ONCE)
        return self._sync.has_news

    def owner_changed(self, owner: str, now: float) -> None:
        """A member's state changed: judge its workers anew."""
        self._sync.mark_owner(owner)

    def mark_all(self, now: float) -> None:
        """Start a reconcile pass (SYN-10)."""
        self._sync.begin_sweep()

    @property
    def has_news(self) -> bool:
        """Whether `step_news` has something to do."""
        return self._sync.has_news

    def step(self, now: float, budget: int) -> bool:
        """Compare `budget` keys at most, news before the reconcile pass; return whether more are left."""
        self._sync.step_sweep(now, self._sync.step_news(now, budget))
        return self._sync.has_news or self._sync.is_sweeping

    def step_news(self, now: float, budget: int) -> bool:
        """Compare `budget` keys of which news came, some 50 us each; return whether more are left."""
        self._sync.step_news(now, budget)
        return self._sync.has_news

    def step_sweep(self, now: float, budget: int) -> bool:
        """Compare `budget` keys of the reconcile pass, some 5 us each; return whether more are left."""
        self._sync.step_sweep(now, budget)
        return self._sync.is_sweeping

    def tick(self, now: float) -> None:
        """Do what has become due: remove drained workers, end the startup grace."""
        self._commands.finish_drains(now)
        self._sync.tick(now)

    def next_tick(self) -> float | None:
        """Return when `tick` is to be called next; None if nothing is waiting."""
        deadlines = list(self._core.drains.values())
        grace_ends = self._sync.next_deadline()
        if grace_ends is not None:
            deadlines.append(grace_ends)
        return min(deadlines, default=None)

    def next_deadline(self) -> float | None:
        """Return when `tick` or `due_checks` is to be called next; None if nothing is waiting."""
        deadlines = (self.next_tick(), self.next_check())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    # --- health -------------------------------------------------------------------------------------

    def due_checks(self, now: float, limit: int) -> list[CheckRequest]:
        """Return at most `limit` checks to be made now; each must come back by `check_done`."""
        return self._core.schedule.due(now, limit)

    def next_check(self) -> float | None:
        """Return when the next check is due; None if all are under way or there is none."""
        return self._core.schedule.next_deadline()

    @property
    def checks_in_flight(self) -> int:
        """How many checks are under way whose result is still wanted."""
        return self._core.schedule.in_flight

    def check_done(self, result: CheckResult, now: float) -> None:
        """Take in a check's result; one that is stale changes nothing (REG-6)."""
        core = self._core
        request = core.schedule.finished(result, now)
        worker = core.registry.get(result.id)
        if request is None or worker is None or worker.id != result.id or worker.revision != result.revision:
            return
        if result.says_nothing:
            core.notice("error", "health_check_impossible", {"url": worker.url, "cause": result.cause})
            return
        settings = core.health_settings(worker.spec, worker.is_local)
        if worker.held_word == "ready":
            # It was in rotation when this life began: one pass proves that it still serves (SYN-16).
            settings = replace(settings, pending_passes=1)
        health = on_check(worker.health, result.passed, result.cause, settings, not request.fast, now)
        if cause_is_news(worker.health, health):
            core.notice("warning", "health_check_failed", {"url": worker.url, "cause": health.last_error})
        checked = msgspec.structs.replace(
            worker,
            health=health,
            held_word=None,
            checked_at=now,
            checks_passed=worker.checks_passed + result.passed,
            checks_failed=worker.checks_failed + (not result.passed),
        )
        if worker.is_local:
            since = worker.since if worker.status == health.status else now
            checked = msgspec.structs.replace(checked, status=health.status, since=since)
        else:
            checked = core.rejudged(checked, now)
        kept = core.commit(worker, checked, now, observed=True)
        if kept is None or not kept.is_local or kept.status != "failed":
            return
        if core.settings.remove_failed_workers:
            self._commands.remove_now(kept, now)
