"""What a node keeps twice must be the same twice: memory and disk, registry and events, settings and logs.

As everywhere in these rooms, what is compared is worked out here anew; no digest, counter or verdict of the
code under test is taken for granted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from crdt.lww_map import META_REMOVED
from crdt.persist import PutEntries, StoreOp
from crdt.prefixes import unseal
from crdt.types import KEY, VALUE, Entry
from meshd.config_live import CONFIG_PREFIX
from meshd.protocol.forgetting import FORGET_PREFIX, META_FENCE
from meshd.protocol.ownership import MAX_LINE, META_COUNTER, META_LINE
from meshd.testing.checks import Invariant
from meshd.workers.publishing import SECRET, UNPUBLISHED

if TYPE_CHECKING:
    from meshd.protocol.node import MeshNode
    from meshd.testing.cluster import SimCluster
    from meshd.testing.process import Process
    from meshd.workers.events import Event
    from meshd.workers.plane import WorkerPlane
    from meshd.workers.worker import Worker


class DisksHoldAll(Invariant):
    """A disk that has taken all that it was given holds what its node holds: logs and private facts."""

    name = "the_disk_holds_what_the_node_holds"

    def settled(self) -> None:
        """Compare every disk with which nothing is under way."""
        for process in self.cluster.running():
            if process.persister.idle:
                self._compare_logs(process)
                self._compare_facts(process)

    def _compare_logs(self, process: Process) -> None:
        heads, entries, _ = process.storage.disk.content()
        logs = process.node.map.logs
        for owner in sorted(heads.keys() | logs.keys()):
            if owner not in logs:
                self.fail(process, f"the log of {owner} is gone here, and is still on the disk")
            if owner not in heads:
                self.fail(process, f"the log of {owner} is not on the disk")
            log = logs[owner]
            if heads[owner] != log.head():
                self.fail(process, f"the log of {owner} is on the disk as {heads[owner]}, not {log.head()}")
            if entries[owner] != dict(log.entries):
                odd = sorted(key for key, _ in entries[owner].items() ^ log.entries.items())
                self.fail(process, f"the log of {owner} differs on the disk: {', '.join(odd)}")

    def _compare_facts(self, process: Process) -> None:
        stored = process.storage.disk.content()[2]
        kept = {name: value for name, value in stored.items() if name.startswith(_COMPARED)}
        kept |= {name: stored.get(name, b"") for name in (META_COUNTER, META_LINE)}
        for name in [name for name in kept if name.startswith(META_FENCE)]:
            kept[name] = kept[name].partition(b" ")[0]  # its age is stored once in a while only
        wanted = _facts(process.node, process.plane)
        for name in sorted(kept.keys() | wanted.keys()):
            if kept.get(name) != wanted.get(name):
                told = f"has {kept.get(name)!r}, not {wanted.get(name)!r}"
                self.fail(process, f"{name}: the disk {'differs' if name.startswith(SECRET) else told}")


_COMPARED = (META_FENCE, META_REMOVED, SECRET, UNPUBLISHED)


def _facts(node: MeshNode, plane: WorkerPlane) -> dict[str, bytes]:
    """The private facts of a node that must outlive it, as they are stored."""
    store = node.map
    line = sorted(store.line)[-MAX_LINE:]
    facts = {META_COUNTER: b"%d" % store.own.gen[0], META_LINE: " ".join(map(str, line)).encode()}
    facts |= {META_FENCE + owner: b"%d" % counter for owner, counter in store.fences.items()}
    facts |= {META_REMOVED + key: " ".join(map(str, dot)).encode() for key, dot in store.removed.items()}
    for worker in plane.registry:
        if worker.is_local and worker.api_key:
            facts[SECRET + worker.id] = worker.api_key.encode()
        if worker.is_local and worker.value and not (worker.reachable or plane.settings.publish_loopback):
            facts[UNPUBLISHED + worker.id] = worker.value
    return facts


class EventsTellAll(Invariant):
    """Whoever follows the events from the first one on knows the registry."""

    name = "events_tell_all"

    def settled(self) -> None:
        """Follow them, unless so many were told that the first are forgotten."""
        for process in self.cluster.running():
            events = process.plane.events.since(0)
            if events is None:
                continue
            told: dict[str, tuple[object, ...]] = {}
            for event in events:
                self._follow(process, told, event)
            present = {worker.url: _said(worker) for worker in process.plane.registry}
            for url in sorted(told.keys() | present.keys()):
                if told.get(url) != present.get(url):
                    self.fail(process, f"{url}: events told of {told.get(url)}, it is {present.get(url)}")

    def _follow(self, process: Process, told: dict[str, tuple[object, ...]], event: Event) -> None:
        """Take on what this kind of event tells of, and nothing else."""
        worker = event.worker
        known = None if worker is None else told.get(worker.url)
        if worker is None or (known is None) is not (event.kind == "registered"):
            self.fail(process, f"event {event.id} {event.kind} of {worker}, after {known}")
            return
        origin, status, *rest = _said(worker) if known is None else known
        match event.kind:
            case "removed":
                del told[worker.url]
                return
            case "origin_changed":
                origin = worker.origin
            case "status_changed":
                status = worker.status
            case _:
                rest = list(_said(worker)[2:])
        told[worker.url] = (origin, status, *rest)


def _said(worker: Worker) -> tuple[object, ...]:
    """What a change of which is an event."""
    return worker.origin, worker.status, worker.id, worker.owner, worker.revision, worker.spec


class SettingsGoForward(Invariant):
    """A shared key shows the value of its greatest stamp, and that stamp never falls while a node lives.

    Whatever is forgotten, lost or merged; and a write beats all that its writer saw.
    """

    name = "shared_values_never_go_back"

    def __init__(self, cluster: SimCluster) -> None:
        super().__init__(cluster)
        self._stamps: dict[tuple[str, str], tuple[int, str]] = {}
        """(node, key) -> the greatest stamp that the node held."""

    def started(self, process: Process) -> None:
        """A new life knows what its disk holds."""
        for at in [at for at in self._stamps if at[0] == process.name]:
            del self._stamps[at]
        logs = process.node.map.logs.values()
        self.keys_changed(process, sorted({key for log in logs for key in log.entries}))

    def persisted(self, process: Process, ops: Sequence[StoreOp]) -> None:
        """Look at own writes: a copy of what was forgotten keeps its stamp, all else has a greater one."""
        for op in ops:
            if isinstance(op, PutEntries) and op.owner == process.name:
                for entry in op.entries:
                    if entry[KEY].startswith(_SHARED):
                        stamp, before = (
                            _stamp(entry)[0],
                            self._stamps.get((process.name, entry[KEY]), (0, "")),
                        )
                        if stamp < before:
                            self.fail(
                                process, f"{entry[KEY]} was written at {stamp}, and had {before} already"
                            )

    def keys_changed(self, process: Process, keys: Sequence[str]) -> None:
        """Look at the shared ones."""
        for key in keys:
            if key.startswith(_SHARED):
                self._look(process, key)

    def settled(self) -> None:
        """Look at all of them."""
        for process in self.cluster.running():
            for name, key in list(self._stamps):
                if name == process.name:
                    self._look(process, key)

    def _look(self, process: Process, key: str) -> None:
        store = process.node.map
        held = [_stamp(log.entries[key]) for log in store.logs.values() if key in log.entries]
        best, value = max(held, key=lambda each: each[0], default=((0, ""), None))
        before = self._stamps.get((process.name, key), best)
        if best < before:
            self.fail(process, f"{key} went back from {before} to {best}")
        self._stamps[process.name, key] = best
        found = store.visible(key)
        if (None if found is None else found.value) != value:
            self.fail(process, f"{key} does not show what was written at {best}")


_SHARED = (CONFIG_PREFIX, FORGET_PREFIX)


def _stamp(entry: Entry) -> tuple[tuple[int, str], bytes | None]:
    """The stamp of a shared entry, and its value; (0, "") for one that cannot be read."""
    envelope = None if entry[VALUE] is None else unseal(entry[VALUE])
    return ((0, ""), None) if envelope is None else ((envelope.version, envelope.writer), envelope.payload)


class TheLivingAreKept(Invariant):
    """Nobody forgets whom it takes for alive, nor, unasked, anybody while it is connected to nobody."""

    name = "nobody_alive_is_forgotten"

    def __init__(self, cluster: SimCluster) -> None:
        super().__init__(cluster)
        self._states: dict[tuple[str, str], object] = {}
        """(node, member) -> its state, as was last told there."""

    def started(self, process: Process) -> None:
        """A new life knows nobody."""
        for at in [at for at in self._states if at[0] == process.name]:
            del self._states[at]

    def noticed(self, process: Process, level: str, event: str, fields: dict[str, object]) -> None:
        """Keep what is told of members, and hold against it what is forgotten."""
        if event == "member_state":
            self._states[process.name, str(fields["member"])] = fields["state"]
        elif event == "owner_forgotten":
            owner = str(fields["owner"])
            if self._states.get((process.name, owner)) == "alive":
                self.fail(process, f"{owner} is forgotten, and is alive")
            asked = process.node.visible(FORGET_PREFIX + owner) is not None
            if not asked and not process.node.connections.open:
                self.fail(process, f"{owner} is forgotten, and nobody at all is heard of here")
