"""One life of a simulated node: the real node and worker plane, driven on virtual time.

Does what the driver and the worker loops do under trio: performs the node's effects, keeps every deadline,
makes the checks that are due, works off marks in slices. It decides nothing: whatever is decided is decided
in `MeshNode` and `WorkerPlane`, by the calls that the trio loops make. A process that is stopped defers
everything until it goes on; one that is dead does nothing any more.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from meshd.build import build_node, build_plane
from meshd.config import Config
from meshd.errors import StorageError
from meshd.live_settings import LiveSettings
from meshd.protocol.effects import CloseConnection, Dial, KeysChanged, MemberChanged, Notice, Persist, Wake
from meshd.runtime.limits import DEADLINE_READ_S
from meshd.storage.memory import MemoryStorage
from meshd.testing.disk import SimPersister
from meshd.testing.loops import WorkerLoops
from meshd.testing.network import PORT, End
from meshd.testing.version import newer_frame
from meshd.wire.codec import decode, encode
from meshd.wire.errors import WireError
from meshd.workers.capacity import capacity_settings
from meshd.workers.capacity_tracker import CapacityTracker
from meshd.workers.events import Event

if TYPE_CHECKING:
    from meshd.testing.cluster import SimCluster
    from meshd.testing.place import SimNode
    from meshd.wire.messages import Message

SHORTEST_TICK_S = 0.001


class LogLevel:
    """The level of a log that nobody reads."""

    def __init__(self, level: str) -> None:
        self.level = level

    def set_level(self, level: str) -> None:
        """See `LogControl`."""
        self.level = level


class Process:
    """A process of the node at `place`, from its start until it ends."""

    def __init__(self, cluster: SimCluster, place: SimNode, seeds: Iterable[str]) -> None:
        self.name = place.name
        self.life = place.lives
        self.seeds = tuple(seeds)
        self.config: Config = place.config
        self.alive, self.paused = True, False
        self.newer = place.newer
        """Whether it speaks as a later version would."""
        self._cluster = cluster
        self._heap = cluster.heap
        self._clock = place.clock
        self._network = cluster.network
        self._checks = cluster.checks
        self._trace = cluster.trace
        self._deferred: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.ends: dict[int, End] = {}
        self._next_number = 1
        self._poked: dict[int, None] = {}
        self._dispatching = self._woken = False
        self._holds = 0
        self._timers: dict[str, float] = {}
        self._ticked_at = -1.0
        self._deadlines_read_at = -1.0
        self._will_read = False
        self.leaving = False
        durability = self.config.store.durability
        self.storage = MemoryStorage(place.disk, durability=durability, node_name=self.name)
        try:
            state = self.storage.load()
        except StorageError:
            self.storage.close()  # this process ends before it began
            raise
        for problem in state.problems:
            self.note("disk", problem)
        self.persister = SimPersister(self.storage, self.later, place.write_s)
        rng = random.Random(f"{cluster.seed}/{self.name}/{self.life}")
        self.node = build_node(self.config, state, rng, self.now, self.wall_ms)
        self.node.address = f"{self.name}:{PORT}"
        self._checks.started(self)
        self.plane = build_plane(self.config, self.node, rng, self.now)
        self.plane.on_wake(self._wake)
        self.plane.on_notice(self._plane_notice)
        workers = self.plane.registry
        self.capacity = CapacityTracker(
            self.plane.events, lambda: workers.list().workers, capacity_settings(self.config.capacity)
        )
        self.settings = LiveSettings(
            self.config,
            self.node.store,
            self.plane,
            self.capacity,
            LogLevel(self.config.log.level),
            clock=lambda: self.now,
            notice=self._plane_notice,
        )
        self.settings.apply()
        self.note_events = self._trace.on
        self.events = self.plane.events.subscribe()
        self._network.listen(self)
        self.node.add_addresses([f"{seed}:{PORT}" for seed in self.seeds], "static", self.now)
        self._loops = WorkerLoops(self, cluster.health, self._checks)
        self._woken = True
        self.dispatch()

    # -- time ------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """This machine's monotonic clock."""
        return self._clock.monotonic(self._heap.now)

    def wall_ms(self) -> int:
        """This machine's wall clock."""
        return self._clock.wall_ms(self._heap.now)

    def call(self, action: Callable[..., object], *args: Any) -> None:
        """Do something in this process: at once, when it goes on, or never."""
        if not self.alive:
            return
        if self.paused:
            self._deferred.append((action, args))
        else:
            action(*args)

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something after a delay by the simulation's time."""
        self._heap.after(delay_s, self.call, action)

    def _at(self, monotonic: float, what: str, action: Callable[[], None]) -> None:
        """Keep a deadline. One that moved on is found out when it comes."""
        time = max(self._clock.time_of(monotonic), self._heap.now)
        planned = self._timers.get(what)
        if planned is not None and planned <= time and planned >= self._heap.now:
            return
        self._timers[what] = time
        self._heap.at(time, self._timer, what, time, action)

    def _timer(self, what: str, time: float, action: Callable[[], None]) -> None:
        if self._timers.get(what) == time:
            del self._timers[what]
            self.call(action)

    def _keep_time(self) -> None:
        """Read all deadlines; in a burst of inputs only once in a while, as the driver does."""
        now = self._heap.now
        if now < self._deadlines_read_at + DEADLINE_READ_S:
            if not self._will_read:
                self._will_read = True
                self._heap.at(self._deadlines_read_at + DEADLINE_READ_S, self.call, self._look_again)
            return
        self._deadlines_read_at = now
        deadline = self.node.next_deadline()
        if deadline is not None:
            self._at(max(deadline, self._ticked_at + SHORTEST_TICK_S), "node", self._tick_node)
        deadline = self.plane.next_tick()
        if deadline is not None:
            self._at(deadline, "plane", self._tick_plane)
        deadline = self._loops.next_check()
        if deadline is not None:
            self._at(deadline, "checks", self._make_checks)

    def _look_again(self) -> None:
        self._will_read = False
        self._keep_time()

    def _tick_node(self) -> None:
        now = self.now
        deadline = self.node.next_deadline()
        if deadline is not None and deadline <= now + 1e-6:
            self._ticked_at = now
            self.node.tick(now)
        self.dispatch()

    def _tick_plane(self) -> None:
        self._woken = True
        self.dispatch()

    def _make_checks(self) -> None:
        self._loops.make_checks()
        self._keep_time()

    def _wake(self) -> None:
        self._woken = True

    # -- pausing and ending ----------------------------------------------------------------------

    def pause(self) -> None:
        """Stop the process, as SIGSTOP does."""
        self.paused = True

    def resume(self) -> None:
        """Let it go on: what came meanwhile is worked off first."""
        self.paused = False
        while self._deferred and not self.paused and self.alive:
            action, args = self._deferred.popleft()
            action(*args)
        if self.alive:
            self._network.resumed(self)
            self.dispatch()

    def kill(self, silently: bool = False) -> None:
        """End it at once. `silently`: with its machine, so that nobody is told."""
        self.alive = False
        self._deferred.clear()
        self._network.gone(self, silently)

    def leave(self, withdraw: bool, stopped: Callable[[], None]) -> None:
        """Say goodbye, wait for the disk, end; then call `stopped`."""
        if self.leaving:
            return
        self.leaving = True
        if withdraw:
            self.plane.withdraw()
            self.dispatch()
            writes = self._checks.withdrawn(self)
            self.persister.when_committed(lambda: self._checks.acknowledged(self, writes))
        self.dispatch()
        self._checks.leaving(self)
        self.node.leave(withdraw, self.now)
        self.dispatch()

        def finish() -> None:
            for end in self._network.ends_of(self):
                end.closing = end.closing or "stopped"
                self._network.goodbye(end)
            self.alive = False
            self._network.gone(self, silently=False)
            self.storage.close()
            stopped()

        self.persister.flush(finish)

    # -- what the network tells ------------------------------------------------------------------

    def connected(self, end: End, address: str | None) -> None:
        """A connection stands; `address` None: it was accepted."""
        if not end.open:
            return
        end.number = self._next_number
        self._next_number += 1
        self.ends[end.number] = end
        remote = address or f"{end.far.process.name}:{40_000 + end.number}"
        self.node.connection_opened(end.number, address, remote, self.now)
        self._poked[end.number] = None
        self.dispatch()

    def dial_failed(self, address: str, reason: str) -> None:
        """A connection did not come about."""
        self.node.dial_failed(address, reason, self.now)
        self.dispatch()

    def arrived(self, end: End, frame: bytes) -> None:
        """A frame is here."""
        if end.closing or end.number not in self.ends:
            return
        try:
            message = decode(frame)
        except WireError as error:
            self.node.garbage(end.number, str(error), self.now)
        else:
            if self._trace.frames:
                self.note("recv", f"{end.far.process.name} {type(message).__name__}")
            self.node.receive(end.number, message, self.now)
            self._checks.received(self, end, message)
        self.dispatch()

    def disconnected(self, end: End, reason: str) -> None:
        """A connection is gone."""
        if self.ends.pop(end.number, None) is not None:
            self.node.connection_closed(end.number, reason, self.now)
            self.dispatch()

    def writable(self, end: End) -> None:
        """There is room on a connection again."""
        if end.number in self.ends:
            self._poked[end.number] = None
            self.dispatch()

    # -- effects ---------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Perform all effects that wait, and whatever follows from them; then keep the deadlines."""
        if self._dispatching or not self.alive:
            return
        self._dispatching = True
        try:
            while True:
                if effects := self.node.take_effects():
                    for effect in effects:
                        self._perform(effect)
                elif self._woken:
                    self._woken = False
                    self.plane.tick(self.now)
                elif self._poked and not self._holds:
                    self._write(next(iter(self._poked)))
                else:
                    break
        finally:
            self._dispatching = False
        if self.plane.has_news:
            self._loops.plan_inbound()
        self._keep_time()
        self._checks.dispatched(self)

    def _perform(self, effect: object) -> None:
        match effect:
            case Wake(number):
                self._poked[number] = None
                if not self._holds:
                    self._write(number)
            case Persist(ops, durable):
                self._checks.persisted(self, ops)
                self.persister.submit(ops, durable)
                if durable:
                    self._holds += 1
                    self.persister.when_committed(self._release_sends)
            case KeysChanged(keys):
                self.plane.take_in(keys, self.now)
                self.settings.keys_changed(keys)
                self._loops.interval_changed()
                self._checks.keys_changed(self, keys)
            case MemberChanged(name, state, previous):
                self.note("member", f"{name} is {state}" + (f", was {previous}" if previous else ""))
                self.plane.owner_changed(name, self.now)
            case CloseConnection(number, reason):
                end = self.ends.get(number)
                if end is not None and not end.closing:
                    end.closing = reason
                    self._poked[number] = None
            case Dial(address):
                self._network.dial(self, address)
            case Notice(level, event, fields):
                self._checks.noticed(self, level, event, fields)
                self._told(level, event, fields)

    def _write(self, number: int) -> None:
        """Send what the node has to say on a connection now."""
        del self._poked[number]
        end = self.ends.get(number)
        if end is None or not end.open:
            return
        node, now = self.node, self.now
        while end.open:
            if not end.has_room:
                end.waiting = True
                return
            message = node.next_message(number, now)
            if message is None:
                break
            self._checks.sent(self, message)
            self._network.send(end, self._encode(message))
        if end.closing:
            self._network.goodbye(end)

    def _encode(self, message: Message) -> bytes:
        frame = encode(message)
        return newer_frame(frame) if self.newer else frame

    def _release_sends(self) -> None:
        self._holds -= 1
        self.dispatch()

    # -- telling ---------------------------------------------------------------------------------

    def note(self, kind: str, text: str) -> None:
        """Write a line into the trace."""
        self._trace.add(self._heap.now, self.name, kind, text)

    def note_event(self, event: Event) -> None:
        """Write a worker event into the trace."""
        worker = event.worker
        if worker is None:
            self.note("worker", event.kind)
        else:
            before = f", was {event.previous}" if event.previous else ""
            self.note("worker", f"{event.kind} {worker.url} {worker.origin} {worker.status}{before}")

    def _plane_notice(self, level: str, event: str, fields: dict[str, object]) -> None:
        self._checks.noticed(self, level, event, fields)
        self._told(level, event, fields)

    def _told(self, level: str, event: str, fields: dict[str, object]) -> None:
        if self._trace.on and level != "debug":
            told = " ".join(f"{name}={value}" for name, value in sorted(fields.items()))
            self.note("log", f"{level} {event} {told}")
