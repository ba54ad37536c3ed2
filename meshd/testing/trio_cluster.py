"""The second way to simulate: the trio runtime itself, on a mock clock, with streams in memory.

Slower than `SimCluster` by an order of magnitude, and nearer to what runs: the driver, the connections, the
worker loops and the health loop are those of the daemon. `run_seeded` makes a run repeat, byte for byte.

    async def scenario(cluster):
        cluster["a"].register("http://10.0.0.1:8000")
        await cluster.run_until(lambda: cluster["b"].routable(), 5)

    trace = run_seeded(scenario, nodes=3, seed=7)

What stays out of it, since it would not repeat: threads, DNS, real sockets, TLS.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from functools import partial
from typing import Any

import structlog
import trio
import trio.testing

from meshd.build import build_node, build_plane
from meshd.protocol.effects import MemberChanged
from meshd.protocol.node import MeshNode
from meshd.runtime.mesh import Mesh
from meshd.runtime.persister import DirectPersister
from meshd.storage.memory import MemoryDisk, MemoryStorage
from meshd.testing.clock import EPOCH_MS
from meshd.testing.cluster import SimTimeout
from meshd.testing.health import HealthScript
from meshd.testing.names import node_names
from meshd.testing.network import PORT
from meshd.testing.place import NotRunning, configuration
from meshd.testing.trace import CLUSTER, Trace
from meshd.testing.trio_network import TrioNetwork, TrioTransport
from meshd.workers.events import Subscription
from meshd.workers.health_loop import HealthLoop
from meshd.workers.health_schedule import CheckTarget
from meshd.workers.inbound_loop import run_inbound_loop
from meshd.workers.model import parse_spec
from meshd.workers.plane import WorkerPlane
from meshd.workers.publish_loop import run_publish_loop
from meshd.workers.reconcile_loop import run_reconcile_loop
from meshd.workers.urls import normalise_url
from meshd.workers.worker import Worker

LOOK_EVERY_S = 0.05
LINES_TOLD = 40
"""Lines of the trace that are shown with what a scenario raised."""


class ScriptedChecker:
    """Makes one node's checks as the script says."""

    def __init__(self, script: HealthScript, name: str) -> None:
        self._script = script
        self._name = name

    async def check(self, target: CheckTarget) -> str | None:
        """Return None for a pass, else the cause."""
        found = self._script.check(self._name, target.url, target.timeout_s)
        await trio.sleep(found.takes_s)
        return found.cause

    def close(self) -> None:
        """Hold nothing."""


class TrioNode:
    """One node, which outlives its lives."""

    def __init__(self, cluster: TrioCluster, name: str, settings: Mapping[str, object]) -> None:
        self.name = name
        self.disk = MemoryDisk()
        self.lives = 0
        self.config = configuration(name, dict(settings))
        self._cluster = cluster
        self._mesh: Mesh[MeshNode] | None = None
        self._plane: WorkerPlane | None = None
        self._scope: trio.CancelScope | None = None
        self._ended = trio.Event()

    @property
    def mesh(self) -> Mesh[MeshNode]:
        """The running mesh. Raises NotRunning."""
        if self._mesh is None:
            raise NotRunning(self.name)
        return self._mesh

    @property
    def plane(self) -> WorkerPlane:
        """The running worker plane. Raises NotRunning."""
        if self._plane is None:
            raise NotRunning(self.name)
        return self._plane

    @property
    def up(self) -> bool:
        """Whether it runs."""
        return self._mesh is not None

    def workers(self) -> dict[str, Worker]:
        """URL -> worker."""
        return {worker.url: worker for worker in self.plane.registry}

    def routable(self) -> set[str]:
        """URLs to which requests would be sent now."""
        return {worker.url for worker in self.plane.registry if worker.is_ready}

    def members(self) -> dict[str, str]:
        """Other members and their states."""
        return {member.name: member.state for member in self.mesh.node.roster}

    def digest(self) -> int:
        """One hash over all visible keys and values."""
        return self.mesh.node.map.digest

    def register(self, url: str, **fields: Any) -> Worker:
        """Register a worker."""
        worker = self.plane.register(parse_spec({"url": url, **fields}), trio.current_time())
        self.mesh.after_write()
        return worker

    def remove(self, url: str, drain: bool = True) -> None:
        """Remove an own worker."""
        worker = self.plane.registry.by_url(normalise_url(url))
        self.plane.remove("" if worker is None else worker.id, trio.current_time(), drain)
        self.mesh.after_write()

    async def live(
        self, seeds: Iterable[str], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """One life, until it is killed."""
        cluster, name = self._cluster, self.name
        self.lives += 1
        self._ended = trio.Event()
        storage = MemoryStorage(self.disk, durability=self.config.store.durability, node_name=name)
        rng = random.Random(f"{cluster.seed}/{name}/{self.lives}")
        now = trio.current_time()
        node = build_node(self.config, storage.load(), rng, now, cluster.wall_ms)
        mesh = Mesh(node, TrioTransport(cluster.network, name), DirectPersister(storage))
        plane = build_plane(self.config, node, rng, now)
        health = HealthLoop(plane, {"http": ScriptedChecker(cluster.health, name)})
        events = plane.events.subscribe(lambda: cluster.note_events(name, events))
        mesh.subscribe_members(partial(cluster.note_member, name))
        mesh.subscribe_keys(lambda keys: cluster.note(name, "keys", " ".join(keys)))
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                await nursery.start(partial(mesh.run, f"{name}:{PORT}"))
                plane.on_wake(health.wake)
                await nursery.start(run_publish_loop, plane, mesh)
                await nursery.start(run_inbound_loop, plane, mesh)
                interval_s = self.config.sync.reconcile_interval_s
                reconcile = partial(run_reconcile_loop, cpu_clock=lambda: 0.0)
                await nursery.start(reconcile, plane, mesh, lambda: interval_s)
                await nursery.start(health.run)
                mesh.add_addresses([f"{seed}:{PORT}" for seed in seeds], "static")
                self._mesh, self._plane = mesh, plane
                task_status.started()
        finally:
            self._mesh = self._plane = None
            self._ended.set()

    async def crash(self) -> None:
        """End the life at once; what it had written stays, since this disk takes writes at once."""
        if self._scope is not None and self.up:
            self._cluster.note(CLUSTER, "fault", f"crash of {self.name}")
            self._mesh = self._plane = None
            self._scope.cancel()
            await self._ended.wait()
            self.disk.crash()


class TrioCluster:
    """The cluster; made by `run_seeded`."""

    def __init__(self, nodes: int | Iterable[str], seed: int, settings: Mapping[str, object]) -> None:
        names = node_names(nodes) if isinstance(nodes, int) else list(nodes)
        if not names:
            raise ValueError("a cluster has at least one node")
        self.seed = seed
        self.trace = Trace()
        self.health = HealthScript()
        self.network = TrioNetwork(delay_s=0.001)
        self.nodes = {name: TrioNode(self, name, settings) for name in names}
        self.nursery: trio.Nursery
        self._began = 0.0

    def __getitem__(self, name: str) -> TrioNode:
        if name not in self.nodes:
            raise ValueError(f"there is no node {name!r}; there are {', '.join(self.nodes)}")
        return self.nodes[name]

    def wall_ms(self) -> int:
        """Everybody's wall clock."""
        return EPOCH_MS + int(self.now * 1000)

    @property
    def now(self) -> float:
        """Seconds since the simulation began."""
        return trio.current_time() - self._began

    async def begin(self) -> None:
        """Start all nodes."""
        self._began = trio.current_time()
        for name in self.nodes:
            await self.start(name)

    async def start(self, name: str) -> None:
        """Start a node, unless it runs; it joins all others."""
        if self[name].up:
            return
        self.note(CLUSTER, "cluster", f"start {name}")
        await self.nursery.start(self.nodes[name].live, [other for other in self.nodes if other != name])

    async def run_for(self, seconds: float) -> None:
        """Let time pass."""
        await trio.sleep(seconds)

    async def run_until(self, condition: Callable[[], object], timeout_s: float = 60.0) -> float:
        """Let time pass until `condition()`; returns how long that took. Raises SimTimeout."""
        began = self.now
        while not condition():
            if self.now >= began + timeout_s:
                raise SimTimeout(f"not so within {timeout_s:g} s")
            await trio.sleep(LOOK_EVERY_S)
        return self.now - began

    async def converge(self, timeout_s: float = 60.0) -> float:
        """Let time pass until all that run have one map; returns how long that took. Raises SimTimeout."""

        def agreed() -> bool:
            running = [node for node in self.nodes.values() if node.up]
            others = len(running) - 1
            met = all(list(node.members().values()).count("alive") >= others for node in running)
            return met and len({node.digest() for node in running}) == 1

        return await self.run_until(agreed, timeout_s)

    def partition(self, *groups: Iterable[str]) -> None:
        """Let nodes reach only those of their group; those that are not named form one of their own."""
        sides = [[self[name].name for name in group] for group in groups]
        sides.append([name for name in self.nodes if not any(name in side for side in sides)])
        self.note(CLUSTER, "fault", f"partition {' | '.join(','.join(side) for side in sides)}")
        for number, side in enumerate(sides):
            for other in sides[number + 1 :]:
                for a in side:
                    for b in other:
                        self.network.cut(a, b)

    def heal(self) -> None:
        """Let everybody reach everybody."""
        self.note(CLUSTER, "cluster", "heal the network")
        self.network.heal()

    # -- telling ---------------------------------------------------------------------------------

    def note(self, place: str, kind: str, text: str) -> None:
        """Write a line into the trace."""
        self.trace.add(self.now, place, kind, text)

    def note_member(self, place: str, change: MemberChanged) -> None:
        """Write a member's change into the trace."""
        self.note(place, "member", f"{change.name} is {change.state}")

    def note_events(self, place: str, events: Subscription) -> None:
        """Write what the plane tells into the trace."""
        for event in events.take():
            if event.worker is not None:
                worker = event.worker
                self.note(place, "worker", f"{event.kind} {worker.url} {worker.origin} {worker.status}")

    def note_log(self, logger: object, method: str, event: MutableMapping[str, Any]) -> str:
        """Write a log line into the trace instead of anywhere else."""
        told = " ".join(f"{name}={value}" for name, value in sorted(event.items()) if name != "exc_info")
        self.note(CLUSTER, "log", f"{method} {told}")
        raise structlog.DropEvent


Scenario = Callable[[TrioCluster], Awaitable[object]]


def run_seeded(
    scenario: Scenario,
    *,
    nodes: int | Iterable[str] = 3,
    seed: int = 0,
    settings: Mapping[str, object] | None = None,
) -> Trace:
    """Run a scenario under trio so that the seed alone decides what happens; returns the trace.

    Not to be called while trio runs. Log lines of the nodes go into the trace and nowhere else. What the
    scenario raises is raised as it is, with the last lines of the trace in a note.
    """
    from trio._core import _run

    cluster = TrioCluster(nodes, seed, settings or {})

    raised: list[Exception] = []

    async def main() -> None:
        async with trio.open_nursery() as cluster.nursery:
            try:
                await cluster.begin()
                await scenario(cluster)
            except Exception as error:
                raised.append(error)  # not out of the nursery, which would wrap it into a group
            cluster.nursery.cancel_scope.cancel()

    was, chance = _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r.getstate()
    configured = structlog.get_config()
    structlog.configure(processors=[cluster.note_log], cache_logger_on_first_use=False)
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # a constant that exists to be set by tests
    _run._r.seed(seed)
    try:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        _run._ALLOW_DETERMINISTIC_SCHEDULING = was  # type: ignore[misc]  # as above
        _run._r.setstate(chance)
        structlog.configure(**configured)
    for error in raised:
        last = "\n".join(map(str, cluster.trace.lines[-LINES_TOLD:]))
        error.add_note(f"simulated cluster under trio, seed {seed}:\n{last}")
        raise error
    return cluster.trace
