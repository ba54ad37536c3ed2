"""Folding: fewer operations, the same state, and never more waiting than there is to hold."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.owner_log import OwnerLog
from crdt.persist import DropLog, PutEntries, PutLog, PutMeta, ReplaceLog
from meshd.storage import MemoryDisk
from meshd.storage.fold import OpFold
from tests.support.disk_work import steps


@pytest.mark.req("CRD-8")
@given(seed=st.integers(0, 10_000), before=st.integers(0, 15), folded=st.integers(0, 25))
def test_folded_operations_leave_what_the_originals_leave(seed: int, before: int, folded: int) -> None:
    one_by_one, at_once, fold = MemoryDisk(), MemoryDisk(), OpFold()
    for step in islice(steps(seed), before + folded):
        one_by_one.append(step.ops, forced=True)
        if step.number <= before:
            at_once.append(step.ops, forced=True)
        else:
            fold.add(step.ops)
    at_once.append(fold.ops(), forced=True)
    assert at_once.content() == one_by_one.content()


@given(seed=st.integers(0, 10_000), cut=st.integers(0, 20))
def test_folding_what_was_folded_changes_nothing(seed: int, cut: int) -> None:
    # A transaction that failed is folded together with what came meanwhile.
    work = list(islice(steps(seed), 21))
    whole, first, second = OpFold(), OpFold(), OpFold()
    for step in work:
        whole.add(step.ops)
        (first if step.number <= cut else second).add(step.ops)
    first.add(second.ops())
    straight, refolded = MemoryDisk(), MemoryDisk()
    straight.append(whole.ops(), forced=True)
    refolded.append(first.ops(), forced=True)
    assert straight.content() == refolded.content()


def test_what_waits_grows_with_the_keys_not_with_the_writes() -> None:
    fold = OpFold()
    log = OwnerLog("a", (1, 1))
    for number in range(10_000):
        log.append(f"worker:{number % 10}", b"value", number)
        fold.add(
            [
                PutEntries("a", tuple(log.since(log.max - 1))),
                PutLog(log.head()),
                PutMeta("hlc", b"%d" % number),
            ]
        )
    assert len(fold) == 10 + 1 + 1
    assert sum(len(op.entries) for op in fold.ops() if isinstance(op, PutEntries)) == 10


def test_a_log_dropped_while_it_waits_leaves_only_the_drop_and_a_successor_replaces_it() -> None:
    log = OwnerLog("a", (1, 1))
    log.append("worker:1", b"x", 1)
    fold = OpFold()
    assert not fold
    fold.add([ReplaceLog(log.head(), tuple(log.entries.values())), DropLog("a")])
    assert fold.ops() == [DropLog("a")]
    fold.add([PutLog(log.head()), PutEntries("a", tuple(log.entries.values()))])
    assert fold.ops() == [ReplaceLog(log.head(), tuple(log.entries.values()))]
