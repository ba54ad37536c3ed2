"""The member table, which looks only when a silence may be due, does what one would that always looks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.protocol.members import ALIVE, LEFT_FOR_RESTART, SUSPECT, Members, StateChange
from meshd.wire.messages import MemberRow

SUSPECT_AFTER_S, DOWN_AFTER_S = 3.5, 7.5


class Eager(Members):
    """Looks at everybody with every tick."""

    def tick(self, now: float) -> list[StateChange]:
        """As if a silence were due."""
        self._soonest = now
        return super().tick(now)


def deadlines(table: Members) -> list[float]:
    """When silences take effect."""
    after = {ALIVE: SUSPECT_AFTER_S, SUSPECT: DOWN_AFTER_S}
    return [member.heard_at + after[member.state] for member in table if member.state in after]


def seen(table: Members) -> dict[str, tuple[MemberRow, str, float, float]]:
    return {m.name: (m.row, m.state, m.heard_at, m.since) for m in table}


NAMES = st.sampled_from(["a", "b"])
ROWS = st.builds(
    MemberRow,
    NAMES,
    st.integers(5, 6),
    st.integers(1, 9),
    st.sampled_from([0, 0, 0, LEFT_FOR_RESTART]),
    st.sampled_from(["x:1", "y:1"]),
    st.just(""),
    st.just("1"),
)
STEPS = st.one_of(
    st.tuples(st.sampled_from(["contact", "rumour"]), ROWS),
    st.tuples(st.sampled_from(["leave", "drop"]), NAMES),
    st.tuples(st.just("tick"), st.sampled_from([0.0, 0.25, 1.0, 1.7, 1.75, 3.5, 7.5, 100.0])),
)


@pytest.mark.req("MSH-2")
@settings(max_examples=200)
@given(st.lists(STEPS, min_size=8, max_size=40))
def test_silence_takes_effect_as_if_everybody_were_looked_at_all_the_time(
    steps: list[tuple[object, ...]],
) -> None:
    lazy, eager = (kind("me", SUSPECT_AFTER_S, DOWN_AFTER_S, 0.0) for kind in (Members, Eager))
    now = 0.0
    for step in steps:
        shown, moves = {m.name: (m.state, m.address) for m in lazy}, lazy.moves
        match step:
            case ("contact", MemberRow() as row):
                assert lazy.contact(row, now) == eager.contact(row, now)
            case ("rumour", MemberRow() as row):
                assert lazy.rumour(row, now) == eager.rumour(row, now)
            case ("leave", str(name)):
                assert lazy.says_left(name, LEFT_FOR_RESTART, now) == eager.says_left(
                    name, LEFT_FOR_RESTART, now
                )
            case ("drop", str(name)):
                lazy.drop(name)
                eager.drop(name)
            case ("tick", float(seconds)):
                now += seconds
                assert lazy.tick(now) == eager.tick(now)
        assert seen(lazy) == seen(eager)
        assert lazy.changed == eager.changed
        assert lazy.alive == {member.name for member in lazy if member.state == ALIVE}
        assert (lazy.next_deadline() or 0.0) <= min(deadlines(lazy), default=float("inf"))
        assert lazy.next_deadline() is not None or not deadlines(lazy)
        if shown != {m.name: (m.state, m.address) for m in lazy}:
            assert lazy.moves > moves
