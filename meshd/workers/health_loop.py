"""Makes the health checks that are due, at most 128 at once, and hands their results to the worker plane.

Owns the tasks of the checks. Rules it keeps: a check is handed out only when there is room for it, so nothing
queues and the longest overdue goes first; one slow worker holds one place and delays no other (LIF-6); a
fault in a checker is a failed check of one worker, told as such (LIF-4).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import structlog
import trio

from meshd.workers.health_schedule import CheckRequest, CheckResult, CheckTarget

log = structlog.get_logger(__name__)

CHECKS_AT_ONCE: Final = 128
BACKSTOP_S: Final = 2.0
"""A checker that overruns its timeout by this much is cut off."""


class Checker(Protocol):
    """Asks one kind of worker."""

    async def check(self, target: CheckTarget) -> str | None:
        """Return None for a pass, else the cause; keeps to the target's timeout."""

    def close(self) -> None:
        """Let go of connections that were kept between checks."""


class HealthPlane(Protocol):
    """The part of the worker plane that the loop drives; times are `trio.current_time()`."""

    def due_checks(self, now: float, limit: int) -> list[CheckRequest]:
        """Return the checks that are due, at most `limit`."""

    def next_check(self) -> float | None:
        """Return when the next check is due; None if there is none to wait for."""

    def check_done(self, result: CheckResult, now: float) -> None:
        """Take a result; the plane drops what is stale (REG-6) and tells of new causes (LIF-4)."""


class HealthLoop:
    """The loop and its handle: `run` it in a nursery, `wake` it when workers are watched anew."""

    def __init__(
        self, plane: HealthPlane, checkers: Mapping[str, Checker], checks_at_once: int = CHECKS_AT_ONCE
    ) -> None:
        """`checkers` go by URL scheme; one may serve several."""
        self._plane = plane
        self._checkers = checkers
        self._limit = checks_at_once
        self._woken = trio.Event()
        self.in_flight = 0
        """How many checks are being made."""

    def wake(self) -> None:
        """Look for due checks again: something was scheduled or brought forward. Cheap, from this thread."""
        self._woken.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Make checks until cancelled, then close the checkers."""
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                await self._make_checks(nursery)
        finally:
            for checker in self._checkers.values():
                checker.close()

    async def _make_checks(self, nursery: trio.Nursery) -> None:
        while True:
            self._woken = trio.Event()
            room = self._limit - self.in_flight
            for request in self._plane.due_checks(trio.current_time(), room) if room else ():
                self.in_flight += 1
                nursery.start_soon(self._check, request, name=f"check {request.id}")
            deadline = self._plane.next_check() if self.in_flight < self._limit else None
            with trio.move_on_at(float("inf") if deadline is None else deadline):
                await self._woken.wait()

    async def _check(self, request: CheckRequest) -> None:
        try:
            cause = await self._ask(request.target)
        finally:
            self.in_flight -= 1
        result = request.passed() if cause is None else request.failed(cause)
        try:
            self._plane.check_done(result, trio.current_time())
        except Exception as error:
            # A fault with one worker must not end the checks of all others.
            log.error("health_result_not_taken", worker_id=result.id, exc_info=error)
        self.wake()

    async def _ask(self, target: CheckTarget) -> str | None:
        checker = self._checkers.get(target.scheme)
        if checker is None:
            return f"{target.scheme}:// workers cannot be checked"
        try:
            with trio.move_on_after(target.timeout_s + BACKSTOP_S):
                return await checker.check(target)
        except Exception as error:
            log.error("health_checker_crashed", url=target.url, exc_info=error)
            return f"the check itself failed: {type(error).__name__}"
        return f"no answer within {target.timeout_s:g} s"
