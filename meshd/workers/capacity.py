"""How many requests the ready workers take at once: the four tiers, per model and per owner.

Owns the formula (CAP-1, CAP-2), the sums from which it is computed after each change in time that does not
grow with the number of workers, and what a label says. Pure; `capacity_tracker` feeds it from the registry.

A *report* is a worker's own `max_running_requests`, from its label or, where it has none, from its server
(CAP-6). All results saturate at 65,535; the sums inside are exact, so that removing a worker takes away what
adding it put in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from meshd.errors import ConfigError

if TYPE_CHECKING:
    from meshd.config import CapacityConfig
    from meshd.workers.worker import Worker

Source = Literal["override", "worker_reported", "mixed", "legacy_fallback"]
SOURCES: Final[tuple[Source, ...]] = ("override", "worker_reported", "mixed", "legacy_fallback")

MAX_CAPACITY: Final = 65_535
"""Gateways hold the value in 16 bits."""

ANY_MODEL: Final = "*"
"""Stands in the breakdown for workers that take any model."""

LABEL: Final = "max_running_requests"
"""The label that decides, whatever the server says."""
FALLBACK_LABEL: Final = "max_num_seqs"
"""vLLM's name for it, read where the server does not tell."""


@dataclass(frozen=True, slots=True)
class CapacitySettings:
    """What an operator may set, in requests. Raises ConfigError naming the field when out of range."""

    override: int = 0
    """Pins the capacity; 0 derives it."""
    slots_per_worker: int = 64
    """Counted for a ready worker that reports nothing."""
    max_concurrent_requests: int = 1024
    """The capacity while no worker is ready."""

    def __post_init__(self) -> None:
        """Refuse what could not be served."""
        for name, least in (("override", 0), ("slots_per_worker", 1), ("max_concurrent_requests", 0)):
            if not least <= getattr(self, name) <= MAX_CAPACITY:
                raise ConfigError(f"capacity.{name}", f"must be from {least} to {MAX_CAPACITY}")


def capacity_settings(config: CapacityConfig) -> CapacitySettings:
    """Return the settings of a configuration's `capacity` section."""
    return CapacitySettings(config.override, config.slots_per_worker, config.max_concurrent_requests)


class CapacitySnapshot(NamedTuple):
    """The capacity and where it comes from, read and sent as one."""

    capacity: int
    source: Source
    workers_available: int
    """Ready workers, each URL once."""
    per_model: Mapping[str, int]
    """Derived capacity for each model id that a ready worker names; workers for any model count with each,
    and by themselves under `*`. A worker with two models counts for both."""
    cluster: Mapping[str, int]
    """Derived capacity of each owner's ready workers."""


class Ready(NamedTuple):
    """A ready worker as capacity sees it."""

    url: str
    owner: str
    models: tuple[str, ...] = ()
    """Ids of its models; none means any."""
    aliases: tuple[str, ...] = ()
    report: int | None = None
    """Its `max_running_requests`, or None if it reports none."""


def ready_of(worker: Worker, discovered: int | None) -> Ready:
    """Return a worker as capacity sees it; `discovered` is what its server told."""
    models = worker.spec.models
    return Ready(
        worker.url,
        worker.owner,
        tuple(model.id for model in models),
        tuple(alias for model in models for alias in model.aliases),
        report_of(worker.spec.labels, discovered),
    )


def report_of(labels: Mapping[str, str], discovered: int | None) -> int | None:
    """Return what a worker reports: its label, else what its server told, else vLLM's label (CAP-6).

    A label that is not a positive integer counts as unreported, also where the server tells.
    """
    if LABEL in labels:
        return positive(labels[LABEL])
    if discovered is not None:
        return discovered
    return positive(labels[FALLBACK_LABEL]) if FALLBACK_LABEL in labels else None


def bad_label(labels: Mapping[str, str]) -> str | None:
    """Return the name of a label whose value cannot be used, for a warning."""
    for name in (LABEL, FALLBACK_LABEL):
        if name in labels and positive(labels[name]) is None:
            return name
    return None


def positive(text: str) -> int | None:
    """Return a positive integer written in plain digits, else None; one beyond any capacity as 10**18."""
    text = text.strip()
    if not (text.isascii() and text.isdecimal()):
        return None
    text = text.lstrip("0")
    return (int(text) if len(text) <= 18 else 10**18) if text else None


@dataclass(slots=True)
class _Sum:
    workers: int = 0
    reporting: int = 0
    reported: int = 0

    def add(self, report: int | None, sign: int) -> None:
        self.workers += sign
        if report is not None:
            self.reporting += sign
            self.reported += sign * report

    def derived(self, slots_per_worker: int) -> int:
        """Saturate only at the end, since saturated sums cannot be taken apart again."""
        exact = self.reported + (self.workers - self.reporting) * slots_per_worker
        return min(exact, MAX_CAPACITY)


@dataclass(slots=True)
class CapacityBook:
    """The sums over all ready workers. Every change costs what that worker's models cost."""

    _ready: dict[str, Ready] = field(default_factory=dict)
    _all: _Sum = field(default_factory=_Sum)
    _models: dict[str, _Sum] = field(default_factory=dict)
    _owners: dict[str, _Sum] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return how many workers are ready."""
        return len(self._ready)

    def put(self, ready: Ready) -> None:
        """Count a ready worker, in the place of what was counted for its URL."""
        known = self._ready.get(ready.url)
        if known == ready:
            return
        if known is not None:
            self._count(known, -1)
        self._ready[ready.url] = ready
        self._count(ready, 1)

    def drop(self, url: str) -> None:
        """Count the worker with this URL no more; unknown URLs are fine."""
        known = self._ready.pop(url, None)
        if known is not None:
            self._count(known, -1)

    def snapshot(self, settings: CapacitySettings) -> CapacitySnapshot:
        """Return the capacity by the first tier that applies (CAP-1)."""
        slots = settings.slots_per_worker
        wild = self._models.get(ANY_MODEL, _Sum())
        per_model = {
            model: one.derived(slots) if model == ANY_MODEL else _both(one, wild).derived(slots)
            for model, one in sorted(self._models.items())
        }
        cluster = {owner: one.derived(slots) for owner, one in sorted(self._owners.items())}
        capacity, source = self._tier(settings)
        return CapacitySnapshot(capacity, source, self._all.workers, per_model, cluster)

    def for_model(self, model: str, settings: CapacitySettings) -> CapacitySnapshot:
        """Return the capacity for one model, by id or alias: of the workers that name it or take any.

        While no worker at all is ready the fleet's capacity stands for it; a model that no ready worker
        takes has none. A pinned capacity bounds each model's.
        """
        whole = self.snapshot(settings)
        if not self._all.workers:
            return whole._replace(per_model={}, cluster={})
        takers = [
            ready
            for ready in self._ready.values()
            if not ready.models or model in ready.models or model in ready.aliases
        ]
        part = compute(takers, CapacitySettings(0, settings.slots_per_worker, 0))
        capacity, source = part.capacity, part.source
        if not takers:
            capacity, source = 0, "worker_reported"
        elif settings.override and settings.override < capacity:
            capacity, source = settings.override, "override"
        return CapacitySnapshot(capacity, source, len(takers), {model: capacity}, part.cluster)

    def _tier(self, settings: CapacitySettings) -> tuple[int, Source]:
        if settings.override:
            return settings.override, "override"
        if not self._all.workers:
            return settings.max_concurrent_requests, "legacy_fallback"
        capacity = self._all.derived(settings.slots_per_worker)
        return capacity, "worker_reported" if self._all.reporting == self._all.workers else "mixed"

    def _count(self, ready: Ready, sign: int) -> None:
        self._all.add(ready.report, sign)
        for model in dict.fromkeys(ready.models or (ANY_MODEL,)):
            _add(self._models, model, ready.report, sign)
        _add(self._owners, ready.owner, ready.report, sign)


def compute(ready: Iterable[Ready], settings: CapacitySettings) -> CapacitySnapshot:
    """Return the capacity of these ready workers; a URL that comes twice counts once, as it came last."""
    book = CapacityBook()
    for one in ready:
        book.put(one)
    return book.snapshot(settings)


def _add(sums: dict[str, _Sum], name: str, report: int | None, sign: int) -> None:
    one = sums.setdefault(name, _Sum())
    one.add(report, sign)
    if not one.workers:
        del sums[name]


def _both(one: _Sum, other: _Sum) -> _Sum:
    return _Sum(one.workers + other.workers, one.reporting + other.reporting, one.reported + other.reported)
