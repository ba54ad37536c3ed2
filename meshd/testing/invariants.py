"""What must hold in a cluster at every moment (SIM-3), each as a small class that looks at what just changed.

Rules of the house: an invariant knows what must be true and recomputes it its own way, from what it was told;
it never asks the code under test whether all is well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from crdt.persist import DropLog, PutEntries, PutLog, ReplaceLog, StoreOp
from crdt.types import KEY, NO_GEN, SEQ, VALUE, Dot, Gen, LogHead, dot_of
from meshd.testing.checks import Invariant
from meshd.wire.messages import Heartbeat, Message
from meshd.workers.events import Event
from meshd.workers.health_schedule import CheckRequest
from meshd.workers.record import PREFIX, RecordError, decode_record, worker_key

if TYPE_CHECKING:
    from meshd.testing.process import Process


class ReplicasAreStates(Invariant):
    """A replica at (gen, max) holds what its owner's log held there: no seq is used twice or made up.

    And no gen is written under by two lives of its owner: what one lost, the other would use again.
    """

    name = "replicas_hold_what_owners_wrote"

    def __init__(self, cluster: SimCluster) -> None:
        super().__init__(cluster)
        self._states: dict[tuple[str, Gen, int], int] = {}
        self._lives: dict[tuple[str, Gen], int] = {}

    def started(self, process: Process) -> None:
        """What the disk gave back must be a state, too."""
        for owner, log in process.node.map.logs.items():
            if owner != process.name:
                self._compare(process, log.head())

    def persisted(self, process: Process, ops: Sequence[StoreOp]) -> None:
        """Compare every log that moved."""
        for op in ops:
            if isinstance(op, PutLog | ReplaceLog):
                self._compare(process, op.head)
                if op.head.owner == process.name:
                    life = self._lives.setdefault((process.name, op.head.gen), process.life)
                    if life != process.life:
                        self.fail(process, f"{op.head.gen} is written under, the gen of life {life}")

    def _compare(self, process: Process, head: LogHead) -> None:
        at = (head.owner, head.gen, head.max)
        known = self._states.get(at)
        if known is None:
            if head.owner != process.name:
                self.fail(process, f"the log of {head.owner} stands at {at[1:]}, where its owner never was")
            self._states[at] = head.hash
        elif known != head.hash:
            self.fail(process, f"the log of {head.owner} at {at[1:]} has two contents: a seq was used twice")


class LogsNeverGoBack(Invariant):
    """(gen, max) per owner never falls on a node while it lives, unless the owner was forgotten there."""

    name = "logs_never_go_back"

    def __init__(self, cluster: SimCluster) -> None:
        super().__init__(cluster)
        self._at: dict[tuple[str, str], tuple[Gen, int]] = {}

    def started(self, process: Process) -> None:
        """A new life begins where its disk stands."""
        for at in [at for at in self._at if at[0] == process.name]:
            del self._at[at]
        for owner, log in process.node.map.logs.items():
            self._at[process.name, owner] = (log.gen, log.max)

    def persisted(self, process: Process, ops: Sequence[StoreOp]) -> None:
        """Compare with where the log stood."""
        for op in ops:
            match op:
                case PutLog(head) | ReplaceLog(head, _):
                    at = (process.name, head.owner)
                    now = (head.gen, head.max)
                    before = self._at.get(at)
                    if before is not None and now < before:
                        self.fail(process, f"the log of {head.owner} went back from {before} to {now}")
                    self._at[at] = now
                case DropLog(owner):
                    fence = process.node.map.fences.get(owner, 0)
                    gone = self._at.pop((process.name, owner), None)
                    if gone is not None and fence < gone[0][0]:
                        self.fail(process, f"{owner} was forgotten at {gone} behind a fence at {fence} only")
                case _:
                    pass


class OneWriter(Invariant):
    """A worker's key is written by its owner alone, and only of a worker that it has itself."""

    name = "one_writer_per_key"

    def __init__(self, cluster: SimCluster) -> None:
        super().__init__(cluster)
        self._writers: dict[str, str] = {}

    def persisted(self, process: Process, ops: Sequence[StoreOp]) -> None:
        """Look at what the node wrote under its own name."""
        for op in ops:
            if isinstance(op, PutEntries) and op.owner == process.name:
                for entry in op.entries:
                    if entry[KEY].startswith(PREFIX):
                        self._look(process, entry[KEY], entry[VALUE])

    def _look(self, process: Process, key: str, value: bytes | None) -> None:
        writer = self._writers.setdefault(key, process.name)
        if writer != process.name:
            self.fail(process, f"{key} is {writer}'s, and was written here")
        if value is None:
            return
        record = decode_record(value)
        if record.owner != process.name or key != worker_key(process.name, record.spec.url):
            self.fail(process, f"{record.spec.url} of {record.owner} was published again, under {key}")

    def keys_changed(self, process: Process, keys: Sequence[str]) -> None:
        """What is shown under a key must come from the owner whom the key names."""
        for key in keys:
            if not key.startswith(PREFIX):
                continue
            found = process.node.map.visible(key)
            if found is None:
                continue
            try:
                record = decode_record(found.value)
            except RecordError:
                continue
            if key != worker_key(found.owner, record.spec.url):
                self.fail(process, f"{key} shows a worker of {found.owner}, whose key it is not")


class RemovedStaysRemoved(Invariant):
    """A replica whose log has taken on a removal does not show what was removed."""

    name = "a_removed_worker_never_returns"

    def __init__(self, cluster: SimCluster) -> None:
        super().__init__(cluster)
        self._round: dict[str, int] = {}
        """Key -> how often it was removed."""
        self._removed: dict[str, list[Dot]] = {}
        """Key -> dot of each removal."""
        self._written: dict[tuple[str, bytes], int] = {}
        """(key, value) -> after how many removals it was last written."""

    def persisted(self, process: Process, ops: Sequence[StoreOp]) -> None:
        """Note own writes and removals."""
        gen = next((op.head.gen for op in ops if isinstance(op, PutLog)), NO_GEN)
        for op in ops:
            if not isinstance(op, PutEntries) or op.owner != process.name:
                continue
            for entry in op.entries:
                key, value = entry[KEY], entry[VALUE]
                if not key.startswith(PREFIX):
                    continue
                if value is None:
                    self._removed.setdefault(key, []).append(dot_of(entry, gen))
                else:
                    self._written[key, value] = len(self._removed.get(key, ()))

    def keys_changed(self, process: Process, keys: Sequence[str]) -> None:
        """Look at what became visible."""
        for key in keys:
            removals = self._removed.get(key)
            if not removals:
                continue
            found = process.node.map.visible(key)
            if found is None:
                continue
            later = removals[self._written.get((key, found.value), len(removals)) :]
            log = process.node.map.logs[found.owner]
            for dot in later:
                if log.knows(dot):
                    url = decode_record(found.value).spec.url
                    self.fail(process, f"{url} is back, although its removal {dot} was taken on")


class LocalsStay(Invariant):
    """A local worker goes only when its own node is told to remove it."""

    name = "a_peer_never_removes_a_local_worker"

    def __init__(self, cluster: SimCluster) -> None:
        super().__init__(cluster)
        self._may_go: dict[str, set[str]] = {}

    def started(self, process: Process) -> None:
        """A new life knows of drains only what is in its records."""
        self._may_go.setdefault(process.name, set())

    def commanded(self, process: Process, url: str, removes: bool) -> None:
        """An own command may remove a worker; registering it anew calls that off."""
        if removes:
            self._may_go[process.name].add(url)

    def withdrawn(self, process: Process) -> None:
        """Leaving for good removes them all."""
        self._may_go[process.name].update(worker.url for worker in process.plane.registry if worker.is_local)

    def worker_event(self, process: Process, event: Event) -> None:
        """Look at every local worker that goes."""
        worker = event.worker
        if worker is None:
            return
        went = (event.kind == "removed" and worker.is_local) or (
            event.kind == "origin_changed" and event.previous == "local"
        )
        if not went or process.leaving or process.plane.settings.remove_failed_workers:
            return
        if worker.url not in self._may_go[process.name]:
            self.fail(process, f"{worker.url} is gone, and nobody here removed it")


class VectorsTellTheTruth(Invariant):
    """A vector row that is sent says what the log holds at that moment, no more."""

    name = "vectors_never_run_ahead"

    def sent(self, process: Process, message: Message) -> None:
        """Compare every row with the entries."""
        if not isinstance(message, Heartbeat):
            return
        for row in message.rows:
            log = process.node.map.logs.get(row.owner)
            have = row.have
            if log is None:
                if have.max:
                    self.fail(process, f"tells of {row.owner} up to {have.max}, and holds nothing of it")
                continue
            newest = next(reversed(log.entries.values()), None)
            if (have.gen, have.max) != (log.gen, log.max) or (newest is not None and newest[SEQ] > log.max):
                self.fail(process, f"tells of {row.owner} at {have.gen, have.max}; it stands at {log.max}")


class RoutableMeansChecked(Invariant):
    """A worker becomes routable only if own checks speak for it; an import, while its owner says ready."""

    name = "a_dead_worker_is_never_revived"

    def __init__(self, cluster: SimCluster) -> None:
        super().__init__(cluster)
        self._failed: dict[tuple[str, int, str], int] = {}
        """(node, life, url) -> failures since the last pass; absent: never checked."""

    def checked(self, process: Process, request: CheckRequest, cause: str | None) -> None:
        """Note what this life found; a result that is out of date counts for nothing."""
        worker = process.plane.registry.get(request.id)
        if worker is None or worker.revision != request.revision:
            return
        at = (process.name, process.life, worker.url)
        self._failed[at] = 0 if cause is None else self._failed.get(at, 1_000) + 1

    def worker_event(self, process: Process, event: Event) -> None:
        """Look at every worker that becomes routable."""
        worker = event.worker
        if worker is None or not worker.is_ready or event.kind not in ("registered", "status_changed"):
            return
        failures = self._failed.get((process.name, process.life, worker.url), 1_000)
        if worker.is_local:
            unchecked = worker.spec.health or process.config.health.disable_health_check
            if failures and not unchecked:
                self.fail(process, f"{worker.url} is routed to, and passed no check of its owner")
            return
        if worker.checked and failures >= process.config.health.failure_threshold:
            self.fail(process, f"{worker.url} is routed to, and own checks do not speak for it")
        word = worker.owner_word
        if word != "ready" and process.node.owner_state(worker.owner) in ("alive", "suspect"):
            self.fail(process, f"{worker.url} is routed to while {worker.owner} calls it {word}")


class NobodyErrs(Invariant):
    """Correct nodes never send each other anything bad, and no code of ours fails over a record."""

    name = "correct_nodes_never_err"

    FAULTS = frozenset({"bad_peer_input", "worker_sync_fault", "own_log_halted", "worker_unreadable"})

    def noticed(self, process: Process, level: str, event: str, fields: dict[str, object]) -> None:
        """Look for the notices that only a bug can bring."""
        if event in self.FAULTS:
            told = " ".join(f"{name}={value}" for name, value in sorted(fields.items()))
            self.fail(process, f"{event} {told}")


class EventsSuffice(Invariant):
    """The reconcile pass never finds anything: what changes is told, and need not be found."""

    name = "a_reconcile_pass_finds_nothing"

    def settled(self) -> None:
        """Look at what the passes of the present lives found."""
        for process in self.cluster.running():
            found = process.plane.reconcile_stats.repairs
            if found:
                self.fail(process, f"reconcile passes repaired {found} keys")


if TYPE_CHECKING:
    from meshd.testing.cluster import SimCluster
