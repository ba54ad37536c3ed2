"""When each worker is checked next: one heap of deadlines, and nothing else.

Owns: for every watched worker its deadline, and which check is in flight.
Rules it keeps: LIF-6 (at once, fast for a while, then at intervals with jitter), LIF-3 (failed ones once
a minute), REG-6 (a check started under an older revision or an earlier watch is stale when it returns).

Pure: it is given the time and a random generator. A deadline is (time, token, worker id); a worker's
present token makes older heap items and older checks recognisable, so nothing is ever searched for.
A worker has at most one current check in flight, and its next deadline is set when that one returns.
Workers whose last check was slow wait in a heap of their own, of which only so many are checked at once:
so a rack that answers nothing any more delays itself alone.
"""

from __future__ import annotations

import heapq
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from meshd.workers.health_machine import HealthSettings, Status

if TYPE_CHECKING:
    import random

OUT_OF_FILES: Final = "too many open files on this node"
"""The cause of a check that failed for want of file descriptors here."""

Mode = Literal["fast", "normal", "recover"]

RECOVER_INTERVAL_S: Final = 60.0
"""Seconds between checks of a failed worker that may recover."""

JITTER: Final = 0.1
"""Share by which an interval varies either way, so that checks do not fall into step."""


SLOW_S: Final = 1.0
"""A check that took this long makes its worker a slow one until a check takes less."""

SLOW_AT_ONCE: Final = 64
"""Slow workers checked at once: half of what the health loop makes in all."""


@dataclass(frozen=True, slots=True)
class CheckTarget:
    """All that a checker needs to know of a worker."""

    url: str
    """Normalised, without trailing slash; the server is at `server_url(url)`."""
    scheme: str
    """http, https, grpc, grpcs or ipc."""
    health_path: str
    timeout_s: float
    api_key: str | None = field(default=None, repr=False)
    """Sent as bearer token; never logged, hence not in the repr."""
    runtime_type: str = "unspecified"


_RANK: Final = re.compile(r"@([0-9]+)\Z")


def server_url(url: str) -> str:
    """Return where the server of a worker is asked: the URL without a data-parallel rank (`@3`)."""
    return url if url.startswith("ipc:") else _RANK.sub("", url)


def rank_in(url: str) -> int | None:
    """Return the data-parallel rank that a worker's URL ends with, if it does."""
    found = None if url.startswith("ipc:") else _RANK.search(url)
    return None if found is None else int(found[1])


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """One check to be made now."""

    id: str
    revision: int
    target: CheckTarget
    token: int
    """Names this check; no other has or had it."""
    fast: bool
    """Whether it belongs to the fast window, and so does not count towards the pending limit."""

    def passed(self) -> CheckResult:
        """Return the result of this check when it passed."""
        return CheckResult(self.id, self.revision, True, None, self.token)

    def failed(self, cause: str) -> CheckResult:
        """Return the result of this check when it failed, with a cause that holds no secret."""
        return CheckResult(self.id, self.revision, False, cause, self.token)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How one check went. `cause` is None exactly if it passed."""

    id: str
    revision: int
    passed: bool
    cause: str | None
    token: int

    @property
    def says_nothing(self) -> bool:
        """Whether this node could not ask at all: that is no word about the worker."""
        return self.cause == OUT_OF_FILES


def mode_for(status: Status, settings: HealthSettings) -> Mode | None:
    """Return how a worker that has just taken on this status is to be watched; None for not at all."""
    if settings.disabled or status == "draining":
        return None
    match status:
        case "pending":
            return "fast"
        case "failed":
            return "recover" if settings.recovers else None
        case _:
            return "normal"


@dataclass(slots=True)
class _Watched:
    revision: int
    target: CheckTarget
    settings: HealthSettings
    mode: Mode
    fast_until: float
    token: int
    slow: bool = False
    in_flight: CheckRequest | None = None
    started: float = 0.0


class HealthSchedule:
    """The deadlines of all workers that this node checks."""

    def __init__(self, rng: random.Random, slow_at_once: int = SLOW_AT_ONCE) -> None:
        """Start empty; `rng` gives the jitter."""
        self._rng = rng
        self._watched: dict[str, _Watched] = {}
        self._prompt = _Deadlines(self._watched, slow=False)
        self._slow = _Deadlines(self._watched, slow=True)
        self._slow_room = slow_at_once
        self._tokens = 0
        self._in_flight = 0

    def __len__(self) -> int:
        """Return how many workers are watched."""
        return len(self._watched)

    def __contains__(self, id: object) -> bool:
        """Whether the worker is watched."""
        return id in self._watched

    @property
    def in_flight(self) -> int:
        """How many checks are under way whose result is still wanted."""
        return self._in_flight

    def mode(self, id: str) -> Mode | None:
        """Return how the worker is watched at present, or None if it is not."""
        watched = self._watched.get(id)
        return None if watched is None else watched.mode

    def watch(
        self, id: str, revision: int, target: CheckTarget, settings: HealthSettings, mode: Mode, now: float
    ) -> None:
        """Check this worker from now on, replacing what was said of it before.

        `fast` checks at once and turns `normal` by itself when the fast window ends; `normal` makes the
        first check somewhere within one interval, so that workers registered together spread out;
        `recover` checks about once a minute. A check in flight that asks the same stays current.
        """
        known = self._watched.get(id)
        watched = _Watched(revision, target, settings, mode, now + settings.fast_window_s, self._token())
        if known is not None:
            watched.slow = known.slow and known.target.url == target.url
            if known.in_flight is not None:
                if known.revision == revision and known.in_flight.target == target:
                    watched.slow = known.slow
                    watched.in_flight, watched.started = known.in_flight, known.started
                    self._watched[id] = watched
                    return
                self._landed(known)
        self._watched[id] = watched
        wait_s = 0.0
        if mode == "normal":
            wait_s = self._rng.random() * settings.check_interval_s
        elif mode == "recover":
            wait_s = self._jittered(RECOVER_INTERVAL_S)
        self._schedule(id, watched, now + wait_s)

    def unwatch(self, id: str) -> None:
        """Check this worker no more; a check in flight becomes stale. Unknown ids are fine."""
        watched = self._watched.pop(id, None)
        if watched is not None and watched.in_flight is not None:
            self._landed(watched)

    def check_now(self, id: str, now: float) -> None:
        """Bring the worker's next check forward to now, unless one is in flight or it is not watched."""
        watched = self._watched.get(id)
        if watched is not None and watched.in_flight is None:
            watched.token = self._token()
            self._schedule(id, watched, now)

    def due(self, now: float, limit: int) -> list[CheckRequest]:
        """Return the checks that are due, longest overdue first, at most `limit`; they are in flight now."""
        requests: list[CheckRequest] = []
        while len(requests) < limit:
            heap = self._first()
            if heap is None or heap.first()[0] > now:
                break
            _, token, id = heap.pop()
            watched = self._watched[id]
            fast = watched.mode == "fast" and now < watched.fast_until
            request = CheckRequest(id, watched.revision, watched.target, token, fast)
            watched.in_flight, watched.started = request, now
            self._in_flight += 1
            self._slow_room -= watched.slow
            requests.append(request)
        return requests

    def finished(self, result: CheckResult, now: float) -> CheckRequest | None:
        """Take a check back and set the next deadline.

        Return the request it answers, or None if it is stale: the worker was replaced, removed or
        watched anew meanwhile, or the result came before. A stale result changes nothing.
        """
        watched = self._watched.get(result.id)
        if watched is None or watched.in_flight is None or watched.in_flight.token != result.token:
            return None
        request = watched.in_flight
        self._landed(watched)
        watched.slow = now - watched.started >= SLOW_S
        watched.token = self._token()
        self._schedule(result.id, watched, self._next(watched, now))
        return request

    def next_deadline(self) -> float | None:
        """Return when the next check is due; None if there is none, or none that may start now.

        While as many slow workers are checked as may be, further ones wait until one of those returns.
        """
        heap = self._first()
        return None if heap is None else heap.first()[0]

    def _first(self) -> _Deadlines | None:
        """The heap with the earliest deadline among those that may be served."""
        heaps = [heap for heap in (self._prompt, self._slow) if heap]
        if self._slow_room <= 0:
            heaps = [heap for heap in heaps if heap is self._prompt]
        return min(heaps, key=_Deadlines.first, default=None)

    def _landed(self, watched: _Watched) -> None:
        watched.in_flight = None
        self._in_flight -= 1
        self._slow_room += watched.slow

    def _next(self, watched: _Watched, now: float) -> float:
        """Deadlines run from the start of a check; one that outlasted its interval is repeated at once."""
        if watched.mode == "fast":
            soon = max(now, watched.started + watched.settings.fast_interval_s)
            if soon < watched.fast_until:
                return soon
            watched.mode = "normal"
        interval = RECOVER_INTERVAL_S if watched.mode == "recover" else watched.settings.check_interval_s
        return max(now, watched.started + self._jittered(interval))

    def _jittered(self, interval_s: float) -> float:
        return interval_s * self._rng.uniform(1 - JITTER, 1 + JITTER)

    def _token(self) -> int:
        self._tokens += 1
        return self._tokens

    def _schedule(self, id: str, watched: _Watched, at: float) -> None:
        (self._slow if watched.slow else self._prompt).push(at, watched.token, id)


class _Deadlines:
    """A heap of deadlines that forgets stale ones by itself; true while a live one is in it."""

    def __init__(self, watched: dict[str, _Watched], slow: bool) -> None:
        self._watched = watched
        self._is_slow = slow
        self._heap: list[tuple[float, int, str]] = []

    def __bool__(self) -> bool:
        while self._heap and not self._is_live(self._heap[0]):
            heapq.heappop(self._heap)
        return bool(self._heap)

    def __len__(self) -> int:
        return len(self._heap)

    def first(self) -> tuple[float, int, str]:
        """The earliest deadline; only while the heap is true."""
        return self._heap[0]

    def pop(self) -> tuple[float, int, str]:
        """Remove and return the earliest deadline; only while the heap is true."""
        return heapq.heappop(self._heap)

    def push(self, at: float, token: int, id: str) -> None:
        """Add a deadline; stale ones are cleared away when they are the most."""
        heapq.heappush(self._heap, (at, token, id))
        if len(self._heap) > 64 and len(self._heap) > 2 * len(self._watched):
            self._heap = [item for item in self._heap if self._is_live(item)]
            heapq.heapify(self._heap)

    def _is_live(self, item: tuple[float, int, str]) -> bool:
        watched = self._watched.get(item[2])
        return (
            watched is not None
            and watched.token == item[1]
            and watched.in_flight is None
            and watched.slow == self._is_slow
        )
