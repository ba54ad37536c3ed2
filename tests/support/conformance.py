"""Nodes as the conformance suite sees them: an API address, `meshctl`, and nothing of what is behind it.

`Node` may stand for a daemon that was started here or for one that runs anywhere; `Fleet` is some of them in
one mesh. Nothing in this file imports anything of the daemon but the helpers that speak HTTP.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

from meshd.demo.client import Reply, call
from meshd.demo.processes import Daemon, program
from tests.support.backends import Backend
from tests.support.processes import EventStream, eventually

UNCHECKED = {"disable_health_check": True}
"""The `health` of a worker that nobody checks."""


class Node:
    """One running daemon, by the address of its API."""

    def __init__(self, api: str, daemon: Daemon | None = None) -> None:
        self.api = api
        self._daemon = daemon
        status = self.get("/mesh/status")
        self.name: str = status["node"]
        self.cluster: str = status["cluster"]

    @property
    def daemon(self) -> Daemon:
        """The process, where it was started here; raises RuntimeError for any other."""
        if self._daemon is None:
            raise RuntimeError(f"{self.name} was not started by this suite")
        return self._daemon

    @property
    def mesh(self) -> str:
        """Where other nodes reach it, as `host:port`."""
        return next(str(row["address"]) for row in self.members() if row["name"] == self.name)

    def call(self, method: str, path: str, body: object = None, **options: Any) -> Reply:
        """One request to its API."""
        return call(self.api, method, path, body, **options)

    def get(self, path: str) -> Any:
        """The JSON that a GET answers with 200; raises HttpError otherwise."""
        return self.call("GET", path).expect(200).json()

    def members(self) -> list[dict[str, Any]]:
        """Every member of the mesh as it sees them."""
        rows: list[dict[str, Any]] = self.get("/mesh/members")["members"]
        return rows

    def workers(self, query: str = "") -> dict[str, dict[str, Any]]:
        """The workers that it lists, by URL."""
        return {worker["url"]: worker for worker in self.get(f"/workers{query}")["workers"]}

    def worker(self, url: str) -> dict[str, Any]:
        """The worker of a URL, `{}` where it has none."""
        return self.workers().get(url, {})

    def status(self, url: str) -> str | None:
        """The status of a URL, None where it has none."""
        status: str | None = self.worker(url).get("status")
        return status

    def has(self, url: str, status: str) -> bool:
        """Whether a URL has this status."""
        return self.status(url) == status

    def register(self, url: str, **spec: object) -> str:
        """Register a worker and return its id; raises HttpError if that is refused."""
        answer = self.call("POST", "/workers", {"url": url, **spec}).expect(202).json()
        return str(answer["worker_id"])

    def replace(self, id: str, spec: Mapping[str, object], if_match: object = None) -> Reply:
        """PUT a whole spec, with `If-Match` if a revision is given."""
        headers = {} if if_match is None else {"If-Match": f'"{if_match}"'}
        return self.call("PUT", f"/workers/{id}", dict(spec), headers=headers)

    def remove(self, id: str) -> None:
        """Remove a worker without draining it."""
        self.call("DELETE", f"/workers/{id}?drain=0").expect(202)

    def entries(self, id: str) -> list[dict[str, Any]]:
        """All entries of a worker's key that it holds, tombstones included; none is an empty list."""
        reply = self.call("GET", f"/mesh/store/{quote('worker:' + id)}")
        if reply.status == 404:
            return []
        found: list[dict[str, Any]] = reply.expect(200).json()["entries"]
        return found

    def why(self, url: str) -> dict[str, Any]:
        """What it says about a URL."""
        said: dict[str, Any] = self.get(f"/mesh/why?url={quote(url, safe='')}")
        return said

    def metrics(self) -> dict[str, float]:
        """Every sample of `/metrics` by its name and labels as they stand there."""
        text = self.call("GET", "/metrics").expect(200).body.decode()
        lines = re.findall(r"^([a-zA-Z_:]\w*(?:\{.*\})?) (\S+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in lines}

    def passes(self) -> int:
        """How many reconcile passes it has made."""
        return int(self.metrics()["meshd_reconcile_passes_total"])

    def events(self, query: str = "", **headers: str) -> EventStream:
        """Its events, to be used in a `with`."""
        return EventStream(self, query, headers)

    def ctl(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run `meshctl` against it."""
        argv = [program("meshctl"), "--addr", f"http://{self.api}", *args]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


class Fleet:
    """Nodes of one mesh, in the order in which tests take them apart: `a, b, c = fleet`."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = tuple(nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def statuses(self, url: str) -> list[str | None]:
        """The status of a URL on every node."""
        return [node.status(url) for node in self]

    def each(self, check: Callable[[Node], object], what: str) -> None:
        """Wait until `check(node)` is true, for one node after the other."""
        for node in self:
            eventually(partial(check, node), f"{node.name}: {what}")

    def settle(self, url: str, status: str | None) -> None:
        """Wait until a URL has this status on every node; None: it is gone."""
        wanted = [status] * len(self.nodes)
        eventually(lambda: self.statuses(url) == wanted or None, f"{url} is {status} on every node")

    def clear(self) -> None:
        """Remove every worker, and wait until no node lists any."""
        for node in self:
            for worker in node.workers().values():
                if worker["origin"] == "local":
                    node.call("DELETE", f"/workers/{worker['id']}?drain=0")
        eventually(lambda: not any(node.workers() for node in self), "no node lists a worker")

    def let_reconcile(self, passes: int = 2) -> None:
        """Wait until every node has made so many more reconcile passes."""
        goals = {node.api: node.passes() + passes for node in self}
        self.each(lambda node: node.passes() >= goals[node.api], "reconciles")


def given_addresses() -> list[str]:
    """The API addresses of running daemons that were given, if any."""
    return [address for address in os.environ.get("CONFORMANCE_API", "").split(",") if address]


class LongCut:
    """A backend that one node stopped reaching at the start of the run, and that is back since."""

    def __init__(self, special: Fleet, backend: Backend) -> None:
        self.owner, self.checker, _ = special
        self.url = backend.url
        self.owner.register(backend.url)
        eventually(lambda: self.checker.status(backend.url) == "ready", "the import is ready")
        backend.stop()
        eventually(lambda: self.checker.status(backend.url) == "failed", "the import has failed")
        backend.start()


class SlowRequest:
    """A request whose last byte is held back until `finish`."""

    def __init__(self, node: Node, method: str, path: str, body: object, **headers: str) -> None:
        host, _, port = node.api.rpartition(":")
        content = json.dumps(body).encode()
        self._last = content[-1:]
        self._socket = socket.create_connection((host, int(port)), timeout=20.0)
        lines = [f"{method} {path} HTTP/1.1", f"Host: {node.api}", "Connection: close"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode() + content[:-1])

    def finish(self) -> int:
        """Send the last byte and return the status of the answer."""
        self._socket.sendall(self._last)
        answer = b""
        while data := self._socket.recv(65536):
            answer += data
        self._socket.close()
        return int(answer.split(b" ", 2)[1])


def holds_for(check: Callable[[], object], seconds: float, what: str, every_s: float = 0.03) -> None:
    """Assert that a condition is true the whole time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert check(), what
        time.sleep(every_s)


def transitions(stream: EventStream, url: str) -> list[tuple[str, str]]:
    """The changes of status of a URL that a stream told, as (before, after)."""
    changes = []
    for event in stream.of("status_changed"):
        if event.data["worker"]["url"] == url:
            changes.append((event.data["previous"], event.data["worker"]["status"]))
    return changes


def kinds_of(stream: EventStream, url: str) -> list[str]:
    """The kinds of the events about a URL, in order."""
    return [
        event.kind
        for event in list(stream.events)
        if isinstance(event.data, dict)
        and isinstance(event.data.get("worker"), dict)
        and event.data["worker"]["url"] == url
    ]


def opened(stream: EventStream) -> EventStream:
    """Wait until a stream has told its snapshot, so that all that follows is news."""
    eventually(lambda: stream.of("snapshot"), "the stream starts with a snapshot")
    return stream


def spec_of(worker: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """These fields of a worker."""
    return {name: worker.get(name) for name in names}
