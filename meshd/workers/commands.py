"""What people and gateways ask of local workers: register, replace, patch, drain, remove.

Owns the checks that a command must pass, and the worker that comes of it. Rules it keeps: REG-1, REG-3,
REG-4, REG-5, LIF-9, SYN-8. Each command is one step without awaiting anything, so that two of them can never
interleave; one that is refused has changed nothing.
"""

from __future__ import annotations

import msgspec

from meshd.errors import BadRequest, RevisionMismatch, WorkerAlreadyExists, WorkerNotFound, WorkerOwnedByPeer
from meshd.workers.core import Core
from meshd.workers.health_machine import HealthSettings, HealthState, initial, on_command
from meshd.workers.model import WorkerSpec, patch_spec
from meshd.workers.record import RecordError, WorkerRecord, decode_record, worker_id, worker_key
from meshd.workers.sync import Sync
from meshd.workers.urls import is_reachable_from_others
from meshd.workers.worker import Worker


class Commands:
    """The commands, over the core and its sync."""

    def __init__(self, core: Core, sync: Sync) -> None:
        self._core = core
        self._sync = sync

    def register(self, spec: WorkerSpec, now: float) -> Worker:
        """Register a new local worker, or claim a URL that only other nodes have (SYN-8).

        Raises WorkerAlreadyExists if this node has it, draining or not; TooLarge or StoreFull.
        """
        old = self._present(spec, now)
        if old is not None and old.is_local:
            raise WorkerAlreadyExists(spec.url, old.id)
        return self._enter(spec, old, now)

    def register_or_replace(self, spec: WorkerSpec, now: float) -> Worker:
        """Register, or replace what is registered; an equal spec changes nothing unless the worker had
        failed.
        """
        old = self._present(spec, now)
        if old is None or not old.is_local:
            return self._enter(spec, old, now)
        return self._replaced(old, spec, now) if self._differs(old, spec) else old

    def replace(self, id: str, spec: WorkerSpec, if_match: int | None, now: float) -> Worker:
        """Overwrite a local worker's spec; one without `api_key` keeps the key that is known.

        Raises WorkerNotFound, WorkerOwnedByPeer, BadRequest for another URL, RevisionMismatch if `if_match`
        is not the present revision; TooLarge or StoreFull.
        """
        old = self._local(id, if_match)
        if spec.url != old.url:
            raise BadRequest(
                f"url cannot change from {old.url}: remove this worker, then register the other", field="url"
            )
        return self._replaced(old, spec, now)

    def patch(self, id: str, patch: object, if_match: int | None, now: float) -> Worker:
        """Change priority, cost, labels, api_key or health of a local worker. Raises as `replace` does."""
        old = self._local(id, if_match)
        spec = patch_spec(old.spec, patch)
        return self._replaced(old, spec, now) if self._differs(old, spec) else old

    def remove(self, id: str, now: float, drain: bool = True) -> None:
        """Remove a local worker: after it has drained, or at once without `drain` or where that time is 0."""
        old = self._local(id, None)
        settings = self._core.health_settings(old.spec, local=True)
        if not drain or settings.drain_settle_s <= 0:
            self.remove_now(old, now)
        elif old.drain_until is None:
            self._drain(old, settings, now, until=now + settings.drain_settle_s)

    def drain(self, id: str, now: float) -> Worker:
        """Take a local worker out of rotation on every node without removing it."""
        old = self._local(id, None)
        if old.status == "draining":
            return old
        return self._drain(old, self._core.health_settings(old.spec, local=True), now, until=None)

    def undrain(self, id: str, now: float) -> Worker:
        """Bring a draining worker back, to be checked anew; a removal that was under way is called off."""
        old = self._local(id, None)
        if old.status != "draining":
            return old
        settings = self._core.health_settings(old.spec, local=True)
        health = on_command(old.health, "undrain", settings, now)
        return self._put(old, _with_health(old, health, drain_until=None), now)

    def finish_drains(self, now: float) -> None:
        """Remove the workers that have drained by now."""
        for url in [url for url, until in self._core.drains.items() if until <= now]:
            worker = self._core.registry.by_url(url)
            if worker is not None and worker.is_local:
                self.remove_now(worker, now)

    def remove_now(self, worker: Worker, now: float) -> None:
        """Remove a local worker; the next claim to its URL, if there is one, takes over in the same step."""
        core = self._core
        successor = core.import_of(worker.url, worker.claims, worker, now) if worker.claims else None
        core.commit(worker, successor, now, strict=True)

    # --- shared steps -------------------------------------------------------------------------------

    def _present(self, spec: WorkerSpec, now: float) -> Worker | None:
        """Return the worker of a URL, after looking whether the store holds a former one of this node."""
        self._sync.settle(worker_key(self._core.node, spec.url), now)
        return self._core.registry.by_url(spec.url)

    def _local(self, id: str, if_match: int | None) -> Worker:
        worker = self._core.registry.get(id)
        if worker is None:
            raise WorkerNotFound(id)
        if not worker.is_local:
            raise WorkerOwnedByPeer(id, worker.owner)
        if if_match is not None and if_match != worker.revision:
            raise RevisionMismatch(id, if_match, worker.revision)
        return worker

    def _enter(self, spec: WorkerSpec, old: Worker | None, now: float) -> Worker:
        """Make a URL that this node did not have a local worker; `old` is the import that is claimed."""
        core = self._core
        settings = core.health_settings(spec, local=True)
        health = initial(settings, now) if old is None else _claimed_health(old, settings, now)
        former = self._former(spec.url)
        revision = 1 if former is None else former.revision + 1
        id = worker_id(core.node, spec.url)
        api_key = core.publisher.secrets.get(id) if spec.api_key is None else spec.api_key
        new = Worker(
            url=spec.url,
            id=id,
            origin="local",
            owner=core.node,
            spec=_without_key(spec),
            status=health.status,
            health=health,
            since=old.since if old is not None and old.status == health.status else now,
            revision=revision if old is None else max(revision, old.revision + 1),
            claims=() if old is None else old.claims,
            api_key=api_key or None,
            protected=bool(api_key),
            load=0 if old is None else old.load,
            checks_passed=0 if old is None else old.checks_passed,
            checks_failed=0 if old is None else old.checks_failed,
            checked_at=None if old is None else old.checked_at,
            reachable=is_reachable_from_others(spec.url),
            held_word=former.status if former is not None and health.status == "pending" else None,
        )
        return self._put(old, new, now)

    def _former(self, url: str) -> WorkerRecord | None:
        """Return this node's record of a former life, which waits for the worker to register again."""
        entry = self._core.store.own(worker_key(self._core.node, url))
        if entry is None or entry.this_life:
            return None
        try:
            return decode_record(entry.value)
        except RecordError:
            return None  # an unreadable one is overwritten

    def _differs(self, old: Worker, spec: WorkerSpec) -> bool:
        """Whether registering this spec changes anything (REG-4)."""
        key_changes = spec.api_key is not None and (spec.api_key or None) != old.api_key
        return key_changes or old.status == "failed" or _without_key(spec) != old.spec

    def _replaced(self, old: Worker, spec: WorkerSpec, now: float) -> Worker:
        settings = self._core.health_settings(spec, local=True)
        health = on_command(old.health, "replace", settings, now)
        api_key = old.api_key if spec.api_key is None else spec.api_key or None
        new = msgspec.structs.replace(
            _with_health(old, health, drain_until=old.drain_until),
            spec=_without_key(spec),
            revision=old.revision + 1,
            api_key=api_key,
            protected=api_key is not None,
        )
        return self._put(old, new, now)

    def _drain(self, old: Worker, settings: HealthSettings, now: float, until: float | None) -> Worker:
        health = old.health
        if old.status != "draining":
            health = on_command(health, "drain", settings, now)
        return self._put(old, _with_health(old, health, drain_until=until), now)

    def _put(self, old: Worker | None, new: Worker, now: float) -> Worker:
        committed = self._core.commit(old, new, now, strict=True)
        assert committed is not None
        return committed


def _with_health(old: Worker, health: HealthState, drain_until: float | None) -> Worker:
    """Return a local worker with another health, and so another status."""
    return msgspec.structs.replace(
        old,
        health=health,
        status=health.status,
        since=old.since if old.status == health.status else health.since,
        held_word=old.held_word if health.status == "pending" else None,
        drain_until=drain_until,
    )


def _claimed_health(old: Worker, settings: HealthSettings, now: float) -> HealthState:
    """Return what a claimed import's health is from now on, its two verdicts being one (SYN-8, REG-5).

    A drain that belongs to the other owner's removal ends with that claim and is not taken over.
    """
    serving = old.serving
    if old.status == "draining" and serving is not None and serving.record.removing:
        return initial(settings, now)
    health = old.health
    if not old.checked or health.status != old.status:
        health = HealthState(old.status, old.since, last_error=health.last_error)
    return on_command(health, "replace", settings, now)


def _without_key(spec: WorkerSpec) -> WorkerSpec:
    """Return the spec without its key, which stands beside it in the worker."""
    return spec if spec.api_key is None else msgspec.structs.replace(spec, api_key=None)
