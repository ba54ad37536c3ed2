"""Why a URL is or is not routable here, in facts and in sentences (`meshctl why`, `/mesh/why`).

Owns the explanation and changes nothing. It holds no secret.
"""

from __future__ import annotations

from meshd.workers.claims import claim_status
from meshd.workers.core import Core
from meshd.workers.record import worker_key
from meshd.workers.urls import normalise_url
from meshd.workers.worker import Worker


def explain_url(core: Core, url: str, now: float) -> dict[str, object]:
    """Return the facts about a URL and `reasons`, sentences for people. Raises BadRequest for a bad URL.

    Members: url, known, routable, reasons, and for a known one id, origin, owner, owner_state, status,
    own_status, owner_word, checked_here, last_error, since_s, checked_s_ago, revision, published, claims.
    """
    url = normalise_url(url)
    worker = core.registry.by_url(url)
    if worker is None:
        key = worker_key(core.node, url)
        reasons = ["no node that this one knows of has registered it"]
        if core.store.own_deleted_in_this_life(key):
            reasons = ["it was removed on this node"]
        return {"url": url, "known": False, "routable": False, "reasons": reasons}
    published = worker.is_local and core.store.own(worker.key) is not None
    owner_state = "alive" if worker.is_local else core.store.owner_state(worker.owner)
    return {
        "url": url,
        "known": True,
        "routable": worker.is_ready,
        "reasons": _reasons(core, worker, owner_state),
        "id": worker.id,
        "origin": worker.origin,
        "owner": worker.owner,
        "owner_state": owner_state,
        "status": worker.status,
        "own_status": worker.health.status if worker.checked else None,
        "owner_word": worker.owner_word,
        "checked_here": worker.checked and core.schedule.mode(worker.id) is not None,
        "last_error": worker.health.last_error,
        "since_s": now - worker.since,
        "checked_s_ago": None if worker.checked_at is None else now - worker.checked_at,
        "revision": worker.revision,
        "published": published,
        "claims": claims_of(core, worker),
    }


def claims_of(core: Core, worker: Worker) -> list[dict[str, object]]:
    """Return all claims to a worker's URL, the one that serves first: owner, id, healthy."""
    claims: list[dict[str, object]] = []
    if worker.is_local:
        claims.append({"owner": worker.owner, "id": worker.id, "healthy": worker.is_ready})
    for claim in worker.claims:
        own = worker.health if worker.checked else None
        if worker.is_local and own is not None and own.status == "draining":
            own = None  # the local worker's drain says nothing about another claim
        healthy = claim_status(claim, own, core.owner_down(claim.owner)) == "ready"
        row: dict[str, object] = {"owner": claim.owner, "id": claim.id, "healthy": healthy}
        claims.insert(0 if claim.id == worker.id else len(claims), row)
    return claims


def _reasons(core: Core, worker: Worker, owner_state: str) -> list[str]:
    reasons: list[str] = []
    health = worker.health
    if worker.is_ready:
        reasons.append("it is ready")
    elif worker.status == "draining":
        by = "here" if worker.is_local else f"on {worker.owner}"
        end = " and will be removed" if worker.drain_until is not None else ""
        reasons.append(f"it is being drained {by}{end}")
    if worker.is_local:
        if not worker.is_ready and worker.status != "draining":
            reasons.append(f"its health checks say {health.status}")
        if not core.publisher.may_publish(worker):
            reasons.append(
                "it is not published: other nodes cannot reach this address (sync.publish_loopback)"
            )
        elif core.publisher.leaving:
            reasons.append("it is not published: this node has withdrawn its workers and is leaving")
    else:
        stale = core.owner_down(worker.owner)
        if worker.owner_word != "ready" and not worker.is_ready:
            weight = (
                "which no longer counts, since that node is" if stale and worker.checked else "that node is"
            )
            reasons.append(f"its owner {worker.owner} says {worker.owner_word}; {weight} {owner_state}")
        if not worker.checked:
            reasons.append("this node does not check it, so its owner's word alone counts")
        elif health.status != "ready":
            reasons.append(f"health checks from this node say {health.status}")
    if health.last_error is not None:
        reasons.append(f"the last failed check said: {health.last_error}")
    others = [claim.owner for claim in worker.claims if claim.id != worker.id]
    if others:
        reasons.append(
            f"also registered on {', '.join(sorted(others))}; the claim of {worker.owner} is served"
        )
    return reasons
