"""When a dead owner's entries go, and for how long its return under an old gen is refused.

The age of an owner's silence is observed, connected time: it grows only while this process runs, is
connected to somebody, and does not take itself for the cut-off one. It is kept across restarts, and
learning a log from a third node brings that node's age along. Forgetting leaves a fence.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable

from crdt.delta import Verdict
from crdt.lww_map import Change, LwwMap
from crdt.persist import PutMeta, StoreOp

LONGEST_STEP_S = 5.0
"""No single tick adds more than this: a process that was stopped observed nothing meanwhile."""
SHORTEST_STEP_S = 0.25
"""Ages are looked at this often at most: ticks come for many reasons, and there may be many owners."""
PERSIST_EVERY_S = 60.0
FORGET_PREFIX = "forget:"
"""Multi-writer keys `forget:<owner>` with the gen counter up to which every node forgets that owner."""
META_SILENCE = "contact:"
META_FENCE = "fence:"


class Forgetting:
    """Ages of silence and of fences, of the node that holds `store`."""

    def __init__(
        self,
        store: LwwMap,
        forget_after_s: float,
        fence_keep_s: float,
        meta: dict[str, bytes],
        changed: Callable[[Change], None],
        now: float,
    ) -> None:
        self._map = store
        self._forget_after_s = forget_after_s
        self._fence_keep_s = fence_keep_s
        self._changed = changed
        self._ticked_at = now
        self._silence: dict[str, float] = {}
        self._fence_age: dict[str, float] = {}
        self._since_persist_s = 0.0
        self._asked: dict[str, int] = {}
        self.read(store.visible_keys(FORGET_PREFIX))
        for name, value in meta.items():
            if name.startswith(META_SILENCE):
                self._silence[name[len(META_SILENCE) :]] = _number(value)
            elif name.startswith(META_FENCE):
                counter, _, age = value.decode("ascii", "replace").partition(" ")
                if counter.isdigit():
                    owner = name[len(META_FENCE) :]
                    store.fences[owner] = int(counter)
                    self._fence_age[owner] = _number(age.encode())

    def read(self, keys: Iterable[str]) -> None:
        """Keys changed: note which owners somebody asked every node to forget."""
        for key in keys:
            if key.startswith(FORGET_PREFIX):
                found = self._map.visible(key)
                owner = key.removeprefix(FORGET_PREFIX)
                if found is not None and found.value.isdigit():
                    self._asked[owner] = int(found.value)
                else:
                    self._asked.pop(owner, None)

    def asked_for(self) -> list[str]:
        """Owners that are to be forgotten by request, and of whom there is something to forget."""
        logs, me = self._map.logs, self._map.node
        return [
            owner
            for owner, counter in self._asked.items()
            if owner in logs and owner != me and logs[owner].gen[0] <= counter
        ]

    def silence(self, owner: str) -> float:
        """For how long this node has not heard of an owner, in seconds of observed time."""
        return self._silence.get(owner, 0.0)

    def learnt(self, owner: str, silence_s: float) -> None:
        """A log came from a third node that has not heard of its owner for `silence_s`."""
        if silence_s > 0 and owner not in self._silence:
            self._silence[owner] = silence_s

    def tick(self, now: float, connected: bool, alive: Container[str]) -> list[str]:
        """Let time pass; returns the owners that are due to be forgotten."""
        if now < self._ticked_at + SHORTEST_STEP_S:
            return []
        step = min(now - self._ticked_at, LONGEST_STEP_S)
        self._ticked_at = now
        due = []
        for owner in [owner for owner in self._silence if owner in alive]:
            del self._silence[owner]
        if connected:
            for owner in [owner for owner in self._map.logs if owner not in alive]:
                if owner == self._map.node:
                    continue
                age = self._silence.get(owner, 0.0) + step
                self._silence[owner] = age
                if age >= self._forget_after_s:
                    due.append(owner)
        for owner in list(self._map.fences):
            self._fence_age[owner] = self._fence_age.get(owner, 0.0) + step
            if self._fence_age[owner] >= self._fence_keep_s:
                self._drop_fence(owner)
        self._since_persist_s += step
        if self._since_persist_s >= PERSIST_EVERY_S:
            self._since_persist_s = 0.0
            self._persist(self._silence)
        return due

    def forget(self, owner: str, hlc: int) -> bool:
        """Drop an owner's entries here and refuse its gens so far. Returns whether there was anything."""
        change = self._map.forget(owner, hlc)
        self._silence.pop(owner, None)
        if not change.ops:
            return False
        self._fence_age[owner] = 0.0
        fence = PutMeta(META_FENCE + owner, f"{self._map.fences[owner]} 0".encode())
        gone = PutMeta(META_SILENCE + owner, None)
        self._changed(Change(change.verdict, change.keys, (*change.ops, fence, gone)))
        return True

    def _drop_fence(self, owner: str) -> None:
        del self._map.fences[owner]
        self._fence_age.pop(owner, None)
        self._changed(_only((PutMeta(META_FENCE + owner, None),)))

    def _persist(self, owners: Iterable[str]) -> None:
        ops: list[StoreOp] = [
            PutMeta(META_SILENCE + owner, f"{self._silence[owner]:.0f}".encode()) for owner in owners
        ]
        for owner, counter in self._map.fences.items():
            age = self._fence_age.get(owner, 0.0)
            ops.append(PutMeta(META_FENCE + owner, f"{counter} {age:.0f}".encode()))
        if ops:
            self._changed(_only(tuple(ops)))


def _only(ops: tuple[StoreOp, ...]) -> Change:
    return Change(Verdict.APPLIED, (), ops)


def _number(value: bytes) -> float:
    try:
        return max(0.0, float(value))
    except ValueError:
        return 0.0
