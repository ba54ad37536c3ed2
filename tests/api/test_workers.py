"""`/workers` over the application: bodies, codes and headers as they are documented."""

from __future__ import annotations

import pytest

from meshd.api.worker_json import Clock, rfc3339
from meshd.workers.record import worker_id
from tests.support.api_daemon import Caller, FakeDaemon

URL = "http://10.0.0.5:8000"
UNCHECKED = {"health": {"disable_health_check": True}}


@pytest.mark.req("CTL-4", "REG-1")
async def test_a_registration_is_accepted_listed_and_on_disk_when_it_is_answered(
    daemon: FakeDaemon, api: Caller
) -> None:
    answer = (await api.call("POST", "/workers", {"url": URL, "labels": {"a": "b"}})).expect(202)
    body = answer.json()
    id = worker_id("a", URL)
    assert daemon.mesh.flushes == 1
    assert body["status"] == "accepted"
    assert (body["worker_id"], body["url"], body["location"]) == (id, URL, f"/workers/{id}")
    assert answer.headers["location"] == f"/workers/{id}"
    listed = await api.get("/workers")
    assert [worker["id"] for worker in listed["workers"]] == [id]
    assert listed["total"] == 1
    assert listed["stats"] == {"prefill_count": 0, "decode_count": 0, "regular_count": 1}


@pytest.mark.req("CTL-4", "LIF-8")
async def test_a_worker_is_shown_with_its_spec_and_its_state_here(api: Caller) -> None:
    spec = {
        "url": URL,
        "models": [{"id": "m", "aliases": ["x"], "context_length": 7}],
        "labels": {"zone": "1"},
        "priority": 7,
        "some_new_field": {"deep": [1]},
        **UNCHECKED,
    }
    id = (await api.call("POST", "/workers", spec)).json()["worker_id"]
    answer = (await api.call("GET", f"/workers/{id}")).expect(200)
    info = answer.json()
    assert answer.headers["etag"] == f'"{info["revision"]}"'
    for name, value in spec.items():
        assert info[name] == value
    assert info["model_id"] == "m"
    assert info["status"] == "ready"
    assert info["is_healthy"] is True
    assert (info["origin"], info["owner"], info["load"], info["last_error"]) == ("local", "a", 0, None)
    assert info["claims"] == [{"owner": "a", "id": id, "healthy": True}]
    assert info["since"].endswith("Z")


@pytest.mark.req("SEC-3")
async def test_an_api_key_is_never_shown(api: Caller) -> None:
    id = (await api.call("POST", "/workers", {"url": URL, "api_key": "very-secret"})).json()["worker_id"]
    for target in ("/workers", f"/workers/{id}", "/mesh/store", "/metrics", f"/mesh/why?url={URL}"):
        assert b"very-secret" not in (await api.call("GET", target)).expect(200).body


@pytest.mark.req("REG-1", "CTL-5")
async def test_a_second_registration_is_refused_naming_the_worker(daemon: FakeDaemon, api: Caller) -> None:
    id = (await api.call("POST", "/workers", {"url": URL})).json()["worker_id"]
    body = (await api.call("POST", "/workers", {"url": "HTTP://10.0.0.5:8000/"})).expect(409).json()
    assert (body["code"], body["worker_id"]) == ("WORKER_ALREADY_EXISTS", id)
    assert isinstance(body["error"], str)
    assert len(daemon.plane.registry) == 1


@pytest.mark.req("CTL-5", "REG-8")
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"),
        ({"url": "10.0.0.5:8000"}, "url"),
        ({"url": "ftp://x"}, "url"),
        ({"url": URL, "priority": "high"}, "priority"),
        ({"url": URL, "health": {"timeout_secs": -1}}, "health.timeout_secs"),
        (b"{", "body"),
        (b"", "body"),
        (b"[1]", "body"),
        (b"nul", "body"),
        (b'{"url": "\xff"}', "body"),
    ],
)
async def test_a_malformed_registration_is_refused_naming_the_field(
    daemon: FakeDaemon, api: Caller, body: object, field: str
) -> None:
    answer = (await api.call("POST", "/workers", body)).expect(400).json()
    assert (answer["code"], answer["field"]) == ("BAD_REQUEST", field)
    assert len(daemon.plane.registry) == 0
    assert daemon.mesh.flushes == 0


@pytest.mark.req("SEC-4")
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", [40, 100_000])
async def test_a_body_that_nests_too_deep_is_refused(api: Caller, opening: bytes, depth: int) -> None:
    closing = b"]" if opening == b"[" else b"}"
    body = b'{"url": "http://x:1", "extra": ' + opening * depth + b"1" + closing * depth + b"}"
    if len(body) <= 512 * 1024:
        answer = (await api.call("POST", "/workers", body)).expect(400).json()
        assert answer["field"] == "body"
        assert "nests" in answer["error"]


@pytest.mark.req("SEC-4")
async def test_a_body_that_is_wide_and_not_deep_is_taken(api: Caller) -> None:
    spec = {"url": URL, "wide": [[[]] for _ in range(1000)]}
    (await api.call("POST", "/workers", spec)).expect(202)


@pytest.mark.req("CTL-4", "CTL-5")
async def test_ids_that_are_no_uuid_are_400_and_unknown_ones_404(api: Caller) -> None:
    unknown = "00000000-0000-5000-8000-000000000000"
    spec = {"url": URL}
    for method, suffix, body in (
        ("GET", "", None),
        ("PUT", "", spec),
        ("PATCH", "", {"priority": 1}),
        ("DELETE", "", None),
        ("POST", "/drain", None),
        ("POST", "/undrain", None),
    ):
        bad = (await api.call(method, f"/workers/nonsense{suffix}", body)).expect(400).json()
        assert (bad["code"], bad["field"]) == ("BAD_REQUEST", "id")
        missing = (await api.call(method, f"/workers/{unknown}{suffix}", body)).expect(404).json()
        assert missing["code"] == "WORKER_NOT_FOUND"


@pytest.mark.req("REG-3")
async def test_put_holds_if_match_and_refuses_another_url(api: Caller) -> None:
    id = (await api.call("POST", "/workers", {"url": URL})).json()["worker_id"]
    etag = (await api.call("GET", f"/workers/{id}")).headers["etag"]
    changed = await api.call("PUT", f"/workers/{id}", {"url": URL, "priority": 1}, {"if-match": etag})
    assert changed.expect(202).json()["worker_id"] == id
    assert changed.headers["etag"] != etag
    stale = await api.call("PUT", f"/workers/{id}", {"url": URL, "priority": 2}, {"if-match": etag})
    assert stale.expect(412).json()["code"] == "REVISION_MISMATCH"
    assert (await api.get(f"/workers/{id}"))["priority"] == 1
    moved = await api.call("PUT", f"/workers/{id}", {"url": "http://10.0.0.6:8000"})
    assert moved.expect(400).json()["field"] == "url"
    bad = await api.call("PUT", f"/workers/{id}", {"url": URL}, {"if-match": "yesterday's"})
    assert bad.expect(400).json()["field"] == "If-Match"


@pytest.mark.req("REG-3")
@pytest.mark.parametrize(("method", "suffix"), [("DELETE", ""), ("POST", "/drain"), ("POST", "/undrain")])
async def test_a_stale_if_match_is_refused_wherever_it_is_sent(api: Caller, method: str, suffix: str) -> None:
    id = (await api.call("POST", "/workers", {"url": URL})).json()["worker_id"]
    answer = await api.call(method, f"/workers/{id}{suffix}", headers={"if-match": '"99"'})
    assert answer.expect(412).json()["code"] == "REVISION_MISMATCH"
    assert (await api.get(f"/workers/{id}"))["status"] == "pending"


@pytest.mark.req("CTL-4")
async def test_patch_merges_labels_and_leaves_the_rest(api: Caller) -> None:
    spec = {"url": URL, "labels": {"a": "1", "b": "2"}, "cost": 3.5}
    id = (await api.call("POST", "/workers", spec)).json()["worker_id"]
    (await api.call("PATCH", f"/workers/{id}", {"labels": {"b": "3"}, "priority": 9})).expect(202)
    info = await api.get(f"/workers/{id}")
    assert info["labels"] == {"a": "1", "b": "3"}
    assert (info["priority"], info["cost"]) == (9, 3.5)
    refused = (await api.call("PATCH", f"/workers/{id}", {"url": "http://x:1"})).expect(400).json()
    assert refused["field"] == "url"


@pytest.mark.req("LIF-9")
async def test_delete_drains_first_unless_told_to_remove_at_once(api: Caller) -> None:
    id = (await api.call("POST", "/workers", {"url": URL, **UNCHECKED})).json()["worker_id"]
    answer = (await api.call("DELETE", f"/workers/{id}")).expect(202).json()
    assert (answer["worker_id"], answer["message"]) == (id, "it drains, then it is removed")
    assert (await api.get(f"/workers/{id}"))["status"] == "draining"
    assert (await api.call("DELETE", f"/workers/{id}?drain=0")).expect(202).json()["message"] == "removed"
    (await api.call("GET", f"/workers/{id}")).expect(404)
    bad = (await api.call("DELETE", f"/workers/{id}?drain=maybe")).expect(400).json()
    assert bad["field"] == "drain"


@pytest.mark.req("CTL-4")
async def test_a_worker_is_drained_and_brought_back(api: Caller) -> None:
    id = (await api.call("POST", "/workers", {"url": URL, **UNCHECKED})).json()["worker_id"]
    (await api.call("POST", f"/workers/{id}/drain")).expect(202)
    assert (await api.get(f"/workers/{id}"))["status"] == "draining"
    (await api.call("POST", f"/workers/{id}/undrain")).expect(202)
    assert (await api.get(f"/workers/{id}"))["status"] == "ready"


@pytest.mark.req("CTL-4")
async def test_a_change_that_the_disk_refuses_is_not_called_done(daemon: FakeDaemon, api: Caller) -> None:
    daemon.mesh.flushed = False
    answer = (await api.call("POST", "/workers", {"url": URL})).expect(500).json()
    assert answer["code"] == "STORAGE"


async def _register(api: Caller, count: int) -> list[str]:
    ids = []
    for number in range(count):
        spec = {
            "url": f"http://10.0.{number // 200}.{number % 200}:8000",
            "models": [{"id": f"m{number % 2}", "aliases": ["any"]}],
            "worker_type": ("regular", "prefill", "decode")[number % 3],
            "labels": {"n": str(number), "even": str(number % 2 == 0)},
            **(UNCHECKED if number < 2 else {}),
        }
        ids.append((await api.call("POST", "/workers", spec)).expect(202).json()["worker_id"])
    return ids


@pytest.mark.req("CTL-4")
@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 6),
        ("model=m0", 3),
        ("model=any", 6),
        ("model=none", 0),
        ("type=prefill", 2),
        ("status=ready", 2),
        ("status=pending&model=m0", 2),
        ("origin=local", 6),
        ("origin=mesh", 0),
        ("owner=a", 6),
        ("owner=b", 0),
        ("label=n:3", 1),
        ("label=even:True&label=n:2", 1),
        ("label=even:True&label=n:3", 0),
    ],
)
async def test_workers_are_filtered(api: Caller, query: str, count: int) -> None:
    await _register(api, 6)
    listed = await api.get(f"/workers?{query}")
    assert (len(listed["workers"]), listed["total"]) == (count, count)
    assert sum(listed["stats"].values()) == count


@pytest.mark.req("CTL-4")
@pytest.mark.parametrize("query", ["", "owner=a&"])
async def test_pages_of_workers_join_to_the_whole_listing(api: Caller, query: str) -> None:
    ids = await _register(api, 7)
    seen: list[str] = []
    target = f"/workers?{query}limit=3"
    for _ in range(3):
        page = await api.get(target)
        assert page["total"] == 7
        assert sum(page["stats"].values()) == 7
        seen += [worker["id"] for worker in page["workers"]]
        if "next" not in page:
            break
        target = f"/workers?{query}limit=3&after={page['next']}"
    assert seen == sorted(ids)


@pytest.mark.req("CTL-5")
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("type=nonsense", "type"),
        ("status=well", "status"),
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=many", "limit"),
        ("after=me", "after"),
        ("label=x", "label"),
        ("modle=m", "modle"),
    ],
)
async def test_a_bad_filter_is_refused_rather_than_ignored(api: Caller, query: str, field: str) -> None:
    answer = (await api.call("GET", f"/workers?{query}")).expect(400).json()
    assert (answer["code"], answer["field"]) == ("BAD_REQUEST", field)


@pytest.mark.req("CTL-4")
async def test_a_long_listing_is_written_in_pieces_and_is_whole(daemon: FakeDaemon, api: Caller) -> None:
    ids = await _register(api, 450)
    answer = (await api.call("GET", "/workers")).expect(200)
    assert "content-length" not in answer.headers
    body = answer.json()
    assert [worker["id"] for worker in body["workers"]] == sorted(ids)
    assert body["total"] == 450
    head = (await api.call("HEAD", "/workers")).expect(200)
    assert head.headers["content-type"] == "application/json"


@pytest.mark.req("LIF-8")
def test_an_instant_is_shown_the_same_until_the_clock_is_set() -> None:
    now = {"monotonic": 100.0, "wall": 1_700_000_000.0}
    clock = Clock(lambda: now["monotonic"], lambda: now["wall"])
    shown = rfc3339(90.0 + clock.offset())
    assert shown == "2023-11-14T22:13:10.000Z"
    now["wall"] += 0.0009
    assert rfc3339(90.0 + clock.offset()) == shown
    now["wall"] += 3600
    assert rfc3339(90.0 + clock.offset()) == "2023-11-14T23:13:10.000Z"
