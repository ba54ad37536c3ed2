"""The heart of the worker plane: one way to change a worker, and all that has to follow from it.

Owns `commit`, the only caller of `Registry.swap`, and the making of imports out of claims. Rules it keeps:
what a change writes to the store is written first, so that a refused write leaves everything as it was
(CTL-5); then the registry shows the new worker; then its checks are scheduled and its events told (REG-7).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from meshd.errors import MeshdError
from meshd.workers.claims import choose, claim_status, owner_is_down
from meshd.workers.events import EventHub
from meshd.workers.health_machine import (
    HealthSettings,
    HealthState,
    IllegalInput,
    effective,
    effective_import,
    initial,
    on_command,
)
from meshd.workers.health_schedule import CheckTarget, HealthSchedule, mode_for
from meshd.workers.model import WorkerSpec
from meshd.workers.publishing import Publisher, Sealer
from meshd.workers.record import PREFIX
from meshd.workers.registry import Registry
from meshd.workers.store_view import Meta, Store
from meshd.workers.urls import scheme_of
from meshd.workers.worker import Claim, Worker

if TYPE_CHECKING:
    import random

Notice = Callable[[str, str, dict[str, object]], None]
"""(level, event, fields): something to log."""


@dataclass(frozen=True, slots=True)
class PlaneSettings:
    """What the worker plane takes from the configuration; times in seconds."""

    health: HealthSettings = field(default_factory=HealthSettings)
    check_imports: str = "always"
    """`always`, `owner_down` or `never` (LIF-10)."""
    remove_failed_workers: bool = False
    publish_loopback: bool = False
    on_start: str = "restore"
    """`restore` or `withdraw` (SYN-16)."""
    startup_grace_s: float = 30.0


def _no_notice(level: str, event: str, fields: dict[str, object]) -> None:
    """Log nothing."""


class Core:
    """The registry with everything that a change of it entails."""

    def __init__(
        self,
        settings: PlaneSettings,
        store: Store,
        meta: Meta,
        rng: random.Random,
        sealer: Sealer | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.publisher = Publisher(store, meta, sealer, lambda: self.wake())
        self.node = store.node_name
        self.registry = Registry()
        self.events = EventHub(lambda: self.registry.list().workers)
        self.schedule = HealthSchedule(rng)
        self.drains: dict[str, float] = {}
        """URL of each worker that is being removed, and when it has drained."""
        self.notice: Notice = _no_notice
        self.wake: Callable[[], None] = lambda: None
        self._asked_last: tuple[object, bool, HealthSettings]
        """The `health` of the spec that was asked about last, whether it was a local one, and the answer."""
        self.apply_settings(settings)

    def apply_settings(self, settings: PlaneSettings) -> None:
        """Take on settings; workers follow when they are looked at next."""
        self.settings = settings
        self.publisher.publish_loopback = settings.publish_loopback
        self._import_health = effective_import(None, settings.health)
        self._asked_last = (None, False, settings.health)

    # --- what follows from settings and members ---------------------------------------------------

    def health_settings(self, spec: WorkerSpec, local: bool) -> HealthSettings:
        """Return the health settings in force for a worker. Values that cannot be used fall to the node's."""
        if not spec.health:
            return self.settings.health if local else self._import_health
        # One change of a worker asks several times over.
        asked_for, asked_local, settings = self._asked_last
        if asked_for is not spec.health or asked_local != local:
            try:
                settings = (effective if local else effective_import)(spec.health, self.settings.health)
            except IllegalInput:
                # Another node published it: people's own input was held against its limits at the edge.
                settings = self.settings.health if local else self._import_health
            self._asked_last = (spec.health, local, settings)
        return settings

    def owner_down(self, owner: str) -> bool:
        """Whether an owner no longer speaks for its workers."""
        return owner_is_down(self.store.owner_state(owner))

    def checks_import(self, claim: Claim, off: bool, api_key: str | None) -> bool:
        """Whether this node checks an import by itself (LIF-10, SYN-5); `off`: checks of it are disabled."""
        if off or self.settings.check_imports == "never":
            return False
        if self.settings.check_imports == "owner_down" and not self.owner_down(claim.owner):
            return False
        return api_key is not None or not claim.record.protected

    def usable_key(self, claim: Claim) -> str | None:
        """Return the API key of another node's worker, if it came sealed with a secret known here."""
        sealed = claim.record.sealed_key
        sealer = self.publisher.sealer
        return None if sealed is None or sealer is None else sealer.unseal(claim.id, sealed)

    # --- building workers ---------------------------------------------------------------------------

    def import_of(self, url: str, claims: tuple[Claim, ...], old: Worker | None, now: float) -> Worker:
        """Return the import to be served for a URL, of its claims (at least one) and of what was served so
        far.

        A takeover or a newer revision is a replacement: status, load and counters stay as REG-5 says. A
        worker that was not checked here and is from now on keeps its status until its first check.
        """
        serving = None if old is None or old.is_local else old.serving

        def status_of(claim: Claim) -> str:
            key = self.usable_key(claim)
            checked = self.checks_import(claim, self.health_settings(claim.spec, local=False).disabled, key)
            own = old.health if old is not None and checked else None
            return claim_status(claim, own, self.owner_down(claim.owner))

        claim = choose(claims, None if serving is None else serving.id, status_of)
        settings = self.health_settings(claim.spec, local=False)
        same_spec = old is not None and (old.spec is claim.spec or old.spec == claim.spec)
        unchanged = (
            serving is not None
            and serving.id == claim.id
            and same_spec
            and claim.record.revision <= serving.record.revision
        )
        api_key = self.usable_key(claim)
        checked = self.checks_import(claim, settings.disabled, api_key)
        if old is None:
            health = initial(settings, now)
        else:
            health = self._carried_over(old, unchanged, settings, now)
            if checked and not old.checked:
                health = HealthState("ready" if old.status == "ready" else "pending", now)
        status = claim_status(claim, health if checked else None, self.owner_down(claim.owner))
        revision = claim.record.revision
        if old is not None:
            revision = old.revision if unchanged else max(old.revision + 1, revision)
        return Worker(
            url=url,
            id=claim.id,
            origin="mesh",
            owner=claim.owner,
            spec=old.spec if old is not None and same_spec else claim.spec,
            status=status,
            health=health,
            since=old.since if old is not None and old.status == status else now,
            revision=revision,
            claims=claims,
            api_key=api_key,
            protected=claim.record.protected,
            checked=checked,
            load=0 if old is None else old.load,
            checks_passed=0 if old is None else old.checks_passed,
            checks_failed=0 if old is None else old.checks_failed,
            checked_at=None if old is None else old.checked_at,
        )

    @staticmethod
    def _carried_over(old: Worker, unchanged: bool, settings: HealthSettings, now: float) -> HealthState:
        """Return the own verdict after a replacement, or after the local worker gave way to an import."""
        if unchanged:
            return old.health
        if old.health.status == "draining":
            return initial(settings, now)  # the drain was that of the claim which is gone
        return on_command(old.health, "replace", settings, now)

    def rejudged(self, worker: Worker, now: float) -> Worker:
        """Return an import as it is to be served now: its owner may have come or gone, settings may differ.

        Cheap where nothing changes, since every reconcile pass asks for every import.
        """
        serving = worker.serving
        if serving is not None and len(worker.claims) == 1:
            # Of the settings only this one matters here; working all of them out costs more than the rest.
            own_off = worker.spec.health.get("disable_health_check") if worker.spec.health else None
            off = own_off if isinstance(own_off, bool) else self._import_health.disabled
            checked = self.checks_import(serving, off, worker.api_key)
            own = worker.health if checked else None
            if checked == worker.checked and worker.status == claim_status(
                serving, own, self.owner_down(serving.owner)
            ):
                return worker
        return self.import_of(worker.url, worker.claims, worker, now)

    def refresh(self, worker: Worker, now: float) -> Worker:
        """Bring a worker and its checks in line with settings that have changed; return it as it is then."""
        if worker.is_local:
            new = worker
            settings = self.health_settings(worker.spec, local=True)
            if settings.disabled and worker.status in ("pending", "not_ready", "failed"):
                # Nobody will check it any more, so nobody would ever make it ready (LIF-1).
                health = HealthState("ready", now)
                new = msgspec.structs.replace(
                    worker, health=health, status="ready", since=now, held_word=None
                )
            if worker.api_key and self.publisher.sealer is not None:
                new = msgspec.structs.replace(new, value=None)  # it may be sealed with another secret now
        else:
            new = self.import_of(worker.url, worker.claims, worker, now)
        committed = self.commit(worker, new, now, observed=True) or new
        self.schedule.unwatch(committed.id)
        self._follow_checks(None, committed, now)
        return committed

    # --- changing them ------------------------------------------------------------------------------

    def commit(
        self,
        old: Worker | None,
        new: Worker | None,
        now: float,
        *,
        strict: bool = False,
        observed: bool = False,
    ) -> Worker | None:
        """Put `new` in the place of `old` and do all that follows; return the worker as it is registered.

        With `strict` a refused write (TooLarge, StoreFull) is raised before anything has changed; else it is
        logged, counted, and tried again by the next reconcile pass. `observed`: nobody asked for the change.
        """
        if new is not None and new.is_local:
            try:
                new = self.publisher.publish(old, new, observed)
            except MeshdError as error:
                if strict:
                    raise
                self.publisher.counters.publish_errors += 1
                self.notice("error", "worker_not_published", {"url": new.url, "error": error.message})
        elif old is not None and old.is_local:
            self.publisher.withdraw(old)
        if new == old:
            return new
        self.registry.swap(old, new)
        self.publisher.keep_secret(old, new)
        self._follow_drain(old, new)
        self._follow_checks(old, new, now)
        self._tell(old, new)
        self.wake()
        return new

    def _follow_drain(self, old: Worker | None, new: Worker | None) -> None:
        until = None if new is None else new.drain_until
        if new is not None and until is not None:
            self.drains[new.url] = until
        elif old is not None:
            self.drains.pop(old.url, None)

    def _follow_checks(self, old: Worker | None, new: Worker | None, now: float) -> None:
        """Bring the schedule in line with a worker's new state; a check under way stays if it counts."""
        if old is not None and (new is None or new.id != old.id):
            self.schedule.unwatch(old.id)
        if new is None:
            return
        settings = self.health_settings(new.spec, new.is_local)
        mode = mode_for(new.health.status, settings) if new.checked or new.is_local else None
        if mode is None:
            self.schedule.unwatch(new.id)
            return
        present = self.schedule.mode(new.id)
        moved = old is None or present is None or old.health.status != new.health.status
        renewed = old is not None and (old.revision != new.revision or old.api_key != new.api_key)
        if renewed or (moved and mode != present):
            url = new.spec.dp_base_url or new.url  # a rank has no server of its own
            target = CheckTarget(
                url=url,
                scheme=scheme_of(url),
                health_path=settings.health_path,
                timeout_s=settings.timeout_s,
                api_key=new.api_key or None,
                runtime_type=new.spec.runtime_type,
            )
            self.schedule.watch(new.id, new.revision, target, settings, mode, now)
            if mode == "normal" and new.checked_at is None:
                self.schedule.check_now(new.id, now)

    def _tell(self, old: Worker | None, new: Worker | None) -> None:
        """Tell the events that lead from one state to the other."""
        if new is None:
            if old is not None:
                self.events.emit("removed", old)
            return
        if old is None:
            self.events.emit("registered", new)
            return
        if old.origin != new.origin:
            self.events.emit("origin_changed", new, old.origin)
        if old.id != new.id or old.revision != new.revision or old.spec is not new.spec:
            self.events.emit("replaced", new, None if old.id == new.id else old.id)
        if old.status != new.status:
            self.events.emit("status_changed", new, old.status)


def key_of(worker_id: str) -> str:
    """Return the store key of a claim's id."""
    return PREFIX + worker_id
