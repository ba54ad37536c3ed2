"""Every invariant objects when it is broken: each is shown by a planted bug, or by a rule switched off."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from crdt import lww_map, merge
from crdt.persist import PutLog
from meshd.protocol import ownership
from meshd.protocol.effects import KeysChanged, Persist
from meshd.protocol.replication import Replicator
from meshd.testing import INVARIANTS, SimCluster, Violation, copies, inforce, safety, telling
from meshd.testing.disk import SimPersister
from meshd.testing.plan import Plan, Step
from meshd.testing.play import play
from meshd.workers import claims, commands
from meshd.workers.core import Core
from meshd.workers.health_machine import HealthState
from meshd.workers.plane import WorkerPlane
from meshd.workers.record import worker_key
from meshd.workers.sync import Sync
from meshd.workers.worker import Claim, Worker

URL = "http://10.0.0.1:8000"

pytestmark = pytest.mark.req("SIM-3")

SHOWN: set[str] = set()


def objects(invariant: str, act: Callable[[], object]) -> None:
    """Run something that breaks an invariant, and see that this very one objects."""
    SHOWN.add(invariant)
    with pytest.raises(Violation) as raised:
        act()
    assert raised.value.invariant == invariant


def three(url: str = URL) -> SimCluster:
    """Three nodes that agree on a worker of `a`."""
    cluster = SimCluster(3, seed=11)
    cluster["a"].register(url)
    cluster.run_for(3)
    cluster.converge()
    return cluster


def test_without_boot_nonces_a_torn_disk_uses_a_seq_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "boot_nonce", lambda counter, bits: 1)
    cluster = SimCluster(3, seed=12, settings={"store.durability": "full"})
    cluster["a"].register(URL)
    cluster.run_for(3)

    def act() -> None:
        cluster.lose_disk("a")
        cluster.start("a", join=[])
        cluster["a"].register("http://10.0.0.9:8000")
        cluster.run_for(20)

    objects("replicas_hold_what_owners_wrote", act)


def test_a_log_that_goes_back_is_noticed() -> None:
    cluster = three()
    old = cluster["b"].node.map.logs["a"].head()
    cluster["a"].patch(URL, priority=7)
    cluster.run_for(1)
    cluster["b"].node._emit(Persist((PutLog(old),)))
    objects("logs_never_go_back", cluster["b"].running.dispatch)


def test_an_import_that_is_published_again_is_noticed() -> None:
    cluster = three()
    found = cluster["b"].node.visible(worker_key("a", URL))
    assert found is not None
    cluster["b"].node.put(worker_key("a", URL), found.value)
    objects("one_writer_per_key", cluster["b"].running.dispatch)


def test_a_removed_worker_that_returns_is_noticed() -> None:
    cluster = three()
    key = worker_key("a", URL)
    replica = cluster["b"].node.map
    entry = replica.logs["a"].entries[key]
    cluster["a"].remove(URL, drain=False)
    cluster.run_for(1)
    replica.logs["a"].entries[key] = entry
    replica.view.refresh("a", [key])
    cluster["b"].node._emit(KeysChanged((key,)))
    objects("a_removed_worker_never_returns", cluster["b"].running.dispatch)


def test_a_local_worker_that_nobody_here_removed_is_missed() -> None:
    cluster = three()
    process = cluster["a"].running
    process.plane.remove(cluster["a"].id_of(URL), process.now, drain=False)
    objects("a_peer_never_removes_a_local_worker", process.dispatch)


def test_a_vector_that_says_too_much_is_noticed() -> None:
    cluster = three()
    replica = cluster["b"].node.map
    honest = replica.have

    replica.have = lambda owner: honest(owner)._replace(max=honest(owner).max + 1)  # type: ignore[method-assign]
    cluster["a"].patch(URL, priority=7)
    objects("vectors_never_run_ahead", lambda: cluster.run_for(3))


def test_routing_by_the_owners_word_alone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "import_status", lambda word, own, down: word)
    cluster = SimCluster(2, seed=13)
    cluster.set_health(URL, "fail", seen_by="b")

    def act() -> None:
        cluster["a"].register(URL)
        cluster.run_for(10)

    objects("a_dead_worker_is_never_revived", act)


def test_a_local_worker_that_is_routed_to_unchecked_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "initial", lambda settings, now: HealthState("ready", now))
    cluster = SimCluster(1, seed=20)
    objects("a_dead_worker_is_never_revived", lambda: cluster["a"].register(URL))


def test_a_gen_of_a_former_life_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = three()
    monkeypatch.setattr(merge, "next_gen", lambda log, gen: log)
    monkeypatch.setattr(lww_map, "next_gen", lambda log, gen: log)
    objects("replicas_hold_what_owners_wrote", lambda: cluster.restart("a"))


def test_a_frame_that_no_correct_node_sends_is_noticed() -> None:
    cluster = three()
    end = next(cluster.network.ends_of(cluster["a"].running))
    cluster.network.send(end, b"\xc1")
    objects("correct_nodes_never_err", lambda: cluster.run_for(1))


def test_an_answer_before_the_disk_has_it_is_a_lost_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = SimCluster(2, seed=14)
    cluster.run_for(2)
    cluster.isolate("a")
    monkeypatch.setattr(SimPersister, "when_committed", lambda self, action: action())
    cluster["a"].register(URL)
    cluster.crash("a", silently=True)
    monkeypatch.undo()
    cluster.heal()
    cluster.start("a")
    objects("an_acknowledged_write_is_never_lost", cluster.converge)


def test_a_hash_that_does_not_add_up_is_noticed() -> None:
    cluster = SimCluster(1, seed=15)
    cluster["a"].register(URL)
    cluster["a"].node.map.own.hash ^= 1
    objects("hashes_add_up", cluster.converge)


def test_a_worker_that_its_registry_does_not_find_is_noticed() -> None:
    cluster = SimCluster(1, seed=16)
    cluster["a"].register(URL)
    cluster["a"].plane.registry._url_of.clear()
    objects("registries_are_whole", cluster.converge)


def test_a_worker_that_is_not_listed_by_model_and_status_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = SimCluster(1, seed=21)
    cluster["a"].register(URL, models=[{"id": "m", "aliases": ["n"]}])
    cluster.run_for(3)
    cluster.converge()
    index = cluster["a"].plane.registry._index
    with monkeypatch.context() as patch:
        patch.setitem(index._urls["model"], "n", {})
        objects("registries_are_whole", cluster.converge)
    with monkeypatch.context() as patch:
        patch.setitem(index._urls["status"], "ready", {})
        objects("registries_are_whole", cluster.converge)
    cluster.converge()


def test_an_import_that_is_served_as_it_was_before_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Core.import_of

    def stale(self: Core, url: str, claims: tuple[Claim, ...], old: Worker | None, now: float) -> Worker:
        worker = made(self, url, claims, old, now)
        return worker if old is None else replace(worker, spec=old.spec)

    monkeypatch.setattr(Core, "import_of", stale)
    cluster = three()
    cluster["a"].patch(URL, priority=7)
    cluster.run_for(2)
    objects("registries_are_whole", cluster.converge)


def test_an_import_whose_owner_came_or_went_unnoticed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorkerPlane, "owner_changed", lambda self, owner, now: None)
    monkeypatch.setattr(WorkerPlane, "mark_all", lambda self, now: None)
    cluster = SimCluster(2, seed=22, settings={"health.check_interval_secs": 3600})
    cluster.set_health(URL, "fail", seen_by="a")
    cluster["a"].register(URL)
    cluster.run_for(3)
    cluster.converge()
    assert cluster["b"].routable() == set()
    cluster.crash("a")
    cluster.run_for(25)
    assert cluster["b"].members() == {"a": "down"}
    objects("registries_are_whole", cluster.converge)


def test_a_claim_that_is_not_brought_up_to_date_keeps_nodes_from_agreeing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = three()
    monkeypatch.setattr(Sync, "_take", lambda self, claim, now: None)
    cluster["a"].patch(URL, priority=7)
    objects("replicas_that_can_talk_converge", cluster.converge)


def test_changes_that_only_the_reconcile_pass_finds_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorkerPlane, "take_in", lambda self, keys, now: False)
    cluster = SimCluster(2, seed=17)
    cluster.run_for(2)
    cluster["a"].register(URL)
    cluster.run_for(60)
    objects("a_reconcile_pass_finds_nothing", cluster.converge)


def test_nodes_that_do_not_replicate_do_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replicator, "_complete", lambda *args: None)
    cluster = SimCluster(2, seed=18, invariants=())
    cluster["a"].register(URL)
    objects("replicas_that_can_talk_converge", cluster.converge)


def _register(at: float = 1.0) -> Plan:
    return Plan(19, "all", 2, 3.0, (Step(at, "register", ("a", 1, 1)),))


def test_code_that_raises_ends_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: WorkerPlane, keys: tuple[str, ...], now: float) -> bool:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(WorkerPlane, "take_in", broken)
    outcome = play(_register())
    assert outcome.violation is not None
    assert outcome.violation.invariant == "no_code_of_ours_raises"
    assert "planted" in outcome.details


def test_workers_that_stay_out_of_rotation_end_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorkerPlane, "check_done", lambda self, result, now: None)
    outcome = play(_register())
    assert outcome.violation is not None
    assert outcome.violation.invariant == "healthy_workers_are_in_rotation"


def test_every_invariant_is_shown_here() -> None:
    elsewhere = {copies.__name__, inforce.__name__, safety.__name__, telling.__name__}
    assert {kind.name for kind in INVARIANTS if kind.__module__ not in elsewhere} <= SHOWN
