"""Putting a node's notices into the log, so that nobody outside can fill it.

A notice that blames a remote address is logged once per event and address in a while; repetitions are
counted, and the count goes with the next line. Addresses are told apart without their ports, since a
stranger's port changes each time.
"""

from __future__ import annotations

from collections import OrderedDict

import structlog

from meshd.runtime.limits import NOTICE_REPEAT_S, NOTICE_SOURCES

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class NoticeLog:
    """The log as the driver sees it. `now` is monotonic, in seconds."""

    def __init__(self, logger: structlog.typing.FilteringBoundLogger) -> None:
        self._logger = logger
        self._heard: OrderedDict[tuple[str, str], _Heard] = OrderedDict()

    def write(self, level: str, event: str, fields: dict[str, object], now: float) -> None:
        """Log one notice, or count it."""
        remote = fields.get("remote")
        if isinstance(remote, str) and level in ("warning", "error"):
            suppressed = self._admit((event, remote.rpartition(":")[0]), now)
            if suppressed is None:
                return
            if suppressed:
                fields = {**fields, "suppressed": suppressed}
        self._logger.log(_LEVELS[level], event, **fields)

    def _admit(self, source: tuple[str, str], now: float) -> int | None:
        """The number of lines held back since the last one, or None if this one is to be held back too."""
        heard = self._heard.get(source)
        if heard is not None and now < heard.again_at:
            heard.suppressed += 1
            return None
        self._heard[source] = _Heard(now + NOTICE_REPEAT_S)
        self._heard.move_to_end(source)
        if len(self._heard) > NOTICE_SOURCES:
            self._heard.popitem(last=False)
        return 0 if heard is None else heard.suppressed


class _Heard:
    __slots__ = ("again_at", "suppressed")

    def __init__(self, again_at: float) -> None:
        self.again_at = again_at
        self.suppressed = 0
