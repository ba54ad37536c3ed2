"""Whom to dial, and when again."""

from __future__ import annotations

import random

import pytest

from meshd.protocol.dialing import FIRST_PAUSE_S, GOSSIP_DIALS_PER_S, LONGEST_PAUSE_S, Dialer


def dialer(*addresses: str) -> Dialer:
    made = Dialer(random.Random(1))
    made.add(addresses, "static", 0.0)
    return made


def test_an_address_is_dialled_once_until_the_attempt_ends() -> None:
    d = dialer("a:1")
    assert d.due(0.0, set()) == ["a:1"]
    assert d.due(100.0, set()) == []
    assert d.next_deadline() is None


def test_an_address_found_twice_is_dialled_when_the_first_finder_would() -> None:
    d = Dialer(random.Random(1))
    d.add(["a:1"], "remembered", 0.0, delay_s=2.0)
    assert d.due(0.0, set()) == []
    d.add(["a:1"], "static", 0.0)
    assert d.due(0.0, set()) == ["a:1"]
    d.failed("a:1", "refused", 0.0)
    d.add(["a:1"], "static", 0.0)
    assert d.due(0.0, set()) == []


def test_a_failed_address_is_tried_for_ever_with_a_bounded_pause() -> None:
    d = dialer("a:1")
    now, pauses = 0.0, []
    for _ in range(200):
        assert d.due(now, set()) == ["a:1"]
        d.failed("a:1", "refused", now)
        at = d.next_deadline()
        assert at is not None
        pauses.append(at - now)
        now = at
    assert 0 < pauses[0] <= FIRST_PAUSE_S * 1.5
    assert max(pauses) <= LONGEST_PAUSE_S * 1.5
    assert min(pauses[20:]) >= LONGEST_PAUSE_S * 0.5


@pytest.mark.req("SEC-4")
def test_many_dead_addresses_from_gossip_are_tried_the_less_often() -> None:
    d = Dialer(random.Random(1))
    d.add([f"m{i}:1" for i in range(2000)], "gossip", 0.0)
    d.add(["seed:1"], "static", 0.0)
    tried = seed_tried = 0
    for second in range(400):
        for address in d.due(float(second), set()):
            d.failed(address, "refused", float(second))
            if second >= 200:
                tried += 1
                seed_tried += address == "seed:1"
    assert tried / 200 <= 2 * GOSSIP_DIALS_PER_S
    assert seed_tried >= 200 / (LONGEST_PAUSE_S * 1.5 + 1)


def test_the_same_reason_is_news_only_once() -> None:
    d = dialer("a:1")
    assert d.failed("a:1", "refused", 0.0)
    assert not d.failed("a:1", "refused", 1.0)
    assert d.failed("a:1", "timed out", 2.0)
    d.succeeded("a:1", "a")
    assert d.failed("a:1", "timed out", 3.0)


def test_an_address_that_leads_here_is_never_dialled_again() -> None:
    d = dialer("me:1")
    d.due(0.0, set())
    d.is_self("me:1")
    d.failed("me:1", "closed", 0.0)
    assert d.due(1000.0, set()) == []
    assert d.next_deadline() is None


def test_an_address_of_a_connected_node_rests() -> None:
    d = dialer("a:1")
    d.due(0.0, set())
    d.succeeded("a:1", "a")
    d.failed("a:1", "closed", 10.0)
    assert d.due(20.0, {"a"}) == []
    assert d.due(20.0, set()) == []
    assert d.due(20.0 + LONGEST_PAUSE_S, set()) == ["a:1"]


def test_an_address_asked_for_by_hand_is_tried_at_once() -> None:
    d = dialer("a:1")
    for _ in range(10):
        d.due(1000.0, set())
        d.failed("a:1", "refused", 1000.0)
    assert d.due(1000.0, set()) == []
    d.retry_now(["a:1"], 1000.0)
    assert d.due(1000.0, set()) == ["a:1"]


def test_only_addresses_from_gossip_are_dropped() -> None:
    d = dialer("a:1")
    d.add(["b:1"], "gossip", 0.0)
    d.drop("a:1")
    d.drop("b:1")
    assert d.due(0.0, set()) == ["a:1"]


@pytest.mark.req("MSH-1", "MSH-3")
def test_an_address_from_gossip_that_is_given_as_well_is_kept() -> None:
    d = Dialer(random.Random(1))
    d.add(["a:1"], "gossip", 0.0)
    d.add(["a:1"], "static", 0.0)
    d.add(["a:1"], "gossip", 0.0)
    d.drop("a:1")
    assert d.due(0.0, set()) == ["a:1"]
