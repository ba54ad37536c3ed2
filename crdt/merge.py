"""How an owner starts a new gen of its own log, and how it takes back what a former life of it wrote.

A copy of the owner's log that its present lineage does not cover is a branch: a torn tail, a lost or
restored disk made the owner forget it. Both sides know which writes they have taken on (gen and lineage),
and every entry carries the dot of the write behind it, which never changes. So, for each key:
- a side that has taken on the other's write has overwritten or removed it knowingly: its state stays;
- where neither has, the write made in one of the lives that led to the present one stays, since it was made
  after the branches parted; between two of other lives the greater dot stays;
- where both have (only with several processes under one name), the greater dot stays.
Multi-writer keys have stamps of their own: the greater one stays, and no entry is ever taken away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from crdt.owner_log import OwnerLog, trimmed_lineage
from crdt.types import HLC, KEY, VALUE, Dot, Entry, Gen, dot_of

InLine = Callable[[Dot], bool]
"""Whether a write was made in this life, or in one of those whose disk this life found."""

Stamp = tuple[int, str]
StampOf = Callable[[Entry], Stamp | None]
"""The (version, writer) of a multi-writer entry, (0, "") if unreadable; None for single-writer keys."""


def next_gen(log: OwnerLog, gen: Gen) -> OwnerLog:
    """Republish a log under a greater gen: same keys, values, dots and order, with seqs from 1 to `base`.

    Any replica that stands where the owner stood can do the same, and needs to be sent none of it.
    """
    kept = [(entry, carried_dot(entry, log.gen)) for entry in log.entries.values()]
    following = _build(log.owner, gen, kept, taken_on(log))
    following.base = following.max
    return following


def absorb(
    mine: OwnerLog,
    copy: OwnerLog,
    gen: Gen,
    removed: Mapping[str, Dot],
    in_line: InLine,
    stamp_of: StampOf,
) -> OwnerLog:
    """Merge a copy of one's own log from another branch into a new gen.

    `removed` holds the dots of own removals, also of those whose tombstones are collected.
    """
    kept: list[tuple[Entry, Dot | None]] = []
    for entry in mine.entries.values():
        own = dot_of(entry, mine.gen)
        other = copy.entries.get(entry[KEY])
        stamp = stamp_of(entry)
        if other is None:
            stays = stamp is not None or not _knew(copy, own, in_line)
        elif stamp is not None:
            stays = stamp >= (stamp_of(other) or (0, ""))
        else:
            stays = _mine_stays(mine, copy, own, dot_of(other, copy.gen), in_line)
        if stays:
            kept.append((entry, carried_dot(entry, mine.gen)))
        elif other is not None:
            kept.append((other, carried_dot(other, copy.gen)))
    for key, other in copy.entries.items():
        if key not in mine.entries and (
            stamp_of(other) is not None
            or _returns(mine, copy, dot_of(other, copy.gen), removed.get(key), in_line)
        ):
            kept.append((other, carried_dot(other, copy.gen)))
    lineage = taken_on(mine)
    for former, seq in taken_on(copy).items():
        lineage[former] = max(seq, lineage.get(former, 0))
    return _build(mine.owner, gen, kept, lineage)


def _mine_stays(mine: OwnerLog, copy: OwnerLog, own: Dot, theirs: Dot, in_line: InLine) -> bool:
    if own == theirs:
        return True
    mine_is_later, theirs_is_later = mine.knows(theirs), _knew(copy, own, in_line)
    if mine_is_later != theirs_is_later:
        return mine_is_later
    return (not mine_is_later and wins_by_line(own, in_line)) or own > theirs


def _knew(copy: OwnerLog, own: Dot, in_line: InLine) -> bool:
    """Whether the copy has taken on an own write. One of the living line cannot be too old to be listed."""
    return copy.lists(own) if in_line(own) else copy.knows(own)


def _returns(mine: OwnerLog, copy: OwnerLog, theirs: Dot, removal: Dot | None, in_line: InLine) -> bool:
    """Whether an entry that only the copy has is taken back."""
    if mine.knows(theirs):
        return False
    return removal is None or not _mine_stays(mine, copy, removal, theirs, in_line)


def wins_by_line(own: Dot, in_line: InLine) -> bool:
    """Of two writes that did not know of each other: whether the own was made after the branches parted."""
    return in_line(own)


def carried_dot(entry: Entry, gen: Gen) -> Dot | None:
    """The dot under which an entry of a log at `gen` is republished: that of the user's write, always."""
    return dot_of(entry, gen)


def taken_on(log: OwnerLog) -> dict[Gen, int]:
    """What a successor of this log has taken on: the lineage of its gen."""
    return {**log.lineage, log.gen: log.max}


def _build(
    owner: str, gen: Gen, entries: Iterable[tuple[Entry, Dot | None]], lineage: dict[Gen, int]
) -> OwnerLog:
    log = OwnerLog(owner, gen)
    log.lineage = trimmed_lineage(lineage)
    numbered = [
        (entry[KEY], seq, dot, entry[HLC], entry[VALUE], None) for seq, (entry, dot) in enumerate(entries, 1)
    ]
    log.extend(numbered, len(numbered))
    return log
