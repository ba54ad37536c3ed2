"""Which of several claims to one URL is served, and what its status is here.

Owns SYN-9's choice and SYN-5's two verdicts, as pure functions. Rules kept: the local claim always serves (so
it never comes here); among other nodes' claims the one now serving stays while it is healthy, else a healthy
one serves, lowest owner name first, and where none is healthy the serving one stays. The choice depends on
nothing but its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meshd.workers.health_machine import HealthState, Status, import_status
from meshd.workers.worker import Claim

DOWN_STATES = frozenset({"down", "left", "unknown"})
"""Member states in which an owner's word is its last word. `suspect` is not one: it may still refute."""


def owner_is_down(state: str) -> bool:
    """Whether an owner in this member state no longer speaks for its workers."""
    return state in DOWN_STATES


def claim_status(claim: Claim, own: HealthState | None, owner_down: bool) -> Status:
    """Return the status that a claim has here (SYN-5); `own` is None where this node does not check.

    A drain is an operator's decision and no verdict: own checks do not lift it (LIF-3), also not when the
    owner went away before its removal was finished.
    """
    if claim.word == "draining":
        return "failed" if own is not None and own.status == "failed" else "draining"
    return import_status(claim.word, None if own is None else own.status, owner_down)


def choose(claims: Sequence[Claim], serving: str | None, status_of: Callable[[Claim], str]) -> Claim:
    """Return the claim to serve; `serving` is the id that serves now, if one does. `claims` is not empty."""
    if len(claims) == 1:
        return claims[0]
    present = next((claim for claim in claims if claim.id == serving), None)
    if present is not None and status_of(present) == "ready":
        return present
    in_order = sorted(claims, key=lambda claim: claim.owner)
    healthy = next((claim for claim in in_order if status_of(claim) == "ready"), None)
    return healthy or present or in_order[0]


def with_claim(claims: tuple[Claim, ...], claim: Claim) -> tuple[Claim, ...]:
    """Return the claims with this one added, or in the place of the one with its id."""
    if not claims:
        return (claim,)
    if any(known.id == claim.id for known in claims):
        return tuple(claim if known.id == claim.id else known for known in claims)
    return (*claims, claim)


def without_claim(claims: tuple[Claim, ...], id: str) -> tuple[Claim, ...]:
    """Return the claims but the one with this id."""
    return tuple(claim for claim in claims if claim.id != id)
