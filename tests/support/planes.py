"""Several worker planes over a fake mesh, on virtual time: the worker room as a whole, without a network.

`Planes` holds one plane per node, one clock, and a table of which URLs answer health checks. `settle`
exchanges news until nothing changes; `run` lets time pass and makes the checks that fall due. Nothing here
sleeps.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from meshd.workers.core import PlaneSettings
from meshd.workers.events import Event, Subscription
from meshd.workers.health_machine import HealthSettings
from meshd.workers.health_schedule import CheckTarget
from meshd.workers.model import WorkerSpec, parse_spec
from meshd.workers.plane import WorkerPlane
from meshd.workers.publishing import Sealer
from meshd.workers.store_view import MemoryMeta
from meshd.workers.worker import Worker
from tests.support.fake_store import FakeMesh, FakeStore

URL = "http://10.0.0.1:8000"


def spec(url: str = URL, **fields: object) -> WorkerSpec:
    """Make a spec as the API would of a body with these fields."""
    return parse_spec({"url": url, **fields})


class Node:
    """One node: its store, its disk, its plane, and all events since the last look."""

    def __init__(
        self, planes: Planes, name: str, settings: PlaneSettings, sealer: Sealer | None = None
    ) -> None:
        self._planes = planes
        self._sealer = sealer
        self.name = name
        self.settings = settings
        self.store: FakeStore = planes.mesh.store(name)
        self.meta = MemoryMeta()
        self.notices: list[tuple[str, str, dict[str, object]]] = []
        self.start()

    def start(self) -> None:
        """Begin a life of the plane over the store as it is."""
        self.plane = WorkerPlane(
            self.settings,
            self.store,
            random.Random(self.name),
            self._planes.now,
            meta=self.meta,
            sealer=self._sealer,
        )
        self.plane.on_notice(lambda *notice: self.notices.append(notice))
        self._subscription: Subscription = self.plane.events.subscribe()

    def restart(self) -> None:
        """End this life and begin the next with the same disk."""
        self.store.restart()
        self.start()

    def register(self, url: str = URL, **fields: object) -> Worker:
        """Register a worker."""
        return self.plane.register(spec(url, **fields), self._planes.now)

    def worker(self, url: str = URL) -> Worker:
        """Return the worker of a URL, which must be there."""
        worker = self.plane.registry.by_url(url)
        assert worker is not None, f"{url} is not known on {self.name}"
        return worker

    def status(self, url: str = URL) -> str | None:
        """Return the status of a URL, None where it is not known."""
        worker = self.plane.registry.by_url(url)
        return None if worker is None else worker.status

    def events(self) -> list[Event]:
        """Return the events since the last call."""
        return self._subscription.take(10_000)

    def kinds(self) -> list[str]:
        """Return the kinds of the events since the last call."""
        return [event.kind for event in self.events()]

    def catch_up(self, budget: int = 1000) -> None:
        """Take in what the store has, until nothing is left to do."""
        for _ in range(1000):
            self.plane.keys_changed(self.store.take_changed(), self._planes.now)
            if not self.plane.step(self._planes.now, budget) and not self.store.changed:
                return
        raise AssertionError(f"{self.name} does not come to rest")


class Planes:
    """Nodes on one clock."""

    def __init__(self, *names: str, **settings: object) -> None:
        self.now = 1000.0
        self.mesh = FakeMesh()
        self.answers: Callable[[str, str], str | None] = lambda node, url: None
        """(node, url) -> cause of failure, or None for a pass."""
        self.watch: Callable[[str, CheckTarget], object] = lambda node, target: None
        """Told of every check before it is made."""
        self.nodes = {name: self.add(name, **settings) for name in names}  # type: ignore[arg-type]  # as below

    def add(self, name: str, *, sealer: Sealer | None = None, **settings: object) -> Node:
        """Make a node; health checks are off unless `health` says otherwise."""
        settings.setdefault("health", HealthSettings(disabled=True, drain_settle_s=0))
        return Node(self, name, PlaneSettings(**settings), sealer)  # type: ignore[arg-type]  # real fields

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def settle(self) -> None:
        """Exchange and take in news until nothing changes any more."""
        for _ in range(100):
            for node in self.nodes.values():
                node.catch_up()
            if not self.mesh.deliver():
                return
        raise AssertionError("the nodes do not come to rest")

    def set_state(self, name: str, state: str) -> None:
        """Let every other node see this one in a state."""
        self.mesh.states[name] = state
        for node in self.nodes.values():
            if node.name != name:
                node.plane.owner_changed(name, self.now)
        self.settle()

    def run(self, seconds: float) -> None:
        """Let time pass: ticks, checks at their deadlines, and news in between."""
        end = self.now + seconds
        while True:
            self.settle()
            deadlines = [node.plane.next_deadline() for node in self.nodes.values()]
            due = min((at for at in deadlines if at is not None), default=end)
            if due > end:
                break
            self.now = max(self.now, due)
            for node in self.nodes.values():
                node.plane.tick(self.now)
                for request in node.plane.due_checks(self.now, 128):
                    self.watch(node.name, request.target)
                    cause = self.answers(node.name, request.target.url)
                    result = request.passed() if cause is None else request.failed(cause)
                    node.plane.check_done(result, self.now)
            if due >= end:
                break
        self.now = end
        self.settle()
