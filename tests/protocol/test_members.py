"""Who lives: silence, rumours, contact, lives."""

from __future__ import annotations

import pytest

from meshd.protocol.members import ALIVE, DOWN, LEFT, LEFT_FOR_RESTART, SUSPECT, Members
from meshd.wire.messages import MemberRow

SUSPECT_AFTER_S, DOWN_AFTER_S = 3.5, 7.5


def members(now: float = 0.0) -> Members:
    return Members("me", SUSPECT_AFTER_S, DOWN_AFTER_S, now)


def row(name: str = "a", nonce: int = 5, beat: int = 1, left: int = 0) -> MemberRow:
    return MemberRow(name, nonce, beat, left, f"{name}:1", "", "1")


def tick_through(table: Members, start: float, end: float) -> list[str]:
    """Tick every half second, as a running node does; returns the states that members took."""
    states = []
    now = start
    while now <= end:
        states += [change.state for change in table.tick(now)]
        now += 0.5
    return states


@pytest.mark.req("MSH-2")
def test_silence_makes_a_member_suspect_and_then_down() -> None:
    table = members()
    table.contact(row(), 0.0)
    assert tick_through(table, 0.0, 3.0) == []
    assert tick_through(table, 3.5, 7.0) == [SUSPECT]
    assert tick_through(table, 7.5, 20.0) == [DOWN]


@pytest.mark.req("MSH-2")
def test_a_risen_beat_refutes_the_suspicion_by_whatever_path_it_comes() -> None:
    table = members()
    table.contact(row(beat=1), 0.0)
    tick_through(table, 0.0, 4.0)
    change = table.rumour(row(beat=2), 4.0)
    assert change is not None
    assert change.state == ALIVE


@pytest.mark.req("MSH-2")
def test_an_old_beat_revives_nobody() -> None:
    table = members()
    table.contact(row(beat=7), 0.0)
    tick_through(table, 0.0, 20.0)
    assert table.rumour(row(beat=7), 20.0) is None
    assert table.state_of("a") == DOWN


def test_a_pause_of_this_process_makes_nobody_more_silent() -> None:
    table = members()
    table.contact(row(), 0.0)
    tick_through(table, 0.0, 1.0)
    assert table.tick(1000.0) == []
    assert table.state_of("a") == ALIVE
    assert tick_through(table, 1000.5, 1010.0) == [SUSPECT, DOWN]


def test_a_new_life_replaces_the_old_one_on_contact_even_with_a_lesser_nonce() -> None:
    table = members()
    table.contact(row(nonce=9, beat=100), 0.0)
    table.contact(row(nonce=3, beat=0), 1.0)
    member = table.get("a")
    assert member is not None
    assert (member.row.nonce, member.row.beat) == (3, 0)


def test_a_rumour_of_an_older_life_does_not_replace_a_living_one() -> None:
    table = members()
    table.contact(row(nonce=9, beat=1), 0.0)
    assert table.rumour(row(nonce=3, beat=500), 1.0) is None
    member = table.get("a")
    assert member is not None
    assert member.row.nonce == 9


def test_a_farewell_outlasts_late_beats_of_the_same_life() -> None:
    table = members()
    table.contact(row(beat=5), 0.0)
    table.says_left("a", LEFT_FOR_RESTART, 1.0)
    assert table.rumour(row(beat=6), 1.1) is None
    assert table.state_of("a") == LEFT
    assert tick_through(table, 1.5, 30.0) == []


def test_nobody_tells_this_node_about_itself() -> None:
    table = members()
    assert table.rumour(row("me", left=1), 0.0) is None
    assert table.contact(row("me"), 0.0) is None
    assert len(table) == 0
    assert table.state_of("me") == ALIVE


def test_only_changed_rows_are_passed_on() -> None:
    table = members()
    table.contact(row(beat=1), 0.0)
    table.changed.clear()
    table.contact(row(beat=1), 1.0)
    assert not table.changed
    table.contact(row(beat=2), 2.0)
    assert list(table.changed) == ["a"]


def test_the_next_deadline_is_the_first_silence_to_take_effect() -> None:
    table = members()
    assert table.next_deadline() is None
    table.contact(row("a"), 0.0)
    table.contact(row("b"), 1.0)
    assert table.next_deadline() == SUSPECT_AFTER_S


@pytest.mark.req("MSH-2", "SYN-13")
def test_a_member_known_by_hearsay_is_suspect_until_its_beat_rises() -> None:
    table = members()
    change = table.rumour(row(beat=7), 0.0)
    assert change is not None
    assert change.state == SUSPECT
    assert table.rumour(row(beat=7), 1.0) is None
    change = table.rumour(row(beat=8), 2.0)
    assert change is not None
    assert change.state == ALIVE


def test_hearsay_of_another_life_does_not_make_a_dead_member_alive() -> None:
    for nonce in (3, 9):
        table = members()
        table.contact(row(nonce=5), 0.0)
        tick_through(table, 0.0, 20.0)
        change = table.rumour(row(nonce=nonce, beat=40), 20.0)
        assert change is not None
        assert change.state == SUSPECT
        assert tick_through(table, 20.5, 40.0) == [DOWN]


def test_hearsay_of_a_new_life_does_not_make_a_live_member_suspect() -> None:
    table = members()
    table.contact(row(nonce=5), 0.0)
    assert table.rumour(row(nonce=9, beat=1), 1.0) is None
    assert table.state_of("a") == ALIVE


@pytest.mark.req("MSH-2")
def test_a_goodbye_is_not_undone_by_word_of_an_earlier_life_that_still_goes_round() -> None:
    table = members()
    table.contact(row(nonce=9), 0.0)
    table.says_left("a", LEFT_FOR_RESTART, 1.0)
    assert table.rumour(row(nonce=5, beat=70), 2.0) is None
    assert table.state_of("a") == LEFT
    table.rumour(
        row(nonce=5, beat=71), 1.0 + DOWN_AFTER_S
    )  # a disk put back: its life counts from lower down
    assert table.state_of("a") == SUSPECT
