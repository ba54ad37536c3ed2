"""What becomes of a local worker of which another life of this node had written more than this one knows.

Owns that one function. An older disk (a snapshot, a torn tail) gave back the worker as it once was; then a
peer gave back what had been written since. Spec, revision, and a drain or removal under way (or that it was
called off) are taken from there; what this life saw of the worker's health is newer and stays.
"""

from __future__ import annotations

import msgspec

from meshd.workers.health_machine import HealthSettings, on_command
from meshd.workers.record import WorkerRecord
from meshd.workers.worker import Worker


def adopted(worker: Worker, record: WorkerRecord, settings: HealthSettings, now: float) -> Worker:
    """Return the worker as the record of another life has it; `settings` are those in force for its spec."""
    drained, removing = record.status == "draining", worker.drain_until is not None
    known = record.spec == worker.spec and record.revision <= worker.revision
    if known and record.removing == removing and drained == (worker.status == "draining"):
        return worker
    health = on_command(worker.health, "replace", settings, now)
    if drained and health.status != "draining":
        health = on_command(health, "drain", settings, now)
    elif health.status == "draining" and not drained:
        health = on_command(health, "undrain", settings, now)
    drain_until = worker.drain_until if record.removing else None
    if record.removing and drain_until is None:
        drain_until = now + settings.drain_settle_s
    return msgspec.structs.replace(
        worker,
        spec=record.spec,
        revision=max(worker.revision, record.revision),
        extra=record.extra,
        health=health,
        status=health.status,
        since=worker.since if worker.status == health.status else now,
        held_word=worker.held_word if health.status == "pending" else None,
        drain_until=drain_until,
    )
