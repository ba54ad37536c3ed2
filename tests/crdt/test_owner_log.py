"""One owner's log: its order, floor, hash and tail; and the hybrid clock beside it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.errors import CorruptLog, IllegalDelta
from crdt.hashing import MASK, content_leaf, log_leaf
from crdt.hlc import STAMP_LIMIT, HybridClock, split_stamp, stamp_ms
from crdt.owner_log import OwnerLog
from crdt.types import KEY, SEQ, VALUE, Entry

operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("xyz"), st.binary(max_size=3)),
        st.tuples(st.just("remove"), st.sampled_from("xyz"), st.just(b"")),
        st.tuples(st.just("collect"), st.integers(0, 30).map(str), st.just(b"")),
    ),
    max_size=30,
)


def lived(steps: list[tuple[str, str, bytes]]) -> OwnerLog:
    log = OwnerLog("a", (1, 1))
    for what, where, value in steps:
        if what == "collect":
            log.collect(int(where))
        else:
            log.append(where, value if what == "put" else None, 0)
    return log


@pytest.mark.req("CRD-5")
@given(operations, st.integers(0, 31))
def test_a_log_is_in_order_adds_up_and_gives_its_tail(
    steps: list[tuple[str, str, bytes]], since: int
) -> None:
    log = lived(steps)
    entries = list(log.entries.values())
    assert [e[SEQ] for e in entries] == sorted({e[SEQ] for e in entries})
    assert all(e[KEY] == name for name, e in log.entries.items())
    assert set(log.tombstones) == {e[KEY] for e in entries if e[VALUE] is None}
    assert list(log.tombstones) == [e[KEY] for e in entries if e[VALUE] is None]
    assert all(e[SEQ] > log.floor for e in entries if e[VALUE] is None)
    assert log.live_count == sum(e[VALUE] is not None for e in entries)
    assert log.since(since) == [e for e in entries if e[SEQ] > since]
    again = OwnerLog.restore(log.head(), entries)
    assert (again.head(), list(again.entries.values())) == (log.head(), entries)


@given(operations)
def test_a_log_whose_content_is_not_what_its_head_says_is_corrupt(
    steps: list[tuple[str, str, bytes]],
) -> None:
    log = lived([*steps, ("put", "x", b"last")])
    entries = list(log.entries.values())
    for damaged in (entries[:-1], [*entries[:-1], (*entries[-1][:4], b"other", None)], entries[::-1]):
        if damaged != entries:
            with pytest.raises(CorruptLog):
                OwnerLog.restore(log.head(), damaged)
    with pytest.raises(CorruptLog):
        OwnerLog.restore(log.head()._replace(max=log.max - 1), entries)


def entry(name: str, seq: int, value: bytes | None = b"") -> Entry:
    return (name, seq, None, 0, value, None)


def test_entries_out_of_place_are_refused_whole() -> None:
    log = lived([("put", "x", b"1"), ("put", "y", b"2")])
    before = log.head()
    for entries, to in (
        ([entry("z", 2)], 3),
        ([entry("z", 4), entry("x", 3)], 5),
        ([entry("z", 3), entry("x", 3)], 5),
        ([entry("z", 3), entry("x", 9)], 5),
    ):
        with pytest.raises(IllegalDelta):
            log.extend(entries, to)
        assert log.head() == before
        assert list(log.entries) == ["x", "y"]


def test_collecting_never_lowers_the_floor_nor_takes_a_live_entry() -> None:
    log = lived([("put", "x", b"1"), ("remove", "x", b""), ("put", "y", b"2"), ("remove", "y", b"")])
    log.append("z", b"3", 0)
    assert log.collect(2) == ["x"]
    assert log.collect(1) == []
    assert log.floor == 2
    assert log.collect(99) == ["y"]
    assert log.floor == log.max == 5
    assert list(log.entries) == ["z"]


def test_hashes_tell_keys_values_and_places_apart() -> None:
    leaves = {log_leaf(content_leaf(k, v), s) for k in "ab" for s in (1, 2) for v in (b"", b"1")}
    assert len(leaves) == 8
    assert content_leaf("a", b"b") != content_leaf("b", b"a")


def test_hashes_are_the_same_in_every_version_and_on_every_platform() -> None:
    """They lie on disks and are compared between nodes."""
    assert content_leaf("worker:x", b"value") == 11256469770988170503
    assert log_leaf(content_leaf("worker:x", b"value"), 7) & MASK == 11256469770988170503 * 15 % 2**64


# -- the hybrid clock: for people, it decides nothing ------------------------------------------------


@pytest.mark.req("CRD-2")
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2**47)), max_size=30))
def test_stamps_only_rise_whatever_the_wall_clock_does(steps: list[tuple[bool, int]]) -> None:
    clock = HybridClock(max_drift_ms=1000)
    last = 0
    for local, number in steps:
        if local:
            stamp = clock.stamp(number)
            assert stamp > last or stamp == STAMP_LIMIT - 1
            last = stamp
        else:
            clock.observe(number << 16, number)
            last = max(last, clock.last)


@pytest.mark.req("CRD-2")
def test_a_peer_far_ahead_is_noticed_and_not_followed() -> None:
    clock = HybridClock(max_drift_ms=1000)
    clock.stamp(5_000)
    assert clock.observe(5_900 << 16, 5_000) == 900
    assert stamp_ms(clock.stamp(5_000)) == 5_900
    assert clock.observe(99_000 << 16, 5_000) == 94_000
    assert stamp_ms(clock.stamp(5_000)) == 5_900
    assert split_stamp(clock.last) == (5_900, 2)


def test_a_clock_before_1970_still_gives_stamps() -> None:
    clock = HybridClock(max_drift_ms=1000)
    assert clock.stamp(-5) == 1
