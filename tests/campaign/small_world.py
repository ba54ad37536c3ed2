"""States of a small world as plain data, and the real objects built from them.

A state holds what each node has in memory and on its disk, and what is under way. To take a step, the node
that acts is built (`LwwMap`, `Ownership`), does its real work, and is read out again; so equal states are
equal tuples. All of it is about one owner's log, that of `a`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from crdt.delta import Transfer
from crdt.lww_map import LwwMap
from crdt.owner_log import OwnerLog
from crdt.types import NO_GEN, VALUE, Dot, Entry, Gen, LogHead, dot_of
from meshd.protocol.ownership import Ownership
from tests.campaign.oracle import Violation
from tests.support.maps import table

OWNER = "a"
LATE = 1e9
"""A time so late that no rate limit bites."""

Log = tuple[LogHead, tuple[Entry, ...]]


class Disk(NamedTuple):
    """What a node would find if it started now."""

    logs: tuple[Log, ...] = ()
    fences: tuple[tuple[str, int], ...] = ()
    removed: tuple[tuple[str, Dot], ...] = ()
    line: tuple[int, ...] = ()
    counter: int = 0


class Node(NamedTuple):
    """A node: its disk, its disk before the last change, and, while it lives, its nonce and what it heard."""

    disk: Disk
    before: Disk
    nonce: int
    known: Gen


class Message(NamedTuple):
    """A log under way, or (offer) a copy on its way back. `truth`: what the sender's log held then."""

    target: int
    offer: bool
    transfer: Transfer
    truth: tuple[Gen, int, tuple[tuple[str, int, bytes], ...]]


class Made(NamedTuple):
    """A write of `a`: its number, the number of the write that it replaced, whether it removed the key."""

    number: int
    before: int | None
    key: str
    dot: Dot
    removal: bool


class State(NamedTuple):
    """A whole world. `certain`: key -> last write, where `a`'s disk has lost nothing since."""

    nodes: tuple[Node, ...]
    net: tuple[Message, ...] = ()
    made: tuple[Made, ...] = ()
    certain: tuple[tuple[str, int], ...] = ()
    lives: int = 1
    image: Node | None = None
    resumed: bool = False

    def with_node(self, number: int, node: Node) -> State:
        """The same world with another node in one place."""
        return self._replace(nodes=(*self.nodes[:number], node, *self.nodes[number + 1 :]))

    def with_message(self, message: Message) -> State:
        """The same world with one more message under way, unless the same is under way already."""
        if message in self.net:
            return self
        return self._replace(net=tuple(sorted((*self.net, message), key=repr)))


class _Bits:
    """Randomness for boot nonces: the number of the life."""

    def __init__(self, value: int) -> None:
        self.value = value

    def getrandbits(self, count: int) -> int:
        return self.value


@dataclass
class Live:
    """A node at work: the real objects."""

    store: LwwMap
    ownership: Ownership


def _ignore(_: object) -> None:
    return None


def _stored(name: str, disk: Disk) -> LwwMap:
    store = LwwMap(name, table(), logs={head.owner: OwnerLog.restore(head, rows) for head, rows in disk.logs})
    store.fences = dict(disk.fences)
    store.removed = dict(disk.removed)
    return store


def start(name: str, disk: Disk, life: int) -> Live:
    """A new life from a disk, as the protocol starts one."""
    store = _stored(name, disk)
    rng = cast(Any, _Bits(life))
    return Live(store, Ownership(store, disk.counter, frozenset(disk.line), LATE, rng, _ignore, _ignore, 0.0))


def wake(name: str, node: Node) -> Live:
    """A living node in the middle of its life."""
    store = _stored(name, node.disk)
    store.line = frozenset(node.disk.line)
    if node.known != NO_GEN:
        store.known[OWNER] = node.known
    ownership = start(name, Disk(), 0).ownership
    ownership._map = store
    ownership.nonce = node.nonce
    return Live(store, ownership)


def rest(node: Live, before: Disk) -> Node:
    """Read a living node out; `before`: its disk until now."""
    store = node.store
    disk = Disk(
        tuple((log.head(), tuple(log.entries.values())) for _, log in sorted(store.logs.items())),
        tuple(sorted(store.fences.items())),
        tuple(sorted(store.removed.items())),
        tuple(sorted(store.line)),
        store.own.gen[0],
    )
    known, held = store.known.get(OWNER, NO_GEN), store.logs.get(OWNER)
    return Node(
        disk, before, node.ownership.nonce, NO_GEN if held is not None and known <= held.gen else known
    )


def act(state: State, number: int, name: str, what: Callable[[Live], object]) -> State:
    """Let a living node do something."""
    node = state.nodes[number]
    live_node = wake(name, node)
    what(live_node)
    after = rest(live_node, node.disk)
    return state.with_node(number, after._replace(before=node.before) if after.disk == node.disk else after)


def log_of(node: Node) -> OwnerLog | None:
    """A node's copy of `a`'s log, or None."""
    rows = (OwnerLog.restore(head, rows) for head, rows in node.disk.logs if head.owner == OWNER)
    return next(rows, None)


# -- what must hold --------------------------------------------------------------------------------


def check_forward(name: str, old: Node, new: Node) -> None:
    """`(gen, max)` never goes back within a life, nor behind a fence."""
    was, now = log_of(old), log_of(new)
    if was is not None and now is not None and (now.gen, now.max) < (was.gen, was.max):
        raise Violation(f"{name} went back from {was.gen, was.max} to {now.gen, now.max}")
    if was is not None and now is None and dict(new.disk.fences).get(OWNER, 0) < was.gen[0]:
        raise Violation(f"{name} forgot without a fence")
    if was is None and now is not None and now.gen[0] <= dict(old.disk.fences).get(OWNER, 0):
        raise Violation(f"{name} took back what it had forgotten")


def shown(log: OwnerLog, key: str) -> int | None:
    """The number of the write whose value a log shows for a key, or None."""
    entry = log.entries.get(key)
    return None if entry is None or entry[VALUE] is None else int(entry[VALUE])


def check_knowledge(name: str, log: OwnerLog, made: Iterable[Made]) -> None:
    """No log shows a value which a write that it has taken on had replaced or removed."""
    before = {write.number: write.before for write in made}
    for write in made:
        value = shown(log, write.key)
        if value is None or not log.knows(write.dot):
            continue
        earlier = write.before
        while earlier is not None:
            if earlier == value:
                raise Violation(f"{name} shows {value} for {write.key}, though {write.number} replaced it")
            earlier = before[earlier]


def check_certain(own: OwnerLog, state: State) -> None:
    """The last write to a key is what counts, if the owner's disk has lost nothing since."""
    removals = {write.number for write in state.made if write.removal}
    for key, number in state.certain:
        value = shown(own, key)
        if value != (None if number in removals else number):
            raise Violation(f"a shows {value} for {key}, though {number} came last, on a sound disk")


def survivors(state: State) -> set[Dot]:
    """The writes that some copy of `a`'s log shows."""
    logs = [log for node in state.nodes if (log := log_of(node)) is not None]
    return {dot_of(entry, log.gen) for log in logs for entry in log.entries.values()}
