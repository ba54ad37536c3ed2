"""`/config` and `/reload` over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshd.api import schemas
from meshd.api.app import create_app
from meshd.config_live import CLUSTER_WIDE, encode_value
from tests.support.api_daemon import Caller, FakeDaemon, make_app


@pytest.mark.req("CTL-4", "CRD-3")
async def test_settings_are_listed_with_the_clusters_value_the_one_in_force_and_its_source() -> None:
    api = Caller(make_app(FakeDaemon(Path("/nonexistent"), "capacity.slots_per_worker=3")))
    for name, value in (("capacity.override", 9), ("capacity.slots_per_worker", 8)):
        (await api.call("PUT", f"/config/{name}", {"value": value})).expect(200)
    body = await api.get("/config")
    msgspec.convert(body, schemas.SettingListing)
    rows: dict[str, Any] = {row["key"]: row for row in body["settings"]}
    assert list(rows) == list(CLUSTER_WIDE)
    shown = ("cluster", "in_force", "source", "beaten_by", "set_on")
    assert [rows["capacity.override"][name] for name in shown] == [9, 9, "cluster", None, "a"]
    assert [rows["capacity.slots_per_worker"][name] for name in shown] == [8, 3, "--set", "--set", "a"]
    assert [rows["log.level"][name] for name in shown] == [None, "info", "default", None, None]


@pytest.mark.req("CTL-4", "CRD-3")
async def test_a_setting_is_set_shown_and_taken_back(daemon: FakeDaemon, api: Caller) -> None:
    row = (await api.call("PUT", "/config/health.timeout_secs", {"value": 2})).expect(200).json()
    assert (row["cluster"], row["in_force"]) == (2.0, 2.0)
    assert daemon.mesh.flushes == 1
    assert (await api.get("/config/health.timeout_secs"))["cluster"] == 2.0
    assert (await api.get("/mesh/store/config:health.timeout_secs"))["entries"][0]["value"] == 2.0
    row = (await api.call("DELETE", "/config/health.timeout_secs")).expect(200).json()
    assert (row["cluster"], row["in_force"], row["source"]) == (None, 5.0, "default")
    answer = (await api.call("DELETE", "/config/health.timeout_secs")).expect(404).json()
    assert answer["code"] == "KEY_NOT_FOUND"


@pytest.mark.req("CTL-5")
@pytest.mark.parametrize(
    ("target", "body", "field"),
    [
        ("capacity.override", {"value": 70_000}, "capacity.override"),
        ("capacity.override", {"value": None}, "value"),
        ("capacity.override", {"value": [1]}, "value"),
        ("capacity.override", {}, "value"),
        ("capacity.override", {"value": 1, "x": 2}, "x"),
        ("node.name", {"value": "b"}, "node.name"),
        ("nonsense", {}, "nonsense"),
    ],
)
async def test_what_cannot_be_set_is_refused_and_nothing_is_written(
    daemon: FakeDaemon, api: Caller, target: str, body: object, field: str
) -> None:
    answer = (await api.call("PUT", f"/config/{target}", body)).expect(400).json()
    assert (answer["code"], answer["field"]) == ("BAD_REQUEST", field)
    assert list(daemon.mesh.node.store.visible_keys("config:")) == []
    for method in ("GET", "DELETE"):
        if target in ("node.name", "nonsense"):
            assert (await api.call(method, f"/config/{target}")).expect(400).json()["field"] == field


@pytest.mark.req("CRD-3")
async def test_what_a_newer_version_set_is_shown_and_can_be_taken_back(
    daemon: FakeDaemon, api: Caller
) -> None:
    daemon.mesh.node.store.put("config:health.a/b", encode_value({"x": 1}))
    daemon.mesh.after_write()
    row = (await api.get("/config"))["settings"][-1]
    assert (row["key"], row["cluster"], row["cluster_wide"]) == ("health.a/b", "{'x': 1}", False)
    assert "no such setting" in row["problem"]
    (await api.call("DELETE", "/config/health.a/b")).expect(200)
    assert list(daemon.mesh.node.store.visible_keys("config:")) == []


@pytest.mark.req("CTL-3", "CTL-5")
async def test_reload_tells_what_changed_and_refuses_a_bad_file(daemon: FakeDaemon, api: Caller) -> None:
    daemon.sets = (*daemon.sets, "capacity.override=4", "store.max_keys=99")
    body = (await api.call("POST", "/reload", {})).expect(200).json()
    msgspec.convert(body, schemas.ReloadedBody)
    assert (body["applied"], body["needs_restart"]) == (["capacity.override"], ["store.max_keys"])
    assert (await api.get("/capacity"))["capacity"] == 4
    daemon.sets = (*daemon.sets, "capacity.override=-1")
    answer = (await api.call("POST", "/reload", {})).expect(400).json()
    assert (answer["code"], answer["field"]) == ("BAD_CONFIG", "capacity.override")
    assert (await api.get("/capacity"))["capacity"] == 4


@pytest.mark.req("SEC-3")
async def test_a_reload_reads_the_token_files_again(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("first-token\n")
    file.chmod(0o600)
    daemon = FakeDaemon(tmp_path, f"api.write_token_file={file}")
    app = create_app(daemon)
    first = Caller(app, headers={"authorization": "Bearer first-token"})
    second = Caller(app, headers={"authorization": "Bearer second-token"})
    (await second.call("POST", "/reload", {})).expect(401)
    file.write_text("second-token\n")
    (await first.call("POST", "/reload", {})).expect(200)
    (await first.call("GET", "/config")).expect(401)
    (await second.call("GET", "/config")).expect(200)
