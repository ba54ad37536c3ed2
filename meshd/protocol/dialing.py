"""Whom to connect to, and when to try again.

Every address that was ever given is tried for ever, with a growing, jittered pause; addresses learned
from gossip are tried while their member is in the table, the more of them there are the less often each.
An address that turns out to lead to this node itself, or to a node that is connected already, rests.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
GOSSIP_DIALS_PER_S = 50.0
"""Attempts at addresses from gossip, all together: thousands of dead members must not take a core."""
GOSSIP_HEAD_START_S = 0.5
"""Of two nodes that hear of each other by gossip, the one with the greater name dials this much later."""
MAX_ADDRESSES = 16_384
NEVER = float("inf")


@dataclass(slots=True)
class _Target:
    source: str
    next_at: float = NEVER
    failures: int = 0
    busy: bool = False
    last_error: str = ""
    leads_to: str = ""


class Dialer:
    """The known addresses with their next attempt. `rng` spreads the retries of many nodes."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._targets: dict[str, _Target] = {}
        self._own: set[str] = set()
        self._schedule: list[tuple[float, str]] = []
        """A heap of (when, address); what was planned anew since, or is busy, is passed over."""

    def add(self, addresses: Iterable[str], source: str, now: float, delay_s: float = 0.0) -> None:
        """Make addresses known; those known already keep their schedule, unless they were to wait longer."""
        for address in addresses:
            target = self._targets.get(address)
            if target is not None:
                if target.source == "gossip":
                    target.source = source  # given, it is to be tried for ever
                if not (target.busy or target.failures or target.leads_to):
                    self._plan(address, target, min(target.next_at, now + delay_s))
            elif address and len(self._targets) < MAX_ADDRESSES:
                target = self._targets[address] = _Target(source)
                self._plan(address, target, now + delay_s)

    def _plan(self, address: str, target: _Target, at: float) -> None:
        if target.next_at != at:
            target.next_at = at
            heapq.heappush(self._schedule, (at, address))

    def knows(self, address: str) -> bool:
        """Whether the address is among those that are tried."""
        return address in self._targets

    def retry_now(self, addresses: Iterable[str], now: float) -> None:
        """Somebody asked for these addresses by hand: try them at once."""
        for address in addresses:
            target = self._targets.get(address)
            if target is not None:
                target.failures = 0
                self._own.discard(address)
                self._plan(address, target, now)

    def due(self, now: float, connected: Container[str]) -> list[str]:
        """Addresses to dial now. Those that lead to a node in `connected` (names) are skipped for a while."""
        due: list[str] = []
        while self._schedule and self._schedule[0][0] <= now:
            at, address = heapq.heappop(self._schedule)
            target = self._targets.get(address)
            if target is None or target.next_at != at:
                continue
            target.next_at = NEVER
            if target.busy or address in self._own:
                continue
            if target.leads_to and target.leads_to in connected:
                self._plan(address, target, now + LONGEST_PAUSE_S)
            else:
                target.busy = True
                due.append(address)
        return due

    def failed(self, address: str, reason: str, now: float) -> bool:
        """An attempt, or the connection that it made, ended. Returns whether the reason is new."""
        target = self._targets.get(address)
        if target is None:
            return True
        target.busy = False
        longest = LONGEST_PAUSE_S
        if target.source == "gossip":
            longest = max(longest, len(self._targets) / GOSSIP_DIALS_PER_S)
        pause = min(longest, FIRST_PAUSE_S * 2.0 ** min(target.failures, 12))
        target.failures += 1
        self._plan(address, target, now + pause * (0.5 + self._rng.random()))
        news = reason != target.last_error
        target.last_error = reason
        return news

    def succeeded(self, address: str, name: str) -> None:
        """The address led to the node called `name`."""
        target = self._targets.get(address)
        if target is not None:
            target.failures, target.last_error, target.leads_to = 0, "", name

    def is_self(self, address: str) -> None:
        """The address leads to this very process: never dial it again."""
        self._own.add(address)

    def hold_off(self, address: str, now: float) -> None:
        """The connection was given up in favour of another one to the same node."""
        target = self._targets.get(address)
        if target is not None:
            target.busy = False
            self._plan(address, target, now + LONGEST_PAUSE_S * (0.5 + self._rng.random()))

    def drop(self, address: str) -> None:
        """Stop dialling an address that only gossip knew."""
        target = self._targets.get(address)
        if target is not None and target.source == "gossip":
            del self._targets[address]

    def next_deadline(self) -> float | None:
        """When to look for the next attempt that is due, or None."""
        return self._schedule[0][0] if self._schedule else None

    def addresses(self) -> dict[str, tuple[str, str]]:
        """Address -> (source, last error), for status pages."""
        return {address: (target.source, target.last_error) for address, target in self._targets.items()}
