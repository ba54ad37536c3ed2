"""`/mesh/*`: the read models over HTTP, joining and leaving."""

from __future__ import annotations

import pytest

from meshd.workers.record import worker_key
from tests.support.api_daemon import Caller, FakeDaemon, make_app

UNCHECKED = {"health": {"disable_health_check": True}}


async def _register(api: Caller, count: int) -> list[str]:
    urls = [f"http://10.0.{number // 200}.{number % 200}:8000" for number in range(count)]
    for url in urls:
        (await api.call("POST", "/workers", {"url": url, **UNCHECKED})).expect(202)
    return sorted(worker_key("a", url) for url in urls)


@pytest.mark.req("CTL-2")
async def test_status_tells_who_this_node_is_and_counts(api: Caller) -> None:
    await _register(api, 2)
    status = await api.get("/mesh/status")
    assert (status["node"], status["cluster"]) == ("a", "default")
    assert status["counts"]["keys"] == 2
    assert status["counts"]["workers"] == {"total": 2, "local": 2, "ready": 2}
    assert status.keys() >= {"gen", "uptime_s", "digest", "reconcile", "storage"}


@pytest.mark.req("CTL-2")
async def test_members_include_this_node(api: Caller) -> None:
    members = (await api.get("/mesh/members"))["members"]
    assert [(member["name"], member["state"], member["self"]) for member in members] == [("a", "alive", True)]


@pytest.mark.req("CTL-2")
async def test_the_vector_tells_gen_max_and_floor_per_owner(api: Caller) -> None:
    await _register(api, 3)
    vector = await api.get("/mesh/vector")
    assert vector["a"]["max"] == 3
    assert vector["a"].keys() >= {"gen", "max", "floor"}


@pytest.mark.req("CTL-2")
@pytest.mark.parametrize("limit", [1, 3, 1000])
async def test_pages_of_the_store_join_to_the_whole(api: Caller, limit: int) -> None:
    keys = await _register(api, 7)
    seen: list[str] = []
    target = f"/mesh/store?limit={limit}"
    while True:
        page = await api.get(target)
        seen += [entry["key"] for entry in page["entries"]]
        if "next" not in page:
            break
        assert len(page["entries"]) <= limit
        target = f"/mesh/store?limit={limit}&after={page['next']}"
    assert seen == keys


@pytest.mark.req("CTL-2")
async def test_tombstones_are_listed_when_asked_for(api: Caller) -> None:
    (key,) = await _register(api, 1)
    id = key.partition(":")[2]
    (await api.call("DELETE", f"/workers/{id}?drain=0")).expect(202)
    assert (await api.get("/mesh/store"))["entries"] == []
    (entry,) = (await api.get("/mesh/store?tombstones=1"))["entries"]
    assert (entry["key"], entry["tombstone"], entry["value"]) == (key, True, None)
    (entry,) = (await api.get(f"/mesh/store/{key}"))["entries"]
    assert entry["tombstone"] is True


@pytest.mark.req("CTL-2")
async def test_a_prefix_chooses_keys(api: Caller) -> None:
    await _register(api, 2)
    assert len((await api.get("/mesh/store?prefix=worker:"))["entries"]) == 2
    assert (await api.get("/mesh/store?prefix=config:"))["entries"] == []


@pytest.mark.req("CTL-2", "CTL-5")
async def test_an_entry_is_shown_decoded_and_a_missing_key_is_404(api: Caller) -> None:
    (key,) = await _register(api, 1)
    (entry,) = (await api.get(f"/mesh/store/{key}"))["entries"]
    assert entry["value"]["spec"]["url"] == "http://10.0.0.0:8000"
    assert entry["owner"] == "a"
    answer = (await api.call("GET", "/mesh/store/worker:none")).expect(404).json()
    assert answer["code"] == "KEY_NOT_FOUND"


@pytest.mark.req("CTL-3", "LIF-8")
async def test_why_explains_a_url(api: Caller) -> None:
    await _register(api, 1)
    assert (await api.get("/mesh/why?url=HTTP://10.0.0.0:8000/"))["routable"] is True
    assert (await api.get("/mesh/why?url=http://10.9.9.9:1"))["routable"] is False
    for target in ("/mesh/why", "/mesh/why?url=", "/mesh/why?url=nonsense"):
        assert (await api.call("GET", target)).expect(400).json()["field"] == "url"


@pytest.mark.req("CTL-3")
async def test_a_node_alone_has_converged(api: Caller) -> None:
    body = await api.get("/mesh/converge")
    (node,) = body["nodes"]
    assert body["converged"] is True
    assert (node["name"], node["lag"], node["digest"]) == ("a", 0, body["digest"])


@pytest.mark.req("CTL-3", "MSH-1")
async def test_join_dials_the_peers_and_refuses_what_cannot_be_dialled(
    daemon: FakeDaemon, api: Caller
) -> None:
    body = {"peers": ["10.0.0.7:7390", "Node-B.example:7390", "[::1]:7390"]}
    (await api.call("POST", "/mesh/join", body)).expect(202)
    assert daemon.mesh.addresses == [
        ("10.0.0.7:7390", "join"),
        ("node-b.example:7390", "join"),
        ("[::1]:7390", "join"),
    ]
    daemon.mesh.addresses.clear()
    for peers, field in (
        (["good:1", "no-port"], "peers[1]"),
        (["x:0"], "peers[0]"),
        (["0.0.0.0:1"], "peers[0]"),
        (["http://x:1"], "peers[0]"),
        ([], "peers"),
        ("x:1", "peers"),
    ):
        answer = (await api.call("POST", "/mesh/join", {"peers": peers})).expect(400).json()
        assert answer["field"] == field
    assert (await api.call("POST", "/mesh/join", {})).expect(400).json()["field"] == "peers"
    assert daemon.mesh.addresses == []


@pytest.mark.req("CTL-3", "SYN-14")
async def test_leave_withdraws_workers_unless_told_to_keep_them(daemon: FakeDaemon, api: Caller) -> None:
    (await api.call("POST", "/mesh/leave")).expect(202)
    (await api.call("POST", "/mesh/leave", {"keep_workers": True})).expect(202)
    assert daemon.left == [False, True]
    answer = (await api.call("POST", "/mesh/leave", {"keep_wrkers": True})).expect(400).json()
    assert answer["field"] == "keep_wrkers"
    assert len(daemon.left) == 2


@pytest.mark.req("SYN-13", "CTL-3")
async def test_a_node_that_lives_or_is_not_known_is_not_forgotten(api: Caller) -> None:
    assert (await api.call("POST", "/mesh/forget/a", {})).expect(409).json()["code"] == "CONFLICT"
    assert (await api.call("POST", "/mesh/forget/z")).expect(404).json()["code"] == "MEMBER_NOT_FOUND"
    (await api.call("POST", "/mesh/forget/z", {"x": 1})).expect(400)


@pytest.mark.req("SYN-13", "CTL-3")
async def test_a_dead_nodes_workers_are_forgotten() -> None:
    other = FakeDaemon(node="b")
    await _register(Caller(make_app(other)), 1)
    daemon = FakeDaemon(peer=other)
    daemon.mesh.after_write()
    api = Caller(make_app(daemon))
    assert [worker["owner"] for worker in (await api.get("/workers"))["workers"]] == ["b"]
    (await api.call("POST", "/mesh/forget/b", {})).expect(202)
    assert (await api.get("/workers"))["workers"] == []


@pytest.mark.req("CTL-3")
async def test_groups_follow_from_who_sees_whom(
    daemon: FakeDaemon, api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await api.get("/mesh/partitions") == {"views": {"a": []}, "groups": [["a"]], "unseen": []}
    views = {"a": ["b"], "d": ["e"], "c": ["b"], "e": []}
    monkeypatch.setattr(daemon.mesh.node, "peer_views", lambda: views)
    assert (await api.get("/mesh/partitions"))["groups"] == [["a", "b", "c"], ["d", "e"]]
