"""How long a frame takes: a few distributions, as plain values that a replay file can hold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

LONGEST_S = 30.0


@dataclass(frozen=True, slots=True)
class Latency:
    """One way's delay in seconds: `median_s`, and how unevenly it spreads around that.

    With `spread` 0 every frame takes `median_s`; else delays are log-normal with `spread` as sigma: 0.3 is a
    quiet network, 1.0 one whose slowest hundredth takes ten times the median.
    """

    median_s: float = 0.001
    spread: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what would let frames arrive before they were sent."""
        if not (self.median_s >= 0 and self.spread >= 0):
            raise ValueError(f"a latency cannot be {self.median_s:g} s ~{self.spread:g}: both are 0 or more")

    def sample(self, rng: random.Random) -> float:
        """The delay of one frame, at most LONGEST_S."""
        if not self.spread:
            return self.median_s
        return min(LONGEST_S, self.median_s * math.exp(self.spread * rng.gauss(0.0, 1.0)))


LAN = Latency(0.0005, 0.3)
WAN = Latency(0.04, 0.5)
BAD = Latency(0.2, 1.2)
