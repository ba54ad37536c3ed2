"""Ten thousand workers: no answer keeps the daemon from its other work."""

from __future__ import annotations

import gc
import time

import pytest
import trio

from meshd.workers.model import parse_spec
from tests.support.api_daemon import Caller, FakeDaemon, StreamReader

COUNT = 10_000
LONGEST_SLICE_S = 0.010


@pytest.fixture
async def daemon() -> FakeDaemon:
    daemon = FakeDaemon()
    for number in range(COUNT):
        spec = {
            "url": f"http://10.{number // 40_000}.{number // 200 % 200}.{number % 200}:8000",
            "models": [{"id": "m", "aliases": ["n"]}],
            "labels": {"zone": "z", "rack": "r"},
            "health": {"disable_health_check": True},
        }
        daemon.plane.register(parse_spec(spec), 0.0)
        if number % 500 == 0:
            daemon.mesh.after_write()
    daemon.mesh.after_write()
    daemon.plane.registry.list()
    return daemon


class SliceMeter(trio.abc.Instrument):
    """Measures the processor time of each step of each task: other load on the machine is no matter."""

    def __init__(self) -> None:
        self.slices: list[float] = []
        self._started = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._started = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._started:  # else the step in which the measuring began
            self.slices.append(time.thread_time() - self._started)


@pytest.mark.slow
@pytest.mark.req("REG-7", "CTL-4")
async def test_listing_and_snapshot_hold_the_loop_only_for_moments(
    api: Caller, nursery: trio.Nursery
) -> None:
    meter = SliceMeter()
    reader = StreamReader(api)
    # A collection may fall into any slice, and has nothing to do with the API.
    gc.collect()
    gc.disable()
    trio.lowlevel.add_instrument(meter)
    try:
        answer = await api.call("GET", "/workers")
        nursery.start_soon(reader.run)
        snapshot = await reader.next("snapshot")
    finally:
        trio.lowlevel.remove_instrument(meter)
        gc.enable()
    reader.disconnect()
    assert answer.json()["total"] == COUNT
    assert len(snapshot.data["workers"]) == COUNT
    assert max(meter.slices) < LONGEST_SLICE_S
