"""Settings and capacity on simulated nodes: in force everywhere, and held to what they follow from."""

from __future__ import annotations

import pytest

from meshd.errors import BadRequest, KeyNotFound
from meshd.live_settings import LiveSettings
from meshd.testing import SimCluster, Violation
from meshd.workers.capacity import CapacityBook

URL = "http://10.0.0.1:8000"
OTHER = "http://10.0.0.2:8000"

pytestmark = pytest.mark.req("SIM-3", "SIM-4")


def three() -> SimCluster:
    """Three nodes that route to two workers."""
    cluster = SimCluster(3, seed=41)
    cluster.run_for(1)
    cluster["a"].register(URL, labels={"max_running_requests": "100"})
    cluster["b"].register(OTHER)
    cluster.run_until(lambda: all(len(node.routable()) == 2 for node in cluster), 10)
    return cluster


@pytest.mark.req("CAP-1", "CAP-3")
def test_every_node_tells_the_capacity_of_the_workers_that_it_routes_to() -> None:
    cluster = three()
    assert {node.capacity().capacity for node in cluster} == {164}
    cluster.set_health(URL, "fail", seen_by="c")
    cluster.run_until(lambda: cluster["c"].routable() == {OTHER}, 60)
    assert [node.capacity().capacity for node in cluster] == [164, 164, 64]


def test_a_setting_of_the_cluster_is_in_force_on_every_node_and_after_a_restart() -> None:
    cluster = three()
    cluster["c"].set_config("capacity.override", 7)
    cluster.run_until(lambda: all(node.capacity().capacity == 7 for node in cluster), 2)
    cluster.isolate("b")
    cluster.restart("b")
    cluster.run_for(5)
    assert cluster["b"].setting("capacity.override") == 7
    cluster.heal()
    cluster["a"].set_config("capacity.override", None)
    cluster.run_until(lambda: all(node.setting("capacity.override") == 0 for node in cluster), 20)


def test_a_shorter_reconcile_interval_counts_for_the_pause_under_way() -> None:
    cluster = three()
    process = cluster["b"].running
    before = process.plane.reconcile_stats.passes
    cluster["a"].set_config("sync.reconcile_interval_s", 1)
    cluster.run_for(5.5)
    assert process.plane.reconcile_stats.passes - before >= 4


def test_a_setting_that_cannot_be_is_refused_as_the_api_does() -> None:
    cluster = three()
    with pytest.raises(BadRequest, match="override"):
        cluster["a"].set_config("capacity.override", -1)
    with pytest.raises(KeyNotFound):
        cluster["a"].set_config("capacity.override", None)


def test_settings_that_are_not_followed_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = three()
    monkeypatch.setattr(LiveSettings, "keys_changed", lambda self, keys: None)
    cluster["a"].set_config("capacity.override", 7)
    with pytest.raises(Violation) as raised:
        cluster.converge()
    assert raised.value.invariant == "shared_settings_are_in_force"


def test_a_capacity_that_keeps_workers_that_went_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = three()
    monkeypatch.setattr(CapacityBook, "drop", lambda self, url: None)
    cluster["a"].remove(URL, drain=False)
    with pytest.raises(Violation) as raised:
        cluster.converge()
    assert raised.value.invariant == "capacity_adds_up"
