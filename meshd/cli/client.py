"""Asking a daemon: JSON over HTTP, on TCP or a unix socket, with the standard library only.

Rules: one `Api` speaks to one daemon. Its candidates are tried in order until one accepts;
it stays with that one. Only what is safe to repeat (GET) is repeated when a kept connection
turns out to be closed. Whatever goes wrong becomes a `CliError` that names the address and
the next step; the caller never sees a socket error.
"""

import errno
import http.client
import json
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote, urlencode

from meshd.cli.address import Address
from meshd.cli.exits import ApiRefused, CliError, InputRefused, NoSuchRoute, TimedOut, Unreachable

DEFAULT_TIMEOUT_S = 10.0
MAX_BODY_BYTES = 1 << 30
"""A bound against a stream that never ends; a million entries are well below it."""

PIECE_BYTES = 256 * 1024

ADVICE = {
    "WORKER_ALREADY_EXISTS": "`meshctl worker set` changes it; to start anew, `meshctl worker rm` it first",
    "WORKER_OWNED_BY_PEER": "ask that node (--addr), or take it over with `meshctl worker add URL`",
    "REVISION_MISMATCH": "somebody changed it meanwhile: see `meshctl worker get`, then try again",
    "STORE_FULL": "store.max_keys is reached: remove workers, or raise the setting",
}
"""What to do next, in this program's words, by the error's code."""

START_HINT = "is meshd running? start it with `meshd run`, or say where it is with --addr"


class Reply(NamedTuple):
    """A successful answer: HTTP status, headers in lower case, decoded JSON body."""

    status: int
    headers: Mapping[str, str]
    body: Any


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket file."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def path_of(*parts: str) -> str:
    """A URL path from parts that may hold any character: `/mesh/store/worker%3A...`."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


class Api:
    """One daemon's API. `timeout_s` bounds the connect and each wait for the answer.

    `searched` says in words where the candidates were looked for, for the case that there are none.
    """

    def __init__(
        self,
        candidates: Sequence[Address],
        *,
        token: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        searched: str = "",
    ) -> None:
        self.candidates = list(candidates)
        self.address: Address | None = None
        self.timeout_s = timeout_s
        self._token = token
        self._searched = searched
        self._kept: http.client.HTTPConnection | None = None

    def __str__(self) -> str:
        return str(self.address or (self.candidates[0] if self.candidates else "no address"))

    def close(self) -> None:
        """Close the kept connection. Idempotent; the next request opens another."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def connect(self) -> None:
        """Find out which candidate accepts, and keep that connection; raises `Unreachable`."""
        if self._kept is None:
            self._kept = self._connect()

    def get(self, path: str, query: Mapping[str, object] | None = None) -> Any:
        """The decoded body of a GET. `None` values in `query` are left out."""
        return self.call("GET", path, query=query).body

    def get_object(self, path: str, query: Mapping[str, object] | None = None) -> dict[str, Any]:
        """The body of a GET that must be a JSON object."""
        body = self.get(path, query)
        if not isinstance(body, dict):
            raise self._strange(path)
        return body

    def get_rows(self, path: str, member: str, query: Mapping[str, object] | None = None) -> dict[str, Any]:
        """The body of a GET whose `member` must be a list of objects."""
        body = self.get_object(path, query)
        rows = body.get(member)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._strange(path)
        return body

    def _strange(self, path: str) -> Unreachable:
        return Unreachable(
            f"{self} answered GET {path} with something that is not meshd's",
            hint="is this meshd's API? another program may hold the port",
        )

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request and its answer; raises `CliError` for anything but a 2xx."""
        target = path + query_text(query)
        data = None if body is None else json.dumps(body).encode()
        sent = {"Accept": "application/json", **(headers or {})}
        if data is not None:
            sent["Content-Type"] = "application/json"
        response = self._exchange(method, target, data, sent)
        raw = self._read(response)
        return self._judge(method, path, response, raw)

    def stream(
        self, path: str, query: Mapping[str, object], headers: Mapping[str, str], *, quiet_s: float
    ) -> http.client.HTTPResponse:
        """Open a stream on a connection of its own; the caller reads and closes the response.

        Once it is open, reading raises `TimeoutError` after `quiet_s` seconds of silence.
        """
        connection = self._connect()
        sock = connection.sock
        try:
            response = self._send(connection, "GET", path + query_text(query), None, dict(headers))
        except (OSError, http.client.HTTPException) as problem:
            connection.close()
            raise self._lost(problem) from problem
        if response.status >= 300:
            raw = self._read(response)
            connection.close()
            self._judge("GET", path, response, raw)
        sock.settimeout(quiet_s)
        return response

    def download(self, method: str, path: str, out: BinaryIO) -> None:
        """One request whose answer is bytes: write them to `out`, piece by piece.

        Raises `CliError` for anything but a 2xx, and for an answer that breaks off.
        """
        response = self._exchange(method, path, b"", {"Accept": "*/*"})
        if response.status >= 300:
            self._judge(method, path, response, self._read(response))
        try:
            while piece := response.read(PIECE_BYTES):
                out.write(piece)
        except (http.client.HTTPException, TimeoutError, ConnectionError) as problem:
            self.close()
            raise self._lost(problem) from problem
        if response.will_close:
            self.close()

    def _exchange(
        self, method: str, target: str, data: bytes | None, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        kept, self._kept = self._kept, None
        if kept is not None:
            try:
                response = self._send(kept, method, target, data, headers)
            except TimeoutError as problem:
                kept.close()
                raise self._lost(problem) from problem
            except (OSError, http.client.HTTPException) as problem:
                # The daemon may close an idle connection at any time. A request that changes
                # something may have been carried out, so only a GET is sent again.
                kept.close()
                if method != "GET":
                    raise self._lost(problem) from problem
            else:
                self._kept = kept
                return response
        connection = self._connect()
        try:
            response = self._send(connection, method, target, data, headers)
        except (OSError, http.client.HTTPException) as problem:
            connection.close()
            raise self._lost(problem) from problem
        self._kept = connection
        return response

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        data: bytes | None,
        headers: dict[str, str],
    ) -> http.client.HTTPResponse:
        if self._token:
            headers = {"Authorization": f"Bearer {self._token}", **headers}
        connection.request(method, target, body=data, headers=headers)
        return connection.getresponse()

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            raw = response.read(MAX_BODY_BYTES)
        except (OSError, http.client.HTTPException) as problem:
            self.close()
            raise self._lost(problem) from problem
        if response.will_close:
            self.close()
        return raw

    def _connect(self) -> http.client.HTTPConnection:
        """The first candidate that accepts; remembers it."""
        tried: list[str] = []
        dead_sockets: set[str] = set()
        for address in [self.address] if self.address else self.candidates:
            if address.implied_by and address.implied_by in dead_sockets:
                tried.append(f"{address} (not tried: its daemon's socket is dead)")
                continue
            connection = self._connection_to(address)
            try:
                connection.connect()
            except OSError as problem:
                connection.close()
                if address.path and _nobody_listens(problem):
                    dead_sockets.add(address.path)
                tried.append(f"{address} ({_reason(problem)})")
                continue
            self.address = address
            return connection
        raise _no_daemon(tried, self.candidates, self._searched)

    def _connection_to(self, address: Address) -> http.client.HTTPConnection:
        if address.path:
            return _UnixConnection(address.path, self.timeout_s)
        if address.tls:
            return http.client.HTTPSConnection(address.host, address.port, timeout=self.timeout_s)
        return http.client.HTTPConnection(address.host, address.port, timeout=self.timeout_s)

    def _lost(self, problem: Exception) -> CliError:
        if isinstance(problem, TimeoutError):
            return TimedOut(
                f"{self} accepted the connection but did not answer within {self.timeout_s:g} s",
                hint="the daemon is stopped, overloaded or stuck: see its log, or wait longer with --timeout",
            )
        if isinstance(problem, http.client.BadStatusLine | http.client.UnknownProtocol) and not isinstance(
            problem, http.client.RemoteDisconnected
        ):
            return Unreachable(
                f"{self} does not speak HTTP",
                hint="the API port is wanted (7391 by default), not the mesh port (7390 by default)",
            )
        return Unreachable(
            f"{self} closed the connection before it had answered ({_reason(problem)})",
            hint="it may be stopping, or this is the mesh port: the API's is 7391 by default",
        )

    def _judge(self, method: str, path: str, response: http.client.HTTPResponse, raw: bytes) -> Reply:
        try:
            body: Any = json.loads(raw) if raw.strip() else None
        except ValueError as problem:
            if response.status < 300:
                raise Unreachable(
                    f"{self} answered {method} {path} with something that is not JSON",
                    hint="is this meshd's API? another program may hold the port",
                ) from problem
            body = None
        if response.status < 300:
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, headers, body)
        raise refusal(str(self), method, path, response.status, body)


def refusal(where: str, method: str, path: str, status: int, body: Any) -> ApiRefused:
    """The error for an answer that is not 2xx."""
    fields: dict[str, Any] = body if isinstance(body, dict) else {}
    code = str(fields.get("code") or "")
    message = str(fields.get("error") or f"{where} answered {method} {path} with HTTP {status}")
    if status in (404, 405) and code in ("", "NOT_FOUND", "METHOD_NOT_ALLOWED", "ROUTE_NOT_FOUND"):
        return NoSuchRoute(
            f"the daemon at {where} has no {method} {path}",
            status=status,
            code=code,
            body=fields,
            hint="that version of meshd does not offer this; `meshctl version` compares it with this meshctl",
        )
    if field := fields.get("field"):
        message = f"{message} (field: {field})"
    hint = ADVICE.get(code)
    if status in (401, 403):
        hint = "give a token with --token-file FILE (or MESHCTL_TOKEN_FILE), or use the daemon's unix socket"
    elif status >= 500 and not code:
        hint = "this is the daemon's fault: its log has the cause"
    kind = InputRefused if status in (400, 413, 422) else ApiRefused
    return kind(message, status=status, code=code, body=fields, hint=hint)


def query_text(query: Mapping[str, object] | None) -> str:
    """`?a=1&b=2`, without what is `None`; lists repeat their name."""
    pairs: list[tuple[str, object]] = []
    for name, value in (query or {}).items():
        if isinstance(value, list | tuple):
            pairs += [(name, item) for item in value]
        elif value is not None:
            pairs.append((name, value))
    return "?" + urlencode(pairs) if pairs else ""


def _nobody_listens(problem: OSError) -> bool:
    return problem.errno in (errno.ECONNREFUSED, errno.ENOENT)


def _reason(problem: Exception) -> str:
    if isinstance(problem, TimeoutError):
        return "no answer to the connection attempt"
    if isinstance(problem, ssl.SSLError):
        return f"TLS: {problem.reason or problem}"
    if isinstance(problem, socket.gaierror):
        return "the host name is not known"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror.lower()
    return str(problem) or type(problem).__name__


def _no_daemon(tried: Sequence[str], candidates: Sequence[Address], searched: str) -> Unreachable:
    if not tried:
        return Unreachable(f"no daemon runs on {searched}", hint=START_HINT)
    if any("permission denied" in line for line in tried):
        return Unreachable(
            "may not connect to " + ", ".join(tried),
            hint="run meshctl as the daemon's user or group, or use its TCP address with --addr",
        )
    sources = {candidate.source for candidate in candidates}
    hint = START_HINT
    if sources == {"MESHCTL_ADDR"}:
        hint = "the address comes from MESHCTL_ADDR: " + START_HINT
    elif sources == {"--addr"}:
        hint = "is meshd running there, and is this its API port? On that host `meshctl info` finds it"
    return Unreachable("no daemon answers at " + ", ".join(tried), hint=hint)
