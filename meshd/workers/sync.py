"""Worker sync: brings registry and store together, key by key, by what both hold at that moment.

Owns the marks (which keys to look at) and `settle`, which asks `decide` and does what it says. Rules it
keeps: a mark carries no value, so that a queue can neither overflow with old news nor deliver it (SYN-4);
work is done in slices of a given number of keys, news before the reconcile sweep; a record that cannot be
read is shown and counted and stops nothing (SYN-11); imports are never written to the store (SYN-3).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from meshd.workers.adopt import adopted
from meshd.workers.claims import with_claim, without_claim
from meshd.workers.core import Core, key_of
from meshd.workers.decide import Act, Facts, Registered, Stored, decide
from meshd.workers.health_machine import HealthState, initial
from meshd.workers.record import PREFIX, RecordError, WorkerRecord, decode_record, worker_id
from meshd.workers.store_view import StoreEntry
from meshd.workers.urls import is_reachable_from_others
from meshd.workers.worker import Claim, Worker

ASK_AGAIN_S: Final = 0.1
"""Pause before a store that still waits for former entries is asked again; it waits 2 s at most."""


class Unreadable(NamedTuple):
    """An entry that counts and cannot be read: whose it is, and what is wrong with it."""

    owner: str
    reason: str


@dataclass(slots=True)
class ReconcileStats:
    """What reconcile passes found and cost (SYN-10). Times are filled in by the loop, which can measure."""

    passes: int = 0
    """Passes that were finished."""
    compared: int = 0
    """Keys that all passes looked at."""
    repairs: int = 0
    """Keys at which a pass found something to do that no event had told of."""
    faults: int = 0
    """Keys over which the sync itself failed; each is a bug, and logged."""
    last_compared: int = 0
    last_repairs: int = 0
    seconds: float = 0.0
    """What all passes took, in seconds of the event loop."""
    last_seconds: float = 0.0
    longest_slice_s: float = 0.0
    """The longest time for which any pass held the event loop."""


class Sync:
    """The marks and what is done about them."""

    def __init__(self, core: Core, now: float) -> None:
        self._core = core
        self._grace_ends = now + core.settings.startup_grace_s
        self._dirty: OrderedDict[str, None] = OrderedDict()
        self._sweep: list[str] = []
        """Ids that the reconcile pass has still to look at."""
        self._sweep_store = False
        """Whether the pass has still to look for keys that only the store has."""
        self._sweeping = False
        self.grace_over = False
        self._stale: dict[str, None] = {}
        """Ids of workers that were not looked at since the settings changed."""
        self.stats = ReconcileStats()
        self.unreadable: dict[str, Unreadable] = {}
        """Key -> why its entry is shown as unreadable."""

    # --- marks --------------------------------------------------------------------------------------

    def mark(self, keys: Iterable[str]) -> None:
        """Look at these keys soon; keys of other prefixes are ignored."""
        marked = False
        for key in keys:
            if key.startswith(PREFIX):
                self._dirty[key] = None
                marked = True
        if marked:
            self._core.wake()

    def mark_owner(self, owner: str) -> None:
        """Look at all of an owner's workers soon."""
        self.mark(key_of(id) for id in self._core.registry.claims_of(owner))

    def settings_changed(self) -> None:
        """Bring every worker in line with the settings, soon."""
        self._stale = dict.fromkeys(worker.id for worker in self._core.registry)
        self.mark_everything()

    def mark_everything(self) -> None:
        """Look at every key that registry or store has, as news."""
        self.mark(self._core.store.visible_keys(PREFIX))
        self.mark(key_of(id) for id in self._core.registry.claim_ids())

    def begin_sweep(self) -> None:
        """Start a reconcile pass over every key that registry or store has; one under way starts again."""
        self._sweep = self._core.registry.claim_ids()
        self._sweep_store = True
        self._sweeping = True
        self.stats.last_compared = self.stats.last_repairs = 0

    @property
    def has_news(self) -> bool:
        """Whether marks are waiting."""
        return bool(self._dirty)

    @property
    def is_sweeping(self) -> bool:
        """Whether a reconcile pass is under way."""
        return self._sweeping

    def step_news(self, now: float, budget: int) -> int:
        """Look at `budget` marked keys at most; return what is left of the budget."""
        while self._dirty and budget > 0:
            budget -= 1
            key, _ = self._dirty.popitem(last=False)
            self._settle_guarded(key, now)
        return budget

    def step_sweep(self, now: float, budget: int) -> int:
        """Look at `budget` keys of the reconcile pass at most; return what is left of the budget."""
        stats = self.stats
        while self._sweep and budget > 0:
            budget -= 1
            key = key_of(self._sweep.pop())
            told = key in self._dirty  # its turn would have come: nothing was missed
            act = self._settle_guarded(key, now)
            stats.compared += 1
            stats.last_compared += 1
            if act is not Act.NOTHING and not told:
                stats.repairs += 1
                stats.last_repairs += 1
        if self._sweeping and not self._sweep:
            if self._sweep_store:
                # The other way round: what the store has and the registry does not.
                self._sweep_store = False
                keys = self._core.store.visible_keys(PREFIX)
                self._sweep = [id for key in keys if not self._core.registry.has(id := key[len(PREFIX) :])]
            else:
                self._sweeping = False
                stats.passes += 1
        return budget

    # --- time ---------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """End the startup grace once it is over: what has not registered again by then is tombstoned."""
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return
        if not self._core.store.restored():
            self._grace_ends = now + ASK_AGAIN_S
            return
        self.grace_over = True
        publisher = self._core.publisher
        for id, _ in publisher.unpublished():
            if self._core.registry.get(id) is None:
                publisher.forget_unpublished(id)
        for id in list(publisher.secrets):
            if self._core.registry.get(id) is None:
                publisher.put_secret(id, None)
        self.mark_everything()

    def next_deadline(self) -> float | None:
        """Return when the startup grace ends, or None where there is none (any more)."""
        if self.grace_over or self._core.settings.on_start != "withdraw":
            return None
        return self._grace_ends

    def _settle_guarded(self, key: str, now: float) -> Act:
        """Settle a key; a fault of ours over one record is told, and costs no other worker anything."""
        try:
            return self.settle(key, now)
        except Exception as error:
            self.stats.faults += 1
            self._core.notice("error", "worker_sync_fault", {"key": key, "exc_info": error})
            return Act.NOTHING

    # --- one key ------------------------------------------------------------------------------------

    def settle(self, key: str, now: float) -> Act:
        """Compare registry and store for one key as they are now, and act on the difference."""
        core = self._core
        self._dirty.pop(key, None)
        id = key[len(PREFIX) :]
        worker = core.registry.get(id)
        if worker is not None and id in self._stale:
            del self._stale[id]
            worker = core.refresh(worker, now)
        if worker is not None and worker.is_local and worker.id == id:
            return self._settle_local(worker, now)
        entry = core.store.visible(key)
        claim = None if worker is None else worker.claim(id)
        if entry is not None and claim is not None and entry.value == claim.value and worker is not None:
            return self._rejudge(worker, now)
        registered = Registered.NOTHING if claim is None else Registered.CLAIM
        record, reason = _read(entry)
        if entry is None:
            facts = Facts(registered, Stored.NOTHING)
        elif record is None:
            facts = Facts(registered, Stored.UNREADABLE)
        elif entry.owner == core.node:
            facts = Facts(
                registered,
                Stored.OWN,
                leaving=core.publisher.leaving,
                this_life=entry.this_life,
                removed_here=core.store.own_deleted_in_this_life(key),
                restores=core.settings.on_start == "restore",
                grace_over=self.grace_over,
            )
        else:
            facts = Facts(registered, Stored.OTHER, differs=True)
        act = decide(facts)
        if act is not Act.SET_ASIDE:
            self.unreadable.pop(key, None)
        match act:
            case Act.TAKE if entry is not None and record is not None:
                self._take(Claim(id, entry.owner, record, entry.value), now)
            case Act.RESTORE if entry is not None and record is not None:
                self.restore(record, now)
            case Act.DROP:
                self._drop(id, now)
            case Act.TOMBSTONE:
                core.publisher.tombstone(key)
            case Act.SET_ASIDE if entry is not None:
                return self._set_aside(key, Unreadable(entry.owner, reason), now)
        return act

    def _settle_local(self, worker: Worker, now: float) -> Act:
        core = self._core
        self.unreadable.pop(worker.key, None)
        stored = core.store.own(worker.key)
        act = decide(
            Facts(
                Registered.LOCAL,
                Stored.NOTHING if stored is None else Stored.OWN,
                differs=stored is None or stored.value != worker.value,
                publishable=core.publisher.may_publish(worker),
                leaving=core.publisher.leaving,
                overruled=core.store.take_overruled(worker.key),
            )
        )
        match act:
            case Act.PUBLISH | Act.WITHHOLD:
                core.commit(worker, worker, now)
            case Act.GIVE_UP:
                successor = core.import_of(worker.url, worker.claims, worker, now) if worker.claims else None
                core.commit(worker, successor, now)
            case Act.ADOPT:
                record, _ = _read(stored)
                settings = core.health_settings(worker.spec if record is None else record.spec, local=True)
                if record is not None:
                    core.commit(worker, adopted(worker, record, settings, now), now, observed=True)
        return act

    def _rejudge(self, worker: Worker, now: float) -> Act:
        """Nothing new in the store; the owner may have come or gone all the same."""
        if not worker.is_local:
            judged = self._core.rejudged(worker, now)
            if judged is not worker:
                self._core.commit(worker, judged, now)
        return Act.NOTHING

    def _take(self, claim: Claim, now: float) -> None:
        """Take in another owner's claim: as the worker, or beside the one that is served (SYN-8, SYN-9)."""
        core = self._core
        url = claim.spec.url
        old = core.registry.by_url(url)
        known = None if old is None else old.claim(claim.id)
        if known is not None and known.spec == claim.spec:
            # Most news is about status: keep one spec in memory, and its identity says that it is unchanged.
            record = msgspec.structs.replace(claim.record, spec=known.spec)
            claim = Claim(claim.id, claim.owner, record, claim.value)
        claims = with_claim(() if old is None else old.claims, claim)
        if old is not None and old.is_local:
            core.commit(old, msgspec.structs.replace(old, claims=claims), now)
        else:
            core.commit(old, core.import_of(url, claims, old, now), now)

    def _drop(self, id: str, now: float) -> None:
        """Forget a claim. The origin is looked at here, at the moment of removal: a local worker stays
        (SYN-7).
        """
        core = self._core
        old = core.registry.get(id)
        if old is None or old.claim(id) is None:
            return
        claims = without_claim(old.claims, id)
        if old.is_local:
            core.commit(old, msgspec.structs.replace(old, claims=claims), now)
        else:
            core.commit(old, core.import_of(old.url, claims, old, now) if claims else None, now)

    def _set_aside(self, key: str, unreadable: Unreadable, now: float) -> Act:
        if self.unreadable.get(key) == unreadable:
            return Act.NOTHING
        self.unreadable[key] = unreadable
        self._core.notice(
            "warning",
            "worker_unreadable",
            {"key": key, "owner": unreadable.owner, "reason": unreadable.reason},
        )
        if unreadable.owner != self._core.node:
            self._drop(key[len(PREFIX) :], now)
        return Act.SET_ASIDE

    # --- own workers of a former life -----------------------------------------------------------------

    def restore(self, record: WorkerRecord, now: float) -> None:
        """Make a worker of a former life a local one again, to be checked anew (SYN-16)."""
        core = self._core
        url = record.spec.url
        old = core.registry.by_url(url)
        if old is not None and old.is_local:
            return
        id = worker_id(core.node, url)
        api_key = core.publisher.secrets.get(id)
        spec = record.spec
        settings = core.health_settings(spec, local=True)
        drain_until: float | None = None
        if record.status == "draining":
            health = HealthState("draining", now)
            drain_until = now + settings.drain_settle_s if record.removing else None
        else:
            health = initial(settings, now)
        core.commit(
            old,
            Worker(
                url=url,
                id=id,
                origin="local",
                owner=core.node,
                spec=spec,
                status=health.status,
                health=health,
                since=now,
                revision=record.revision if old is None else max(record.revision, old.revision + 1),
                claims=() if old is None else old.claims,
                api_key=api_key,
                protected=bool(api_key),
                reachable=is_reachable_from_others(url),
                held_word=record.status if health.status == "pending" else None,
                drain_until=drain_until,
                extra=record.extra,
            ),
            now,
            observed=True,
        )

    def restore_unpublished(self, now: float) -> None:
        """Bring back the local workers that only this node's disk knows (SYN-15, SYN-16)."""
        core = self._core
        if core.settings.on_start != "restore":
            return
        for id, value in core.publisher.unpublished():
            try:
                record = decode_record(value)
            except RecordError as error:
                core.notice("warning", "worker_unreadable", {"id": id, "reason": str(error)})
                continue
            self.restore(record, now)
            worker = core.registry.get(id)
            if worker is not None and core.publisher.may_publish(worker):
                core.publisher.forget_unpublished(id)


def _read(entry: StoreEntry | None) -> tuple[WorkerRecord | None, str]:
    if entry is None:
        return None, ""
    try:
        return decode_record(entry.value), ""
    except RecordError as error:
        return None, str(error)
