"""How bytes get from node to node: TCP here, in memory in `memory`, TLS later around either.

Owns sockets and their options; knows nothing of frames. A transport gives streams, and `welcome` is where
an accepted stream becomes a usable one (TLS will shake hands there); the driver bounds the time of every
call.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import trio

from meshd.config_address import Address, parse_address
from meshd.runtime.limits import LISTEN_BACKLOG, PEER_STOPPED_READING_MS


class Link(NamedTuple):
    """A connected byte stream and the remote's `host:port`, as far as it can be told.

    `send_now`, where there is one, hands bytes to the kernel without waiting and returns how many it took.
    """

    stream: trio.abc.Stream
    remote: str
    send_now: Callable[[bytes], int] | None = None


class Bound(NamedTuple):
    """Listening sockets and the `host:port` that they got (port 0 asked for any)."""

    address: str
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]]


class Transport(Protocol):
    """A way to reach nodes by `host:port`."""

    async def listen(self, address: str) -> Bound:
        """Start to listen; raises OSError."""

    async def connect(self, address: str) -> Link:
        """Connect; raises OSError. May take for ever: the caller bounds it."""

    async def welcome(self, stream: trio.abc.Stream) -> Link:
        """Make an accepted stream ready for frames; raises OSError or trio.BrokenResourceError."""


class TcpTransport:
    """Plain TCP without Nagle's delay."""

    async def listen(self, address: str) -> Bound:
        """Listen on `host:port`. A name is bound on all its addresses; with port 0 on the first only."""
        wanted = parse_address(address)
        listeners = await trio.open_tcp_listeners(wanted.port, host=wanted.host, backlog=LISTEN_BACKLOG)
        if wanted.port == 0:
            for spare in listeners[1:]:
                await spare.aclose()
            del listeners[1:]
        host, port = listeners[0].socket.getsockname()[:2]
        if wanted.port != 0 and len(listeners) > 1:
            host = wanted.host
        return Bound(str(Address(host, port)), listeners)

    async def connect(self, address: str) -> Link:
        """Connect to `host:port`; a name is tried on all its addresses, the families racing each other."""
        wanted = parse_address(address, allow_port_zero=False)
        stream = await trio.open_tcp_stream(wanted.host, wanted.port)
        return _link(stream)

    async def welcome(self, stream: trio.abc.Stream) -> Link:
        """Set the options of an accepted socket."""
        await trio.lowlevel.checkpoint()
        assert isinstance(stream, trio.SocketStream)
        return _link(stream)


def _link(stream: trio.SocketStream) -> Link:
    # trio has switched Nagle's algorithm off already, and keeps the kernel's send queue short
    # (TCP_NOTSENT_LOWAT), so that what is sent is computed late.
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PEER_STOPPED_READING_MS)
    host, port = stream.socket.getpeername()[:2]
    return Link(stream, str(Address(host, port)), partial(_send_now, stream.socket))


def _send_now(sock: trio.socket.SocketType, data: bytes) -> int:
    """Write to a socket that does not block; 0 where it takes nothing, and where the writer will see why."""
    try:
        return os.write(sock.fileno(), data)
    except OSError:
        return 0
