"""Clients that would hold up the server, over real sockets: slow, silent, endless, or not HTTP at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from meshd.api import limits
from meshd.api.connection import ServerConfig
from meshd.api.server import ApiEndpoints, serve_http
from tests.support.api_daemon import FakeDaemon, HttpClient
from tests.support.api_server import PATIENCE_S, served, served_with, until


@pytest.fixture
async def daemon(tmp_path: Path) -> FakeDaemon:
    return FakeDaemon(tmp_path)


@pytest.mark.req("SYN-14")
async def test_open_streams_do_not_hold_up_the_stop(daemon: FakeDaemon) -> None:
    async with served(daemon) as endpoints:
        client = await HttpClient.tcp(str(endpoints.tcp))
        await client.send("GET", "/events")
        assert (await client.event()).status_code == 200
        await client.event()
        started = trio.current_time()
    assert trio.current_time() - started < limits.STREAM_END_S
    await client.aclose()


@pytest.mark.req("SYN-14", "SEC-4")
async def test_a_stream_whose_client_does_not_read_does_not_hold_up_the_stop(daemon: FakeDaemon) -> None:
    async with served(daemon) as endpoints:
        client = await _stalled_stream(daemon, endpoints)
        started = trio.current_time()
    assert trio.current_time() - started < limits.STOP_GRACE_S
    await client.aclose()


async def _stalled_stream(daemon: FakeDaemon, endpoints: ApiEndpoints) -> HttpClient:
    """Open a stream, never read it, and make the daemon write more than sockets hold."""
    spec = {"url": "http://10.0.0.5:1", "note": "x" * 200_000, "health": {"disable_health_check": True}}
    writer = await HttpClient.tcp(str(endpoints.tcp))
    id = (await writer.call("POST", "/workers", spec)).expect(202).json()["worker_id"]
    client = await HttpClient.tcp(str(endpoints.tcp))
    await client.send("GET", "/events")
    for number in range(40):
        (await writer.call("PATCH", f"/workers/{id}", {"priority": number})).expect(202)
    await writer.aclose()
    return client


async def _endless(scope: Scope, receive: Receive, send: Send) -> None:
    """An application whose answers never end."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(1000):
        await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})


@pytest.mark.req("SEC-4", "SYN-14")
@pytest.mark.parametrize("ended_by", ["send limit", "stop"])
async def test_a_client_that_stops_reading_is_cut_off(tmp_path: Path, ended_by: str) -> None:
    config = ServerConfig()
    config.send_timeout_s = 0.2 if ended_by == "send limit" else PATIENCE_S
    stop = trio.Event()
    path = tmp_path / "socket"

    async def serve(task_status: trio.TaskStatus[ApiEndpoints]) -> None:
        await serve_http(
            _endless,
            bind=None,
            unix_path=path,
            guarded=False,
            stop=stop,
            on_stop=lambda: None,
            config=config,
            grace_s=0.2,
            task_status=task_status,
        )

    with trio.fail_after(PATIENCE_S / 2):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            client = await HttpClient.unix(os.fspath(path))
            await client.send("GET", "/")
            await until(lambda: config.open_connections == 1)
            if ended_by == "send limit":
                await until(lambda: config.open_connections == 0)
            stop.set()
    await client.aclose()


@pytest.mark.req("SEC-4")
async def test_an_idle_connection_is_closed_and_a_busy_one_is_not(daemon: FakeDaemon, tmp_path: Path) -> None:
    config = ServerConfig()
    config.keep_alive_timeout = 0.1
    async with served_with(config, daemon, tmp_path / "socket") as path:
        silent = await trio.open_unix_socket(path)
        stream = await HttpClient.unix(path)
        await stream.send("GET", "/events")
        await stream.event()
        used = await HttpClient.unix(path)
        (await used.call("GET", "/healthz")).expect(200)
        assert await silent.receive_some() == b""
        assert await used.stream.receive_some() == b""
        await until(lambda: config.open_connections == 1)
        fresh = await HttpClient.unix(path)
        (await fresh.call("POST", "/workers", {"url": "http://10.0.0.5:1"})).expect(202)
        while b"registered" not in bytes((await stream.event()).data):
            pass
        for client in (fresh, stream, used):
            await client.aclose()
        await silent.aclose()


@pytest.mark.req("SYN-14")
async def test_idle_connections_are_closed_at_stop_at_once(daemon: FakeDaemon) -> None:
    async with served(daemon) as endpoints:
        clients = [await HttpClient.tcp(str(endpoints.tcp)) for _ in range(5)]
        for client in clients[:3]:
            (await client.call("GET", "/healthz")).expect(200)
        started = trio.current_time()
    assert trio.current_time() - started < limits.STREAM_END_S
    for client in clients:
        await client.aclose()


@pytest.mark.req("SEC-4")
async def test_a_connection_over_the_bound_is_closed_and_others_go_on(tmp_path: Path) -> None:
    config = ServerConfig()
    config.max_connections = 2
    stop = trio.Event()
    path = tmp_path / "socket"

    async def serve(task_status: trio.TaskStatus[ApiEndpoints]) -> None:
        await serve_http(
            Response("fine"),
            bind=None,
            unix_path=path,
            guarded=False,
            stop=stop,
            on_stop=lambda: None,
            config=config,
            task_status=task_status,
        )

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            kept = [await HttpClient.unix(os.fspath(path)) for _ in range(2)]
            for client in kept:
                (await client.call("GET", "/")).expect(200)
            third = await trio.open_unix_socket(os.fspath(path))
            assert await third.receive_some() == b""
            for client in kept:
                (await client.call("GET", "/")).expect(200)
                await client.aclose()
            await third.aclose()
            stop.set()


@pytest.mark.req("CTL-4")
async def test_the_connection_is_kept_after_a_stream_has_ended(daemon: FakeDaemon) -> None:
    async with served(daemon) as endpoints:
        client = await HttpClient.tcp(str(endpoints.tcp))
        await client.call("HEAD", "/healthz")
        (await client.call("GET", "/healthz")).expect(200)
        for _ in range(3):
            (await client.call("GET", "/nowhere")).expect(404)
        await client.aclose()


@pytest.mark.req("SEC-4")
async def test_a_client_that_leaves_its_stream_is_noticed(daemon: FakeDaemon) -> None:
    async with served(daemon) as endpoints:
        client = await HttpClient.tcp(str(endpoints.tcp))
        await client.send("GET", "/events")
        await client.event()
        other = await HttpClient.tcp(str(endpoints.tcp))
        assert await _streams(other) == 1
        await client.aclose()
        for _ in range(500):
            if not await _streams(other):
                break
        else:
            raise AssertionError("the stream is still counted")
        await other.aclose()


async def _streams(client: HttpClient) -> int:
    text = (await client.call("GET", "/metrics")).expect(200).body.decode()
    return int(float(text.partition("\nmeshd_api_streams ")[2].split("\n")[0]))


@pytest.mark.req("SEC-4", "CTL-5")
@pytest.mark.parametrize("target", ["/workers", "/nowhere", "/healthz"])
async def test_a_body_over_the_limit_is_answered_and_blocks_nothing(daemon: FakeDaemon, target: str) -> None:
    async with served(daemon) as endpoints:
        client = await HttpClient.tcp(str(endpoints.tcp))
        answer = await client.call("POST", target, b"x" * (4 * 1024 * 1024))
        assert answer.status in (404, 405, 413)
        assert answer.json()["code"] in ("TOO_LARGE", "NOT_FOUND", "METHOD_NOT_ALLOWED")
        (await client.call("GET", "/healthz")).expect(200)
        await client.aclose()


@pytest.mark.req("SEC-4")
async def test_a_body_without_end_costs_its_sender_the_connection(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DISCARD_BYTES", 1024 * 1024)
    async with served(daemon) as endpoints:
        host, _, port = str(endpoints.tcp).rpartition(":")
        stream = await trio.open_tcp_stream(host, int(port))
        await stream.send_all(b"POST /workers HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        received = b""

        async def read() -> None:
            nonlocal received
            with contextlib.suppress(trio.BrokenResourceError):
                while data := await stream.receive_some():
                    received += data

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with contextlib.suppress(trio.BrokenResourceError):
                for _ in range(10_000):
                    await stream.send_all(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                raise AssertionError("it was all taken")
        assert b" 413 " in received
        await stream.aclose()


@pytest.mark.req("CTL-5", "SEC-4")
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nbig: " + b"x" * 100_000, b"431"),
        (b"POST /workers HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", b"400"),
    ],
)
async def test_what_is_not_http_is_answered_as_json_and_closed(
    daemon: FakeDaemon, sent: bytes, status: bytes
) -> None:
    async with served(daemon) as endpoints:
        host, _, port = str(endpoints.tcp).rpartition(":")
        stream = await trio.open_tcp_stream(host, int(port))
        await stream.send_all(sent)
        received = b""
        with contextlib.suppress(trio.BrokenResourceError):
            while data := await stream.receive_some():
                received += data
        assert received.startswith(b"HTTP/1.1 " + status)
        assert b'"code":"BAD_REQUEST"' in received
        await stream.aclose()


@pytest.mark.req("SEC-4")
@pytest.mark.parametrize(
    "headers",
    [
        {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-key": "x" * 22 + "=="},
        {"connection": "upgrade, http2-settings", "upgrade": "h2c", "http2-settings": "AAMAAABk"},
    ],
)
async def test_upgrades_to_other_protocols_are_ignored(daemon: FakeDaemon, headers: dict[str, str]) -> None:
    async with served(daemon) as endpoints:
        client = await HttpClient.tcp(str(endpoints.tcp))
        (await client.call("GET", "/healthz", headers=headers)).expect(200)
        await client.aclose()


@pytest.mark.req("SYN-14")
async def test_a_running_request_is_finished_at_stop(tmp_path: Path) -> None:
    daemon = FakeDaemon(tmp_path)
    entered, go = trio.Event(), trio.Event()

    async def slow_flush() -> bool:
        entered.set()
        await go.wait()
        return True

    daemon.mesh.flush = slow_flush  # type: ignore[method-assign]  # the disk is slow
    async with served(daemon) as endpoints:
        client = await HttpClient.tcp(str(endpoints.tcp))
        await client.send("POST", "/workers", b'{"url": "http://10.0.0.5:1"}')
        await entered.wait()
        daemon.stop.set()
        await trio.testing.wait_all_tasks_blocked()
        go.set()
        (await client.answer()).expect(202)
        await client.aclose()


@pytest.mark.req("CTL-4")
async def test_a_fault_in_a_handler_is_a_json_error_and_costs_nobody_else(daemon: FakeDaemon) -> None:
    async def broken() -> bool:
        raise RuntimeError("a bug")

    daemon.mesh.flush = broken  # type: ignore[method-assign]  # a bug
    async with served(daemon) as endpoints:
        client = await HttpClient.tcp(str(endpoints.tcp))
        answer = await client.call("POST", "/workers", {"url": "http://10.0.0.5:1"})
        assert answer.expect(500).json()["code"] == "INTERNAL"
        assert b"a bug" not in answer.body
        (await client.call("GET", "/healthz")).expect(200)
        await client.aclose()
