"""A whole cluster in one process, on virtual time, from one seed.

    cluster = SimCluster(3, seed=7)
    cluster["a"].register("http://10.0.0.1:8000")
    cluster.partition(["a"], ["b", "c"])
    cluster.run_for(60)
    cluster.heal()
    cluster.converge()

Every node is the real one: map, protocol, registry, health, sync and storage as the daemon runs them. Only
sockets, disks, clocks and health checks are played, and the test commands those. The same seed and the same
commands give the same run, byte for byte (see `trace`). Invariants are checked throughout; a broken one
raises `Violation` at the event that broke it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from meshd.testing.agreement import MapsAddUp, RegistriesAreWhole, differences
from meshd.testing.checks import Checks, Invariant, Violation
from meshd.testing.copies import DisksHoldAll, EventsTellAll, SettingsGoForward, TheLivingAreKept
from meshd.testing.faults import Faults
from meshd.testing.health import HealthScript
from meshd.testing.heap import EventHeap
from meshd.testing.inforce import CapacityAddsUp, SettingsAreInForce
from meshd.testing.invariants import (
    EventsSuffice,
    LocalsStay,
    LogsNeverGoBack,
    NobodyErrs,
    OneWriter,
    RemovedStaysRemoved,
    ReplicasAreStates,
    RoutableMeansChecked,
    VectorsTellTheTruth,
)
from meshd.testing.latency import LAN, Latency
from meshd.testing.ledger import Acknowledged
from meshd.testing.names import node_names
from meshd.testing.network import Network
from meshd.testing.place import Places, SimNode
from meshd.testing.process import Process
from meshd.testing.safety import MembersAreAsHeard, WhoCanTalkMeets
from meshd.testing.telling import LeaversAreShownAsLeft, LivesBeginOnDisk, NewsTravelsAtOnce
from meshd.testing.trace import Trace

INVARIANTS: tuple[type[Invariant], ...] = (
    ReplicasAreStates,
    LogsNeverGoBack,
    OneWriter,
    RemovedStaysRemoved,
    LocalsStay,
    VectorsTellTheTruth,
    RoutableMeansChecked,
    NobodyErrs,
    Acknowledged,
    MapsAddUp,
    RegistriesAreWhole,
    EventsSuffice,
    DisksHoldAll,
    EventsTellAll,
    SettingsGoForward,
    TheLivingAreKept,
    SettingsAreInForce,
    CapacityAddsUp,
    MembersAreAsHeard,
    WhoCanTalkMeets,
    LeaversAreShownAsLeft,
    NewsTravelsAtOnce,
    LivesBeginOnDisk,
)
"""All that is checked, in the order in which it is looked at."""

CONVERGE_S = 60.0
"""Within this, a cluster that is whole must agree: detection, dial pauses, requests, offers, retries."""

LOOK_EVERY_S = 0.05
"""How often `run_until` looks."""


class SimTimeout(AssertionError):
    """What was waited for did not come about."""


class SimCluster(Faults):
    """The cluster. Nodes are called `a`, `b`, `c`... unless names are given.

    `settings` are those of the configuration file by dotted name, for all nodes. With `links`, only these
    pairs of nodes can reach each other, as behind firewalls; all others have to hear of each other through
    them. With `start` false nobody runs yet. `trace_frames` tells every frame in the trace, too.
    """

    def __init__(
        self,
        nodes: int | Iterable[str] = 3,
        *,
        seed: int = 0,
        settings: Mapping[str, object] | None = None,
        latency: Latency = LAN,
        links: Iterable[tuple[str, str]] | None = None,
        start: bool = True,
        trace: bool = True,
        trace_frames: bool = False,
        invariants: Iterable[type[Invariant]] = INVARIANTS,
    ) -> None:
        names = node_names(nodes) if isinstance(nodes, int) else list(nodes)
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"a cluster is made of one node or more, each with a name of its own, not of {nodes!r}"
            )
        self.seed = seed
        self.heap = EventHeap()
        self.trace = Trace(trace, trace_frames)
        self.health = HealthScript()
        self.network = Network(self.heap, f"{seed}/network", latency)
        if links is not None:
            self.network.only(links)
        self._settings = dict(settings or {})
        self.nodes = Places()
        self.checks = Checks([kind(self) for kind in invariants])
        self._injected: dict[str, int] = {}
        self.disturbed, self._disturbed_at = 0, 0.0
        for name in names:
            self.nodes[name] = SimNode(self, name, self._settings)
        if start:
            for name in names:
                self.start(name)

    # -- looking ---------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> SimNode:
        return self.nodes[name]

    def __iter__(self) -> Iterator[SimNode]:
        return iter(self.nodes.values())

    def __repr__(self) -> str:
        """Name the nodes and the time."""
        return f"<SimCluster of {', '.join(self.nodes)} at {self.now:g} s>"

    @property
    def now(self) -> float:
        """Seconds since the simulation began."""
        return self.heap.now

    def running(self) -> list[Process]:
        """The processes that run and are not stopped."""
        processes = (place.process for place in self.nodes.values())
        return [process for process in processes if process is not None and not process.paused]

    def groups(self) -> list[list[Process]]:
        """The running processes, grouped by who can talk to whom, directly or through others."""
        left = self.running()
        groups = []
        while left:
            group = [left.pop(0)]
            for process in group:
                reached = [other for other in left if self.network.can_talk(process.name, other.name)]
                group += reached
                left = [other for other in left if other not in reached]
            groups.append(group)
        return groups

    def differences(self) -> list[str]:
        """What keeps the nodes that can talk from agreeing; empty once they do."""
        return differences(self.groups())

    # -- time ------------------------------------------------------------------------------------

    def run_for(self, seconds: float) -> None:
        """Let time pass. Raises Violation."""
        if not seconds >= 0:
            raise ValueError(f"time passes forwards, not by {seconds:g} s")
        self.run_to(self.now + seconds)

    def run_until(self, condition: Callable[[], bool], timeout_s: float = 60.0) -> float:
        """Let time pass until `condition()`; returns how long that took, in seconds. Raises SimTimeout."""
        began = self.now
        while not condition():
            if self.now >= began + timeout_s:
                raise SimTimeout(f"not so within {timeout_s:g} s")
            self.run_to(min(self.now + LOOK_EVERY_S, began + timeout_s))
        return self.now - began

    def converge(self, timeout_s: float = CONVERGE_S, *, settle: bool = True) -> float:
        """Let time pass until all nodes that can talk agree; returns how long that took, in seconds.

        Raises Violation if they do not, and if what they agree on is not what was promised (which is
        not looked at without `settle`).
        """
        try:
            took = self.run_until(lambda: not self.differences(), timeout_s)
        except SimTimeout:
            text = f"no agreement within {timeout_s:g} s: {'; '.join(self.differences())}"
            self.trace.add(self.now, "*", "VIOLATED", text)
            raise Violation("replicas_that_can_talk_converge", "", self.now, text) from None
        if settle:
            self.checks.settled()
        return took

    def run_to(self, time: float) -> None:
        """Let time pass until it is `time`. Raises Violation."""
        self.heap.run_to(time)

    # -- nodes -----------------------------------------------------------------------------------

    def add(self, name: str, **settings: object) -> SimNode:
        """Make a further node, with settings of its own (`sync__on_start="withdraw"`); `start` it then."""
        if name in self.nodes:
            raise ValueError(f"there is a node {name!r} already")
        own = {key.replace("__", "."): value for key, value in settings.items()}
        place = self.nodes[name] = SimNode(self, name, {**self._settings, **own})
        return place

    def link(self, a: str, b: str) -> None:
        """Let two nodes reach each other that could not, in a cluster made with `links`."""
        self.network.link(*self._known(a, b))

    def start(self, name: str, join: Iterable[str] | None = None) -> SimNode:
        """Start a node's process, with its disk as it is; it joins all others, or those given."""
        place = self.nodes[name]
        if join is not None:
            join = self._known(*join)
        if place.process is None:
            place.lives += 1
            if join is None:
                join = [other for other in self.nodes if other != name and self.network.linked(name, other)]
            seeds = list(join)
            self._tell(f"start {name}" + (", a newer version" if place.newer else ""))
            place.process = Process(self, place, seeds)
        return place
