"""Who is in the mesh, and who of them lives.

A member's heartbeat count rises while it lives; the count travels with gossip, so a member counts as
heard from by whatever path its risen count arrived. Silence makes it `suspect`, then `down`; only a
risen count or direct contact make it `alive` again. `left` is what a member says of itself.
A life that is known by hearsay alone is `suspect` until its count is seen to rise: it may be long over.
Silence is observed time: while this process itself was stopped, nobody grew more silent.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass

from meshd.wire.messages import MemberRow

ALIVE, SUSPECT, DOWN, LEFT = "alive", "suspect", "down", "left"
NOT_LEFT, LEFT_FOR_RESTART, LEFT_WITHDRAWN = 0, 1, 2

MAX_MEMBERS = 16_384
"""Rows kept. Beyond it unheard-of names are ignored."""


@dataclass(slots=True)
class Member:
    """One row of the table. `heard_at` and `since` are monotonic seconds; `rtt_s` None: never measured."""

    row: MemberRow
    state: str
    heard_at: float
    since: float
    rtt_s: float | None = None

    @property
    def name(self) -> str:
        """The node's name."""
        return self.row.name

    @property
    def address(self) -> str:
        """Where it says that it listens, `host:port`."""
        return self.row.address


@dataclass(frozen=True, slots=True)
class StateChange:
    """A member's state changed; `previous` None: it is new."""

    name: str
    state: str
    previous: str | None


class Members:
    """The member table of the node called `me`, without a row for itself."""

    def __init__(self, me: str, suspect_after_s: float, down_after_s: float, now: float) -> None:
        self._me = me
        self._suspect_after_s = suspect_after_s
        self._down_after_s = down_after_s
        self._ticked_at = now
        self._rows: dict[str, Member] = {}
        self._soonest = float("inf")
        """Before this, no silence takes effect; being heard moves deadlines on, so it may be too early."""
        self.changed: dict[str, None] = {}
        """Names whose row changed since gossip last asked."""
        self.alive: set[str] = set()
        """Names of those whose state is `alive`."""
        self.moves = 0
        """Grows whenever a member comes, goes, changes its state or moves to another address."""

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._rows.values()))

    def __len__(self) -> int:
        return len(self._rows)

    def names(self) -> frozenset[str]:
        """The names of all members, whatever their state."""
        return frozenset(self._rows)

    def get(self, name: str) -> Member | None:
        """The member called `name`, or None; never this node itself."""
        return self._rows.get(name)

    def state_of(self, name: str) -> str | None:
        """`alive`, `suspect`, `down`, `left`, or None if never heard of. This node is `alive`."""
        if name == self._me:
            return ALIVE
        member = self._rows.get(name)
        return None if member is None else member.state

    def contact(self, row: MemberRow, now: float) -> StateChange | None:
        """The member itself spoke to this node: whatever was believed, this is its life now."""
        member = self._rows.get(row.name)
        if row.name == self._me:
            return None
        if member is None:
            return self._add(row, now, ALIVE)
        same_life = member.row.nonce == row.nonce
        if not same_life or row.beat > member.row.beat or row.left != member.row.left:
            self.changed[row.name] = None
        if same_life and row.beat < member.row.beat:
            row = row._replace(beat=member.row.beat)
        self._retell(member, row)
        member.heard_at = now
        return self._become(member, ALIVE if row.left == NOT_LEFT else LEFT, now)

    def rumour(self, row: MemberRow, now: float) -> StateChange | None:
        """A third node passed on what it knows. Old news change nothing."""
        if row.name == self._me:
            return None
        member = self._rows.get(row.name)
        if member is None:
            return self._add(row, now, SUSPECT) if len(self._rows) < MAX_MEMBERS else None
        same_life = row.nonce == member.row.nonce
        if same_life:
            if row.left < member.row.left or (row.beat <= member.row.beat and row.left == member.row.left):
                return None
        elif row.nonce < member.row.nonce and (self._holds(member, now) or row.left != NOT_LEFT):
            return None
        risen = row.beat > member.row.beat
        self._retell(member, row)
        self.changed[row.name] = None
        if row.left != NOT_LEFT:
            return self._become(member, LEFT, now)
        if same_life and not risen:
            return None
        member.heard_at = now
        unproven = not same_life and member.state != ALIVE
        return self._become(member, SUSPECT if unproven else ALIVE, now)

    def _holds(self, member: Member, now: float) -> bool:
        """Whether word of an earlier life counts for nothing: this one lives, or just said that it goes."""
        if member.state == LEFT:
            return now - member.since < self._down_after_s
        return member.state in (ALIVE, SUSPECT)

    def says_left(self, name: str, left: int, now: float) -> StateChange | None:
        """The member announced over its own connection that it stops."""
        member = self._rows.get(name)
        if member is None:
            return None
        member.row = member.row._replace(left=left)
        self.changed[name] = None
        return self._become(member, LEFT, now)

    def tick(self, now: float) -> list[StateChange]:
        """Let silence take effect. A gap in which this process itself did not run counts for nobody."""
        paused = now - self._ticked_at - self._suspect_after_s / 2
        self._ticked_at = now
        if now < self._soonest and paused <= 0:
            return []
        self._soonest = float("inf")
        changes = []
        for member in self._rows.values():
            if paused > 0:
                member.heard_at = min(now, member.heard_at + paused)
            silence = now - member.heard_at
            if member.state == ALIVE and silence >= self._suspect_after_s:
                changes.append(self._become(member, SUSPECT, now))
            elif member.state == SUSPECT and silence >= self._down_after_s:
                changes.append(self._become(member, DOWN, now))
            self._watch(member)
        return [change for change in changes if change is not None]

    def next_deadline(self) -> float | None:
        """When to look for the next silence that takes effect, or None."""
        return None if self._soonest == float("inf") else self._soonest

    def expired(self, now: float, after_s: float, owns: Container[str]) -> list[Member]:
        """Members that are gone for so long and of whom nothing is left (`owns`: names of owners of logs)."""
        if len(self.alive) == len(self._rows):
            return []
        return [
            member
            for member in self._rows.values()
            if member.state in (DOWN, LEFT) and now - member.since >= after_s and member.name not in owns
        ]

    def drop(self, name: str) -> None:
        """Forget a member altogether."""
        self._rows.pop(name, None)
        self.changed.pop(name, None)
        self.alive.discard(name)
        self.moves += 1

    def _add(self, row: MemberRow, now: float, state: str) -> StateChange:
        state = state if row.left == NOT_LEFT else LEFT
        member = self._rows[row.name] = Member(row, state, now, now)
        self.changed[row.name] = None
        self._note(member)
        return StateChange(row.name, state, None)

    def _retell(self, member: Member, row: MemberRow) -> None:
        if row.address != member.row.address:
            self.moves += 1
        member.row = row

    def _become(self, member: Member, state: str, now: float) -> StateChange | None:
        previous = member.state
        if previous == state:
            return None
        member.state = state
        member.since = now
        self._note(member)
        return StateChange(member.name, state, previous)

    def _note(self, member: Member) -> None:
        """The state of a member is another than before."""
        self.moves += 1
        if member.state == ALIVE:
            self.alive.add(member.name)
        else:
            self.alive.discard(member.name)
        self._watch(member)

    def _watch(self, member: Member) -> None:
        if member.state == ALIVE:
            self._soonest = min(self._soonest, member.heard_at + self._suspect_after_s)
        elif member.state == SUSPECT:
            self._soonest = min(self._soonest, member.heard_at + self._down_after_s)
