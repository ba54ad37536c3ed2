"""What nodes owe each other at once: word that they leave, news of what they wrote, a beginning on disk.

Each is asked only of connections to which nothing was done meanwhile, so that no fault excuses silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from crdt.persist import PutEntries, PutLog, PutMeta, StoreOp
from crdt.types import Gen
from meshd.protocol.ownership import META_COUNTER
from meshd.testing.checks import Invariant
from meshd.testing.safety import LEFT, SETTLED_S
from meshd.wire.messages import Begin, Data, Heartbeat, Message

if TYPE_CHECKING:
    from meshd.testing.cluster import SimCluster
    from meshd.testing.network import End
    from meshd.testing.process import Process

NEWS_S = 1.0
"""Within this, what one node says is known to all that are connected to it, if nothing is wrong."""
QUIET_S = 2.0
"""For so long nothing was done to the cluster when it is called quiet."""
MOVED_S = 3.0
"""Within this a log that took back what it had lost, or met its own name, is where its owner is."""
NEVER = float("-inf")
PROMPT_S = 0.05
"""A network whose frames usually take longer is not held to NEWS_S."""


def _connected(cluster: SimCluster, process: Process, settled_at: float) -> Iterator[End]:
    """The ends over which a process talks to another since `settled_at`, both sides agreeing that they do."""
    for end in process.ends.values():
        far = end.far
        other = far.process
        if not (end.open and far.open and end.opened_at <= settled_at) or end.closing or far.closing:
            continue
        if end.deaf or far.deaf:
            continue  # it is broken already
        if other.paused or other.leaving or not cluster.network.is_sound(process.name, other.name):
            continue
        here = process.node.connections.open.get(other.name)
        there = other.node.connections.open.get(process.name)
        if here is not None and there is not None and (here.conn, there.conn) == (end.number, far.number):
            yield end


class LeaversAreShownAsLeft(Invariant):
    """A node that leaves in good order is shown as `left` by those to whom it was connected."""

    name = "leavers_are_shown_as_left"

    def leaving(self, process: Process) -> None:
        """Remember to whom it can say goodbye."""
        cluster = self.cluster
        if cluster.network.latency.median_s > PROMPT_S:
            return
        ends = list(_connected(cluster, process, cluster.now - SETTLED_S))
        soon = cluster.now + PROMPT_S  # what was sent before goes first
        told = [
            end.far.process for end in ends if end.has_room and not end.coming and end.far.youngest < soon
        ]
        cluster.heap.after(NEWS_S, self._look, process, told, cluster.disturbed)

    def _look(self, process: Process, told: list[Process], disturbed: int) -> None:
        if self.cluster.disturbed != disturbed:
            return  # whatever it was, it may have taken the goodbye with it, or brought the node back
        for other in told:
            state = other.node.roster.state_of(process.name)
            if other.alive and not other.leaving and state not in (LEFT, None):  # None: it was forgotten
                self.fail(other, f"{process.name} is {state}, and said goodbye {NEWS_S:g} s ago")


class NewsTravelsAtOnce(Invariant):
    """In a quiet network, what a node writes is in the maps of all that it is connected to, within a second.

    That is, directly or through others; and what it wrote before, in those of all that it has met. A network
    in which a connection stands that leads nowhere is not quiet.
    """

    name = "news_travels_at_once"

    def __init__(self, cluster: SimCluster) -> None:
        super().__init__(cluster)
        self._written: dict[Process, tuple[float, Gen, int]] = {}
        """What was written last, and when."""
        self._planned: set[Process] = set()
        self._met_at = NEVER
        """When nodes met last; NEVER: that is seen to."""
        self._moved_at = NEVER
        """When last a log took back what it had lost, or met its own name."""

    def persisted(self, process: Process, ops: Sequence[StoreOp]) -> None:
        """Note own writes."""
        for op in ops:
            if isinstance(op, PutLog) and op.head.owner == process.name and len(ops) > 1:
                if any(isinstance(other, PutEntries) for other in ops):
                    self._written[process] = (self.cluster.now, op.head.gen, op.head.max)
                    self._plan(process)
                return

    def noticed(self, process: Process, level: str, event: str, fields: dict[str, object]) -> None:
        """Nodes that met tell each other all that was written before, once they are sure of that."""
        if event == "peer_connected":
            if self._met_at == NEVER:
                self.cluster.heap.after(SETTLED_S, self._met)
            self._met_at = self.cluster.now
        elif event in ("own_log_recovered", "own_log_new_gen"):
            self._moved_at = self.cluster.now

    def _met(self) -> None:
        cluster = self.cluster
        if cluster.now < self._met_at + SETTLED_S:
            cluster.heap.at(self._met_at + SETTLED_S, self._met)
            return
        self._met_at = NEVER
        for process in cluster.running():
            if process not in self._planned:
                own = process.node.map.own
                self._written[process] = (cluster.now, own.gen, own.max)
                self._plan(process)

    def _plan(self, process: Process) -> None:
        if process not in self._planned:
            self._planned.add(process)
            written = self._written[process]
            cluster = self.cluster
            quiet = min(cluster.quiet_for() - QUIET_S, cluster.now - self._moved_at - MOVED_S) >= 0
            quiet = quiet and not cluster.network.is_behind(PROMPT_S)
            disturbed = cluster.disturbed if quiet else -1
            cluster.heap.at(written[0] + NEWS_S, self._look, process, written, disturbed)

    def _look(self, process: Process, written: tuple[float, Gen, int], disturbed: int) -> None:
        cluster = self.cluster
        self._planned.discard(process)
        if self._written[process] != written:
            self._plan(process)
        else:
            del self._written[process]
        if disturbed != cluster.disturbed or not process.alive or process.leaving:
            return
        if process.paused or cluster.network.latency.median_s > PROMPT_S:
            return
        at, gen, number = written
        reached, unseen = {process}, [process]
        while unseen:
            one = unseen.pop()
            found = {end.far.process for end in _connected(cluster, one, at - SETTLED_S)}
            if len(found) < len(one.node.connections.open):
                return  # for it would leave to others what they cannot do
            unseen += found - reached
            reached |= found
        for other in reached:
            log = other.node.map.logs.get(process.name)
            held = None if log is None else (log.gen, log.max)
            if held is None or held < (gen, number):
                self.fail(other, f"{process.name} wrote {gen, number} {NEWS_S:g} s ago; here it is at {held}")


class LivesBeginOnDisk(Invariant):
    """No life says anything of its log before its gen counter is safe on its disk."""

    name = "a_life_begins_on_disk"

    def __init__(self, cluster: SimCluster) -> None:
        super().__init__(cluster)
        self._beginning: dict[Process, int] = {}
        """Life that has not spoken yet -> the counter that it began with; 0: it stored none so far."""

    def started(self, process: Process) -> None:
        """A life begins."""
        self._beginning[process] = 0

    def ended(self, process: Process) -> None:
        """It never spoke."""
        self._beginning.pop(process, None)

    def persisted(self, process: Process, ops: Sequence[StoreOp]) -> None:
        """Note the counter that it begins with."""
        if self._beginning.get(process) == 0:
            for op in ops:
                if isinstance(op, PutMeta) and op.name == META_COUNTER and op.value is not None:
                    self._beginning[process] = int(op.value)

    def sent(self, process: Process, message: Message) -> None:
        """Look at the disk, as a power cut would leave it, before the first word."""
        if process not in self._beginning or not isinstance(message, Heartbeat | Begin | Data):
            return
        counter = self._beginning.pop(process)
        stored = int(process.storage.disk.forced_meta().get(META_COUNTER, b"0"))
        if not counter or stored < counter:
            self.fail(process, f"speaks under the counter {counter}, and {stored} is safe on its disk")
