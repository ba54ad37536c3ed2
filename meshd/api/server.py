"""Serves an application on TCP and on a unix socket at once, until it is told to stop.

This file owns the listening sockets: the chosen port, the unix socket's file and its removal. Rules: a TCP
address that other hosts can reach is refused unless tokens guard it (SEC-3); the unix socket is reachable by
its user only; stopping ends event streams first, lets running requests finish for a bounded time, and leaves
no file behind.

hypercorn's connection class is driven from here rather than by its own `serve`, whose shutdown waits on
clients, and whose lifespan task swallows faults.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import structlog
import trio
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from meshd.api import limits
from meshd.api.connection import Connection, ServerConfig
from meshd.config import Address, parse_address
from meshd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypercorn.typing import ASGIFramework
    from starlette.types import ASGIApp

log = structlog.get_logger("meshd.api")


class ApiEndpoints(NamedTuple):
    """Where the API listens.

    `tcp` as `host:port` with the port really taken, `socket` as a path, either None.
    """

    tcp: str | None
    socket: str | None


async def resolve_bind(address: str, *, guarded: bool) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Resolve `api.bind` to the one address to listen on.

    Raises ConfigError when the name does not resolve, and when the address is reachable from other hosts
    although no token guards the API (`guarded` false).
    """
    try:
        host, port = parse_address(address)
    except ValueError as error:
        raise ConfigError("api.bind", str(error)) from None
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError("api.bind", f"cannot resolve {host!r}: {error}") from None
    family, _, _, _, resolved = found[0]
    ip = str(resolved[0])
    if not guarded and not ipaddress.ip_address(ip.partition("%")[0]).is_loopback:
        raise ConfigError(
            "api.bind",
            f"{address} can be reached from other hosts, so the API needs tokens there: set "
            "api.write_token_file (and api.read_token_file), or bind to a loopback address",
        )
    return family, (ip, port)


def open_tcp(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    """Listen on a TCP address.

    Port 0 picks a free one. Raises ConfigError when the address cannot be taken.
    """
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(1024)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigError(
            "api.bind", f"cannot listen on {Address(*address)}: {os.strerror(error.errno or 0)}"
        ) from None
    return listener


def open_unix(path: Path) -> socket.socket:
    """Listen on a unix socket that only this user can reach.

    A socket file that nobody answers on (left by a killed daemon) is replaced. Raises ConfigError when the
    path is too long, is something else than a socket, or belongs to a process that still answers.
    """
    if len(os.fsencode(path)) > limits.UNIX_PATH_BYTES:
        raise ConfigError(
            "api.socket",
            f"the path {path} is longer than the {limits.UNIX_PATH_BYTES} bytes a unix socket may have; "
            "set a shorter one",
        )
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISSOCK(mode):
            raise ConfigError(
                "api.socket", f"{path} exists and is not a socket; move it away or choose another path"
            )
        if _answers(path):
            raise ConfigError("api.socket", f"another process serves {path}; stop it or choose another path")
        path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    former = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
        listener.listen(1024)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigError("api.socket", f"cannot create {path}: {os.strerror(error.errno or 0)}") from None
    finally:
        os.umask(former)
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # busy or not ours: somebody is there
    return True


@contextmanager
def _unix_file(path: Path) -> Iterator[None]:
    """Remove the socket's file at the end, unless another process has put its own in the place."""
    inode = path.lstat().st_ino
    try:
        yield
    finally:
        try:
            if path.lstat().st_ino == inode:
                path.unlink()
        except FileNotFoundError:
            pass  # somebody cleaned up before us


async def serve_http(
    app: ASGIApp,
    *,
    bind: str | None,
    unix_path: Path | None,
    guarded: bool,
    stop: trio.Event,
    on_stop: Callable[[], None],
    config: ServerConfig | None = None,
    grace_s: float = limits.STOP_GRACE_S,
    task_status: trio.TaskStatus[ApiEndpoints] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` until `stop` is set, then finish in at most `grace_s`.

    `task_status` gets the endpoints once both sockets listen. `on_stop` is called when no new connection is
    accepted any more; it must end the streams that would otherwise never end. Raises ConfigError before
    anything listens.
    """
    settings = config or ServerConfig()
    sockets: list[socket.socket] = []
    try:
        tcp: str | None = None
        if bind:
            listener = open_tcp(*await resolve_bind(bind, guarded=guarded))
            sockets.append(listener)
            tcp = str(Address(*listener.getsockname()[:2]))
        if unix_path is None:
            await _serve_sockets(
                app,
                sockets,
                settings,
                stop,
                on_stop,
                grace_s,
                partial(task_status.started, ApiEndpoints(tcp, None)),
            )
            return
        sockets.append(open_unix(unix_path))
        with _unix_file(unix_path):
            await _serve_sockets(
                app,
                sockets,
                settings,
                stop,
                on_stop,
                grace_s,
                partial(task_status.started, ApiEndpoints(tcp, os.fspath(unix_path))),
            )
    finally:
        for opened in sockets:
            opened.close()


async def _serve_sockets(
    app: ASGIApp,
    sockets: list[socket.socket],
    config: ServerConfig,
    stop: trio.Event,
    on_stop: Callable[[], None],
    grace_s: float,
    started: Callable[[], None],
) -> None:
    listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(opened)) for opened in sockets]
    context = WorkerContext(None)
    wrapped = wrap_app(cast("ASGIFramework", app), config.wsgi_max_body_size, "asgi")

    async def handle(stream: trio.SocketStream) -> None:
        await Connection(wrapped, config, context, ConnectionState({}), stream).run()

    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            accepting.start_soon(
                partial(trio.serve_listeners, handle, listeners, handler_nursery=connections)
            )
            started()
            await stop.wait()
            accepting.cancel_scope.cancel()
        on_stop()
        await context.terminated.set()
        connections.cancel_scope.deadline = trio.current_time() + grace_s
    if connections.cancel_scope.cancelled_caught:
        log.warning("api_requests_cut", grace_s=grace_s)
