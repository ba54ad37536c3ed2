"""WorkerInfo: a worker as the API shows it, made straight from the registry's immutable values.

Rules: the status is the real one (LIF-8); the API key is never part of it (SEC-3): it is not in the plain
form of a spec to begin with; times of day are derived from monotonic ones when they are shown, by one
`Clock`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from meshd.api.codec import encoder
from meshd.workers.claims import claim_status
from meshd.workers.model import spec_to_plain

if TYPE_CHECKING:
    from meshd.workers.worker import Worker


_STEP_S = 0.05


class Clock:
    """The two clocks of a daemon: monotonic seconds for everything, Unix time for people.

    Their offset is kept until it has moved noticeably, so that the same instant is always shown the same.
    """

    def __init__(self, monotonic: Callable[[], float], wall: Callable[[], float]) -> None:
        self.monotonic = monotonic
        self.wall = wall
        self._offset = wall() - monotonic()

    def offset(self) -> float:
        """Return what to add to a monotonic instant for its Unix time, as of now."""
        now = self.wall() - self.monotonic()
        if abs(now - self._offset) > _STEP_S:
            self._offset = now
        return self._offset


def rfc3339(unix_s: float) -> str:
    """Return a Unix time as people and programs read it, in UTC to the millisecond."""
    when = datetime.fromtimestamp(unix_s, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


OwnerDown = Callable[[str], bool]
"""Tells whether the owner of this name no longer speaks for its workers."""


def worker_info(worker: Worker, offset: float, owner_down: OwnerDown) -> dict[str, Any]:
    """Return a worker as a plain dict in the shape of `schemas.WorkerInfo`; `offset` is that of `Clock`."""
    info = spec_to_plain(worker.spec)
    models = worker.spec.models
    # After the spec, so that a field kept from a newer version never hides one of ours.
    info["id"] = worker.id
    info["model_id"] = models[0].id if models else None
    info["status"] = worker.status
    info["is_healthy"] = worker.is_ready
    info["load"] = worker.load
    info["origin"] = worker.origin
    info["owner"] = worker.owner
    info["revision"] = worker.revision
    info["since"] = rfc3339(worker.since + offset)
    info["last_error"] = worker.health.last_error
    info["claims"] = _claims(worker, owner_down)
    return info


def _claims(worker: Worker, owner_down: OwnerDown) -> list[dict[str, Any]]:
    """Return all claims to the worker's URL, the one that is served first."""
    claims = [{"owner": worker.owner, "id": worker.id, "healthy": worker.is_ready}]
    for claim in worker.claims:
        if claim.id != worker.id:
            # A drain of the local worker says nothing about another node's claim.
            drained = worker.is_local and worker.health.status == "draining"
            own = worker.health if worker.checked and not drained else None
            healthy = claim_status(claim, own, owner_down(claim.owner)) == "ready"
            claims.append({"owner": claim.owner, "id": claim.id, "healthy": healthy})
    return claims


def encode_workers(workers: Sequence[Worker], clock: Clock, owner_down: OwnerDown) -> bytes:
    """Return the JSON list of some workers."""
    offset = clock.offset()
    return encoder.encode([worker_info(worker, offset, owner_down) for worker in workers])
