"""Health checks of ipc:// workers: whoever accepts on the unix socket passes (LIF-7).

The socket is named as ZeroMQ does it: `ipc:///run/engine.sock` is a path, `ipc://@name` lies in the
abstract namespace of Linux.
"""

from __future__ import annotations

import trio

from meshd.workers.health_schedule import CheckTarget
from meshd.workers.http_client import explain


def socket_address(url: str) -> str:
    """Return what to hand to connect() for an ipc:// URL."""
    path = url.removeprefix("ipc://")
    return "\0" + path[1:] if path.startswith("@") else path


class IpcChecker:
    """Checks workers by connecting to their unix sockets."""

    async def check(self, target: CheckTarget) -> str | None:
        """Return None if the socket accepts a connection within the timeout, else the cause (LIF-4)."""
        sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        try:
            with trio.move_on_after(target.timeout_s):
                await sock.connect(socket_address(target.url))
                return None
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            return explain(error)
        finally:
            sock.close()
        return f"no connection within {target.timeout_s:g} s"
