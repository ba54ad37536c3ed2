"""What the API reads from the daemon: the mesh's read models in their shape, and the figures of a scrape.

Everything here is a pure read at one instant, and fixes which clock each read model is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import trio
from prometheus_client.core import GaugeMetricFamily

from meshd.api import metrics
from meshd.protocol.explain import explain_key

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from meshd.api.state import ApiState


ROWS_AT_ONCE: Final = 100
"""Store entries that are decoded before the others have a turn; some 3 ms."""

_COUNTS = ("owners", "keys", "own_keys", "tombstones", "foreign", "unreadable", "connections")


def status(api: ApiState) -> dict[str, Any]:
    """Return `/mesh/status`.

    What the node says of itself, with all counts gathered, and the plane's in addition.
    """
    shown = api.daemon.mesh.node.status(api.now(), api.wall_ms())
    plane = api.daemon.plane
    counts = {name: shown.pop(name) for name in _COUNTS if name in shown}
    counts["members"] = shown.pop("members", {})
    counts["workers"] = {
        "total": len(plane.registry),
        "local": plane.registry.count("origin", "local"),
        "ready": plane.registry.count("status", "ready"),
    }
    shown["counts"] = counts
    shown["reconcile"] = asdict(plane.reconcile_stats)
    shown["storage"] = api.daemon.mesh.storage_status()
    return shown


def members(api: ApiState) -> list[dict[str, Any]]:
    """Return every member, this node first."""
    return api.daemon.mesh.node.members(api.now(), api.wall_ms())


def vector(api: ApiState) -> dict[str, Any]:
    """Return gen, max and floor per owner."""
    return api.daemon.mesh.node.vector()


async def store_page(
    api: ApiState, prefix: str, tombstones: bool, limit: int, after: str
) -> tuple[list[dict[str, Any]], str | None]:
    """Return about `limit` entries with keys after `after`, and the key to go on after (None: that was all).

    The entries of one key are never torn apart, so a page may hold somewhat less or more than `limit`.
    """
    node, wall_ms = api.daemon.mesh.node, api.wall_ms()
    places = node.store_places(prefix, tombstones, limit + 1, after)
    following = None
    if len(places) > limit:
        cut = places[limit][0]
        whole = [place for place in places if place[0] != cut]
        if not whole:
            return node.store_entry(cut, wall_ms), cut
        places, following = whole, whole[-1][0]
    page = []
    for number, (key, owner) in enumerate(places, 1):
        row = node.store_row(key, owner, wall_ms)
        if row is not None:
            page.append(row)
        if number % ROWS_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    return page, following


def store_key(api: ApiState, key: str) -> list[dict[str, Any]]:
    """Return every entry of one key, the one that counts first."""
    return api.daemon.mesh.node.store_entry(key, api.wall_ms())


def explain(api: ApiState, key: str) -> dict[str, Any]:
    """Return what `/mesh/explain` answers: every entry of a key, and what became of each."""
    return explain_key(api.daemon.mesh.node, api.wall_ms(), key)


def capacity(api: ApiState, model: str | None) -> dict[str, Any]:
    """Return the capacity, of the whole fleet or for one model."""
    tracker = api.daemon.capacity
    snapshot = tracker.read() if model is None else tracker.for_model(model)
    return dict(snapshot._asdict())


def convergence(api: ApiState) -> dict[str, Any]:
    """Return what `/mesh/converge` answers: one digest per node where it is known, and who lags how far.

    `converged` is yes only if every member that lives is known to lack nothing that this node holds.
    """
    own = api.daemon.mesh.node.status(api.now(), api.wall_ms())
    nodes = []
    for member in members(api):
        lag = member["lag"]
        nodes.append(
            {
                "name": member["name"],
                "state": member["state"],
                "digest": member["digest"],
                "lag": None if lag is None else sum(lag.values()),
            }
        )
    living = [node for node in nodes if node["state"] in ("alive", "suspect")]
    return {
        "converged": all(node["lag"] == 0 for node in living),
        "digest": own["digest"],
        "nodes": nodes,
    }


def partitions(api: ApiState) -> dict[str, Any]:
    """Return what `/mesh/partitions` answers: who is connected to whom, and the groups that are linked so.

    A node whose view is not known here stands in the group of those that see it.
    """
    views = api.daemon.mesh.node.peer_views()
    groups: list[set[str]] = []
    for node, peers in views.items():
        linked = {node, *peers}
        for group in [group for group in groups if group & linked]:
            groups.remove(group)
            linked |= group
        groups.append(linked)
    seen = set().union(*groups)
    unseen = [member["name"] for member in members(api) if member["name"] not in seen]
    return {
        "views": views,
        "groups": sorted((sorted(group) for group in groups), key=lambda group: (-len(group), group)),
        "unseen": sorted(unseen),
    }


def read_daemon(api: ApiState) -> Iterator[Metric]:
    """Yield what the daemon shows now, as metric families."""
    daemon = api.daemon
    plane = daemon.plane
    info = GaugeMetricFamily("meshd_info", "This daemon.", labels=["version", "node", "cluster"])
    info.add_metric([daemon.version, daemon.config.node.name, daemon.config.node.cluster], 1)
    yield info
    workers = GaugeMetricFamily(
        "meshd_workers", "Workers that this node knows, by status and origin.", labels=["status", "origin"]
    )
    counts = dict.fromkeys(((s, o) for s in metrics.STATUSES for o in metrics.ORIGINS), 0)
    for worker in plane.registry:
        counts[worker.status, worker.origin] += 1
    for (worker_status, origin), number in counts.items():
        workers.add_metric([worker_status, origin], number)
    yield workers
    yield metrics.gauge("meshd_models", "Models that some worker names.", len(plane.registry.models()))
    yield metrics.gauge("meshd_health_checks_in_flight", "Health checks under way.", plane.checks_in_flight)
    yield from _sync_metrics(api)
    yield from _mesh_metrics(api)
    yield from _capacity_metrics(api)
    yield metrics.counter("meshd_events", "Events told to streams.", api.log.newest)


def _sync_metrics(api: ApiState) -> Iterator[Metric]:
    counters = api.daemon.plane.counters
    yield metrics.counter("meshd_sync_published", "Worker records written to the store.", counters.published)
    yield metrics.counter("meshd_sync_tombstoned", "Worker records removed.", counters.tombstoned)
    yield metrics.counter(
        "meshd_sync_publish_errors", "Worker records that the store refused.", counters.publish_errors
    )
    stats = api.daemon.plane.reconcile_stats
    for name, doc in (("passes", "Reconcile passes made."), ("repairs", "Differences that they repaired.")):
        yield metrics.counter(f"meshd_reconcile_{name}", doc, getattr(stats, name))


def _mesh_metrics(api: ApiState) -> Iterator[Metric]:
    own = status(api)
    counts = own["counts"]
    states = dict.fromkeys(metrics.STATES, 0) | counts["members"]
    yield metrics.by_label("meshd_members", "Members of the mesh, by state.", "state", states.items())
    yield metrics.gauge("meshd_uptime_seconds", "Seconds since the daemon started.", own["uptime_s"])
    for name, doc in _COUNTED.items():
        yield metrics.gauge(f"meshd_{name}", doc, counts[name])
    for name, number in own["transfers"].items():
        yield metrics.counter(f"meshd_transfers_{name}", f"Changes moved between nodes: {name}.", number)


_COUNTED = {
    "connections": "Open connections to other nodes.",
    "owners": "Owners whose logs this node holds.",
    "keys": "Visible keys of the store.",
    "tombstones": "Tombstones that are still kept.",
    "foreign": "Entries that somebody else than the key's owner wrote; they count for nothing.",
    "unreadable": "Visible keys whose value cannot be read.",
}


def _capacity_metrics(api: ApiState) -> Iterator[Metric]:
    tracker = api.daemon.capacity
    latest = tracker.read()
    yield metrics.gauge("meshd_backend_capacity", "Requests that the ready workers take.", latest.capacity)
    yield metrics.by_label(
        "meshd_backend_capacity_source",
        "Where the capacity comes from: 1 for the source in force.",
        "source",
        ((word, float(word == latest.source)) for word in metrics.SOURCES),
    )
    yield metrics.gauge(
        "meshd_backend_workers_available", "Ready workers, each URL once.", latest.workers_available
    )
    yield metrics.counter(
        "meshd_backend_capacity_recompute", "Times the capacity was computed anew.", tracker.recomputes
    )
