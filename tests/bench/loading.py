"""Registers many workers quickly: a few kept-alive connections, each in a thread."""

from __future__ import annotations

import threading

from meshd.demo.client import Connection
from meshd.demo.processes import Daemon

_CONNECTIONS = 4


def spec(number: int) -> dict[str, object]:
    """A worker of about the size that real ones have; nobody checks it (the mesh is measured)."""
    return {
        "url": f"http://10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}:8000",
        "models": [{"id": f"bench-model-{number % 20}"}],
        "labels": {"zone": f"zone-{number % 3}", "note": "x" * 250},
    }


def register(daemon: Daemon, first: int, count: int) -> None:
    """Register workers `first` to `first + count - 1` on a daemon; raises the first error met."""
    errors: list[Exception] = []

    def run(share: range) -> None:
        connection = Connection(daemon.api, timeout_s=60.0)
        try:
            for number in share:
                connection.call("POST", "/workers", spec(number)).expect(202)
        except Exception as error:
            errors.append(error)  # raised below, in the caller's thread
        finally:
            connection.close()

    shares = [range(first + offset, first + count, _CONNECTIONS) for offset in range(_CONNECTIONS)]
    threads = [threading.Thread(target=run, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def holds(count: int, daemon: Daemon) -> bool:
    """True if a daemon's registry holds exactly this many workers."""
    return int(daemon.get("/workers?limit=1")["total"]) == count
