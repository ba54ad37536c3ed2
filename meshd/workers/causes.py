"""Why a worker could not be asked, in words that people read in logs and listings (LIF-4).

Rules kept: a cause is short, holds no secret and nothing that changes from one attempt to the next (ports,
times, addresses), so that it is logged once per change.
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Final

from meshd.workers.health_schedule import OUT_OF_FILES


class RequestFailed(Exception):
    """No usable answer came. `cause` is a short, stable phrase without secrets."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


_ERRNO: Final = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network unreachable",
    errno.ETIMEDOUT: "connection timed out",
    errno.ENOENT: "no such socket",
    errno.EACCES: "permission denied",
    errno.EMFILE: OUT_OF_FILES,
    errno.ENFILE: OUT_OF_FILES,
}


def explain(error: BaseException) -> str:
    """Return a short phrase for a failed connection: stable, so that it is logged once per change."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"TLS certificate not accepted: {seen.verify_message}"
        if isinstance(seen, ssl.SSLError):
            return f"TLS failed: {seen.reason or 'closed during the handshake'}"
        if isinstance(seen, socket.gaierror):
            return "host name cannot be resolved"
        if isinstance(seen, OSError) and seen.errno is not None:
            return _ERRNO.get(seen.errno) or (seen.strerror or "connection failed").lower()
        seen = seen.exceptions[0] if isinstance(seen, BaseExceptionGroup) else seen.__cause__
    return "connection failed"
