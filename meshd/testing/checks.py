"""The invariants of a simulated cluster: what they are told, and how one of them objects.

Owns the list of invariants and hands every happening to those that want to hear of it, so that a check costs
only where it looks. An invariant that is broken raises `Violation` out of whatever ran the simulation, at the
very event that broke it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from crdt.persist import StoreOp
from meshd.wire.messages import Message
from meshd.workers.events import Event
from meshd.workers.health_schedule import CheckRequest

if TYPE_CHECKING:
    from meshd.testing.cluster import SimCluster
    from meshd.testing.network import End
    from meshd.testing.process import Process


class Violation(AssertionError):
    """An invariant does not hold. `invariant` names it; `node` is where, "" for the cluster as a whole."""

    def __init__(self, invariant: str, node: str, time: float, text: str) -> None:
        where = f" on {node}" if node else ""
        super().__init__(f"{invariant}{where} at {time:.6f} s: {text}")
        self.invariant = invariant
        self.node = node
        self.time = time
        self.text = text


class Invariant:
    """One thing that must hold throughout. A subclass has a `name`, and overrides what it wants to hear."""

    name = ""

    def __init__(self, cluster: SimCluster) -> None:
        self.cluster = cluster

    def fail(self, process: Process | None, text: str) -> None:
        """Object. Raises Violation."""
        node = "" if process is None else process.name
        self.cluster.trace.add(self.cluster.now, node or "*", "VIOLATED", f"{self.name}: {text}")
        raise Violation(self.name, node, self.cluster.now, text)

    def started(self, process: Process) -> None:
        """A process has its node, with what the disk held, and nothing has happened yet."""

    def ended(self, process: Process) -> None:
        """A process is no more, and what its disk lost is lost."""

    def persisted(self, process: Process, ops: Sequence[StoreOp]) -> None:
        """The node changed its logs, and these operations are about to go to its disk."""

    def keys_changed(self, process: Process, keys: Sequence[str]) -> None:
        """The visible values of these keys changed, and the plane was told."""

    def worker_event(self, process: Process, event: Event) -> None:
        """The plane told an event."""

    def sent(self, process: Process, message: Message) -> None:
        """A message is about to be sent."""

    def received(self, process: Process, end: End, message: Message) -> None:
        """A message came in at this end of a connection, and the node was told."""

    def noticed(self, process: Process, level: str, event: str, fields: dict[str, object]) -> None:
        """Something was logged."""

    def checked(self, process: Process, request: CheckRequest, cause: str | None) -> None:
        """A health check came back, and the plane is about to be told."""

    def commanded(self, process: Process, url: str, removes: bool) -> None:
        """A command about a worker is about to be given."""

    def written(self, process: Process, url: str, removes: bool) -> object:
        """The command was accepted; what is returned names it in `acknowledged`."""

    def acknowledged(self, process: Process, write: object) -> None:
        """What `written` returned is on the disk: the API has answered."""

    def leaving(self, process: Process) -> None:
        """The node is about to say goodbye."""

    def withdrawn(self, process: Process) -> object:
        """The node took its workers out of the mesh; what is returned names it in `acknowledged`."""

    def forgotten(self, owner: str) -> None:
        """An operator had an owner forgotten."""

    def destroyed(self, name: str) -> None:
        """Something that was stored is gone, of a node that does not run."""

    def settled(self) -> None:
        """The cluster is whole, and has had time to come to rest."""


_HOOKS = tuple(name for name in vars(Invariant) if not name.startswith("_") and name not in ("name", "fail"))


class Checks:
    """All invariants of a cluster."""

    def __init__(self, invariants: Iterable[Invariant]) -> None:
        self.invariants: dict[str, Invariant] = {}
        for invariant in invariants:
            if not invariant.name or invariant.name in self.invariants:
                raise ValueError(f"{type(invariant).__name__} needs a `name` that no other invariant has")
            self.invariants[invariant.name] = invariant
        self._wants: dict[str, list[Callable[..., Any]]] = {
            hook: [
                getattr(invariant, hook)
                for invariant in self.invariants.values()
                if getattr(type(invariant), hook) is not getattr(Invariant, hook)
            ]
            for hook in _HOOKS
        }
        self._persisted = self._wants["persisted"]
        self._sent = self._wants["sent"]
        self._received = self._wants["received"]

    def started(self, process: Process) -> None:
        """See Invariant."""
        for told in self._wants["started"]:
            told(process)

    def ended(self, process: Process) -> None:
        """See Invariant."""
        for told in self._wants["ended"]:
            told(process)

    def persisted(self, process: Process, ops: Sequence[StoreOp]) -> None:
        """See Invariant."""
        for told in self._persisted:
            told(process, ops)

    def keys_changed(self, process: Process, keys: Sequence[str]) -> None:
        """See Invariant."""
        for told in self._wants["keys_changed"]:
            told(process, keys)

    def dispatched(self, process: Process) -> None:
        """A process has worked off an event: hand on what its plane told."""
        for event in process.events.take():
            if process.note_events:
                process.note_event(event)
            for told in self._wants["worker_event"]:
                told(process, event)

    def sent(self, process: Process, message: Message) -> None:
        """See Invariant."""
        for told in self._sent:
            told(process, message)

    def received(self, process: Process, end: End, message: Message) -> None:
        """See Invariant."""
        for told in self._received:
            told(process, end, message)

    def noticed(self, process: Process, level: str, event: str, fields: dict[str, object]) -> None:
        """See Invariant."""
        for told in self._wants["noticed"]:
            told(process, level, event, fields)

    def check_done(self, process: Process, request: CheckRequest, cause: str | None) -> None:
        """See `Invariant.checked`."""
        for told in self._wants["checked"]:
            told(process, request, cause)

    def commanded(self, process: Process, url: str, removes: bool) -> None:
        """See Invariant."""
        for told in self._wants["commanded"]:
            told(process, url, removes)

    def written(self, process: Process, url: str, removes: bool) -> list[object]:
        """See Invariant."""
        return [told(process, url, removes) for told in self._wants["written"]]

    def acknowledged(self, process: Process, writes: list[object]) -> None:
        """See Invariant."""
        for write in writes:
            if write is None:
                continue
            for told in self._wants["acknowledged"]:
                told(process, write)

    def leaving(self, process: Process) -> None:
        """See Invariant."""
        for told in self._wants["leaving"]:
            told(process)

    def withdrawn(self, process: Process) -> list[object]:
        """See Invariant."""
        return [told(process) for told in self._wants["withdrawn"]]

    def forgotten(self, owner: str) -> None:
        """See Invariant."""
        for told in self._wants["forgotten"]:
            told(owner)

    def destroyed(self, name: str) -> None:
        """See Invariant."""
        for told in self._wants["destroyed"]:
            told(name)

    def settled(self) -> None:
        """See Invariant."""
        for told in self._wants["settled"]:
            told()
