"""One owner's log: the entries that it alone writes, in the order in which it wrote them.

Rules kept here:
- entries stand in seq order, each key once, so that what a peer lacks is the tail of the log;
- `max` never falls within a gen; `floor` never falls at all;
- tombstones at or below `floor` are gone; live entries never are;
- `hash` is the sum of the live entries' leaves at all times;
- the entries up to `base` were those of the gen before, in the same order (0: this gen began otherwise).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from crdt.errors import CorruptLog, IllegalDelta
from crdt.hashing import MASK, content_leaf, log_leaf
from crdt.types import FENCE_NONCE, KEY, NO_GEN, SEQ, VALUE, Dot, Entry, Gen, LogHead

LINEAGE_LIMIT = 256
"""Former gens remembered one by one. All older ones become one row, and count as taken on in full."""


class Weights(NamedTuple):
    """The hash of a log after some entries, and per entry the content leaves that come and go (0: none)."""

    hash: int
    leaves: list[tuple[int, int]]


class OwnerLog:
    """The log of `owner` at `(gen, max)`, either the owner's own or a replica of it."""

    __slots__ = (
        "_lineage_rows",
        "base",
        "entries",
        "floor",
        "gen",
        "hash",
        "lineage",
        "max",
        "owner",
        "signature",
        "tombstones",
    )

    def __init__(self, owner: str, gen: Gen) -> None:
        self.owner = owner
        self.gen = gen
        self.base = 0
        self.max = 0
        self.floor = 0
        self.hash = 0
        self.lineage: dict[Gen, int] = {}
        self.entries: OrderedDict[str, Entry] = OrderedDict()
        self.tombstones: OrderedDict[str, None] = OrderedDict()
        self.signature: bytes | None = None
        self._lineage_rows: tuple[dict[Gen, int], tuple[tuple[int, int, int], ...]] | None = None

    @classmethod
    def restore(cls, head: LogHead, entries: Iterable[Entry]) -> OwnerLog:
        """Build a log from its head and entries in seq order.

        Raises CorruptLog if the entries are out of order, exceed the head's `max`, or do not hash to it.
        """
        log = cls(head.owner, head.gen)
        log.base, log.floor = head.base, head.floor
        log.lineage = {(counter, nonce): seq for counter, nonce, seq in head.lineage}
        log.signature = head.signature
        try:
            log.extend(entries, head.max)
        except IllegalDelta as error:
            raise CorruptLog(f"log of {head.owner!r}: {error}") from error
        if log.hash != head.hash:
            raise CorruptLog(f"log of {head.owner!r}: its entries do not add up to the hash in its head")
        return log

    def head(self) -> LogHead:
        """Everything but the entries."""
        known = self._lineage_rows  # a gen's lineage never changes, and every write asks for the head
        if known is None or known[0] is not self.lineage:
            rows = tuple((gen[0], gen[1], seq) for gen, seq in self.lineage.items())
            known = self._lineage_rows = (self.lineage, rows)
        return LogHead(
            self.owner, self.gen, self.base, self.max, self.floor, self.hash, known[1], self.signature
        )

    @property
    def live_count(self) -> int:
        """Number of keys with a value."""
        return len(self.entries) - len(self.tombstones)

    def append(self, key: str, value: bytes | None, hlc: int, dot: Dot | None = None) -> Entry:
        """Write as the owner: put (or, with value None, delete) `key` under the next seq."""
        entry: Entry = (key, self.max + 1, dot, hlc, value, None)
        self.extend((entry,), self.max + 1)
        return entry

    def weigh(self, entries: Iterable[Entry]) -> Weights:
        """What `hash` would be once `entries` (each key once) were applied. Changes nothing."""
        find, leaf, place = self.entries.get, content_leaf, log_leaf
        total, leaves = self.hash, []
        for entry in entries:
            key, seq, _, _, value, _ = entry
            gained = lost = 0
            old = find(key)
            if old is not None and (replaced := old[VALUE]) is not None:
                lost = leaf(key, replaced)
                total -= place(lost, old[SEQ])
            if value is not None:
                gained = leaf(key, value)
                total += place(gained, seq)
            leaves.append((gained, lost))
        return Weights(total & MASK, leaves)

    def extend(self, entries: Iterable[Entry], to: int, hash_after: int | None = None) -> None:
        """Apply entries in seq order, all above `max` and at most `to`, then stand at `to`.

        `hash_after`, where the caller has it from `weigh`, is taken as the new hash.
        Raises IllegalDelta, having applied nothing, if order or range are broken.
        """
        batch = entries if isinstance(entries, (tuple, list)) else list(entries)
        last = self.max
        for entry in batch:
            seq = entry[SEQ]
            if seq <= last:
                raise IllegalDelta(f"seq {seq} after {last}: entries must rise above what is held")
            last = seq
        if last > to:
            raise IllegalDelta(f"seq {last} lies beyond the end of the transfer, {to}")
        self.hash = self.weigh(batch).hash if hash_after is None else hash_after
        present, tombstones = self.entries, self.tombstones
        for entry in batch:
            key = entry[KEY]
            if key in present:
                present.move_to_end(key)
            present[key] = entry
            if entry[VALUE] is None:
                tombstones[key] = None
                tombstones.move_to_end(key)
            elif tombstones:
                tombstones.pop(key, None)
        self.max = to

    def since(self, seq: int) -> list[Entry]:
        """The entries above `seq`, in seq order; costs what it returns, not what the log holds."""
        tail = []
        for entry in reversed(self.entries.values()):
            if entry[SEQ] <= seq:
                break
            tail.append(entry)
        tail.reverse()
        return tail

    def collect(self, floor: int) -> list[str]:
        """Raise the floor and drop the tombstones at or below it; returns their keys.

        A floor below the present one, or above `max`, changes nothing beyond `max`.
        """
        floor = min(floor, self.max)
        if floor <= self.floor:
            return []
        self.floor = floor
        dropped = []
        for key in self.tombstones:
            if self.entries[key][SEQ] > floor:
                break
            dropped.append(key)
        for key in dropped:
            del self.tombstones[key]
            del self.entries[key]
        return dropped

    def covers(self, gen: Gen, seq: int) -> bool:
        """Whether this log has taken on everything up to `seq` of `gen` (its own gen or one of its lineage).

        A gen that is not listed is not covered, not even at seq 0.
        """
        return seq <= self.max if gen == self.gen else lineage_covers(self.lineage, gen, seq)

    def knows(self, dot: Dot) -> bool:
        """Whether the write behind `dot` was taken on, whatever became of it since."""
        return self.covers((dot[0], dot[1]), dot[2])

    def lists(self, dot: Dot) -> bool:
        """Like `knows`, but not for gens that are so old that the lineage no longer lists them one by one."""
        gen = (dot[0], dot[1])
        return (gen == self.gen or gen in self.lineage) and self.knows(dot)


def lineage_covers(lineage: dict[Gen, int], gen: Gen, seq: int) -> bool:
    """Whether everything up to `seq` of a former `gen` was taken on."""
    taken = lineage.get(gen)
    if taken is not None:
        return seq <= taken
    oldest = next(iter(lineage), NO_GEN)
    return oldest[1] == FENCE_NONCE and gen[0] <= oldest[0]


def trimmed_lineage(lineage: dict[Gen, int]) -> dict[Gen, int]:
    """At most LINEAGE_LIMIT gens, the greatest ones, in rising order, and a row for all those before them.

    That row, (counter, FENCE_NONCE), comes first and covers every gen up to its counter that has no row of
    its own. So a copy from so long ago yields to the owner: it can bring back nothing that was removed since.
    """
    gens = sorted(lineage)
    kept, dropped = gens[-LINEAGE_LIMIT:], gens[:-LINEAGE_LIMIT]
    horizon = max((gen for gen in gens if gen[1] == FENCE_NONCE), default=None)
    if dropped:
        horizon = max(horizon or NO_GEN, (dropped[-1][0], FENCE_NONCE))
    rows = {} if horizon is None else {horizon: 0}
    return rows | {gen: lineage[gen] for gen in kept if gen[1] != FENCE_NONCE}
