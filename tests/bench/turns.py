"""What holds the event loop with 10,000 workers: reconcile passes that find nothing, a listing, a snapshot.

Processor time of this thread, so that other programs count for little. Of several rounds the best is shown:
what the code needs, rather than what else happened; garbage collections are left in, as in a daemon.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio

from meshd.api.boundary import Boundary
from meshd.workers.model import parse_spec
from meshd.workers.reconcile_loop import SLICE
from tests.bench.figures import Figure
from tests.support import pump
from tests.support.api_daemon import Caller, FakeDaemon, make_app
from tests.support.mesh_planes import MeshPlanes, worker_prefixes
from tests.support.planes import spec

WORKERS = 10_000
PASS_AIM_MS = 100.0
TURN_AIM_MS = 10.0
ROUNDS = 5
_OWN_HEALTH: dict[str, object] = {"check_interval_secs": 7, "failure_threshold": 5}


def measure() -> list[Figure]:
    """All of it: some twenty seconds."""
    return [*_reconciling({}, "default health"), *_reconciling(_OWN_HEALTH, "own health"), *_answering()]


def _reconciling(health: dict[str, object], name: str) -> list[Figure]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pump, "prefixes", worker_prefixes)
        mesh = MeshPlanes()
        mesh.start("a", ("b",))
        mesh.start("b", ("a",))
        mesh.run(5)
        for number in range(WORKERS):
            url = f"http://10.0.{number // 250}.{number % 250}:8000"
            mesh.planes["a"].register(spec(url, **({"health": health} if health else {})), mesh.now)
        mesh.run(10)
    figures = []
    for node, place in (("a", "local"), ("b", "imported")):
        plane = mesh.planes[node]
        rounds = []
        for _ in range(ROUNDS):
            plane.mark_all(mesh.now)
            spent = []
            more = True
            while more:
                began = time.thread_time()
                more = plane.step_sweep(mesh.now, SLICE)
                spent.append(time.thread_time() - began)
            if (plane.reconcile_stats.last_repairs, len(plane.registry.list().workers)) != (0, WORKERS):
                raise RuntimeError("the pass was to find nothing")
            rounds.append((sum(spent), max(spent)))
        what = f"reconcile {WORKERS:,} {place}, {name}"
        whole, longest = (min(times) * 1e3 for times in zip(*rounds, strict=True))
        figures.append(Figure(f"{what}, pass", whole, "ms", PASS_AIM_MS, f"best of {ROUNDS}"))
        figures.append(Figure(f"{what}, longest turn", longest, "ms", TURN_AIM_MS))
    return figures


class _Turns(trio.abc.Instrument):
    """The processor time of every step of every task."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._began: float | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._began is not None:
            self.longest_s = max(self.longest_s, time.thread_time() - self._began)


async def _read(app: Boundary, target: str, end: bytes) -> None:
    """Have an answer made up to a piece with this ending (if empty, all of it); the client does nothing."""
    gone = trio.Event()

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start" and message["status"] != 200:
            raise RuntimeError(f"{target} was answered {message['status']}")
        if end and message.get("body", b"").endswith(end):
            gone.set()

    await app(Caller(app).scope("GET", target, {}), receive, send)


async def _longest_turn_ms(run: Callable[[], Awaitable[None]]) -> float:
    rounds = []
    for _ in range(ROUNDS):
        turns = _Turns()
        trio.lowlevel.add_instrument(turns)
        try:
            await run()
        finally:
            trio.lowlevel.remove_instrument(turns)
        rounds.append(turns.longest_s * 1e3)
    return min(rounds)


async def _answers() -> list[Figure]:
    daemon = FakeDaemon()
    for number in range(WORKERS):
        fields = {
            "url": f"http://10.0.{number // 200}.{number % 200}:8000",
            "models": [{"id": "m", "aliases": ["n"]}],
            "labels": {"zone": "z", "rack": "r"},
            "health": {"disable_health_check": True},
        }
        daemon.plane.register(parse_spec(fields), 0.0)
        if number % 500 == 0:
            daemon.mesh.after_write()
    daemon.mesh.after_write()
    app = make_app(daemon)

    async def get(target: str, end: bytes) -> None:
        await _read(app, target, end)

    listing, snapshot = partial(get, "/workers", b""), partial(get, "/events", b"\n\n")
    return [
        Figure(f"{name} of {WORKERS:,}, longest turn", await _longest_turn_ms(run), "ms", TURN_AIM_MS)
        for name, run in (("listing", listing), ("snapshot", snapshot))
    ]


def _answering() -> list[Figure]:
    return trio.run(_answers)
