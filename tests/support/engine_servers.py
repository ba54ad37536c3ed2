"""Inference servers as health checks see them, in-process, on real loopback sockets.

`HttpEngine` answers from a table that a test may change at any time, also wrongly or never. `grpc_engine`
serves one engine's own calls, or the standard health service. `UnixEngine` accepts on a unix socket.
Whatever was asked is written down.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import h11
import trio
import trio.abc


@dataclass
class Answer:
    """What an HTTP engine does when it is asked for a path."""

    status: int = 200
    body: bytes = b"ok"
    delay_s: float = 0.0
    close: bool = False
    """Announce `Connection: close` and do so."""
    hang_up: bool = False
    """Close without an answer."""
    raw: bytes | None = None
    """Send this instead of an answer, then close."""
    endless: bool = False
    """Go on sending the body for ever."""
    stall_after_body: bool = False
    """Promise one byte more than is sent, and keep the connection open."""


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    connection: int


@dataclass
class HttpEngine:
    """A server over HTTP; unknown paths are 404."""

    answers: dict[str, Answer] = field(default_factory=lambda: {"/health": Answer()})
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    open_connections: int = 0
    most_at_once: int = 0
    url: str = ""
    _asking: int = 0
    _streams: list[trio.abc.Stream] = field(default_factory=list)

    def tells(self, path: str, value: object) -> None:
        """Answer this path with JSON."""
        self.answers[path] = Answer(body=json.dumps(value).encode())

    async def hang_up_all(self) -> None:
        """Close every open connection, as a server does with idle ones."""
        for stream in list(self._streams):
            await trio.aclose_forcefully(stream)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection."""
        self.connections += 1
        number = self.connections
        self.open_connections += 1
        self._streams.append(stream)
        http = h11.Connection(h11.SERVER)
        try:
            while await self._one(http, stream, number):
                http.start_next_cycle()
        except (h11.ProtocolError, trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
            return  # the client's business
        finally:
            self.open_connections -= 1
            self._streams.remove(stream)
            await trio.aclose_forcefully(stream)

    async def _one(self, http: h11.Connection, stream: trio.abc.Stream, number: int) -> bool:
        target: bytes | None = None
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(bytes(await stream.receive_some(65536)))
            elif isinstance(event, h11.Request):
                target = event.target
                headers = {name.decode(): value.decode() for name, value in event.headers}
                self.asked.append(Asked(event.method.decode(), target.decode(), headers, number))
            elif isinstance(event, h11.ConnectionClosed):
                return False
            elif isinstance(event, h11.EndOfMessage):
                break
        assert target is not None
        answer = self.answers.get(target.decode(), Answer(404, b"no such path"))
        self._asking += 1
        self.most_at_once = max(self.most_at_once, self._asking)
        try:
            await trio.sleep(answer.delay_s)
        finally:
            self._asking -= 1
        if answer.hang_up:
            return False
        if answer.raw is not None:
            await stream.send_all(answer.raw)
            return False
        await self._send(http, stream, answer)
        return not answer.close

    async def _send(self, http: h11.Connection, stream: trio.abc.Stream, answer: Answer) -> None:
        headers = [("Content-Type", "text/plain")]
        if not answer.endless:
            length = len(answer.body) + answer.stall_after_body
            headers.append(("Content-Length", str(length)))
        if answer.close:
            headers.append(("Connection", "close"))
        data = http.send(h11.Response(status_code=answer.status, headers=headers)) or b""
        data += http.send(h11.Data(data=answer.body)) or b""
        await stream.send_all(data)
        while answer.endless:
            await stream.send_all(http.send(h11.Data(data=answer.body * 1000)) or b"")
        if answer.stall_after_body:
            await trio.sleep_forever()
        await stream.send_all(http.send(h11.EndOfMessage()) or b"")


@asynccontextmanager
async def http_engine(
    ssl_context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[HttpEngine]:
    """Run an HTTP engine on a port of its own, with TLS if a context is given."""
    engine = HttpEngine()
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host=host)
        port = listener.socket.getsockname()[1]
        served: Any = listener if ssl_context is None else trio.SSLListener(listener, ssl_context)
        scheme = "http" if ssl_context is None else "https"
        engine.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        nursery.start_soon(trio.serve_listeners, engine.serve, [served])
        yield engine
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def unix_engine(path: Path) -> AsyncIterator[str]:
    """Run a server on a unix socket that accepts and waits; yields its ipc:// URL."""
    sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await sock.bind(str(path))
    sock.listen(16)

    async def wait_for_end(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, wait_for_end, [trio.SocketListener(sock)])
        yield f"ipc://{path}"
        nursery.cancel_scope.cancel()


GRPC_ENGINES = {
    "sglang": ("sglang_scheduler", "SglangScheduler"),
    "vllm": ("vllm_engine", "VllmEngine"),
    "trtllm": ("trtllm_service", "TrtllmService"),
    "tokenspeed": ("tokenspeed_scheduler", "TokenSpeedScheduler"),
    "mlx": ("mlx_engine", "MlxEngine"),
}


@dataclass
class GrpcEngine:
    """What a gRPC engine answers; a test may change it at any time."""

    healthy: bool = True
    message: str = ""
    ranks: list[int] = field(default_factory=list)
    """`max_running_requests` of each data-parallel rank."""
    calls: list[tuple[str, str | None]] = field(default_factory=list)
    """Calls in order, each with the Authorization it came with."""
    url: str = ""

    def note(self, call: str, context: Any) -> None:
        """Write a call down."""
        metadata = dict(context.invocation_metadata())
        self.calls.append((call, metadata.get("authorization")))


@contextmanager
def grpc_engine(
    kind: str, credentials: grpc.ServerCredentials | None = None, port: int = 0
) -> Iterator[GrpcEngine]:
    """Run a gRPC server of one engine, or of `standard` health; yields what it answers from."""
    engine = GrpcEngine()
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    if kind == "standard":
        _add_standard(engine, server)
    elif kind != "none":
        _add_engine(kind, engine, server)
    if credentials is None:
        port = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    engine.url = f"{'grpc' if credentials is None else 'grpcs'}://127.0.0.1:{port}"
    server.start()
    try:
        yield engine
    finally:
        server.stop(0).wait()


def _add_standard(engine: GrpcEngine, server: grpc.Server) -> None:
    pb = import_module("grpc_health.v1.health_pb2")
    stubs = import_module("grpc_health.v1.health_pb2_grpc")

    class Servicer(stubs.HealthServicer):  # type: ignore[misc, name-defined]  # generated code has no types
        def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
            engine.note("Check", context)
            return pb.HealthCheckResponse(status=1 if engine.healthy else 2)

    stubs.add_HealthServicer_to_server(Servicer(), server)


def _add_engine(kind: str, engine: GrpcEngine, server: grpc.Server) -> None:
    module, service = GRPC_ENGINES[kind]
    pb = import_module(f"smg_grpc_proto.generated.{module}_pb2")
    stubs = import_module(f"smg_grpc_proto.generated.{module}_pb2_grpc")

    class Servicer(getattr(stubs, f"{service}Servicer")):  # type: ignore[misc]  # generated code has no types
        def HealthCheck(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
            engine.note("HealthCheck", context)
            if kind == "trtllm":
                return pb.HealthCheckResponse(status="OK" if engine.healthy else engine.message)
            return pb.HealthCheckResponse(healthy=engine.healthy, message=engine.message)

        def GetLoads(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
            engine.note("GetLoads", context)
            loads = [
                pb.SchedulerLoad(dp_rank=rank, max_running_requests=most)
                for rank, most in enumerate(engine.ranks)
            ]
            return pb.GetLoadsResponse(loads=loads)

    getattr(stubs, f"add_{service}Servicer_to_server")(Servicer(), server)
