"""REG: what registering, replacing and removing workers does, as seen over HTTP and `meshctl`."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.backends import Backend, Gate
from tests.support.conformance import UNCHECKED, Fleet, Node, SlowRequest, kinds_of, opened, transitions
from tests.support.processes import EventStream, eventually

URL = "http://127.0.0.1:9"
CHANGES = 420
"""So many large changes that no buffer holds them for a subscriber that does not read."""


@pytest.mark.req("REG-1")
def test_a_second_registration_is_refused_with_the_id_that_holds_the_url(fleet: Fleet) -> None:
    a, _, _ = fleet
    id = a.register(URL, health=UNCHECKED)
    answer = a.call("POST", "/workers", {"url": "HTTP://127.0.0.1:9/"}).expect(409).json()
    assert (answer["code"], answer["worker_id"]) == ("WORKER_ALREADY_EXISTS", id)
    a.call("POST", f"/workers/{id}/drain").expect(202)
    answer = a.call("POST", "/workers", {"url": URL}).expect(409).json()
    assert answer["worker_id"] == id
    assert [worker["id"] for worker in a.workers().values()] == [id]


@pytest.mark.req("REG-1")
def test_of_two_registrations_at_once_exactly_one_succeeds(fleet: Fleet) -> None:
    a, _, _ = fleet
    with ThreadPoolExecutor(8) as pool:
        for number in range(5):
            url = f"http://127.0.0.1:9/{number}"
            body = {"url": url, "models": [{"id": f"m{number}"}], "health": UNCHECKED}
            calls = [pool.submit(a.call, "POST", "/workers", body) for _ in range(8)]
            assert sorted(call.result().status for call in calls) == [202] + [409] * 7
            listed = a.get(f"/workers?model=m{number}")
            assert [worker["url"] for worker in listed["workers"]] == [url]
            assert listed["total"] == 1


@pytest.mark.req("REG-2")
def test_a_reader_never_misses_a_worker_in_an_index_it_belongs_to_before_and_after(fleet: Fleet) -> None:
    a, _, _ = fleet
    spec = {"url": URL, "models": [{"id": "kept", "aliases": ["also"]}], "health": UNCHECKED}
    id = a.register(URL, **{key: value for key, value in spec.items() if key != "url"})
    queries = (
        "?model=kept",
        "?model=also",
        "?status=ready",
        "?origin=local",
        f"?owner={a.name}",
        "?type=regular",
    )
    stop = threading.Event()

    def read() -> tuple[int, list[str]]:
        polls, missed = 0, []
        while not stop.is_set():
            for query in queries:
                polls += 1
                if list(a.workers(query)) != [URL]:
                    missed.append(query)
        return polls, missed

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for number in range(60):
            models = [{"id": "kept", "aliases": ["also"]}, {"id": f"other{number}"}]
            a.replace(id, {**spec, "models": models, "priority": number}).expect(202)
        stop.set()
        results = [reader.result() for reader in readers]
    assert [missed for _, missed in results] == [[], []]
    assert min(polls for polls, _ in results) > 60
    assert not a.workers("?model=other0")
    assert list(a.workers("?model=other59")) == [URL]


@pytest.mark.req("REG-3", "REG-6")
def test_replacing_refuses_another_url_an_unknown_id_and_a_stale_revision(fleet: Fleet) -> None:
    a, _, _ = fleet
    spec = {"url": URL, "health": UNCHECKED}
    id = a.register(URL, health=UNCHECKED)
    assert a.call("GET", f"/workers/{id}").headers["etag"] == '"1"'
    answer = a.replace(id, {**spec, "url": "http://127.0.0.1:10"}).expect(400).json()
    assert (answer["code"], answer["field"]) == ("BAD_REQUEST", "url")
    unknown = "00000000-0000-5000-8000-000000000000"
    assert a.replace(unknown, spec).expect(404).json()["code"] == "WORKER_NOT_FOUND"
    a.replace(id, {**spec, "priority": 1}, if_match=1).expect(202)
    assert a.replace(id, spec, if_match=1).expect(412).json()["code"] == "REVISION_MISMATCH"
    worker = a.worker(URL)
    assert (worker["priority"], worker["revision"]) == (1, 2)
    assert a.call("GET", f"/workers/{id}").headers["etag"] == '"2"'


@pytest.mark.req("REG-3")
def test_of_two_concurrent_puts_the_slow_one_restores_no_older_spec(fleet: Fleet) -> None:
    a, _, _ = fleet
    id = a.register(URL, health=UNCHECKED)
    slow = SlowRequest(
        a, "PUT", f"/workers/{id}", {"url": URL, "priority": 1, "health": UNCHECKED}, If_Match='"1"'
    )
    a.replace(id, {"url": URL, "priority": 2, "health": UNCHECKED}, if_match=1).expect(202)
    assert slow.finish() == 412
    assert (a.worker(URL)["priority"], a.worker(URL)["revision"]) == (2, 2)


@pytest.mark.req("REG-3")
@pytest.mark.parametrize("if_match", [{}, {"If_Match": '"1"'}])
def test_a_slow_put_does_not_resurrect_a_worker_that_was_removed_meanwhile(
    fleet: Fleet, if_match: dict[str, str]
) -> None:
    a, _, _ = fleet
    id = a.register(URL, health=UNCHECKED)
    slow = SlowRequest(a, "PUT", f"/workers/{id}", {"url": URL, "health": UNCHECKED}, **if_match)
    a.remove(id)
    assert slow.finish() == 404
    fleet.settle(URL, None)


@pytest.mark.req("REG-5", "REG-7")
def test_a_replacement_keeps_the_status(fleet: Fleet, backend: Backend) -> None:
    a, _, _ = fleet
    id = a.register(backend.url)
    fleet.settle(backend.url, "ready")
    with a.events() as stream:
        opened(stream)
        a.replace(id, {"url": backend.url, "priority": 7}).expect(202)
        assert a.status(backend.url) == "ready"
        eventually(lambda: stream.of("replaced"), "the replacement is told")
        a.call("POST", f"/workers/{id}/drain").expect(202)
        a.replace(id, {"url": backend.url, "priority": 8}).expect(202)
        assert a.status(backend.url) == "draining"
        eventually(lambda: len(stream.of("replaced")) == 2, "the second replacement is told")
    assert transitions(stream, backend.url) == [("ready", "draining")]


@pytest.mark.req("REG-5", "LIF-1", "LIF-3")
def test_replacing_starts_a_failed_worker_over_and_switching_checks_off_makes_it_ready(fleet: Fleet) -> None:
    a, _, _ = fleet
    with Backend() as backend:
        backend.health = 500
        # Two fast seconds that do not count, then ten checks that do.
        health = {"failure_threshold": 1, "check_interval_secs": 0.05, "success_threshold": 1}
        id = a.register(backend.url, health=health)
        eventually(lambda: a.status(backend.url) == "failed", "the worker has failed")
        backend.health = 200
        a.replace(id, {"url": backend.url, "health": health}).expect(202)
        fleet.settle(backend.url, "ready")
        backend.health = 500
        eventually(lambda: a.status(backend.url) == "failed", "the worker has failed again")
        a.replace(id, {"url": backend.url, "health": UNCHECKED}).expect(202)
        assert a.status(backend.url) == "ready"
        fleet.settle(backend.url, "ready")


@pytest.mark.req("REG-6")
def test_a_check_that_began_under_an_older_revision_is_dropped(special: Fleet) -> None:
    _, _, bare = special
    gate = Gate()
    with Backend() as backend:
        backend.health = gate
        health = {"success_threshold": 1, "timeout_secs": 30, "check_interval_secs": 0.1}
        id = bare.register(backend.url, health=health)
        gate.wait()
        spec = {"url": backend.url, "health": {**health, "health_path": "/nothing"}}
        bare.replace(id, spec).expect(202)
        gate.answer(200)
        eventually(lambda: "/nothing" in [path for path, _ in backend.asked], "the new path is asked for")
        eventually(lambda: "404" in (bare.worker(backend.url)["last_error"] or ""), "it fails")
        assert bare.status(backend.url) == "pending"


@pytest.mark.req("REG-7")
def test_events_come_in_order_and_after_the_registry_shows_what_they_tell(
    fleet: Fleet, backend: Backend
) -> None:
    a, b, _ = fleet
    seen: list[tuple[str, object]] = []

    def look(node: Node, stream: EventStream, kind: str) -> None:
        event = eventually(lambda: stream.of(kind), f"{node.name} tells {kind}")[-1]
        shown = node.worker(backend.url)
        seen.append((kind, {name: shown.get(name) for name in ("id", "priority", "origin")}))
        told = {name: event.data["worker"][name] for name in ("id", "priority", "origin")}
        if kind == "removed":
            assert not shown
        else:
            assert shown["revision"] >= event.data["worker"]["revision"]
            assert told["id"] == shown["id"]

    with a.events() as on_a, b.events() as on_b:
        streams = ((a, opened(on_a)), (b, opened(on_b)))
        id = a.register(backend.url)
        for node, stream in streams:
            look(node, stream, "registered")
            look(node, stream, "status_changed")
        fleet.settle(backend.url, "ready")
        a.call("PATCH", f"/workers/{id}", {"priority": 3}).expect(202)
        for node, stream in streams:
            look(node, stream, "replaced")
        a.remove(id)
        for node, stream in streams:
            look(node, stream, "removed")
    for _, stream in streams:
        assert kinds_of(stream, backend.url) == ["registered", "status_changed", "replaced", "removed"]
        assert transitions(stream, backend.url) == [("pending", "ready")]


@pytest.mark.req("REG-7")
def test_a_subscriber_that_comes_back_too_late_gets_one_resync_and_the_whole_state(fleet: Fleet) -> None:
    a, _, _ = fleet
    id = a.register(URL, health=UNCHECKED)
    with a.events(**{"Last-Event-ID": "0123456789ab-3"}) as stream:
        opened(stream)
        a.remove(id)
        eventually(lambda: stream.of("removed"), "news follows")
    assert [event.kind for event in stream.events][:2] == ["resync", "snapshot"]
    assert len(stream.of("resync")) == len(stream.of("snapshot")) == 1
    (snapshot,) = stream.of("snapshot")
    assert [worker["url"] for worker in snapshot.data["workers"]] == [URL]


@pytest.mark.req("REG-7")
def test_a_subscriber_that_comes_back_in_time_misses_nothing_and_hears_nothing_twice(fleet: Fleet) -> None:
    a, _, _ = fleet
    id = a.register(URL, health=UNCHECKED)
    with a.events() as first:
        opened(first)
        a.call("PATCH", f"/workers/{id}", {"priority": 1}).expect(202)
        last = eventually(lambda: first.of("replaced"), "the replacement is told")[-1].id
    a.call("PATCH", f"/workers/{id}", {"priority": 2}).expect(202)
    with a.events(**{"Last-Event-ID": str(last)}) as second:
        eventually(lambda: second.of("replaced"), "what was missed is told")
        a.remove(id)
        eventually(lambda: second.of("removed"), "news follows")
    assert kinds_of(second, URL) == ["replaced", "removed"]
    assert second.of("replaced")[0].data["worker"]["priority"] == 2


@pytest.mark.req("REG-7")
def test_a_subscriber_that_does_not_read_misses_no_final_state(fleet: Fleet) -> None:
    a, _, _ = fleet
    id = a.register(URL, labels={"padding": ""}, health=UNCHECKED)
    host, _, port = a.api.rpartition(":")
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(20.0)
        slow.connect((host, int(port)))
        slow.sendall(f"GET /events HTTP/1.1\r\nHost: {a.api}\r\n\r\n".encode())
        for number in range(CHANGES):
            patch = {"priority": number, "labels": {"padding": str(number % 10) * 50_000}}
            a.call("PATCH", f"/workers/{id}", patch).expect(202)
        told, ended = b"", False
        while b"event: removed" not in told:
            data = slow.recv(1 << 20)
            assert data, "the stream ended"
            told += data
            if b"event: resync" in told and not ended:
                ended = True
                a.remove(id)
    assert told.count(b"event: resync") == 1
    assert told.count(b"event: snapshot") == 2
    after = told[told.index(b"event: resync") :]
    assert f'"priority":{CHANGES - 1}'.encode() in after.replace(b": ", b":")
    assert len(told) < CHANGES * 50_000 / 2


@pytest.mark.req("REG-8")
@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("HTTP://Gpu-1.Example:8000/", "http://gpu-1.example:8000"),
        ("http://gpu-1.example:8000/v2/", "http://gpu-1.example:8000/v2"),
        ("grpc://[2001:DB8::1]:30000", "grpc://[2001:db8::1]:30000"),
        ("http://[2001:db8:0:0::1]:30000/", "http://[2001:db8::1]:30000"),
    ],
)
def test_spellings_of_one_url_are_one_worker(fleet: Fleet, given: str, shown: str) -> None:
    a, _, _ = fleet
    id = a.register(given, health=UNCHECKED)
    assert a.get(f"/workers/{id}")["url"] == shown
    assert a.call("POST", "/workers", {"url": shown}).expect(409).json()["worker_id"] == id
    assert a.why(given)["id"] == id


@pytest.mark.req("REG-8")
@pytest.mark.parametrize(
    ("default", "plain"),
    [("http://h.example:80", "http://h.example"), ("https://h.example:443/", "https://h.example")],
)
def test_a_default_port_makes_no_second_worker(fleet: Fleet, default: str, plain: str) -> None:
    a, _, _ = fleet
    id = a.register(plain, health=UNCHECKED)
    assert a.call("POST", "/workers", {"url": default}).expect(409).json()["worker_id"] == id


@pytest.mark.req("REG-8")
@pytest.mark.parametrize("url", ["gpu-1:8000", "10.0.0.1:8000"])
def test_host_and_port_without_a_scheme_are_refused_with_a_hint(fleet: Fleet, url: str) -> None:
    a, _, _ = fleet
    answer = a.call("POST", "/workers", {"url": url}).expect(400).json()
    assert (answer["code"], answer["field"]) == ("BAD_REQUEST", "url")
    assert f"http://{url}" in answer["error"]
    assert not a.workers()


@pytest.mark.req("REG-9", "CAP-5")
def test_a_model_goes_from_every_listing_with_its_last_worker(fleet: Fleet) -> None:
    a, b, _ = fleet
    ids = [
        node.register(f"http://127.0.0.1:9/{node.name}", models=[{"id": "gone-soon"}], health=UNCHECKED)
        for node in (a, b)
    ]
    fleet.each(lambda node: len(node.workers("?model=gone-soon")) == 2, "both are listed")
    a.remove(ids[0])
    fleet.each(lambda node: len(node.workers("?model=gone-soon")) == 1, "one is left")
    for node in fleet:
        assert node.get("/capacity")["per_model"] == {"gone-soon": 64}
    b.remove(ids[1])
    fleet.each(lambda node: not node.workers("?model=gone-soon"), "none is left")
    for node in fleet:
        assert node.get("/capacity")["per_model"] == {}
        assert "gone-soon" not in node.call("GET", "/metrics").body.decode()
        assert "gone-soon" not in node.ctl("worker", "ls").stdout
