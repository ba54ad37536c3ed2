"""Real nodes on an unreliable network with unreliable disks and clocks, in one process, from one seed.

A *place* is a machine: it has a disk and a clock, and at most one life runs there. The node called `a` lives
at place `a`; a copy of its data directory lives at place `a2`, and calls itself `a` too.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from crdt.persist import StoreOp
from meshd.protocol.effects import CloseConnection, Dial, KeysChanged, Notice, Persist, Wake
from meshd.protocol.node import MeshNode
from meshd.protocol.settings import NodeSettings
from meshd.storage.memory import MemoryDisk, MemoryStorage
from meshd.wire.messages import Message
from tests.campaign.network import Network
from tests.support.maps import table

SHORTEST_TICK_S = 0.0005
DAY_MS = 86_400_000


@dataclass
class Clock:
    """A wall clock: ms since 1970, wrong by as much as one likes."""

    world: World
    offset_ms: int = 1_700_000_000_000

    def __call__(self) -> int:
        return int(self.world.net.now * 1000) + self.offset_ms


@dataclass
class Place:
    """A machine. `node` None: nothing runs there now."""

    name: str
    called: str
    clock: Clock
    disk: MemoryDisk = field(default_factory=MemoryDisk)
    storage: MemoryStorage | None = None
    node: MeshNode | None = None
    lives: int = 0
    ticked_at: float = 0.0
    image: MemoryDisk | None = None
    """The disk as it was when somebody made an image of it."""
    asleep: MeshNode | None = None
    """A machine image with a process in it, taken while it ran."""


class World:
    """Places, the network between them, and what may befall them."""

    def __init__(
        self, seed: int, names: tuple[str, ...], codec: bool = False, settings: dict[str, Any] | None = None
    ) -> None:
        self.rng = random.Random(seed)
        self.net = Network(self.rng, self, codec)
        self.names = names
        self.settings = settings or {}
        self.places = {name: Place(name, name, Clock(self)) for name in names}
        self.watchers: list[Callable[[str], None]] = []
        """Called with a place's name after everything that may have changed its node."""
        self.notices: list[tuple[str, str, dict[str, object]]] = []
        self.key_changes = 0

    # -- lives -----------------------------------------------------------------------------------

    def start(self, name: str) -> MeshNode:
        """Start a life at a place, from what its disk holds."""
        place = self.places[name]
        assert place.node is None
        place.lives += 1
        place.storage = MemoryStorage(place.disk, node_name=place.called)
        stored = place.storage.load()
        settings = NodeSettings(node=place.called, **self.settings)
        rng = random.Random(self.rng.getrandbits(64))
        node = MeshNode(settings, table(), rng, self.net.now, place.clock, stored.logs, stored.meta)
        node.address = f"{name}:1"
        place.node = node
        place.ticked_at = 0.0
        node.add_addresses([f"{other}:1" for other in self.names if other != name], "static", self.net.now)
        self.perform(name)
        return node

    def crash(self, name: str, lose: int = 0, lying: bool = False) -> int:
        """The life ends at once; the disk loses its newest `lose` writes. Returns how many it lost."""
        place = self.places[name]
        assert place.node is not None
        place.node = None
        place.storage = None
        lost = place.disk.crash(lose, lying=lying)
        self.net.place_died(name)
        return lost

    def clone(self, name: str) -> str:
        """Copy a data directory to another machine; returns the place, where nothing runs yet."""
        other = f"{name}2"
        place = self.places.get(other)
        if place is None:
            place = self.places[other] = Place(other, name, Clock(self))
        place.disk = self.places[name].disk.clone()
        return other

    def take_image(self, name: str, with_process: bool = False) -> None:
        """Keep the disk (and the running process) as they are now."""
        place = self.places[name]
        place.image = place.disk.clone()
        memo = {id(self): self}
        place.asleep = copy.deepcopy(place.node, memo) if with_process else None

    def resume(self, name: str) -> None:
        """A machine image goes on where it was taken: same process, same life, older state."""
        place = self.places[name]
        assert place.image is not None
        node, place.asleep = place.asleep, None
        assert node is not None
        if place.node is not None:
            self.crash(name)
        place.disk.revert(place.image)
        place.storage = MemoryStorage(place.disk, node_name=place.called)
        place.storage.load()
        place.node = node
        place.lives += 1
        for conn in sorted(node.connections.by_conn):
            node.connection_closed(conn, "resumed", self.net.now)
        self.perform(name)

    def running(self) -> list[str]:
        """The places at which a life runs."""
        return [name for name, place in self.places.items() if place.node is not None]

    def node(self, name: str) -> MeshNode:
        """The node that runs at a place."""
        node = self.places[name].node
        assert node is not None
        return node

    # -- time ------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let virtual time pass."""
        until = self.net.now + seconds
        while True:
            at = self._next_time()
            if at > until:
                self.net.now = until
                return
            self.net.now = max(self.net.now, at)
            self.net.run_due()
            for name in list(self.places):
                self._tick(name)

    def _next_time(self) -> float:
        times = [event] if (event := self.net.next_event()) is not None else []
        for place in self.places.values():
            if place.node is not None:
                deadline = place.node.next_deadline()
                if deadline is not None:
                    times.append(max(deadline, place.ticked_at + SHORTEST_TICK_S))
        return min(times, default=float("inf"))

    def _tick(self, name: str) -> None:
        place = self.places[name]
        if place.node is None:
            return
        deadline = place.node.next_deadline()
        now = self.net.now
        if deadline is not None and deadline <= now and now >= place.ticked_at + SHORTEST_TICK_S:
            place.ticked_at = now
            place.node.tick(now)
            self.perform(name)

    # -- effects ---------------------------------------------------------------------------------

    def perform(self, name: str) -> None:
        """Do what the node at a place wants done."""
        place = self.places[name]
        while place.node is not None and (effects := place.node.take_effects()):
            for effect in effects:
                match effect:
                    case Wake(conn):
                        self._drain(name, conn)
                    case CloseConnection(conn, reason):
                        self._drain(name, conn)
                        self.net.close(name, conn, reason)
                    case Dial(address):
                        self.net.dial(name, place.lives, address)
                    case Persist(ops, durable):
                        self._store(place, ops, durable)
                    case KeysChanged(keys):
                        self.key_changes += len(keys)
                    case Notice(_, event, fields):
                        self.notices.append((name, event, fields))
                    case _:
                        pass
        for watcher in self.watchers:
            watcher(name)

    @staticmethod
    def _store(place: Place, ops: tuple[StoreOp, ...], durable: bool) -> None:
        assert place.storage is not None
        if durable:
            place.storage.write_durably(ops)
        else:
            place.storage.write(ops)

    def _drain(self, name: str, conn: int) -> None:
        place = self.places[name]
        while place.node is not None and self.net.has_room(name, conn):
            message = place.node.next_message(conn, self.net.now)
            if message is None:
                return
            self.net.send(name, conn, message)

    # -- the network's host ----------------------------------------------------------------------

    def life_of(self, place: str) -> int | None:
        found = self.places.get(place)
        return None if found is None or found.node is None else found.lives

    def deliver(self, place: str, life: int, conn: int, message: Message) -> None:
        if self.life_of(place) == life:
            self.node(place).receive(conn, message, self.net.now)
            self.perform(place)

    def room(self, place: str, life: int, conn: int) -> None:
        if self.life_of(place) == life:
            self._drain(place, conn)
            self.perform(place)

    def closed(self, place: str, life: int, conn: int, reason: str) -> None:
        if self.life_of(place) == life:
            self.node(place).connection_closed(conn, reason, self.net.now)
            self.perform(place)

    def opened(self, place: str, life: int, conn: int, dialled: str | None, remote: str) -> None:
        if self.life_of(place) == life:
            self.node(place).connection_opened(conn, dialled, remote, self.net.now)
            self.perform(place)

    def dial_failed(self, place: str, life: int, address: str, reason: str) -> None:
        if self.life_of(place) == life:
            self.node(place).dial_failed(address, reason, self.net.now)
            self.perform(place)
