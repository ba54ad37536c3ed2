"""What is handed on without a turn of the event loop: events to waiting streams, pieces of a body."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import h11
import msgspec
import pytest
import trio
import trio.testing

from meshd.api.connection import ServerConfig
from meshd.workers.model import parse_spec
from tests.support.api_daemon import FakeDaemon, HttpClient
from tests.support.api_server import served_with


@pytest.fixture
async def daemon(tmp_path: Path) -> FakeDaemon:
    return FakeDaemon(tmp_path)


async def _stream(path: str) -> HttpClient:
    """Open a stream of registrations and replacements, and read its snapshot."""
    client = await HttpClient.unix(path)
    await client.send("GET", "/events?types=registered,replaced")
    assert (await client.event()).status_code == 200
    seen = b""
    while not seen.endswith(b"\n\n"):
        seen += (await client.event()).data
    await trio.testing.wait_all_tasks_blocked()
    return client


def _register(daemon: FakeDaemon, number: int, note: str = "") -> None:
    spec = parse_spec({"url": f"http://10.0.0.{number}:1", "labels": {"note": note}})
    daemon.plane.register(spec, trio.current_time())
    daemon.mesh.after_write()


def _arrived(client: HttpClient) -> bytes:
    """What the kernel holds for a client at this moment."""
    return os.read(client.stream.socket.fileno(), 1 << 20)


@pytest.mark.req("MSH-3")
async def test_an_event_is_with_the_kernel_when_the_step_that_caused_it_ends(
    daemon: FakeDaemon, tmp_path: Path
) -> None:
    async with served_with(ServerConfig(), daemon, tmp_path / "socket") as path:
        client = await _stream(path)
        _register(daemon, 1)
        assert b"http://10.0.0.1:1" in _arrived(client)
        await client.aclose()


@pytest.mark.req("MSH-3", "REG-7")
async def test_events_of_one_go_are_two_writes_and_none_is_told_twice(
    daemon: FakeDaemon, tmp_path: Path
) -> None:
    async with served_with(ServerConfig(), daemon, tmp_path / "socket") as path:
        client = await _stream(path)
        for number in range(1, 6):
            _register(daemon, number)
        first = _arrived(client)
        await trio.testing.wait_all_tasks_blocked()
        second = _arrived(client)
        told = [(first + second).count(b'"url":"http://10.0.0.%d:1"' % number) for number in range(1, 6)]
        assert first.count(b"event: registered") == 1
        assert told == [1] * 5
        await client.aclose()


@pytest.mark.req("REG-7", "SEC-4")
async def test_a_client_that_reads_late_gets_every_event_whole_and_in_order(
    daemon: FakeDaemon, tmp_path: Path
) -> None:
    async with served_with(ServerConfig(), daemon, tmp_path / "socket") as path:
        client = await _stream(path)
        for number in range(1, 13):
            _register(daemon, number, "x" * 60_000)  # together more than the kernel holds
            await trio.testing.wait_all_tasks_blocked()
        seen = b""
        while seen.count(b"\n\n") < 12:
            seen += (await client.event()).data
        blocks = [block.split(b"data: ", 1)[1] for block in seen.split(b"\n\n")[:12]]
        urls = [msgspec.json.decode(block)["worker"]["url"] for block in blocks]
        assert urls == [f"http://10.0.0.{number}:1" for number in range(1, 13)]
        await client.aclose()


@pytest.mark.req("SEC-4")
async def test_a_body_in_many_pieces_arrives_whole(daemon: FakeDaemon, tmp_path: Path) -> None:
    body = msgspec.json.encode({"url": "http://10.0.0.1:1", "labels": {"note": "x" * 3000}})
    async with served_with(ServerConfig(), daemon, tmp_path / "socket") as path:
        client = await HttpClient.unix(path)
        head = b"POST /workers HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = b"".join(
            b"%x\r\n%b\r\n" % (len(body[i : i + 7]), body[i : i + 7]) for i in range(0, len(body), 7)
        )
        client.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        client._http.send(h11.Request(method="POST", target="/workers", headers=[("host", "x")]))
        await client.stream.send_all(head + chunks + b"0\r\n\r\n")
        client._http.send(h11.EndOfMessage())
        assert (await client.answer()).status == 202
        assert daemon.plane.registry.by_url("http://10.0.0.1:1") is not None
        await client.aclose()
