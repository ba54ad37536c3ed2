"""This node's own log through its lives: which gen it writes under, when it must move on, what it takes back.

- A life starts under a counter above every one that its disk knows, with a boot nonce of its own. The
  nonces of the lives that led to this one stay on the disk: they tell the writes of this line from others.
- Meeting its own name under a gen at or above its own (a lost disk, a restored backup, another process, a
  fence) it moves above that gen. Moves are rate-limited.
- A copy of its log that its lineage does not cover is merged in, under a new gen.
- When the gens that force it on keep coming from one foreign life, two processes share one name: the life
  that booted with the lower gen stops publishing, and says so. As the other one may be gone by then, it tries
  again after a while that doubles each time; if the other lives, that costs a gen or two and ends in silence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from crdt.lww_map import Change, LwwMap
from crdt.owner_log import OwnerLog
from crdt.persist import PutMeta
from crdt.types import COUNTER_LIMIT, FENCE_NONCE, NO_GEN, Gen, Have, boot_nonce, format_gen
from meshd.protocol.effects import Notice

if TYPE_CHECKING:
    import random

BURST_BUMPS = 8
BUMP_WINDOW_S = 10.0
"""At most BURST_BUMPS new gens within this long; a further one waits."""
FORCED_LIMIT = 3
"""So many moves forced by one foreign life mean that it is another process under this name."""
HALT_S = 60.0
LONGEST_HALT_S = 3600.0
"""For how long a life that met another one under its name is silent before it tries again."""
COUNTER_CEILING = COUNTER_LIMIT - 2**20
"""No life comes near this by itself: whoever speaks of such a gen is broken, and is not followed."""
META_COUNTER = "gen_counter"
META_LINE = "lives"
MAX_LINE = 64
"""Former lives of this line that are remembered, so that their writes win over those of dead branches."""
COLLECT_STEPS = 8
"""Tombstones go at most a grace / COLLECT_STEPS after their time."""


class Ownership:
    """Writes and moves the own log of `store`."""

    def __init__(
        self,
        store: LwwMap,
        disk_counter: int,
        line: frozenset[int],
        tombstone_grace_s: float,
        rng: random.Random,
        changed: Callable[[Change], None],
        notice: Callable[[Notice], None],
        now: float,
    ) -> None:
        self._map = store
        self._grace_s = tombstone_grace_s
        self._changed = changed
        self._notice = notice
        own = store.logs.get(store.node)
        counter = 1 + max(disk_counter, own.gen[0] if own is not None else 0)
        self.nonce = boot_nonce(counter, rng.getrandbits(63))
        self.boot_gen: Gen = (counter, self.nonce)
        self.halted = ""
        """Why the own log is no longer published; empty while it is."""
        self._forced: dict[int, tuple[int, Gen]] = {}
        self._halt_s = HALT_S
        self._halted_until = 0.0
        self._bumps: deque[float] = deque(maxlen=BURST_BUMPS)
        self._wanted = NO_GEN
        self._reused_told = NO_GEN
        self._poisoned = False
        self._samples: deque[tuple[float, int]] = deque()
        store.line = line
        change = store.start_life(self.boot_gen)
        self._sample(now)
        self._move(change)

    @property
    def gen(self) -> Gen:
        """The gen that the own log is written under now."""
        return self._map.own.gen

    def is_halted(self) -> bool:
        """Whether the own log is not to be sent to anybody, since another life publishes under this name."""
        return bool(self.halted)

    def heard(self, have: Have, now: float) -> None:
        """A peer told what it has and knows of this node's own log."""
        own = self._map.own
        foreign = have.known if have.known > own.gen else NO_GEN
        same = have.gen == own.gen
        if same and (have.max > own.max or (have.max == own.max and have.hash != own.hash)):
            foreign = max(foreign, have.gen)
            if self._reused_told != own.gen:  # once per gen: the move above it is the answer
                self._reused_told = own.gen
                fields: dict[str, object] = {"gen": format_gen(own.gen), "max": have.max}
                self._notice(Notice("error", "own_log_reused", fields))
        if foreign == NO_GEN:
            return
        if foreign[0] >= COUNTER_CEILING:
            if not self._poisoned:
                self._poisoned = True
                self._notice(Notice("error", "gen_out_of_reach", {"gen": format_gen(foreign)}))
            return
        self._wanted = max(self._wanted, foreign)
        self._count_force(foreign, now)
        self.tick(now)

    def _count_force(self, foreign: Gen, now: float) -> None:
        nonce = foreign[1]
        if nonce in (FENCE_NONCE, self.nonce) or self._map.own.covers(foreign, 0):
            return
        times, last = self._forced.get(nonce, (0, NO_GEN))
        if foreign <= last:
            return
        self._forced[nonce] = (times + 1, foreign)
        if times + 1 >= FORCED_LIMIT and nonce > self.nonce and not self.halted:
            self.halted = (
                f"another process publishes as {self._map.node!r} (life {nonce:016x}, started later);"
                " stop one of them: a copied data directory, or one name on two nodes"
            )
            self._halted_until = now + self._halt_s
            self._halt_s = min(2 * self._halt_s, LONGEST_HALT_S)
            self._notice(Notice("error", "own_log_halted", {"reason": self.halted}))

    def offered(self, copy: OwnerLog, now: float) -> None:
        """A peer sent back a copy of the own log; merged if there is anything in it that was not taken on."""
        if self._map.own.covers(copy.gen, copy.max) or copy.gen[0] >= COUNTER_CEILING:
            return
        live = copy.live_count
        self._notice(Notice("info", "own_log_recovered", {"gen": format_gen(copy.gen), "entries": live}))
        known = self._map.known.get(self._map.node, NO_GEN)[0]
        counter = 1 + max(self.gen[0], copy.gen[0], known if known < COUNTER_CEILING else 0)
        self._bumps.append(now)
        self._move(self._map.absorb_own(copy, (counter, self.nonce)))

    def tick(self, now: float) -> None:
        """Move above what was met, if the rate allows, and collect tombstones that are past their grace."""
        if self.halted and now >= self._halted_until:
            self.halted = ""
            self._notice(Notice("warning", "own_log_resumed", {"gen": format_gen(self.gen)}))
        if self._wanted >= self.gen and not self.halted and self._may_bump(now):
            counter = 1 + max(self._wanted[0], self.gen[0])
            self._wanted = NO_GEN
            self._bumps.append(now)
            self._move(self._map.bump((counter, self.nonce)))
            self._notice(Notice("info", "own_log_new_gen", {"gen": format_gen(self.gen)}))
        elif self._wanted < self.gen:
            self._wanted = NO_GEN
        self._collect(now)

    def _may_bump(self, now: float) -> bool:
        return len(self._bumps) < BURST_BUMPS or now - self._bumps[0] >= BUMP_WINDOW_S

    def _collect(self, now: float) -> None:
        if not self._samples or now - self._samples[-1][0] >= self._grace_s / COLLECT_STEPS:
            self._sample(now)
        floor = 0
        while self._samples and now - self._samples[0][0] >= self._grace_s:
            floor = self._samples.popleft()[1]
        own = self._map.own
        if floor > own.floor and own.tombstones:
            change = self._map.collect_own(floor)
            if change.ops:
                self._changed(change)

    def _sample(self, now: float) -> None:
        own = self._map.logs.get(self._map.node)
        self._samples.append((now, own.max if own is not None else 0))

    def _move(self, change: Change) -> None:
        self._samples.clear()
        self._changed(Change(change.verdict, change.keys, (*self._identity(), *change.ops)))

    def _identity(self) -> tuple[PutMeta, ...]:
        line = sorted(self._map.line)[-MAX_LINE:]
        return (
            PutMeta(META_COUNTER, str(self.gen[0]).encode()),
            PutMeta(META_LINE, " ".join(map(str, line)).encode()),
        )

    def next_deadline(self) -> float | None:
        """When `tick` has something to do, or None."""
        times = []
        if self.halted:
            times.append(self._halted_until)
        elif self._wanted != NO_GEN:
            times.append(self._bumps[0] + BUMP_WINDOW_S if len(self._bumps) == BURST_BUMPS else 0.0)
        if self._map.own.tombstones:
            times.append(self._samples[0][0] + self._grace_s if self._samples else 0.0)
        return min(times, default=None)
