"""What every way of discovery shares: where it puts what it found, and how it waits between two looks.

Discovery only ever adds addresses; whom they lead to, and whether that is wanted, the node finds out by a
handshake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import structlog

AddAddresses = Callable[[Iterable[str], str], None]
"""Called with `host:port` addresses and the name of the way they were found.

On the trio thread, never blocks.
"""

LOOK_AGAIN_S: Final = 30.0
"""Between two successful looks at a name whose answer carries no life time of its own."""

SHORTEST_LOOK_S: Final = 5.0
"""A name is looked up no more often than this, whatever life time its answer claims."""

FIRST_RETRY_S: Final = 1.0
"""After a first failure; doubled with each further one, up to LOOK_AGAIN_S."""

LOOKUP_TIMEOUT_S: Final = 10.0
"""A look that takes longer has failed."""

_log = structlog.get_logger("meshd.discovery")


class Attempts:
    """The pauses of one endless search, and its log.

    A failure is told once per change of cause, so is recovery.
    """

    def __init__(self, way: str, name: str) -> None:
        self._way = way
        self._name = name
        self._pause_s = FIRST_RETRY_S
        self._cause: str | None = None

    def succeeded(self, life_s: float = LOOK_AGAIN_S) -> float:
        """A look found something that holds for `life_s`; returns the seconds to wait until the next one."""
        if self._cause is not None:
            _log.info("discovery_recovered", way=self._way, name=self._name)
        self._cause = None
        self._pause_s = FIRST_RETRY_S
        return min(max(life_s, SHORTEST_LOOK_S), LOOK_AGAIN_S)

    def failed(self, cause: str) -> float:
        """A look found nothing; returns the seconds to wait until the next one."""
        if cause != self._cause:
            _log.warning(
                "discovery_failed", way=self._way, name=self._name, cause=cause, hint="it is tried again"
            )
        self._cause = cause
        pause_s = self._pause_s
        self._pause_s = min(self._pause_s * 2, LOOK_AGAIN_S)
        return pause_s
