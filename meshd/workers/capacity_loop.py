"""Follows the registry with the capacity tracker, asks servers for their limits, and logs what changed.

Owns the tracker's life: a crash inside it is logged with its cause, it starts anew after a second, and
nothing else notices (CAP-7). Rules it keeps: a change of tier is logged at once, a mere change of value at
most once a second, so that a thousand workers becoming ready are a few lines (CAP-4); few servers are asked
at a time, and none that has given no sign of being an engine that tells (CAP-6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import structlog
import trio

from meshd.workers.capacity import CapacitySnapshot
from meshd.workers.capacity_tracker import CapacityTracker
from meshd.workers.health_schedule import CheckTarget, rank_in
from meshd.workers.server_info import NotAnswered, Rank
from meshd.workers.urls import scheme_of
from meshd.workers.worker import Worker

log = structlog.get_logger(__name__)

RESTART_S: Final = 1.0
"""Pause before a crashed tracker starts anew."""
ASKED_AT_ONCE: Final = 8
"""Servers asked for their limits at the same time; it is not urgent."""
ASK_TIMEOUT_S: Final = 5.0
ASK_AGAIN_S: Final = (5.0, 30.0, 300.0)
"""Pauses before a server that did not answer is asked again."""
LOG_EVERY_S: Final = 1.0
GATHER_S: Final = 0.02
"""In a burst of changes, watchers are told this often what they come to."""


class InfoSource(Protocol):
    """Where limits are asked for; `server_info.ServerInfo` is one."""

    def tells(self, target: CheckTarget) -> bool:
        """Whether servers of this kind are worth asking."""

    async def max_running_requests(self, target: CheckTarget, rank: Rank = ...) -> int | None:
        """Return the worker's limit, or None if its server does not tell. Raises `NotAnswered`."""


Lookup = Callable[[str], Worker | None]
"""The worker that is now served for a URL."""


async def run_capacity_loop(
    tracker: CapacityTracker,
    by_url: Lookup,
    info: InfoSource,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep the tracker up to date until cancelled, then close it."""
    try:
        started = False
        while True:
            try:
                async with trio.open_nursery() as nursery:
                    following = _Following(tracker, by_url, info, nursery)
                    if not started:
                        started = True
                        task_status.started()
                    await following.run()
            except Exception as error:
                log.error("capacity_tracker_crashed", exc_info=error, restart_in_s=RESTART_S)
            await trio.sleep(RESTART_S)
            try:
                tracker.restart()
            except Exception as error:
                tracker.failure = error  # it is logged when the loop reads it, and tried again
    finally:
        tracker.close()


class _Following:
    """One life of the tracker."""

    def __init__(
        self, tracker: CapacityTracker, by_url: Lookup, info: InfoSource, nursery: trio.Nursery
    ) -> None:
        self._tracker = tracker
        self._by_url = by_url
        self._info = info
        self._nursery = nursery
        self._woken = trio.Event()
        self._asking = trio.CapacityLimiter(ASKED_AT_ONCE)
        self._newest: dict[str, Worker] = {}
        self._logged: CapacitySnapshot | None = None
        self._logged_at = float("-inf")
        self._read_at = float("-inf")
        tracker.notify = self._wake

    async def run(self) -> None:
        """Follow until cancelled; raises what went wrong inside the tracker."""
        while True:
            self._woken = trio.Event()
            self._read_at = trio.current_time()
            snapshot = self._tracker.read()
            if self._tracker.failure is not None:
                raise self._tracker.failure
            for worker in self._tracker.take_to_ask():
                if worth_asking(worker, self._info):
                    self._ask(worker)
            for url, label, value in self._tracker.take_warnings():
                log.warning("worker_label_unusable", url=url, label=label, value=value[:100])
            wait_s = self._log(snapshot)
            with trio.move_on_after(wait_s):
                await self._woken.wait()
            # Nobody reads an old value meanwhile, since reading takes in what waits. After a pause this is
            # still a checkpoint: whoever fills the queue gets a turn before the next reading.
            await trio.sleep_until(self._read_at + GATHER_S)

    def _wake(self) -> None:
        self._woken.set()

    def _log(self, snapshot: CapacitySnapshot) -> float:
        """Log what is new, if it is time for it; return how long to wait before that is asked again."""
        before = self._logged
        if before is not None and before[:2] == snapshot[:2]:
            return float("inf")
        now = trio.current_time()
        due_in_s = self._logged_at + LOG_EVERY_S - now
        if before is not None and before.source == snapshot.source and due_in_s > 0:
            return due_in_s
        log.info(
            "capacity_changed",
            capacity=snapshot.capacity,
            source=snapshot.source,
            workers_available=snapshot.workers_available,
            previous=None if before is None else before.capacity,
            previous_source=None if before is None else before.source,
        )
        self._logged, self._logged_at = snapshot, now
        return float("inf")

    def _ask(self, worker: Worker) -> None:
        waiting = worker.url in self._newest
        self._newest[worker.url] = worker
        if not waiting:
            self._nursery.start_soon(self._ask_until_told, worker.url)

    async def _ask_until_told(self, url: str) -> None:
        """Ask one server; what was asked under an older state of the worker is asked again."""
        pauses_s = list(ASK_AGAIN_S)
        while True:
            worker = self._newest[url]
            answered, limit = False, None
            async with self._asking:
                try:
                    limit = await self._info.max_running_requests(target_of(worker), rank_of(worker))
                    answered = True
                except NotAnswered as failed:
                    log.debug("server_info_not_answered", url=url, cause=failed.cause)
                except Exception as error:
                    # One odd server must not start the whole tracker anew, again and again.
                    log.error("server_info_crashed", url=url, exc_info=error)
                    pauses_s.clear()
            if self._newest[url] is not worker:
                continue
            present = self._by_url(url)
            if present is None or present.status != "ready" or (not answered and not pauses_s):
                break
            if answered:
                self._tracker.told(worker, limit, present)
                self._wake()
                break
            await trio.sleep(pauses_s.pop(0))
        del self._newest[url]


def worth_asking(worker: Worker, info: InfoSource) -> bool:
    """Whether to ask a worker's server: it is of a kind that tells, and is named so or was seen to answer."""
    named = worker.spec.runtime_type != "unspecified"
    return (named or worker.checks_passed > 0) and info.tells(target_of(worker))


def target_of(worker: Worker) -> CheckTarget:
    """Return how a worker's server is asked for its limit."""
    url = worker.spec.dp_base_url or worker.url
    return CheckTarget(
        url, scheme_of(url), "/", ASK_TIMEOUT_S, worker.api_key or None, worker.spec.runtime_type
    )


def rank_of(worker: Worker) -> Rank:
    """Return which rank of its server a worker is."""
    rank = worker.spec.dp_rank
    return Rank(rank_in(worker.url) if rank is None else rank, worker.spec.dp_size)
