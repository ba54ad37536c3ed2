"""What must hold of a world, whatever befell it. Knows every write that was made, and by whom it was known.

Held after every step of every node:
- `(gen, max)` of each log never goes back within a life, nor to a forgotten gen;
- no node shows a write again that a write which it showed had replaced or removed, and the stamp that it
  shows for a shared key never falls;
- a replica stands at a state that the owner's log really had, with that state's content, and its hash is
  the sum of what it holds: so a vector is never ahead of the entries, and no seq is used twice.

Held once everything is healed:
- all nodes agree, on every owner's log and on the visible map;
- every write that any surviving copy held is taken on by its owner, and none that a taken-on write knew of
  (a value that was replaced, a key that was removed) is shown;
- a value that survived anywhere is gone only if a removal did not know less than it;
- the last write of a line of lives (a disk that lost nothing since) is what counts;
- a shared key shows a stamp no lower than any that such a disk or a surviving copy held.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from crdt.owner_log import OwnerLog
from crdt.prefixes import unseal
from crdt.types import KEY, SEQ, VALUE, Dot, Gen, dot_of
from meshd.storage.memory import MemoryDisk
from tests.campaign.world import World


class Violation(AssertionError):
    """Something that must never be."""


@dataclass(frozen=True)
class Write:
    """One write of a user. `before`: the dot that its log showed for the key when it was made.

    `stamp`: that of a shared key's write, worked out from what the writer could see.
    """

    owner: str
    key: str
    value: bytes | None
    dot: Dot
    before: Dot | None
    stamp: tuple[int, str]


@dataclass
class _Seen:
    """What a place's node showed of one owner's log when it was last looked at."""

    log: OwnerLog
    gen: Gen
    max: int
    floor: int
    shown: dict[str, Dot]


def live(log: OwnerLog) -> tuple[tuple[str, int, bytes], ...]:
    """Live entries of a log as (key, seq, value)."""
    return tuple((e[KEY], e[SEQ], e[VALUE]) for e in log.entries.values() if e[VALUE] is not None)


@dataclass
class Oracle:
    """Watches one world."""

    world: World
    writes: dict[tuple[str, Dot], Write] = field(default_factory=dict)
    certain: dict[tuple[str, str], Write] = field(default_factory=dict)
    """(owner, key) -> the last write, where the disks of that line lost nothing since."""
    cloned: set[str] = field(default_factory=set)
    """Owners of whom two lives ran at once: nothing is certain of what they wrote."""
    resumed: set[str] = field(default_factory=set)
    """Owners whose process went on from an image: their dots and seqs may have been used twice."""
    dismissed: set[str] = field(default_factory=set)
    """Owners whom somebody had forgotten everywhere: copies of their former logs may go."""
    states: dict[tuple[str, Gen, int], tuple[tuple[str, int, bytes], ...]] = field(default_factory=dict)
    _seen: dict[tuple[str, int], dict[str, _Seen]] = field(default_factory=dict)
    _forgotten: dict[tuple[str, int], dict[str, int]] = field(default_factory=dict)
    _stamps: dict[tuple[str, int], dict[str, tuple[int, str]]] = field(default_factory=dict)
    checks: int = 0

    def __post_init__(self) -> None:
        self.world.watchers.append(self.look)

    # -- what happens ----------------------------------------------------------------------------

    def put(self, place: str, key: str, value: bytes) -> None:
        """A user writes at a place, and the write is remembered."""
        self._write(place, key, value)

    def observe(self, place: str, key: str, value: bytes) -> None:
        """A node notes something of its own entry: no write of a user, and it counts as the one behind it."""
        node = self.world.node(place)
        before = node.map.own.entries.get(key)
        if before is None or before[VALUE] is None:
            return
        node.put(key, value, observed=True)
        self.world.perform(place)

    def delete(self, place: str, key: str) -> None:
        """A user removes a key at a place."""
        self._write(place, key, None)

    def _write(self, place: str, key: str, value: bytes | None) -> None:
        node = self.world.node(place)
        own = node.map.own
        present = own.entries.get(key)
        before = None if present is None else dot_of(present, own.gen)
        stamp = (1 + shown_stamp(node.map.logs.values(), key)[0], own.owner)
        if value is None:
            node.delete(key)
        else:
            node.put(key, value)
        own = node.map.own
        entry = own.entries.get(key)
        dot = None if entry is None else dot_of(entry, own.gen)
        if dot is not None and dot != before:
            assert entry is not None
            write = Write(own.owner, key, entry[VALUE], dot, before, stamp)
            self.writes[own.owner, dot] = write
            if own.owner not in self.cloned | self.resumed:
                self.certain[own.owner, key] = write
        self.world.perform(place)

    def disk_fault(self, owner: str) -> None:
        """A disk of this owner lost something: no single write of it so far is certain any more."""
        for known in [known for known in self.certain if known[0] == owner]:
            del self.certain[known]

    # -- throughout ------------------------------------------------------------------------------

    def look(self, name: str) -> None:
        """Check the node at a place after it did something."""
        place = self.world.places[name]
        node = place.node
        if node is None:
            return
        seen = self._seen.setdefault((name, place.lives), {})
        forgotten = self._forgotten.setdefault((name, place.lives), {})
        changed = False
        for owner, log in node.map.logs.items():
            last = seen.get(owner)
            if last is not None and (last.log, last.max, last.floor) == (log, log.max, log.floor):
                continue
            self.checks += 1
            changed = True
            if last is not None and (log.gen, log.max) < (last.gen, last.max):
                raise Violation(f"{name}: {owner} went back from {last.gen, last.max} to {log.gen, log.max}")
            if log.gen[0] <= forgotten.get(owner, 0):
                raise Violation(f"{name} took {owner} at {log.gen}, having forgotten it")
            shown = {entry[KEY]: dot_of(entry, log.gen) for entry in log.entries.values()}
            seen[owner] = _Seen(log, log.gen, log.max, log.floor, shown)
            self._check_log(name, owner, log, own=place.called == owner)
            if last is not None and owner not in self.resumed:
                self._check_shown(name, owner, last.shown, shown)
        for owner in seen.keys() - node.map.logs.keys():
            forgotten[owner] = seen.pop(owner).gen[0]
            changed = True
        if changed and not self.resumed:
            self._check_shared(name, node.map.logs.values(), self._stamps.setdefault((name, place.lives), {}))

    def _check_shown(self, name: str, owner: str, before: dict[str, Dot], now: dict[str, Dot]) -> None:
        for key, dot in now.items():
            earlier = before.get(key)
            if key.startswith("worker:") and earlier is not None and earlier != dot:
                write = self.writes.get((owner, earlier))
                if write is not None and dot in self._past(write):
                    raise Violation(f"{name}: {key} fell back from {earlier} to {dot}")

    def _check_shared(self, name: str, logs: Iterable[OwnerLog], stamps: dict[str, tuple[int, str]]) -> None:
        for key in {write.key for write in self.writes.values() if write.key.startswith("config:")}:
            stamp = shown_stamp(logs, key)
            if stamp < stamps.get(key, (0, "")):
                raise Violation(f"{name}: {key} fell back from {stamps[key]} to {stamp}")
            stamps[key] = stamp

    def _check_log(self, name: str, owner: str, log: OwnerLog, own: bool) -> None:
        entries = tuple(log.entries.values())
        if entries and entries[-1][SEQ] > log.max:
            raise Violation(f"{name}: {owner}'s entries run ahead of its max")
        if log.hash != OwnerLog.restore(log.head()._replace(hash=log.hash), entries).hash:
            raise Violation(f"{name}: {owner}'s hash is not that of its entries")
        if owner in self.resumed:
            return
        at = (owner, log.gen, log.max)
        content = live(log)
        known = self.states.get(at)
        if known is None:
            if not own:
                raise Violation(f"{name} stands at {at}, where {owner} never was")
            self.states[at] = content
        elif known != content:
            raise Violation(f"{name}: {owner} at {log.gen, log.max} has other content than before")

    # -- once healed -----------------------------------------------------------------------------

    def survivors(self) -> dict[str, dict[str, set[Dot]]]:
        """Owner -> key -> dots of the writes that some surviving copy of its log shows."""
        found: dict[str, dict[str, set[Dot]]] = {}
        for log in self._copies():
            keys = found.setdefault(log.owner, {})
            for entry in log.entries.values():
                keys.setdefault(entry[KEY], set()).add(dot_of(entry, log.gen))
        return found

    def _copies(self) -> Iterable[OwnerLog]:
        for name in self.world.names:
            place = self.world.places[name]
            logs = stored_logs(place.disk) if place.node is None else place.node.map.logs
            yield from (log for log in logs.values() if log.owner == name or log.owner not in self.dismissed)

    def agreed(self) -> bool:
        """Whether all nodes hold the same of every owner, and show the same."""
        maps = [self.world.node(name).map for name in self.world.names]
        first = maps[0]
        rows = {owner: (log.gen, log.max, log.hash) for owner, log in first.logs.items()}
        return set(rows) == set(self.world.names) and all(
            other.digest == first.digest
            and rows == {owner: (log.gen, log.max, log.hash) for owner, log in other.logs.items()}
            for other in maps[1:]
        )

    def disagreement(self) -> str:
        """What the nodes hold, for people."""
        lines = []
        for name in self.world.names:
            node = self.world.node(name)
            rows = {owner: (log.gen, log.max, log.hash & 0xFFFF) for owner, log in node.map.logs.items()}
            extra = f" halted: {node.ownership.halted}" if node.ownership.halted else ""
            lines.append(f"{name}: {rows} fences {node.map.fences}{extra}")
        return "\n".join(lines)

    def judge(self, survivors: dict[str, dict[str, set[Dot]]]) -> None:
        """Check what the healed world shows against every write; `survivors` from before it healed."""
        for owner in self.world.names:
            if owner not in self.resumed:
                self._judge_owner(owner, survivors.get(owner, {}))
        self._judge_shared(survivors)

    def _judge_owner(self, owner: str, survivors: dict[str, set[Dot]]) -> None:
        final = self.world.node(owner).map.own
        for key, dots in survivors.items():
            for dot in dots:
                if not final.knows(dot):
                    raise Violation(f"{owner} has not taken on {dot} of {key}, which a copy held")
        by_key: dict[str, list[Write]] = {}
        for write in self.writes.values():
            if write.owner == owner and write.key.startswith("worker:"):
                by_key.setdefault(write.key, []).append(write)
        for key, writes in by_key.items():
            entry = final.entries.get(key)
            shown = None if entry is None else dot_of(entry, final.gen)
            if shown is not None and (owner, shown) not in self.writes:
                raise Violation(f"{owner} shows {shown} for {key}, which nobody wrote")
            taken = [write for write in writes if final.knows(write.dot)]
            for write in taken:
                if shown is not None and shown in self._past(write):
                    raise Violation(f"{key} fell back to {shown}, though {write.dot} had replaced it")
            if shown is None:
                remembered = self.world.node(owner).map.removed.get(key)
                removals = [w for w in writes if w.value is None and (w in taken or w.dot == remembered)]
                self._judge_gone(key, taken, removals, survivors.get(key, set()))
        for (whose, key), write in self.certain.items():
            if whose == owner and key.startswith("worker:"):
                entry = final.entries.get(key)
                alive = entry is not None and entry[VALUE] is not None
                if alive != (write.value is not None) or (
                    entry is not None and dot_of(entry, final.gen) != write.dot
                ):
                    raise Violation(f"{key} is {entry}, though {write} was the last and on a sound disk")

    def _judge_gone(self, key: str, taken: list[Write], removals: list[Write], survivors: set[Dot]) -> None:
        for write in taken:
            if write.value is not None and write.dot in survivors:
                before = self._past(write)
                if all(removal.dot in before for removal in removals):
                    raise Violation(f"{key} is gone, though {write} survived and nobody removed it")

    def _past(self, write: Write) -> set[Dot]:
        past: set[Dot] = set()
        before = write.before
        while before is not None and before not in past:
            past.add(before)
            known = self.writes.get((write.owner, before))
            before = None if known is None else known.before
        return past

    def _judge_shared(self, survivors: dict[str, dict[str, set[Dot]]]) -> None:
        floor: dict[str, tuple[int, str]] = {}
        expected = [write for (_, key), write in self.certain.items() if key.startswith("config:")]
        for owner, keys in survivors.items():
            for key, dots in keys.items():
                if key.startswith("config:") and owner not in self.resumed:
                    expected += [self.writes[owner, dot] for dot in dots if (owner, dot) in self.writes]
        for write in expected:
            floor[write.key] = max(floor.get(write.key, (0, "")), write.stamp)
        for key, least in floor.items():
            shown = shown_stamp(self.world.node(self.world.names[0]).map.logs.values(), key)
            if shown < least:
                raise Violation(f"{key} fell back to {shown} from {least}")


def shown_stamp(logs: Iterable[OwnerLog], key: str) -> tuple[int, str]:
    """The greatest stamp that any log holds for a shared key."""
    stamps = [(0, "")]
    for log in logs:
        entry = log.entries.get(key)
        envelope = unseal(entry[VALUE] or b"") if entry is not None else None
        if envelope is not None:
            stamps.append(envelope[:2])
    return max(stamps)


def stored_logs(disk: MemoryDisk) -> dict[str, OwnerLog]:
    """The logs on a disk that nobody uses now."""
    heads, entries, _ = disk.content()
    return {
        owner: OwnerLog.restore(head, sorted(entries.get(owner, {}).values(), key=lambda e: e[SEQ]))
        for owner, head in heads.items()
    }
