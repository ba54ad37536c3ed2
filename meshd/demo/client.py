"""The few lines of HTTP with which the demo and the tests talk to daemons and servers.

Blocking, on `http.client`; every call has a time limit. `call` opens a connection of its
own; `Connection` keeps one open and reopens it when the other side has gone.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_TIMEOUT_S = 5.0
"""Time limit of one step of a call (connect, send, receive), in seconds."""


@dataclass(frozen=True)
class Reply:
    """An HTTP answer. `headers` has lower-case names; `body` is the raw content."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON; raises ValueError, quoting the body, if it is not."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise ValueError(f"HTTP {self.status}, and not JSON: {self.body[:200]!r}") from error

    def expect(self, *statuses: int) -> Reply:
        """Return itself if the status is one of these; else raise HttpError with the body."""
        if self.status not in statuses:
            raise HttpError(self, statuses)
        return self


class HttpError(RuntimeError):
    """An answer with another status than expected; `reply` holds it."""

    def __init__(self, reply: Reply, expected: tuple[int, ...]) -> None:
        text = reply.body[:500].decode("utf-8", "replace")
        super().__init__(f"HTTP {reply.status} instead of {expected}: {text}")
        self.reply = reply


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Connection:
    """A kept-alive connection to `host:port` or `unix:PATH`; not safe for several threads."""

    def __init__(self, address: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._http: http.client.HTTPConnection
        if address.startswith("unix:"):
            self._http = _UnixConnection(address.removeprefix("unix:"), timeout_s)
        else:
            host, _, port = address.rpartition(":")
            self._http = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=timeout_s)

    def call(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One request; `body` is sent as JSON, or as it is if it is bytes.

        Raises OSError or http.client.HTTPException when there is no answer; the next call
        connects anew.
        """
        sent = dict(headers or {})
        content: bytes | None = None
        if isinstance(body, bytes):
            content = body
        elif body is not None:
            content = json.dumps(body).encode()
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        try:
            self._http.request(method, path, body=content, headers=sent)
            answer = self._http.getresponse()
            reply = Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        except (OSError, http.client.HTTPException):
            self._http.close()
            raise
        return reply

    def close(self) -> None:
        """Close the connection; a later call opens it again."""
        self._http.close()


def call(
    address: str,
    method: str,
    path: str,
    body: object = None,
    *,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Reply:
    """One request on a connection of its own; see `Connection.call`."""
    connection = Connection(address, timeout_s)
    try:
        return connection.call(method, path, body, {"Connection": "close", **(headers or {})})
    finally:
        connection.close()
