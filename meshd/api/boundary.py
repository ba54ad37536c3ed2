"""The outermost layer of the application: what happens to every request before and after its handler.

In this order: the operation is looked up in the table, the guard decides by headers, the body is read
(bounded in size and time), the handler runs, and whatever it raises becomes the JSON error body of CTL-5.
Because the body is read here, in full, no handler can leave half of it unread, which would block the
connection's reader.
"""

from __future__ import annotations

import re
from math import inf
from typing import TYPE_CHECKING

import structlog
import trio
from starlette.requests import Request

from meshd.api import limits
from meshd.api.codec import JSONAnswer
from meshd.api.sse import EventStream
from meshd.errors import BadRequest, MeshdError, NotFound, TooLarge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from starlette.responses import Response
    from starlette.types import Message, Receive, Scope, Send

    from meshd.api.state import ApiState
    from meshd.api.table import Operation

log = structlog.get_logger("meshd.api")


class MethodNotAllowed(MeshdError):
    """The path exists, and this method does nothing there."""

    code = "METHOD_NOT_ALLOWED"
    http_status = 405

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"{method[:20]} does nothing here; this path knows {allowed}")
        self.allowed = allowed


class NotRead(Exception):
    """The client went away before its body was complete; there is nobody to answer."""


def error_answer(error: MeshdError, headers: Mapping[str, str] | None = None) -> JSONAnswer:
    """Make the answer for an error: its body, its status, and the headers that go with it."""
    extra = dict(headers or {})
    if error.http_status == 401:
        extra["www-authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        extra["allow"] = error.allowed
    return JSONAnswer(error.as_body(), status_code=error.http_status, headers=extra)


class Router:
    """Finds the operation for a method and a path. Literal paths cost one dictionary look-up."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._literal: dict[str, dict[str, Operation]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Operation]]] = []
        by_path: dict[str, dict[str, Operation]] = {}
        for operation in operations:
            methods = by_path.setdefault(operation.path, {})
            if operation.method in methods:
                raise ValueError(f"{operation.method} {operation.path} is in the table twice")
            methods[operation.method] = operation
        for path, methods in by_path.items():
            if "GET" in methods:
                methods["HEAD"] = methods["GET"]
            if "{" in path:
                self._patterns.append((_pattern(path), methods))
            else:
                self._literal[path] = methods

    def find(self, method: str, path: str) -> tuple[Operation, dict[str, str]]:
        """Return the operation and the path's parameters.

        Raises NotFound or MethodNotAllowed (with `allow`).
        """
        values: dict[str, str] = {}
        methods = self._literal.get(path)
        if methods is None:
            for pattern, candidate in self._patterns:
                if match := pattern.fullmatch(path):
                    methods, values = candidate, match.groupdict()
                    break
            else:
                raise NotFound("there is nothing at this path; /openapi.json lists what there is")
        operation = methods.get(method)
        if operation is None:
            raise MethodNotAllowed(method, ", ".join(sorted(methods)))
        return operation, values


def _pattern(path: str) -> re.Pattern[str]:
    """Compile `/a/{id}/b`; `{key:path}` also matches slashes."""
    parts = re.split(r"\{(\w+)(:path)?\}", path)
    built = re.escape(parts[0])
    for name, greedy, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        built += f"(?P<{name}>{'.+' if greedy else '[^/]+'})" + re.escape(literal)
    return re.compile(built, re.DOTALL)


class Boundary:
    """The ASGI application. Everything it knows comes from the table of operations."""

    def __init__(
        self,
        operations: Iterable[Operation],
        state: ApiState,
        call: Callable[[Operation, Request, bytes], Awaitable[Response]],
    ) -> None:
        self.state = state
        self._router = Router(operations)
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises nothing that a client could cause."""
        if scope["type"] != "http":
            raise ValueError(f"this application speaks HTTP, not {scope['type']}")
        started = trio.current_time()
        route = "none"
        status = 0
        response: Response | None = None

        async def counting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            try:
                operation, values = self._router.find(scope["method"], scope["path"])
                route = operation.path
                self.state.guard.check(scope, operation.access)
                body = await read_body(scope, receive)
                scope["path_params"] = values
                response = await self._call(operation, Request(scope, receive), body)
            except NotRead:
                return
            except MeshdError as error:
                response = error_answer(error)
            except Exception:
                log.exception("api_fault", method=scope["method"], route=route)
                response = error_answer(MeshdError("the daemon failed on this request; its log says why"))
            if "meshd.body_done" in scope or not _has_body(scope):
                await response(scope, receive, counting_send)
            else:
                await _refuse(response, scope, receive, counting_send)
        finally:
            self.state.metrics.observe(
                route,
                scope["method"],
                status,
                trio.current_time() - started,
                streamed=isinstance(response, EventStream),
            )


async def _refuse(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request whose body was not read: first throw the rest away, within bounds, then answer.

    Closing at once would reset the connection, and the client might never see why it was refused. Where the
    body goes on for longer, its reading continues beside the answer: an unread body would block the
    connection's reader, and with it the end of this very answer.
    """
    finished = False
    with trio.move_on_after(limits.DISCARD_TIMEOUT_S):
        finished = await _discard(receive, limits.DISCARD_BYTES)
    if not finished:
        response.headers["connection"] = "close"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_discard, receive, inf)
        await response(scope, receive, send)
        nursery.cancel_scope.cancel()


async def _discard(receive: Receive, most_bytes: float) -> bool:
    """Throw a body away up to `most_bytes`; tell whether its end, or that of the connection, was reached."""
    size = 0
    while size <= most_bytes:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            return True
    return False


def _has_body(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0"):
            return True
    return False


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """Read the whole body. Raises TooLarge, BadRequest (too slow), or NotRead (the client went away)."""
    if not _has_body(scope):
        return b""
    parts: list[bytes] = []
    size = 0
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > limits.MAX_BODY_BYTES:
            raise _too_large()
    with trio.move_on_after(limits.BODY_TIMEOUT_S) as limit:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise NotRead
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if not message.get("more_body", False):
                break
            if size > limits.MAX_BODY_BYTES:
                raise _too_large()
    if limit.cancelled_caught:
        raise BadRequest(
            f"the body did not arrive within {limits.BODY_TIMEOUT_S:.0f} s", field="body", http_status=408
        )
    scope["meshd.body_done"] = True
    if size > limits.MAX_BODY_BYTES:
        raise _too_large()
    return b"".join(parts)


def _too_large() -> TooLarge:
    return TooLarge(f"the body is larger than {limits.MAX_BODY_BYTES} bytes", field="body")
