"""Workers for tests that need no registry."""

from __future__ import annotations

from meshd.workers.health_machine import HealthState, Status
from meshd.workers.model import ModelCard, WorkerSpec
from meshd.workers.record import worker_id
from meshd.workers.worker import Worker


def make_worker(
    url: str,
    status: Status = "ready",
    *,
    labels: dict[str, str] | None = None,
    models: tuple[str, ...] = (),
    owner: str = "a",
    runtime: str = "unspecified",
    revision: int = 1,
    checks_passed: int = 1,
) -> Worker:
    """Return a local worker of `owner` in a status, as a registry would hold it."""
    spec = WorkerSpec(
        url=url,
        labels=labels or {},
        models=tuple(ModelCard(model) for model in models),
        runtime_type=runtime,
    )
    return Worker(
        url=url,
        id=worker_id(owner, url),
        origin="local",
        owner=owner,
        spec=spec,
        status=status,
        health=HealthState(status, 0.0),
        since=0.0,
        revision=revision,
        checks_passed=checks_passed,
    )
