"""Health checks of grpc:// and grpcs:// workers (LIF-7), and the one other call we make to them.

A worker is asked by its engine's own `HealthCheck`; one whose engine is not named, or does not know that
call, by `grpc.health.v1`; and if that is unknown too, by each engine's call in turn. What answered is
remembered with the channel.

grpcio is an optional extra and costs 0.1 s to import, so it is imported, in a thread, by the first check
of a gRPC worker. Calls are futures whose completion is posted to the trio loop: no thread waits for one.
A channel that failed is closed: gRPC's own growing pauses between attempts would otherwise let a worker
that is back look dead for minutes.
"""

from __future__ import annotations

import importlib
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import trio

from meshd.workers.health_schedule import CheckTarget, server_url

CHANNELS: Final = 128
"""Channels kept open; as many as there are checks in flight at once, the least recently used goes first."""
MESSAGE_BYTES: Final = 1024 * 1024
"""No answer longer than this is read."""
CAUSE_CHARS: Final = 200
"""An engine's own words about its health are cut here."""

MISSING: Final = "this node cannot check gRPC workers: install the extra, pip install 'meshd[grpc]'"


@dataclass(frozen=True, slots=True)
class Engine:
    """Where an engine's calls are found in the package `smg-grpc-proto`."""

    module: str
    service: str
    loads: bool
    """Whether it tells its limits by `GetLoads`."""


ENGINES: Final[dict[str, Engine]] = {
    "sglang": Engine("sglang_scheduler_pb2", "sglang.grpc.scheduler.SglangScheduler", True),
    "vllm": Engine("vllm_engine_pb2", "vllm.grpc.engine.VllmEngine", True),
    "trtllm": Engine("trtllm_service_pb2", "trtllm.TrtllmService", False),
    "tokenspeed": Engine("tokenspeed_scheduler_pb2", "tokenspeed.grpc.scheduler.TokenSpeedScheduler", True),
    "mlx": Engine("mlx_engine_pb2", "mlx.grpc.engine.MlxEngine", False),
}
STANDARD: Final = "standard"
"""Names grpc.health.v1 among the ways of asking."""


class CallFailed(Exception):
    """A call brought no answer; `cause` is short and stable, `unknown`: the server lacks the call."""

    def __init__(self, cause: str, unknown: bool = False) -> None:
        super().__init__(cause)
        self.cause = cause
        self.unknown = unknown


@dataclass(slots=True, eq=False)
class _Peer:
    """An open channel and what is known of the server behind it."""

    channel: Any
    answers_to: str | None = None
    users: int = 0
    dropped: bool = False


class GrpcChecker:
    """Checks gRPC workers over a bounded set of channels. Use it in one trio run, then `close` it."""

    def __init__(self, *, channels: int = CHANNELS, root_certificates: bytes | None = None) -> None:
        """`root_certificates` (PEM) verify grpcs workers; without them, gRPC's defaults do."""
        self._limit = channels
        self._roots = root_certificates
        self._peers: OrderedDict[str, _Peer] = OrderedDict()  # the least recently used first
        self._modules: dict[str, Any] = {}
        self._importing = trio.Lock()

    @property
    def open_channels(self) -> int:
        """How many channels are kept open."""
        return len(self._peers)

    async def check(self, target: CheckTarget) -> str | None:
        """Return None if the worker says it is healthy within its timeout, else the cause (LIF-4)."""
        try:
            with trio.fail_after(target.timeout_s):
                await self._load()
                with self._peer(server_url(target.url)) as peer:
                    return await self._check(peer, target)
        except CallFailed as failed:
            return failed.cause
        except trio.TooSlowError:
            return f"no answer within {target.timeout_s:g} s"

    async def max_running_requests(self, target: CheckTarget) -> list[int]:
        """Return the limit of each data-parallel rank; empty where the engine does not tell (CAP-6).

        Raises `CallFailed` if the server did not answer.
        """
        try:
            with trio.fail_after(target.timeout_s):
                await self._load()
                with self._peer(server_url(target.url)) as peer:
                    return await self._limits(peer, target)
        except trio.TooSlowError:
            raise CallFailed(f"no answer within {target.timeout_s:g} s") from None

    def close(self) -> None:
        """Close all channels; calls under way end."""
        while self._peers:
            _, peer = self._peers.popitem()
            peer.channel.close()

    # --- what is asked ----------------------------------------------------------------------------

    async def _check(self, peer: _Peer, target: CheckTarget) -> str | None:
        if peer.answers_to is not None:
            ways = [peer.answers_to]
        elif target.runtime_type in ENGINES:
            ways = [target.runtime_type, STANDARD]
        else:
            ways = [STANDARD, *ENGINES]
        for way in ways:
            try:
                cause = await self._ask(peer, way, target)
            except CallFailed as failed:
                if not failed.unknown:
                    raise
                continue
            peer.answers_to = way
            return cause
        raise CallFailed("the server offers no health check that this node knows")

    async def _ask(self, peer: _Peer, way: str, target: CheckTarget) -> str | None:
        pb = self._modules[way]
        method = "/grpc.health.v1.Health/Check" if way == STANDARD else f"/{ENGINES[way].service}/HealthCheck"
        answer = await self._call(peer, method, pb.HealthCheckRequest(), pb.HealthCheckResponse, target)
        if way == STANDARD:
            if answer.status == pb.HealthCheckResponse.SERVING:
                return None
            return f"server says {_status_name(pb, answer.status)}"
        if way == "trtllm":
            return None if answer.status == "OK" else _own_words(answer.status)
        return None if answer.healthy else _own_words(answer.message)

    async def _limits(self, peer: _Peer, target: CheckTarget) -> list[int]:
        way = target.runtime_type if target.runtime_type in ENGINES else peer.answers_to
        for name in [way] if way in ENGINES else ENGINES:
            if not ENGINES[name].loads:
                continue
            pb = self._modules[name]
            request = pb.GetLoadsRequest(include=["core"])
            method = f"/{ENGINES[name].service}/GetLoads"
            try:
                answer = await self._call(peer, method, request, pb.GetLoadsResponse, target)
            except CallFailed as failed:
                if not failed.unknown:
                    raise
                continue
            loads = sorted(answer.loads, key=lambda load: load.dp_rank)
            return [load.max_running_requests for load in loads]
        return []

    # --- calls and channels -----------------------------------------------------------------------

    async def _load(self) -> None:
        """Import what gRPC needs. Raises `CallFailed` where the extra is not installed."""
        if self._modules:
            return
        async with self._importing:
            if not self._modules:
                try:
                    self._modules = await trio.to_thread.run_sync(_import_all)
                except ImportError as error:
                    raise CallFailed(MISSING) from error

    @contextmanager
    def _peer(self, url: str) -> Iterator[_Peer]:
        """Lend the channel to a worker; it is closed if anything goes wrong with it."""
        peer = self._peers.get(url)
        if peer is None:
            peer = self._peers[url] = _Peer(self._open(url))
            if len(self._peers) > self._limit:
                self._drop(next(iter(self._peers)))
        self._peers.move_to_end(url)
        peer.users += 1
        well = False
        try:
            yield peer
            well = True
        finally:
            peer.users -= 1
            if not well and self._peers.get(url) is peer:
                self._drop(url)
            if peer.dropped and not peer.users:
                peer.channel.close()

    def _drop(self, url: str) -> None:
        """Lend this channel no more; the last user closes it."""
        peer = self._peers.pop(url)
        peer.dropped = True
        if not peer.users:
            peer.channel.close()

    def _open(self, url: str) -> Any:
        grpc = self._modules["grpc"]
        parts = urlsplit(url)
        tls = parts.scheme == "grpcs"
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        address = f"dns:///{host}:{parts.port or (443 if tls else 80)}"
        if tls:
            return grpc.secure_channel(address, grpc.ssl_channel_credentials(self._roots), _OPTIONS)
        return grpc.insecure_channel(address, _OPTIONS)

    async def _call(
        self, peer: _Peer, method: str, request: Any, answer_type: Any, target: CheckTarget
    ) -> Any:
        call = peer.channel.unary_unary(
            method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer_type.FromString,
        )
        metadata = () if target.api_key is None else (("authorization", f"Bearer {target.api_key}"),)
        done = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def wake(_: object) -> None:
            try:
                token.run_sync_soon(done.set)
            except trio.RunFinishedError:
                pass  # the daemon has stopped; nobody waits any more

        try:
            # Our own clock ends the call; gRPC's is there in case this task is not cancelled in time.
            future = call.future(request, timeout=target.timeout_s + 1, metadata=metadata)
        except ValueError as error:
            raise CallFailed("the API key holds characters that a header cannot carry") from error
        future.add_done_callback(wake)
        try:
            await done.wait()
        finally:
            future.cancel()
        if future.cancelled():
            raise CallFailed("channel closed")
        failure = future.exception()
        if failure is None:
            return future.result()
        raise _failed(failure, target)


_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.use_local_subchannel_pool", 1),  # else a new channel inherits the pauses of the one that failed
    ("grpc.enable_http_proxy", 0),  # workers are asked directly, as the gateway asks them
    ("grpc.client_idle_timeout_ms", 90_000),  # a removed worker is not held on to
    ("grpc.service_config_disable_resolution", 1),  # no TXT look-up per channel
)


def _import_all() -> dict[str, Any]:
    """Import grpcio and every engine's messages; runs in a thread."""
    # It would write past the log, to standard error, whenever a server goes away; causes are logged by us.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    modules = {"grpc": importlib.import_module("grpc")}
    modules[STANDARD] = importlib.import_module("grpc_health.v1.health_pb2")
    for name, engine in ENGINES.items():
        modules[name] = importlib.import_module(f"smg_grpc_proto.generated.{engine.module}")
    return modules


def _failed(error: Any, target: CheckTarget) -> CallFailed:
    """Turn an RpcError into a short, stable cause: its own text holds addresses and times."""
    code = error.code().name
    details = (error.details() or "").lower()
    if code == "UNIMPLEMENTED":
        return CallFailed(f"gRPC {code}", unknown=True)
    if code == "DEADLINE_EXCEEDED":
        return CallFailed(f"no answer within {target.timeout_s:g} s")
    if code == "UNAVAILABLE":
        for sign, cause in _UNAVAILABLE:
            if sign in details:
                return CallFailed(cause)
    return CallFailed(f"gRPC {code}")


_UNAVAILABLE: Final = (
    ("connection refused", "connection refused"),
    ("connection reset", "connection reset"),
    ("socket closed", "connection reset"),
    ("no route to host", "no route to host"),
    ("network is unreachable", "network unreachable"),
    ("dns resolution failed", "host name cannot be resolved"),
    ("domain name not found", "host name cannot be resolved"),
    ("certificate", "TLS certificate not accepted"),
    ("handshake", "TLS failed"),
    ("ssl", "TLS failed"),
)


def _status_name(pb: Any, status: int) -> str:
    """Name a serving status; a number that our definitions lack is shown as such."""
    names = pb.HealthCheckResponse.ServingStatus
    return str(names.Name(status)) if status in names.values() else str(status)


def _own_words(text: str) -> str:
    """Quote the engine, cut and on one line."""
    words = "".join(char if char.isprintable() else " " for char in text[:CAUSE_CHARS]).strip()
    return f"engine says it is not healthy: {words}" if words else "engine says it is not healthy"
