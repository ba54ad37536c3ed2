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


def _mentions(daemon: Daemon, addresses: list[str]) -> list[dict[str, object]]:
    lines = ((event, json.dumps(event)) for event in log_events(daemon))
    return [event for event, line in lines if any(address in line for address in addresses)]


def _send(target: str, content: bytes, kind: str) -> str:
    """Send garbage, wait until the other side closes, and return the address that it came from."""
    host, _, port = target.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20.0) as sock:
        sock.sendall(content)
        try:
            _read_to_end(sock)
        except TimeoutError:
            raise AssertionError(f"the connection stays open after {kind}") from None
        return f"127.0.0.1:{sock.getsockname()[1]}"


@pytest.mark.req("SEC-4")
def test_garbage_on_the_mesh_port_is_dropped_and_logged_once_and_nothing_else_notices(mesh: Mesh) -> None:
    daemon, *peers = mesh
    senders = []
    with EventStream(daemon, "?types=member") as stream:
        for kind, content in GARBAGE.items():
            senders.append(_send(daemon.mesh, content, kind))
        eventually(lambda: _mentions(daemon, senders), "the log names the first sender")
        url = "http://127.0.0.1:9"
        worker_id = daemon.register({"url": url, "health": {"disable_health_check": True}})
        everywhere(peers, lambda peer: url in peer.workers(), "still hears of changes")
        daemon.call("DELETE", f"/workers/{worker_id}?drain=0").expect(202)
        everywhere(peers, lambda peer: not peer.workers(), "still hears of removals")
    # A line for each would let a stranger fill the log: repetitions from one address are only counted.
    assert len(_mentions(daemon, senders)) == 1
    assert not stream.of("member")
    for other in mesh:
        assert alive(other) == {"a", "b", "c"}
    for peer in peers:
        assert not _mentions(peer, senders)


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
