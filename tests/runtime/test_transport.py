"""Both transports in one suite, and the socket options that latency and stalled peers depend on."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
import trio

from meshd.config_address import parse_address
from meshd.runtime import TcpTransport, Transport
from meshd.runtime.memory import MemoryNetwork, MemoryTransport


@pytest.fixture(params=["tcp", "memory"])
def transport(request: pytest.FixtureRequest) -> Transport:
    makers: dict[str, Callable[[], Transport]] = {
        "tcp": TcpTransport,
        "memory": lambda: MemoryTransport(MemoryNetwork()),
    }
    return makers[request.param]()


async def test_two_ends_exchange_bytes_and_see_the_end(transport: Transport) -> None:
    bound = await transport.listen("127.0.0.1:0")
    assert parse_address(bound.address).port != 0
    near = await transport.connect(bound.address)
    assert near.remote == bound.address
    far = await transport.welcome(await bound.listeners[0].accept())
    assert parse_address(far.remote).host == "127.0.0.1"
    await near.stream.send_all(b"ping")
    assert await far.stream.receive_some(10) == b"ping"
    await far.stream.send_all(b"pong")
    await far.stream.aclose()
    assert await near.stream.receive_some(10) == b"pong"
    assert await near.stream.receive_some(10) == b""
    await near.stream.aclose()
    for listener in bound.listeners:
        await listener.aclose()


async def test_nobody_listening_is_an_os_error(transport: Transport) -> None:
    bound = await transport.listen("127.0.0.1:0")
    for listener in bound.listeners:
        await listener.aclose()
    with pytest.raises(OSError):
        await transport.connect(bound.address)


async def test_an_address_that_is_taken_is_an_os_error(transport: Transport) -> None:
    bound = await transport.listen("127.0.0.1:0")
    with pytest.raises(OSError):
        await transport.listen(bound.address)
    for listener in bound.listeners:
        await listener.aclose()


async def test_sockets_send_at_once_and_notice_dead_peers() -> None:
    transport = TcpTransport()
    bound = await transport.listen("127.0.0.1:0")
    near = await transport.connect(bound.address)
    far = await transport.welcome(await bound.listeners[0].accept())
    for link in (near, far):
        assert isinstance(link.stream, trio.SocketStream)
        options = link.stream.socket
        assert options.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert options.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        await link.stream.aclose()
    await bound.listeners[0].aclose()


async def test_a_cut_on_the_memory_network_breaks_connections_until_it_heals() -> None:
    network = MemoryNetwork()
    transport = MemoryTransport(network)
    bound = await transport.listen("10.0.0.1:1")
    link = await transport.connect(bound.address)
    network.cut(bound.address)
    with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
        await link.stream.send_all(b"x")
    with pytest.raises(ConnectionRefusedError):
        await transport.connect(bound.address)
    network.heal(bound.address)
    await transport.connect(bound.address)
