"""Worker sync between nodes: what is published, taken in, restored and repaired."""

from __future__ import annotations

import random

import cbor2
import pytest

from meshd.errors import MeshdError, WorkerAlreadyExists
from meshd.workers.health_machine import HealthSettings
from meshd.workers.model import spec_to_plain
from meshd.workers.record import decode_record, encode_record, worker_id, worker_key
from tests.support.planes import URL, Planes, spec

OTHER = "http://10.0.0.2:8000"
LOOPBACK = "http://127.0.0.1:8000"
KEY = worker_key("a", URL)
CHECKED = HealthSettings(drain_settle_s=0, check_interval_s=10)


# --- outbound ---------------------------------------------------------------------------------------


@pytest.mark.req("SYN-1", "SYN-2", "SYN-3")
def test_a_registered_worker_is_an_import_elsewhere_under_the_same_id() -> None:
    planes = Planes("a", "b", "c")
    worker = planes["a"].register()
    planes.settle()
    for name in "bc":
        imported = planes[name].worker()
        assert (imported.id, imported.origin, imported.owner) == (worker.id, "mesh", "a")
        assert planes[name].kinds() == ["registered"]


@pytest.mark.req("SYN-3")
def test_replaced_status_changed_and_removed_workers_are_published_and_equal_state_is_not() -> None:
    planes = Planes("a", "b")
    node = planes["a"]
    worker = node.register()
    node.plane.patch(worker.id, {"priority": 3}, None, 0)
    planes.settle()
    assert planes["b"].worker().spec.priority == 3
    node.plane.drain(worker.id, 0)
    planes.settle()
    assert planes["b"].status() == "draining"
    writes = len(node.store.writes)
    node.plane.drain(worker.id, 0)
    node.plane.mark_all(planes.now)
    planes.settle()
    assert len(node.store.writes) == writes
    node.plane.remove(worker.id, 0)
    planes.settle()
    assert node.store.writes[writes:] == [(KEY, None)]
    assert planes["b"].status() is None


@pytest.mark.req("SYN-3")
def test_imports_are_never_published_again() -> None:
    planes = Planes("a", "b", health=CHECKED)
    planes["a"].register()
    planes.run(60)
    planes.set_state("a", "down")
    planes["b"].plane.mark_all(planes.now)
    planes.run(60)
    assert planes["b"].store.writes == []


@pytest.mark.req("SYN-11")
def test_a_worker_arrives_with_its_whole_spec() -> None:
    planes = Planes("a", "b")
    fields: dict[str, object] = {
        "models": [{"id": "m", "aliases": ["x"], "ctx": 5}], "worker_type": "decode",
        "connection_mode": "grpc", "runtime_type": "sglang", "labels": {"a": "b"}, "priority": 3,
        "cost": 0.5, "bootstrap_port": 9001,
        "kv_connector": "NixlConnector", "kv_role": "kv_both", "kv_engine_id": "e", "kv_block_size": 16,
        "health": {"check_interval_secs": 3}, "future": {"z": [1]},
    }  # fmt: skip
    planes["a"].register("grpc://10.0.0.1:50051", **fields)
    planes.settle()
    there = planes["b"].worker("grpc://10.0.0.1:50051").spec
    assert spec_to_plain(there) == spec_to_plain(spec("grpc://10.0.0.1:50051", **fields))


# --- inbound ----------------------------------------------------------------------------------------


@pytest.mark.req("SYN-4")
def test_a_put_overtaken_by_a_delete_ends_absent() -> None:
    planes = Planes("a", "b")
    worker = planes["a"].register()
    planes.mesh.deliver()
    marked = planes["b"].store.take_changed()
    planes["a"].plane.remove(worker.id, 0)
    planes.mesh.deliver()
    planes["b"].plane.keys_changed(marked, 0)  # the news of the put is looked at only now
    planes["b"].plane.step(0, 10)
    assert planes["b"].status() is None
    assert planes["b"].kinds() == []


@pytest.mark.req("SYN-4")
@pytest.mark.parametrize("seed", range(30))
def test_in_whatever_order_news_is_looked_at_the_registry_ends_as_the_store_is(seed: int) -> None:
    rng = random.Random(seed)
    planes = Planes("a", "b", "c")
    urls = [f"http://10.0.0.{n}:8000" for n in range(1, 6)]
    late: list[str] = []
    for _ in range(60):
        node = planes[rng.choice("ab")]
        try:
            if rng.random() < 0.6:
                node.plane.register_or_replace(spec(rng.choice(urls), priority=rng.randrange(5)), 0)
            else:
                node.plane.remove(worker_id(node.name, rng.choice(urls)), 0)
        except MeshdError:
            pass  # removing what is not there is part of the sequence
        if rng.random() < 0.5:
            planes.mesh.deliver()
            late += planes["c"].store.take_changed()
        if late and rng.random() < 0.5:
            planes["c"].plane.keys_changed([late.pop(rng.randrange(len(late)))], 0)
            planes["c"].plane.step(0, rng.randrange(1, 3))
    planes["c"].plane.keys_changed(rng.sample(late, len(late)), 0)
    planes.settle()
    entries = [planes["c"].store.visible(key) for key in planes["c"].store.visible_keys("worker:")]
    stored = {decode_record(entry.value).spec.url for entry in entries if entry is not None}
    assert {worker.url for worker in planes["c"].plane.registry} == stored
    assert {worker.url for worker in planes["a"].plane.registry} == stored


@pytest.mark.req("SYN-5")
def test_an_echo_of_a_local_worker_changes_nothing() -> None:
    planes = Planes("a", "b")
    planes["a"].register()
    planes.settle()
    before = planes["a"].worker()
    planes["a"].plane.keys_changed([KEY], 0)
    planes["a"].plane.mark_all(0)
    planes.settle()
    assert planes["a"].worker() is before


@pytest.mark.req("SYN-7")
def test_a_foreign_value_or_tombstone_for_a_key_has_no_effect_on_any_node() -> None:
    planes = Planes("a", "b", "c")
    planes["a"].register(priority=1)
    planes.settle()
    before = {name: planes[name].worker() for name in "abc"}
    record = decode_record(planes["a"].store.logs["a"][KEY])
    forged = encode_record(type(record)(spec(URL, priority=9), "failed", "a", 99))
    planes["b"].store.put(KEY, forged)
    planes.settle()
    assert {name: planes[name].worker() for name in "abc"} == before
    planes["b"].store.delete(KEY)
    planes.settle()
    assert {name: planes[name].worker() for name in "abc"} == before


@pytest.mark.req("SYN-7")
@pytest.mark.parametrize("damage", [None, b"other"])
def test_a_node_asserts_its_own_entry_again_at_once_when_it_is_missing_or_different(
    damage: bytes | None,
) -> None:
    planes = Planes("a", "b")
    planes["a"].register()
    planes.settle()
    wanted = planes["a"].store.logs["a"][KEY]
    if damage is None:
        del planes["a"].store.logs["a"][KEY]
    else:
        planes["a"].store.logs["a"][KEY] = damage
    planes["a"].plane.keys_changed([KEY], 0)
    planes.settle()
    assert planes["a"].store.logs["a"][KEY] == wanted
    assert planes["b"].status() == "ready"


@pytest.mark.req("SYN-7")
def test_a_tombstone_removes_only_an_import_also_when_the_worker_was_claimed_meanwhile() -> None:
    planes = Planes("a", "b")
    planes["a"].register()
    planes.settle()
    planes["a"].plane.remove(worker_id("a", URL), 0)
    planes.mesh.deliver()  # b has the tombstone and has not looked at it
    claimed = planes["b"].register()
    planes.settle()
    assert planes["b"].worker().is_local
    assert planes["b"].worker().id == claimed.id
    assert planes["b"].worker().claims == ()


@pytest.mark.req("SYN-11")
def test_an_unreadable_update_takes_the_place_of_what_it_updated_and_is_counted() -> None:
    planes = Planes("a", "b", "c")
    planes["a"].register()
    planes["a"].register(OTHER)
    planes.settle()
    good = planes["a"].store.logs["a"][KEY]
    for name in "bc":
        planes[name].store.receive("a", {**planes["a"].store.logs["a"], KEY: b"\xff"})
        planes[name].catch_up()
        assert planes[name].status() is None
        assert planes[name].status(OTHER) == "ready"
        assert planes[name].plane.unreadable[KEY].owner == "a"
        assert [event for _, event, _ in planes[name].notices].count("worker_unreadable") == 1
        planes[name].plane.mark_all(0)
        planes[name].catch_up()
        assert planes[name].plane.reconcile_stats.last_repairs == 0
    planes["b"].store.receive("a", {KEY: good})
    planes["b"].catch_up()
    assert planes["b"].status() == "ready"
    assert planes["b"].plane.unreadable == {}


@pytest.mark.req("SYN-13")
def test_a_forgotten_owners_workers_vanish_and_come_back_when_it_returns() -> None:
    planes = Planes("a", "b")
    planes["a"].register()
    planes.settle()
    planes.set_state("a", "down")
    assert planes["b"].status() == "ready"
    planes["b"].store.forget("a")
    planes["b"].catch_up()
    assert planes["b"].status() is None
    planes.set_state("a", "alive")
    assert planes["b"].status() == "ready"


# --- lives -------------------------------------------------------------------------------------------


@pytest.mark.req("SYN-2", "SYN-16")
@pytest.mark.parametrize("lost_disk", [False, True])
def test_a_restarted_node_has_its_workers_back_as_local_ones_under_the_same_ids(lost_disk: bool) -> None:
    planes = Planes("a", "b")
    node = planes["a"]
    worker = node.register(priority=3)
    planes.settle()
    planes["b"].kinds()
    if lost_disk:
        node.store.lose_disk()
        node.start()
        node.catch_up()
        assert node.status() is None
        node.store.give_back(planes["b"].store.logs["a"])
        node.catch_up()
    else:
        node.restart()
    planes.settle()
    assert (node.worker().id, node.worker().origin) == (worker.id, "local")
    assert node.worker().spec.priority == 3
    assert planes["b"].kinds() == []
    assert node.store.writes == []


@pytest.mark.req("SYN-16")
def test_a_worker_that_this_life_removed_does_not_come_back_from_peers() -> None:
    planes = Planes("a", "b")
    worker = planes["a"].register()
    planes.settle()
    stale = dict(planes["b"].store.logs["a"])
    planes["a"].plane.remove(worker.id, 0)
    planes["a"].store.give_back(stale)
    planes["a"].store.logs["a"].update(stale)  # however it got there
    planes["a"].plane.keys_changed([KEY], 0)
    planes.settle()
    assert planes["a"].status() is None
    assert planes["b"].status() is None


@pytest.mark.req("SYN-16", "LIF-9")
def test_a_removal_that_a_crash_interrupted_is_finished_after_the_restart() -> None:
    planes = Planes("a", "b", health=HealthSettings(disabled=True, drain_settle_s=5))
    worker = planes["a"].register()
    planes["a"].plane.remove(worker.id, planes.now)
    planes.settle()
    assert planes["b"].status() == "draining"
    planes["a"].restart()
    planes.settle()
    assert planes["a"].status() == "draining"
    planes.run(6)
    assert planes["a"].status() is None
    assert planes["b"].status() is None


@pytest.mark.req("SYN-16")
def test_a_drain_outlives_a_restart() -> None:
    planes = Planes("a", "b")
    planes["a"].plane.drain(planes["a"].register().id, 0)
    planes["a"].restart()
    planes.run(60)
    assert planes["a"].status() == planes["b"].status() == "draining"


@pytest.mark.req("SYN-16")
def test_a_restart_is_no_outage_a_restored_worker_keeps_its_word_until_its_first_check() -> None:
    planes = Planes("a", "b", health=CHECKED, check_imports="never")
    planes["a"].register()
    planes.run(3)
    assert planes["b"].status() == "ready"
    planes["b"].kinds()
    planes["a"].restart()
    planes.settle()
    assert planes["a"].status() == "pending"
    assert planes["b"].status() == "ready"
    planes.run(1)
    assert planes["a"].status() == "ready"
    assert planes["b"].kinds() == []


@pytest.mark.req("SYN-16")
def test_a_restored_worker_whose_first_check_fails_is_no_longer_said_to_be_ready() -> None:
    planes = Planes("a", "b", health=CHECKED, check_imports="never")
    planes["a"].register()
    planes.run(3)
    planes.answers = lambda node, url: "refused"
    planes["a"].restart()
    planes.run(1)
    assert planes["a"].status() == planes["b"].status() == "pending"


@pytest.mark.req("SYN-16")
def test_with_on_start_withdraw_only_what_registers_again_within_the_grace_stays() -> None:
    planes = Planes("a", "b", on_start="withdraw", startup_grace_s=30.0)
    kept = planes["a"].register()
    planes["a"].register(OTHER)
    planes.settle()
    planes["b"].kinds()
    planes["a"].restart()
    planes.run(10)
    assert planes["a"].status() is None
    assert planes["b"].status() == planes["b"].status(OTHER) == "ready"
    again = planes["a"].register()
    assert again.id == kept.id
    assert again.revision > kept.revision
    planes.run(21)
    assert planes["a"].status() == planes["b"].status() == "ready"
    assert planes["a"].status(OTHER) is None
    assert planes["b"].status(OTHER) is None
    assert planes["b"].kinds() == ["replaced", "removed"]


@pytest.mark.req("SYN-16")
def test_the_startup_grace_waits_until_former_entries_are_known() -> None:
    planes = Planes("a", "b", on_start="withdraw", startup_grace_s=1.0)
    planes["a"].register()
    planes.settle()
    planes["a"].store.is_restored = False
    planes["a"].restart()
    planes.run(2)
    assert planes["b"].status() == "ready"
    planes["a"].store.is_restored = True
    planes.run(1)
    assert planes["b"].status() is None


@pytest.mark.req("SYN-16")
def test_registering_a_url_that_the_disk_still_holds_is_a_conflict_not_a_second_worker() -> None:
    planes = Planes("a")
    planes["a"].register()
    planes["a"].store.restart()
    planes["a"].start()  # nothing has been looked at yet
    with pytest.raises(WorkerAlreadyExists):
        planes["a"].register()
    assert planes["a"].plane.register_or_replace(spec(), 0).revision == 1


@pytest.mark.req("SYN-14")
def test_withdrawing_takes_all_own_workers_off_the_peers_and_publishes_nothing_more() -> None:
    planes = Planes("a", "b")
    worker = planes["a"].register()
    planes["b"].register(OTHER)
    planes.settle()
    planes["a"].plane.withdraw()
    planes["a"].plane.patch(worker.id, {"priority": 9}, None, 0)
    planes["a"].plane.mark_all(0)
    planes.settle()
    assert planes["b"].status() is None
    assert planes["b"].status(OTHER) == "ready"
    planes["a"].plane.rejoin(planes.now)
    planes.settle()
    assert planes["b"].worker().spec.priority == 9


@pytest.mark.req("SYN-14", "SYN-16")
def test_withdrawn_workers_do_not_come_back_after_a_restart() -> None:
    planes = Planes("a", "b")
    planes["a"].register()
    planes["a"].register(LOOPBACK)
    planes.settle()
    planes["a"].plane.withdraw()
    planes.settle()
    planes["a"].restart()
    planes.settle()
    assert len(planes["a"].plane.registry) == len(planes["b"].plane.registry) == 0


# --- what other nodes cannot reach ------------------------------------------------------------------


@pytest.mark.req("SYN-15")
@pytest.mark.parametrize("url", [LOOPBACK, "ipc:///run/worker.sock", "http://localhost:1"])
def test_a_worker_that_others_cannot_reach_is_served_here_and_not_published(url: str) -> None:
    planes = Planes("a", "b")
    planes["a"].register(url)
    planes.settle()
    assert planes["a"].status(url) == "ready"
    assert planes["a"].store.writes == []
    why = planes["a"].plane.explain_url(url, planes.now)
    assert why["published"] is False
    assert "publish_loopback" in " ".join(str(reason) for reason in why["reasons"])  # type: ignore[attr-defined]  # a list


@pytest.mark.req("SYN-15")
def test_publish_loopback_publishes_it_all_the_same() -> None:
    planes = Planes("a", "b", publish_loopback=True)
    planes["a"].register(LOOPBACK)
    planes.settle()
    assert planes["b"].status(LOOPBACK) == "ready"


@pytest.mark.req("SYN-15", "SYN-16")
def test_an_unpublished_worker_comes_back_from_this_nodes_disk_until_it_is_removed() -> None:
    planes = Planes("a")
    node = planes["a"]
    worker = node.register(LOOPBACK, api_key="sk-1")
    node.plane.patch(worker.id, {"priority": 7}, None, 0)
    node.restart()
    assert node.worker(LOOPBACK).spec.priority == 7
    assert node.worker(LOOPBACK).api_key == "sk-1"
    node.plane.remove(worker.id, 0)
    node.restart()
    assert node.status(LOOPBACK) is None
    assert node.meta.meta_items("") == []


@pytest.mark.req("SYN-15")
def test_switching_publish_loopback_moves_a_worker_between_disk_and_mesh() -> None:
    planes = Planes("a", "b")
    node = planes["a"]
    node.register(LOOPBACK)
    for publishes, there in ((True, "ready"), (False, None), (True, "ready")):
        node.settings = type(node.settings)(health=node.settings.health, publish_loopback=publishes)
        node.restart()
        planes.settle()
        assert node.status(LOOPBACK) == "ready"
        assert planes["b"].status(LOOPBACK) == there
        assert bool(node.meta.meta_items("worker_local:")) is not publishes


# --- secrets ------------------------------------------------------------------------------------------


@pytest.mark.req("SYN-12")
def test_an_api_key_stays_on_its_owner_and_outlives_a_restart() -> None:
    planes = Planes("a", "b")
    worker = planes["a"].register(api_key="sk-secret")
    planes.settle()
    assert all(b"sk-secret" not in value for value in planes["b"].store.logs["a"].values())
    assert planes["b"].worker().protected
    assert planes["b"].worker().api_key is None
    planes["a"].restart()
    planes.settle()
    assert planes["a"].worker().api_key == "sk-secret"
    planes["a"].plane.replace(worker.id, spec(priority=2), None, 0)
    assert planes["a"].worker().api_key == "sk-secret"
    planes["a"].plane.patch(worker.id, {"api_key": None}, None, 0)
    assert planes["a"].worker().api_key is None
    planes.settle()
    assert not planes["b"].worker().protected
    assert planes["a"].meta.meta_items("worker_secret:") == []


# --- reconcile ----------------------------------------------------------------------------------------


@pytest.mark.req("SYN-10")
def test_a_reconcile_pass_does_nothing_when_nothing_differs() -> None:
    planes = Planes("a", "b")
    planes["a"].register()
    planes.settle()
    for name in "ab":
        before, writes = planes[name].worker(), len(planes[name].store.writes)
        planes[name].kinds()
        planes[name].plane.mark_all(0)
        planes.settle()
        assert planes[name].worker() is before
        assert planes[name].kinds() == []
        assert len(planes[name].store.writes) == writes
        stats = planes[name].plane.reconcile_stats
        assert (stats.passes, stats.last_compared, stats.last_repairs) == (1, 1, 0)


@pytest.mark.req("SYN-10")
def test_what_a_reconcile_pass_does_ahead_of_waiting_news_is_no_repair() -> None:
    planes = Planes("a", "b")
    planes["a"].register()
    planes.settle()
    plane = planes["b"].plane
    plane.mark_all(0)
    planes["a"].plane.remove(worker_id("a", URL), 0)
    planes.mesh.deliver()
    plane.keys_changed(planes["b"].store.take_changed(), 0)
    assert plane.has_news
    plane.step_sweep(0, 10)
    assert planes["b"].status() is None
    assert plane.reconcile_stats.repairs == 0


@pytest.mark.req("SYN-10")
def test_a_reconcile_pass_repairs_a_missed_put_a_missed_tombstone_and_a_missed_publish() -> None:
    planes = Planes("a", "b")
    planes["a"].register()
    planes["a"].register(OTHER)
    planes.settle()
    planes["a"].plane.remove(worker_id("a", URL), 0)
    planes["a"].register("http://10.0.0.3:8000")
    planes.mesh.deliver()
    planes["b"].store.take_changed()  # all news is lost
    del planes["a"].store.logs["a"][worker_key("a", OTHER)]
    planes["a"].store.take_changed()
    for name in "ab":
        planes[name].plane.mark_all(0)
        while planes[name].plane.step(0, 1):
            pass
    assert planes["a"].plane.reconcile_stats.last_repairs == 1
    assert planes["b"].plane.reconcile_stats.last_repairs == 2
    planes.settle()
    assert {worker.url for worker in planes["b"].plane.registry} == {OTHER, "http://10.0.0.3:8000"}


@pytest.mark.req("SYN-10", "SYN-3")
def test_a_removal_whose_tombstone_was_missed_is_tombstoned() -> None:
    planes = Planes("a", "b")
    worker = planes["a"].register()
    planes.settle()
    value = planes["a"].store.logs["a"][KEY]
    planes["a"].plane.remove(worker.id, 0)
    planes["a"].store.logs["a"][KEY] = value
    planes["a"].store.written[KEY] = 1
    planes["a"].store.deleted.clear()
    planes["a"].plane.mark_all(0)
    planes.settle()
    assert planes["a"].status() is None
    assert planes["b"].status() is None


@pytest.mark.req("SYN-10")
def test_a_refused_publish_is_told_and_tried_again_by_the_next_pass() -> None:
    planes = Planes("a", "b")
    node = planes["a"]
    node.store.refuse_over_bytes = 10
    node.store.logs["a"][KEY] = _record_of_former_life()  # it says pending, and will have to say ready
    node.restart()
    node.catch_up()
    assert node.status() == "ready"
    assert node.plane.counters.publish_errors == 1
    node.store.refuse_over_bytes = 10_000
    node.plane.mark_all(0)
    planes.settle()
    assert planes["b"].status() == "ready"


def _record_of_former_life() -> bytes:
    planes = Planes("a", health=CHECKED)
    planes["a"].register()
    return planes["a"].store.logs["a"][KEY]


@pytest.mark.req("CRD-7", "SYN-11")
def test_fields_of_a_newer_versions_record_are_written_back_by_the_restored_worker() -> None:
    planes = Planes("a")
    plain = cbor2.loads(_record_of_former_life())
    plain["later"] = {"x": 1}
    planes["a"].store.logs["a"][KEY] = cbor2.dumps(plain, canonical=True)
    planes["a"].restart()
    planes.settle()
    planes["a"].plane.patch(worker_id("a", URL), {"priority": 1}, None, 0)
    assert cbor2.loads(planes["a"].store.logs["a"][KEY])["later"] == {"x": 1}
