"""This node's hybrid clock, and who of its peers has a wall clock that is far off. It decides nothing."""

from __future__ import annotations

from collections.abc import Callable

from crdt.hlc import HybridClock
from crdt.owner_log import OwnerLog
from crdt.types import HLC
from meshd.protocol.effects import Notice


class Stamps:
    """Stamps for local writes. After a restart they go on above those of the own log."""

    def __init__(
        self,
        own: OwnerLog | None,
        max_drift_ms: int,
        wall_clock: Callable[[], int],
        notice: Callable[[Notice], None],
    ) -> None:
        last = 0 if own is None else max((entry[HLC] for entry in own.entries.values()), default=0)
        self._clock = HybridClock(max_drift_ms, last)
        self._wall_clock = wall_clock
        self._notice = notice
        self._skewed: set[str] = set()

    def __call__(self) -> int:
        """A new stamp, greater than every one before it on this node."""
        return self._clock.stamp(self._wall_clock())

    def heard(self, name: str, hlc: int) -> None:
        """Take note of a peer's clock; a skew beyond the bound is said once for as long as it lasts."""
        ahead_ms = self._clock.observe(hlc, self._wall_clock())
        if abs(ahead_ms) <= self._clock.max_drift_ms:
            self._skewed.discard(name)
        elif name not in self._skewed:
            self._skewed.add(name)
            self._notice(Notice("warning", "clock_skew", {"peer": name, "ahead_ms": ahead_ms}))
