"""The lifecycle through the real plane: on virtual time with scripted servers, and once over real sockets."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from meshd.workers.capacity import CapacitySettings
from meshd.workers.capacity_loop import run_capacity_loop
from meshd.workers.capacity_tracker import CapacityTracker
from meshd.workers.check_grpc import GrpcChecker
from meshd.workers.check_http import HttpChecker
from meshd.workers.check_ipc import IpcChecker
from meshd.workers.core import PlaneSettings
from meshd.workers.health_loop import Checker, HealthLoop
from meshd.workers.health_machine import HealthSettings
from meshd.workers.health_schedule import OUT_OF_FILES, CheckTarget
from meshd.workers.http_client import HttpClient
from meshd.workers.model import parse_spec
from meshd.workers.plane import WorkerPlane
from meshd.workers.server_info import ServerInfo
from tests.support.engine_servers import grpc_engine, http_engine, unix_engine
from tests.support.fake_store import FakeMesh

Up = Callable[[float], bool]


class Server:
    """Whether it serves depends on the time since the run began; notes when it was asked."""

    def __init__(self, up: Up) -> None:
        self.up = up
        self.asked: list[float] = []
        self.cause = "connection refused"

    def close(self) -> None:
        """Nothing is kept."""

    async def check(self, target: CheckTarget) -> str | None:
        now = trio.current_time()
        self.asked.append(now)
        await trio.sleep(0.005)
        return None if self.up(now) else self.cause


class Node:
    """A plane with its health loop, driven for a time."""

    def __init__(self, settings: PlaneSettings | None = None) -> None:
        self.mesh = FakeMesh()
        self.plane = WorkerPlane(
            settings or PlaneSettings(publish_loopback=True),
            self.mesh.store("a"),
            random.Random(3),
            trio.current_time(),
        )
        self.changes: list[tuple[float, str]] = []
        self.notices: list[tuple[str, dict[str, object]]] = []
        self.plane.on_notice(lambda level, event, fields: self.notices.append((event, fields)))
        self._events = self.plane.events.subscribe(self._note)

    def _note(self) -> None:
        for event in self._events.take():
            if event.worker is not None and event.kind in ("registered", "status_changed", "removed"):
                status = "removed" if event.kind == "removed" else event.worker.status
                self.changes.append((trio.current_time(), status))

    async def run(self, checkers: dict[str, Checker], for_s: float) -> None:
        loop = HealthLoop(self.plane, checkers)
        self.plane.on_wake(loop.wake)
        async with trio.open_nursery() as nursery:
            await nursery.start(loop.run)
            await trio.sleep(for_s)
            nursery.cancel_scope.cancel()

    def statuses(self) -> list[str]:
        return [status for _, status in self.changes]


def register(node: Node, url: str = "http://127.0.0.1:9", **fields: object) -> str:
    spec = parse_spec({"url": url, **fields})
    return node.plane.register(spec, trio.current_time()).id


@pytest.mark.req("LIF-2", "LIF-6")
async def test_a_healthy_worker_is_ready_within_two_seconds(autojump_clock: trio.testing.MockClock) -> None:
    node, server = Node(), Server(lambda now: True)
    register(node)
    start = trio.current_time()
    await node.run({"http": server}, 60)
    assert node.statuses() == ["pending", "ready"]
    assert node.changes[-1][0] - start < 2.0
    assert len(server.asked) < 15, "once it is ready it is checked at its interval"


@pytest.mark.req("LIF-2", "LIF-6")
async def test_a_server_that_takes_a_minute_to_load_is_not_failed_for_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    start = trio.current_time()
    node, server = Node(), Server(lambda now: now - start > 60)
    register(node, health={"failure_threshold": 1})
    await node.run({"http": server}, 120)
    assert node.statuses() == ["pending", "ready"]


@pytest.mark.req("LIF-2", "LIF-3")
async def test_a_dead_worker_goes_from_ready_over_not_ready_to_failed_and_is_asked_no_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    start = trio.current_time()
    node, server = Node(), Server(lambda now: now - start < 30)
    register(node)
    await node.run({"http": server}, 600)
    assert node.statuses() == ["pending", "ready", "not_ready", "failed"]
    asked = len(server.asked)
    server.up = lambda now: True
    await node.run({"http": server}, 600)
    assert len(server.asked) == asked
    assert node.statuses()[-1] == "failed"


@pytest.mark.req("LIF-3")
async def test_a_failed_worker_starts_over_when_it_is_replaced(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node, server = Node(), Server(lambda now: False)
    id = register(node, health={"check_interval_secs": 1})
    await node.run({"http": server}, 100)
    assert node.statuses() == ["pending", "failed"]
    server.up = lambda now: True
    node.plane.replace(id, parse_spec({"url": "http://127.0.0.1:9"}), None, trio.current_time())
    await node.run({"http": server}, 2)
    assert node.statuses() == ["pending", "failed", "pending", "ready"]


@pytest.mark.req("LIF-3")
async def test_with_the_option_a_failed_worker_is_asked_once_a_minute_and_comes_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    start = trio.current_time()
    settings = PlaneSettings(publish_loopback=True, health=HealthSettings(recovers=True))
    node, server = Node(settings), Server(lambda now: now - start > 1200)
    register(node, health={"check_interval_secs": 1})
    await node.run({"http": server}, 1300)
    assert node.statuses() == ["pending", "failed", "pending", "ready"]
    failed_at = node.changes[1][0]
    assert 15 <= len([at for at in server.asked if failed_at < at < start + 1200]) <= 25


@pytest.mark.req("LIF-2")
async def test_a_flapping_worker_reaches_failed(autojump_clock: trio.testing.MockClock) -> None:
    node, server = Node(), Server(lambda now: False)
    server.up = lambda now: len(server.asked) % 2 == 0
    register(node, health={"check_interval_secs": 1})
    await node.run({"http": server}, 200)
    assert node.statuses() == ["pending", "failed"]


@pytest.mark.req("LIF-4")
async def test_a_cause_is_told_once_per_change(autojump_clock: trio.testing.MockClock) -> None:
    node, server = Node(), Server(lambda now: False)
    id = register(node)
    await node.run({"http": server}, 100)
    told = [fields["cause"] for event, fields in node.notices if event == "health_check_failed"]
    assert told == ["connection refused"]
    worker = node.plane.registry.get(id)
    assert worker is not None
    assert worker.health.last_error == "connection refused"


@pytest.mark.req("LIF-5")
async def test_a_failed_local_worker_is_removed_where_that_is_switched_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    settings = PlaneSettings(publish_loopback=True, remove_failed_workers=True)
    node, server = Node(settings), Server(lambda now: False)
    id = register(node, health={"check_interval_secs": 1})
    await node.run({"http": server}, 100)
    assert node.statuses()[-1] == "removed"
    assert node.plane.registry.get(id) is None


@pytest.mark.req("LIF-3", "LIF-9")
async def test_a_draining_worker_is_not_asked(autojump_clock: trio.testing.MockClock) -> None:
    node, server = Node(), Server(lambda now: True)
    id = register(node)
    await node.run({"http": server}, 5)
    node.plane.drain(id, trio.current_time())
    asked = len(server.asked)
    await node.run({"http": server}, 100)
    assert len(server.asked) == asked
    node.plane.undrain(id, trio.current_time())
    await node.run({"http": server}, 2)
    assert node.statuses() == ["pending", "ready", "draining", "pending", "ready"]


@pytest.mark.req("LIF-1")
async def test_without_checks_nobody_is_asked_and_one_that_wants_checks_still_gets_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    settings = PlaneSettings(publish_loopback=True, health=HealthSettings(disabled=True))
    node, server = Node(settings), Server(lambda now: False)
    register(node)
    await node.run({"http": server}, 100)
    assert (node.statuses(), server.asked) == (["ready"], [])
    register(node, "http://127.0.0.1:10", health={"disable_health_check": False})
    await node.run({"http": server}, 5)
    assert server.asked
    assert node.statuses() == ["ready", "pending"]


@pytest.mark.req("REG-6")
async def test_a_check_started_before_a_replacement_does_not_count_after_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node = Node()
    id = register(node)
    (old,) = node.plane.due_checks(trio.current_time(), 10)
    spec = parse_spec({"url": "http://127.0.0.1:9", "health": {"success_threshold": 1}})
    node.plane.replace(id, spec, None, trio.current_time())
    node.plane.check_done(old.passed(), trio.current_time())
    assert node.statuses() == ["pending"]
    (new,) = node.plane.due_checks(trio.current_time(), 10)
    assert new.revision > old.revision
    node.plane.check_done(new.passed(), trio.current_time())
    assert node.statuses() == ["pending", "ready"]


@pytest.mark.req("LIF-2", "LIF-7")
async def test_a_grpc_worker_that_cannot_be_connected_to_reaches_failed() -> None:
    with grpc_engine("vllm") as gone:
        pass
    health = HealthSettings(fast_window_s=0.0, check_interval_s=0.01, failure_threshold=1)
    node = Node(PlaneSettings(publish_loopback=True, health=health))
    id = register(node, gone.url, runtime_type="vllm", connection_mode="grpc")
    loop = HealthLoop(node.plane, {"grpc": GrpcChecker()})
    node.plane.on_wake(loop.wake)
    failed = trio.Event()

    def look() -> None:
        if node.statuses()[-1] == "failed":
            failed.set()

    events = node.plane.events.subscribe(look)
    async with trio.open_nursery() as nursery:
        await nursery.start(loop.run)
        with trio.fail_after(20):
            await failed.wait()
        nursery.cancel_scope.cancel()
    events.close()
    worker = node.plane.registry.get(id)
    assert worker is not None
    assert worker.health.last_error == "connection refused"
    assert worker.checks_failed == 10


@pytest.mark.slow
@pytest.mark.req("LIF-6", "LIF-7", "CAP-3", "CAP-6")
async def test_workers_of_every_kind_become_ready_and_count_over_real_sockets(tmp_path: Path) -> None:
    http, grpc = HttpClient(), GrpcChecker()
    checkers: dict[str, Checker] = {
        "http": HttpChecker(http),
        "https": HttpChecker(http),
        "grpc": grpc,
        "grpcs": grpc,
        "ipc": IpcChecker(),
    }
    node = Node()
    tracker = CapacityTracker(node.plane.events, lambda: node.plane.registry, CapacitySettings())
    loop = HealthLoop(node.plane, checkers)
    node.plane.on_wake(loop.wake)
    async with http_engine() as openai, unix_engine(tmp_path / "s") as ipc:
        with grpc_engine("sglang") as sglang, grpc_engine("trtllm") as trtllm:
            openai.tells("/get_server_info", {"max_running_requests": 100})
            sglang.ranks = [20, 20]
            async with trio.open_nursery() as nursery:
                await nursery.start(loop.run)
                await nursery.start(
                    run_capacity_loop, tracker, node.plane.registry.by_url, ServerInfo(http, grpc)
                )
                register(node, openai.url, api_key="k-1")
                register(node, sglang.url, runtime_type="sglang", connection_mode="grpc")
                register(node, trtllm.url, runtime_type="trtllm", connection_mode="grpc")
                register(node, ipc, connection_mode="zmq", labels={"max_running_requests": "8"})
                with trio.fail_after(3):
                    watched = trio.Event()
                    watch = tracker.watch(lambda: watched.set())
                    while (latest := watch.take()) is None or latest.capacity != 100 + 40 + 64 + 8:
                        await watched.wait()
                        watched = trio.Event()
                assert (latest.source, latest.workers_available) == ("mixed", 4)
                nursery.cancel_scope.cancel()
    assert all(asked.headers["authorization"] == "Bearer k-1" for asked in openai.asked)
    assert (http.idle, grpc.open_channels) == (0, 0)


@pytest.mark.req("LIF-4")
async def test_a_node_that_is_out_of_files_thinks_no_worse_of_its_workers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    start = trio.current_time()
    node, server = Node(), Server(lambda now: now - start < 30)
    server.cause = OUT_OF_FILES
    register(node)
    await node.run({"http": server}, 600)
    assert node.statuses() == ["pending", "ready"]
    assert len(server.asked) > 20, "it goes on asking"
    assert ("health_check_impossible", {"url": "http://127.0.0.1:9", "cause": OUT_OF_FILES}) in node.notices
