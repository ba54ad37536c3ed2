"""Serving an API on real sockets for the length of a block."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import trio

from meshd.api.app import serve_api
from meshd.api.connection import ServerConfig
from meshd.api.server import ApiEndpoints, serve_http
from tests.support.api_daemon import FakeDaemon, make_app

PATIENCE_S = 10.0
"""How long anything may take here; nothing does unless it hangs."""


@contextlib.asynccontextmanager
async def served(daemon: FakeDaemon) -> AsyncIterator[ApiEndpoints]:
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            endpoints: ApiEndpoints = await nursery.start(serve_api, daemon)
            yield endpoints
            daemon.stop.set()


async def until(holds: Callable[[], bool]) -> None:
    """Let the server go on until something holds; `fail_after` around it bounds the wait."""
    while not holds():  # noqa: ASYNC110 - a count of the server under test has no event to wait for
        await trio.sleep(0.005)


@contextlib.asynccontextmanager
async def served_with(config: ServerConfig, daemon: FakeDaemon, path: Path) -> AsyncIterator[str]:
    """Serve a daemon's application on a unix socket, with other limits."""
    app = make_app(daemon)

    async def serve(task_status: trio.TaskStatus[ApiEndpoints]) -> None:
        await serve_http(
            app,
            bind=None,
            unix_path=path,
            guarded=False,
            stop=daemon.stop,
            on_stop=app.state.log.close,
            config=config,
            task_status=task_status,
        )

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            yield os.fspath(path)
            daemon.stop.set()
