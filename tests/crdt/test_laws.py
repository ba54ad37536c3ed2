"""Laws of the map, on random histories: an owner lives, replicas hear of it in every possible way.

The yardstick is the list of states that the owner's log really went through: a replica may stand at one of
them or have nothing, and what it holds there is that state's content, whatever it missed, got twice, or
got late.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt.delta import Transfer, Verdict
from crdt.errors import MapError
from crdt.lww_map import LwwMap
from crdt.owner_log import OwnerLog
from crdt.types import NOTHING, Have
from tests.support.maps import HLC, above_floor, content, full, key, new_map, send, values

OWNER = "a"
Op = tuple[str, int]

writes = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 4)),
    st.tuples(st.just("delete"), st.integers(0, 4)),
    st.tuples(st.just("collect"), st.integers(0, 12)),
    st.tuples(st.just("bump"), st.integers(1, 3)),
)
histories = st.lists(writes, min_size=1, max_size=25)


@dataclass
class History:
    """An owner's life: its log after every step."""

    owner: LwwMap = field(default_factory=lambda: new_map(OWNER))
    states: list[OwnerLog] = field(default_factory=list)
    written: int = 0

    def __post_init__(self) -> None:
        self.keep()

    def keep(self) -> None:
        self.states.append(copy.deepcopy(self.owner.own))

    def do(self, op: Op) -> None:
        what, number = op
        self.written += 1
        if what == "put":
            self.owner.put(key(OWNER, number), b"v%d" % self.written, HLC)
        elif what == "delete":
            self.owner.delete(key(OWNER, number), HLC)
        elif what == "collect":
            self.owner.collect_own(number)
        else:
            self.owner.bump((self.owner.own.gen[0] + number, 1))
        self.keep()


def lived(ops: list[Op]) -> History:
    history = History()
    for op in ops:
        history.do(op)
    return history


def assert_real(replica: LwwMap, states: list[OwnerLog]) -> None:
    """What a replica holds is a state that the owner went through, but for tombstones collected since."""
    log = replica.logs.get(OWNER)
    if log is None:
        return
    real = [state for state in states if (state.gen, state.max) == (log.gen, log.max)]
    assert real, f"the owner never stood at {log.gen}, {log.max}"
    for state in real:
        floor = max(log.floor, state.floor)
        assert above_floor(log.entries.values(), floor) == above_floor(state.entries.values(), floor)
        assert log.hash == state.hash
    assert log.hash == OwnerLog.restore(log.head(), log.entries.values()).hash


def have_of(state: OwnerLog | None) -> Have:
    return NOTHING if state is None else Have(state.gen, state.max, state.floor, state.hash, state.gen, 0)


@pytest.mark.req("CRD-1", "CRD-6")
@given(histories, st.lists(st.tuples(st.integers(0, 25), st.integers(-1, 25)), max_size=12), st.randoms())
def test_any_transfers_in_any_order_leave_a_state_that_the_owner_really_had(
    ops: list[Op], cuts: list[tuple[int, int]], shuffle: object
) -> None:
    history = lived(ops)
    states = history.states
    replica = LwwMap("b", new_map("b").prefixes)
    before = (replica.have(OWNER).gen, replica.have(OWNER).max)
    for to, since in cuts:
        state = states[min(to, len(states) - 1)]
        believed = have_of(None if since < 0 else states[min(since, len(states) - 1)])
        transfer = _lacking(state, believed)
        if transfer is not None:
            replica.apply(transfer)
            assert_real(replica, states)
        now = (replica.have(OWNER).gen, replica.have(OWNER).max)
        assert now >= before
        before = now
    for _ in range(3):
        send(history.owner, replica, OWNER)
    assert content(replica.logs[OWNER]) == content(history.owner.own)
    assert values(replica) == values(history.owner)


def _lacking(state: OwnerLog, have: Have) -> Transfer | None:
    return LwwMap("x", new_map("x").prefixes, logs={OWNER: state}).lacking(OWNER, have)


@pytest.mark.req("CRD-1")
@given(histories, st.lists(st.integers(0, 25), min_size=3, max_size=3))
def test_merging_replicas_is_commutative_associative_and_idempotent(ops: list[Op], at: list[int]) -> None:
    states = lived(ops).states
    replicas = [_replica(states[min(index, len(states) - 1)]) for index in at]
    results = set()
    for order in itertools.permutations(range(3)):
        left = copy.deepcopy(replicas[order[0]])
        for other in order[1:]:
            send(replicas[other], left, OWNER)
            assert send(replicas[other], left, OWNER) is None or _unmoved(replicas[other], left)
        right = copy.deepcopy(replicas[order[1]])
        send(replicas[order[2]], right, OWNER)
        joined = copy.deepcopy(replicas[order[0]])
        send(right, joined, OWNER)
        results |= {content(left.logs[OWNER])[:4], content(joined.logs[OWNER])[:4]}
        assert values(left) == values(joined)
        assert left.digest == joined.digest
    assert len({result[:2] for result in results}) == 1


def _unmoved(source: LwwMap, target: LwwMap) -> bool:
    before = content(target.logs[OWNER])
    send(source, target, OWNER)
    return content(target.logs[OWNER]) == before


def _replica(state: OwnerLog) -> LwwMap:
    made = new_map("b")
    made.apply(full(state))
    return made


@pytest.mark.req("CRD-5")
@given(histories, st.integers(0, 25), st.integers(0, 25))
def test_a_delta_leads_where_a_full_copy_leads(ops: list[Op], first: int, second: int) -> None:
    states = lived(ops).states
    early, late = sorted((min(first, len(states) - 1), min(second, len(states) - 1)))
    by_delta, by_copy = _replica(states[early]), _replica(states[late])
    transfer = _lacking(states[late], by_delta.have(OWNER))
    if transfer is not None:
        verdict = by_delta.apply(transfer).verdict
        if verdict is Verdict.CONFLICT:  # tombstones were collected before the new gen: it cannot be guessed
            assert not transfer.full
            assert transfer.head.gen > states[early].gen
            verdict = by_delta.apply(full(states[late])).verdict
        assert verdict in (Verdict.APPLIED, Verdict.SWAPPED)
    assert content(by_delta.logs[OWNER]) == content(by_copy.logs[OWNER])
    assert values(by_delta) == values(by_copy)


@pytest.mark.req("CRD-1")
@given(histories, st.integers(0, 25), st.data())
def test_a_damaged_transfer_is_refused_whole(ops: list[Op], since: int, data: st.DataObject) -> None:
    states = lived(ops).states
    replica = _replica(states[min(since, len(states) - 1)])
    transfer = _lacking(states[-1], replica.have(OWNER))
    if transfer is None or not transfer.entries:
        return
    entries = list(transfer.entries)
    at = data.draw(st.integers(0, len(entries) - 1))
    damage = data.draw(st.sampled_from(["lose", "repeat", "swap", "other value", "other seq"]))
    entry = entries[at]
    if damage == "lose":
        del entries[at]
    elif damage == "repeat":
        entries.insert(at, entry)
    elif damage == "swap":
        entries[at], entries[0] = entries[0], entries[at]
    elif damage == "other value":
        entries[at] = (*entry[:4], b"forged", None)
    else:
        entries[at] = (entry[0], entry[1] + 1, *entry[2:])
    if entries == list(transfer.entries):
        return
    before = content(replica.logs[OWNER])
    try:
        verdict = replica.apply(transfer._replace(entries=tuple(entries))).verdict
    except MapError:
        verdict = Verdict.CONFLICT
    if verdict in (Verdict.APPLIED, Verdict.SWAPPED):
        # Only what the hash does not cover can slip through: a tombstone under another seq, or none.
        lost = {e for e in transfer.entries if e not in entries}
        assert all(e[4] is None for e in lost)
    else:
        assert content(replica.logs[OWNER]) == before


@pytest.mark.req("CRD-6")
@given(histories, st.integers(0, 25))
def test_a_key_that_the_owner_removed_is_gone_wherever_its_newest_state_is(ops: list[Op], since: int) -> None:
    history = lived(ops)
    replica = _replica(history.states[min(since, len(history.states) - 1)])
    send(history.owner, replica, OWNER)
    live = {name for name, entry in history.owner.own.entries.items() if entry[4] is not None}
    assert set(values(replica)) == live


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from("abc"), histories, min_size=1), st.permutations("abc"))
@pytest.mark.req("CRD-1")
def test_the_digest_is_equal_just_when_the_visible_maps_are(lives: dict[str, list[Op]], order: str) -> None:
    maps = {}
    for name, ops in lives.items():
        one = new_map(name)
        for number, (what, slot) in enumerate(ops):
            if what == "put":
                one.put(key(name, slot), b"%d" % (number % 3), HLC)
                one.put(f"config:{slot % 2}", b"%d" % (number % 3), HLC)
            elif what == "delete":
                one.delete(key(name, slot), HLC)
                one.delete(f"config:{slot % 2}", HLC)
        maps[name] = one
    readers = [new_map("x"), new_map("y")]
    for reader, names in zip(readers, (list(order), list(reversed(order))), strict=True):
        for name in names:
            if name in maps:
                send(maps[name], reader, name)
    assert values(readers[0]) == values(readers[1])
    assert readers[0].digest == readers[1].digest
    everything = [*maps.values(), readers[0]]
    for one, other in itertools.combinations(everything, 2):
        assert (one.digest == other.digest) == (values(one) == values(other))
