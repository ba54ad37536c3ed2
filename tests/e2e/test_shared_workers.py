"""A worker registered on one daemon is there on all, until it is removed; wrong requests change nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from meshd.demo.children import Children
from meshd.demo.client import call
from meshd.demo.processes import InferenceServer
from tests.support.openai_server import start_servers
from tests.support.processes import EventStream, Mesh, eventually, everywhere

READY_WITHIN_S = 2.0


@pytest.fixture
def server(children: Children, tmp_path: Path) -> InferenceServer:
    return start_servers(children, tmp_path, 1)[0]


@pytest.fixture(autouse=True)
def _leaves_no_worker(mesh: Mesh) -> Iterator[None]:
    yield
    for daemon in mesh:
        for worker in daemon.workers().values():
            if worker["origin"] == "local":
                daemon.call("DELETE", f"/workers/{worker['id']}?drain=0").expect(202)
    everywhere(mesh, lambda daemon: not daemon.workers(), "lists no worker")


def _statuses(mesh: Mesh, url: str) -> list[str | None]:
    return [daemon.workers().get(url, {}).get("status") for daemon in mesh]


@pytest.mark.req("SYN-1", "SYN-2", "SYN-3", "LIF-6", "SYN-5")
def test_a_worker_registered_on_one_daemon_is_ready_on_all_within_two_seconds(
    mesh: Mesh, server: InferenceServer
) -> None:
    started = time.monotonic()
    worker_id = mesh["a"].register({"url": server.url})
    eventually(lambda: _statuses(mesh, server.url) == ["ready"] * 3, "the worker is ready on a, b and c")
    took_s = time.monotonic() - started
    views = {daemon.name: daemon.workers()[server.url] for daemon in mesh}
    assert {view["id"] for view in views.values()} == {worker_id}
    assert [views[name]["origin"] for name in "abc"] == ["local", "mesh", "mesh"]
    assert {view["owner"] for view in views.values()} == {"a"}
    assert took_s <= READY_WITHIN_S


@pytest.mark.req("SYN-1")
def test_a_request_to_the_url_that_another_daemon_lists_reaches_the_real_server(
    mesh: Mesh, server: InferenceServer
) -> None:
    mesh["a"].register({"url": server.url})
    listed = eventually(lambda: mesh["c"].workers(), "c lists the worker")
    question = {"messages": [{"role": "user", "content": "hello"}]}
    answer = call(urlsplit(next(iter(listed))).netloc, "POST", "/v1/chat/completions", question).expect(200)
    assert answer.json()["choices"][0]["message"]["content"] == f"{server.name} heard: hello"
    assert server.counts()["completions"] == 1


@pytest.mark.req("SYN-3", "SYN-4")
def test_deleting_a_worker_on_its_owner_removes_it_everywhere(mesh: Mesh, server: InferenceServer) -> None:
    worker_id = mesh["a"].register({"url": server.url})
    eventually(lambda: _statuses(mesh, server.url) == ["ready"] * 3, "the worker is ready on all")
    mesh["a"].call("DELETE", f"/workers/{worker_id}?drain=0").expect(202)
    eventually(lambda: _statuses(mesh, server.url) == [None] * 3, "the worker is gone on all")
    for daemon in mesh:
        assert daemon.call("GET", f"/workers/{worker_id}").expect(404).json()["code"] == "WORKER_NOT_FOUND"


@pytest.mark.req("LIF-9")
def test_a_worker_drains_on_every_daemon_before_it_is_removed(mesh: Mesh, server: InferenceServer) -> None:
    worker_id = mesh["a"].register({"url": server.url, "health": {"drain_settle_secs": 1.0}})
    eventually(lambda: _statuses(mesh, server.url) == ["ready"] * 3, "the worker is ready on all")
    started = time.monotonic()
    mesh["a"].call("DELETE", f"/workers/{worker_id}").expect(202)
    eventually(lambda: _statuses(mesh, server.url) == ["draining"] * 3, "the worker drains on all")
    eventually(lambda: _statuses(mesh, server.url) == [None] * 3, "the worker is gone on all")
    assert time.monotonic() - started >= 1.0


@pytest.mark.req("SYN-5", "LIF-2", "LIF-4")
def test_a_worker_that_becomes_unwell_is_taken_out_everywhere_and_comes_back(
    mesh: Mesh, server: InferenceServer
) -> None:
    # Unready after one second of failures, given up three seconds later: the cure comes in between.
    health = {"check_interval_secs": 0.2, "failure_threshold": 5}
    mesh["a"].register({"url": server.url, "health": health})
    eventually(lambda: _statuses(mesh, server.url) == ["ready"] * 3, "the worker is ready on all")
    server.set_health(503)
    eventually(lambda: "ready" not in _statuses(mesh, server.url), "the worker is ready nowhere")
    assert "503" in mesh["a"].workers()[server.url]["last_error"]
    server.set_health(200)
    eventually(lambda: _statuses(mesh, server.url) == ["ready"] * 3, "the worker is ready on all again")


@pytest.mark.req("REG-1", "CTL-5")
def test_a_second_registration_of_a_url_is_refused_naming_the_worker(mesh: Mesh) -> None:
    spec = {"url": "http://127.0.0.1:9", "health": {"disable_health_check": True}}
    worker_id = mesh["a"].register(spec)
    answer = mesh["a"].call("POST", "/workers", {**spec, "url": "HTTP://127.0.0.1:9/"}).expect(409).json()
    assert (answer["code"], answer["worker_id"]) == ("WORKER_ALREADY_EXISTS", worker_id)
    assert len(mesh["a"].workers()) == 1


@pytest.mark.req("CTL-5", "REG-8")
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"),
        ({"url": "127.0.0.1:8000"}, "url"),
        ({"url": "ftp://127.0.0.1"}, "url"),
        ({"url": 7}, "url"),
        ({"url": "http://127.0.0.1:9", "priority": "high"}, "priority"),
        ({"url": "http://127.0.0.1:9", "health": {"timeout_secs": "long"}}, "health.timeout_secs"),
        ({"url": "http://127.0.0.1:9", "labels": {"zone": 1}}, "labels.zone"),
    ],
)
def test_a_malformed_body_is_refused_with_its_field_named(
    mesh: Mesh, body: dict[str, object], field: str
) -> None:
    answer = mesh["a"].call("POST", "/workers", body).expect(400).json()
    assert answer["code"] == "BAD_REQUEST"
    assert answer["field"].startswith(field.partition(".")[0])
    assert not mesh["a"].workers()


@pytest.mark.req("CTL-5")
@pytest.mark.parametrize("body", [b"{", b"", b"[]", b'"text"', b"\xff\xfe"])
def test_a_body_that_is_no_json_object_is_refused(mesh: Mesh, body: bytes) -> None:
    assert mesh["a"].call("POST", "/workers", body).expect(400).json()["code"] == "BAD_REQUEST"


@pytest.mark.req("CTL-4", "SYN-8")
def test_an_import_can_be_changed_only_by_its_owner_until_it_is_claimed(mesh: Mesh) -> None:
    url = "http://127.0.0.1:9"
    spec = {"url": url, "health": {"disable_health_check": True}}
    worker_id = mesh["a"].register(spec)
    eventually(lambda: url in mesh["b"].workers(), "b lists the worker")
    for method, path in (("DELETE", ""), ("POST", "/drain"), ("PATCH", "")):
        body = {"priority": 1} if method == "PATCH" else None
        answer = mesh["b"].call(method, f"/workers/{worker_id}{path}", body).expect(409).json()
        assert (answer["code"], answer["owner"]) == ("WORKER_OWNED_BY_PEER", "a")
    own_id = mesh["b"].register(spec)
    worker = mesh["b"].workers()[url]
    assert (worker["origin"], worker["owner"], worker["id"]) == ("local", "b", own_id)
    assert own_id != worker_id
    assert mesh["b"].get(f"/workers/{worker_id}")["url"] == url


@pytest.mark.req("CAP-5")
def test_capacity_counts_ready_workers_on_every_daemon(
    mesh: Mesh, children: Children, tmp_path: Path
) -> None:
    for name, server in zip("ab", start_servers(children, tmp_path, 2), strict=True):
        mesh[name].register({"url": server.url, "labels": {"max_running_requests": "8"}})
    everywhere(mesh, lambda daemon: daemon.get("/capacity")["capacity"] == 16, "counts 16 requests")
    for daemon in mesh:
        capacity = daemon.get("/capacity")
        assert (capacity["source"], capacity["workers_available"]) == ("worker_reported", 2)


@pytest.mark.req("REG-7", "MSH-3")
def test_events_tell_of_a_worker_on_every_daemon(mesh: Mesh) -> None:
    url = "http://127.0.0.1:9"
    with EventStream(mesh["a"]) as on_a, EventStream(mesh["b"]) as on_b:
        eventually(lambda: on_a.of("snapshot") and on_b.of("snapshot"), "both start with a snapshot")
        worker_id = mesh["a"].register({"url": url, "health": {"disable_health_check": True}})
        mesh["a"].call("DELETE", f"/workers/{worker_id}?drain=0").expect(202)
        eventually(lambda: on_a.of("removed") and on_b.of("removed"), "both tell of the removal")
    for stream in (on_a, on_b):
        told = [event for event in stream.events if event.kind in ("registered", "removed")]
        assert [event.kind for event in told] == ["registered", "removed"]
        assert {event.data["worker"]["url"] for event in told} == {url}


@pytest.mark.req("SEC-3", "CTL-4")
def test_the_unix_socket_answers_as_the_port_does(mesh: Mesh) -> None:
    daemon = mesh["a"]
    assert call(daemon.socket, "GET", "/mesh/status").expect(200).json()["node"] == "a"
    assert call(daemon.socket, "GET", "/workers").expect(200).json() == daemon.get("/workers")


@pytest.mark.req("CTL-4")
def test_probes_metrics_and_openapi_are_served(mesh: Mesh) -> None:
    daemon = mesh["a"]
    assert daemon.call("GET", "/healthz").status == 200
    assert daemon.call("GET", "/readyz").status == 200
    assert b"meshd_backend_capacity" in daemon.call("GET", "/metrics").expect(200).body
    assert "/workers" in daemon.get("/openapi.json")["paths"]


@pytest.mark.req("CTL-2", "CRD-5")
def test_all_daemons_hold_the_same_vector_and_digest(mesh: Mesh, server: InferenceServer) -> None:
    mesh["a"].register({"url": server.url})
    eventually(
        lambda: len({daemon.get("/mesh/status")["digest"] for daemon in mesh}) == 1, "one digest everywhere"
    )
    eventually(
        lambda: len({str(sorted(daemon.get("/mesh/vector").items())) for daemon in mesh}) == 1,
        "one vector everywhere",
    )
