"""SYN: who owns which worker, and what the others make of it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from tests.support.backends import Backend
from tests.support.conformance import (
    UNCHECKED,
    Fleet,
    Node,
    holds_for,
    kinds_of,
    opened,
    spec_of,
    transitions,
)
from tests.support.processes import Watch, eventually, stopped

URL = "http://127.0.0.1:9"

DECODE: dict[str, Any] = {
    "models": [{"id": "llama", "aliases": ["l3"], "context_length": 8192}],
    "worker_type": "decode",
    "connection_mode": "grpc",
    "runtime_type": "sglang",
    "provider": "own",
    "labels": {"zone": "x", "max_running_requests": "12"},
    "priority": 70,
    "cost": 2.5,
    "bootstrap_port": 9001,
    "dp_rank": 1,
    "dp_size": 2,
    "kv_connector": "nixl",
    "kv_role": "consumer",
    "kv_engine_id": "engine-7",
    "kv_block_size": 64,
    "max_connection_attempts": 3,
    "health": {"disable_health_check": True, "check_interval_secs": 2.5, "health_path": "/ping"},
    "of_a_later_version": {"nested": [1, 2.5, None, {"deep": "\u00fc"}], "big": 2**40},
}


@pytest.mark.req("SYN-1", "SYN-2", "SYN-3")
def test_a_worker_is_local_where_it_was_registered_and_an_import_elsewhere_under_one_id(fleet: Fleet) -> None:
    a, b, c = fleet
    with b.events() as stream:
        opened(stream)
        id = a.register(URL, health=UNCHECKED)
        fleet.settle(URL, "ready")
        first = eventually(lambda: stream.of("registered"), "b tells of it")[0].data["worker"]
    assert (first["origin"], first["owner"], first["id"]) == ("mesh", a.name, id)
    assert [node.worker(URL)["origin"] for node in (a, b, c)] == ["local", "mesh", "mesh"]
    for node in fleet:
        worker = node.worker(URL)
        assert (worker["id"], worker["owner"]) == (id, a.name)
        assert [entry["owner"] for entry in node.entries(id)] == [a.name]
    a.remove(id)
    fleet.settle(URL, None)
    assert a.register(URL, health=UNCHECKED) == id


@pytest.mark.req("SYN-3")
def test_what_changes_is_published_and_what_does_not_is_not(fleet: Fleet, backend: Backend) -> None:
    a, b, _ = fleet
    id = a.register(backend.url, health={"check_interval_secs": 0.1})
    fleet.settle(backend.url, "ready")

    def seq(node: Node) -> int:
        (entry,) = node.entries(id)
        return int(entry["seq"])

    before = seq(a)
    a.call("PATCH", f"/workers/{id}", {"priority": 50}).expect(202)
    fleet.let_reconcile()
    assert seq(a) == before
    a.call("PATCH", f"/workers/{id}", {"priority": 51}).expect(202)
    eventually(lambda: b.worker(backend.url)["priority"] == 51, "b has the new spec")
    assert seq(a) == before + 1
    a.call("POST", f"/workers/{id}/drain").expect(202)
    eventually(lambda: b.status(backend.url) == "draining", "b has the new status")
    assert seq(a) == before + 2
    a.remove(id)
    eventually(lambda: all(entry["tombstone"] for entry in b.entries(id)), "b has the tombstone")


@pytest.mark.req("SYN-3", "SYN-10")
def test_an_import_is_never_published_again(fleet: Fleet) -> None:
    a, b, c = fleet
    before = {node.name: node.get("/mesh/vector")[node.name]["max"] for node in (b, c)}
    id = a.register(URL, health=UNCHECKED)
    fleet.settle(URL, "ready")
    repairs = [node.metrics()["meshd_reconcile_repairs_total"] for node in fleet]
    fleet.let_reconcile(3)
    a.call("PATCH", f"/workers/{id}", {"priority": 1}).expect(202)
    eventually(lambda: c.worker(URL)["priority"] == 1, "c has the new spec")
    a.remove(id)
    fleet.settle(URL, None)
    fleet.let_reconcile()
    for node in (b, c):
        assert node.get("/mesh/vector")[node.name]["max"] == before[node.name]
        assert {entry["owner"] for entry in node.entries(id)} <= {a.name}
    assert [node.metrics()["meshd_reconcile_repairs_total"] for node in fleet] == repairs


@pytest.mark.req("SYN-4")
def test_a_put_overtaken_by_a_delete_ends_absent(fleet: Fleet) -> None:
    a, b, c = fleet
    for number in range(20):
        a.remove(a.register(f"{URL}/{number}", health=UNCHECKED))
    kept = a.register(f"{URL}/kept", health=UNCHECKED)
    fleet.each(lambda node: node.worker(f"{URL}/kept"), "the last one is there")
    fleet.let_reconcile()
    for node in (b, c):
        assert [worker["id"] for worker in node.workers().values()] == [kept]


@pytest.mark.req("SYN-4")
def test_puts_and_deletes_made_while_a_node_stood_still_end_as_their_owner_says(fleet: Fleet) -> None:
    a, _, c = fleet
    try:
        process = c.daemon
    except RuntimeError:
        pytest.skip("c was not started here")
    before = a.register(f"{URL}/before", health=UNCHECKED)
    fleet.settle(f"{URL}/before", "ready")
    with stopped(process):
        a.remove(before)
        a.remove(a.register(f"{URL}/between", health=UNCHECKED))
        after = a.register(f"{URL}/after", health=UNCHECKED)
        again = a.register(f"{URL}/before", health=UNCHECKED)
        assert again == before
        a.remove(again)
    eventually(lambda: [w["id"] for w in c.workers().values()] == [after], "c has what a has")


@pytest.mark.req("SYN-5", "SYN-10")
def test_a_stale_healthy_key_replayed_by_reconcile_never_revives_a_dead_backend(
    special: Fleet, backend: Backend
) -> None:
    quiet, strict, _ = special
    quiet.register(backend.url)  # its owner does not check it, and says `ready` for ever
    eventually(lambda: strict.status(backend.url) == "ready", "the import is ready")
    with strict.events() as stream:
        opened(stream)
        backend.stop()
        eventually(lambda: strict.status(backend.url) == "failed", "the import has failed")
        special.let_reconcile(5)
        quiet.call("PATCH", f"/workers/{quiet.worker(backend.url)['id']}", {"priority": 50}).expect(202)
        special.let_reconcile(1)
        assert strict.status(backend.url) == "failed"
        assert quiet.status(backend.url) == "ready"
    assert transitions(stream, backend.url) == [("ready", "not_ready"), ("not_ready", "failed")]


@pytest.mark.req("SYN-5")
def test_an_import_is_not_routable_before_its_own_first_pass(special: Fleet, backend: Backend) -> None:
    quiet, strict, _ = special
    backend.health = 503
    quiet.register(backend.url)
    assert quiet.status(backend.url) == "ready"
    with strict.events() as stream:
        opened(stream)
        eventually(lambda: strict.status(backend.url) == "pending", "the import waits for a pass")
        holds_for(lambda: strict.status(backend.url) == "pending", 0.5, "it waits")
        backend.health = 200
        eventually(lambda: strict.status(backend.url) == "ready", "it is ready after a pass")
    assert transitions(stream, backend.url) in ([], [("pending", "ready")])


@pytest.mark.req("SYN-6", "SYN-5")
def test_an_import_whose_owner_says_unhealthy_is_not_routable_also_with_checks_off(
    special: Fleet, backend: Backend
) -> None:
    quiet, strict, _ = special
    backend.health = 503
    id = strict.register(backend.url, health={"check_interval_secs": 30})
    eventually(lambda: quiet.worker(backend.url), "the import is listed")
    assert quiet.why(backend.url)["checked_here"] is False
    holds_for(lambda: quiet.status(backend.url) == "pending", 0.5, "its owner's word counts")
    backend.health = 200
    eventually(lambda: quiet.status(backend.url) == "ready", "its owner says ready")
    strict.call("POST", f"/workers/{id}/drain").expect(202)
    eventually(lambda: quiet.status(backend.url) == "draining", "its owner drains it")


@pytest.mark.req("SYN-8", "REG-1", "REG-5")
def test_registering_an_imported_url_claims_it_in_one_step(fleet: Fleet, backend: Backend) -> None:
    a, b, c = fleet
    first = a.register(backend.url)
    fleet.settle(backend.url, "ready")
    with b.events() as stream, Watch(c, lambda listed: None if backend.url in listed else "missing") as watch:
        opened(stream)
        second = b.register(backend.url)
        worker = b.worker(backend.url)
        assert (worker["origin"], worker["owner"], worker["id"]) == ("local", b.name, second)
        assert worker["status"] == "ready"
        assert {claim["owner"]: claim["id"] for claim in worker["claims"]} == {a.name: first, b.name: second}
        eventually(lambda: stream.of("origin_changed"), "the claim is told")
        for id in (first, second):
            assert b.get(f"/workers/{id}")["id"] == second
        eventually(lambda: len(c.worker(backend.url)["claims"]) == 2, "c knows both claims")
        for id in (first, second):
            assert c.get(f"/workers/{id}")["url"] == backend.url
        holds_for(lambda: b.status(backend.url) == "ready", 0.7, "a claim loses no status")
    watch.check()
    (told,) = stream.of("origin_changed")
    assert (told.data["previous"], told.data["worker"]["origin"]) == ("mesh", "local")
    assert "removed" not in kinds_of(stream, backend.url)
    assert transitions(stream, backend.url) == []
    assert a.worker(backend.url)["id"] == first


@pytest.mark.req("SYN-8")
def test_an_import_can_be_changed_only_by_its_owner(fleet: Fleet) -> None:
    a, b, _ = fleet
    id = a.register(URL, health=UNCHECKED)
    fleet.settle(URL, "ready")
    asked = [
        ("PUT", "", {"url": URL}),
        ("PATCH", "", {"priority": 1}),
        ("DELETE", "", None),
        ("POST", "/drain", None),
        ("POST", "/undrain", None),
    ]
    for method, path, body in asked:
        answer = b.call(method, f"/workers/{id}{path}", body).expect(409).json()
        assert (answer["code"], answer["owner"]) == ("WORKER_OWNED_BY_PEER", a.name)
    assert b.ctl("worker", "rm", id).returncode == 1
    assert a.worker(URL)["revision"] == 1


@pytest.mark.req("SYN-9")
def test_when_the_serving_claim_goes_the_next_takes_over_without_a_gap(fleet: Fleet) -> None:
    a, b, c = fleet
    ids = {}
    for node in (a, b):
        ids[node.name] = node.register(URL, health=UNCHECKED)
        eventually(lambda: len(c.worker(URL).get("claims", ())) == len(ids), "c knows the claim")
    assert c.worker(URL)["id"] == ids[a.name]
    with c.events() as stream, Watch(c, lambda listed: None if URL in listed else "missing") as watch:
        opened(stream)
        a.remove(ids[a.name])
        eventually(lambda: c.worker(URL)["id"] == ids[b.name], "b's claim serves on c")
        eventually(lambda: a.worker(URL)["id"] == ids[b.name], "b's claim serves on a")
        holds_for(lambda: True, 0.3, "a while")
    watch.check()
    assert c.worker(URL)["owner"] == b.name
    assert c.status(URL) == "ready"
    assert "removed" not in kinds_of(stream, URL)
    assert [entry["tombstone"] for entry in c.entries(ids[b.name])] == [False]
    assert (a.worker(URL)["origin"], a.worker(URL)["owner"]) == ("mesh", b.name)


def _serves(node: Node, url: str, id: str) -> bool:
    worker = node.worker(url)
    return bool(worker) and worker["id"] == id and [claim["id"] for claim in worker["claims"]] == [id]


@pytest.mark.req("SYN-9", "SYN-8")
def test_a_claim_racing_a_removal_leaves_the_claimer_with_it_and_no_orphan(fleet: Fleet) -> None:
    a, b, _ = fleet
    with ThreadPoolExecutor(2) as pool:
        for number in range(8):
            url = f"{URL}/{number}"
            first = a.register(url, health=UNCHECKED)
            eventually(partial(b.has, url, "ready"), "b has the import")
            start = threading.Barrier(2)

            def removing(id: str = first, start: threading.Barrier = start) -> None:
                start.wait()
                a.remove(id)

            def claiming(
                url: str = url, start: threading.Barrier = start, wait_s: float = number * 0.002
            ) -> str:
                start.wait()
                time.sleep(wait_s)
                return b.register(url, health=UNCHECKED)

            removal, claim = pool.submit(removing), pool.submit(claiming)
            removal.result()
            second = claim.result()
            fleet.each(partial(_serves, url=url, id=second), "b owns it")
            assert b.worker(url)["origin"] == "local"
            b.remove(second)
            fleet.settle(url, None)
            for node in fleet:
                live = [e for id in (first, second) for e in node.entries(id) if not e["tombstone"]]
                assert live == []


@pytest.mark.req("SYN-10")
def test_reconcile_passes_do_nothing_where_nothing_differs_and_tell_what_they_cost(fleet: Fleet) -> None:
    a, _, _ = fleet
    for number in range(10):
        a.register(f"{URL}/{number}", health=UNCHECKED)
    fleet.each(lambda node: len(node.workers()) == 10, "all are listed")
    with a.events() as stream:
        opened(stream)
        digest = a.get("/mesh/status")["digest"]
        repairs = [node.metrics()["meshd_reconcile_repairs_total"] for node in fleet]
        fleet.let_reconcile(2)
        assert [node.metrics()["meshd_reconcile_repairs_total"] for node in fleet] == repairs
        assert a.get("/mesh/status")["digest"] == digest
    assert [event.kind for event in stream.events] == ["snapshot"]
    shown = a.ctl("info").stdout
    assert "reconcile" in shown
    assert a.metrics()["meshd_reconcile_repairs_total"] == repairs[0]


@pytest.mark.req("SYN-11")
def test_a_grpc_decode_worker_arrives_with_its_whole_spec(fleet: Fleet) -> None:
    a, b, c = fleet
    url = "grpc://10.1.2.3:30000"
    a.register(url, **DECODE)
    fleet.settle(url, "ready")
    for node in (a, b, c):
        assert spec_of(node.worker(url), DECODE) == DECODE
    b.register(url, **spec_of(b.worker(url), DECODE))
    eventually(lambda: len(c.worker(url)["claims"]) == 2, "c knows both claims")
    a.remove(a.worker(url)["id"])
    eventually(lambda: c.worker(url)["owner"] == b.name, "b's claim serves")
    assert spec_of(c.worker(url), DECODE) == DECODE


@pytest.mark.req("SYN-12", "SEC-3")
def test_an_api_key_travels_sealed_and_lets_importers_with_the_secret_check(special: Fleet) -> None:
    quiet, strict, bare = special
    key = "sk-only-for-the-backend-0815"
    with Backend(api_key=key) as backend:
        id = quiet.register(backend.url, api_key=key)
        eventually(lambda: strict.status(backend.url) == "ready", "the node with the secret checks it")
        assert strict.why(backend.url)["checked_here"] is True
        assert ("/health", f"Bearer {key}") in backend.asked
        # Without the secret nobody can ask a protected backend: its owner's word alone counts.
        eventually(lambda: bare.status(backend.url) == "ready", "the node without it takes its owner's word")
        assert bare.why(backend.url)["checked_here"] is False
        assert all(authorization == f"Bearer {key}" for _, authorization in backend.asked)
        backend.health = 503
        eventually(lambda: strict.status(backend.url) == "not_ready", "the node with the secret notices")
        assert bare.status(backend.url) == "ready"
        for node in special:
            pages = ["/workers", f"/workers/{id}", f"/mesh/store/worker:{id}", "/metrics"]
            for page in pages:
                assert key.encode() not in node.call("GET", page).expect(200).body
            assert key not in node.daemon.log.read_text("utf-8", "replace")
            assert key.encode() not in b"".join(
                path.read_bytes()
                for path in node.daemon.data_dir.iterdir()
                if path.is_file() and node is not quiet
            )


@pytest.mark.req("SYN-15")
def test_a_worker_that_others_cannot_reach_is_served_here_and_not_published(special: Fleet) -> None:
    quiet, _, bare = special
    urls = ["http://127.0.0.1:9", "http://localhost:9", "ipc:///tmp/nobody.sock", "grpc://[::1]:9"]
    ids = [bare.register(url, health=UNCHECKED) for url in urls]
    shared = bare.register("http://10.9.9.9:8000", health=UNCHECKED)
    eventually(lambda: quiet.worker("http://10.9.9.9:8000"), "what others can reach is published")
    special.let_reconcile()
    assert [worker["id"] for worker in quiet.workers().values()] == [shared]
    for url, id in zip(urls, ids, strict=True):
        assert bare.status(url) == "ready"
        assert quiet.entries(id) == []
        assert bare.why(url)["published"] is False
        assert "publish_loopback" in bare.ctl("why", url).stdout
