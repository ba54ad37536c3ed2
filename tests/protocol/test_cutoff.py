"""Who is cut off: this node, or all the others?"""

from __future__ import annotations

import pytest

from meshd.protocol.cutoff import CutOff
from tests.support.pump import Pump

pytestmark = pytest.mark.req("MSH-8")

WINDOW_S, BOUND_S = 8.0, 100.0


def test_losing_most_members_at_once_means_being_cut_off() -> None:
    cut = CutOff(WINDOW_S, BOUND_S)
    cut.lost("a", 10.0)
    assert not cut.update({"b", "c"}, 10.0)
    cut.lost("b", 11.0)
    assert cut.update({"c"}, 11.0)
    assert cut.since == 11.0


def test_losing_members_one_by_one_means_that_they_died() -> None:
    cut = CutOff(WINDOW_S, BOUND_S)
    alive = {"a", "b", "c", "d"}
    for i, name in enumerate(sorted(alive)[:3]):
        alive = alive - {name}
        now = 100.0 * i
        cut.lost(name, now)
        cut.update(alive, now)
        cut.update(alive, now + 50.0)
        assert cut.since is None


def test_it_ends_when_most_of_the_lost_are_back() -> None:
    cut = CutOff(WINDOW_S, BOUND_S)
    for name in "abc":
        cut.lost(name, 1.0)
    assert cut.update(set(), 1.0)
    assert not cut.update({"a"}, 2.0)
    assert cut.update({"a", "b"}, 3.0)
    assert cut.since is None


def test_the_forgetting_clock_stands_still_for_a_bounded_time() -> None:
    cut = CutOff(WINDOW_S, BOUND_S)
    cut.lost("a", 0.0)
    cut.update(set(), 0.0)
    assert cut.holds_clock(BOUND_S - 1)
    assert not cut.holds_clock(BOUND_S)


@pytest.mark.req("SYN-13")
def test_a_cut_off_node_forgets_nobody_while_the_majority_forgets_it() -> None:
    pump = Pump()
    for name in "abcd":
        pump.start(name, seeds=() if name == "a" else ("a",), forget_after_s=40.0)
    pump.run(3.0)
    for name in "abcd":
        pump.put(name, f"worker:{name}/1", name.encode())
    pump.run(1.0)
    for name in "abc":
        pump.cut("d", name)
    pump.run(70.0)
    assert len(pump.values("d")) == 4
    assert "worker:d/1" not in pump.values("a")
    assert any(event == "cut_off" for name, event, _ in pump.notices if name == "d")
    assert not any(event == "cut_off" for name, event, _ in pump.notices if name != "d")
    pump.mend()
    pump.run(15.0)
    assert pump.converged()
    assert len(pump.values("a")) == 4


@pytest.mark.req("SYN-13")
def test_forgetting_by_hand_reaches_every_node_also_one_that_was_away() -> None:
    pump = Pump()
    for name in "abc":
        pump.start(name, seeds=() if name == "a" else ("a",))
    pump.run(3.0)
    pump.put("c", "worker:c/1", b"x")
    pump.run(1.0)
    pump.crash("c")
    pump.crash("b")
    pump.run(20.0)
    assert not pump.nodes["a"].forget_everywhere("nobody", pump.now)
    assert pump.nodes["a"].forget_everywhere("c", pump.now)
    assert pump.values("a", "worker:") == {}
    pump.start("b", seeds=("a",))
    pump.run(10.0)
    assert pump.values("b", "worker:") == {}
    pump.start("c", seeds=("a",))
    pump.run(10.0)
    assert pump.values("b", "worker:") == {"worker:c/1": b"x"}


def test_a_live_owner_is_not_forgotten() -> None:
    pump = Pump()
    for name in "ab":
        pump.start(name, seeds=() if name == "a" else ("a",))
    pump.run(3.0)
    pump.put("b", "worker:b/1", b"x")
    pump.run(1.0)
    assert not pump.nodes["a"].forget_everywhere("b", pump.now)
    assert pump.values("a", "worker:") == {"worker:b/1": b"x"}
