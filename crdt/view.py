"""The visible map: for each key the one entry that counts, out of all owners' logs.

A pure function of the logs, kept incrementally: it never depends on the order in which logs arrived.
Entries that do not count (foreign, beaten, unknown prefix) stay in their logs and are counted here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import NamedTuple

from crdt.hashing import MASK, content_leaf
from crdt.owner_log import OwnerLog
from crdt.prefixes import Claim, Classify, Prefix, PrefixTable, Rule, unseal
from crdt.types import VALUE, Entry


class Visible(NamedTuple):
    """The entry that counts for a key. `value` is its payload; unreadable values are shown as such."""

    owner: str
    entry: Entry
    value: bytes
    readable: bool


_UNKNOWN_LEAVES = repeat((0, 0))


class View:
    """Visible value per key, digest, and what was left out, over `logs` (owner -> log; only read)."""

    __slots__ = (
        "_logs",
        "_prefixes",
        "_rivals",
        "digest",
        "foreign",
        "foreign_writes",
        "unreadable",
        "winners",
    )

    def __init__(self, prefixes: PrefixTable, logs: Mapping[str, OwnerLog]) -> None:
        self._prefixes = prefixes
        self._logs = logs
        self.winners: dict[str, Visible] = {}
        self.digest = 0
        self.unreadable: set[str] = set()
        self.foreign: dict[str, set[str]] = {}
        """Key -> owners in whose logs it is live although it belongs elsewhere, or under no known prefix."""
        self.foreign_writes: dict[str, tuple[int, str]] = {}
        """Owner -> how many writes of it were seen that belong into another's log, and the last one's key."""
        self._rivals: dict[str, set[str]] = {}
        """Key -> owners with a live entry for it besides the winner's."""

    def refresh(
        self, owner: str, keys: Iterable[str], leaves: Iterable[tuple[int, int]] = _UNKNOWN_LEAVES
    ) -> list[str]:
        """Look again at keys of `owner`'s log that changed; returns those whose visible value changed.

        `leaves`, if known, are the content leaves of each key's new entry and of the one that it replaced.
        """
        changed = []
        log = self._logs.get(owner)
        entries = log.entries if log is not None else {}
        winners, rivals = self.winners, self._rivals
        prefix, classify = "", None  # of the key before: neighbours mostly share it
        grown = 0
        for key, (gained, lost) in zip(keys, leaves, strict=False):
            entry = entries.get(key)
            value = None if entry is None else entry[VALUE]
            live = value is not None
            old = winners.get(key)
            owners = rivals.get(key)
            if entry is not None and value is not None and owners is None:
                if not prefix or not key.startswith(prefix):
                    prefix, classify = self._classifier(key)
                # Nearly every entry: its owner's own, and no other log has the key. What the long way below
                # would do, without the sets; and a value that is as it was need not be read again.
                mine = old is None or old.owner == owner
                same = old is not None and mine and old.readable and old.value == value
                if classify is not None and mine and (same or classify(owner, key, value) is Claim.OWN):
                    winners[key] = tuple.__new__(Visible, (owner, entry, value, True))  # half the time
                    if same:
                        continue
                    if old is None:
                        self.foreign.pop(key, None)
                    else:
                        grown -= lost or content_leaf(key, old.value)
                        self.unreadable.discard(key)
                    grown += gained or content_leaf(key, value)
                    changed.append(key)
                    continue
            if owners is None and (old is None or old.owner == owner):
                owners = {owner} if live else set()
            else:
                owners = set(owners or ())
                if old is not None:
                    owners.add(old.owner)
                (owners.add if live else owners.discard)(owner)
            new = self._decide(key, owners)
            if self._settle(key, owners, old, new):
                changed.append(key)
            if entry is not None and self._is_foreign(owner, key, live, new):
                self.foreign_writes[owner] = (self.foreign_writes.get(owner, (0, ""))[0] + 1, key)
        self.digest = (self.digest + grown) & MASK
        return changed

    def _classifier(self, key: str) -> tuple[str, Classify | None]:
        """The name of a key's prefix ("" if unknown), and how to tell whose a single-writer entry is."""
        prefix = self._prefixes.of(key)
        return ("", None) if prefix is None else (prefix.name, prefix.classify)

    def _is_foreign(self, owner: str, key: str, live: bool, winner: Visible | None) -> bool:
        """Whether a write is not `owner`'s to make; of a tombstone only the key can tell whose it was."""
        if live:
            return owner in self.foreign.get(key, ())
        if winner is None or winner.owner == owner or not winner.readable:
            return False
        prefix = self._prefixes.of(key)
        return prefix is not None and prefix.rule is Rule.SINGLE_WRITER

    def _settle(self, key: str, owners: set[str], old: Visible | None, new: Visible | None) -> bool:
        if new is not None:
            owners.discard(new.owner)
        if owners:
            self._rivals[key] = owners
        else:
            self._rivals.pop(key, None)
        if (
            old is not None
            and new is not None
            and (old.owner, old.value, old.readable)
            == (
                new.owner,
                new.value,
                new.readable,
            )
        ):
            self.winners[key] = new
            return False
        total = self.digest
        if old is not None:
            total -= content_leaf(key, old.value)
            if not old.readable:
                self.unreadable.discard(key)
        if new is None:
            self.winners.pop(key, None)
        else:
            total += content_leaf(key, new.value)
            self.winners[key] = new
            if not new.readable:
                self.unreadable.add(key)
        self.digest = total & MASK
        return old is not None or new is not None

    def _decide(self, key: str, owners: set[str]) -> Visible | None:
        prefix = self._prefixes.of(key)
        foreign: set[str] = set()
        if prefix is None:
            winner, foreign = None, set(owners)
        elif prefix.rule is Rule.SINGLE_WRITER:
            winner = self._single(prefix, key, owners, foreign)
        else:
            winner = self._multi(key, owners)
        if foreign:
            self.foreign[key] = foreign
        else:
            self.foreign.pop(key, None)
        return winner

    def _live(self, owner: str, key: str) -> tuple[Entry, bytes]:
        entry = self._logs[owner].entries[key]
        value = entry[VALUE]
        assert value is not None
        return entry, value

    def _single(self, prefix: Prefix, key: str, owners: set[str], foreign: set[str]) -> Visible | None:
        assert prefix.classify is not None
        unreadable: Visible | None = None
        winner: Visible | None = None
        for owner in sorted(owners) if len(owners) > 1 else owners:
            entry, value = self._live(owner, key)
            claim = prefix.classify(owner, key, value)
            if claim is Claim.OWN:
                winner = winner or Visible(owner, entry, value, True)
            elif claim is Claim.UNREADABLE:
                unreadable = unreadable or Visible(owner, entry, value, False)
            else:
                foreign.add(owner)
        return winner or unreadable

    def _multi(self, key: str, owners: set[str]) -> Visible | None:
        best: tuple[int, str] = (0, "")
        winner: Visible | None = None
        unreadable: Visible | None = None
        for owner in sorted(owners):
            entry, value = self._live(owner, key)
            envelope = unseal(value)
            if envelope is None:
                unreadable = unreadable or Visible(owner, entry, value, False)
            elif (envelope.version, envelope.writer) > best:
                best = (envelope.version, envelope.writer)
                winner = (
                    Visible(owner, entry, envelope.payload or b"", True)
                    if envelope.payload is not None
                    else None
                )
        return winner if best[0] else unreadable
