"""Copies of other nodes' logs that their owners have lost part of, and are to be offered.

A replica that holds what an owner's new gen has not taken on does not give it up: it sends its copy to the
owner, or towards it through neighbours, until the owner has taken it on. A node knows its neighbours'
neighbours: so a copy finds its way over two nodes in between. Replicas with the same copy wait a random
moment each, so that one of them offers it first and the others find it taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from crdt.lww_map import LwwMap
from crdt.owner_log import OwnerLog
from meshd.protocol.session import Session

if TYPE_CHECKING:
    import random

SPREAD_S = 0.2
AGAIN_S = 5.0
"""An offer that came to nothing is made again after this long."""


class Offers:
    """What is to be offered; `sessions`: peer name -> open session, `send` starts a transfer.

    `way_to` gives the session with an owner or with a neighbour of it.
    """

    def __init__(
        self,
        store: LwwMap,
        sessions: Mapping[str, Session],
        rng: random.Random,
        way_to: Callable[[str], Session | None],
        send: Callable[[Session, OwnerLog], None],
    ) -> None:
        self._map = store
        self._sessions = sessions
        self._rng = rng
        self._way_to = way_to
        self._send = send
        self._due: dict[str, float] = {}

    def uncovered(self, owner: str, now: float) -> None:
        """A gen of `owner` was refused, since it misses what is held here."""
        if owner not in self._due:
            self._due[owner] = now + self._rng.random() * SPREAD_S

    def met(self, name: str, now: float) -> None:
        """A peer connected: what is to be offered to it is offered soon, as an offer may have been lost."""
        if name in self._due:
            self._due[name] = min(self._due[name], now + self._rng.random() * SPREAD_S)

    def tick(self, now: float) -> None:
        """Make the offers that are due; those that are taken by now need none."""
        for owner, at in list(self._due.items()):
            if at > now:
                continue
            log = self._map.logs.get(owner)
            if log is None or self._map.known.get(owner, log.gen) <= log.gen:
                del self._due[owner]
                continue
            self._due[owner] = now + AGAIN_S
            session = self._towards(owner)
            if session is not None:
                self._send(session, log)

    def _towards(self, owner: str) -> Session | None:
        way = self._way_to(owner)
        if way is None and self._sessions:
            way = self._rng.choice(list(self._sessions.values()))  # it may know one
        return way

    def next_deadline(self) -> float | None:
        """When `tick` has something to do, or None."""
        return min(self._due.values(), default=None)
