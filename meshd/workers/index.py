"""Indexes over the served workers: by model, alias, type, mode, runtime, origin, owner and status.

Owns which worker stands under which term. Rules it keeps: a change adds the new terms before it drops the old
ones and touches no term that stays, so that a reader never misses a worker where it belongs before and after
(REG-2); a term without workers is gone from every listing (REG-9). Listing order is that of entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from meshd.workers.worker import Worker

Term = tuple[str, str]
"""(attribute, value), for example ("status", "ready")."""

ATTRIBUTES: Final = (
    "model",  # ids and aliases
    "model_id",  # ids alone
    "type",
    "mode",
    "runtime",
    "origin",
    "owner",
    "status",
)
_NOTHING: Final[Mapping[str, None]] = MappingProxyType({})


def terms_of(worker: Worker) -> tuple[Term, ...]:
    """Return all terms under which a worker stands, each once."""
    spec = worker.spec
    terms = [
        ("type", spec.worker_type),
        ("mode", spec.connection_mode),
        ("runtime", spec.runtime_type),
        ("origin", worker.origin),
        ("owner", worker.owner),
        ("status", worker.status),
    ]
    for card in spec.models:
        terms.append(("model_id", card.id))
        terms.append(("model", card.id))
        terms.extend(("model", alias) for alias in card.aliases)
    return tuple(dict.fromkeys(terms))


class Index:
    """Term -> URLs of the workers that have it."""

    __slots__ = ("_urls",)

    def __init__(self) -> None:
        self._urls: dict[str, dict[str, dict[str, None]]] = {attribute: {} for attribute in ATTRIBUTES}

    def change(self, url: str, old: Worker | None, new: Worker | None) -> None:
        """Move a URL from the terms of its old worker to those of its new one; either may be None."""
        if old is not None and new is not None and _stands_alike(old, new):
            return
        before = terms_of(old) if old is not None else ()
        after = terms_of(new) if new is not None else ()
        for attribute, value in after:
            self._urls[attribute].setdefault(value, {}).setdefault(url)
        for term in before:
            if term not in after:
                self._drop(term, url)

    def urls(self, attribute: str, value: str) -> Mapping[str, None]:
        """Return the URLs under a term as keys of a mapping that changes with the index: do not keep it."""
        return self._urls[attribute].get(value, _NOTHING)

    def count(self, attribute: str, value: str) -> int:
        """Return how many workers stand under a term."""
        return len(self.urls(attribute, value))

    def values(self, attribute: str) -> Iterable[str]:
        """Return the values of an attribute that some worker has, in no particular order."""
        return tuple(self._urls[attribute])

    def _drop(self, term: Term, url: str) -> None:
        values = self._urls[term[0]]
        urls = values[term[1]]
        del urls[url]
        if not urls:
            del values[term[1]]


def _stands_alike(old: Worker, new: Worker) -> bool:
    """Whether the terms are surely the same: so it is after most health checks."""
    return (
        old.spec is new.spec
        and old.status == new.status
        and old.owner == new.owner
        and old.origin == new.origin
    )
