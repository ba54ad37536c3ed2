"""The table of worker sync, cell by cell, and that it has an answer for everything."""

from __future__ import annotations

import itertools

import pytest

from meshd.workers.decide import Act, Facts, Registered, Stored, decide

LOCAL, CLAIM, NONE = Registered.LOCAL, Registered.CLAIM, Registered.NOTHING
OWN, OTHER, BAD, GONE = Stored.OWN, Stored.OTHER, Stored.UNREADABLE, Stored.NOTHING

TABLE = [
    # a local worker: the store shall say what the registry says
    (Facts(LOCAL, OWN, differs=True), Act.PUBLISH),
    (Facts(LOCAL, OWN), Act.NOTHING),
    (Facts(LOCAL, GONE), Act.PUBLISH),
    (Facts(LOCAL, GONE, publishable=False), Act.NOTHING),
    (Facts(LOCAL, OWN, publishable=False), Act.WITHHOLD),
    (Facts(LOCAL, OWN, differs=True, leaving=True), Act.NOTHING),
    (Facts(LOCAL, GONE, leaving=True), Act.NOTHING),
    (Facts(LOCAL, GONE, overruled=True), Act.GIVE_UP),
    (Facts(LOCAL, OWN, differs=True, overruled=True), Act.ADOPT),
    (Facts(LOCAL, GONE, overruled=True, publishable=False), Act.NOTHING),
    (Facts(LOCAL, GONE, overruled=True, leaving=True), Act.NOTHING),
    # another owner's value
    (Facts(NONE, OTHER), Act.TAKE),
    (Facts(CLAIM, OTHER, differs=True), Act.TAKE),
    (Facts(CLAIM, OTHER), Act.NOTHING),
    # a tombstone, or nothing
    (Facts(CLAIM, GONE), Act.DROP),
    (Facts(NONE, GONE), Act.NOTHING),
    # an own value without a local worker
    (Facts(NONE, OWN), Act.RESTORE),
    (Facts(CLAIM, OWN), Act.RESTORE),
    (Facts(NONE, OWN, this_life=True), Act.TOMBSTONE),
    (Facts(NONE, OWN, removed_here=True), Act.TOMBSTONE),
    (Facts(NONE, OWN, restores=False), Act.NOTHING),
    (Facts(NONE, OWN, restores=False, grace_over=True), Act.TOMBSTONE),
    (Facts(NONE, OWN, leaving=True), Act.NOTHING),
    # what cannot be read
    (Facts(NONE, BAD), Act.SET_ASIDE),
    (Facts(CLAIM, BAD), Act.SET_ASIDE),
]


@pytest.mark.req("SYN-3", "SYN-4", "SYN-7", "SYN-16")
@pytest.mark.parametrize(("facts", "act"), TABLE)
def test_each_cell_of_the_table(facts: Facts, act: Act) -> None:
    assert decide(facts) is act


def every_fact() -> list[Facts]:
    switches = itertools.product((False, True), repeat=len(Facts._fields) - 2)
    return [
        Facts(registered, stored, *flags)
        for flags in switches
        for registered in Registered
        for stored in Stored
    ]


@pytest.mark.req("SYN-7")
def test_nothing_but_another_life_of_this_node_removes_a_local_worker() -> None:
    acts = {decide(facts) for facts in every_fact() if facts.registered is LOCAL and not facts.overruled}
    assert acts == {Act.NOTHING, Act.PUBLISH, Act.WITHHOLD}


@pytest.mark.req("SYN-3", "SYN-9")
def test_another_owners_value_is_never_published_over_nor_tombstoned() -> None:
    acts = {decide(f) for f in every_fact() if f.stored is OTHER and f.registered is not LOCAL}
    assert acts == {Act.NOTHING, Act.TAKE}


@pytest.mark.req("SYN-16")
def test_what_this_life_removed_is_never_restored() -> None:
    for facts in every_fact():
        if facts.removed_here or facts.this_life:
            assert decide(facts) is not Act.RESTORE
