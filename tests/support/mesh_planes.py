"""Worker planes over real mesh nodes, joined in memory on virtual time: the two rooms together.

`MeshPlanes` is the protocol room's `Pump` with a plane on every node, which is told of changed keys and
members as the daemon's loops tell it. Health checks are off: here it is about who holds what.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from crdt.prefixes import Prefix, PrefixTable, Rule
from meshd.protocol.node import MeshNode
from meshd.workers.core import PlaneSettings
from meshd.workers.events import Event, Subscription
from meshd.workers.health_machine import HealthSettings
from meshd.workers.plane import WorkerPlane
from meshd.workers.record import PREFIX, classify
from meshd.workers.worker import Worker
from tests.support import pump
from tests.support.planes import URL, spec

SETTINGS = PlaneSettings(health=HealthSettings(disabled=True, drain_settle_s=0))


def worker_prefixes() -> PrefixTable:
    """The prefixes as the daemon registers them."""
    return PrefixTable(Prefix(PREFIX, Rule.SINGLE_WRITER, classify), Prefix("config:", Rule.MULTI_WRITER))


class MeshPlanes(pump.Pump):
    """A cluster with workers. Made by `mesh_planes`, which registers the right prefixes."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed)
        self.planes: dict[str, WorkerPlane] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._states: dict[str, dict[str, str]] = {}

    def start(self, name: str, *args: Any, **settings: Any) -> MeshNode:
        """Start a life of a node, with its plane."""
        self.planes.pop(name, None)
        node = super().start(name, *args, **settings)
        rng = random.Random(self.rng.getrandbits(64))
        plane = self.planes[name] = WorkerPlane(SETTINGS, node.store, rng, self.now, meta=node.store)
        self._subscriptions[name] = plane.events.subscribe()
        self._states[name] = {}
        self._perform(name)
        return node

    def crash(self, name: str) -> None:
        """End a life without a word."""
        super().crash(name)
        del self.planes[name]

    def register(self, name: str, url: str = URL, **fields: object) -> Worker:
        """Register a worker on a node."""
        worker = self.planes[name].register(spec(url, **fields), self.now)
        self._perform(name)
        return worker

    def remove(self, name: str, id: str) -> None:
        """Remove a worker on a node."""
        self.planes[name].remove(id, self.now)
        self._perform(name)

    def workers(self, name: str) -> dict[str, tuple[str, str, str]]:
        """Return url -> (id, origin, owner) as a node has them."""
        registry = self.planes[name].registry
        return {worker.url: (worker.id, worker.origin, worker.owner) for worker in registry}

    def events(self, name: str) -> list[Event]:
        """Return a node's events since the last call."""
        return self._subscriptions[name].take(10_000)

    def _perform(self, name: str) -> None:
        super()._perform(name)
        plane, node = self.planes.get(name), self.nodes.get(name)
        if plane is None or node is None:
            return
        for owner in self.nodes:
            state = node.store.owner_state(owner)
            if self._states[name].get(owner) != state:
                self._states[name][owner] = state
                plane.owner_changed(owner, self.now)
        while self.changed[name] or plane.has_news:
            keys, self.changed[name] = self.changed[name], []
            plane.keys_changed(keys, self.now)
            plane.step(self.now, 1000)
            super()._perform(name)


@pytest.fixture
def mesh(monkeypatch: pytest.MonkeyPatch) -> MeshPlanes:
    """A cluster without nodes yet, whose nodes know worker records."""
    monkeypatch.setattr(pump, "prefixes", worker_prefixes)
    return MeshPlanes()
