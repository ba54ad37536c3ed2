"""Hybrid logical clock: timestamps for people and for warnings about skewed clocks. It decides nothing.

A stamp is `wall_ms << 16 | counter`: it never runs backwards on a node, stays close to the wall clock
and follows what was heard from others, up to a bound (Kulkarni et al., "Logical Physical Clocks", 2014).
"""

from __future__ import annotations

_COUNTER_BITS = 16
_COUNTER_MAX = 2**_COUNTER_BITS - 1
STAMP_LIMIT = 2**63


class HybridClock:
    """One node's hybrid clock. `max_drift_ms` bounds how far a peer's stamp may pull it ahead."""

    __slots__ = ("last", "max_drift_ms")

    def __init__(self, max_drift_ms: int, last: int = 0) -> None:
        self.max_drift_ms = max_drift_ms
        self.last = last

    def stamp(self, wall_ms: int) -> int:
        """A new stamp, greater than every one before it on this node."""
        physical = max(wall_ms, 0) << _COUNTER_BITS
        self.last = min(max(self.last + 1, physical), STAMP_LIMIT - 1)
        return self.last

    def observe(self, stamp: int, wall_ms: int) -> int:
        """Take note of a peer's stamp; returns by how many ms it is ahead of this wall clock.

        A stamp further ahead than `max_drift_ms` is reported but does not move this clock.
        """
        ahead_ms = (stamp >> _COUNTER_BITS) - wall_ms
        if ahead_ms <= self.max_drift_ms and stamp > self.last:
            self.last = stamp
        return ahead_ms


def stamp_ms(stamp: int) -> int:
    """The wall-clock part of a stamp, in ms since 1970."""
    return stamp >> _COUNTER_BITS


def split_stamp(stamp: int) -> tuple[int, int]:
    """A stamp as (ms since 1970, counter within that ms)."""
    return stamp >> _COUNTER_BITS, stamp & _COUNTER_MAX
