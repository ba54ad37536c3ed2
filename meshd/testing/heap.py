"""Virtual time: what happens next, in an order that depends on nothing but times and the order of planning.

Owns the one clock of a simulated cluster. Rules it keeps: time never goes backwards; two events of one
instant happen in the order in which they were planned; nothing is ever removed from the heap, so who plans
an event that may become void lets it look, when it happens, whether it still counts.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class EventHeap:
    """Events of a cluster. `now` is in seconds since the simulation began."""

    def __init__(self) -> None:
        self.now = 0.0
        self.done = 0
        """Events that have happened."""
        self._heap: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._planned = 0

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, time: float, action: Callable[..., object], *args: Any) -> None:
        """Plan `action(*args)` for a time; one that has passed means now."""
        self._planned += 1
        now = self.now
        heapq.heappush(self._heap, (time if time > now else now, self._planned, action, args))

    def after(self, delay_s: float, action: Callable[..., object], *args: Any) -> None:
        """Plan `action(*args)` for `delay_s` seconds from now."""
        self.at(self.now + delay_s, action, *args)

    def run_to(self, time: float) -> None:
        """Let everything happen that is due until `time`, and what follows from it; then it is `time`."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= time:
            self.now, _, action, args = pop(heap)
            self.done += 1
            action(*args)
        self.now = max(self.now, time)
