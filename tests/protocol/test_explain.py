"""What is told of a key: every entry of it, what became of each, and who has it."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.protocol.explain import explain_key
from tests.support.api_daemon import Caller, FakeDaemon, make_app

URL = "http://10.0.0.5:8000"
UNCHECKED = {"health": {"disable_health_check": True}}


def told(daemon: FakeDaemon, key: str) -> dict[str, Any]:
    return explain_key(daemon.mesh.node, 1_700_000_000_000, key)


@pytest.mark.req("CTL-3")
async def test_an_own_worker_counts_and_its_removal_is_told_as_such() -> None:
    daemon = FakeDaemon()
    api = Caller(make_app(daemon))
    worker = (await api.call("POST", "/workers", {"url": URL, **UNCHECKED})).expect(202).json()["worker_id"]
    key = f"worker:{worker}"
    body = await api.get(f"/mesh/explain/{key}")
    (entry,) = body["entries"]
    assert (body["visible"], body["owner"], body["rule"]) == (True, "a", "single-writer")
    assert (entry["verdict"], entry["came_by"], entry["acknowledged"]) == ("counts", "written here", {})
    (await api.call("DELETE", f"/workers/{worker}?drain=0")).expect(202)
    body = told(daemon, key)
    assert (body["visible"], body["removed_here"]) == (False, True)
    assert body["entries"][0]["verdict"] == "a removal by its owner"
    (await api.call("GET", "/mesh/explain/worker:none")).expect(404)


@pytest.mark.req("CTL-3", "SYN-7")
async def test_what_somebody_else_wrote_for_a_key_is_told_with_its_writer() -> None:
    other = FakeDaemon(node="b")
    daemon = FakeDaemon(peer=other)
    await Caller(make_app(daemon)).call("POST", "/workers", {"url": URL, **UNCHECKED})
    (key,) = daemon.mesh.node.store.visible_keys("worker:")
    entry = daemon.mesh.node.store.visible(key)
    assert entry is not None
    other.mesh.node.store.put(key, entry.value)
    again = FakeDaemon(peer=other)
    await Caller(make_app(again)).call("POST", "/workers", {"url": URL, **UNCHECKED})
    rows = told(again, key)["entries"]
    assert [(row["owner"], row["visible"]) for row in rows] == [("a", True), ("b", False)]
    assert rows[1]["verdict"] == "does not count: the key is not b's to write"
    assert "nobody connected" in rows[1]["came_by"]


@pytest.mark.req("CTL-3", "CRD-3")
async def test_of_a_setting_the_beaten_version_and_the_removal_are_told() -> None:
    other = FakeDaemon(node="b")
    other.settings.set_for_cluster("capacity.override", 5)
    daemon = FakeDaemon(peer=other)
    daemon.settings.set_for_cluster("capacity.override", 6)
    rows = told(daemon, "config:capacity.override")["entries"]
    assert [(row["owner"], row["verdict"]) for row in rows] == [
        ("a", "counts"),
        ("b", "beaten by version 2 of a"),
    ]
    assert [row["value"] for row in rows] == [6, 5]
    daemon.settings.unset_for_cluster("capacity.override")
    rows = told(daemon, "config:capacity.override")["entries"]
    assert [(row["tombstone"], row["verdict"]) for row in rows] == [
        (True, "a removal that counts"),
        (False, "beaten by a removal"),
    ]
