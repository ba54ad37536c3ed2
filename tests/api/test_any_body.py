"""Whatever a client sends is answered as documented: never a fault, never half a change."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshd.api import schemas
from meshd.api.operations import OPERATIONS
from meshd.workers.record import worker_id
from tests.support.api_daemon import Caller, FakeDaemon, make_app

URL = "http://10.0.0.5:8000"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from([*schemas.WorkerSpecBody.__struct_fields__, "runtime", "unknown"])
specs = st.dictionaries(names, json_values, max_size=5).map(lambda body: {"url": URL, **body})
likely_specs = st.fixed_dictionaries(
    {"url": st.sampled_from([URL, "http://[::1]:8000/", "grpc://x:1", "ipc:///tmp/x", "HTTP://X"])},
    optional={
        "models": st.lists(st.fixed_dictionaries({"id": st.text(max_size=5)}), max_size=2),
        "labels": st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
        "priority": st.integers(-5, 2**33),
        "cost": st.floats(),
        "health": st.dictionaries(
            st.sampled_from(schemas.Health.__struct_fields__),
            st.integers(-1, 100) | st.booleans(),
            max_size=3,
        ),
        "extra": json_values,
    },
).filter(lambda body: body.get("cost", 1.0) == body.get("cost", 1.0))


def _run(calls: list[tuple[str, str, Any]]) -> None:
    """Make the calls; after each, the listing is whole and each refusal has left it as it was."""

    async def main() -> None:
        api = Caller(make_app(FakeDaemon()))
        before = await api.get("/workers")
        for method, target, body in calls:
            answer = await api.call(method, target, body)
            after = await api.get("/workers")
            if answer.status >= 300:
                error = answer.json()
                assert answer.status in (400, 404, 405, 409, 412, 413), error
                assert {"error", "code"} <= error.keys()
                assert after == before
            else:
                assert answer.status in (200, 202)
            before = after

    trio.run(main)


@pytest.mark.req("CTL-5", "SEC-4")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(specs | likely_specs, min_size=1, max_size=3), json_values)
def test_any_spec_is_taken_whole_or_refused_whole(bodies: list[dict[str, Any]], patch: Any) -> None:
    id = worker_id("a", URL)
    _run(
        [
            ("POST", "/workers", {"url": URL}),
            *(("POST", "/workers", body) for body in bodies),
            ("PATCH", f"/workers/{id}", patch),
            ("PATCH", f"/workers/{id}", bodies[0]),
            *(("PUT", f"/workers/{id}", body) for body in bodies),
            ("POST", "/workers", patch),
        ]
    )


@pytest.mark.req("CTL-5", "SEC-4")
@settings(max_examples=150, deadline=None)
@given(
    # A stream has no end to wait for, and a daemon without a disk has no snapshot.
    st.sampled_from(
        [operation for operation in OPERATIONS if operation.path not in ("/events", "/snapshot")]
    ),
    st.text(min_size=1, max_size=12).filter(lambda text: "?" not in text),
    st.dictionaries(st.sampled_from(["limit", "after", "type", "label", "url", "x"]), st.text(max_size=8)),
    st.binary(max_size=40),
)
def test_any_request_is_answered(operation: Any, word: str, query: dict[str, str], body: bytes) -> None:
    target = operation.path.replace("{key:path}", quote(word, safe=""))
    for name in ("{id}", "{node}"):
        target = target.replace(name, quote(word, safe=""))

    async def main() -> None:
        api = Caller(make_app(FakeDaemon()))
        answer = await api.call(operation.method, f"{target}?{urlencode(query)}", body)
        assert answer.status in (200, 202, 400, 404, 405, 409)

    trio.run(main)
