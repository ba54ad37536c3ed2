"""A node tells being cut off from peers that go one by one, come back, or say farewell."""

from __future__ import annotations

import pytest

from meshd.protocol.cutoff import CutOff


def _watch() -> CutOff:
    return CutOff(window_s=6.0, bound_s=100.0)


@pytest.mark.req("MSH-8")
def test_a_node_whose_peers_all_fall_silent_at_once_takes_itself_for_the_cut_off_one() -> None:
    cut_off = _watch()
    for name in "abc":
        cut_off.lost(name, 10.0)
    assert cut_off.update(["d"], 10.5)
    assert cut_off.since == 10.5
    assert not cut_off.update(["d", "a"], 12.0)
    assert cut_off.update(["d", "a", "b"], 13.0)
    assert cut_off.since is None


@pytest.mark.req("MSH-8")
def test_a_member_that_came_back_is_not_counted_with_a_later_loss() -> None:
    cut_off = _watch()
    cut_off.lost("a", 10.0)
    cut_off.back("a")
    cut_off.lost("b", 12.0)
    assert not cut_off.update(["c"], 12.5)
    assert not cut_off.update(["a", "c"], 13.0)
    assert cut_off.since is None


@pytest.mark.req("MSH-8")
def test_members_that_said_farewell_are_no_loss() -> None:
    cut_off = _watch()
    cut_off.lost("a", 10.0)
    cut_off.back("a")
    cut_off.left("a")
    cut_off.left("b")
    assert not cut_off.update([], 11.0)
    assert cut_off.since is None


@pytest.mark.req("MSH-8")
def test_a_cut_off_node_whose_lost_members_turn_out_to_have_left_is_no_longer_cut_off() -> None:
    cut_off = _watch()
    cut_off.lost("a", 10.0)
    cut_off.lost("b", 10.0)
    assert cut_off.update([], 10.5)
    cut_off.left("a")
    assert not cut_off.update([], 11.0)
    assert cut_off.update(["b"], 12.0)
    assert cut_off.since is None
