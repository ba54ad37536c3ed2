"""What is not our protocol is dropped, logged once, and noticed by nobody else."""

from __future__ import annotations

import json
import random
import socket

import pytest

from meshd.demo.processes import Daemon
from tests.support.processes import EventStream, Mesh, alive, eventually, everywhere, log_events

_RANDOM = random.Random(7).randbytes(4096)

GARBAGE = {
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: mesh\r\n\r\n",
    "random bytes": _RANDOM,
    "a frame of no known kind": b"\x00\x00\x00\x05\x93\xcc\xfa\x01\x02",
    "a frame that is no array": b"\x00\x00\x00\x03\xa2hi",
    "a frame longer than any": b"\xff\xff\xff\xff" + _RANDOM,
    "a frame nested without end": b"\x00\x00\x10\x00" + b"\x91" * 4096,
    "an empty frame": b"\x00\x00\x00\x00",
}


def _mentions(daemon: Daemon, address: str) -> list[dict[str, object]]:
    return [event for event in log_events(daemon) if address in json.dumps(event)]


@pytest.mark.req("SEC-4")
@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_on_the_mesh_port_is_dropped_and_logged_once(mesh: Mesh, kind: str) -> None:
    daemon, *peers = mesh
    host, _, port = daemon.mesh.rpartition(":")
    with EventStream(daemon, "?types=member") as stream:
        with socket.create_connection((host, int(port)), timeout=20.0) as sock:
            address = f"127.0.0.1:{sock.getsockname()[1]}"
            sock.sendall(GARBAGE[kind])
            _read_to_end(sock)
        eventually(lambda: _mentions(daemon, address), "the log names the sender")
        url = "http://127.0.0.1:9"
        worker_id = daemon.register({"url": url, "health": {"disable_health_check": True}})
        everywhere(peers, lambda peer: url in peer.workers(), "still hears of changes")
        daemon.call("DELETE", f"/workers/{worker_id}?drain=0").expect(202)
        everywhere(peers, lambda peer: not peer.workers(), "still hears of removals")
    assert len(_mentions(daemon, address)) == 1
    assert not stream.of("member")
    for other in mesh:
        assert alive(other) == {"a", "b", "c"}
        assert other is daemon or not _mentions(other, address)


@pytest.mark.req("SEC-4")
def test_a_connection_that_says_nothing_is_closed(mesh: Mesh) -> None:
    host, _, port = mesh["a"].mesh.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=25.0) as sock:
        _read_to_end(sock)


def _read_to_end(sock: socket.socket) -> None:
    """Read until the other side closes; what it may say before (its HELLO) does not matter."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass  # It closed while some of what we sent was still unread: closed all the same.
