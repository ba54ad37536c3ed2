"""Several nodes with one URL: who serves it, claiming, and handing over."""

from __future__ import annotations

import itertools

import pytest

from meshd.workers.claims import choose, claim_status
from meshd.workers.health_machine import WORST_FIRST, HealthSettings, HealthState
from meshd.workers.record import WorkerRecord, encode_record, worker_id
from meshd.workers.worker import Claim
from tests.support.planes import URL, Node, Planes, spec

CHECKED = HealthSettings(drain_settle_s=0, check_interval_s=10)


def claim(owner: str, word: str = "ready") -> Claim:
    record = WorkerRecord(spec(), word, owner, 1)
    return Claim(worker_id(owner, URL), owner, record, encode_record(record))


def told(node: Node) -> list[tuple[str, str | None]]:
    return [(event.kind, event.previous) for event in node.events()]


# --- the choice ---------------------------------------------------------------------------------------


@pytest.mark.req("SYN-9")
@pytest.mark.parametrize(
    ("words", "serving", "chosen"),
    [
        ({"b": "ready"}, None, "b"),
        ({"c": "ready", "b": "ready"}, None, "b"),
        ({"c": "ready", "b": "ready"}, "c", "c"),
        ({"c": "not_ready", "b": "ready"}, "c", "b"),
        ({"d": "ready", "c": "not_ready", "b": "ready"}, "c", "b"),
        ({"d": "ready", "c": "failed", "b": "draining"}, "c", "d"),
        ({"c": "not_ready", "b": "not_ready"}, "c", "c"),
        ({"c": "not_ready", "b": "pending"}, None, "b"),
        ({"d": "failed", "c": "failed"}, "b", "c"),
    ],
)
def test_the_serving_claim_stays_while_healthy_else_a_healthy_one_lowest_name_first(
    words: dict[str, str], serving: str | None, chosen: str
) -> None:
    for order in itertools.permutations(words):
        claims = [claim(owner, words[owner]) for owner in order]
        id = None if serving is None else worker_id(serving, URL)
        assert choose(claims, id, lambda c: claim_status(c, None, False)).owner == chosen


@pytest.mark.req("SYN-5", "SYN-6")
def test_an_import_is_as_well_as_the_worse_of_its_two_verdicts() -> None:
    for word, own in itertools.product(WORST_FIRST, repeat=2):
        if own == "draining":
            continue
        status = claim_status(claim("a", word), HealthState(own, 0), False)
        assert status == min(word, own, key=WORST_FIRST.index)
        assert claim_status(claim("a", word), None, False) == word
        assert claim_status(claim("a", word), None, True) == word
        if word != "draining":
            assert claim_status(claim("a", word), HealthState(own, 0), True) == own


@pytest.mark.req("LIF-3")
def test_a_drain_is_not_lifted_by_checks_also_when_its_owner_has_gone() -> None:
    assert claim_status(claim("a", "draining"), HealthState("ready", 0), True) == "draining"


# --- claiming -------------------------------------------------------------------------------------------


@pytest.mark.req("SYN-8", "REG-1")
def test_registering_an_imported_url_claims_it_in_one_step() -> None:
    planes = Planes("a", "b")
    theirs = planes["a"].register()
    planes.settle()
    told(planes["b"])
    ours = planes["b"].register()
    registry = planes["b"].plane.registry
    assert (ours.origin, ours.owner, ours.id) == ("local", "b", worker_id("b", URL))
    assert len(registry) == 1
    assert registry.get(theirs.id) is registry.get(ours.id) is ours
    assert [known.owner for known in ours.claims] == ["a"]
    assert told(planes["b"]) == [("origin_changed", "mesh"), ("replaced", theirs.id)]
    assert planes["b"].store.own(ours.key) is not None
    planes.settle()
    assert planes["a"].worker().is_local
    assert [known.owner for known in planes["a"].worker().claims] == ["b"]


@pytest.mark.req("SYN-8")
def test_a_claim_shows_origin_local_in_its_first_event() -> None:
    planes = Planes("a", "b")
    planes["a"].register()
    planes.settle()
    planes["b"].events()
    planes["b"].register()
    assert all(event.worker is not None and event.worker.is_local for event in planes["b"].events())


@pytest.mark.req("SYN-8", "REG-5")
def test_a_claim_keeps_status_and_counters() -> None:
    planes = Planes("a", "b", health=CHECKED)
    planes["a"].register()
    planes.run(5)
    before = planes["b"].worker()
    assert before.status == "ready"
    ours = planes["b"].register()
    assert (ours.status, ours.since, ours.checks_passed) == ("ready", before.since, before.checks_passed)
    assert ours.revision > before.revision


@pytest.mark.req("SYN-8", "REG-5")
def test_claiming_a_failed_import_starts_over() -> None:
    planes = Planes("a", "b", health=HealthSettings(failure_threshold=1, check_interval_s=1, fast_window_s=0))
    planes.answers = lambda node, url: "refused"
    planes["a"].register()
    planes.run(30)
    assert planes["b"].status() == "failed"
    assert planes["b"].register().status == "pending"


@pytest.mark.req("SYN-8", "LIF-9")
def test_a_claim_does_not_inherit_the_drain_of_a_removal_but_of_a_plain_drain() -> None:
    for removes, status in ((True, "ready"), (False, "draining")):
        planes = Planes("a", "b", health=HealthSettings(disabled=True, drain_settle_s=5))
        worker = planes["a"].register()
        planes.settle()
        if removes:
            planes["a"].plane.remove(worker.id, planes.now)
        else:
            planes["a"].plane.drain(worker.id, planes.now)
        planes.settle()
        assert planes["b"].register().status == status
        planes.run(6)
        assert planes["b"].status() == status
        assert planes["a"].status() == ("ready" if removes else "draining")


@pytest.mark.req("SYN-8", "SYN-7")
def test_a_claim_racing_a_removal_leaves_no_orphan() -> None:
    planes = Planes("a", "b", "c")
    theirs = planes["a"].register()
    planes.settle()
    planes["a"].plane.remove(theirs.id, planes.now)
    ours = planes["b"].register()
    planes.settle()
    for name in "abc":
        registry = planes[name].plane.registry
        assert registry.claim_ids() == [ours.id]
        assert registry.get(theirs.id) is None
        assert planes[name].worker().owner == "b"
    assert planes["c"].worker().origin == "mesh"


# --- several claims -------------------------------------------------------------------------------------


@pytest.mark.req("SYN-9")
def test_when_the_serving_claim_goes_the_next_takes_over_without_a_gap() -> None:
    planes = Planes("a", "b", "c")
    planes["a"].register()
    planes["b"].register()
    planes.settle()
    assert planes["c"].worker().owner == "a"
    told(planes["c"])
    planes["a"].plane.remove(worker_id("a", URL), planes.now)
    planes.settle()
    assert planes["c"].worker().owner == "b"
    assert planes["a"].worker().owner == "b"
    assert told(planes["c"]) == [("replaced", worker_id("a", URL))]
    kinds = [kind for kind, _ in told(planes["a"])]
    assert "removed" not in kinds
    assert kinds[-2:] == ["origin_changed", "replaced"]


@pytest.mark.req("SYN-9")
def test_a_healthy_claim_takes_over_from_one_whose_owner_says_not_ready() -> None:
    planes = Planes("a", "b", "c")
    planes["a"].register()
    planes["b"].register()
    planes.settle()
    planes["a"].plane.drain(worker_id("a", URL), planes.now)
    planes.settle()
    assert (planes["c"].worker().owner, planes["c"].status()) == ("b", "ready")
    planes["a"].plane.undrain(worker_id("a", URL), planes.now)
    planes.settle()
    assert planes["c"].worker().owner == "b"


@pytest.mark.req("SYN-9")
def test_a_claim_never_tombstones_anothers() -> None:
    planes = Planes("a", "b", "c")
    for name in "abc":
        planes[name].register()
    planes.settle()
    planes["b"].plane.remove(worker_id("b", URL), planes.now)
    planes.settle()
    assert planes["a"].store.writes == [(f"worker:{worker_id('a', URL)}", planes["a"].worker().value)]
    assert [key for key, value in planes["b"].store.writes if value is None] == [
        f"worker:{worker_id('b', URL)}"
    ]
    assert planes["a"].worker().is_local
    assert planes["c"].worker().is_local
    assert planes["b"].worker().owner == "a"


@pytest.mark.req("SYN-9", "SYN-4")
def test_one_url_on_three_nodes_ends_with_the_same_claims_whatever_order_they_arrive_in() -> None:
    for order in itertools.permutations("abc"):
        planes = Planes("a", "b", "c", "d")
        for name in order:
            planes[name].register()
            planes["d"].store.receive(name, planes[name].store.logs[name])
            planes["d"].catch_up()
        planes.settle()
        worker = planes["d"].worker()
        assert worker.owner == order[0]
        assert {known.owner for known in worker.claims} == {"a", "b", "c"}
        assert len(planes["d"].plane.registry) == 1


@pytest.mark.req("SYN-9")
def test_any_claims_id_finds_the_worker_until_that_claim_is_gone() -> None:
    planes = Planes("a", "b", "c")
    planes["a"].register()
    planes["b"].register()
    planes.settle()
    registry = planes["c"].plane.registry
    assert registry.get(worker_id("a", URL)) is registry.get(worker_id("b", URL)) is planes["c"].worker()
    planes["b"].plane.remove(worker_id("b", URL), planes.now)
    planes.settle()
    assert registry.get(worker_id("b", URL)) is None
    assert registry.claims_of("b") == []


@pytest.mark.req("SYN-9", "REG-6")
def test_a_check_of_the_former_claim_does_not_count_for_the_one_that_took_over() -> None:
    planes = Planes("a", "b", "c", health=CHECKED)
    planes["a"].register()
    planes["b"].register()
    planes.run(5)
    serving = planes["c"].worker().owner
    planes.now += 30
    (request,) = planes["c"].plane.due_checks(planes.now, 10)
    planes[serving].plane.remove(worker_id(serving, URL), planes.now)
    planes.settle()
    before = planes["c"].worker()
    assert before.owner != serving
    planes["c"].plane.check_done(request.failed("late"), planes.now)
    assert planes["c"].worker() is before


@pytest.mark.req("SYN-9", "REG-6")
def test_a_takeover_is_a_replacement_so_the_revision_grows_whatever_the_claims_say() -> None:
    planes = Planes("a", "b", "c", health=CHECKED)
    planes["a"].register()
    for priority in (1, 2, 3):
        planes["a"].plane.patch(worker_id("a", URL), {"priority": priority}, None, planes.now)
    planes["b"].register()
    planes.run(3)
    assert planes["c"].worker().revision == 4
    planes["a"].plane.remove(worker_id("a", URL), planes.now)
    planes.settle()
    assert planes["c"].worker().owner == "b"
    assert planes["c"].worker().revision == 5


@pytest.mark.req("SYN-9", "LIF-10")
def test_only_the_claim_that_serves_is_checked() -> None:
    planes = Planes("a", "b", "c", health=CHECKED)
    planes["a"].register()
    planes["b"].register()
    planes.run(3)
    planes["a"].plane.remove(worker_id("a", URL), planes.now)
    asked: list[str] = []
    planes.watch = lambda node, target: asked.append(node)
    planes.run(30)
    assert asked.count("c") <= 4
    planes["b"].plane.remove(worker_id("b", URL), planes.now)
    planes.settle()
    asked.clear()
    planes.run(30)
    assert asked == []
    assert [planes[name].plane.next_deadline() for name in "abc"] == [None, None, None]


@pytest.mark.req("SYN-9", "LIF-3")
def test_a_local_drain_ends_with_the_local_claim() -> None:
    planes = Planes("a", "b", health=HealthSettings(drain_settle_s=5, check_interval_s=10))
    planes["a"].register()
    planes["b"].register()
    planes.run(3)
    planes["b"].plane.remove(worker_id("b", URL), planes.now)
    planes.run(4)
    assert planes["b"].status() == "draining"
    planes.run(3)
    assert (planes["b"].worker().owner, planes["b"].status()) == ("a", "ready")
