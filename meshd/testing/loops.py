"""The worker loops of one simulated process: its inbound and reconcile passes, and its health checks.

Each does what the loop of that name does under trio, in the same slices, by the same calls on the plane.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from meshd.workers.health_loop import CHECKS_AT_ONCE
from meshd.workers.health_schedule import CheckRequest
from meshd.workers.inbound_loop import SLICE
from meshd.workers.reconcile_loop import SLICE as SWEEP_SLICE

if TYPE_CHECKING:
    from meshd.testing.checks import Checks
    from meshd.testing.health import HealthScript
    from meshd.testing.process import Process

SLICE_S = 0.003
"""What a slice of marks costs; so long the others have their turn."""


class WorkerLoops:
    """The loops of `process`, from its start on; `health` says how backends answer."""

    def __init__(self, process: Process, health: HealthScript, checks: Checks) -> None:
        self._process = process
        self._plane = process.plane
        self._health = health
        self._checks = checks
        self._in_flight = 0
        self._inbound_planned = False
        self._passes_planned = 0
        self._pause()

    # -- inbound ---------------------------------------------------------------------------------

    def plan_inbound(self) -> None:
        """There are keys to look at."""
        if not self._inbound_planned:
            self._inbound_planned = True
            self._process.later(SLICE_S, self._inbound)

    def _inbound(self) -> None:
        self._inbound_planned = False
        self._plane.step_news(self._process.now, SLICE)
        self._process.dispatch()

    # -- reconcile -------------------------------------------------------------------------------

    def interval_changed(self) -> None:
        """Settings may have changed: another interval counts for the pause under way, too."""
        if self._pausing and self._interval_s != self._process.settings.config.sync.reconcile_interval_s:
            self._plan_pass()

    def _pause(self) -> None:
        self._pausing = True
        self._began = self._process.now
        self._plan_pass()

    def _plan_pass(self) -> None:
        self._interval_s = self._process.settings.config.sync.reconcile_interval_s
        left_s = max(0.0, self._began + self._interval_s - self._process.now)
        self._passes_planned += 1
        self._process.later(left_s, partial(self._reconcile, self._passes_planned))

    def _reconcile(self, number: int) -> None:
        if number == self._passes_planned:  # else it is planned for another time by now
            self._pausing = False
            self._plane.mark_all(self._process.now)
            self._sweep()

    def _sweep(self) -> None:
        more = self._plane.step_sweep(self._process.now, SWEEP_SLICE)
        self._process.dispatch()
        if more:
            self._process.later(0.0, self._sweep)
        else:
            self._pause()

    # -- health ----------------------------------------------------------------------------------

    def next_check(self) -> float | None:
        """When the next check is due, by the process's clock; None while as many as may be are under way."""
        return self._plane.next_check() if self._in_flight < CHECKS_AT_ONCE else None

    def make_checks(self) -> None:
        """Begin the checks that are due; each takes as long as its backend does."""
        process = self._process
        room = CHECKS_AT_ONCE - self._in_flight
        for request in self._plane.due_checks(process.now, room) if room else ():
            self._in_flight += 1
            found = self._health.check(process.name, request.target.url, request.target.timeout_s)
            process.later(found.takes_s, partial(self._checked, request, found.cause))

    def _checked(self, request: CheckRequest, cause: str | None) -> None:
        self._in_flight -= 1
        result = request.passed() if cause is None else request.failed(cause)
        self._checks.check_done(self._process, request, cause)
        self._plane.check_done(result, self._process.now)
        self._process.dispatch()
