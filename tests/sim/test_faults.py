"""Every fault does what its name says, as a node on the other side notices it."""

from __future__ import annotations

import pytest

from meshd.errors import DataDirMismatch
from meshd.testing import WAN, Latency, SimCluster

URL = "http://10.0.0.1:8000"

pytestmark = pytest.mark.req("SIM-2")


def agreed(nodes: int = 3, seed: int = 1, **settings: object) -> SimCluster:
    """Nodes that know each other, and a worker of `a`."""
    cluster = SimCluster(
        nodes, seed=seed, settings={name.replace("__", "."): v for name, v in settings.items()}
    )
    cluster["a"].register(URL)
    cluster.run_for(3)
    cluster.converge()
    return cluster


def sees(cluster: SimCluster, node: str, other: str, state: str) -> None:
    """Wait until a node sees another in a state."""
    cluster.run_until(lambda: cluster[node].members().get(other) == state, 30)


@pytest.mark.req("MSH-2")
def test_an_isolated_node_is_down_for_the_rest_and_they_for_it() -> None:
    cluster = agreed()
    cluster.isolate("b")
    sees(cluster, "a", "b", "down")
    assert cluster["b"].members() == {"a": "down", "c": "down"}
    assert cluster["a"].members()["c"] == "alive"


@pytest.mark.req("MSH-2")
def test_one_cut_direction_kills_nobody_while_a_third_node_is_there() -> None:
    cluster = agreed()
    cluster.cut("a", "b")
    cluster.run_for(40)
    assert cluster["b"].members()["a"] == "alive"
    assert cluster["a"].members()["b"] == "alive"
    cluster["a"].patch(URL, priority=3)
    cluster.run_for(10)
    worker = cluster["b"].worker(URL)
    assert worker is not None
    assert worker.spec.priority == 3


def test_a_stalled_connection_delivers_what_it_held_once_it_moves_again() -> None:
    cluster = agreed()
    cluster.stall("a", "b")
    cluster["a"].patch(URL, priority=4)
    cluster.run_for(1)
    worker = cluster["b"].worker(URL)
    assert worker is not None
    assert worker.spec.priority == 50
    cluster.mend("a", "b")
    cluster.run_for(0.5)
    assert cluster["b"].workers()[URL].spec.priority == 4


@pytest.mark.req("CRD-1")
def test_resets_and_what_comes_twice_because_of_them_change_nothing() -> None:
    cluster = agreed()
    cluster.loss(0.2)
    for priority in range(1, 21):
        cluster["a"].patch(URL, priority=priority)
        cluster.reset("a", "c")
        cluster.run_for(1)
    assert cluster.network.resets > 5
    cluster.heal()
    cluster.converge()
    assert cluster["c"].workers()[URL].spec.priority == 20


def test_a_half_open_connection_is_found_out() -> None:
    cluster = agreed(nodes=2)
    cluster.half_open("a", "b")
    cluster["a"].patch(URL, priority=9)
    cluster.run_until(lambda: cluster["b"].workers()[URL].spec.priority == 9, 10)


def test_a_slow_network_is_slower_and_a_slow_node_slower_still() -> None:
    cluster = agreed()
    cluster.delay(Latency(0.05))
    cluster.slow("c", 0.5)
    cluster["a"].patch(URL, priority=8)
    to_b = cluster.run_until(lambda: cluster["b"].workers()[URL].spec.priority == 8, 5)
    to_c = to_b + cluster.run_until(lambda: cluster["c"].workers()[URL].spec.priority == 8, 5)
    assert 0.04 < to_b < 0.3
    assert to_c > 0.49


def test_a_wide_area_network_converges() -> None:
    cluster = agreed()
    cluster.delay(WAN)
    cluster["b"].register("http://10.0.0.2:8000")
    assert cluster.converge() < 5


def test_a_stopped_process_takes_nothing_in_and_catches_up() -> None:
    cluster = agreed()
    cluster.pause("b")
    cluster["a"].patch(URL, priority=2)
    cluster.run_for(5)
    assert cluster["b"].workers()[URL].spec.priority == 50
    cluster.resume("b")
    cluster.run_for(2)
    assert cluster["b"].workers()[URL].spec.priority == 2


def test_a_machine_that_dies_tells_nobody_and_a_killed_process_is_missed_at_once() -> None:
    cluster = agreed()
    cluster.crash("b", silently=True)
    cluster.crash("c")
    cluster.run_for(1)
    assert cluster["a"].peers() == {"b"}
    sees(cluster, "a", "b", "down")
    cluster.run_until(lambda: not cluster["a"].peers(), 3)


@pytest.mark.req("CRD-4", "CRD-8")
def test_lost_and_torn_writes_come_back_from_peers() -> None:
    for lying in (False, True):
        cluster = agreed()
        cluster["a"].patch(URL, priority=6)
        cluster.run_for(1)
        cluster.crash("a", lose=3, lying=lying)
        cluster.start("a")
        cluster.converge()
        assert cluster["a"].workers()[URL].spec.priority == 6


def altered_since_an_image() -> SimCluster:
    """Three nodes that agree; an image of `a`'s disk knows nothing of what was asked last."""
    cluster = agreed()
    cluster["a"].register("http://10.0.0.2:8000")
    cluster.run_for(1)
    cluster.keep_image("a")
    cluster["a"].patch(URL, priority=6)
    cluster["a"].remove("http://10.0.0.2:8000", drain=False)
    cluster["a"].register("http://10.0.0.3:8000")
    return cluster


@pytest.mark.req("CRD-4", "CRD-6", "SYN-16")
def test_a_disk_put_back_to_an_image_is_told_by_peers_what_it_missed() -> None:
    cluster = altered_since_an_image()
    cluster.run_for(1)
    cluster.revert_disk("a")
    assert not cluster["a"].up
    cluster.isolate("a")
    cluster.start("a")
    cluster.run_for(1)
    assert set(cluster["a"].workers()) == {URL, "http://10.0.0.2:8000"}
    cluster.heal()
    cluster.converge()
    for node in cluster:
        assert set(node.workers()) == {URL, "http://10.0.0.3:8000"}
        assert node.workers()[URL].spec.priority == 6


@pytest.mark.req("SIM-3")
@pytest.mark.parametrize("silently", [True, False])
def test_nobody_is_held_to_what_went_with_the_disk_that_was_put_back(silently: bool) -> None:
    cluster = agreed()
    cluster.isolate("a")
    cluster.keep_image("a")
    cluster["a"].patch(URL, priority=6)
    cluster.run_for(1)
    cluster.crash("a", silently=silently)  # unless the machine dies, what was sent arrives after all
    cluster.revert_disk("a")
    cluster.start("a")
    cluster.heal()
    cluster.converge()
    shown = 50 if silently else 6
    assert all(node.workers()[URL].spec.priority == shown for node in cluster)


@pytest.mark.req("SYN-16")
def test_an_old_disk_put_back_brings_what_was_lost_with_all_other_copies() -> None:
    cluster = SimCluster(2, seed=3)
    cluster["a"].register(URL)
    cluster.run_for(3)
    cluster.keep_image("a")
    cluster.lose_disk("a")
    cluster.lose_disk("b")
    cluster.start("a")
    cluster.start("b")
    cluster.run_for(5)
    cluster.converge()
    assert all(node.workers() == {} for node in cluster)
    cluster.revert_disk("a")
    cluster.start("a")
    cluster.converge()
    assert all(set(node.workers()) == {URL} for node in cluster)


def test_a_disk_of_which_no_image_was_kept_stays_as_it_is() -> None:
    cluster = agreed()
    cluster.revert_disk("a")
    assert cluster["a"].up
    assert cluster.faults == {}


@pytest.mark.req("CRD-8", "SYN-16")
@pytest.mark.parametrize("owner", ["a", "b"])
def test_a_damaged_log_is_set_aside_and_comes_back_from_peers(owner: str) -> None:
    cluster = agreed()
    cluster[owner].patch(URL, priority=6) if owner == "a" else cluster["b"].register("http://10.0.0.2:8000")
    cluster.run_for(1)
    cluster.garble_disk("a", owner)
    cluster.isolate("a")
    cluster.start("a")
    cluster.run_for(1)
    assert any(f"the log of '{owner}' was left out" in line.text for line in cluster.trace.lines)
    assert set(cluster["a"].workers()) == (set() if owner == "a" else {URL})
    cluster.heal()
    cluster.converge()
    assert all(node.workers().keys() == cluster["c"].workers().keys() for node in cluster)
    assert cluster["a"].workers()[URL].spec.priority == (6 if owner == "a" else 50)


@pytest.mark.req("CRD-6", "SIM-3")
def test_a_removal_that_nobody_else_heard_of_outlives_the_damage_to_its_log() -> None:
    cluster = agreed()
    cluster.isolate("a")
    cluster["a"].remove(URL, drain=False)
    cluster.run_for(1)
    cluster.crash("a", silently=True)
    cluster.garble_disk("a")
    cluster.heal()
    cluster.start("a")
    cluster.converge()
    assert all(node.workers() == {} for node in cluster)


def test_damage_is_done_once_and_to_logs_that_are_there() -> None:
    cluster = agreed()
    cluster.run_for(1)
    cluster.garble_disk("b", "a")
    cluster.garble_disk("b", "a")
    cluster.lose_disk("c")
    cluster.garble_disk("c")
    assert cluster.faults == {"damaged disk": 1, "lost disk": 1}


@pytest.mark.req("SYN-2")
def test_a_node_does_not_start_from_a_copy_of_another_nodes_data_directory() -> None:
    cluster = agreed()
    cluster["b"].register("http://10.0.0.2:8000")
    cluster.run_for(1)
    cluster.clone_disk("a", "b")
    with pytest.raises(DataDirMismatch, match="belongs to node 'a'"):
        cluster.start("b")
    assert not cluster["b"].up
    cluster.new_disk("b")
    cluster.start("b")
    cluster.converge()
    assert all(set(node.workers()) == {URL, "http://10.0.0.2:8000"} for node in cluster)
    assert cluster["b"].workers()[URL].origin == "mesh"


@pytest.mark.req("SIM-3")
def test_a_copy_that_its_node_cannot_start_from_is_no_copy() -> None:
    cluster = SimCluster(2, seed=5)
    cluster["b"].register(URL)
    cluster.run_for(3)
    cluster.clone_disk("a", "b")
    cluster.lose_disk("a")
    cluster.new_disk("b")
    cluster.start("a")
    cluster.start("b")
    cluster.converge()
    assert all(node.workers() == {} for node in cluster)


@pytest.mark.req("CRD-2")
def test_clocks_that_jump_or_drift_decide_nothing() -> None:
    cluster = agreed()
    cluster.clock_jump("a", 86_400 * 365)
    cluster.clock_jump("b", -1e9)
    cluster.clock_drift("c", 1.2)
    cluster["a"].patch(URL, priority=1)
    cluster.run_for(60)
    cluster["a"].patch(URL, priority=99)
    cluster.converge()
    assert all(node.workers()[URL].spec.priority == 99 for node in cluster)
    assert all(state == "alive" for node in cluster for state in node.members().values())


def test_a_full_disk_costs_nothing_once_it_has_room_again() -> None:
    cluster = agreed()
    cluster.fill_disk("a")
    cluster["a"].patch(URL, priority=5)
    cluster.run_for(5)
    cluster.fill_disk("a", False)
    cluster.run_for(1)
    cluster.restart("a")
    cluster.converge()
    assert cluster["a"].workers()[URL].spec.priority == 5


@pytest.mark.req("MSH-6")
def test_two_versions_live_together_during_a_rolling_upgrade() -> None:
    cluster = agreed()
    for name in ("a", "b", "c"):
        cluster.upgrade(name)
        cluster.converge()
        cluster["a"].patch(URL, labels={"after": name})
        cluster.converge()
    rows = [member.row for member in cluster["a"].node.roster]
    assert all(row.extra == ("later",) for row in rows)


@pytest.mark.req("SYN-14", "SYN-16")
def test_a_node_that_stops_leaves_its_workers_and_one_that_leaves_takes_them() -> None:
    cluster = agreed()
    cluster.stop("a")
    sees(cluster, "b", "a", "left")
    assert set(cluster["b"].workers()) == {URL}
    cluster.start("a")
    cluster.converge()
    cluster.leave("a")
    cluster.run_for(2)
    assert cluster["b"].workers() == {}
    cluster.converge()


@pytest.mark.req("SYN-13")
def test_a_forgotten_node_is_dropped_everywhere_and_may_come_back() -> None:
    cluster = agreed()
    cluster.crash("a")
    sees(cluster, "b", "a", "down")
    assert cluster["b"].forget("a")
    cluster.run_for(5)
    assert cluster["c"].workers() == {}
    cluster.start("a")
    cluster.converge()
    assert set(cluster["c"].workers()) == {URL}


def test_a_further_node_joins() -> None:
    cluster = agreed()
    cluster.add("z")
    cluster.start("z", join=["b"])
    cluster.converge()
    assert cluster["z"].members().keys() == {"a", "b", "c"}
    assert cluster["z"].routable() == {URL} or cluster.run_until(lambda: cluster["z"].routable() == {URL}, 3)


def test_what_was_injected_is_counted_by_kind() -> None:
    cluster = agreed()
    cluster.isolate("a")
    cluster.crash("b")
    cluster.crash("b")
    assert cluster.faults == {"crash": 1, "partition": 1}
