"""How many accepted connections there may be, in all and from one address."""

from __future__ import annotations

from collections import Counter

from meshd.config_address import is_loopback
from meshd.runtime.limits import CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS, CONNECTIONS_PER_LOOPBACK


class Doorkeeper:
    """Counts accepted connections; every `admit` that answers None is paired with a `leave`."""

    def __init__(self) -> None:
        self._per_host: Counter[str] = Counter()
        self._total = 0

    def admit(self, remote: str) -> str | None:
        """Let a connection from `remote` ("host:port") in, or say why not."""
        host = _host(remote)
        most = CONNECTIONS_PER_LOOPBACK if is_loopback(host) else CONNECTIONS_PER_ADDRESS
        if self._total >= CONNECTIONS_MAX:
            return f"{CONNECTIONS_MAX} connections are open already"
        if self._per_host[host] >= most:
            return f"{most} connections from this address are open already"
        self._per_host[host] += 1
        self._total += 1
        return None

    def leave(self, remote: str) -> None:
        """An admitted connection is gone."""
        host = _host(remote)
        self._total -= 1
        self._per_host[host] -= 1
        if not self._per_host[host]:
            del self._per_host[host]


def _host(remote: str) -> str:
    return remote.rpartition(":")[0]
