"""What is kept twice is the same twice: each check holds on a sound cluster, and objects to a planted bug."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from crdt.lww_map import Change, LwwMap
from crdt.persist import DropKeys, PutMeta, StoreOp
from crdt.view import View, Visible
from meshd.protocol.effects import Notice
from meshd.protocol.node import MeshNode
from meshd.storage.fold import OpFold
from meshd.testing import INVARIANTS, SimCluster, Violation, copies
from meshd.testing.checks import Invariant
from meshd.testing.copies import DisksHoldAll, EventsTellAll, SettingsGoForward, TheLivingAreKept
from meshd.workers.events import Event, EventHub, Kind
from meshd.workers.worker import Worker

pytestmark = pytest.mark.req("SIM-3")

URL = "http://10.0.0.1:8000"
LOOPBACK = "http://127.0.0.1:8000"
SHOWN: set[type[Invariant]] = set()


def checked(nodes: int = 3, **settings: object) -> SimCluster:
    """A cluster that is held to all of it."""
    named = {name.replace("__", "."): value for name, value in settings.items()}
    cluster = SimCluster(nodes, seed=21, settings=named)
    cluster.run_for(2)
    return cluster


def objects(invariant: type[Invariant], act: Callable[[], object]) -> None:
    """Run something, and see that this very invariant objects."""
    SHOWN.add(invariant)
    with pytest.raises(Violation) as raised:
        act()
    assert raised.value.invariant == invariant.name


def lead_a_life(cluster: SimCluster) -> None:
    """A little of everything that is kept twice."""
    a = cluster["a"]
    a.register(URL, api_key="secret")
    a.register(LOOPBACK)
    a.register("http://10.0.0.2:8000")
    a.set_config("capacity.override", 3)
    cluster.run_for(3)
    a.drain(URL)
    a.remove(LOOPBACK, drain=False)
    a.remove("http://10.0.0.2:8000", drain=False)
    a.register("http://127.0.0.1:8001")
    cluster.run_for(1)
    cluster.crash("c")
    cluster.run_for(20)
    cluster["b"].forget("c")
    cluster.run_for(1)
    cluster.converge()
    cluster.restart("a")
    cluster.start("c")
    cluster.converge()


def test_a_sound_cluster_passes() -> None:
    lead_a_life(checked())
    lead_a_life(checked(sync__publish_loopback="false", sync__tombstone_grace_s=1))


def without(
    lost: type[StoreOp], found: Callable[[StoreOp], bool]
) -> Callable[[OpFold, Iterator[StoreOp]], None]:
    """An `OpFold.add` that loses some operations."""
    add = OpFold.add

    def broken(self: OpFold, ops: Iterator[StoreOp]) -> None:
        add(self, [op for op in ops if not (isinstance(op, lost) and found(op))])

    return broken


def is_fact(prefix: str, deleted: bool) -> Callable[[StoreOp], bool]:
    """Whether an operation stores, or deletes, a private fact."""
    return lambda op: isinstance(op, PutMeta) and op.name.startswith(prefix) and (op.value is None) is deleted


@pytest.mark.req("CRD-8")
@pytest.mark.parametrize(
    ("lost", "found"),
    [
        (DropKeys, lambda op: True),
        (PutMeta, is_fact("removed:", deleted=False)),
        (PutMeta, is_fact("fence:", deleted=False)),
        (PutMeta, is_fact("gen_counter", deleted=False)),
        (PutMeta, is_fact("lives", deleted=False)),
        (PutMeta, is_fact("worker_secret:", deleted=False)),
        (PutMeta, is_fact("worker_local:", deleted=False)),
        (PutMeta, is_fact("worker_local:", deleted=True)),
    ],
)
def test_what_the_disk_was_not_given_is_missed(
    lost: type[StoreOp], found: Callable[[StoreOp], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpFold, "add", without(lost, found))
    settings = {"sync.publish_loopback": "false", "sync.tombstone_grace_s": 1}
    cluster = SimCluster(3, seed=21, settings=settings, invariants=(DisksHoldAll,))
    cluster.run_for(2)
    objects(DisksHoldAll, lambda: lead_a_life(cluster))


def test_a_disk_that_refuses_is_not_held_to_what_it_did_not_take() -> None:
    cluster = checked()
    cluster.fill_disk("a")
    cluster["a"].register(URL)
    cluster.run_for(1)
    cluster.converge()


@pytest.mark.req("REG-7")
@pytest.mark.parametrize("kind", ["registered", "removed", "status_changed", "replaced"])
def test_a_change_of_which_no_event_tells_is_noticed(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    emit = EventHub.emit

    def silent(self: EventHub, told: Kind, worker: Worker, previous: str | None = None) -> Event | None:
        return None if told == kind else emit(self, told, worker, previous)

    monkeypatch.setattr(EventHub, "emit", silent)
    cluster = checked()

    def act() -> None:
        cluster["a"].register(URL)
        cluster.run_for(3)
        cluster["a"].patch(URL, priority=3)
        cluster.converge()
        cluster["a"].remove(URL, drain=False)
        cluster.converge()

    objects(EventsTellAll, act)


def test_a_setting_that_is_written_over_one_that_was_seen_must_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LwwMap, "_next_version", lambda self, key: 1)
    cluster = checked()
    cluster["b"].set_config("capacity.override", 3)
    cluster.run_for(1)
    objects(SettingsGoForward, lambda: cluster["a"].set_config("capacity.override", 4))


def test_a_setting_that_went_with_a_forgotten_node_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LwwMap, "_sole_winner", lambda self, owner, entry: False)
    cluster = checked()
    cluster["c"].set_config("capacity.override", 3)
    cluster.run_for(1)
    cluster.crash("c")
    cluster.run_for(20)
    objects(SettingsGoForward, lambda: cluster["a"].forget("c"))


def test_a_setting_that_shows_an_older_value_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def oldest(self: View, key: str, owners: set[str]) -> Visible | None:
        return winner(self, key, {min(owners)})

    winner = View._multi
    monkeypatch.setattr(View, "_multi", oldest)
    cluster = checked()
    cluster["a"].set_config("capacity.override", 3)
    cluster.run_for(1)

    def act() -> None:
        cluster["b"].set_config("capacity.override", 4)
        cluster.converge()

    objects(SettingsGoForward, act)


@pytest.mark.req("SYN-13")
def test_a_member_that_is_alive_and_forgotten_is_missed() -> None:
    cluster = checked()
    node: MeshNode = cluster["a"].node
    node._emit(Notice("info", "owner_forgotten", {"owner": "b"}))
    objects(TheLivingAreKept, cluster["a"].running.dispatch)


@pytest.mark.req("SYN-13")
def test_a_node_that_is_cut_off_and_forgets_is_noticed() -> None:
    cluster = checked(2, sync__forget_after_s=20)
    cluster["b"].register(URL)
    cluster.run_for(1)
    cluster.isolate("a")
    tick = cluster["a"].node.forgetting.tick
    cluster["a"].node.forgetting.tick = (  # type: ignore[method-assign]
        lambda now, connected, alive: tick(now, True, alive)
    )
    objects(TheLivingAreKept, lambda: cluster.run_for(60))


def test_changes_that_are_lost_between_map_and_disk_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    collect = LwwMap.collect_own

    def forgetful(self: LwwMap, floor: int) -> Change:
        change = collect(self, floor)
        return Change(change.verdict, change.keys, change.ops[1:])

    monkeypatch.setattr(LwwMap, "collect_own", forgetful)
    objects(DisksHoldAll, lambda: lead_a_life(checked(sync__tombstone_grace_s=1)))


def test_every_invariant_of_copies_is_shown_here() -> None:
    assert {kind for kind in INVARIANTS if kind.__module__ == copies.__name__} == SHOWN
