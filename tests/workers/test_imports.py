"""Imports between two verdicts: the owner's word and this node's own checks (SYN-5, LIF-10)."""

from __future__ import annotations

import pytest

from meshd.workers.health_machine import HealthSettings
from tests.support.planes import URL, Planes

CHECKED = HealthSettings(drain_settle_s=0, check_interval_s=10)


def counting(planes: Planes) -> list[str]:
    """Have health checks recorded by the node that makes them."""
    asked: list[str] = []

    def answer(node: str, url: str) -> str | None:
        asked.append(node)
        return None

    planes.answers = answer
    return asked


@pytest.mark.req("SYN-5")
def test_an_import_is_routable_after_one_pass_of_its_own_check_made_at_once() -> None:
    planes = Planes("a", "b", health=CHECKED)
    planes["a"].register()
    planes.run(2)
    assert planes["b"].status() == "ready"
    late = planes.nodes["c"] = planes.add("c", health=CHECKED)
    planes.settle()
    assert late.status() == "pending"
    planes.run(0.01)
    assert late.status() == "ready"
    assert late.worker().checks_passed == 1


@pytest.mark.req("SYN-5", "LIF-10")
def test_a_worker_that_its_owner_reaches_and_this_node_does_not_is_not_routable_here() -> None:
    planes = Planes("a", "b", health=CHECKED)
    planes.answers = lambda node, url: "no route" if node == "b" else None
    planes["a"].register()
    planes.run(20)
    assert planes["a"].status() == "ready"
    assert planes["b"].status() == "pending"
    assert planes["b"].worker().health.last_error == "no route"


@pytest.mark.req("SYN-5", "SYN-6")
def test_an_import_whose_owner_says_unhealthy_is_not_routable_also_with_checks_off() -> None:
    for health in (CHECKED, HealthSettings(disabled=True)):
        planes = Planes("a", health=CHECKED)
        planes.nodes["b"] = planes.add("b", health=health)
        planes.answers = lambda node, url: "refused" if node == "a" else None
        planes["a"].register()
        planes.run(20)
        assert planes["a"].status() == planes["b"].status() == "pending"
        planes.answers = lambda node, url: None
        planes.run(20)
        assert planes["b"].status() == "ready"


@pytest.mark.req("SYN-5", "SYN-10")
def test_a_stale_healthy_word_replayed_by_reconcile_never_flaps_a_dead_worker_back() -> None:
    planes = Planes("a", "b", health=HealthSettings(check_interval_s=1))
    planes["a"].register()
    planes.run(5)
    assert planes["b"].status() == "ready"
    planes.set_state("a", "down")
    planes.mesh.cut("a", "b")
    planes.answers = lambda node, url: "refused"
    planes.run(10)
    planes["b"].events()
    for _ in range(5):
        planes["b"].plane.mark_all(planes.now)
        planes["b"].plane.keys_changed([planes["b"].worker().key], planes.now)
        planes.run(3)
    assert [event.worker.status for event in planes["b"].events() if event.worker] == ["failed"]


@pytest.mark.req("SYN-5")
def test_replaying_the_same_word_changes_nothing() -> None:
    planes = Planes("a", "b", health=CHECKED)
    planes["a"].register()
    planes.run(5)
    before = planes["b"].worker()
    for _ in range(3):
        planes["b"].plane.keys_changed([before.key], planes.now)
        planes.settle()
    assert planes["b"].worker() is before


@pytest.mark.req("SYN-5", "SYN-13")
@pytest.mark.parametrize("state", ["down", "left", "unknown"])
def test_while_the_owner_is_down_own_checks_alone_count(state: str) -> None:
    planes = Planes("a", "b", health=CHECKED)
    planes.answers = lambda node, url: "refused" if node == "a" else None
    planes["a"].register()
    planes.run(20)
    assert planes["b"].status() == "pending"
    planes.mesh.cut("a", "b")
    planes.set_state("a", state)
    planes.run(1)
    assert planes["b"].status() == "ready"
    planes.mesh.heal()
    planes.set_state("a", "alive")
    assert planes["b"].status() == "pending"


@pytest.mark.req("SYN-5", "SYN-13")
def test_while_the_owner_is_down_and_nobody_checks_here_its_last_word_counts() -> None:
    planes = Planes("a", "b")
    planes["a"].register()
    planes.settle()
    planes.set_state("a", "down")
    planes.run(3600)
    assert planes["b"].status() == "ready"


@pytest.mark.req("SYN-5")
def test_a_suspect_owner_still_speaks_for_its_workers() -> None:
    planes = Planes("a", "b", health=CHECKED)
    planes.answers = lambda node, url: "refused" if node == "a" else None
    planes["a"].register()
    planes.run(20)
    planes.set_state("a", "suspect")
    planes.run(20)
    assert planes["b"].status() == "pending"


@pytest.mark.req("LIF-10")
def test_check_imports_never_asks_no_import_and_takes_the_owners_word() -> None:
    planes = Planes("a", "b", health=CHECKED, check_imports="never")
    asked = counting(planes)
    planes["a"].register()
    planes.run(30)
    assert set(asked) == {"a"}
    assert planes["b"].status() == "ready"


@pytest.mark.req("LIF-10", "SYN-5")
def test_check_imports_owner_down_begins_when_the_owner_goes_and_ends_when_it_returns() -> None:
    planes = Planes("a", "b", health=CHECKED, check_imports="owner_down")
    asked = counting(planes)
    planes["a"].register()
    planes.run(30)
    assert set(asked) == {"a"}
    planes["b"].events()
    planes.set_state("a", "down")
    assert planes["b"].status() == "ready"  # nobody has asked it yet, and it was well
    planes.run(1)
    assert "b" in asked
    planes.set_state("a", "alive")
    asked.clear()
    planes.run(60)
    assert set(asked) == {"a"}
    assert planes["b"].events() == []


@pytest.mark.req("LIF-10", "SYN-5")
def test_a_worker_that_died_with_its_owner_is_noticed_where_checks_begin_then() -> None:
    planes = Planes("a", "b", health=CHECKED, check_imports="owner_down")
    planes["a"].register()
    planes.run(5)
    planes.answers = lambda node, url: "refused"
    planes.mesh.cut("a", "b")
    planes.set_state("a", "down")
    planes.run(40)
    assert planes["b"].status() == "not_ready"


@pytest.mark.req("SYN-12", "SYN-5")
def test_an_import_of_a_protected_backend_without_a_usable_key_relies_on_its_owner() -> None:
    planes = Planes("a", "b", health=CHECKED)
    asked = counting(planes)
    planes["a"].register(api_key="sk-1")
    planes.run(30)
    assert set(asked) == {"a"}
    assert planes["b"].status() == "ready"


@pytest.mark.req("LIF-3", "LIF-5")
def test_a_failed_import_stays_listed_and_comes_back_by_itself() -> None:
    planes = Planes("a", "b", health=HealthSettings(check_interval_s=1), remove_failed_workers=True)
    planes["a"].register()
    planes.run(5)
    planes.answers = lambda node, url: "cut" if node == "b" else None
    planes.run(120)
    for _ in range(5):
        planes["b"].plane.mark_all(planes.now)
        planes.settle()
    assert planes["b"].status() == "failed"
    planes.answers = lambda node, url: None
    planes.run(70)
    assert planes["b"].status() == "ready"


@pytest.mark.req("LIF-5")
def test_a_failed_local_worker_is_removed_and_tombstoned_where_that_is_asked_for() -> None:
    planes = Planes("a", "b", health=HealthSettings(check_interval_s=1), remove_failed_workers=True)
    planes["a"].register()
    planes.run(5)
    planes.answers = lambda node, url: "refused"
    planes.run(60)
    assert planes["a"].status() is None
    assert planes["b"].status() is None
    assert planes["a"].kinds()[-2:] == ["status_changed", "removed"]


@pytest.mark.req("REG-5", "SYN-5")
def test_a_replacement_by_its_owner_lets_a_failed_import_start_over() -> None:
    planes = Planes("a", "b", health=HealthSettings(check_interval_s=1))
    worker = planes["a"].register()
    planes.run(5)
    planes.answers = lambda node, url: "cut" if node == "b" else None
    planes.run(60)
    assert planes["b"].status() == "failed"
    planes.answers = lambda node, url: None
    planes["a"].plane.patch(worker.id, {"priority": 1}, None, planes.now)
    planes.run(1)
    assert planes["b"].status() == "ready"


@pytest.mark.req("LIF-1", "LIF-10")
def test_a_workers_own_setting_beats_the_nodes() -> None:
    planes = Planes("a", "b")  # checks are off on both nodes
    asked = counting(planes)
    planes["a"].register(health={"disable_health_check": False})
    assert planes["a"].status() == "pending"
    planes.run(2)
    assert set(asked) == {"a", "b"}
    assert planes["a"].status() == planes["b"].status() == "ready"


@pytest.mark.req("LIF-1")
def test_reconfiguring_brings_checks_in_line_with_the_new_settings() -> None:
    planes = Planes("a", "b", health=CHECKED)
    planes.answers = lambda node, url: "refused" if node == "b" else None
    planes["a"].register()
    planes.run(5)
    assert planes["b"].status() == "pending"
    settings = type(planes["b"].settings)(health=CHECKED, check_imports="never")
    planes["b"].plane.reconfigure(settings, planes.now)
    planes.settle()
    assert planes["b"].status() == "ready"


@pytest.mark.req("CTL-3")
def test_why_tells_owner_checks_and_claims() -> None:
    planes = Planes("a", "b", health=CHECKED)
    planes.answers = lambda node, url: "no route" if node == "b" else None
    worker = planes["a"].register()
    planes.run(5)
    why = planes["b"].plane.explain_url("HTTP://10.0.0.1:8000/", planes.now)
    assert why["routable"] is False
    assert (why["owner"], why["owner_word"], why["own_status"]) == ("a", "ready", "pending")
    assert "no route" in " ".join(why["reasons"])  # type: ignore[arg-type]  # a list of sentences
    assert why["claims"] == [{"owner": "a", "id": worker.id, "healthy": False}]
    nobody = planes["b"].plane.explain_url("http://10.9.9.9", planes.now)
    assert (nobody["known"], nobody["routable"]) == (False, False)
    planes["a"].plane.remove(worker.id, planes.now)
    assert planes["a"].plane.explain_url(URL, planes.now)["reasons"] == ["it was removed on this node"]


@pytest.mark.req("REG-6", "LIF-7")
def test_a_replacement_is_checked_as_its_new_spec_says() -> None:
    planes = Planes("a", "b", health=CHECKED)
    worker = planes["a"].register()
    planes.run(5)
    paths: list[tuple[str, str]] = []
    planes.watch = lambda node, target: paths.append((node, target.health_path))
    planes["a"].plane.patch(worker.id, {"health": {"health_path": "/healthz"}}, None, planes.now)
    planes.run(30)
    assert set(paths) == {("a", "/healthz"), ("b", "/healthz")}


@pytest.mark.req("SYN-5", "REG-7")
def test_news_of_status_alone_replaces_nothing_and_keeps_one_spec_in_memory() -> None:
    planes = Planes("a", "b")
    worker = planes["a"].register(models=[{"id": "m"}])
    planes.settle()
    before = planes["b"].worker()
    planes["b"].events()
    planes["a"].plane.drain(worker.id, planes.now)
    planes.settle()
    after = planes["b"].worker()
    assert planes["b"].kinds() == ["status_changed"]
    assert after.spec is before.spec
    assert after.serving is not None
    assert after.serving.spec is before.spec
