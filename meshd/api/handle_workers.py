"""`/workers`: list, register, read, replace, patch, remove, drain.

Rules: a command runs synchronously against the plane, so it is applied whole or not at all; its answer is
sent after the registry shows it and it is on disk. Ids and headers are checked before the plane is asked.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from meshd.api import limits
from meshd.api.codec import JSONAnswer, listing
from meshd.api.table import Call
from meshd.errors import BadRequest, RevisionMismatch, WorkerNotFound
from meshd.workers.model import CONNECTION_MODES, RUNTIME_TYPES, WORKER_TYPES, parse_spec
from meshd.workers.registry import Filter, Page, TypeStats

if TYPE_CHECKING:
    from starlette.responses import Response

    from meshd.workers.worker import Worker

STATUSES = ("pending", "ready", "not_ready", "failed", "draining")
ORIGINS = ("local", "mesh")

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_ETAG = re.compile(r'(?:W/)?"?([0-9]{1,15})"?\Z')


async def list_workers(call: Call) -> Response:
    """Answer `GET /workers`."""
    registry = call.api.daemon.plane.registry
    limit = call.query_int("limit", None, 1, limits.MAX_PAGE)
    after = call.query("after")
    if after is not None and not _UUID.match(after):
        raise BadRequest("after must be the id of a worker, as the last page's `next` gave it", field="after")
    wanted = Filter(
        model=call.query("model"),
        type=_choice(call, "type", WORKER_TYPES),
        status=_choice(call, "status", STATUSES),
        origin=_choice(call, "origin", ORIGINS),
        owner=call.query("owner"),
        mode=_choice(call, "mode", CONNECTION_MODES),
        runtime=_choice(call, "runtime", RUNTIME_TYPES),
        labels=tuple(_label(text) for text in call.query_list("label")),
    )
    if wanted == Filter():
        page = registry.list(Filter(limit=None if limit is None else limit + 1, after=after))
        stats = registry.stats()
    else:
        everything = registry.list(wanted)
        stats = _stats(everything.workers)
        rest = [worker for worker in everything.workers if after is None or worker.id > after]
        page = Page(rest, everything.total)
    workers = page.workers if limit is None else page.workers[:limit]
    tail: dict[str, object] = {"total": page.total, "stats": stats._asdict()}
    if len(workers) < len(page.workers):
        tail["next"] = workers[-1].id
    return listing("workers", workers, call.api.encode_workers, tail)


async def register_worker(call: Call) -> Response:
    """Answer `POST /workers`."""
    spec = parse_spec(call.json())
    worker = call.api.daemon.plane.register(spec, call.api.now())
    await call.api.written()
    location = f"/workers/{worker.id}"
    body = {
        "status": "accepted",
        "worker_id": worker.id,
        "url": worker.url,
        "location": location,
        "message": "registered; its health checks decide when it is ready",
    }
    return JSONAnswer(body, 202, {"location": location})


async def get_worker(call: Call) -> Response:
    """Answer `GET /workers/{id}`."""
    worker = _find(call)
    return JSONAnswer(call.api.worker_info(worker), headers={"etag": f'"{worker.revision}"'})


async def replace_worker(call: Call) -> Response:
    """Answer `PUT /workers/{id}`."""
    id = _id(call)
    spec = parse_spec(call.json())
    worker = call.api.daemon.plane.replace(id, spec, _if_match(call), call.api.now())
    return await _changed(call, worker, "replaced")


async def patch_worker(call: Call) -> Response:
    """Answer `PATCH /workers/{id}`."""
    id = _id(call)
    patch = call.json()
    worker = call.api.daemon.plane.patch(id, patch, _if_match(call), call.api.now())
    return await _changed(call, worker, "changed")


async def remove_worker(call: Call) -> Response:
    """Answer `DELETE /workers/{id}`."""
    id = _id(call)
    drain = call.query_flag("drain", True)
    _check_revision(call)
    plane = call.api.daemon.plane
    plane.remove(id, call.api.now(), drain)
    message = "it drains, then it is removed" if plane.registry.get(id) is not None else "removed"
    await call.api.written()
    return JSONAnswer({"status": "accepted", "worker_id": id, "message": message}, 202)


async def drain_worker(call: Call) -> Response:
    """Answer `POST /workers/{id}/drain`."""
    id = _id(call)
    _check_revision(call)
    worker = call.api.daemon.plane.drain(id, call.api.now())
    return await _changed(call, worker, "out of rotation everywhere; undrain brings it back")


async def undrain_worker(call: Call) -> Response:
    """Answer `POST /workers/{id}/undrain`."""
    id = _id(call)
    _check_revision(call)
    worker = call.api.daemon.plane.undrain(id, call.api.now())
    return await _changed(call, worker, "back in rotation as soon as its health allows")


async def _changed(call: Call, worker: Worker, message: str) -> Response:
    await call.api.written()
    body = {"status": "accepted", "worker_id": worker.id, "message": message}
    return JSONAnswer(body, 202, {"etag": f'"{worker.revision}"'})


def _id(call: Call) -> str:
    id = call.path_value("id").lower()
    if not _UUID.match(id):
        raise BadRequest("the id of a worker is a UUID; GET /workers lists them", field="id")
    return id


def _find(call: Call) -> Worker:
    id = _id(call)
    worker = call.api.daemon.plane.registry.get(id)
    if worker is None:
        raise WorkerNotFound(id)
    return worker


def _if_match(call: Call) -> int | None:
    """Return the revision that `If-Match` names; None without the header, and for `*`."""
    header = call.request.headers.get("if-match")
    if header is None or header.strip() == "*":
        return None
    match = _ETAG.match(header.strip())
    if match is None:
        raise BadRequest('If-Match must be one revision as ETag gave it, for example "3"', field="If-Match")
    return int(match[1])


def _check_revision(call: Call) -> None:
    """Hold `If-Match` for the operations whose command does not; nothing is awaited before the command."""
    wanted = _if_match(call)
    if wanted is not None:
        worker = _find(call)
        if worker.revision != wanted:
            raise RevisionMismatch(worker.id, wanted, worker.revision)


def _choice(call: Call, name: str, choices: tuple[str, ...]) -> str | None:
    value = call.query(name)
    if value is not None and value not in choices:
        raise BadRequest(f"{name} must be one of {', '.join(choices)}, not {value[:40]!r}", field=name)
    return value


def _label(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name:
        raise BadRequest(f"label must be NAME:VALUE, not {text[:40]!r}", field="label")
    return name, value


def _stats(workers: list[Worker]) -> TypeStats:
    kinds = [worker.spec.worker_type for worker in workers]
    return TypeStats(kinds.count("prefill"), kinds.count("decode"), kinds.count("regular"))
