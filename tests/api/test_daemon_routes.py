"""Probes, metrics, OpenAPI, docs, capacity and the log's level."""

from __future__ import annotations

import re

import msgspec
import pytest

from meshd.api import schemas
from meshd.api.operations import OPERATIONS
from tests.support.api_daemon import Caller, FakeDaemon, make_app

SPEC = {
    "url": "http://10.0.0.5:8000",
    "models": [{"id": "m"}],
    "health": {"disable_health_check": True},
    "labels": {"max_running_requests": "8"},
}


@pytest.mark.req("CTL-4")
async def test_ready_is_not_told_before_the_daemon_has_started(daemon: FakeDaemon, api: Caller) -> None:
    (await api.call("GET", "/healthz")).expect(200)
    assert (await api.get("/readyz")) == {"ready": True}
    daemon.started = False
    assert (await api.call("GET", "/readyz")).expect(503).json() == {"ready": False}


@pytest.mark.req("CTL-3")
async def test_the_log_level_is_changed_and_bad_ones_refused(daemon: FakeDaemon, api: Caller) -> None:
    (await api.call("PUT", "/log-level", {"level": "debug"})).expect(200)
    assert daemon.log_control.level == "debug"
    for body in ({"level": "loud"}, {}, {"level": 1}, {"level": "error"}):
        answer = (await api.call("PUT", "/log-level", body)).expect(400).json()
        assert answer["field"] == "level"
    answer = (await api.call("PUT", "/log-level", {"level": "info", "nonsense": 1})).expect(400).json()
    assert answer["field"] == "nonsense"
    assert daemon.log_control.level == "debug"


@pytest.mark.req("CAP-5")
async def test_capacity_is_told_for_the_fleet_and_for_a_model(api: Caller) -> None:
    await api.call("POST", "/workers", SPEC)
    whole = await api.get("/capacity")
    assert whole == {
        "capacity": 8,
        "source": "worker_reported",
        "workers_available": 1,
        "per_model": {"m": 8},
        "cluster": {"a": 8},
    }
    assert (await api.get("/capacity?model=m"))["capacity"] == 8
    assert (await api.get("/capacity?model=other"))["capacity"] == 0


def _samples(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@pytest.mark.req("CAP-5", "CTL-4")
async def test_metrics_tell_of_workers_capacity_and_requests(api: Caller) -> None:
    await api.call("POST", "/workers", SPEC)
    await api.call("GET", "/nowhere")
    answer = (await api.call("GET", "/metrics")).expect(200)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = _samples(answer.body.decode())
    assert samples["meshd_backend_capacity"] == 8
    assert samples['meshd_backend_capacity_source{source="worker_reported"}'] == 1
    assert samples['meshd_backend_capacity_source{source="override"}'] == 0
    assert samples["meshd_backend_workers_available"] == 1
    assert samples["meshd_backend_capacity_recompute_total"] >= 1
    assert samples['meshd_workers{origin="local",status="ready"}'] == 1
    assert samples['meshd_members{state="alive"}'] == 1
    assert samples['meshd_api_requests_total{code="202",method="POST",route="/workers"}'] == 1
    assert samples['meshd_api_requests_total{code="404",method="GET",route="none"}'] == 1
    assert samples["meshd_sync_published_total"] == 1


@pytest.mark.req("CTL-4")
async def test_metrics_do_not_grow_with_workers_or_with_nonsense_requests(api: Caller) -> None:
    async def series() -> set[str]:
        return set(_samples((await api.call("GET", "/metrics")).body.decode()))

    for _ in range(2):
        await api.call("POST", "/workers", SPEC)
        await api.call("GET", "/nowhere")
        await api.call("NONSENSE", "/workers")
        await series()
    before = await series()
    for number in range(50):
        await api.call("POST", "/workers", {**SPEC, "url": f"http://10.0.1.{number}:1", "models": []})
        await api.call("GET", f"/nowhere/{number}")
        await api.call(f"NONSENSE{number}", "/workers")
    assert await series() == before


@pytest.mark.req("CTL-4")
async def test_two_daemons_in_one_process_count_for_themselves(api: Caller) -> None:
    other = Caller(make_app(FakeDaemon(node="b")))
    await api.call("POST", "/workers", SPEC)
    samples = _samples((await other.call("GET", "/metrics")).body.decode())
    assert samples['meshd_workers{origin="local",status="ready"}'] == 0


@pytest.mark.req("CTL-4")
async def test_openapi_lists_every_operation_with_its_bodies(api: Caller) -> None:
    document = await api.get("/openapi.json")
    assert document["openapi"].startswith("3.1")
    assert document["info"]["version"] == "1.2.3"
    listed = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    table = {(operation.method, operation.path.replace(":path}", "}")) for operation in OPERATIONS}
    assert listed == table
    references = set(re.findall(r"#/components/schemas/(\w+)", msgspec.json.encode(document).decode()))
    assert references <= document["components"]["schemas"].keys()
    ids = [entry["operationId"] for methods in document["paths"].values() for entry in methods.values()]
    assert len(ids) == len(set(ids))
    for path, methods in document["paths"].items():
        for entry in methods.values():
            named = {param["name"] for param in entry.get("parameters", ()) if param["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))


@pytest.mark.req("CTL-4")
async def test_the_docs_page_shows_every_operation_and_fetches_nothing_from_elsewhere(api: Caller) -> None:
    answer = (await api.call("GET", "/docs")).expect(200)
    page = answer.body.decode()
    for operation in OPERATIONS:
        assert operation.summary.replace("'", "&#x27;") in page
    assert "<script" not in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    targets = set(re.findall(r'href="#(\w+)"', page))
    assert targets <= set(re.findall(r'id="(\w+)"', page))


@pytest.mark.req("CTL-4")
async def test_real_answers_have_the_documented_shape(api: Caller) -> None:
    id = (await api.call("POST", "/workers", SPEC)).json()["worker_id"]
    for target, shape in (
        ("/workers", schemas.WorkerListing),
        (f"/workers/{id}", schemas.WorkerInfo),
        ("/capacity", schemas.Capacity),
        ("/mesh/members", schemas.MemberListing),
        ("/mesh/store", schemas.StoreListing),
        ("/readyz", schemas.Ready),
    ):
        msgspec.convert(await api.get(target), shape)
