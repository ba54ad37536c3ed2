"""Ways in which earlier drafts broke, each as a story over real nodes: what must not happen again.

Those that need no network are in tests/crdt (test_merge, test_view, test_lww_map).
"""

from __future__ import annotations

import pytest

from meshd.protocol import session
from meshd.protocol.ownership import BURST_BUMPS
from tests.campaign.ablations import ABLATIONS
from tests.campaign.oracle import Oracle, Violation
from tests.campaign.world import World
from tests.support.maps import key

A1, A2 = key("a", 1), key("a", 2)


def mesh(*names: str, **settings: object) -> tuple[World, Oracle]:
    world = World(1, names, codec=True, settings={"tombstone_grace_s": 4.0, **settings})
    oracle = Oracle(world)
    for name in names:
        world.start(name)
    world.run(3.0)
    return world, oracle


def shown(world: World, name: str) -> dict[str, bytes]:
    winners = world.node(name).map.view.winners
    return {found: winner.value for found, winner in winners.items() if not found.startswith("forget:")}


def agree(world: World, oracle: Oracle, *names: str) -> dict[str, bytes]:
    """Everything is healed, the given places (all, if none are) agree; what they show."""
    world.net.block_only(set())
    world.run(30.0)
    first, *others = names or world.names
    for other in others:
        assert shown(world, other) == shown(world, first), oracle.disagreement()
    return shown(world, first)


def split(world: World, *names: str) -> None:
    """Each of these is alone."""
    world.net.block_only(
        {(a, b) for a in names for b in world.places if a != b}
        | {(b, a) for a in names for b in world.places if a != b}
    )


@pytest.mark.req("CRD-2")
def test_a_replica_takes_what_its_own_clock_says_is_from_the_future_or_from_1970() -> None:
    world, oracle = mesh("a", "b", "c")
    for offset in (4_000_000_000_000, -10_000_000, 0):
        world.places["a"].clock.offset_ms = offset
        oracle.put("a", A1, b"%d" % (offset + 10**7))
        world.run(0.1)
        assert shown(world, "b") == shown(world, "c") == {A1: b"%d" % (offset + 10**7)}
    oracle.delete("a", A1)
    assert agree(world, oracle) == {}


@pytest.mark.req("CRD-9")
def test_a_replica_with_tighter_limits_keeps_what_it_would_not_let_its_own_users_write() -> None:
    world, oracle = mesh("a", "b")
    limits = world.node("b").map.limits
    world.node("b").map.limits = type(limits)(max_value_bytes=1, max_key_bytes=1, max_keys=1)
    oracle.put("a", A1, b"longer")
    oracle.put("a", A2, b"longer")
    assert agree(world, oracle) == {A1: b"longer", A2: b"longer"}


@pytest.mark.req("MSH-4", "CRD-5")
def test_a_clean_restart_moves_no_entries() -> None:
    world, oracle = mesh("a", "b", "c")
    for number in range(50):
        oracle.put("a", key("a", number), b"x")
    world.run(2.0)
    before = [world.node(name).replicator.sent_entries for name in "bc"]
    world.crash("a")
    world.run(2.0)
    world.start("a")
    assert len(agree(world, oracle)) == 50
    assert world.node("a").replicator.sent_entries == 0
    assert [world.node(name).replicator.sent_entries for name in "bc"] == before


@pytest.mark.req("CRD-2")
def test_a_shared_value_that_was_outshone_is_not_needed_again_when_its_rival_is_forgotten() -> None:
    world, oracle = mesh("a", "b", "c")
    oracle.put("b", "config:x", b"1")
    world.run(1.0)
    oracle.put("a", "config:x", b"2")
    world.run(1.0)
    world.crash("a")
    world.run(20.0)
    for name in "bc":
        assert world.node(name).forget("a", world.net.now)
        world.perform(name)
        assert shown(world, name) == {"config:x": b"2"}
    assert agree(world, oracle, "b", "c") == {"config:x": b"2"}


@pytest.mark.req("CRD-6")
def test_a_removed_shared_key_does_not_shine_again_after_long_or_after_forgetting() -> None:
    world, oracle = mesh("a", "b", "c")
    oracle.put("b", "config:x", b"1")
    world.run(1.0)
    split(world, "c")
    oracle.delete("a", "config:x")
    world.run(60.0)
    world.crash("a")
    world.run(20.0)
    assert world.node("b").forget("a", world.net.now)
    world.perform("b")
    assert shown(world, "b") == {}
    assert agree(world, oracle, "b", "c") == {}


@pytest.mark.req("CRD-4", "SYN-16")
def test_a_stale_peer_that_answers_first_neither_loses_a_registration_nor_undoes_a_removal() -> None:
    world, oracle = mesh("a", "b", "c")
    oracle.put("a", A1, b"early")
    world.run(1.0)
    split(world, "c")
    oracle.delete("a", A1)
    oracle.put("a", A2, b"late")
    world.run(10.0)
    world.crash("a")
    world.places["a"].disk.wipe()
    oracle.disk_fault("a")
    world.net.block_only({("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")})
    world.start("a")
    world.run(10.0)
    assert shown(world, "a") == {A1: b"early"}  # all that the stale peer could tell
    assert agree(world, oracle) == {A2: b"late"}


@pytest.mark.req("CRD-4")
def test_a_write_made_before_any_peer_was_met_survives_two_restarts_and_a_lost_disk() -> None:
    world, oracle = mesh("a", "b")
    oracle.put("a", A1, b"old")
    world.run(1.0)
    world.crash("a")
    world.places["a"].disk.wipe()
    split(world, "a")
    for value in (b"1", b"2"):
        world.start("a")
        oracle.put("a", A1, value)
        world.run(1.0)
        world.crash("a")
    world.start("a")
    assert agree(world, oracle) == {A1: b"2"}


def copy_held_up(monkeypatch: pytest.MonkeyPatch) -> World:
    """A full copy stands still half way; a key that went with its first page is removed, and collected."""
    monkeypatch.setattr(session, "PAGE_ENTRIES", 1)
    world, oracle = mesh("a", "b")
    for number in range(8):
        oracle.put("a", key("a", number), b"x")
    world.run(1.0)
    world.crash("b")
    world.places["b"].disk.wipe()
    world.start("b")
    while not any(
        i.entries for s in world.node("b").connections.by_conn.values() for i in s.incoming.values()
    ):
        world.run(0.0005)
    world.net.block_only({("a", "b")})
    oracle.delete("a", key("a", 0))
    world.run(5.5)
    assert not world.node("a").map.own.tombstones
    world.net.block_only(set())
    world.run(0.1)
    assert world.node("b").connections.open  # it never broke
    assert "a" in world.node("b").map.logs
    return world


@pytest.mark.req("CRD-6")
def test_a_copy_that_was_held_up_shows_one_moment_and_what_was_removed_since_goes_with_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = copy_held_up(monkeypatch)
    world.run(10.0)
    assert shown(world, "b") == shown(world, "a")
    assert key("a", 0) not in shown(world, "b")


def test_with_pages_from_the_living_log_it_would_show_a_removed_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ablation = next(one for one in ABLATIONS if one.name == "cut")
    with ablation.off(), pytest.raises(Violation, match="other content"):
        copy_held_up(monkeypatch)


@pytest.mark.req("CRD-6")
def test_what_a_peer_brings_after_ever_so_long_does_not_undo_a_removal() -> None:
    """A write was torn off, and only one peer had it. The key was removed since, and that peer returns."""
    world, oracle = mesh("a", "b", forget_after_s=30.0)
    split(world, "b")
    world.crash("b")
    oracle.put("a", A1, b"on disk")
    world.net.block_only(set())
    world.start("b")
    world.run(2.0)
    oracle.put("a", A1, b"torn off")
    world.run(1.0)
    assert shown(world, "b") == {A1: b"torn off"}
    world.crash("b")
    oracle.disk_fault("a")
    assert world.crash("a", lose=1) == 1
    world.start("a")
    oracle.delete("a", A1)
    world.run(1000.0)
    assert not world.node("a").map.own.tombstones
    world.crash("a")
    world.start("a")
    world.run(1000.0)
    world.start("b")
    assert agree(world, oracle) == {}


@pytest.mark.req("CRD-1")
def test_a_transfer_that_breaks_off_leaves_nothing_behind_and_the_next_one_is_whole() -> None:
    """A full copy broke off, tombstones were collected meanwhile, and another connection brought it anew."""
    world, oracle = mesh("a", "b")
    for number in range(1500):
        world.node("a").put(key("a", number), b"x" * 300)
    world.crash("b")
    world.places["b"].disk.wipe()
    world.start("b")
    world.net.delay_s = 0.05
    while not world.node("b").connections.open.get("a") or not any(
        incoming.entries for incoming in world.node("b").connections.open["a"].incoming.values()
    ):
        world.run(0.01)
    assert "a" not in world.node("b").map.logs
    for number in range(1000):
        world.node("a").delete(key("a", number))
    split(world, "a")
    world.run(15.0)
    assert not world.node("a").map.own.tombstones
    assert shown(world, "b") == {}
    assert len(agree(world, oracle)) == 500


@pytest.mark.req("SYN-13", "MSH-4")
def test_a_fence_reaches_an_owner_that_has_no_link_to_who_set_it() -> None:
    world, oracle = mesh("a", "b", "c")
    world.net.cut_for_good = {("a", "b"), ("b", "a")}
    oracle.put("a", A1, b"x")
    split(world, "a")
    world.run(20.0)
    assert world.node("b").forget("a", world.net.now)
    world.perform("b")
    fence = world.node("b").map.fences["a"]
    assert agree(world, oracle) == {A1: b"x"}
    assert world.node("b").map.logs["a"].gen[0] > fence


@pytest.mark.req("CRD-4")
def test_a_copy_is_offered_through_a_common_neighbour() -> None:
    world, oracle = mesh("a", "b", "c")
    oracle.put("a", A1, b"x")
    world.run(1.0)
    world.crash("c")
    world.places["c"].disk.wipe()
    world.crash("a")
    world.places["a"].disk.wipe()
    world.net.cut_for_good = {("a", "b"), ("b", "a")}
    world.start("c")
    world.start("a")
    assert agree(world, oracle) == {A1: b"x"}


def two_lives() -> tuple[World, Oracle, str]:
    """`a` with peer `b`, and a copy of it with peer `c`; the two peers talk to each other."""
    world, oracle = mesh("a", "b", "c")
    oracle.put("a", A1, b"x")
    world.run(1.0)
    clone = world.clone("a")
    apart = {("a", clone), ("a", "c"), (clone, "b")}
    world.net.block_only(apart | {(y, x) for x, y in apart})
    world.run(10.0)
    world.start(clone)
    world.run(60.0)
    return world, oracle, clone


@pytest.mark.req("CRD-4")
def test_a_copy_finds_its_way_over_two_nodes_in_between() -> None:
    world, oracle = mesh("a", "b", "c", "d")
    oracle.put("a", A1, b"x")
    world.run(1.0)
    for name in "abc":
        world.crash(name)
        world.places[name].disk.wipe()
    far = {("a", "c"), ("a", "d"), ("b", "d")}
    world.net.cut_for_good = far | {(other, one) for one, other in far}
    for name in "abc":
        world.start(name)
    assert agree(world, oracle) == {A1: b"x"}


@pytest.mark.req("CRD-4")
def test_of_two_lives_from_one_copied_directory_one_falls_silent_and_gens_stop_rising() -> None:
    world, oracle, clone = two_lives()
    lives = [world.node("a"), world.node(clone)]
    assert sorted(bool(life.ownership.halted) for life in lives) == [False, True]
    assert lives[0].ownership.halted  # it booted with the lower gen
    gens = [life.map.own.gen[0] for life in lives]
    world.run(600.0)
    assert max(life.map.own.gen[0] for life in lives) <= max(gens) + 2 * 5
    assert world.node("b").map.digest == world.node("c").map.digest
    world.crash(clone)
    oracle.cloned.add("a")
    world.run(1000.0)
    assert agree(world, oracle) == {A1: b"x"}
    assert lives[0].ownership.halted == ""


def test_without_the_stop_the_gens_of_two_lives_rise_for_ever_though_not_fast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("meshd.protocol.ownership.FORCED_LIMIT", 10**9)
    world, _, _ = two_lives()
    before = world.node("a").map.own.gen[0]
    assert before > 20
    world.run(60.0)
    assert 20 < world.node("a").map.own.gen[0] - before <= 2 * 7 * BURST_BUMPS


@pytest.mark.req("CRD-4", "SYN-16")
def test_a_copied_directory_that_ran_once_and_stopped_costs_the_owner_nothing() -> None:
    world, oracle = mesh("a", "b", "c")
    oracle.put("a", A1, b"x")
    world.run(1.0)
    clone = world.clone("a")
    split(world, "a")
    world.run(10.0)
    world.start(clone)
    world.net.block_only(
        {("a", other) for other in ("b", "c", clone)} | {(other, "a") for other in ("b", "c", clone)}
    )
    world.run(10.0)
    oracle.put(clone, A2, b"of the copy")
    world.run(1.0)
    world.crash(clone)
    oracle.put("a", A1, b"newer")
    assert agree(world, oracle) == {A1: b"newer", A2: b"of the copy"}


@pytest.mark.req("CRD-4")
def test_a_machine_image_that_goes_on_running_is_noticed_and_all_agree() -> None:
    world, oracle = mesh("a", "b", "c")
    oracle.resumed.add("a")
    oracle.put("a", A1, b"1")
    world.take_image("a", with_process=True)
    oracle.put("a", A1, b"2")
    oracle.put("a", A2, b"2")
    world.run(1.0)
    world.resume("a")
    oracle.put("a", A1, b"3")
    agree(world, oracle)
    assert world.node("b").map.have("a").hash == world.node("a").map.own.hash
    assert "own_log_reused" in {event for _, event, _ in world.notices}


def test_a_peer_that_speaks_of_gens_out_of_reach_is_not_followed() -> None:
    world, oracle = mesh("a", "b")
    gen = world.node("a").map.own.gen
    world.node("b").map.heard_of("a", (2**53 - 1, 5))
    world.node("b").replicator.log_changed("a")
    world.run(5.0)
    assert world.node("a").map.own.gen == gen
    assert "gen_out_of_reach" in {event for _, event, _ in world.notices}
    oracle.put("a", A1, b"x")
    assert agree(world, oracle) == {A1: b"x"}
