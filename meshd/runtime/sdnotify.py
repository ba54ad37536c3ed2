"""Telling the service manager how it goes: the datagram protocol of `systemd.exec`'s `Type=notify`.

Without `$NOTIFY_SOCKET` nothing happens, and a manager that does not listen is no reason to stop.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

READY = "READY=1"
STOPPING = "STOPPING=1"
RELOADING = "RELOADING=1"


def notify(*lines: str, environ: Mapping[str, str] | None = None) -> bool:
    """Send state lines such as READY.

    True if there was somebody to send them to. Never blocks or raises OSError.
    """
    path = (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    # An @ stands for Linux' abstract namespace, whose names begin with a zero byte.
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        try:
            sender.sendto("\n".join(lines).encode(), address)
        except OSError:
            return False
    return True
