"""What every request passes: unknown paths and methods, guards, bodies, and the answers for errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trio

from meshd.api import limits
from meshd.api.app import load_guard
from meshd.api.boundary import Boundary, Router
from meshd.api.guard import Access, Guard, load_tokens
from meshd.api.operations import OPERATIONS
from meshd.api.table import Operation
from meshd.errors import ConfigError
from tests.support.api_daemon import Caller, FakeDaemon, make_app

READ, WRITE = "read-token-1234", "write-token-1234"


def _path(operation: Operation) -> str:
    """A path of this operation, with something in the place of each parameter."""
    return re.sub(r"{.*?}", "x", operation.path)


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.req("CTL-5")
async def test_an_unknown_path_is_a_json_error(api: Caller) -> None:
    for target in ("/", "/nowhere", "/workers/", "/workers/a/b/c", "/Workers", "/mesh", "*"):
        answer = (await api.call("GET", target)).expect(404)
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["code"] == "NOT_FOUND"


@pytest.mark.req("CTL-5")
@pytest.mark.parametrize("method", ["DELETE", "PUT", "OPTIONS", "TRACE", "NONSENSE"])
async def test_a_method_that_a_path_does_not_know_is_405_and_names_those_it_knows(
    api: Caller, method: str
) -> None:
    answer = (await api.call(method, "/workers")).expect(405)
    assert answer.json()["code"] == "METHOD_NOT_ALLOWED"
    assert answer.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.req("CTL-5")
async def test_a_query_parameter_that_is_not_known_is_refused_everywhere(api: Caller) -> None:
    for operation in OPERATIONS:
        answer = (await api.call(operation.method, _path(operation) + "?nonsense=1")).expect(400).json()
        assert answer["field"] == "nonsense", operation.path


@pytest.mark.req("CTL-5")
def test_a_table_with_a_row_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Router([OPERATIONS[0], OPERATIONS[0]])


@pytest.mark.req("CTL-4")
def test_a_key_with_slashes_and_colons_is_one_path_parameter() -> None:
    router = Router(OPERATIONS)
    _, values = router.find("GET", "/mesh/store/config:a/b c\n")
    assert values == {"key": "config:a/b c\n"}


@pytest.mark.req("SEC-3")
async def test_without_tokens_everything_is_open_on_loopback(api: Caller) -> None:
    (await api.call("GET", "/workers")).expect(200)
    (await api.call("POST", "/workers", {"url": "http://10.0.0.5:1"})).expect(202)


@pytest.mark.req("SEC-3")
@pytest.mark.parametrize(
    ("token", "read", "write"),
    [(None, 401, 401), ("wrong-token-1234", 401, 401), (READ, 200, 403), (WRITE, 200, 202)],
)
async def test_tokens_decide_who_reads_and_who_writes(
    daemon: FakeDaemon, token: str | None, read: int, write: int
) -> None:
    api = Caller(make_app(daemon, Guard([READ], [WRITE])), headers=_bearer(token) if token else {})
    answer = (await api.call("GET", "/workers")).expect(read)
    assert read != 401 or answer.headers["www-authenticate"] == "Bearer"
    body = {"url": "http://10.0.0.5:1"}
    (await api.call("POST", "/workers", body)).expect(write)
    assert len(daemon.plane.registry) == (write == 202)
    for probe in ("/healthz", "/readyz"):
        (await api.call("GET", probe)).expect(200)


@pytest.mark.req("SEC-3")
async def test_every_operation_that_changes_something_wants_a_write_token(daemon: FakeDaemon) -> None:
    api = Caller(make_app(daemon, Guard([READ], [WRITE])), headers=_bearer(READ))
    for operation in OPERATIONS:
        if operation.method != "GET":
            assert operation.access is Access.WRITE, operation.path
            (await api.call(operation.method, _path(operation), {})).expect(403)


@pytest.mark.req("SEC-3")
async def test_the_unix_socket_asks_for_no_token(daemon: FakeDaemon) -> None:
    api = Caller(make_app(daemon, Guard([READ], [WRITE])), unix=True)
    (await api.call("POST", "/workers", {"url": "http://10.0.0.5:1"})).expect(202)


@pytest.mark.req("SEC-3")
async def test_with_a_read_token_alone_nobody_writes_over_tcp(daemon: FakeDaemon) -> None:
    api = Caller(make_app(daemon, Guard([READ])), headers=_bearer(READ))
    (await api.call("GET", "/workers")).expect(200)
    (await api.call("POST", "/workers", {"url": "http://10.0.0.5:1"})).expect(403)


@pytest.mark.req("SEC-3")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://evil.example", "host": "evil.example"}, 403),
        ({"origin": "http://127.0.0.1:7391"}, 202),
        ({"origin": "http://localhost:7391", "host": "localhost:7391"}, 202),
        ({"origin": "http://[::1]:7391", "host": "[::1]:7391"}, 202),
        ({}, 202),
    ],
)
async def test_a_web_page_of_another_site_changes_nothing(
    daemon: FakeDaemon, headers: dict[str, str], status: int
) -> None:
    api = Caller(make_app(daemon))
    answer = await api.call("POST", "/workers", {"url": "http://10.0.0.5:1"}, headers)
    assert answer.status == status
    assert status == 202 or answer.json()["code"] == "CROSS_ORIGIN"
    (await api.call("GET", "/workers", headers=headers)).expect(200)


@pytest.mark.req("SEC-3")
def test_tokens_are_read_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("first-token-1\n\n  second-token-2  \n")
    file.chmod(0o600)
    assert load_tokens("api.read_token_file", file) == ("first-token-1", "second-token-2")
    assert load_tokens("api.read_token_file", None) == ()


@pytest.mark.req("SEC-3", "CTL-5")
@pytest.mark.parametrize("content", [None, "", "\n\n", "s3cret", "has a blank inside", "umläut-token-1"])
def test_a_token_file_that_cannot_guard_is_refused_by_name_without_showing_it(
    tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "tokens"
    if content is not None:
        file.write_text(content)
    daemon = FakeDaemon(tmp_path, f"api.write_token_file={file}")
    with pytest.raises(ConfigError) as refused:
        load_guard(daemon.config.api)
    assert refused.value.field == "api.write_token_file"
    assert not (content or "").strip() or str(content).strip() not in str(refused.value)


# --- bodies ------------------------------------------------------------------------------------------


async def _send_slowly(app: Boundary, headers: dict[str, str], chunks: list[bytes]) -> tuple[int, bytes]:
    """Send a body whose end never comes; returns status and answer."""
    scope = Caller(app).scope("POST", "/workers", headers)
    status, answer = 0, b""

    async def receive() -> Any:
        if chunks:
            return {"type": "http.request", "body": chunks.pop(0), "more_body": True}
        return await trio.sleep_forever()

    async def send(message: Any) -> None:
        nonlocal status, answer
        status = message.get("status", status)
        answer += message.get("body", b"")
        await trio.lowlevel.checkpoint()

    await app(scope, receive, send)
    return status, answer


@pytest.mark.req("SEC-4")
async def test_a_body_that_does_not_arrive_is_given_up(
    daemon: FakeDaemon, autojump_clock: trio.testing.MockClock
) -> None:
    started = trio.current_time()
    status, answer = await _send_slowly(make_app(daemon), {"transfer-encoding": "chunked"}, [b'{"url":'])
    assert status == 408
    assert b'"field":"body"' in answer
    assert trio.current_time() - started <= limits.BODY_TIMEOUT_S + limits.DISCARD_TIMEOUT_S


@pytest.mark.req("SEC-4")
@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_is_refused_also_when_its_length_was_not_announced(
    daemon: FakeDaemon, autojump_clock: trio.testing.MockClock, announced: bool
) -> None:
    size = limits.MAX_BODY_BYTES + 1
    headers = {"content-length": str(size)} if announced else {"transfer-encoding": "chunked"}
    status, answer = await _send_slowly(make_app(daemon), headers, [b"x" * size])
    assert status == 413
    assert b"TOO_LARGE" in answer


@pytest.mark.req("SEC-4")
async def test_a_client_that_leaves_before_its_body_is_complete_changes_nothing(daemon: FakeDaemon) -> None:
    app = make_app(daemon)
    scope = Caller(app).scope("POST", "/workers", {"content-length": "50"})
    messages = [{"type": "http.disconnect"}, {"type": "http.request", "body": b"{", "more_body": True}]
    sent: list[Any] = []

    async def receive() -> Any:
        await trio.lowlevel.checkpoint()
        return messages.pop()

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    await app(scope, receive, send)
    assert sent == []
    assert len(daemon.plane.registry) == 0
