"""The one decision of worker sync: what to do about a key, given what registry and store hold of it now.

Owns the table of ARCHITECTURE's worker section as a pure function. Publishing, taking in and reconciling all
ask it, so that they cannot disagree, and it sees only the present, never a queued value, so that the order in
which news arrives does not matter (SYN-4). Rules it keeps: a live owner's word is the only thing that removes
its claim (SYN-7); an own entry of a former life is restored unless this life removed it (SYN-16); an own
entry that this life wrote and that no worker stands behind any more is a removal whose tombstone was missed.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Registered(Enum):
    """What the registry holds under a key's id."""

    LOCAL = "local"
    CLAIM = "claim"
    """Another node's claim, serving or not."""
    NOTHING = "nothing"


class Stored(Enum):
    """What the store holds under a key."""

    OWN = "own"
    OTHER = "other"
    """Another owner's entry, which counts."""
    UNREADABLE = "unreadable"
    """An entry that counts, and that this version cannot read."""
    NOTHING = "nothing"
    """A tombstone, or no entry at all."""


class Act(Enum):
    """What to do."""

    NOTHING = "nothing"
    PUBLISH = "publish"
    WITHHOLD = "withhold"
    """Tombstone the own entry of a local worker that other nodes cannot reach, and keep the worker (SYN-15).
    """
    GIVE_UP = "give_up"
    """Remove a local worker that another life of this node had removed."""
    ADOPT = "adopt"
    """Bring a local worker to what another life of this node had made of it."""
    RESTORE = "restore"
    TOMBSTONE = "tombstone"
    TAKE = "take"
    """Take in another owner's claim, or what is new about it."""
    DROP = "drop"
    """Forget a claim; the next one takes over, or the worker goes."""
    SET_ASIDE = "set_aside"
    """Show the entry as unreadable, and drop the claim that it updated."""


class Facts(NamedTuple):
    """All that the decision depends on."""

    registered: Registered
    stored: Stored
    differs: bool = False
    """Whether the stored value is another than the one to be published, or than the one taken in."""
    publishable: bool = True
    """Whether other nodes could reach the worker."""
    leaving: bool = False
    """Whether this node has withdrawn its workers and is about to go."""
    this_life: bool = False
    """Whether the own entry was written in this life."""
    removed_here: bool = False
    """Whether this life removed that id itself."""
    restores: bool = True
    """Whether former workers come back by themselves (`sync.on_start = restore`)."""
    overruled: bool = False
    """Whether another life of this node wrote later what this one restored from its disk."""
    grace_over: bool = False
    """Whether those that had to register again have had their time."""


def decide(facts: Facts) -> Act:
    """Return what to do about one key. Equal facts always give the same answer."""
    match facts.registered, facts.stored:
        case Registered.LOCAL, _:
            return _local(facts)
        case _, Stored.OWN:
            return _former(facts)
        case _, Stored.UNREADABLE:
            return Act.SET_ASIDE
        case Registered.CLAIM, Stored.OTHER:
            return Act.TAKE if facts.differs else Act.NOTHING
        case Registered.NOTHING, Stored.OTHER:
            return Act.TAKE
        case Registered.CLAIM, Stored.NOTHING:
            return Act.DROP
        case _:
            return Act.NOTHING


def _local(facts: Facts) -> Act:
    """A local worker: the store shall say what the registry says. Nobody else's entry changes it; only what
    this node itself wrote in another life, and had lost, does.
    """
    if facts.leaving:
        return Act.NOTHING
    if not facts.publishable:
        return Act.WITHHOLD if facts.stored is Stored.OWN else Act.NOTHING
    if facts.overruled:
        return Act.ADOPT if facts.stored is Stored.OWN else Act.GIVE_UP
    return Act.PUBLISH if facts.differs or facts.stored is not Stored.OWN else Act.NOTHING


def _former(facts: Facts) -> Act:
    """An own entry that no local worker stands behind: a former life's worker, or a missed tombstone."""
    if facts.leaving:
        return Act.NOTHING
    if facts.removed_here or facts.this_life:
        return Act.TOMBSTONE
    if facts.restores:
        return Act.RESTORE
    return Act.TOMBSTONE if facts.grace_over else Act.NOTHING
