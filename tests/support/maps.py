"""Small maps for tests of the replicated map: a prefix table, shorthands, and what two logs must agree on."""

from __future__ import annotations

from collections.abc import Iterable

from crdt.delta import Transfer, Verdict
from crdt.lww_map import Change, Limits, LwwMap
from crdt.owner_log import OwnerLog
from crdt.prefixes import Claim, Prefix, PrefixTable, Rule
from crdt.types import VALUE, Entry, Gen

HLC = 1_700_000_000_000 << 16
"""Some stamp, where none matters."""


def classify(owner: str, key: str, value: bytes) -> Claim:
    """`worker:<owner>/...` belongs to that owner; a value that starts with `!` cannot be read."""
    if value.startswith(b"!"):
        return Claim.UNREADABLE
    return Claim.OWN if key.startswith(f"worker:{owner}/") else Claim.FOREIGN


def table() -> PrefixTable:
    """`worker:` with one writer per key, `config:` and `forget:` with many."""
    shared = (Prefix(name, Rule.MULTI_WRITER) for name in ("config:", "forget:"))
    return PrefixTable(Prefix("worker:", Rule.SINGLE_WRITER, classify), *shared)


def new_map(name: str, gen: Gen | None = (1, 1), limits: Limits | None = None) -> LwwMap:
    """A map of node `name` in its first life, or (gen None) one that is not alive yet."""
    made = LwwMap(name, table(), limits)
    if gen is not None:
        made.start_life(gen)
    return made


def key(owner: str, number: int | str) -> str:
    """A key that belongs to `owner`."""
    return f"worker:{owner}/{number}"


def send(source: LwwMap, target: LwwMap, owner: str) -> Change | None:
    """Bring `target` what it lacks of `owner`'s log at `source`; None if that is nothing.

    As the protocol does: what conflicts, and is not full, is followed by a full copy.
    """
    transfer = source.lacking(owner, target.have(owner))
    if transfer is None:
        return None
    change = target.apply(transfer)
    if change.verdict is Verdict.CONFLICT and not transfer.full:
        return target.apply(full(source.logs[owner]))
    return change


def full(log: OwnerLog) -> Transfer:
    """The whole log as one transfer."""
    return Transfer(log.head(), 0, True, tuple(log.entries.values()))


def content(log: OwnerLog) -> tuple[object, ...]:
    """All of a log that replicas at one (gen, max) and floor must agree on."""
    return (log.gen, log.max, log.floor, log.hash, log.head().lineage, tuple(log.entries.values()))


def above_floor(entries: Iterable[Entry], floor: int) -> tuple[Entry, ...]:
    """Entries without the tombstones that a log with this floor has collected."""
    return tuple(entry for entry in entries if entry[VALUE] is not None or entry[1] > floor)


def values(store: LwwMap) -> dict[str, bytes]:
    """The visible map."""
    return {name: found.value for name, found in store.view.winners.items()}
