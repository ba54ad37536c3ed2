"""How an owner starts a new gen of its own log, and how it takes back what a former life of it wrote.

A copy of the owner's log that its present lineage does not cover is a branch: a torn tail, a lost or
restored disk made the owner forget it. Both sides know which writes they have taken on (lineage) and
which write stands behind each entry (dot), so for each key the side that has seen the other's write
wins; where neither has, a write made since the split wins, else the greater dot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from crdt.owner_log import OwnerLog, trimmed_lineage
from crdt.types import HLC, KEY, VALUE, Dot, Entry, Gen, dot_of

Fresh = Callable[[Dot], bool]
"""Whether a write was made since this node last met its peers: then no copy of theirs can be newer."""


def next_gen(log: OwnerLog, gen: Gen, fresh: Fresh) -> OwnerLog:
    """Republish a log under a greater gen: same keys and values, dots kept, seqs from 1.

    Fresh writes take the new gen as their dot: they were made knowing nothing of what forced the new gen.
    """
    return _build(log.owner, gen, _keep_dots(log, log.entries.values(), fresh), _taken(log))


def absorb(mine: OwnerLog, copy: OwnerLog, gen: Gen, removed: Mapping[str, Dot], fresh: Fresh) -> OwnerLog:
    """Merge a copy of one's own log from another branch into a new gen.

    `removed` holds the dots of own removals, also of those whose tombstones are collected.
    """
    kept: list[tuple[Entry, Dot | None]] = []
    for entry, dot in _keep_dots(mine, mine.entries.values(), fresh):
        other = copy.entries.get(entry[KEY])
        own = dot_of(entry, mine.gen)
        if other is None:
            if not copy.knows(own):
                kept.append((entry, dot))
        elif _mine_wins(mine, copy, own, dot_of(other, copy.gen), fresh):
            kept.append((entry, dot))
        else:
            kept.append((other, dot_of(other, copy.gen)))
    for key, other in copy.entries.items():
        if key in mine.entries:
            continue
        theirs = dot_of(other, copy.gen)
        if mine.knows(theirs):
            continue
        gone = removed.get(key)
        if gone is not None and _mine_wins(mine, copy, gone, theirs, fresh):
            continue
        kept.append((other, theirs))
    lineage = _taken(mine)
    for taken_gen, seq in _taken(copy).items():
        lineage[taken_gen] = max(seq, lineage.get(taken_gen, 0))
    return _build(mine.owner, gen, kept, lineage)


def _mine_wins(mine: OwnerLog, copy: OwnerLog, own: Dot, theirs: Dot, fresh: Fresh) -> bool:
    if own == theirs:
        return True
    own_is_newer, theirs_is_newer = mine.knows(theirs), copy.knows(own)
    if own_is_newer != theirs_is_newer:
        return own_is_newer
    return fresh(own) or own > theirs


def _keep_dots(log: OwnerLog, entries: Iterable[Entry], fresh: Fresh) -> Iterable[tuple[Entry, Dot | None]]:
    for entry in entries:
        dot = dot_of(entry, log.gen)
        yield entry, None if fresh(dot) else dot


def _taken(log: OwnerLog) -> dict[Gen, int]:
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
    log.base = log.max
    return log
