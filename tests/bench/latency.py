"""How long a change on one node takes to be an event on the two others.

One thread, one selector: it sends `POST /workers` to A on a kept-alive connection and notes
when the answer and each of the two events arrive, so that no scheduling of client threads
is measured. Time runs from just before the request is sent ("submitted").
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import time
from dataclasses import dataclass

from meshd.demo.client import Connection
from meshd.demo.processes import Daemon
from tests.bench.figures import Figure, latency_figures
from tests.support.processes import Mesh, eventually

ROUNDS = 100
_PAUSE_S = 0.02
"""Between two rounds, so that a round measures a change and not a queue of them."""
_GIVE_UP_S = 10.0


@dataclass(frozen=True)
class Round:
    """Seconds from submission to the answer of A and to the event on B and C."""

    accepted_s: float
    events_s: tuple[float, float]


class _Stream:
    """A socket that collects what arrives."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.sock = socket.create_connection((host, int(port)), timeout=_GIVE_UP_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.seen = b""

    def read(self) -> None:
        chunk = self.sock.recv(1 << 16)
        if not chunk:
            raise ConnectionError("the daemon closed the connection")
        self.seen += chunk


def _subscribe(daemon: Daemon) -> _Stream:
    stream = _Stream(daemon.api)
    stream.sock.sendall(b"GET /events?types=registered HTTP/1.1\r\nHost: bench\r\n\r\n")
    while b"event: snapshot" not in stream.seen:
        stream.read()
    return stream


def _request(spec: dict[str, object]) -> bytes:
    body = json.dumps(spec).encode()
    head = b"POST /workers HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _answered(seen: bytes) -> bool:
    head, end, body = seen.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return bool(end) and length is not None and len(body) >= int(length[1])


def _round(post: _Stream, streams: tuple[_Stream, _Stream], spec: dict[str, object]) -> Round:
    url = str(spec["url"]).encode() + b'"'
    awaited = (post, *streams)
    at: dict[_Stream, float] = {}
    for stream in awaited:
        stream.seen = b""
    with selectors.DefaultSelector() as selector:
        for stream in awaited:
            selector.register(stream.sock, selectors.EVENT_READ, stream)
        content = _request(spec)
        submitted = time.perf_counter()
        post.sock.sendall(content)
        while len(at) < len(awaited):
            ready = selector.select(_GIVE_UP_S)
            now = time.perf_counter()
            if not ready:
                raise TimeoutError(f"no event for {spec['url']} within {_GIVE_UP_S:g} s")
            for key, _ in ready:
                stream = key.data
                stream.read()
                told = _answered(stream.seen) if stream is post else url in stream.seen
                if told and stream not in at:
                    at[stream] = now - submitted
    if not post.seen.startswith(b"HTTP/1.1 202"):
        raise RuntimeError(f"A refused the worker: {post.seen[:300]!r}")
    return Round(at[post], (at[streams[0]], at[streams[1]]))


def _floor(daemon: Daemon, rounds: int) -> list[float]:
    """Seconds for the cheapest answer there is: what HTTP alone costs on this machine, now."""
    connection, took = Connection(daemon.api), []
    for _ in range(rounds):
        before = time.perf_counter()
        connection.call("GET", "/healthz").expect(200)
        took.append(time.perf_counter() - before)
        time.sleep(_PAUSE_S)
    connection.close()
    return took


def measure(mesh: Mesh, rounds: int = ROUNDS) -> list[Figure]:
    """Register `rounds` workers on A, one after the other; B and C follow by events."""
    a, b, c = (mesh[name] for name in "abc")
    post, streams = _Stream(a.api), (_subscribe(b), _subscribe(c))
    done: list[Round] = []
    try:
        for number in range(-5, rounds):  # the first five warm up
            spec: dict[str, object] = {
                "url": f"http://127.0.0.1:9/latency{number}",
                "models": [{"id": "bench-model"}],
                "labels": {"zone": "bench", "note": "x" * 300},
                "health": {"disable_health_check": True},
            }
            done.append(_round(post, streams, spec))
            time.sleep(_PAUSE_S)
    finally:
        for stream in (post, *streams):
            stream.sock.close()
    del done[:5]
    last = [max(each.events_s) for each in done]
    after = [max(each.events_s) - each.accepted_s for each in done]
    eventually(lambda: b.workers().keys() == c.workers().keys() == a.workers().keys(), "all list the same")
    return [
        *latency_figures("GET /healthz on A, for comparison", _floor(a, rounds), None, None),
        *latency_figures("submitted on A to answered by A", [each.accepted_s for each in done], None, None),
        *latency_figures("submitted on A to event on B", [each.events_s[0] for each in done], 3.0, 15.0),
        *latency_figures("submitted on A to event on C", [each.events_s[1] for each in done], 3.0, 15.0),
        *latency_figures("submitted on A to event on both", last, 3.0, 15.0),
        *latency_figures("answered by A to event on both", after, None, None),
    ]
