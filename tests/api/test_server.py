"""The server's sockets: both at once, their files and permissions, and what is refused."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import trio
from starlette.responses import Response

from meshd.api.app import serve_api
from meshd.api.server import resolve_bind, serve_http
from meshd.errors import ConfigError
from tests.support.api_daemon import FakeDaemon, HttpClient
from tests.support.api_server import served


@pytest.fixture
async def daemon(tmp_path: Path) -> FakeDaemon:
    return FakeDaemon(tmp_path)


@pytest.mark.req("SEC-3", "CTL-4")
async def test_both_sockets_serve_the_same_and_port_zero_is_told(daemon: FakeDaemon) -> None:
    async with served(daemon) as endpoints:
        assert endpoints.tcp is not None
        assert endpoints.socket is not None
        assert not endpoints.tcp.endswith(":0")
        tcp, unix = await HttpClient.tcp(endpoints.tcp), await HttpClient.unix(endpoints.socket)
        (await tcp.call("POST", "/workers", {"url": "http://10.0.0.5:1"})).expect(202)
        answers = [await client.call("GET", "/workers") for client in (tcp, unix, tcp, unix)]
        assert len({answer.expect(200).body for answer in answers}) == 1
        assert answers[0].headers.keys() >= {"content-type", "content-length", "date"}
        assert "server" not in answers[0].headers
        await tcp.aclose()
        await unix.aclose()


@pytest.mark.req("SEC-3")
async def test_the_unix_socket_is_its_users_alone_and_is_removed_at_stop(daemon: FakeDaemon) -> None:
    async with served(daemon) as endpoints:
        path = str(endpoints.socket)
        assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
    assert not await trio.Path(path).exists()


@pytest.mark.req("SEC-3")
async def test_a_unix_socket_left_by_a_killed_daemon_is_replaced(daemon: FakeDaemon) -> None:
    path = daemon.config.api.socket
    left = socket.socket(socket.AF_UNIX)
    left.bind(os.fspath(path))
    left.close()
    async with served(daemon) as endpoints:
        client = await HttpClient.unix(str(endpoints.socket))
        (await client.call("GET", "/healthz")).expect(200)
        await client.aclose()


@pytest.mark.req("CTL-5")
async def test_a_unix_socket_that_somebody_serves_is_not_taken_over(
    daemon: FakeDaemon, tmp_path: Path
) -> None:
    async with served(daemon):
        other = FakeDaemon(tmp_path, node="b")
        with pytest.raises(ConfigError) as refused:
            await serve_api(other)
        assert refused.value.field == "api.socket"
        assert daemon.config.api.socket.exists()


@pytest.mark.req("CTL-5")
@pytest.mark.parametrize("what", ["file", "folder", "long"])
async def test_a_path_that_cannot_be_a_socket_is_refused_by_name(tmp_path: Path, what: str) -> None:
    path = tmp_path / "here"
    if what == "file":
        path.write_text("mine")
    elif what == "folder":
        path = tmp_path / "missing" / "here"
    else:
        path = tmp_path / ("x" * 200)
    stop = trio.Event()
    stop.set()
    with pytest.raises(ConfigError) as refused:
        await serve_http(
            Response("x"), bind=None, unix_path=path, guarded=False, stop=stop, on_stop=lambda: None
        )
    assert refused.value.field == "api.socket"
    assert what != "file" or path.read_text() == "mine"


@pytest.mark.req("CTL-5")
async def test_a_port_that_is_taken_is_a_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        daemon = FakeDaemon(tmp_path, f"api.bind=127.0.0.1:{holder.getsockname()[1]}")
        with pytest.raises(ConfigError) as refused:
            await serve_api(daemon)
        assert refused.value.field == "api.bind"
    assert not daemon.config.api.socket.exists()


@pytest.mark.req("SEC-3")
@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"])
async def test_an_address_that_others_reach_is_refused_without_tokens(address: str) -> None:
    with pytest.raises(ConfigError) as refused:
        await resolve_bind(address, guarded=False)
    assert refused.value.field == "api.bind"
    assert "token" in str(refused.value)
    _, (host, _) = await resolve_bind(address, guarded=True)
    assert host in address


@pytest.mark.req("SEC-3")
async def test_a_daemon_with_a_token_may_listen_everywhere_and_asks_for_it(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-long-enough-token\n")
    token.chmod(0o600)
    daemon = FakeDaemon(tmp_path, "api.bind=0.0.0.0:0", f"api.write_token_file={token}")
    async with served(daemon) as endpoints:
        assert endpoints.tcp is not None
        port = endpoints.tcp.rpartition(":")[2]
        client = await HttpClient.tcp(f"127.0.0.1:{port}")
        (await client.call("GET", "/workers")).expect(401)
        bearer = {"authorization": "Bearer a-long-enough-token"}
        (await client.call("GET", "/workers", headers=bearer)).expect(200)
        await client.aclose()
        unix = await HttpClient.unix(str(endpoints.socket))
        (await unix.call("GET", "/workers")).expect(200)
        await unix.aclose()
