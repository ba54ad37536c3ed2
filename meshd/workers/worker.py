"""A worker and the claims to it, as immutable values.

Owns the shapes that the registry holds. A change makes a new `Worker` that takes the old one's place in one
step, so that whoever holds one, a reader or an event, has a state that was true as a whole. Ten thousand of
them are cheap: they are msgspec structs that the garbage collector does not walk, and share their specs and
strings.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from meshd.workers.health_machine import HealthState, Status
from meshd.workers.model import Plain, WorkerSpec
from meshd.workers.record import PREFIX, WorkerRecord

Origin = Literal["local", "mesh"]


class Claim(msgspec.Struct, frozen=True, gc=False):
    """Another node's claim to a URL, as that node last published it in `value`."""

    id: str
    owner: str
    record: WorkerRecord
    value: bytes

    @property
    def spec(self) -> WorkerSpec:
        """The spec that the owner published."""
        return self.record.spec

    @property
    def word(self) -> str:
        """The owner's word on the worker's status."""
        return self.record.status


class Worker(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The one worker that is served for a URL, with all claims to it. Times are monotonic seconds.

    `status` is what counts here; `health` is this node's own verdict, which for a local worker is the same.
    `claims` are other nodes' claims, of which an import (`origin` mesh) serves the one whose id it has.
    """

    url: str
    id: str
    origin: Origin
    owner: str
    spec: WorkerSpec
    status: Status
    health: HealthState
    since: float
    """When `status` was taken on."""
    revision: int
    """Grows with every replacement (REG-6)."""
    claims: tuple[Claim, ...] = ()
    api_key: str | None = None
    """The key with which this node asks the backend: a local worker's own, or an unsealed one."""
    protected: bool = False
    """Whether the backend wants a key, known here or not."""
    checked: bool = True
    """Whether this node checks the worker by itself; of an import that it does not, the owner's word counts.
    """
    load: int = 0
    checks_passed: int = 0
    checks_failed: int = 0
    checked_at: float | None = None
    reachable: bool = True
    """Whether other nodes could reach a local worker's URL (SYN-15)."""
    held_word: str | None = None
    """A restored worker's last published status, which its record keeps until the first check decides
    (SYN-16).
    """
    drain_until: float | None = None
    """When a worker that is being removed has drained; None while it is not being removed (LIF-9)."""
    value: bytes | None = None
    """A local worker's record as encoded last."""
    extra: Plain | None = None
    """Fields of a local worker's record that another version wrote."""

    @property
    def is_local(self) -> bool:
        """Whether this node owns the worker that it serves."""
        return self.origin == "local"

    @property
    def is_ready(self) -> bool:
        """Whether requests may be routed to it."""
        return self.status == "ready"

    @property
    def key(self) -> str:
        """The store key of the claim that is served."""
        return PREFIX + self.id

    def claim(self, id: str) -> Claim | None:
        """Return the other node's claim with this id."""
        for claim in self.claims:
            if claim.id == id:
                return claim
        return None

    @property
    def serving(self) -> Claim | None:
        """The claim that an import serves; None for a local worker."""
        return None if self.origin == "local" else self.claim(self.id)

    @property
    def owner_word(self) -> str | None:
        """The owner's word, for an import; None for a local worker."""
        serving = self.serving
        return None if serving is None else serving.word

    def __repr__(self) -> str:
        """Show what identifies it and no secret."""
        return f"Worker({self.url!r}, {self.id}, {self.origin} of {self.owner}, {self.status})"
