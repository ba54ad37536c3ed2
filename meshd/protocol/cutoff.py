"""Telling a dead mesh from being cut off from it.

A node that loses most of its members at about the same time is more likely the one that is cut off than
the last one standing. While it takes itself for that, it hides nobody and forgets nobody; it just says so.
That ends when most of those it lost are back, and for the forgetting clock after a bounded time at the
latest, since a mesh may really have died.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Set


class CutOff:
    """Watches losses. Within `window_s` they count as at once; `bound_s`: see `holds_clock`."""

    def __init__(self, window_s: float, bound_s: float) -> None:
        self._window_s = window_s
        self._bound_s = bound_s
        self._losses: deque[tuple[float, str]] = deque()
        self._lost: set[str] = set()
        self.since: float | None = None
        """When this node began to take itself for the cut-off one; None while it does not."""

    def lost(self, name: str, now: float) -> None:
        """A member that was alive is silent."""
        self._losses.append((now, name))

    def back(self, name: str) -> None:
        """A member is alive again: its silence is over, and is not counted together with a later one."""
        self._losses = deque(loss for loss in self._losses if loss[1] != name)

    def left(self, name: str) -> None:
        """A member said that it goes: that is no silence, nor is what it was silent before."""
        self.back(name)
        self._lost.discard(name)

    def update(self, present: Set[str], now: float) -> bool:
        """Judge anew, given the other members that are alive. Returns whether the verdict changed."""
        while self._losses and now - self._losses[0][0] > self._window_s:
            self._losses.popleft()
        if self.since is None:
            gone = {name for _, name in self._losses} - present
            if len(gone) > len(present):
                self._lost = gone
                self.since = now
                return True
        elif len(self._lost & present) * 2 >= len(self._lost):
            self.since = None
            self._lost = set()
            self._losses.clear()
            return True
        else:
            self._lost |= {name for _, name in self._losses} - present
        return False

    def holds_clock(self, now: float) -> bool:
        """Whether the forgetting clock stands still for it."""
        return self.since is not None and now - self.since < self._bound_s
