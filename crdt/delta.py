"""What a peer lacks of one log, and what a replica may do with what it is sent.

A transfer is a *cut*: the entries of one log above `start` as they stood at one moment, with the head of
that moment. However many frames carry it, the receiver applies it as a whole or not at all, so every
replica stands at states that the owner's log really went through, and equal `(gen, max)` means equal
content. Tombstones collected while a cut travels do no harm: the cut still holds them, and the next
transfer is judged by the floor anew.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from crdt.errors import IllegalDelta
from crdt.owner_log import OwnerLog, lineage_covers
from crdt.types import KEY, NO_GEN, SEQ, Entry, Gen, Have, LogHead


class Transfer(NamedTuple):
    """A cut of one log. `full`: the whole log, to be swapped in; else the entries above `start`.

    Three kinds are not full. Within a gen, `start` is where the replica stands, and the head has no lineage.
    For a replica that stands where a former gen ended, `start` is the base: it republishes what it holds, as
    the owner did. For one that holds what the owner lost, `start` is `max`: only the head, for it to learn
    that its copy is wanted.
    """

    head: LogHead
    start: int
    full: bool
    entries: tuple[Entry, ...]


class Verdict(Enum):
    """What a replica does with a transfer."""

    APPLIED = "applied"  # a delta of the gen held
    SWAPPED = "swapped"  # a full copy, or the held one republished under the next gen, swapped in whole
    STALE = "stale"  # nothing new in it
    GAP = "gap"  # it does not connect to what is held: ask for a full copy
    FENCED = "fenced"  # its counter was forgotten here; only a greater one counts
    UNCOVERED = "uncovered"  # its lineage misses what is held: offer that to the owner first
    CONFLICT = "conflict"  # same (gen, max), other content, and the other copy does not prevail
    PARKED = "parked"  # over the quota of its owner


def lacking(log: OwnerLog, have: Have) -> Transfer | None:
    """What brings a replica which stands at `have` to this log, or None if it lacks nothing it can take."""
    step = _lacking_from(log, have)
    if step is None:
        return None
    start, full = step
    head = log.head()
    if have.gen == log.gen and not full:
        head = head._replace(lineage=())  # a replica of this very gen has it
    return Transfer(head, start, full, cut(log, start, full))


def cut(log: OwnerLog, start: int, full: bool) -> tuple[Entry, ...]:
    """The log's entries at this moment: all of them, or those above `start`."""
    return tuple(log.entries.values() if full else log.since(start))


def lacks(log: OwnerLog, have: Have) -> bool:
    """Whether `lacking` would answer with a transfer; costs nothing."""
    return _lacking_from(log, have) is not None


def _lacking_from(log: OwnerLog, have: Have) -> tuple[int, bool] | None:
    if have.gen > log.gen or is_fenced(log.gen, have.fence):
        return None
    if have.gen == NO_GEN:
        return 0, True
    if have.gen < log.gen:
        if not log.covers(have.gen, have.max):
            return log.max, False
        return (log.base, False) if _stands_at_base(log, have) else (0, True)
    if have.max > log.max:
        return None
    if have.max == log.max:
        if have.hash != log.hash:
            return (0, True) if log.hash > have.hash else None
        return (log.max, False) if log.floor > have.floor else None
    return (have.max, False) if floor_was_seen(have.max, log.floor) else (0, True)


def _stands_at_base(log: OwnerLog, have: Have) -> bool:
    """Whether a replica holds what this gen began with: it stands where a former one ended for good."""
    if log.base == 0 or log.lineage.get(have.gen) != have.max or not floor_was_seen(log.base, log.floor):
        return False
    return all(seq == log.base for gen, seq in log.lineage.items() if gen > have.gen)


def is_fenced(gen: Gen, fence: int) -> bool:
    """Whether a replica that forgot the owner at counter `fence` refuses this gen, whatever its nonce."""
    return gen[0] <= fence


def judge(log: OwnerLog | None, fence: int, head: LogHead, start: int, full: bool) -> Verdict:
    """What to do with a transfer, from its head alone. APPLIED and SWAPPED mean: may be, once complete."""
    if is_fenced(head.gen, fence):
        return Verdict.FENCED
    if log is None:
        return Verdict.SWAPPED if full else Verdict.GAP
    if is_older(head, log):
        return Verdict.STALE
    if head.gen != log.gen:
        if not full and start < head.max and not head.lineage:
            return Verdict.GAP  # a delta within a gen that is not held
        if not lineage_holds(head, log):
            return Verdict.UNCOVERED
        return Verdict.SWAPPED if full or continues_base(head, start) else Verdict.GAP
    if head.max == log.max:
        if same_content(head, log):
            return Verdict.APPLIED if head.floor > log.floor else Verdict.STALE
        return Verdict.SWAPPED if full and head.hash > log.hash else Verdict.CONFLICT
    if full:
        return Verdict.SWAPPED
    return Verdict.APPLIED if connects(log.max, start, head.floor) else Verdict.GAP


def continues_base(head: LogHead, start: int) -> bool:
    """Whether a transfer goes on from what the gen began with, every tombstone since then included."""
    return start == head.base > 0 and floor_was_seen(head.base, head.floor)


def is_older(head: LogHead, log: OwnerLog) -> bool:
    """Whether a transfer stands below what is held: `(gen, max)` never goes back."""
    return (head.gen, head.max) < (log.gen, log.max)


def lineage_holds(head: LogHead, log: OwnerLog) -> bool:
    """Whether swapping to a new gen loses nothing that is held: the owner took on all of it."""
    lineage = {(counter, nonce): seq for counter, nonce, seq in head.lineage}
    return lineage_covers(lineage, log.gen, log.max)


def connects(held: int, start: int, floor: int) -> bool:
    """Whether a delta continues a replica that holds everything up to seq `held`."""
    return leaves_no_gap(held, start) and floor_was_seen(held, floor)


def leaves_no_gap(held: int, start: int) -> bool:
    """Whether a delta's entries begin no later than what is held ends."""
    return start <= held


def floor_was_seen(held: int, floor: int) -> bool:
    """Whether every tombstone that the owner collected had been seen: else a full copy is needed."""
    return floor <= held


def same_content(head: LogHead, log: OwnerLog) -> bool:
    """Whether a log at the same (gen, max) is the same log: if not, a seq was used twice."""
    return head.hash == log.hash


def check_cut(head: LogHead, start: int, entries: tuple[Entry, ...]) -> None:
    """Raise IllegalDelta unless the entries rise from above `start` to at most `head.max`, each key once."""
    if head.max < head.base:
        raise IllegalDelta(f"a cut at {head.max} below the base {head.base} of its gen")
    last = start
    for entry in entries:
        if entry[SEQ] <= last:
            raise IllegalDelta(f"seq {entry[SEQ]} after {last} in a transfer")
        last = entry[SEQ]
    if last > head.max:
        raise IllegalDelta(f"seq {last} beyond the end of the transfer, {head.max}")
    if len({entry[KEY] for entry in entries}) != len(entries):
        raise IllegalDelta("a key stands twice in one transfer")
