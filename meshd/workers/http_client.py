"""GET over HTTP/1.1 for checks: h11 on trio streams, with few idle connections and bounded answers.

Owns: the connections kept alive between two checks of a worker.
Rules it keeps: at most `idle_per_origin` idle connections to one origin and `idle_total` in all, the least
recently used one goes first; no answer is read beyond a limit; a kept connection that its server has closed
meanwhile costs one more attempt, never a failed check; no cause holds a secret.
"""

from __future__ import annotations

import errno
import select
import socket
import ssl
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

import h11
import trio
import trio.abc

from meshd.workers.causes import RequestFailed, explain

IDLE_PER_ORIGIN: Final = 2
"""Checks of one origin rarely overlap; a second one covers data-parallel ranks behind one address."""
IDLE_TOTAL: Final = 256
"""Bounds our file descriptors; above it, connecting anew costs about 0.3 ms a check."""
IDLE_S: Final = 90.0
"""Longer than the usual check interval; a connection to a removed worker goes after that."""
RESOLVED_AT_ONCE: Final = 16
"""Threads that look up names: a resolver that hangs must not take those of the rest of the daemon."""
ADDRESS_S: Final = 1.0
"""Time for connecting to one of several addresses of a host before the next has its turn."""
RECEIVE_BYTES: Final = 16_384
DRAIN_BYTES: Final = 65_536
"""An unwanted body up to this size is read, so that the connection can be kept."""
DRAIN_S: Final = 0.5
HEAD_BYTES: Final = 32_768
"""Status line and headers of an answer may take this much."""


class _Closed(Exception):
    """The server closed before the first byte of its answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status, and its body if that was wanted."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Origin:
    """Where to connect to."""

    tls: bool
    host: str
    port: int


@dataclass(slots=True, eq=False)
class _Connection:
    origin: Origin
    stream: trio.abc.Stream
    socket: trio.socket.SocketType
    http: h11.Connection
    idle_since: float = 0.0

    def is_stale(self) -> bool:
        """An idle connection with something to read has been closed, or speaks out of turn."""
        poll = select.poll()
        poll.register(self.socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def next_cycle(self) -> bool:
        """Prepare the next exchange; False if either side wants the connection closed."""
        try:
            self.http.start_next_cycle()
        except h11.LocalProtocolError:
            return False
        return self.http.trailing_data[0] == b""


class HttpClient:
    """A client for many origins. Use it in one trio run; `close` ends its idle connections."""

    def __init__(
        self,
        *,
        idle_per_origin: int = IDLE_PER_ORIGIN,
        idle_total: int = IDLE_TOTAL,
        idle_s: float = IDLE_S,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`ssl_context` verifies https servers; without one, the system's authorities do."""
        self._idle_per_origin = idle_per_origin
        self._idle_total = idle_total
        self._idle_s = idle_s
        self._ssl_context = ssl_context
        self._resolving = trio.CapacityLimiter(RESOLVED_AT_ONCE)
        self._idle: OrderedDict[_Connection, None] = OrderedDict()  # the longest idle first
        self._by_origin: dict[Origin, list[_Connection]] = {}

    @property
    def idle(self) -> int:
        """How many idle connections are kept."""
        return len(self._idle)

    async def get(
        self,
        url: str,
        path: str,
        *,
        timeout_s: float,
        api_key: str | None = None,
        body_limit_bytes: int | None = None,
    ) -> Reply:
        """GET `url` + `path` within `timeout_s` seconds.

        With `body_limit_bytes` the whole body is returned, or the request fails if it is longer; without,
        the status alone counts and the body is not waited for. Raises `RequestFailed`.
        """
        origin, request = build_request(url, path, api_key)
        phase = "connection"
        with trio.move_on_after(timeout_s):
            for connection in (self._take(origin), None):
                fresh = connection is None
                if connection is None:
                    phase = "connection"
                    connection = await self._connect(origin)
                phase = "answer"
                try:
                    return await self._exchange(connection, request, body_limit_bytes)
                except _Closed as error:
                    if fresh:
                        raise RequestFailed("connection closed without an answer") from error
        raise RequestFailed(f"no {phase} within {timeout_s:g} s")

    def close(self) -> None:
        """Close all idle connections."""
        while self._idle:
            self._discard(next(iter(self._idle)))

    # --- one exchange -----------------------------------------------------------------------------

    async def _exchange(
        self, connection: _Connection, request: h11.Request, body_limit_bytes: int | None
    ) -> Reply:
        keep = False
        try:
            await _send(connection, request)
            status = await _read_head(connection)
            if body_limit_bytes is None:
                body = b""
                with trio.move_on_after(DRAIN_S):
                    keep = await _drain(connection)
            else:
                body = await _read_body(connection, body_limit_bytes)
                keep = True
            keep = keep and connection.next_cycle()
        except h11.RemoteProtocolError as error:
            raise RequestFailed("answer is not valid HTTP") from error
        except (trio.BrokenResourceError, OSError) as error:
            raise RequestFailed(explain(error)) from error
        finally:
            if keep:
                self._put(connection)
            else:
                connection.socket.close()
        return Reply(status, body)

    # --- connections ------------------------------------------------------------------------------

    async def _connect(self, origin: Origin) -> _Connection:
        addresses = await self._resolve(origin)
        tcp: trio.SocketStream | None = None
        for tried, address in enumerate(addresses, 1):
            try:
                tcp = await _connect_in_time(address, origin.port, last=tried == len(addresses))
                break
            except OSError as error:
                if tried == len(addresses):
                    raise RequestFailed(explain(error)) from error
        if tcp is None:
            raise RequestFailed("host name cannot be resolved")
        stream: trio.abc.Stream = tcp
        if origin.tls:
            stream = await self._handshake(tcp, origin.host)
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
        return _Connection(origin, stream, tcp.socket, http)

    async def _resolve(self, origin: Origin) -> list[str]:
        """Return the host's addresses; a name is looked up in one of few threads, which may outlive us."""
        kind = socket.SOCK_STREAM
        try:
            try:
                found = socket.getaddrinfo(origin.host, origin.port, 0, kind, 0, socket.AI_NUMERICHOST)
            except socket.gaierror:
                found = await trio.to_thread.run_sync(
                    socket.getaddrinfo,
                    origin.host,
                    origin.port,
                    0,
                    kind,
                    limiter=self._resolving,
                    abandon_on_cancel=True,
                )
        except OSError as error:
            raise RequestFailed(explain(error)) from error
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    async def _handshake(self, tcp: trio.SocketStream, host: str) -> trio.abc.Stream:
        done = False
        try:
            context = await self._context()
            tls = trio.SSLStream(tcp, context, server_hostname=host, https_compatible=True)
            await tls.do_handshake()
            done = True
        except (trio.BrokenResourceError, OSError) as error:
            raise RequestFailed(explain(error)) from error
        finally:
            if not done:
                tcp.socket.close()
        return tls

    async def _context(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            # Reading the system's authorities takes tens of milliseconds.
            self._ssl_context = await trio.to_thread.run_sync(ssl.create_default_context)
        return self._ssl_context

    def _take(self, origin: Origin) -> _Connection | None:
        while mine := self._by_origin.get(origin):
            connection = mine[-1]
            self._forget(connection)
            if not connection.is_stale():
                return connection
            connection.socket.close()
        return None

    def _put(self, connection: _Connection) -> None:
        now = trio.current_time()
        connection.idle_since = now
        self._idle[connection] = None
        mine = self._by_origin.setdefault(connection.origin, [])
        mine.append(connection)
        if len(mine) > self._idle_per_origin:
            self._discard(mine[0])
        while self._idle:
            oldest = next(iter(self._idle))
            if len(self._idle) <= self._idle_total and now - oldest.idle_since <= self._idle_s:
                break
            self._discard(oldest)

    def _forget(self, connection: _Connection) -> None:
        del self._idle[connection]
        mine = self._by_origin[connection.origin]
        mine.remove(connection)
        if not mine:
            del self._by_origin[connection.origin]

    def _discard(self, connection: _Connection) -> None:
        self._forget(connection)
        connection.socket.close()


async def _connect_in_time(address: str, port: int, last: bool) -> trio.SocketStream:
    """Connect to one address; only the last one of a host may take all the time that is left."""
    with trio.move_on_after(float("inf") if last else ADDRESS_S):
        return await trio.open_tcp_stream(address, port)
    raise TimeoutError(errno.ETIMEDOUT, "no connection")


async def _send(connection: _Connection, request: h11.Request) -> None:
    head = connection.http.send(request)
    assert head is not None  # only ConnectionClosed gives None
    connection.http.send(h11.EndOfMessage())
    try:
        await connection.stream.send_all(head)
    except trio.BrokenResourceError as error:
        raise _Closed from error


async def _read_head(connection: _Connection) -> int:
    """Return the status of the answer. Raises `_Closed` if not one byte of it came."""
    got_any = False
    while True:
        event = connection.http.next_event()
        if isinstance(event, h11.Response):
            return event.status_code
        if event is not h11.NEED_DATA:
            continue  # an informational response: the real one follows
        try:
            data = await connection.stream.receive_some(RECEIVE_BYTES)
        except trio.BrokenResourceError as error:
            if not got_any:
                raise _Closed from error
            raise
        if not data:
            if got_any:
                raise RequestFailed("connection closed within the answer")
            raise _Closed
        got_any = True
        connection.http.receive_data(bytes(data))


async def _next_part(connection: _Connection) -> bytes | None:
    """Return the next piece of the body, or None at its end."""
    while True:
        event = connection.http.next_event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            return None
        connection.http.receive_data(bytes(await connection.stream.receive_some(RECEIVE_BYTES)))


async def _read_body(connection: _Connection, limit_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while (part := await _next_part(connection)) is not None:
        size += len(part)
        if size > limit_bytes:
            raise RequestFailed(f"answer is longer than {limit_bytes} bytes")
        parts.append(part)
    return b"".join(parts)


async def _drain(connection: _Connection) -> bool:
    """Read an unwanted body; whether its end was reached. Trouble only costs the connection."""
    size = 0
    try:
        while (part := await _next_part(connection)) is not None:
            size += len(part)
            if size > DRAIN_BYTES:
                return False
    except (h11.RemoteProtocolError, trio.BrokenResourceError, OSError):
        return False
    return True


# --- requests --------------------------------------------------------------------------


def build_request(url: str, path: str, api_key: str | None) -> tuple[Origin, h11.Request]:
    """Return where to connect to and what to send for GET `url` + `path`. Raises `RequestFailed`."""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("ascii" if ":" in (parts.hostname or "") else "idna").decode()
    except (ValueError, UnicodeError) as error:
        raise RequestFailed("the worker's URL cannot be used") from error
    if parts.scheme not in ("http", "https") or not host:
        raise RequestFailed("the worker's URL cannot be used")
    tls = parts.scheme == "https"
    standard = 443 if tls else 80
    shown = f"[{host}]" if ":" in host else host
    headers = [
        ("Host", shown if port in (None, standard) else f"{shown}:{port}"),
        ("User-Agent", "meshd"),
        ("Accept", "*/*"),
    ]
    if api_key is not None:
        headers.append(("Authorization", f"Bearer {api_key}"))
    target = quote(parts.path.rstrip("/") + path, safe="/%:@!$&'()*+,;=?~-._")
    try:
        request = h11.Request(method="GET", target=target, headers=headers)
    except (h11.LocalProtocolError, UnicodeError) as error:
        # The error's text would hold the key; its cause chain is cut for the same reason.
        del error
        raise RequestFailed("the API key holds characters that a header cannot carry") from None
    return Origin(tls, host, port or standard), request
