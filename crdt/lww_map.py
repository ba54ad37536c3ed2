"""All owners' logs together: own writes, transfers from peers, forgetting, and the visible map.

This is the one place that changes logs. Every change returns the visible keys that it changed and the
operations that must reach the disk, in order. Rules kept here (numbers as in ALGORITHM.md):
- `(gen, max)` per owner never goes backwards (R1), also not across forgetting: fences (R10);
- a transfer is applied whole or not at all (R2), and only if what results hashes to its head (R11);
- only the owner writes its own log, and it takes back what its former lives wrote (R9);
- what wins of a shared key outlives the log it stood in (R13).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from crdt.delta import Transfer, Verdict, check_cut, judge, lacking, lacks
from crdt.errors import IllegalDelta, IllegalKey, LimitExceeded
from crdt.merge import absorb, next_gen
from crdt.owner_log import OwnerLog
from crdt.persist import DropKeys, DropLog, PutEntries, PutLog, PutMeta, ReplaceLog, StoreOp
from crdt.prefixes import VERSION_LIMIT, Envelope, Prefix, PrefixTable, Rule, seal, unseal
from crdt.types import (
    COUNTER_LIMIT,
    FENCE_NONCE,
    KEY,
    NO_GEN,
    NOTHING,
    VALUE,
    Dot,
    Entry,
    Gen,
    Have,
    dot_of,
)
from crdt.view import View, Visible

REMOVED_LIMIT = 100_000
"""Own removals remembered beyond their tombstones, however old; over it the oldest are forgotten first."""
META_REMOVED = "removed:"
"""Name under which an own removal is stored, followed by its key; the value is its dot."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on local writes (bytes, bytes, visible keys; multi-writer keys that this node ever wrote) and
    on what one owner may fill here (entries)."""

    max_key_bytes: int = 512
    max_value_bytes: int = 262_144
    max_keys: int = 1_000_000
    max_shared_keys: int = 10_000
    max_entries_per_owner: int = 2_000_000


@dataclass(frozen=True, slots=True)
class Change:
    """What a call did: the verdict, the visible keys that changed, and what must be stored."""

    verdict: Verdict
    keys: tuple[str, ...] = ()
    ops: tuple[StoreOp, ...] = ()


class LwwMap:
    """The replicated map as one node (`node`, the name of the log it owns) holds it."""

    def __init__(
        self,
        node: str,
        prefixes: PrefixTable,
        limits: Limits | None = None,
        logs: Mapping[str, OwnerLog] | None = None,
    ) -> None:
        self.node = node
        self.prefixes = prefixes
        self.limits = limits or Limits()
        self.logs: dict[str, OwnerLog] = dict(logs or {})
        self.fences: dict[str, int] = {}
        """Owner -> counter up to which its gens are refused, since they were forgotten here."""
        self.known: dict[str, Gen] = {}
        """Owner -> greatest gen heard of, held here or not; passed on until the owner exceeds it."""
        self.removed: dict[str, Dot] = {}
        """Own removals, key -> dot, remembered beyond their tombstones; oldest first."""
        self.line: frozenset[int] = frozenset()
        """Boot nonces of this life and of those before it on this disk: each found what the last one left."""
        self.overruled: set[str] = set()
        """Own keys whose live value another life's log changed or removed, until they are written again."""
        self.view = View(prefixes, self.logs)
        for owner, log in self.logs.items():
            self.view.refresh(owner, list(log.entries))

    # -- reading ---------------------------------------------------------------------------------

    @property
    def own(self) -> OwnerLog:
        """This node's own log. Raises KeyError before `start_life`."""
        return self.logs[self.node]

    @property
    def digest(self) -> int:
        """One hash over the visible keys and values; equal on two nodes just when their visible maps are."""
        return self.view.digest

    def visible(self, key: str) -> Visible | None:
        """The entry that counts for `key`, or None."""
        return self.view.winners.get(key)

    def visible_keys(self, prefix: str = "") -> Iterator[str]:
        """Visible keys under a prefix, in no particular order."""
        winners = self.view.winners
        return iter([key for key in winners if key.startswith(prefix)] if prefix else list(winners))

    def have(self, owner: str) -> Have:
        """This replica's row of the version vector for one owner."""
        log, fence = self.logs.get(owner), self.fences.get(owner, 0)
        known = max(self.known.get(owner, NO_GEN), (fence, FENCE_NONCE) if fence else NO_GEN)
        if log is None:
            return NOTHING._replace(known=known, fence=fence)
        return Have(log.gen, log.max, log.floor, log.hash, max(known, log.gen), fence)

    def owners(self) -> set[str]:
        """Every owner that the vector has a row for."""
        return self.logs.keys() | self.fences.keys() | self.known.keys()

    def vector(self) -> dict[str, Have]:
        """The whole version vector."""
        return {owner: self.have(owner) for owner in self.owners()}

    def lacking(self, owner: str, have: Have) -> Transfer | None:
        """What a replica at `have` lacks of `owner`'s log, as one cut; None if nothing that it could take."""
        log = self.logs.get(owner)
        return None if log is None else lacking(log, have)

    def lacks(self, owner: str, have: Have) -> bool:
        """Whether `lacking` would have an answer."""
        log = self.logs.get(owner)
        return log is not None and lacks(log, have)

    def in_line(self, dot: Dot) -> bool:
        """Whether a write was made in this life, or in one of those whose disk it found."""
        return dot[1] in self.line

    # -- own log ---------------------------------------------------------------------------------

    def start_life(self, gen: Gen) -> Change:
        """Begin a life under `gen`: republish what the disk held of the own log."""
        log = self.logs.get(self.node)
        self.line |= {gen[1]}
        return self._own_swapped(OwnerLog(self.node, gen) if log is None else next_gen(log, gen))

    def bump(self, gen: Gen) -> Change:
        """Move the own log to a greater gen, because something at or above the present one was met."""
        return self._own_swapped(next_gen(self.own, gen))

    def absorb_own(self, copy: OwnerLog, gen: Gen) -> Change:
        """Take back a copy of the own log that the present lineage does not cover, under a new gen."""
        before, present = self.own.entries, self.own.gen
        change = self._own_swapped(absorb(self.own, copy, gen, self.removed, self.in_line, self._stamp_of))
        after = self.own.entries
        for key, entry in before.items():
            # No former life knew what this one wrote: what claims to is asserted against, not followed.
            if entry[VALUE] is None or dot_of(entry, present)[1] == present[1]:
                continue
            if key not in after or after[key][VALUE] != entry[VALUE]:
                self.overruled.add(key)
        return change

    def _stamp_of(self, entry: Entry) -> tuple[int, str] | None:
        prefix, value = self.prefixes.of(entry[KEY]), entry[VALUE]
        if prefix is None or prefix.rule is not Rule.MULTI_WRITER:
            return None
        envelope = None if value is None else unseal(value)
        return (0, "") if envelope is None else (envelope.version, envelope.writer)

    def _own_swapped(self, log: OwnerLog) -> Change:
        if log.gen[0] >= COUNTER_LIMIT:
            raise LimitExceeded("gen counter", COUNTER_LIMIT, log.gen[0], "generations")
        change = self._swap(log)
        back = [key for key in self.removed if key in log.entries and log.entries[key][VALUE] is not None]
        return Change(change.verdict, change.keys, (*change.ops, *self.let_go_of_removals(back)))

    def let_go_of_removals(self, keys: Iterable[str]) -> tuple[StoreOp, ...]:
        """Forget that these keys were removed; returns what must be stored."""
        gone = [key for key in keys if self.removed.pop(key, None) is not None]
        return tuple(PutMeta(META_REMOVED + key, None) for key in gone)

    def put(self, key: str, value: bytes, hlc: int, observed: bool = False) -> Change:
        """Write a value as this node. Raises LimitExceeded or UnknownPrefix, having stored nothing.

        `observed`: nobody asked for it, the node only notes something of its own entry. The dot stays that of
        the write behind, so that against another branch of the log this counts for no more than that one.
        """
        prefix = self._checked(key)
        if len(value) > self.limits.max_value_bytes:
            raise LimitExceeded("value", self.limits.max_value_bytes, len(value))
        if key not in self.view.winners and len(self.view.winners) >= self.limits.max_keys:
            raise LimitExceeded("store", self.limits.max_keys, len(self.view.winners) + 1, "keys")
        if prefix.rule is Rule.MULTI_WRITER:
            self._check_shared_keys(key)
            value = seal(Envelope(self._next_version(key), self.node, value))
        single = prefix.rule is Rule.SINGLE_WRITER
        change = self._append(key, value, hlc, self._write_behind(key) if observed and single else None)
        self.overruled.discard(key)
        return Change(change.verdict, change.keys, (*change.ops, *self.let_go_of_removals((key,))))

    def _write_behind(self, key: str) -> Dot | None:
        """The dot of the own live entry under a key."""
        present = self.own.entries.get(key)
        return None if present is None or present[VALUE] is None else dot_of(present, self.own.gen)

    def delete(self, key: str, hlc: int) -> Change:
        """Remove a key as this node. For a single-writer key without an own value this changes nothing."""
        prefix = self._checked(key)
        if prefix.rule is Rule.MULTI_WRITER:
            if key not in self.view.winners:
                return Change(Verdict.STALE)
            return self._append(key, seal(Envelope(self._next_version(key), self.node, None)), hlc)
        present = self.own.entries.get(key)
        if present is None or present[VALUE] is None:
            return Change(Verdict.STALE)
        change = self._append(key, None, hlc)
        dot = dot_of(self.own.entries[key], self.own.gen)
        self.removed.pop(key, None)
        self.removed[key] = dot
        stored = PutMeta(META_REMOVED + key, " ".join(map(str, dot)).encode())
        over = list(self.removed)[: max(0, len(self.removed) - REMOVED_LIMIT)]
        return Change(change.verdict, change.keys, (*change.ops, stored, *self.let_go_of_removals(over)))

    def collect_own(self, floor: int) -> Change:
        """Drop own tombstones up to seq `floor`."""
        return self._collect(self.own, floor)

    def _checked(self, key: str) -> Prefix:
        try:
            size = len(key.encode())
        except UnicodeEncodeError as error:
            raise IllegalKey(key) from error
        if size > self.limits.max_key_bytes:
            raise LimitExceeded("key", self.limits.max_key_bytes, size)
        return self.prefixes.require(key)

    def _check_shared_keys(self, key: str) -> None:
        """Entries of multi-writer keys are never collected, not even removals: so their number is bounded."""
        own = self.own.entries
        if key not in own:
            count = 1 + sum(self._stamp_of(entry) is not None for entry in own.values())
            if count > self.limits.max_shared_keys:
                raise LimitExceeded("shared keys", self.limits.max_shared_keys, count, "keys")

    def _next_version(self, key: str) -> int:
        versions = [0]
        for log in self.logs.values():
            entry = log.entries.get(key)
            if entry is not None and entry[VALUE] is not None:
                envelope = unseal(entry[VALUE])
                if envelope is not None:
                    versions.append(envelope.version)
        version = max(versions) + 1
        if version >= VERSION_LIMIT:
            raise LimitExceeded("version", VERSION_LIMIT, version, "writes")
        return version

    def _append(self, key: str, value: bytes | None, hlc: int, dot: Dot | None = None) -> Change:
        log = self.own
        entry = log.append(key, value, hlc, dot)
        keys = self.view.refresh(self.node, (key,))
        return Change(Verdict.APPLIED, tuple(keys), (PutEntries(self.node, (entry,)), PutLog(log.head())))

    # -- replicas --------------------------------------------------------------------------------

    def judge(self, transfer: Transfer) -> Verdict:
        """What `apply` would do, from the head alone; used on a transfer's first page."""
        head = transfer.head
        if head.owner == self.node:
            return Verdict.STALE
        return judge(
            self.logs.get(head.owner), self.fences.get(head.owner, 0), head, transfer.start, transfer.full
        )

    def apply(self, transfer: Transfer) -> Change:
        """Apply another's complete transfer. Raises IllegalDelta or CorruptLog, having changed nothing."""
        head = transfer.head
        self.heard_of(head.owner, head.gen)
        verdict = self.judge(transfer)
        if verdict not in (Verdict.APPLIED, Verdict.SWAPPED):
            return Change(verdict)
        if verdict is Verdict.APPLIED:
            return self._extend(self.logs[head.owner], transfer)
        check_cut(head, transfer.start, transfer.entries)
        if not transfer.full:
            return self._republish(self.logs[head.owner], transfer)
        if len(transfer.entries) > self.limits.max_entries_per_owner:
            return Change(Verdict.PARKED)
        return self._swap(OwnerLog.restore(head, transfer.entries))

    def _republish(self, held: OwnerLog, transfer: Transfer) -> Change:
        """Do with a replica what its owner did when it began this gen, then apply what it wrote since."""
        head = transfer.head
        log = next_gen(held, head.gen)
        if log.max != head.base or log.weigh(transfer.entries).hash != head.hash:
            return Change(Verdict.CONFLICT)
        log.lineage = {(counter, nonce): seq for counter, nonce, seq in head.lineage}
        log.extend(transfer.entries, head.max)
        log.collect(head.floor)
        return self._swap(log)

    def _extend(self, log: OwnerLog, transfer: Transfer) -> Change:
        head = transfer.head
        news = transfer.entries
        if transfer.start < log.max:
            news = tuple(entry for entry in news if entry[1] > log.max)
        if len(log.entries) + len(news) > self.limits.max_entries_per_owner:
            return Change(Verdict.PARKED)
        names = [entry[KEY] for entry in news]
        if len(set(names)) != len(names):
            raise IllegalDelta("a key stands twice in one transfer")
        weights = log.weigh(news)
        if weights.hash != head.hash:
            return Change(Verdict.CONFLICT)
        log.extend(news, head.max, weights.hash)
        keys = self.view.refresh(log.owner, names, weights.leaves)
        collected = self._collect(log, head.floor)
        ops: tuple[StoreOp, ...] = (PutEntries(log.owner, news),) if news else ()
        return Change(Verdict.APPLIED, tuple(keys), ops + (collected.ops or (PutLog(log.head()),)))

    def _collect(self, log: OwnerLog, floor: int) -> Change:
        before = log.floor
        dropped = log.collect(floor)
        if log.floor == before:
            return Change(Verdict.STALE)
        ops: tuple[StoreOp, ...] = (DropKeys(log.owner, tuple(dropped)),) if dropped else ()
        return Change(Verdict.APPLIED, (), (*ops, PutLog(log.head())))

    def _swap(self, log: OwnerLog) -> Change:
        old = self.logs.get(log.owner)
        self.logs[log.owner] = log
        touched: Iterable[str] = log.entries if old is None else dict.fromkeys((*old.entries, *log.entries))
        keys = self.view.refresh(log.owner, list(touched))
        self.heard_of(log.owner, log.gen)
        return Change(Verdict.SWAPPED, tuple(keys), (ReplaceLog(log.head(), tuple(log.entries.values())),))

    def heard_of(self, owner: str, gen: Gen) -> bool:
        """Note the greatest gen known of an owner; returns whether that is news."""
        if gen <= self.known.get(owner, NO_GEN):
            return False
        self.known[owner] = gen
        return True

    # -- forgetting ------------------------------------------------------------------------------

    def forget(self, owner: str, hlc: int) -> Change:
        """Drop another owner's log and refuse its gens up to the present counter, whatever their nonce.

        Its winning multi-writer entries are first copied into the own log, stamps unchanged.
        """
        log = self.logs.get(owner)
        if log is None or owner == self.node:
            return Change(Verdict.STALE)
        ops: list[StoreOp] = []
        changed: list[str] = []
        for entry in list(log.entries.values()):
            if self._sole_winner(owner, entry):
                copied = self._append(entry[KEY], entry[VALUE], hlc)
                ops.extend(copied.ops)
        self.fences[owner] = max(self.fences.get(owner, 0), log.gen[0], self.known.get(owner, NO_GEN)[0])
        del self.logs[owner]
        changed.extend(self.view.refresh(owner, list(log.entries)))
        return Change(Verdict.APPLIED, tuple(changed), (*ops, DropLog(owner)))

    def _sole_winner(self, owner: str, entry: Entry) -> bool:
        prefix, value = self.prefixes.of(entry[KEY]), entry[VALUE]
        if prefix is None or prefix.rule is not Rule.MULTI_WRITER or value is None:
            return False
        mine = unseal(value)
        if mine is None:
            return False
        for other, log in self.logs.items():
            rival = log.entries.get(entry[KEY])
            if other == owner or rival is None or rival[VALUE] is None:
                continue
            envelope = unseal(rival[VALUE])
            if envelope is not None and envelope[:2] >= mine[:2]:
                return False
        return True
