"""Health checks of ipc:// workers: whoever accepts on the unix socket passes (LIF-7).

The socket is named as ZeroMQ does it: `ipc:///run/engine.sock` is a path, `ipc://@name` lies in the
abstract namespace of Linux.
"""

from __future__ import annotations

import errno
from typing import Final

import trio

from meshd.workers.causes import explain
from meshd.workers.health_schedule import CheckTarget

RETRY_S: Final = 0.05
"""Pause before a socket whose queue is full is tried again."""


def socket_address(url: str) -> str:
    """Return what to hand to connect() for an ipc:// URL."""
    path = url.removeprefix("ipc://")
    return "\0" + path[1:] if path.startswith("@") else path


class IpcChecker:
    """Checks workers by connecting to their unix sockets."""

    async def check(self, target: CheckTarget) -> str | None:
        """Return None if the socket accepts a connection within the timeout, else the cause (LIF-4)."""
        address = socket_address(target.url)
        try:
            with trio.fail_after(target.timeout_s):
                while not await _accepts(address):  # noqa: ASYNC110  # another process frees the queue
                    await trio.sleep(RETRY_S)
        except trio.TooSlowError:
            return f"no connection within {target.timeout_s:g} s"
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            return explain(error)
        return None

    def close(self) -> None:
        """Nothing is kept between checks."""


async def _accepts(address: str) -> bool:
    """Whether the socket took a connection; False if its queue is full just now. Raises `OSError`."""
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as sock:
        await sock.connect(address)
        try:
            sock.getpeername()
        except OSError as error:
            # With a full queue, connecting to a unix socket only seems to succeed when it does not block.
            if error.errno == errno.ENOTCONN:
                return False
            raise
        return True
