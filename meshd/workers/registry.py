"""The registry: for each URL the one worker that is served, and how to find it.

Owns the workers, the ids of all claims, and the indexes. Rules it keeps: one worker per URL; any claim's id
resolves to the worker that serves its URL (SYN-8); `swap` is the only way to change anything, and leaves it
complete. It publishes nothing, decides nothing and tells nobody: `core` does.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from meshd.workers.index import Index
from meshd.workers.worker import Worker


class Filter(NamedTuple):
    """Which workers to list; None and () leave open. `limit` workers follow the id `after`, in order of ids.

    `model` is an id or alias that the worker itself names (one that takes any model names none).
    """

    model: str | None = None
    type: str | None = None
    status: str | None = None
    origin: str | None = None
    owner: str | None = None
    mode: str | None = None
    runtime: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    limit: int | None = None
    after: str | None = None


class Page(NamedTuple):
    """The workers asked for, and how many there are with neither limit nor after."""

    workers: list[Worker]
    total: int


class TypeStats(NamedTuple):
    """How many workers there are of each type that gateways ask about."""

    prefill_count: int
    decode_count: int
    regular_count: int


Workers = list[Worker]
Strings = list[str]

_INDEXED = ("model", "type", "status", "origin", "owner", "mode", "runtime")


class Registry:
    """All workers that this node serves."""

    __slots__ = ("_by_url", "_claims_of", "_index", "_sorted_ids", "_url_of", "changes")

    def __init__(self) -> None:
        self._by_url: dict[str, Worker] = {}
        self._url_of: dict[str, str] = {}
        self._claims_of: dict[str, dict[str, None]] = {}
        self._index = Index()
        self._sorted_ids: Strings | None = []
        self.changes = 0
        """Grows with every change: what was computed from the registry is current while this stays."""

    def __len__(self) -> int:
        """Return how many workers are served."""
        return len(self._by_url)

    def __iter__(self) -> Iterator[Worker]:
        """Iterate over the workers in order of entry; not across changes."""
        return iter(self._by_url.values())

    def get(self, id: str) -> Worker | None:
        """Return the worker that serves the URL to which the claim with this id belongs."""
        url = self._url_of.get(id)
        return None if url is None else self._by_url[url]

    def has(self, id: str) -> bool:
        """Whether a claim with this id is known, serving or not."""
        return id in self._url_of

    def by_url(self, url: str) -> Worker | None:
        """Return the worker that is served for a normalised URL."""
        return self._by_url.get(url)

    def claim_ids(self) -> Strings:
        """Return the ids of all claims, serving or not, this node's own included."""
        return list(self._url_of)

    def claims_of(self, owner: str) -> Strings:
        """Return the ids of all claims of an owner."""
        return list(self._claims_of.get(owner, ()))

    def list(self, filter: Filter | None = None) -> Page:
        """Return the workers that pass a filter, in order of their ids."""
        filter = filter or Filter()
        found: Workers | None = None
        mappings = [
            self._index.urls(attribute, value)
            for attribute in _INDEXED
            if (value := getattr(filter, attribute)) is not None
        ]
        if mappings or filter.labels:
            mappings.sort(key=len)
            urls: Iterable[str] = mappings[0] if mappings else self._by_url
            found = [
                self._by_url[url]
                for url in urls
                if all(url in mapping for mapping in mappings[1:]) and self._has_labels(url, filter.labels)
            ]
            found.sort(key=lambda worker: worker.id)
        total = len(self._by_url) if found is None else len(found)
        ids = self._ids() if found is None else [worker.id for worker in found]
        first = 0 if filter.after is None else bisect.bisect_right(ids, filter.after)
        last = None if filter.limit is None else first + filter.limit
        if found is not None:
            return Page(found[first:last], total)
        return Page([self._by_url[self._url_of[id]] for id in ids[first:last]], total)

    def ready(self) -> Workers:
        """Return the workers that are ready here, each URL once."""
        return [self._by_url[url] for url in self._index.urls("status", "ready")]

    def count(self, attribute: str, value: str) -> int:
        """Return how many workers have this value of an indexed attribute (see `index.ATTRIBUTES`)."""
        return self._index.count(attribute, value)

    def models(self) -> Mapping[str, int]:
        """Return each model id that some worker names with the number of such workers, in order of ids."""
        return {
            model: self._index.count("model_id", model) for model in sorted(self._index.values("model_id"))
        }

    def stats(self) -> TypeStats:
        """Return the counts per worker type."""
        return TypeStats(*(self._index.count("type", kind) for kind in ("prefill", "decode", "regular")))

    def swap(self, old: Worker | None, new: Worker | None) -> None:
        """Put `new` in the place of `old`, which is the URL's present worker; either may be None, not both.

        Raises ValueError, changing nothing, if `old` is not the present worker.
        """
        present = new if new is not None else old
        if present is None or self._by_url.get(present.url) is not old:
            raise ValueError("the worker to be replaced is not the one that is served")
        url = present.url
        before = () if old is None else _claims(old)
        after = () if new is None else _claims(new)
        for id, owner in after:
            self._url_of[id] = url
            self._claims_of.setdefault(owner, {}).setdefault(id)
        if new is not None:
            self._by_url[url] = new
        self._index.change(url, old, new)
        if new is None:
            del self._by_url[url]
        for claim in before:
            if claim not in after:
                del self._url_of[claim[0]]
                self._forget_claim(claim[1], claim[0])
        if old is None or new is None or old.id != new.id:
            self._sorted_ids = None
        self.changes += 1

    def _forget_claim(self, owner: str, id: str) -> None:
        claims = self._claims_of[owner]
        del claims[id]
        if not claims:
            del self._claims_of[owner]

    def _has_labels(self, url: str, labels: tuple[tuple[str, str], ...]) -> bool:
        worker_labels = self._by_url[url].spec.labels
        return all(worker_labels.get(name) == value for name, value in labels)

    def _ids(self) -> Strings:
        if self._sorted_ids is None:
            self._sorted_ids = sorted(worker.id for worker in self._by_url.values())
        return self._sorted_ids


def _claims(worker: Worker) -> tuple[tuple[str, str], ...]:
    """Return (id, owner) of all claims to a worker's URL, the local one included."""
    claims = tuple((claim.id, claim.owner) for claim in worker.claims)
    return (*claims, (worker.id, worker.owner)) if worker.is_local else claims
