"""What goes wrong while faults last is noticed then, also if it is made good later: each by a planted bug."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshd.protocol.dialing import Dialer
from meshd.protocol.members import Members, StateChange
from meshd.testing import INVARIANTS, SimCluster, Violation, safety
from meshd.testing.checks import Invariant
from meshd.testing.safety import MembersAreAsHeard, WhoCanTalkMeets
from meshd.wire.messages import MemberRow

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


def test_every_check_of_this_kind_is_shown_here() -> None:
    kinds = {kind for kind in INVARIANTS if kind.__module__ in (safety.__name__,)}
    assert kinds <= SHOWN
