"""The trio loops around the plane: what they take in at once, in slices, and when; on a mock clock."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from meshd.workers import inbound_loop
from meshd.workers.core import PlaneSettings
from meshd.workers.health_machine import HealthSettings
from meshd.workers.inbound_loop import MemberNews, run_inbound_loop
from meshd.workers.plane import WorkerPlane
from meshd.workers.publish_loop import run_publish_loop
from meshd.workers.reconcile_loop import reconcile, run_reconcile_loop
from tests.support.fake_store import FakeMesh, FakeStore
from tests.support.planes import URL, Planes, spec

SETTINGS = PlaneSettings(health=HealthSettings(disabled=True, drain_settle_s=5))


@dataclass
class Changed:
    """A member's news."""

    name: str


class Handle:
    """The mesh handle over a fake store: callbacks as the driver makes them."""

    def __init__(self, store: FakeStore) -> None:
        self.store = store
        self.sends = 0
        self.keys: list[Callable[[tuple[str, ...]], None]] = []
        self.members: list[Callable[[MemberNews], None]] = []

    def after_write(self) -> None:
        """Count, and tell of what changed as the driver would."""
        self.sends += 1
        self.tell()

    def subscribe_keys(self, callback: Callable[[tuple[str, ...]], None]) -> None:
        self.keys.append(callback)

    def subscribe_members(self, callback: Callable[[MemberNews], None]) -> None:
        self.members.append(callback)

    def tell(self) -> None:
        keys = tuple(self.store.take_changed())
        for callback in self.keys if keys else ():
            callback(keys)


class Rig:
    """One plane of node b, with its loops."""

    def __init__(self) -> None:
        self.mesh = FakeMesh()
        self.store = self.mesh.store("b")
        self.handle = Handle(self.store)
        self.plane = WorkerPlane(SETTINGS, self.store, random.Random(1), trio.current_time())

    async def start(self, nursery: trio.Nursery) -> None:
        await nursery.start(run_publish_loop, self.plane, self.handle)
        await nursery.start(run_inbound_loop, self.plane, self.handle)


def workers_of_a(count: int) -> dict[str, bytes]:
    planes = Planes("a")
    for number in range(count):
        planes["a"].register(f"http://10.0.{number // 200}.{number % 200 + 1}:8000")
    return planes["a"].store.logs["a"]


@pytest.mark.req("MSH-3")
async def test_a_few_arrivals_are_visible_before_the_callback_returns(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rig = Rig()
    async with trio.open_nursery() as nursery:
        await rig.start(nursery)
        rig.store.receive("a", workers_of_a(3))
        rig.handle.tell()
        assert len(rig.plane.registry) == 3
        nursery.cancel_scope.cancel()


async def test_many_arrivals_are_taken_in_by_slices_between_which_others_have_a_turn(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rig = Rig()
    seen: list[int] = []

    async def bystander() -> None:
        while True:
            seen.append(len(rig.plane.registry))
            await trio.lowlevel.checkpoint()
            if len(rig.plane.registry) == 500:
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        await rig.start(nursery)
        rig.store.receive("a", workers_of_a(500))
        rig.handle.tell()
        nursery.start_soon(bystander)
    steps = [after - before for before, after in itertools.pairwise(seen)]
    assert max(steps) <= 2 * inbound_loop.SLICE  # trio lets two tasks take turns in either order
    assert len(rig.plane.registry) == 500


async def test_the_inbound_loop_starts_once_what_the_store_held_is_taken_in(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rig = Rig()
    rig.store.receive("a", workers_of_a(200))
    rig.plane = WorkerPlane(SETTINGS, rig.store, random.Random(1), trio.current_time())
    async with trio.open_nursery() as nursery:
        await nursery.start(run_inbound_loop, rig.plane, rig.handle)
        assert len(rig.plane.registry) == 200
        nursery.cancel_scope.cancel()


@pytest.mark.req("LIF-9")
async def test_a_removal_is_finished_when_the_worker_has_drained(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rig = Rig()
    async with trio.open_nursery() as nursery:
        await rig.start(nursery)
        worker = rig.plane.register(spec(), trio.current_time())
        rig.plane.remove(worker.id, trio.current_time())
        await trio.sleep(4.9)
        assert rig.plane.registry.get(worker.id) is not None
        await trio.sleep(0.2)
        assert rig.plane.registry.get(worker.id) is None
        assert rig.store.own(worker.key) is None
        nursery.cancel_scope.cancel()


async def test_what_the_plane_wrote_is_sent_without_anybody_asking(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rig = Rig()
    async with trio.open_nursery() as nursery:
        await rig.start(nursery)
        sends = rig.handle.sends
        rig.plane.register(spec(), trio.current_time())
        await trio.testing.wait_all_tasks_blocked()
        assert rig.handle.sends > sends
        nursery.cancel_scope.cancel()


@pytest.mark.req("SYN-5")
async def test_a_members_news_reaches_its_workers(autojump_clock: trio.testing.MockClock) -> None:
    rig = Rig()
    planes = Planes("a")
    planes["a"].plane.drain(planes["a"].register().id, 0)
    async with trio.open_nursery() as nursery:
        await rig.start(nursery)
        rig.store.receive("a", planes["a"].store.logs["a"])
        rig.handle.tell()
        before = rig.plane.registry.by_url(URL)
        rig.mesh.states["a"] = "down"
        for callback in rig.handle.members:
            callback(Changed("a"))
        await trio.testing.wait_all_tasks_blocked()
        assert rig.plane.registry.by_url(URL) is before  # a drain outlasts its owner
        assert not rig.plane.has_news
        nursery.cancel_scope.cancel()


@pytest.mark.req("SYN-10")
async def test_reconcile_comes_one_interval_after_start_and_then_every_interval(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rig = Rig()
    rig.store.receive("a", workers_of_a(100))  # nobody is told
    rig.store.take_changed()
    async with trio.open_nursery() as nursery:
        await nursery.start(run_reconcile_loop, rig.plane, rig.handle, lambda: 30.0)
        await trio.sleep(29.9)
        assert len(rig.plane.registry) == 0
        await trio.sleep(0.2)
        assert len(rig.plane.registry) == 100
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    stats = rig.plane.reconcile_stats
    assert (stats.passes, stats.repairs, stats.last_compared, stats.last_repairs) == (3, 100, 100, 0)


@pytest.mark.req("SYN-10")
async def test_a_pass_reports_its_cost_and_its_longest_slice(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rig = Rig()
    rig.store.receive("a", workers_of_a(100))
    ticks = iter(range(1000))
    await reconcile(rig.plane, rig.handle, lambda: float(next(ticks)))
    stats = rig.plane.reconcile_stats
    assert stats.longest_slice_s == 1.0
    assert stats.last_seconds == stats.seconds > 1.0


async def test_notices_of_the_plane_are_logged(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig()
    logged: list[tuple[str, object]] = []

    class Log:
        def warning(self, event: str, **fields: object) -> None:
            logged.append((event, fields["key"]))

    monkeypatch.setattr("meshd.workers.publish_loop.log", Log())
    async with trio.open_nursery() as nursery:
        await rig.start(nursery)
        rig.store.receive("a", {"worker:x": b"\xff"})
        rig.handle.tell()
        assert logged == [("worker_unreadable", "worker:x")]
        nursery.cancel_scope.cancel()
