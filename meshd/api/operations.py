"""The table: every operation of the API, one row each.

Routes, access, OpenAPI and docs follow from it. Order is that of the docs.
"""

from __future__ import annotations

from typing import Any

from meshd.api import handle_daemon, handle_mesh, handle_settings, handle_snapshot, handle_workers, schemas
from meshd.api.eventlog import KINDS
from meshd.api.guard import Access
from meshd.api.limits import DEFAULT_STORE_PAGE, MAX_PAGE
from meshd.api.table import Operation, Param, Reply
from meshd.workers.model import CONNECTION_MODES, RUNTIME_TYPES, WORKER_TYPES

WORKERS, MESH, SETTINGS, DAEMON = "Workers", "Mesh and store", "Settings", "Daemon"

_TEXT: dict[str, Any] = {"type": "string"}
_FLAG: dict[str, Any] = {"type": "integer", "enum": [0, 1]}
_ETAG = (("ETag", "the worker's revision, for If-Match"),)
_IF_MATCH = (("If-Match", "the revision that is to be changed, as ETag gave it; another one answers 412"),)

_LIMIT = Param("limit", "at most so many", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE})
_AFTER = Param("after", "go on after this one: the `next` of the page before", _TEXT)


def _one_of(*words: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(words)}


_BAD = Reply(400, "malformed; `field` names what", schemas.ErrorBody)
_NO_WORKER = Reply(404, "WORKER_NOT_FOUND", schemas.ErrorBody)
_NOT_OURS = Reply(409, "WORKER_OWNED_BY_PEER, with `owner`: change it there", schemas.ErrorBody)
_STALE = Reply(412, "REVISION_MISMATCH: it was changed meanwhile", schemas.ErrorBody)
_CHANGED = Reply(202, "in force and on disk", schemas.Changed, headers=_ETAG)

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "GET",
        "/workers",
        handle_workers.list_workers,
        "List the workers that this node knows, its own and imports",
        WORKERS,
        (Reply(200, "in the order of their ids", schemas.WorkerListing), _BAD),
        params=(
            Param("model", "serving this model or alias", _TEXT),
            Param("type", "of this worker type", _one_of(*WORKER_TYPES)),
            Param("status", "in this status", _one_of(*handle_workers.STATUSES)),
            Param("origin", "registered here, or imported", _one_of(*handle_workers.ORIGINS)),
            Param("owner", "registered on this node", _TEXT),
            Param("mode", "with this connection mode", _one_of(*CONNECTION_MODES)),
            Param("runtime", "with this runtime", _one_of(*RUNTIME_TYPES)),
            Param("label", "carrying this label, NAME:VALUE; repeat it for several", _TEXT),
            _LIMIT,
            _AFTER,
        ),
    ),
    Operation(
        "POST",
        "/workers",
        handle_workers.register_worker,
        "Register a worker; this node becomes its owner",
        WORKERS,
        (
            Reply(202, "registered, and on disk", schemas.Accepted, headers=(("Location", "of the worker"),)),
            _BAD,
            Reply(409, "WORKER_ALREADY_EXISTS, with `worker_id`", schemas.ErrorBody),
            Reply(413, "TOO_LARGE", schemas.ErrorBody),
        ),
        Access.WRITE,
        body=schemas.WorkerSpecBody,
    ),
    Operation(
        "GET",
        "/workers/{id}",
        handle_workers.get_worker,
        "Show one worker; any claim's id finds it",
        WORKERS,
        (Reply(200, "the worker", schemas.WorkerInfo, headers=_ETAG), _BAD, _NO_WORKER),
    ),
    Operation(
        "PUT",
        "/workers/{id}",
        handle_workers.replace_worker,
        "Replace a worker's whole spec; the URL stays",
        WORKERS,
        (_CHANGED, _BAD, _NO_WORKER, _NOT_OURS, _STALE),
        Access.WRITE,
        body=schemas.WorkerSpecBody,
        headers=_IF_MATCH,
    ),
    Operation(
        "PATCH",
        "/workers/{id}",
        handle_workers.patch_worker,
        "Change priority, cost, labels, api_key or health of a worker",
        WORKERS,
        (_CHANGED, _BAD, _NO_WORKER, _NOT_OURS, _STALE),
        Access.WRITE,
        body=schemas.WorkerPatch,
        headers=_IF_MATCH,
    ),
    Operation(
        "DELETE",
        "/workers/{id}",
        handle_workers.remove_worker,
        "Drain a worker, then remove it everywhere",
        WORKERS,
        (Reply(202, "draining, or removed", schemas.Changed), _BAD, _NO_WORKER, _NOT_OURS, _STALE),
        Access.WRITE,
        params=(Param("drain", "0 removes at once", _FLAG),),
        headers=_IF_MATCH,
    ),
    Operation(
        "POST",
        "/workers/{id}/drain",
        handle_workers.drain_worker,
        "Take a worker out of rotation everywhere, without removing it",
        WORKERS,
        (_CHANGED, _BAD, _NO_WORKER, _NOT_OURS, _STALE),
        Access.WRITE,
        headers=_IF_MATCH,
    ),
    Operation(
        "POST",
        "/workers/{id}/undrain",
        handle_workers.undrain_worker,
        "Bring a drained worker back",
        WORKERS,
        (_CHANGED, _BAD, _NO_WORKER, _NOT_OURS, _STALE),
        Access.WRITE,
        headers=_IF_MATCH,
    ),
    Operation(
        "GET",
        "/capacity",
        handle_daemon.get_capacity,
        "How many requests the ready workers take at once",
        WORKERS,
        (Reply(200, "the capacity as this node sees it", schemas.Capacity),),
        params=(Param("model", "only of the workers that serve this model", _TEXT),),
    ),
    Operation(
        "GET",
        "/events",
        handle_daemon.stream_events,
        "Follow changes as Server-Sent Events; starts with a snapshot",
        WORKERS,
        (Reply(200, "the stream", media_type="text/event-stream"), _BAD),
        params=(
            Param("types", f"only these, comma-separated: {', '.join(KINDS)}", _TEXT),
            Param("since", "resume after this event id", _TEXT),
        ),
        headers=(("Last-Event-ID", "resume after this event id; beats `since`"),),
    ),
    Operation(
        "GET",
        "/mesh/status",
        handle_mesh.get_mesh_status,
        "This node: name, cluster, gen, uptime, counts, digest",
        MESH,
        (Reply(200, "the status", dict[str, Any]),),
    ),
    Operation(
        "GET",
        "/mesh/members",
        handle_mesh.list_members,
        "Every member of the mesh, this node included",
        MESH,
        (Reply(200, "the members", schemas.MemberListing),),
    ),
    Operation(
        "GET",
        "/mesh/store",
        handle_mesh.list_store,
        "Entries of the replicated store, in the order of their keys",
        MESH,
        (Reply(200, "a page of entries", schemas.StoreListing), _BAD),
        params=(
            Param("prefix", "only keys that begin so, for example worker:", _TEXT),
            Param("tombstones", "1 lists removed keys too", _FLAG),
            Param("limit", f"at most so many; {DEFAULT_STORE_PAGE} if not given", _LIMIT.schema),
            _AFTER,
        ),
    ),
    Operation(
        "GET",
        "/mesh/store/{key:path}",
        handle_mesh.get_store_key,
        "Every entry of one key, tombstones included",
        MESH,
        (Reply(200, "the entries", schemas.StoreListing), Reply(404, "KEY_NOT_FOUND", schemas.ErrorBody)),
    ),
    Operation(
        "GET",
        "/mesh/explain/{key:path}",
        handle_mesh.explain_key,
        "Why a key shows what it shows: every entry, how it came here, and which peers have it",
        MESH,
        (
            Reply(200, "the entries, the one that counts first", dict[str, Any]),
            Reply(404, "KEY_NOT_FOUND", schemas.ErrorBody),
        ),
    ),
    Operation(
        "GET",
        "/mesh/vector",
        handle_mesh.get_vector,
        "What this node holds: gen, max and floor per owner",
        MESH,
        (Reply(200, "the vector", dict[str, Any]),),
    ),
    Operation(
        "GET",
        "/mesh/why",
        handle_mesh.explain_url,
        "Why a worker is or is not routable here",
        MESH,
        (Reply(200, "the reasons", dict[str, Any]), _BAD),
        params=(Param("url", "the worker's URL (required)", _TEXT),),
    ),
    Operation(
        "GET",
        "/mesh/converge",
        handle_mesh.get_convergence,
        "Whether the nodes agree: one digest per node, and who lags",
        MESH,
        (Reply(200, "digests and lag", dict[str, Any]),),
    ),
    Operation(
        "GET",
        "/mesh/partitions",
        handle_mesh.get_partitions,
        "Who is connected to whom, and the groups that follow",
        MESH,
        (Reply(200, "views per node, groups, and members that no view shows", dict[str, Any]),),
    ),
    Operation(
        "POST",
        "/mesh/join",
        handle_mesh.join_mesh,
        "Join a mesh through these members",
        MESH,
        (Reply(202, "dialling", schemas.Told), _BAD),
        Access.WRITE,
        body=schemas.JoinBody,
    ),
    Operation(
        "POST",
        "/mesh/forget/{node}",
        handle_mesh.forget_node,
        "Drop the workers of a node that is gone for good, on every node",
        MESH,
        (
            Reply(202, "being forgotten", schemas.Told),
            Reply(404, "MEMBER_NOT_FOUND", schemas.ErrorBody),
            Reply(409, "CONFLICT: it is alive", schemas.ErrorBody),
        ),
        Access.WRITE,
    ),
    Operation(
        "POST",
        "/mesh/leave",
        handle_mesh.leave_mesh,
        "Leave the mesh, withdrawing this node's workers or keeping them",
        MESH,
        (Reply(202, "left", schemas.Told), _BAD),
        Access.WRITE,
        body=schemas.LeaveBody,
        body_required=False,
    ),
    Operation(
        "GET",
        "/config",
        handle_settings.list_settings,
        "Settings of the whole cluster, and what is in force on this node",
        SETTINGS,
        (Reply(200, "every setting that the cluster may set", schemas.SettingListing),),
    ),
    Operation(
        "GET",
        "/config/{key:path}",
        handle_settings.get_setting,
        "One such setting",
        SETTINGS,
        (Reply(200, "the setting", schemas.Setting), _BAD),
    ),
    Operation(
        "PUT",
        "/config/{key:path}",
        handle_settings.set_setting,
        "Set a setting on every node that does not set it itself",
        SETTINGS,
        (Reply(200, "in force here, and on disk", schemas.Setting), _BAD),
        Access.WRITE,
        body=schemas.SettingBody,
    ),
    Operation(
        "DELETE",
        "/config/{key:path}",
        handle_settings.unset_setting,
        "Take such a setting back",
        SETTINGS,
        (
            Reply(200, "taken back, and on disk", schemas.Setting),
            _BAD,
            Reply(404, "KEY_NOT_FOUND: it was not set", schemas.ErrorBody),
        ),
        Access.WRITE,
    ),
    Operation(
        "POST",
        "/reload",
        handle_settings.reload,
        "Read this node's files again and take on what can be without a restart",
        SETTINGS,
        (
            Reply(200, "what changed", schemas.ReloadedBody),
            Reply(400, "BAD_CONFIG: nothing was changed", schemas.ErrorBody),
        ),
        Access.WRITE,
    ),
    Operation(
        "POST",
        "/snapshot",
        handle_snapshot.save_snapshot,
        "Save what this node's disk holds, as one file; it holds API keys in clear",
        DAEMON,
        (
            Reply(200, "the snapshot, for `meshctl snapshot`", media_type="application/octet-stream"),
            Reply(503, "UNAVAILABLE: another one is being saved", schemas.ErrorBody),
        ),
        Access.WRITE,
    ),
    Operation(
        "PUT",
        "/log-level",
        handle_daemon.set_log_level,
        "Change what is logged, until the next start",
        DAEMON,
        (Reply(200, "changed", schemas.Told), _BAD),
        Access.WRITE,
        body=schemas.LogLevelBody,
    ),
    Operation(
        "GET",
        "/metrics",
        handle_daemon.get_metrics,
        "Figures for Prometheus",
        DAEMON,
        (Reply(200, "the text format", media_type="text/plain"),),
    ),
    Operation(
        "GET",
        "/healthz",
        handle_daemon.get_health,
        "Whether the daemon lives",
        DAEMON,
        (Reply(200, "it does", dict[str, Any]),),
        Access.OPEN,
    ),
    Operation(
        "GET",
        "/readyz",
        handle_daemon.get_ready,
        "Whether its store is loaded and it listens",
        DAEMON,
        (Reply(200, "it is ready", schemas.Ready), Reply(503, "not yet", schemas.Ready)),
        Access.OPEN,
    ),
    Operation(
        "GET",
        "/openapi.json",
        handle_daemon.get_openapi,
        "This API as OpenAPI",
        DAEMON,
        (Reply(200, "the document", dict[str, Any]),),
    ),
    Operation(
        "GET",
        "/docs",
        handle_daemon.get_docs,
        "This API as a page",
        DAEMON,
        (Reply(200, "the page", media_type="text/html"),),
    ),
)
