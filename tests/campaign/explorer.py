"""Every interleaving of a few nodes' lives up to a depth, over the real map and the real ownership.

Steps: the owner `a` puts and removes, collects, dies; anybody sends what another lacks of `a`'s log, tells
its vector, dies, comes back with its disk, without its last change, or without its disk, and forgets; what is
under way arrives, arrives and stays under way, or is lost. Optionally `a`'s machine goes on from an image.

A walk starts from nothing or from the end of a prelude (a list of steps), so that depth is spent where it is
interesting. `python -m tests.campaign.explorer [--nodes N] [--keys K] [--depth D] [--from P]` prints the
states visited.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from crdt.delta import Verdict
from crdt.errors import MapError
from crdt.lww_map import Change
from crdt.owner_log import OwnerLog
from crdt.types import NO_GEN, VALUE, dot_of
from tests.campaign.oracle import Violation, live
from tests.campaign.small_world import (
    LATE,
    OWNER,
    Disk,
    Live,
    Made,
    Message,
    Node,
    State,
    act,
    check_certain,
    check_forward,
    check_knowledge,
    log_of,
    rest,
    start,
    survivors,
    wake,
)
from tests.support.maps import HLC, full, key

UNDER_WAY = 2
"""Messages under way at most."""

_HELD = ("put 0", "send a->b", "deliver 0")
PRELUDES: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "held": _HELD,
    "removed": (*_HELD, "remove 0", "send a->b", "deliver 0"),
    "delta under way": (*_HELD, "put 1", "send a->b", "deliver 0", "put 0", "send a->b"),
    "torn": (*_HELD, "put 0", "send a->b", "deliver 0", "a dies, its last change torn off", "a starts"),
    "lost": (*_HELD, "a loses its disk", "a starts"),
    "lost late": ("a dies", "a starts", *_HELD, "a loses its disk", "a starts"),
    "forgotten": (*_HELD, "b forgets"),
}


@dataclass(frozen=True)
class Scope:
    """How small the world is, and what may happen in it."""

    nodes: int = 2
    keys: int = 1
    depth: int = 6
    prelude: str = "nothing"
    writes: int = 3
    lives: int = 2
    resume: bool = False


class Explorer:
    """Walks through every state of a scope, breadth first; every `heal_every`-th new one is healed too."""

    def __init__(self, scope: Scope, heal_every: int = 5) -> None:
        self.scope = scope
        self.names = ("a", "b", "c")[: scope.nodes]
        self.heal_every = heal_every
        self.visited = self.steps = self.healed = 0
        self._last_life = self._last_write = 99
        self._keys = 2

    def run(self) -> int:
        """Visit everything; returns the number of states. Raises Violation with the way that led to it."""
        state = State(tuple(rest(start(name, Disk(), 0), Disk()) for name in self.names))
        for step in PRELUDES[self.scope.prelude]:
            state = dict(self._checked(state, ()))[step]
        self._keys = self.scope.keys
        self._last_life = state.lives + self.scope.lives
        self._last_write = len(state.made) + self.scope.writes
        seen = {state}
        frontier: list[tuple[State, tuple[str, ...]]] = [(state, ())]
        for _ in range(self.scope.depth):
            following: list[tuple[State, tuple[str, ...]]] = []
            for state, way in frontier:
                for label, after in self._checked(state, way):
                    self.steps += 1
                    if after not in seen:
                        seen.add(after)
                        following.append((after, (*way, label)))
                        if len(seen) % self.heal_every == 0:
                            self._heal(after, (*way, label))
            frontier = following
        self.visited = len(seen)
        return self.visited

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
        if state.nodes[0].nonce:
            if len(state.made) < self._last_write:
                for number in range(self._keys):
                    yield f"put {number}", self._write(state, key(OWNER, number), False)
                    yield f"remove {number}", self._write(state, key(OWNER, number), True)
            yield "collect", act(state, 0, OWNER, lambda n: n.store.collect_own(n.store.own.max))
            if self.scope.resume:
                if state.image is None:
                    yield "image", state._replace(image=state.nodes[0])
                else:
                    yield "resume", state.with_node(0, state.image)._replace(image=None, resumed=True)
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
        log, mine = store.logs.get(OWNER), store.have(OWNER)
        for target in range(self.scope.nodes):
            if target == source or not state.nodes[target].nonce:
                continue
            name = self.names[target]
            way = f"{self.names[source]}->{name}"
            if target == 0:
                yield f"vector {way}", act(state, 0, OWNER, lambda n: n.ownership.heard(mine, LATE))
                continue
            transfer = store.lacking(OWNER, wake(name, state.nodes[target]).store.have(OWNER))
            if transfer is not None and log is not None and len(state.net) < UNDER_WAY:
                message = Message(target, False, transfer, (log.gen, log.max, live(log)))
                yield f"send {way}", state.with_message(message)
            yield f"vector {way}", act(state, target, name, lambda n: n.store.heard_of(OWNER, mine.known))

    def _lives(self, state: State, number: int) -> Iterator[tuple[str, State]]:
        name, node = self.names[number], state.nodes[number]
        if not node.nonce:
            begun = rest(start(name, node.disk, state.lives + 8 * number), node.disk)
            yield f"{name} starts", state.with_node(number, begun)._replace(lives=state.lives + 1)
            return
        if state.lives < self._last_life:
            yield f"{name} dies", self._dead(state, number, node.disk)
            if node.before != node.disk:
                yield f"{name} dies, its last change torn off", self._dead(state, number, node.before)
            yield f"{name} loses its disk", self._dead(state, number, Disk())
        if number:
            yield f"{name} forgets", act(state, number, name, lambda n: n.store.forget(OWNER, HLC))

    @staticmethod
    def _dead(state: State, number: int, disk: Disk) -> State:
        harmed = number == 0 and disk != state.nodes[0].disk
        state = state._replace(certain=()) if harmed else state
        return state.with_node(number, Node(disk, disk, 0, NO_GEN))

    @staticmethod
    def _write(state: State, name: str, removal: bool) -> State:
        made: list[Made] = []
        number = len(state.made)

        def write(node: Live) -> None:
            own = node.store.own
            present = own.entries.get(name)
            dot = None if present is None else dot_of(present, own.gen)
            before = next((one.number for one in state.made if one.dot == dot), None)
            if present is not None and present[VALUE] is not None:
                before = int(present[VALUE])
            change = node.store.delete(name, HLC) if removal else node.store.put(name, b"%d" % number, HLC)
            if change.ops:
                made.append(Made(number, before, name, dot_of(own.entries[name], own.gen), removal))

        after = act(state, 0, OWNER, write)
        if not made:
            return state
        certain = tuple(sorted({**dict(state.certain), name: number}.items()))
        return after._replace(made=(*state.made, *made), certain=certain)

    def _deliver(self, state: State, message: Message) -> State:
        offers: list[Message] = []

        def receive(node: Live) -> None:
            if message.offer:
                copy = OwnerLog.restore(message.transfer.head, message.transfer.entries)
                node.ownership.offered(copy, LATE)
                return
            change: Change = node.store.apply(message.transfer)
            log = node.store.logs.get(OWNER)
            if log is None:
                return
            standing = (log.gen, log.max, live(log))
            if not state.resumed and standing[:2] == message.truth[:2] and standing != message.truth:
                raise Violation(f"{node.store.node} stands at {message.truth[:2]} with other content")
            if change.verdict is Verdict.UNCOVERED and len(state.net) < UNDER_WAY:
                offers.append(Message(0, True, full(log), standing))

        after = act(state, message.target, self.names[message.target], receive)
        for offer in offers:
            after = after.with_message(offer)
        return after

    # -- what must hold --------------------------------------------------------------------------

    def _check(self, before: State, after: State) -> None:
        for number, (old, new) in enumerate(zip(before.nodes, after.nodes, strict=True)):
            if old is new or not new.nonce:
                continue
            log = log_of(new)
            if old.nonce == new.nonce and not (number == 0 and after.resumed):
                check_forward(self.names[number], old, new)
            if log is not None and not after.resumed:
                check_knowledge(self.names[number], log, after.made)

    def _heal(self, state: State, way: tuple[str, ...]) -> None:
        """From here, with everybody alive and every link up, all must come to agree on what is right."""
        self.healed += 1
        nodes = []
        for number, name in enumerate(self.names):
            node = state.nodes[number]
            nodes.append(wake(name, node) if node.nonce else start(name, node.disk, state.lives + 8 * number))
        own = nodes[0].store
        try:
            self._exchange(nodes)
            if not state.resumed:
                check_knowledge("a", own.own, state.made)
                check_certain(own.own, state)
                for dot in survivors(state):
                    if not own.own.knows(dot):
                        raise Violation(f"{dot} survived, and its owner never took it on")
        except (Violation, MapError) as error:
            raise Violation(f"{error}\nhealing after {', '.join(way)}") from error

    def _exchange(self, nodes: list[Live]) -> None:
        rows: set[object] = set()
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
        """`target` hears the vector of `source`, and is sent what it lacks."""
        row = source.store.have(OWNER)
        if target is owner:
            target.ownership.heard(row, LATE)
            return
        target.store.heard_of(OWNER, row.known)
        transfer = source.store.lacking(OWNER, target.store.have(OWNER))
        if transfer is None:
            return
        verdict = target.store.apply(transfer).verdict
        if verdict is Verdict.CONFLICT:
            again = source.store.logs[OWNER]
            target.store.apply(full(again))
        if verdict is Verdict.UNCOVERED:
            owner.ownership.offered(target.store.logs[OWNER], LATE)


def main() -> int:
    """Explore, and tell how much there was."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.explorer", description=__doc__)
    parser.add_argument("--nodes", type=int, default=2, choices=(2, 3))
    parser.add_argument("--keys", type=int, default=1)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--from", dest="prelude", choices=list(PRELUDES), default="nothing")
    parser.add_argument("--resume", action="store_true", help="a's machine may go on from an image")
    args = parser.parse_args()
    started = time.perf_counter()
    explorer = Explorer(Scope(args.nodes, args.keys, args.depth, args.prelude, resume=args.resume))
    explorer.run()
    sys.stdout.write(
        f"{explorer.visited} states, {explorer.steps} steps, {explorer.healed} healed,"
        f" {time.perf_counter() - started:.1f} s\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
