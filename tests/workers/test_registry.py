"""The registry: creating, replacing, finding, and what readers see meanwhile."""

from __future__ import annotations

import random

import pytest

from meshd.errors import (
    BadRequest,
    MeshdError,
    RevisionMismatch,
    TooLarge,
    WorkerAlreadyExists,
    WorkerNotFound,
    WorkerOwnedByPeer,
)
from meshd.workers.health_machine import HealthSettings
from meshd.workers.index import ATTRIBUTES, Index, terms_of
from meshd.workers.record import worker_id
from meshd.workers.registry import Filter
from tests.support.planes import URL, Node, Planes, spec

CHECKED = HealthSettings(drain_settle_s=0, check_interval_s=10)
OTHER = "http://10.0.0.2:8000"


def ids(node: Node, **filter: object) -> list[str]:
    return [worker.url for worker in node.plane.registry.list(Filter(**filter)).workers]  # type: ignore[arg-type]  # tests name real fields


@pytest.mark.req("REG-1")
def test_a_url_with_a_local_worker_is_refused_and_the_refusal_names_the_id() -> None:
    planes = Planes("a")
    worker = planes["a"].register()
    with pytest.raises(WorkerAlreadyExists) as caught:
        planes["a"].register()
    assert caught.value.as_body()["worker_id"] == worker.id
    assert caught.value.http_status == 409
    assert len(planes["a"].plane.registry) == 1


@pytest.mark.req("REG-1", "LIF-9")
def test_a_draining_worker_still_holds_its_url() -> None:
    planes = Planes("a", health=HealthSettings(drain_settle_s=5))
    worker = planes["a"].register()
    planes["a"].plane.remove(worker.id, planes.now)
    with pytest.raises(WorkerAlreadyExists):
        planes["a"].register()
    planes.run(6)
    assert planes["a"].register().id == worker.id


@pytest.mark.req("REG-1", "CRD-9", "CTL-5")
def test_a_refused_write_leaves_nothing_half_made() -> None:
    planes = Planes("a")
    node = planes["a"]
    node.store.refuse_over_bytes = 300
    with pytest.raises(TooLarge):
        node.register(labels={"x": "y" * 500}, models=[{"id": "m"}])
    assert len(node.plane.registry) == 0
    assert node.plane.registry.get(worker_id("a", URL)) is None
    assert node.plane.registry.models() == {}
    assert node.kinds() == []
    worker = node.register()
    with pytest.raises(TooLarge):
        node.plane.patch(worker.id, {"labels": {"x": "y" * 500}}, None, planes.now)
    assert node.worker() is worker


@pytest.mark.req("REG-2")
def test_replacing_moves_a_worker_between_indexes() -> None:
    planes = Planes("a")
    node = planes["a"]
    worker = node.register(models=[{"id": "m1", "aliases": ["x"]}, {"id": "m2"}], runtime_type="vllm")
    node.plane.replace(
        worker.id,
        spec(models=[{"id": "m2"}, {"id": "m3"}], worker_type="decode", connection_mode="grpc"),
        None,
        0,
    )
    assert ids(node, model="m1") == ids(node, model="x") == ids(node, runtime="vllm") == []
    for found in (
        ids(node, model="m2"),
        ids(node, model="m3"),
        ids(node, type="decode"),
        ids(node, mode="grpc"),
        ids(node, runtime="unspecified"),
        ids(node, owner="a", origin="local", status="ready"),
    ):
        assert found == [URL]
    assert dict(node.plane.registry.models()) == {"m2": 1, "m3": 1}


@pytest.mark.req("REG-2")
def test_a_reader_never_misses_a_worker_in_an_index_it_belongs_to_before_and_after() -> None:
    planes = Planes("a")
    worker = planes["a"].register(models=[{"id": "kept"}, {"id": "old"}])
    new = planes["a"].plane.replace(worker.id, spec(models=[{"id": "new"}, {"id": "kept"}]), None, 0)
    seen: list[bool] = []

    class WatchedIndex(Index):
        def _drop(self, term: tuple[str, str], url: str) -> None:
            seen.append(url in self.urls("model", "kept") and url in self.urls("model", "new"))
            super()._drop(term, url)

    index = WatchedIndex()
    index.change(URL, None, worker)
    index.change(URL, worker, new)
    assert seen == [True, True]


@pytest.mark.req("REG-3")
def test_replace_refuses_another_url_an_unknown_id_and_a_stale_revision() -> None:
    planes = Planes("a")
    node = planes["a"]
    worker = node.register()
    with pytest.raises(BadRequest) as other_url:
        node.plane.replace(worker.id, spec(OTHER), None, 0)
    assert other_url.value.field == "url"
    with pytest.raises(WorkerNotFound):
        node.plane.replace(worker_id("a", OTHER), spec(OTHER), None, 0)
    node.plane.replace(worker.id, spec(priority=1), 1, 0)
    with pytest.raises(RevisionMismatch) as stale:
        node.plane.replace(worker.id, spec(priority=2), 1, 0)
    assert stale.value.http_status == 412
    assert node.worker().spec.priority == 1


@pytest.mark.req("REG-3")
def test_a_slow_older_write_neither_restores_an_old_spec_nor_resurrects_a_removed_worker() -> None:
    planes = Planes("a")
    node = planes["a"]
    worker = node.register(priority=1)
    seen = worker.revision
    node.plane.replace(worker.id, spec(priority=2), seen, 0)
    with pytest.raises(RevisionMismatch):
        node.plane.replace(worker.id, spec(priority=3), seen, 0)
    node.plane.remove(worker.id, 0)
    with pytest.raises(WorkerNotFound):
        node.plane.replace(worker.id, spec(priority=3), seen, 0)
    assert node.status() is None


@pytest.mark.req("REG-4", "SYN-3")
def test_registering_an_equal_spec_again_changes_and_publishes_nothing() -> None:
    planes = Planes("a")
    node = planes["a"]
    first = node.plane.register_or_replace(spec(models=[{"id": "m"}], cost=1), 0)
    planes.settle()
    node.kinds()
    writes = len(node.store.writes)
    again = node.plane.register_or_replace(spec(cost=1.0, models=[{"id": "m"}]), 0)
    assert again is first
    assert node.kinds() == []
    assert len(node.store.writes) == writes


@pytest.mark.req("REG-4")
def test_registering_another_spec_replaces_and_the_id_is_in_the_registry() -> None:
    planes = Planes("a")
    node = planes["a"]
    first = node.plane.register_or_replace(spec(), 0)
    second = node.plane.register_or_replace(spec(priority=3), 0)
    assert second.id == first.id
    assert node.plane.registry.get(second.id) is second
    assert second.revision == first.revision + 1


@pytest.mark.req("REG-4", "REG-5", "LIF-3")
@pytest.mark.parametrize("how", ["register_or_replace", "replace", "patch"])
def test_a_failed_worker_starts_over_when_it_is_replaced_even_by_an_equal_spec(how: str) -> None:
    planes = Planes("a", health=HealthSettings(failure_threshold=1, check_interval_s=1, fast_window_s=0))
    node = planes["a"]
    planes.answers = lambda node, url: "refused"
    worker = node.register()
    planes.run(30)
    assert node.status() == "failed"
    failed = node.worker().revision
    if how == "register_or_replace":
        node.plane.register_or_replace(spec(), planes.now)
    elif how == "replace":
        node.plane.replace(worker.id, spec(), None, planes.now)
    else:
        node.plane.patch(worker.id, {}, None, planes.now)
    assert node.status() == "pending"
    assert node.worker().revision == failed + 1


@pytest.mark.req("REG-5")
def test_a_replacement_keeps_status_and_counters() -> None:
    planes = Planes("a", health=CHECKED)
    node = planes["a"]
    worker = node.register()
    planes.run(2)
    before = node.worker()
    assert before.status == "ready"
    assert before.checks_passed >= 2
    after = node.plane.replace(worker.id, spec(priority=1), None, planes.now)
    assert (after.status, after.checks_passed, after.since) == ("ready", before.checks_passed, before.since)


@pytest.mark.req("REG-5", "LIF-1")
def test_switching_checks_off_makes_a_pending_worker_ready_and_draining_stays() -> None:
    planes = Planes("a", health=CHECKED)
    node = planes["a"]
    off = spec(health={"disable_health_check": True})
    assert node.register().status == "pending"
    assert node.plane.register_or_replace(off, planes.now).status == "ready"
    node.plane.drain(node.worker().id, planes.now)
    assert node.plane.register_or_replace(spec(priority=2), planes.now).status == "draining"


@pytest.mark.req("REG-6")
def test_a_check_that_started_under_an_older_revision_is_dropped() -> None:
    planes = Planes("a", health=CHECKED)
    node = planes["a"]
    worker = node.register()
    (request,) = node.plane.due_checks(planes.now, 10)
    node.plane.replace(worker.id, spec(priority=1), None, planes.now)
    before = node.worker()
    node.plane.check_done(request.failed("too late"), planes.now)
    assert node.worker() is before
    node.plane.remove(worker.id, planes.now)
    node.plane.check_done(request.failed("too late"), planes.now)
    assert node.status() is None


@pytest.mark.req("REG-9")
def test_the_last_worker_of_a_model_takes_the_model_out_of_every_listing() -> None:
    planes = Planes("a", "b")
    first = planes["a"].register(models=[{"id": "m", "aliases": ["alias"]}])
    second = planes["a"].register(OTHER, models=[{"id": "m"}])
    planes.settle()
    for worker in (first, second):
        assert "m" in planes["b"].plane.registry.models()
        planes["a"].plane.remove(worker.id, planes.now)
        planes.settle()
    for name in "ab":
        registry = planes[name].plane.registry
        assert registry.models() == {}
        assert registry.list(Filter(model="m")) == registry.list(Filter(model="alias")) == ([], 0)


@pytest.mark.req("SYN-1")
def test_an_import_can_be_changed_only_by_its_owner() -> None:
    planes = Planes("a", "b")
    worker = planes["a"].register()
    planes.settle()
    plane = planes["b"].plane
    for refused in (
        lambda: plane.replace(worker.id, spec(priority=1), None, 0),
        lambda: plane.patch(worker.id, {"priority": 1}, None, 0),
        lambda: plane.remove(worker.id, 0),
        lambda: plane.drain(worker.id, 0),
        lambda: plane.undrain(worker.id, 0),
    ):
        with pytest.raises(WorkerOwnedByPeer) as caught:
            refused()
        assert caught.value.as_body()["owner"] == "a"


def test_lists_are_filtered_by_all_terms_and_labels_and_paged_by_id() -> None:
    planes = Planes("a")
    node = planes["a"]
    for number in range(10):
        node.register(
            f"http://10.0.0.{number + 1}:8000",
            models=[{"id": f"m{number % 2}"}],
            worker_type="prefill" if number < 4 else "regular",
            labels={"zone": "eu" if number % 3 else "us", "n": str(number)},
        )
    registry = node.plane.registry
    assert registry.list(Filter(model="m1", type="prefill", labels=(("zone", "eu"),))).total == 1
    assert registry.list(Filter(labels=(("n", "7"),))).workers[0].spec.labels["n"] == "7"
    assert registry.list(Filter(model="nobody")) == ([], 0)
    assert registry.stats() == (4, 0, 6)
    for filter in (Filter(), Filter(type="regular")):
        pages, after = [], None
        while page := registry.list(filter._replace(limit=3, after=after)).workers:
            pages += page
            after = page[-1].id
        assert pages == registry.list(filter).workers
        assert [worker.id for worker in pages] == sorted(worker.id for worker in pages)


@pytest.mark.req("REG-2", "REG-9")
@pytest.mark.parametrize("seed", range(20))
def test_indexes_agree_with_the_workers_after_any_sequence_of_commands(seed: int) -> None:
    rng = random.Random(seed)
    planes = Planes("a", "b")
    urls = [f"http://10.0.0.{n}:8000" for n in range(1, 5)]
    for _ in range(80):
        node = planes[rng.choice("ab")]
        url = rng.choice(urls)
        body = {"models": [{"id": rng.choice("xyz"), "aliases": [rng.choice("xyz")]}],
                "runtime_type": rng.choice(["vllm", "sglang"]),
                "worker_type": rng.choice(["prefill", "regular"])}  # fmt: skip
        try:
            match rng.randrange(5):
                case 0:
                    node.register(url, **body)
                case 1:
                    node.plane.register_or_replace(spec(url, **body), planes.now)
                case 2:
                    node.plane.remove(worker_id(node.name, url), planes.now)
                case 3:
                    node.plane.drain(worker_id(node.name, url), planes.now)
                case _:
                    planes.settle()
        except MeshdError:
            pass  # refused commands are part of the sequence
        for name in "ab":
            registry = planes[name].plane.registry
            expected: dict[tuple[str, str], set[str]] = {}
            for worker in registry:
                for term in terms_of(worker):
                    expected.setdefault(term, set()).add(worker.url)
            found = {
                (attribute, value): set(registry._index.urls(attribute, value))
                for attribute in ATTRIBUTES
                for value in registry._index.values(attribute)
            }
            assert found == expected
            claims = {claim.id for worker in registry for claim in worker.claims}
            claims |= {worker.id for worker in registry}
            assert set(registry.claim_ids()) == claims


def test_swapping_out_what_is_not_served_is_refused_and_changes_nothing() -> None:
    planes = Planes("a")
    old = planes["a"].register()
    new = planes["a"].plane.replace(old.id, spec(priority=1), None, 0)
    registry = planes["a"].plane.registry
    for pair in ((old, None), (None, old), (None, None)):
        with pytest.raises(ValueError, match="not the one"):
            registry.swap(*pair)
    assert registry.by_url(URL) is new
