"""Puts the API together and serves it: the only file that knows all of its parts.

`serve_api` is what the daemon starts; `create_app` alone is for tests and for other servers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from starlette.requests import Request

from meshd.api.boundary import Boundary
from meshd.api.guard import Guard, load_tokens
from meshd.api.operations import OPERATIONS
from meshd.api.server import ApiEndpoints, serve_http
from meshd.api.state import ApiState
from meshd.api.table import Call, Operation

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.responses import Response

    from meshd.api.backend import Daemon
    from meshd.api.worker_json import Clock
    from meshd.config import ApiConfig, Config


def load_guard(config: ApiConfig) -> Guard:
    """Read the token files; raises ConfigError naming the setting whose file cannot be used."""
    return Guard(
        load_tokens("api.read_token_file", config.read_token_file),
        load_tokens("api.write_token_file", config.write_token_file),
    )


def create_app(daemon: Daemon, *, guard: Guard | None = None, clock: Clock | None = None) -> Boundary:
    """Return the ASGI application of a daemon; `close` on its `state` ends its streams.

    Raises ConfigError when a token file cannot be used. To be called on the trio thread.
    """
    state = ApiState(daemon, OPERATIONS, guard or load_guard(daemon.config.api), clock)

    def read_tokens_again(config: Config) -> Callable[[], None]:
        fresh = load_guard(config.api)
        return lambda: setattr(state, "guard", fresh)

    if guard is None:
        daemon.reloader.prepare.append(read_tokens_again)

    async def call(operation: Operation, request: Request, body: bytes) -> Response:
        made = Call(state, operation, request, body)
        made.refuse_unknown_parameters()
        return await operation.handler(made)

    return Boundary(OPERATIONS, state, call)


async def serve_api(
    daemon: Daemon, *, task_status: trio.TaskStatus[ApiEndpoints] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve the API on `api.bind` and `api.socket` until `daemon.stop` is set; starts with the endpoints.

    Running requests are finished within `limits.STOP_GRACE_S`. Raises ConfigError before anything listens.
    """
    config = daemon.config.api
    app = create_app(daemon)
    try:
        await serve_http(
            app,
            bind=config.bind,
            unix_path=config.socket,
            guarded=app.state.guard.configured,
            stop=daemon.stop,
            on_stop=app.state.log.close,
            task_status=task_status,
        )
    finally:
        app.state.close()
