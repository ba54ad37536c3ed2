"""Inference servers as threads of the test: they answer health checks as told, and write down what was asked.

`Backend` is an HTTP server on a port of its own that can die and come back at the same place. `Gate` holds
each health check until the test answers it, so that transitions can be counted check by check.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.support.processes import free_port

_HELD_S = 60.0


class Gate:
    """Answers checks one at a time, as the test feeds it."""

    def __init__(self) -> None:
        self._arrived = threading.Semaphore(0)
        self._answers: queue.SimpleQueue[int] = queue.SimpleQueue()

    def __call__(self) -> int:
        """Hold a check until the test has answered it."""
        self._arrived.release()
        return self._answers.get(timeout=_HELD_S)

    def wait(self, timeout_s: float = 20.0) -> None:
        """Wait until a check has arrived; all before it have been taken in by then."""
        assert self._arrived.acquire(timeout=timeout_s), "no further check arrived"

    def nobody_comes(self, for_s: float) -> bool:
        """Whether no check arrives for so long."""
        return not self._arrived.acquire(timeout=for_s)

    def answer(self, status: int) -> None:
        """Let the check that arrived have its answer."""
        self._answers.put(status)


class Backend:
    """One inference server. `health` is a status, or asked for one; `pages`: path -> JSON."""

    def __init__(self, *, api_key: str | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.api_key = api_key
        self.health: int | Callable[[], int] = 200
        self.delay_s = 0.0
        self.pages: dict[str, Any] = {}
        self.asked: list[tuple[str, str | None]] = []
        """Path and Authorization header of each request, in order of arrival."""
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def checks(self) -> int:
        """How many health checks have arrived."""
        return sum(path == "/health" for path, _ in self.asked)

    def start(self) -> None:
        """Listen."""
        server = _Server(("127.0.0.1", self.port), _handler(self))
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.02,), name=self.url, daemon=True).start()

    def stop(self) -> None:
        """Die: connections are refused from now on."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


def _handler(backend: Backend) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        # HTTP/1.0: no connection outlives its answer, so that a backend that dies is gone at once.
        def do_GET(self) -> None:
            authorization = self.headers.get("Authorization")
            backend.asked.append((self.path, authorization))
            body: bytes = b"{}"
            if backend.api_key is not None and authorization != f"Bearer {backend.api_key}":
                status = 401
            elif self.path == "/health":
                time.sleep(backend.delay_s)
                status = backend.health if isinstance(backend.health, int) else backend.health()
            elif self.path in backend.pages:
                status, body = 200, json.dumps(backend.pages[self.path]).encode()
            else:
                status = 404
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except ConnectionError:
                return  # whoever asked did not wait for the answer

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    return Handler
