"""What was promised to people, and whether it came true: acknowledged registrations and removals.

Owns the history of commands per worker. A command is acknowledged once its node's disk has it. From then on
it may come to nothing only if that disk was harmed, and every copy elsewhere was destroyed with the disk or
memory that held it. So at every fault that destroys something, each write of which no copy is left anywhere
is struck off; what is not struck off must show when the cluster has come to rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from crdt.lww_map import META_REMOVED
from crdt.types import Dot, LogHead, dot_of
from meshd.testing.checks import Invariant
from meshd.workers.model import WorkerSpec
from meshd.workers.record import worker_key

if TYPE_CHECKING:
    from meshd.protocol.node import MeshNode
    from meshd.testing.cluster import SimCluster
    from meshd.testing.place import SimNode
    from meshd.testing.process import Process


@dataclass(slots=True)
class Write:
    """One command about a worker: what it left behind, and what became of its acknowledgement."""

    spec: WorkerSpec | None
    """What was registered; None: the worker was removed, or is to be once it has drained."""
    dot: Dot | None
    """The write in the node's log; None if the command changed nothing there."""
    drained: bool = False
    """Whether it left the worker draining, to stay so until somebody calls that off."""
    acknowledged: bool = False
    kept: bool = True
    """Whether its node's disk has to have it, once it is acknowledged: until that disk is harmed."""
    lost: bool = False
    """Every copy is destroyed: nobody can be held to it."""
    beside: list[Write] = field(default_factory=list)
    """Earlier commands of which the node, its disk harmed, knew nothing when it took this one."""


@dataclass(slots=True)
class History:
    """All commands about one worker of one owner, oldest first."""

    owner: str
    url: str
    writes: list[Write] = field(default_factory=list)

    def promised(self) -> list[Write]:
        """The newest acknowledged command that is left and those after it: one of these must show.

        Empty: nothing must. Once the disk has lost that command, too, the copies of it and of those that it
        did not know of are equals: no life is left that could tell which was later.
        """
        for at in range(len(self.writes) - 1, -1, -1):
            write = self.writes[at]
            if write.acknowledged and not write.lost:
                equals = [] if write.kept else write.beside
                return [each for each in self.writes[at:] + equals if not each.lost]
        return []


class Acknowledged(Invariant):
    """An acknowledged write is never lost, and a removed worker never returns."""

    name = "an_acknowledged_write_is_never_lost"

    def __init__(self, cluster: SimCluster) -> None:
        super().__init__(cluster)
        self.histories: dict[str, History] = {}
        """Key -> what was asked of it."""

    def written(self, process: Process, url: str, removes: bool) -> object:
        """Note a command that was accepted."""
        worker = process.plane.registry.by_url(url)
        if removes or worker is None or not worker.is_local or worker.drain_until is not None:
            return self._note(process, url, None)
        return self._note(process, url, worker.spec, worker.status == "draining")

    def withdrawn(self, process: Process) -> object:
        """Everything that the node knows to be its own is removed; promised once its disk has that."""
        promised = []
        for history in self.histories.values():
            if history.owner != process.name:
                continue
            worker = process.plane.registry.by_url(history.url)
            is_local = worker is not None and worker.is_local  # maybe back, when its removal was lost
            if is_local or history.writes[-1].spec is not None:
                write = self._note(process, history.url, None)
                if is_local:
                    promised.append(write)
        return promised

    def _note(self, process: Process, url: str, spec: WorkerSpec | None, drained: bool = False) -> Write:
        key = worker_key(process.name, url)
        own = process.node.map.own
        entry = own.entries.get(key)
        write = Write(spec, None if entry is None else dot_of(entry, own.gen), drained)
        history = self.histories.setdefault(key, History(process.name, url))
        head = own.head()
        for former in history.writes:
            if not _has(head, former.dot):
                write.beside += [former, *former.beside]
        history.writes.append(write)
        return write

    def acknowledged(self, process: Process, write: object) -> None:
        """The command's answer went out."""
        for each in write if isinstance(write, list) else [write]:
            assert isinstance(each, Write)
            each.acknowledged = True

    def ended(self, process: Process) -> None:
        """What was in memory only is gone, and maybe more."""
        self._look_at_disk(process.name)
        self._count_copies()

    def noticed(self, process: Process, level: str, event: str, fields: dict[str, object]) -> None:
        """Forgetting destroys copies, too."""
        if event == "owner_forgotten":
            self._count_copies()

    def destroyed(self, name: str) -> None:
        """A disk went."""
        self._look_at_disk(name)
        self._count_copies()

    def _look_at_disk(self, name: str) -> None:
        """Note what a disk that was harmed has no more."""
        place = self.cluster.nodes[name]
        if not place.harmed:
            return
        place.harmed = False
        found = _stored(place)
        for key, history in self.histories.items():
            if history.owner == name:
                for write in history.writes:
                    write.kept = write.kept and (found.has(name, write) or found.remembers(key, write))

    def _count_copies(self) -> None:
        self._find_again()
        self._strike_off()

    def _strike_off(self) -> None:
        self._look_for(lambda write: write.acknowledged and not write.kept and not write.lost)

    def _find_again(self) -> None:
        """What was struck off may be back: out of an image, or of bytes that were on their way."""
        self._look_for(lambda write: write.lost)

    def _look_for(self, asked: Callable[[Write], bool]) -> None:
        """Note of some writes whether a copy is left anywhere."""
        wanted = [
            (key, history.owner, write)
            for key, history in self.histories.items()
            for write in history.writes
            if write.dot is not None and asked(write)
        ]
        if not wanted:
            return
        places = {
            name: _stored(place) if place.process is None else _running(place.process.node)
            for name, place in self.cluster.nodes.items()
        }
        for key, owner, write in wanted:
            remembered = owner in places and places[owner].remembers(key, write)
            write.lost = not remembered and not any(found.has(owner, write) for found in places.values())

    def settled(self) -> None:
        """Hold every running owner, and everybody who shows its workers, to what was promised."""
        self._find_again()
        for process in self.cluster.running():
            if process.config.sync.on_start == "withdraw" or process.config.health.remove_failed_workers:
                continue
            for history in self.histories.values():
                if history.owner == process.name:
                    self._hold(process, history)

    def _hold(self, process: Process, history: History) -> None:
        promised = history.promised()
        if not promised:
            return
        worker = process.plane.registry.by_url(history.url)
        has = worker is not None and worker.is_local
        wanted = [write.spec for write in promised if write.spec is not None]
        if not has and len(wanted) == len(promised):
            self.fail(process, f"{history.url} was registered here, and is gone")
        if has and not wanted:
            self.fail(process, f"{history.url} was removed here, and is back")
        if not has or worker is None:
            return
        shown = [write for write in promised if write.spec == worker.spec]
        if not shown:
            self.fail(process, f"{history.url} is back as it was before its last change")
        if not any(write.drained == (worker.status == "draining") for write in shown):
            self.fail(process, f"{history.url} is {worker.status}: a drain is lost, or what called it off")


class Found(NamedTuple):
    """What a node has, or would have if it were started now: heads of logs, and removals it remembers."""

    heads: Mapping[str, LogHead]
    removed: Mapping[str, Dot]

    def has(self, owner: str, write: Write) -> bool:
        """Whether the copy of the owner's log has taken on the write, whatever became of it since."""
        head = self.heads.get(owner)
        return head is not None and _has(head, write.dot)

    def remembers(self, key: str, write: Write) -> bool:
        """Whether the owner, its log gone, still knows that it removed this: that outlives a damaged log.

        The removal that ends a drain has a later dot than the command.
        """
        removal = self.removed.get(key)
        return write.spec is None and write.dot is not None and removal is not None and removal >= write.dot


def _running(node: MeshNode) -> Found:
    return Found({owner: log.head() for owner, log in node.map.logs.items()}, node.map.removed)


def _stored(place: SimNode) -> Found:
    """What the node's next start will find on its disk, and find whole."""
    if place.stranger:
        return Found({}, {})
    heads, _, meta = place.disk.content()
    removed = {
        name.removeprefix(META_REMOVED): _dot(value)
        for name, value in meta.items()
        if name.startswith(META_REMOVED)
    }
    return Found({owner: heads[owner] for owner in heads.keys() - place.disk.damaged}, removed)


def _dot(stored: bytes) -> Dot:
    counter, nonce, seq = map(int, stored.split())
    return counter, nonce, seq


def _has(head: LogHead, dot: Dot | None) -> bool:
    """Whether a log has seen a write, whatever became of it since."""
    if dot is None:
        return True
    counter, nonce, seq = dot
    if head.gen == (counter, nonce):
        return seq <= head.max
    return any((row[0], row[1]) == (counter, nonce) and seq <= row[2] for row in head.lineage)
