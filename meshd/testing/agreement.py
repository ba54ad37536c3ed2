"""Whether a cluster has come to rest, and what still differs: the test of convergence.

Nodes that can talk must end up with the same map, and each with a registry that shows this map and nothing
else. What is compared is recomputed here from the entries, not taken from the digests that nodes keep.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from crdt.hashing import MASK, content_leaf, log_leaf
from crdt.types import KEY, SEQ, VALUE
from meshd.testing.checks import Invariant
from meshd.workers.record import PREFIX, RecordError, decode_record
from meshd.workers.registry import Filter

if TYPE_CHECKING:
    from meshd.testing.process import Process
    from meshd.workers.worker import Worker


def differences(groups: Iterable[list[Process]]) -> list[str]:
    """What differs within each group of nodes that can talk; empty once they agree."""
    found: list[str] = []
    for group in groups:
        names = {process.name for process in group}
        for process in group:
            states = {member.name: member.state for member in process.node.roster}
            missing = [name for name in names - {process.name} if states.get(name) != "alive"]
            if missing:
                found.append(f"{process.name} does not see {', '.join(sorted(missing))}")
        digests = {process.name: process.node.map.digest for process in group}
        if len(set(digests.values())) > 1:
            found.append(f"digests differ: { {name: f'{d:016x}' for name, d in digests.items()} }")
        for process in group:
            if process.plane.has_news:
                found.append(f"{process.name} has keys to look at")
            elif not found:
                found += _registry_differs(process)
        for owner in sorted(names):
            stands = {_stand(process, owner) for process in group}
            if len(stands) > 1:
                found.append(f"the log of {owner} stands at {sorted(map(str, stands))}")
    return found


def _stand(process: Process, owner: str) -> object:
    log = process.node.map.logs.get(owner)
    return None if log is None else (log.gen, log.max, log.hash)


def _registry_differs(process: Process) -> list[str]:
    """Compare the registry with what the map shows, claim by claim, each with its record."""
    claims: dict[str, dict[str, bytes]] = {}
    for key in process.node.map.visible_keys(PREFIX):
        found = process.node.map.visible(key)
        if found is None or not found.readable:
            continue
        try:
            url = decode_record(found.value).spec.url
        except RecordError:
            continue
        claims.setdefault(url, {})[found.owner] = found.value
    problems = []
    workers = {worker.url: worker for worker in process.plane.registry}
    for url in sorted(claims.keys() | workers.keys()):
        worker = workers.get(url)
        if worker is None:
            problems.append(f"{process.name} does not list {url}")
            continue
        shown, listed = claims.get(url, {}), _listed(process, worker)
        if listed.keys() != shown.keys():
            problems.append(f"{process.name} lists {url} as of {sorted(listed)}, the map of {sorted(shown)}")
        elif stale := sorted(owner for owner in shown if listed[owner] != shown[owner]):
            problems.append(f"{process.name} lists {url} of {', '.join(stale)} as it was before")
    return problems


def _listed(process: Process, worker: Worker) -> dict[str, bytes | None]:
    """Owner -> record of all claims that a worker stands for, and are to be seen by others."""
    listed: dict[str, bytes | None] = {claim.owner: claim.value for claim in worker.claims}
    if worker.is_local and (worker.reachable or process.plane.settings.publish_loopback):
        listed[process.name] = worker.value
    return listed


class MapsAddUp(Invariant):
    """Hashes and digests that are kept incrementally are those of the entries."""

    name = "hashes_add_up"

    def settled(self) -> None:
        """Recompute them all."""
        for process in self.cluster.running():
            store = process.node.map
            for owner, log in store.logs.items():
                total, last = 0, 0
                for entry in log.entries.values():
                    if entry[SEQ] <= last:
                        self.fail(process, f"the log of {owner} is out of order at {entry[SEQ]}")
                    last = entry[SEQ]
                    if entry[VALUE] is not None:
                        total += log_leaf(content_leaf(entry[KEY], entry[VALUE]), entry[SEQ])
                if total & MASK != log.hash:
                    self.fail(process, f"the log of {owner} does not add up to its hash")
                if last > log.max:
                    self.fail(process, f"the log of {owner} has an entry beyond its end")
            shown = sum(content_leaf(key, found.value) for key, found in store.view.winners.items())
            if shown & MASK != store.digest:
                self.fail(process, "the visible map does not add up to its digest")


class RegistriesAreWhole(Invariant):
    """Every worker stands under its URL, its ids and its terms, and shows what its record or claim says."""

    name = "registries_are_whole"

    def settled(self) -> None:
        """Look every worker up in every way."""
        for process in self.cluster.running():
            registry = process.plane.registry
            for worker in registry:
                if registry.by_url(worker.url) is not worker:
                    self.fail(process, f"{worker.url} is not found by its URL")
                ids = [worker.id, *(claim.id for claim in worker.claims)]
                for id in ids:
                    if registry.get(id) is not worker:
                        self.fail(process, f"{worker.url} is not found by its id {id}")
                self._look_at_terms(process, worker)
                self._look_at_record(process, worker)
            listed = sum(registry.count("origin", origin) for origin in ("local", "mesh"))
            if listed != len(registry):
                self.fail(process, f"{listed} workers are indexed, of {len(registry)}")

    def _look_at_terms(self, process: Process, worker: Worker) -> None:
        """Ask for lists in which the worker must be."""
        spec = worker.spec
        asked = [
            Filter(status=worker.status, origin=worker.origin, owner=worker.owner),
            Filter(type=spec.worker_type, mode=spec.connection_mode, runtime=spec.runtime_type),
        ]
        asked += [Filter(model=name) for card in spec.models for name in (card.id, *card.aliases)]
        for terms in asked:
            if worker not in process.plane.registry.list(terms).workers:
                self.fail(process, f"{worker.url} is not listed where it belongs: {terms}")
        if (worker in process.plane.registry.ready()) != (worker.status == "ready"):
            self.fail(process, f"{worker.url} is {worker.status}, and the list of ready workers is wrong")

    def _look_at_record(self, process: Process, worker: Worker) -> None:
        """A local worker publishes what it is; an import is what its claim says, and no better than due."""
        claim = worker.serving
        value = worker.value if claim is None else claim.value
        if value is None:
            self.fail(process, f"{worker.url} has no record")
            return
        record = decode_record(value)
        if record.spec != worker.spec:
            self.fail(process, f"{worker.url} is served as {worker.spec}, its record says {record.spec}")
        if claim is not None:
            due = _import_status(process, worker, record.status)
            if worker.status != due:
                self.fail(process, f"{worker.url} is {worker.status} here, and ought to be {due}")
        elif record.status not in (worker.status, worker.held_word):
            self.fail(process, f"{worker.url} is {worker.status}, its record says {record.status}")


_BEST_FIRST = ("ready", "pending", "not_ready", "draining", "failed")


def _import_status(process: Process, worker: Worker, word: str) -> str:
    """The status that an import is due: of its owner's word and own checks the worse one (SYN-5).

    An owner that is gone has no word any more, unless it was that the worker drains.
    """
    own = worker.health.status if worker.checked else "ready"
    if word == "draining":
        return "failed" if own == "failed" else word
    if worker.checked and process.node.owner_state(worker.owner) not in ("alive", "suspect"):
        return own
    return max(word, own, key=_BEST_FIRST.index)
