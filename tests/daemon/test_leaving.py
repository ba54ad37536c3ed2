"""Leaving for good: only once the disk has taken it."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest
import trio

from meshd.daemon import Daemon
from meshd.errors import StorageError
from meshd.workers.core import PlaneSettings
from meshd.workers.model import parse_spec
from meshd.workers.plane import WorkerPlane
from meshd.workers.record import PREFIX
from tests.support.fake_store import FakeMesh


class Disk:
    """Stands in for the mesh handle: a disk that takes writes, or does not."""

    def __init__(self, takes: bool) -> None:
        self.takes = takes

    def after_write(self) -> None:
        """Nothing is sent."""

    async def flush(self) -> bool:
        await trio.lowlevel.checkpoint()
        return self.takes


def daemon_with_a_worker(takes: bool) -> tuple[Daemon, WorkerPlane]:
    store = FakeMesh().store("a")
    plane = WorkerPlane(PlaneSettings(publish_loopback=True), store, random.Random(1), trio.current_time())
    plane.register(parse_spec({"url": "http://127.0.0.1:9"}), trio.current_time())
    nothing = cast(Any, None)
    return Daemon(nothing, cast(Any, Disk(takes)), plane, nothing, nothing, "1", nothing), plane


def published(plane: WorkerPlane) -> int:
    while plane.step(trio.current_time(), 100):
        pass
    return len(list(plane._core.store.visible_keys(PREFIX)))


@pytest.mark.req("SYN-14")
async def test_a_node_that_leaves_for_good_takes_its_workers_with_it() -> None:
    daemon, plane = daemon_with_a_worker(takes=True)
    await daemon.leave(keep_workers=False)
    assert daemon.stop.is_set()
    assert published(plane) == 0


@pytest.mark.req("SYN-14")
async def test_a_node_whose_disk_refuses_the_removal_stays_with_its_workers() -> None:
    daemon, plane = daemon_with_a_worker(takes=False)
    with pytest.raises(StorageError, match="free space"):
        await daemon.leave(keep_workers=False)
    assert not daemon.stop.is_set()
    assert not daemon.withdrawing
    assert published(plane) == 1


@pytest.mark.req("SYN-14")
async def test_a_node_that_keeps_its_workers_may_leave_whatever_the_disk_says() -> None:
    daemon, plane = daemon_with_a_worker(takes=False)
    await daemon.leave(keep_workers=True)
    assert daemon.stop.is_set()
    assert published(plane) == 1
