"""One HTTP connection: hypercorn's trio connection, with its traps closed.

Rules kept here, each held by a test: - A client that stops reading never holds more than one slice of an
answer, nor the stop of the daemon: sends are
  written in slices, each with a time limit, and can be cancelled.
- Nothing but HTTP/1 is spoken. WebSocket and HTTP/2 upgrades are ignored, so they open no second way in.
- A request that is not HTTP is answered with the same JSON error body as any other mistake, then closed.
- The number of connections is bounded, and a fault inside one connection ends that connection only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from math import inf
from typing import Any

import h11
import msgspec
import structlog
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.logging import Logger as HypercornLogger
from hypercorn.protocol.events import Request
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, H11SendableEvent
from hypercorn.utils import parse_socket_addr

from meshd.api import limits
from meshd.api.request_tasks import RequestTasks
from meshd.api.sse import SEND_NOW

_RECEIVE_BYTES = 64 * 1024

log = structlog.get_logger("meshd.api")


class QuietLogger(HypercornLogger):
    """Sends what hypercorn has to say to our log. Its access log stays off: metrics count requests."""

    async def access(self, request: Any, response: Any, request_time: float) -> None:
        """Drop an access line."""

    async def exception(self, message: str, *args: Any, **kwargs: Any) -> None:
        """Log a fault in the application or the server."""
        log.error("api_fault", message=message % args if args else message, exc_info=True)

    async def warning(self, message: str, *args: Any, **kwargs: Any) -> None:
        """Log a warning of the server."""
        log.warning("api_server", message=message % args if args else message)


class ServerConfig(HypercornConfig):
    """hypercorn's settings as the API wants them, and the count of open connections.

    Bounds can be lowered on an instance, which is what tests do.
    """

    logger_class = QuietLogger
    errorlog = None
    accesslog = None
    include_server_header = False
    h11_max_incomplete_size = limits.MAX_HEADER_BYTES
    keep_alive_timeout = limits.KEEP_ALIVE_S
    keep_alive_max_requests = limits.KEEP_ALIVE_REQUESTS
    send_timeout_s = limits.SEND_TIMEOUT_S
    max_connections = limits.MAX_CONNECTIONS
    open_connections = 0


class PlainHTTP(H11Protocol):
    """HTTP/1 and nothing else; faults in it are told as JSON.

    An answer's head is held back until its body begins, so that a short answer is one write.
    """

    _head = b""
    write_now: Callable[[Callable[[], bytes]], bool]
    """Writes the bytes that the callable makes, without waiting; false, without a call, if others write."""

    async def _check_protocol(self, event: h11.Request) -> None:
        """Speak HTTP/1 whatever upgrade is asked for."""

    async def _create_stream(self, request: h11.Request) -> None:
        self.stream = HTTPStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        if isinstance(self.stream, HTTPStream):
            self.stream.scope[SEND_NOW] = self._send_now  # type: ignore[literal-required]  # our own extension
        self.keep_alive_requests += 1

    def _send_now(self, data: bytes) -> bool:
        """Send a piece of an answer's body in this very step, if its head is out and nothing is under way."""
        connection = self.connection
        if self._head or connection.our_state is not h11.SEND_BODY:
            return False
        return self.write_now(lambda: connection.send(h11.Data(data=data)) or b"")

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        try:
            data = self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response):
            self._head = data
            return
        data, self._head = self._head + data, b""
        await self.send(RawData(data=data))

    async def _send_error_response(self, status_code: int) -> None:
        message = {431: "the request's headers are too large"}.get(
            status_code, "this is not an HTTP/1.1 request that can be read"
        )
        body = msgspec.json.encode({"error": message, "code": "BAD_REQUEST"})
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *self.config.response_headers("h11"),
        ]
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())


class Connection(TCPServer):
    """Serves one accepted stream until it is closed. Never raises anything but cancellation."""

    config: ServerConfig
    stream: trio.SocketStream  # type: ignore[assignment]  # the base declares only its TLS form, and takes both
    protocol: PlainHTTP  # type: ignore[assignment]  # stands in for the wrapper that also speaks HTTP/2

    def __init__(
        self,
        app: AppWrapper,
        config: ServerConfig,
        context: WorkerContext,
        state: ConnectionState,
        stream: trio.SocketStream,
    ) -> None:
        super().__init__(app, config, context, state, stream)  # type: ignore[arg-type]  # as `stream` above
        self._idle = True
        self._reading = trio.CancelScope()
        self._watching = trio.CancelScope()
        self._unsent = b""
        """What the kernel did not take of bytes that were written without waiting; it goes first."""

    async def run(self) -> None:
        """Serve until the client, an idle time-out, a stalled send or the stop of the daemon ends it."""
        config = self.config
        if config.open_connections >= config.max_connections:
            log.warning("api_connection_refused", limit=config.max_connections)
            await self.stream.aclose()
            return
        config.open_connections += 1
        try:
            await self._serve()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client is gone, which is its right
        except Exception:
            log.exception("api_connection_failed")
        finally:
            config.open_connections -= 1
            with trio.CancelScope(deadline=trio.current_time() + 1.0, shield=True):
                await self._close()

    async def _serve(self) -> None:
        socket = self.stream.socket
        async with RequestTasks() as task_group:
            self.protocol = PlainHTTP(
                self.app,
                self.config,
                self.context,
                task_group,
                ConnectionState(self.state),
                False,
                # Both are None on a unix socket, which is how the guard tells it from TCP.
                parse_socket_addr(socket.family, socket.getpeername()),
                parse_socket_addr(socket.family, socket.getsockname()),
                self.protocol_send,
            )
            self._tasks = task_group
            self.protocol.write_now = self._write_now
            task_group.spawn(self._close_at_stop)
            self._set_idle(True)
            await self._read_data()
            self._watching.cancel()

    async def _read_data(self) -> None:
        """Hand over what arrives until the client is gone or was idle for too long."""
        while True:
            with self._reading:
                try:
                    data = await self.stream.receive_some(_RECEIVE_BYTES)
                except (trio.ClosedResourceError, trio.BrokenResourceError):
                    break
            if self._reading.cancelled_caught:
                break
            self._reading = trio.CancelScope(deadline=self._reading.deadline)
            await self.protocol.handle(RawData(bytes(data)))
            if not data:
                break
        await self.protocol.handle(Closed())

    def _set_idle(self, idle: bool) -> None:
        """Start or stop the idle time-out. A deadline on the read is cheaper than a task for each wait."""
        self._idle = idle
        if not idle:
            self._reading.deadline = inf
        elif self.context.terminated.is_set():
            self._reading.cancel()
        else:
            self._reading.deadline = trio.current_time() + self.config.keep_alive_timeout

    async def _close_at_stop(self) -> None:
        """At stop, end a connection that waits for its next request; a busy one ends after its answer."""
        with self._watching:
            await self.context.terminated.wait()
            if self._idle:
                self._reading.cancel()

    def _write_now(self, made: Callable[[], bytes]) -> bool:
        if self.send_lock.locked() or self._unsent:
            return False
        data = made()
        self._unsent = data[_write_now(self.stream.socket, data) :]
        if self._unsent:
            self._tasks.spawn(self.protocol_send, RawData(b""))
        return True

    async def protocol_send(self, event: Event) -> None:
        """Write bytes in slices, each within the send limit; a client that takes none is cut off."""
        if isinstance(event, Updated):
            self._set_idle(event.idle)
            return
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        if not (event.data or self._unsent):
            return
        failed = False
        async with self.send_lock:
            data, self._unsent = self._unsent + event.data, b""
            try:
                view = memoryview(data)
                for start in range(0, len(view), limits.SEND_SLICE_BYTES):
                    with trio.fail_after(self.config.send_timeout_s):
                        await self.stream.send_all(view[start : start + limits.SEND_SLICE_BYTES])
            except trio.TooSlowError:
                log.info("api_client_stalled", limit_s=self.config.send_timeout_s)
                failed = True
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                failed = True
        if failed:
            await trio.aclose_forcefully(self.stream)
            await self.protocol.handle(Closed())


def _write_now(sock: trio.socket.SocketType, data: bytes) -> int:
    """Write to a socket that does not block; 0 where it takes nothing, or is broken (the next send sees)."""
    try:
        return os.write(sock.fileno(), data)
    except OSError:
        return 0
