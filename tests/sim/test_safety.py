"""What goes wrong while faults last is noticed then, also if it is made good later: each by a planted bug."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from meshd.protocol import hearing
from meshd.protocol.dialing import Dialer
from meshd.protocol.heartbeat import Heart
from meshd.protocol.members import Members, StateChange
from meshd.protocol.node import MeshNode
from meshd.protocol.replication import Replicator
from meshd.protocol.session import Session
from meshd.testing import INVARIANTS, SimCluster, Violation, safety, telling
from meshd.testing.checks import Invariant
from meshd.testing.disk import SimPersister
from meshd.testing.safety import MembersAreAsHeard, WhoCanTalkMeets
from meshd.testing.telling import LeaversAreShownAsLeft, LivesBeginOnDisk, NewsTravelsAtOnce
from meshd.wire.messages import Heartbeat, MemberRow

pytestmark = pytest.mark.req("SIM-3")

URL = "http://10.0.0.1:8000"
SHOWN: set[type[Invariant]] = set()


def objects(invariant: type[Invariant], act: Callable[[], object], text: str = ".") -> None:
    """Run something, and see that this very invariant objects."""
    SHOWN.add(invariant)
    with pytest.raises(Violation, match=text) as raised:
        act()
    assert raised.value.invariant == invariant.name


def met(nodes: int = 3, seed: int = 31) -> SimCluster:
    """A cluster whose nodes have met."""
    cluster = SimCluster(nodes, seed=seed)
    cluster.run_for(5)
    return cluster


def test_a_sound_cluster_in_trouble_passes() -> None:
    cluster = met(5)
    cluster.crash("a", silently=True)
    cluster.run_for(2)
    cluster.cut("b", "c")
    cluster.pause("d")
    cluster.run_for(12)
    cluster.resume("d")
    cluster.start("a")
    cluster.stop("e")
    cluster.run_for(10)
    cluster.start("e")
    cluster.heal()
    cluster.run_for(40)
    cluster.converge()


def test_a_silent_node_that_is_never_suspected_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = met()
    monkeypatch.setattr(Members, "tick", lambda self, now: [])
    cluster.crash("a")
    objects(MembersAreAsHeard, lambda: cluster.run_for(6), "a is alive, and gave no sign")


def test_a_suspect_that_never_goes_down_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Members, "_become", _without("down"))
    cluster = met()
    cluster.isolate("a")
    objects(MembersAreAsHeard, lambda: cluster.run_for(12), "is suspect, and gave no sign")


def _without(state: str) -> Callable[[Members, object, str, float], StateChange | None]:
    become = Members._become

    def broken(self: Members, member: object, to: str, now: float) -> StateChange | None:
        return None if to == state else become(self, member, to, now)  # type: ignore[arg-type]  # as it came

    return broken


def test_a_rumour_that_revives_the_dead_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Members.rumour

    def believed(self: Members, row: MemberRow, now: float) -> StateChange | None:
        member = self.get(row.name)
        if member is None:
            return heard(self, row, now)
        self.changed[row.name] = None
        member.heard_at = now
        return self._become(member, "alive", now)

    monkeypatch.setattr(Members, "rumour", believed)
    cluster = met()
    cluster.crash("a")

    def act() -> None:
        for _ in range(10):
            cluster.reset("b", "c")  # when they are back they tell each other all they know
            cluster.run_for(1)

    objects(MembersAreAsHeard, act, "a is alive, and gave no sign")


def test_a_node_that_is_suspected_while_it_speaks_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = met()
    monkeypatch.setattr(cluster["b"].node.roster, "_suspect_after_s", 0.3)
    objects(MembersAreAsHeard, lambda: cluster.run_for(5), "is suspect after")


def test_a_node_that_is_back_and_still_shown_as_down_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = met()
    cluster.isolate("a")
    cluster.run_for(10)
    monkeypatch.setattr(Members, "_become", _without("alive"))
    cluster.heal()
    objects(MembersAreAsHeard, lambda: cluster.run_for(20), "is down, and has just spoken")


def test_nodes_that_do_not_meet_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dialer, "due", lambda self, now, connected: [])
    cluster = SimCluster(2, seed=32)
    objects(WhoCanTalkMeets, lambda: cluster.run_for(40))


def test_a_node_that_is_back_and_still_shown_as_left_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = met()
    cluster.stop("a")
    cluster.run_for(2)
    monkeypatch.setattr(Members, "_become", _without("alive"))
    cluster.start("a")
    objects(MembersAreAsHeard, lambda: cluster.run_for(20), "has just spoken")


def test_a_goodbye_that_is_not_said_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MeshNode, "leave", lambda self, withdrawn, now: None)
    cluster = met()
    cluster.stop("a")
    objects(LeaversAreShownAsLeft, lambda: cluster.run_for(2), "a is alive, and said goodbye")


def test_a_goodbye_that_is_not_listened_to_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Members, "says_left", lambda self, name, left, now: None)
    cluster = met()
    cluster.leave("a")
    objects(LeaversAreShownAsLeft, lambda: cluster.run_for(2), "a is alive, and said goodbye")


def test_a_write_that_is_not_pushed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replicator, "log_changed", lambda self, owner, source=0: None)
    monkeypatch.setattr(Heart, "message", _without_rows())
    cluster = met()
    cluster["a"].register(URL)
    objects(NewsTravelsAtOnce, lambda: cluster.run_for(2), "a wrote")


def _without_rows() -> Callable[[Heart, Session, float, int], Heartbeat]:
    message = Heart.message

    def broken(self: Heart, session: Session, now: float, hlc: int) -> Heartbeat:
        return replace(message(self, session, now, hlc), rows=())

    return broken


def test_a_write_that_is_not_passed_on_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = Replicator.log_changed

    def only_own(self: Replicator, owner: str, source: int = 0) -> None:
        if owner == self._map.node:
            changed(self, owner, source)

    monkeypatch.setattr(Replicator, "log_changed", only_own)
    cluster = SimCluster(3, seed=33, links=[("a", "b"), ("b", "c")])
    cluster.run_for(5)
    cluster["a"].register(URL)
    objects(NewsTravelsAtOnce, lambda: cluster.run_for(2), "on c .* a wrote")


def test_a_newcomer_that_is_not_told_what_was_written_before_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = SimCluster(3, seed=34, links=[("a", "b"), ("b", "c")], start=False)
    cluster.start("b")
    cluster.start("c")
    cluster.run_for(2)
    cluster["c"].register(URL)
    cluster.run_for(5)
    for told in ("_compare", "first_vector_heard"):
        monkeypatch.setattr(Replicator, told, lambda *args: None)
    cluster.start("a")
    objects(NewsTravelsAtOnce, lambda: cluster.run_for(8), "wrote")


def test_news_reach_the_far_end_of_a_chain_at_once() -> None:
    cluster = SimCluster(5, seed=33, links=[("a", "b"), ("b", "c"), ("c", "d"), ("d", "e")])
    cluster.run_for(10)
    cluster["a"].register(URL)
    cluster.run_for(10)
    assert URL in cluster["e"].workers()


def test_a_life_that_speaks_before_its_counter_is_stored_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    submit = SimPersister.submit
    monkeypatch.setattr(
        SimPersister, "submit", lambda self, ops, durable=False: submit(self, ops, durable=False)
    )
    objects(LivesBeginOnDisk, lambda: met(2), "is safe on its disk")


def test_every_check_of_this_kind_is_shown_here() -> None:
    kinds = {kind for kind in INVARIANTS if kind.__module__ in (safety.__name__, telling.__name__)}
    assert kinds <= SHOWN


@pytest.mark.req("MSH-2", "MSH-3")
def test_a_link_that_lets_nothing_through_kills_nobody_and_delays_no_news() -> None:
    cluster = SimCluster(4, seed=5)
    cluster.run_for(5)
    cluster.cut("a", "b")
    for second in range(20):
        cluster.run_for(1)
        assert cluster["b"].members()["a"] == "alive"
        if second == 4:  # the connection still stands, and is quiet
            assert "a" in cluster["b"].peers()
            cluster["a"].register(URL)
            cluster.run_until(lambda: URL in cluster["b"].workers(), 0.5)


@pytest.mark.req("MSH-2")
def test_a_node_that_one_bad_link_kills_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "QUIET_BEATS", 1e9)
    cluster = SimCluster(4, seed=5)
    cluster.run_for(35)
    cluster.cut("a", "b")
    objects(WhoCanTalkMeets, lambda: cluster.run_for(20))
