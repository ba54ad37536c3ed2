"""An owner takes back what a former life of it wrote: who wins, key by key."""

from __future__ import annotations

import copy

import pytest

from crdt.lww_map import LwwMap
from crdt.owner_log import LINEAGE_LIMIT, OwnerLog, trimmed_lineage
from crdt.prefixes import Envelope, seal, unseal
from crdt.types import FENCE_NONCE, VALUE
from tests.support.maps import HLC, key, new_map, table, values

A1, A2, A3 = key("a", 1), key("a", 2), key("a", 3)


def copied(store: LwwMap) -> OwnerLog:
    """What a replica holds of it now."""
    return copy.deepcopy(store.own)


def reborn(log: OwnerLog | None, counter: int, nonce: int, line: frozenset[int] = frozenset()) -> LwwMap:
    """A new life of `a` whose disk holds `log`."""
    store = LwwMap("a", table(), logs={} if log is None else {"a": copy.deepcopy(log)})
    store.line = line
    store.start_life((counter, nonce))
    return store


def absorb(store: LwwMap, held: OwnerLog) -> None:
    store.absorb_own(held, (1 + max(store.own.gen[0], held.gen[0]), store.own.gen[1]))
    assert store.own.covers(held.gen, held.max)


@pytest.mark.req("CRD-4", "SYN-16")
def test_after_a_lost_disk_everything_comes_back_and_new_writes_stay() -> None:
    first = new_map("a", (5, 1))
    first.put(A1, b"1", HLC)
    first.put(A2, b"2", HLC)
    held = copied(first)
    second = reborn(None, 1, 2)
    second.put(A2, b"new", HLC)
    absorb(second, held)
    assert values(second) == {A1: b"1", A2: b"new"}


@pytest.mark.req("CRD-4")
def test_a_torn_tail_comes_back_where_nothing_was_written_since() -> None:
    first = new_map("a", (1, 1))
    first.put(A1, b"old", HLC)
    first.put(A2, b"old", HLC)
    disk = copied(first)
    first.put(A1, b"torn off", HLC)
    first.put(A2, b"torn off", HLC)
    first.put(A3, b"torn off", HLC)
    second = reborn(disk, 2, 2, frozenset({1}))
    second.put(A2, b"since then", HLC)
    absorb(second, copied(first))
    assert values(second) == {A1: b"torn off", A2: b"since then", A3: b"torn off"}


@pytest.mark.req("CRD-6")
def test_a_removal_that_was_torn_off_is_taken_back_even_when_its_tombstone_is_collected() -> None:
    first = new_map("a", (1, 1))
    first.put(A1, b"x", HLC)
    disk = copied(first)
    first.delete(A1, HLC)
    for collected in (False, True):
        if collected:
            first.collect_own(first.own.max)
        second = reborn(disk, 2, 2, frozenset({1}))
        assert values(second) == {A1: b"x"}
        absorb(second, copied(first))
        assert values(second) == {}


@pytest.mark.req("CRD-6", "SYN-16")
def test_a_removal_since_then_stands_against_a_copy_also_after_its_tombstone_is_gone() -> None:
    first = new_map("a", (7, 1))
    first.put(A1, b"old", HLC)
    disk = copied(first)
    first.put(A1, b"torn off", HLC)
    second = reborn(disk, 2, 2, frozenset({1}))
    second.delete(A1, HLC)
    second.collect_own(second.own.max)
    assert A1 in second.removed
    absorb(second, copied(first))
    assert values(second) == {}


def test_a_key_that_comes_back_against_its_removal_is_no_longer_remembered_as_removed() -> None:
    first = new_map("a", (1, 1))
    first.put(A1, b"x", HLC)
    first.delete(A1, HLC)
    disk, removed = copied(first), dict(first.removed)
    first.put(A1, b"torn off", HLC)
    second = reborn(disk, 2, 2, frozenset({1}))
    second.removed = removed
    change = second.absorb_own(copied(first), (3, 2))
    assert values(second) == {A1: b"torn off"}
    assert second.removed == {}
    assert f"removed:{A1}" in [getattr(op, "name", "") for op in change.ops]


@pytest.mark.req("CRD-4")
def test_a_write_of_a_sound_disk_beats_a_dead_branch_of_greater_gens() -> None:
    """The disk was put back to an old image, one peer that knows more is away, and the node is restarted."""
    image = copied(reborn(None, 3, 1))
    lost = reborn(image, 9, 2)
    lost.put(A1, b"before it was put back", HLC)
    second = reborn(image, 4, 3, frozenset({1}))
    second.put(A1, b"after", HLC)
    third = reborn(copied(second), 5, 4, second.line)
    absorb(third, copied(lost))
    assert values(third) == {A1: b"after"}


def test_between_two_dead_branches_the_greater_dot_wins_in_either_order() -> None:
    branches = []
    for counter, nonce in ((4, 11), (6, 12)):
        branch = reborn(None, counter, nonce)
        branch.put(A1, b"%d" % counter, HLC)
        branches.append(copied(branch))
    for order in (branches, branches[::-1]):
        life = reborn(None, 1, 13)
        for held in order:
            absorb(life, held)
        assert values(life) == {A1: b"6"}


def test_taking_back_the_same_copy_twice_changes_nothing_more() -> None:
    first = new_map("a", (1, 1))
    first.put(A1, b"x", HLC)
    held = copied(first)
    second = reborn(None, 1, 2)
    absorb(second, held)
    before = values(second), second.digest
    absorb(second, held)
    assert (values(second), second.digest) == before


def test_a_dot_never_changes_however_often_its_entry_is_republished() -> None:
    life = new_map("a", (1, 1))
    life.put(A1, b"x", HLC)
    for counter in range(2, 6):
        life.bump((counter, 1))
        assert life.own.entries[A1][2] == (1, 1, 1)
    later = reborn(copied(life), 9, 2)
    assert later.own.entries[A1][2] == (1, 1, 1)


@pytest.mark.req("CRD-2")
def test_a_shared_key_keeps_its_greatest_stamp_when_a_fresh_write_knew_of_none() -> None:
    first = new_map("a", (5, 1))
    for number in range(3):
        first.put("config:x", b"%d" % number, HLC)
    held = copied(first)
    second = reborn(None, 1, 2)
    second.put("config:x", b"fresh", HLC)
    absorb(second, held)
    assert values(second) == {"config:x": b"2"}
    second.put("config:x", b"next", HLC)
    assert values(second) == {"config:x": b"next"}


@pytest.mark.req("CRD-2")
def test_no_shared_entry_is_lost_in_a_merge_not_even_an_unreadable_or_removed_one() -> None:
    first = new_map("a", (5, 1))
    first.put("config:x", b"1", HLC)
    first.delete("config:x", HLC)
    first.own.append("config:odd", b"\xff", HLC)
    held = copied(first)
    second = reborn(None, 1, 2)
    second.put("config:y", b"1", HLC)
    absorb(second, held)
    kept = second.own.entries
    assert kept.keys() == {"config:x", "config:y", "config:odd"}
    assert unseal(kept["config:x"][VALUE] or b"") == Envelope(2, "a", None)


def test_an_entry_of_equal_stamp_does_not_replace_the_own_one() -> None:
    first, second = reborn(None, 3, 1), reborn(None, 4, 2)
    for life, payload in ((first, b"1"), (second, b"2")):
        life.own.append("config:x", seal(Envelope(1, "a", payload)), HLC)
    absorb(second, copied(first))
    assert unseal(second.own.entries["config:x"][VALUE] or b"") == Envelope(1, "a", b"2")


# -- lineages ---------------------------------------------------------------------------------------


def test_a_lineage_lists_what_was_taken_on_and_only_that() -> None:
    life = new_map("a", (1, 1))
    life.put(A1, b"x", HLC)
    life.bump((3, 1))
    own = life.own
    assert own.covers((1, 1), 1)
    assert not own.covers((1, 1), 2)
    assert not own.covers((2, 1), 0)
    assert own.covers((3, 1), own.max)
    assert not own.covers((3, 1), own.max + 1)


@pytest.mark.req("CRD-6")
def test_gens_older_than_a_lineage_lists_count_as_taken_on_and_bring_nothing_back() -> None:
    life = new_map("a", (1, 1))
    life.put(A1, b"x", HLC)
    ancient = copied(life)
    life.delete(A1, HLC)
    for counter in range(2, LINEAGE_LIMIT + 5):
        life.bump((counter, 1))
    life.collect_own(life.own.max)
    own = life.own
    assert len(own.lineage) == LINEAGE_LIMIT + 1
    assert next(iter(own.lineage))[1] == FENCE_NONCE
    assert own.covers(ancient.gen, ancient.max)
    assert own.covers((2, 99), 7)
    assert not own.covers((LINEAGE_LIMIT, 99), 0)


def test_a_trimmed_lineage_stays_trimmed_however_often_it_is_joined() -> None:
    lineage = trimmed_lineage({(counter, 1): counter for counter in range(1, 2 * LINEAGE_LIMIT)})
    again = trimmed_lineage({**lineage, (1, 7): 5, (3 * LINEAGE_LIMIT, 1): 9})
    assert len(again) <= LINEAGE_LIMIT + 1
    assert [gen for gen in again if gen[1] == FENCE_NONCE] == [next(iter(again))]
    assert next(iter(again))[0] >= next(iter(lineage))[0]


def test_a_lost_disk_beside_a_long_lineage_ends_in_one_merge() -> None:
    """A life of counter 1 lies below the horizon of what it takes back: it must not be merged for ever."""
    old = new_map("a", (1, 1))
    for counter in range(2, LINEAGE_LIMIT + 9):
        old.bump((counter, 1))
    old.put(A1, b"x", HLC)
    life = reborn(None, 1, 2)
    life.put(A2, b"y", HLC)
    replica = copied(life)
    absorb(life, copied(old))
    assert values(life) == {A1: b"x", A2: b"y"}
    assert life.own.covers(replica.gen, replica.max)
