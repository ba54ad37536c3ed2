"""A small HTTP server that speaks bodies of the daemon's API, for tests of what talks to it.

It answers from a table of routes, records every request, and runs in a thread on a real socket, TCP
or unix. Answers are what the test says; nothing of the daemon is imitated.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Request:
    """One request as it came; header names are lower case."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any


@dataclass
class Answer:
    """What to send: JSON, or `raw` as it is.

    The chunks of a `stream` are sent one by one, then the connection ends; `cut` ends it without an answer.
    """

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    stream: list[bytes] | None = None
    cut: bool = False


Route = Callable[[Request], Answer] | Answer


@dataclass
class FakeApi:
    """The routes and what was asked. `url` is filled in when it serves."""

    routes: dict[tuple[str, str], Route] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    def on(self, method: str, path: str, route: Route | dict[str, Any] | list[Any]) -> None:
        """Answer `METHOD path`; a plain body stands for a 200 with it."""
        self.routes[method, path] = Answer(route) if isinstance(route, dict | list) else route

    def asked(self, method: str, path: str) -> list[Request]:
        """The requests of one kind, in order."""
        return [one for one in self.requests if (one.method, one.path) == (method, path)]

    def answer(self, request: Request) -> Answer:
        """What the routes say; 404 NOT_FOUND for the rest, as the daemon does for unknown paths."""
        self.requests.append(request)
        route = self.routes.get((request.method, request.path))
        if route is None:
            return Answer({"error": "there is no such path; /docs lists them", "code": "NOT_FOUND"}, 404)
        return route(request) if callable(route) else route


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body in one segment: two would wait for a delayed acknowledgement
    api: FakeApi

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        request = Request(
            method=self.command,
            path=unquote(parts.path),
            query=parse_qs(parts.query),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=json.loads(raw) if raw else None,
        )
        answer = self.api.answer(request)
        if answer.cut:
            self.close_connection = True
            return
        payload = answer.raw if answer.raw is not None else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.stream is None:
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)
            return
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for chunk in answer.stream:
            self.wfile.write(chunk)
            self.wfile.flush()
        self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - names that http.server wants

    def address_string(self) -> str:
        return "test"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def serving(api: FakeApi, unix: Path | None = None) -> Iterator[FakeApi]:
    """Serve until the end of the block, on loopback or on a unix socket; `api.url` tells where."""
    handler = type("Handler", (_Handler,), {"api": api})
    server: socketserver.BaseServer
    if unix is not None:
        server = _UnixServer(str(unix), handler)
        api.url = f"unix:{unix}"
    else:
        tcp = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        tcp.daemon_threads = True
        server = tcp
        api.url = f"http://127.0.0.1:{tcp.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
