"""Local writes, their limits, forgetting, and what is handed to the disk."""

from __future__ import annotations

import pytest

from crdt.delta import Transfer, Verdict
from crdt.errors import CorruptLog, IllegalDelta, IllegalKey, LimitExceeded, UnknownPrefix
from crdt.lww_map import REMOVED_LIMIT, Limits, LwwMap
from crdt.persist import DropKeys, DropLog, PutEntries, PutLog, PutMeta, ReplaceLog
from crdt.prefixes import VERSION_LIMIT, Envelope, seal
from crdt.types import COUNTER_LIMIT, FENCE_NONCE, NO_GEN, boot_nonce, format_gen
from tests.support.maps import HLC, content, full, key, new_map, send, table, values

SMALL = Limits(max_key_bytes=20, max_value_bytes=4, max_keys=2, max_shared_keys=2, max_entries_per_owner=3)


# -- limits -----------------------------------------------------------------------------------------


@pytest.mark.req("CRD-9")
def test_a_write_over_a_limit_names_it_and_stores_nothing() -> None:
    store = new_map("a", limits=SMALL)
    before = content(store.own)
    for name, value, field in ((key("a", "x" * 30), b"", "key"), (key("a", 1), b"12345", "value")):
        with pytest.raises(LimitExceeded) as caught:
            store.put(name, value, HLC)
        assert caught.value.field == field
        assert str(caught.value.limit) in str(caught.value)
    with pytest.raises(UnknownPrefix):
        store.put("other:1", b"", HLC)
    with pytest.raises(IllegalKey):
        store.put("worker:\ud800", b"", HLC)
    assert content(store.own) == before


@pytest.mark.req("CRD-9")
def test_a_full_store_takes_updates_and_removals_but_no_new_key() -> None:
    store = new_map("a", limits=SMALL)
    store.put(key("a", 1), b"", HLC)
    store.put(key("a", 2), b"", HLC)
    with pytest.raises(LimitExceeded) as caught:
        store.put(key("a", 3), b"", HLC)
    assert (caught.value.field, caught.value.limit, caught.value.actual) == ("store", 2, 3)
    store.put(key("a", 1), b"new", HLC)
    store.delete(key("a", 2), HLC)
    store.put(key("a", 3), b"", HLC)


@pytest.mark.req("CRD-9")
def test_keys_are_measured_in_bytes() -> None:
    store = new_map("a", limits=SMALL)
    store.put("worker:a/" + "é" * 5, b"", HLC)
    with pytest.raises(LimitExceeded):
        store.put("worker:a/" + "é" * 6, b"", HLC)


@pytest.mark.req("CRD-9")
def test_shared_keys_are_bounded_since_their_removals_stay_for_ever() -> None:
    store = new_map("a", limits=SMALL)
    for name in ("config:1", "config:2"):
        store.put(name, b"", HLC)
        store.delete(name, HLC)
    with pytest.raises(LimitExceeded) as caught:
        store.put("config:3", b"", HLC)
    assert caught.value.unit == "keys"
    store.put("config:1", b"back", HLC)


@pytest.mark.req("CRD-9")
def test_a_log_over_the_quota_is_parked_and_the_others_go_on() -> None:
    replica, a, b = new_map("r", limits=SMALL), new_map("a"), new_map("b")
    for number in range(4):
        a.put(key("a", number), b"", HLC)
    for number in range(3):
        b.put(key("b", number), b"", HLC)
    verdicts = [change.verdict for one in (a, b) if (change := send(one, replica, one.node)) is not None]
    assert verdicts == [Verdict.PARKED, Verdict.SWAPPED]
    assert set(replica.logs) == {"b", "r"}
    b.put(key("b", 9), b"", HLC)
    change = send(b, replica, "b")
    assert change is not None
    assert change.verdict is Verdict.PARKED
    assert replica.logs["b"].max == 3


def test_a_gen_counter_beyond_its_limit_is_refused() -> None:
    store = new_map("a")
    before = content(store.own)
    with pytest.raises(LimitExceeded):
        store.bump((COUNTER_LIMIT, 1))
    assert content(store.own) == before


def test_a_stamp_beyond_its_limit_is_refused() -> None:
    a, b = new_map("a"), new_map("b")
    b.own.append("config:x", seal(Envelope(VERSION_LIMIT - 1, "b", b"")), HLC)
    send(b, a, "b")
    with pytest.raises(LimitExceeded):
        a.put("config:x", b"", HLC)
    with pytest.raises(LimitExceeded):
        a.delete("config:x", HLC)


# -- what goes to the disk --------------------------------------------------------------------------


@pytest.mark.req("CRD-8")
def test_every_change_names_what_must_be_stored() -> None:
    a, b = new_map("a"), new_map("b")
    name = key("a", 1)
    put = a.put(name, b"x", HLC)
    assert put.ops == (PutEntries("a", (a.own.entries[name],)), PutLog(a.own.head()))
    send(a, b, "a")
    gone = a.delete(name, HLC)
    assert gone.ops[-1] == PutMeta("removed:" + name, b"1 1 2")
    assert a.collect_own(2).ops == (DropKeys("a", (name,)), PutLog(a.own.head()))
    assert a.put(name, b"y", HLC).ops[-1] == PutMeta("removed:" + name, None)
    assert a.bump((2, 1)).ops == (ReplaceLog(a.own.head(), tuple(a.own.entries.values())),)
    change = send(a, b, "a")
    assert change is not None
    assert change.ops == (ReplaceLog(a.own.head(), tuple(a.own.entries.values())),)
    assert b.forget("a", HLC).ops == (DropLog("a"),)


def test_a_call_without_effect_stores_nothing() -> None:
    store = new_map("a")
    assert store.delete(key("a", 1), HLC).ops == ()
    assert store.delete("config:1", HLC).ops == ()
    assert store.collect_own(0).ops == ()
    assert store.forget("nobody", HLC).ops == ()
    assert store.forget("a", HLC).ops == ()


def test_the_oldest_removals_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crdt.lww_map.REMOVED_LIMIT", 2)
    assert REMOVED_LIMIT > 2
    store = new_map("a")
    for number in range(3):
        store.put(key("a", number), b"", HLC)
    changes = [store.delete(key("a", number), HLC) for number in range(3)]
    assert list(store.removed) == [key("a", 1), key("a", 2)]
    assert changes[-1].ops[-1] == PutMeta("removed:" + key("a", 0), None)


# -- transfers --------------------------------------------------------------------------------------


@pytest.mark.req("CRD-1")
def test_a_transfer_that_is_not_in_order_changes_nothing() -> None:
    a, b = new_map("a"), new_map("b")
    for number in range(3):
        a.put(key("a", number), b"", HLC)
    whole = full(a.own)
    one, two, three = whole.entries
    for entries in ((two, one, three), (one, one, two, three), (one, two, (*three[:1], 9, *three[2:]))):
        with pytest.raises((IllegalDelta, CorruptLog)):
            b.apply(whole._replace(entries=entries))
        assert "a" not in b.logs
    a.put(key("a", 1), b"new", HLC)
    b.apply(whole)
    delta = a.lacking("a", b.have("a"))
    assert delta is not None
    before = content(b.logs["a"])
    for damaged in (delta.entries * 2, (*delta.entries, (*delta.entries[0][:1], 9, *delta.entries[0][2:]))):
        with pytest.raises(IllegalDelta):
            b.apply(delta._replace(entries=damaged))
    assert content(b.logs["a"]) == before
    b = new_map("b")
    with pytest.raises(CorruptLog):
        b.apply(whole._replace(head=whole.head._replace(hash=1)))
    with pytest.raises(IllegalDelta):
        b.apply(whole._replace(head=whole.head._replace(base=9)))
    assert b.apply(whole).verdict is Verdict.SWAPPED


def test_nobody_elses_word_changes_the_own_log() -> None:
    a = new_map("a")
    a.put(key("a", 1), b"x", HLC)
    forged = new_map("a", (9, 9))
    assert a.apply(full(forged.own)).verdict is Verdict.STALE
    assert values(a) == {key("a", 1): b"x"}


@pytest.mark.req("CRD-5")
def test_a_delta_carries_no_lineage_and_a_replica_of_another_gen_asks_for_a_full_copy() -> None:
    a, b = new_map("a"), new_map("b")
    a.put(key("a", 1), b"", HLC)
    send(a, b, "a")
    a.bump((2, 1))
    have = a.have("a")
    a.put(key("a", 2), b"", HLC)
    delta = a.lacking("a", have)
    assert delta is not None
    assert delta.head.lineage == ()
    assert b.apply(delta).verdict is Verdict.GAP
    assert send(a, b, "a") is not None
    assert content(b.logs["a"]) == content(a.own)


@pytest.mark.req("CRD-5")
def test_a_replica_that_is_up_to_date_republishes_by_itself_what_a_new_gen_began_with() -> None:
    a, b = new_map("a"), new_map("b")
    for number in range(5):
        a.put(key("a", number), b"x", HLC)
    a.delete(key("a", 0), HLC)
    send(a, b, "a")
    a.bump((2, 1))
    a.bump((3, 1))
    a.put(key("a", 9), b"since", HLC)
    transfer = a.lacking("a", b.have("a"))
    assert transfer is not None
    assert [entry[0] for entry in transfer.entries] == [key("a", 9)]
    change = b.apply(transfer)
    assert change.verdict is Verdict.SWAPPED
    assert change.keys == (key("a", 9),)
    assert content(b.logs["a"]) == content(a.own)
    assert b.logs["a"].base == a.own.base == 5


def test_a_replica_that_collected_otherwise_than_the_owner_takes_a_full_copy_instead() -> None:
    a, b = new_map("a"), new_map("b")
    a.put(key("a", 1), b"x", HLC)
    a.put(key("a", 2), b"x", HLC)
    a.delete(key("a", 1), HLC)
    send(a, b, "a")
    a.collect_own(3)
    a.bump((2, 1))
    transfer = a.lacking("a", b.have("a"))
    assert transfer is not None
    assert not transfer.full
    before = content(b.logs["a"])
    assert b.apply(transfer).verdict is Verdict.CONFLICT
    assert content(b.logs["a"]) == before
    send(a, b, "a")
    assert content(b.logs["a"]) == content(a.own)


def test_a_gen_that_merged_a_copy_is_sent_whole() -> None:
    old, new, b = new_map("a", (5, 1)), new_map("a", (6, 2)), new_map("b")
    old.put(key("a", 1), b"x", HLC)
    send(old, b, "a")
    new.absorb_own(b.logs["a"], (7, 2))
    assert new.own.base == 0
    transfer = new.lacking("a", b.have("a"))
    assert transfer is not None
    assert transfer.full


@pytest.mark.req("CRD-4")
def test_a_gen_that_has_not_taken_on_what_is_held_sends_only_its_head() -> None:
    old, new, b = new_map("a", (5, 1)), new_map("a", (6, 2)), new_map("b")
    old.put(key("a", 1), b"", HLC)
    new.put(key("a", 2), b"", HLC)
    send(old, b, "a")
    transfer = new.lacking("a", b.have("a"))
    assert transfer is not None
    assert (transfer.entries, transfer.start) == ((), new.own.max)
    assert b.apply(transfer).verdict is Verdict.UNCOVERED
    assert b.known["a"] == (6, 2)
    assert content(b.logs["a"]) == content(old.own)


@pytest.mark.req("CRD-4")
def test_two_logs_at_one_place_end_as_one_and_the_owner_is_told() -> None:
    """Equal (gen, max), other content: among replicas the greater hash stays, until the owner moves on."""
    one, other = new_map("a"), new_map("a")
    one.put(key("a", 1), b"one", HLC)
    other.put(key("a", 1), b"other", HLC)
    b, c = new_map("b"), new_map("c")
    send(one, b, "a")
    send(other, c, "a")
    for source, target in ((b, c), (c, b)):
        send(source, target, "a")
    assert content(b.logs["a"]) == content(c.logs["a"])
    assert b.have("a").hash == max(one.own.hash, other.own.hash)


# -- forgetting -------------------------------------------------------------------------------------


@pytest.mark.req("SYN-13")
def test_what_was_forgotten_is_refused_until_its_owner_has_moved_on() -> None:
    a, b, c = new_map("a", (3, 1)), new_map("b"), new_map("c")
    a.put(key("a", 1), b"x", HLC)
    send(a, b, "a")
    send(a, c, "a")
    b.forget("a", HLC)
    assert values(b) == {}
    assert c.lacking("a", b.have("a")) is None
    assert b.apply(full(c.logs["a"])).verdict is Verdict.FENCED
    twin = new_map("a", (3, FENCE_NONCE - 1))
    assert b.apply(full(twin.own)).verdict is Verdict.FENCED
    assert b.have("a").known == (3, FENCE_NONCE)
    a.bump((4, 1))
    send(a, b, "a")
    assert values(b) == {key("a", 1): b"x"}


@pytest.mark.req("CRD-2", "SYN-13")
def test_a_forgotten_owners_winning_shared_entries_stay_with_their_stamps() -> None:
    a, b = new_map("a"), new_map("b")
    b.put("config:lost", b"b1", HLC)
    send(b, a, "b")
    a.put("config:lost", b"a2", HLC)
    a.put("config:gone", b"a1", HLC)
    a.delete("config:gone", HLC)
    send(a, b, "a")
    b.forget("a", HLC)
    assert values(b) == {"config:lost": b"a2"}
    late = new_map("c")
    late.own.append("config:gone", b"", HLC)
    a_again = LwwMap("d", table(), logs={"b": b.own})
    assert values(a_again) == {"config:lost": b"a2"}
    assert "config:gone" in b.own.entries


def test_what_is_known_of_an_owner_outlives_its_log() -> None:
    b = new_map("b")
    assert b.have("a") == (NO_GEN, 0, 0, 0, NO_GEN, 0)
    assert b.heard_of("a", (7, 3))
    assert not b.heard_of("a", (7, 2))
    assert b.have("a").known == (7, 3)
    assert b.vector()["a"].gen == NO_GEN


# -- names ------------------------------------------------------------------------------------------


def test_boot_nonces_order_lives_by_their_first_counter_and_stay_below_a_fence() -> None:
    early, late = boot_nonce(3, 2**64 - 1), boot_nonce(4, 0)
    assert early < late < FENCE_NONCE
    assert boot_nonce(2**53 - 1, 2**64 - 1) < FENCE_NONCE
    assert boot_nonce(3, 5) != boot_nonce(3, 6)


def test_gens_are_shown_as_people_can_say_them() -> None:
    assert format_gen((7, 255)) == "7.00000000000000ff"
    assert format_gen((7, FENCE_NONCE)) == "7.*"


def test_an_empty_transfer_of_an_unknown_owner_is_an_empty_log() -> None:
    a, b = new_map("a"), new_map("b")
    transfer = a.lacking("a", b.have("a"))
    assert transfer == Transfer(a.own.head(), 0, True, ())
    assert b.apply(transfer).verdict is Verdict.SWAPPED
