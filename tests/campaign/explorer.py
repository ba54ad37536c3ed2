"""Every interleaving of a few nodes' lives up to a depth, over the real map and the real ownership.

A state is plain data: what each node holds in memory and on its disk, and what is under way. To take a step,
the node that acts is built from it (`LwwMap`, `Ownership`), does its real work, and is read out again. So
equal states are equal tuples, and are visited once.

Steps: the owner `a` puts and removes, collects, dies; anybody sends what another lacks of `a`'s log, tells
its vector, dies, comes back with its disk, without its last write, or without its disk, and forgets; what is
under way arrives, arrives twice, or is lost.

`python -m tests.campaign.explorer [--nodes N] [--keys K] [--depth D]` prints the states visited.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from crdt.delta import Transfer, Verdict
from crdt.errors import MapError
from crdt.lww_map import Change, LwwMap
from crdt.owner_log import OwnerLog
from crdt.types import KEY, NO_GEN, VALUE, Dot, Entry, Gen, LogHead, dot_of
from meshd.protocol.ownership import Ownership
from tests.campaign.oracle import Violation, live
from tests.support.maps import HLC, full, key, table

OWNER = "a"
UNDER_WAY = 2
"""Messages under way at most."""
LATE = 1e9
"""Far apart in time, so that no rate limit bites."""

Log = tuple[LogHead, tuple[Entry, ...]]


class Disk(NamedTuple):
    """What a node would find if it started now."""

    logs: tuple[Log, ...] = ()
    fences: tuple[tuple[str, int], ...] = ()
    removed: tuple[tuple[str, Dot], ...] = ()
    line: tuple[int, ...] = ()
    counter: int = 0


class Node(NamedTuple):
    """A node: its disk, the disk before the last change, and (if it lives) its nonce and what it heard of."""

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


class State(NamedTuple):
    """A whole world. `preds`: dot of a write -> dot that it replaced."""

    nodes: tuple[Node, ...]
    net: tuple[Message, ...]
    preds: tuple[tuple[Dot, Dot | None, str], ...]
    lives: int
    writes: int


class _Bits:
    """Randomness for boot nonces: the number of the life."""

    def __init__(self, value: int) -> None:
        self.value = value

    def getrandbits(self, count: int) -> int:
        return self.value

    def random(self) -> float:
        return 0.5


@dataclass
class Live:
    """A node at work: the real objects."""

    store: LwwMap
    ownership: Ownership
    changed: bool = False


def _ignore(_: object) -> None:
    return None


def wake(name: str, node: Node) -> Live:
    """Build a living node from its state."""
    store = LwwMap(
        name, table(), logs={head.owner: OwnerLog.restore(head, rows) for head, rows in node.disk.logs}
    )
    store.fences = dict(node.disk.fences)
    store.removed = dict(node.disk.removed)
    store.line = frozenset(node.disk.line)
    if node.known != NO_GEN:
        store.known[OWNER] = node.known
    ownership = Ownership.__new__(Ownership)
    live_node = Live(store, ownership)
    counter = store.own.gen[0]
    attributes = {
        "_map": store,
        "_grace_s": LATE,
        "_changed": _ignore,
        "_notice": _ignore,
        "nonce": node.nonce,
        "boot_gen": (counter, node.nonce),
        "halted": "",
        "_forced": {},
        "_bumps": [],
        "_wanted": NO_GEN,
        "_poisoned": False,
        "_samples": __import__("collections").deque([(0.0, 0)]),
    }
    for attribute, value in attributes.items():
        setattr(ownership, attribute, value)
    return live_node


def start(name: str, disk: Disk, life: int) -> Live:
    """A new life from a disk, as the protocol starts one."""
    store = LwwMap(name, table(), logs={head.owner: OwnerLog.restore(head, rows) for head, rows in disk.logs})
    store.fences = dict(disk.fences)
    store.removed = dict(disk.removed)
    rng = cast(Any, _Bits(life))
    line = frozenset(disk.line)
    ownership = Ownership(store, disk.counter, line, LATE, rng, _ignore, _ignore, 0.0)
    return Live(store, ownership)


def rest(live_node: Live, before: Disk) -> Node:
    """Read a node out; `before`: its disk until now."""
    store, ownership = live_node.store, live_node.ownership
    logs = tuple((log.head(), tuple(log.entries.values())) for _, log in sorted(store.logs.items()))
    disk = Disk(
        logs,
        tuple(sorted(store.fences.items())),
        tuple(sorted(store.removed.items())),
        tuple(sorted(store.line)),
        store.own.gen[0],
    )
    known = store.known.get(OWNER, NO_GEN)
    held = store.logs.get(OWNER)
    if held is not None and known <= held.gen:
        known = NO_GEN
    return Node(disk, before, ownership.nonce, known)


@dataclass(frozen=True)
class Scope:
    """How small the world is. `torn`, `lost`: what disks come to; `forget`: whether owners are forgotten."""

    nodes: int = 2
    keys: int = 1
    depth: int = 6
    writes: int = 3
    lives: int = 2
    lost: bool = True
    torn: bool = True
    forget: bool = True


class Explorer:
    """Walks through every state of a scope, breadth first."""

    def __init__(self, scope: Scope, heal_every: int = 7) -> None:
        self.scope = scope
        self.names = ("a", "b", "c")[: scope.nodes]
        self.heal_every = heal_every
        self.visited = 0
        self.steps = 0
        self.healed = 0

    def run(self) -> int:
        """Visit everything; returns the number of states. Raises Violation with the way that led to it."""
        first = self._first()
        seen = {hash(first)}
        frontier: list[tuple[State, tuple[str, ...]]] = [(first, ())]
        self.visited = 1
        for _ in range(self.scope.depth):
            following: list[tuple[State, tuple[str, ...]]] = []
            for state, way in frontier:
                for label, after in self._checked(state, way):
                    self.steps += 1
                    mark = hash(after)
                    if mark not in seen:
                        seen.add(mark)
                        self.visited += 1
                        following.append((after, (*way, label)))
                        if self.visited % self.heal_every == 0:
                            self._heal(after, (*way, label))
            frontier = following
        return self.visited

    def _first(self) -> State:
        nodes = tuple(rest(start(name, Disk(), 0), Disk()) for name in self.names)
        return State(nodes, (), (), 1, 0)

    def _checked(self, state: State, way: tuple[str, ...]) -> Iterator[tuple[str, State]]:
        label = ""
        try:
            for label, after in self._steps(state):
                if after != state:
                    self._check(state, after)
                    yield label, after
        except (Violation, MapError) as error:
            raise Violation(f"{error}\nafter {', '.join((*way, label))}") from error

    # -- steps -----------------------------------------------------------------------------------

    def _steps(self, state: State) -> Iterator[tuple[str, State]]:
        owner = state.nodes[0]
        if owner.nonce and state.writes < self.scope.writes:
            for number in range(self.scope.keys):
                yield f"put {number}", self._write(state, number, b"%d" % state.writes)
                yield f"remove {number}", self._write(state, number, None)
        if owner.nonce:
            yield "collect", self._on(state, 0, lambda n: n.store.collect_own(n.store.own.max))
        for source in range(self.scope.nodes):
            if state.nodes[source].nonce:
                yield from self._tells(state, source)
        for index, message in enumerate(state.net):
            gone = state._replace(net=state.net[:index] + state.net[index + 1 :])
            yield f"lose {index}", gone
            if state.nodes[message.target].nonce:
                yield f"deliver {index}", self._deliver(gone, message)
                yield f"deliver {index} and keep it", self._deliver(state, message)
        for number in range(self.scope.nodes):
            yield from self._lives(state, number)

    def _tells(self, state: State, source: int) -> Iterator[tuple[str, State]]:
        store = wake(self.names[source], state.nodes[source]).store
        log = store.logs.get(OWNER)
        for target in range(self.scope.nodes):
            if target == source or not state.nodes[target].nonce:
                continue
            have = wake(self.names[target], state.nodes[target]).store.have(OWNER)
            way = f"{self.names[source]}->{self.names[target]}"
            transfer = None if target == 0 else store.lacking(OWNER, have)
            if transfer is not None and log is not None and len(state.net) < UNDER_WAY:
                message = Message(target, False, transfer, (log.gen, log.max, live(log)))
                if message not in state.net:
                    yield f"send {way}", _sorted(state._replace(net=(*state.net, message)))
            mine = store.have(OWNER)
            if target == 0:
                yield f"vector {way}", self._on(state, 0, lambda n, mine=mine: n.ownership.heard(mine, LATE))
            else:
                yield (
                    f"vector {way}",
                    self._on(state, target, lambda n, mine=mine: n.store.heard_of(OWNER, mine.known)),
                )

    def _lives(self, state: State, number: int) -> Iterator[tuple[str, State]]:
        name, node = self.names[number], state.nodes[number]
        if node.nonce:
            if state.lives <= self.scope.lives:
                yield f"{name} dies", self._dead(state, number, node.disk)
                if self.scope.torn and node.before != node.disk:
                    yield f"{name} dies, its last change torn off", self._dead(state, number, node.before)
                if self.scope.lost:
                    yield f"{name} loses its disk", self._dead(state, number, Disk())
            if number and self.scope.forget:
                yield f"{name} forgets", self._on(state, number, lambda n: n.store.forget(OWNER, HLC))
        else:
            begun = rest(start(name, node.disk, state.lives), node.disk)
            yield f"{name} starts", self._put(state, number, begun)._replace(lives=state.lives + 1)

    def _dead(self, state: State, number: int, disk: Disk) -> State:
        return self._put(state, number, Node(disk, disk, 0, NO_GEN))

    def _on(self, state: State, number: int, act: Any) -> State:
        node = state.nodes[number]
        live_node = wake(self.names[number], node)
        act(live_node)
        after = rest(live_node, node.disk)
        if after.disk == node.disk:
            after = after._replace(before=node.before)
        return self._put(state, number, after)

    @staticmethod
    def _put(state: State, number: int, node: Node) -> State:
        return state._replace(nodes=(*state.nodes[:number], node, *state.nodes[number + 1 :]))

    def _write(self, state: State, number: int, value: bytes | None) -> State:
        name = key(OWNER, number)
        made: list[tuple[Dot, Dot | None, str]] = []

        def act(node: Live) -> None:
            own = node.store.own
            present = own.entries.get(name)
            before = None if present is None else dot_of(present, own.gen)
            change = node.store.delete(name, HLC) if value is None else node.store.put(name, value, HLC)
            if change.ops:
                made.append((dot_of(own.entries[name], own.gen), before, name))

        after = self._on(state, 0, act)
        if not made:
            return state
        return after._replace(preds=(*state.preds, *made), writes=state.writes + 1)

    def _deliver(self, state: State, message: Message) -> State:
        offers: list[Message] = []

        def act(node: Live) -> None:
            if message.offer:
                copy = OwnerLog.restore(message.transfer.head, message.transfer.entries)
                node.ownership.offered(copy, LATE)
                return
            change: Change = node.store.apply(message.transfer)
            log = node.store.logs.get(OWNER)
            if log is not None and (log.gen, log.max) == message.truth[:2] and live(log) != message.truth[2]:
                raise Violation(f"{node.store.node} stands at {message.truth[:2]} with other content")
            if change.verdict is Verdict.UNCOVERED and log is not None:
                offers.append(Message(0, True, full(log), (log.gen, log.max, live(log))))

        after = self._on(state, message.target, act)
        fits = [offer for offer in offers if offer not in after.net][: max(0, UNDER_WAY - len(after.net))]
        return _sorted(after._replace(net=(*after.net, *fits)))

    # -- what must hold --------------------------------------------------------------------------

    def _check(self, before: State, after: State) -> None:
        for number, (old, new) in enumerate(zip(before.nodes, after.nodes, strict=True)):
            if old is new or not new.nonce:
                continue
            log = _log_of(new)
            if old.nonce == new.nonce:
                self._check_forward(self.names[number], old, new)
            if log is not None:
                check_knowledge(self.names[number], log, after.preds)

    @staticmethod
    def _check_forward(name: str, old: Node, new: Node) -> None:
        was, now = _log_of(old), _log_of(new)
        fence = dict(new.disk.fences).get(OWNER, 0)
        if was is not None and now is not None and (now.gen, now.max) < (was.gen, was.max):
            raise Violation(f"{name} went back from {was.gen, was.max} to {now.gen, now.max}")
        if was is not None and now is None and fence < was.gen[0]:
            raise Violation(f"{name} forgot without a fence")
        if was is None and now is not None and now.gen[0] <= dict(old.disk.fences).get(OWNER, 0):
            raise Violation(f"{name} took back what it had forgotten")

    def _heal(self, state: State, way: tuple[str, ...]) -> None:
        """From here, with everybody alive and every link up, all must come to agree."""
        self.healed += 1
        held = {dot for node in state.nodes for log in [_log_of(node)] if log for dot in _dots(log)}
        nodes = []
        for number, name in enumerate(self.names):
            node = state.nodes[number]
            nodes.append(wake(name, node) if node.nonce else start(name, node.disk, state.lives + number))
        try:
            self._exchange(nodes)
            own = nodes[0].store.own
            check_knowledge("a", own, state.preds)
            for dot in held:
                if not own.knows(dot):
                    raise Violation(f"{dot} survived, and its owner never took it on")
        except (Violation, MapError) as error:
            raise Violation(f"{error}\nhealing after {', '.join(way)}") from error

    def _exchange(self, nodes: list[Live]) -> None:
        for _ in range(12):
            for source in nodes:
                for target in nodes:
                    if source is not target:
                        self._meet(source, target, nodes[0])
            rows = {(n.store.have(OWNER)[:2], n.store.have(OWNER).hash, n.store.digest) for n in nodes}
            if len(rows) == 1:
                return
        raise Violation(f"no agreement: {rows}")

    @staticmethod
    def _meet(source: Live, target: Live, owner: Live) -> None:
        row = source.store.have(OWNER)
        if target is owner:
            target.ownership.heard(row, LATE)
            return
        target.store.heard_of(OWNER, row.known)
        transfer = source.store.lacking(OWNER, target.store.have(OWNER))
        if transfer is None:
            return
        verdict = target.store.apply(transfer).verdict
        if verdict in (Verdict.GAP, Verdict.CONFLICT):
            raise Violation(f"{verdict} of a transfer made to measure")
        if verdict is Verdict.UNCOVERED:
            owner.ownership.offered(target.store.logs[OWNER], LATE)


def _sorted(state: State) -> State:
    return state._replace(net=tuple(sorted(state.net, key=repr)))


def _log_of(node: Node) -> OwnerLog | None:
    for head, rows in node.disk.logs:
        if head.owner == OWNER:
            return OwnerLog.restore(head, rows)
    return None


def _dots(log: OwnerLog) -> Iterator[Dot]:
    return (dot_of(entry, log.gen) for entry in log.entries.values())


def check_knowledge(name: str, log: OwnerLog, preds: tuple[tuple[Dot, Dot | None, str], ...]) -> None:
    """No log shows a write that another one, which it has taken on, had replaced or removed."""
    past = {dot: before for dot, before, _ in preds}
    for dot, _, of in preds:
        entry = log.entries.get(of)
        if entry is None or entry[VALUE] is None or not log.knows(dot):
            continue
        shown = dot_of(entry, log.gen)
        before = past[dot]
        while before is not None:
            if before == shown:
                raise Violation(f"{name} shows {shown} for {entry[KEY]}, though {dot} had replaced it")
            before = past.get(before)


def main() -> int:
    """Explore, and tell how much there was."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.explorer", description=__doc__)
    parser.add_argument("--nodes", type=int, default=2, choices=(2, 3))
    parser.add_argument("--keys", type=int, default=1)
    parser.add_argument("--depth", type=int, default=6)
    args = parser.parse_args()
    started = time.perf_counter()
    explorer = Explorer(Scope(args.nodes, args.keys, args.depth))
    explorer.run()
    sys.stdout.write(
        f"{explorer.visited} states, {explorer.steps} steps, {explorer.healed} healed,"
        f" {time.perf_counter() - started:.1f} s\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
