"""A machine's clocks, which may be wrong: both may run fast or slow, and the wall clock may jump.

Nodes are given the time of their machine, never that of the simulation; so a node that trusts a clock where
it must not is found out.
"""

from __future__ import annotations

EPOCH_MS = 1_700_000_000_000
"""What right wall clocks show when a simulation begins: ms since 1970."""


class SimClock:
    """The clocks of one machine. `time` is always that of the simulation, in seconds."""

    def __init__(self, booted_s: float = 1000.0) -> None:
        """`booted_s`: what the monotonic clock shows when the simulation begins."""
        self._time = 0.0
        self._monotonic = booted_s
        self._rate = 1.0
        self._wall_ms = float(EPOCH_MS)

    def monotonic(self, time: float) -> float:
        """The monotonic clock, in seconds."""
        return self._monotonic + (time - self._time) * self._rate

    def wall_ms(self, time: float) -> int:
        """The wall clock, in ms since 1970; never before that."""
        return max(0, int(self._wall_ms + (time - self._time) * self._rate * 1000))

    def time_of(self, monotonic: float) -> float:
        """The time of the simulation at which the monotonic clock will show `monotonic`."""
        return self._time + (monotonic - self._monotonic) / self._rate

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward, or back where negative."""
        self._wall_ms += seconds * 1000

    def drift(self, rate: float, time: float) -> None:
        """Let both clocks run at `rate` (1.0 is right) from `time` on. Raises ValueError unless above 0."""
        if not rate > 0:
            raise ValueError(f"a clock cannot run at {rate:g}; to stop a process, pause it")
        self._monotonic = self.monotonic(time)
        self._wall_ms += (time - self._time) * self._rate * 1000
        self._time = time
        self._rate = rate
