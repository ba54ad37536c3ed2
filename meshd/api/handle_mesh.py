"""`/mesh/*`: what this node knows of the mesh and its store, and how it joins and leaves.

The read models come from the node as plain dicts. Pages of the store are bounded: an answer says by `next`
how to go on. `join` and `leave` start something and answer at once; the members show how it went.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshd.api import limits, readings
from meshd.api.codec import JSONAnswer, encoder, listing
from meshd.api.schemas import JoinBody, LeaveBody
from meshd.config import parse_address
from meshd.errors import BadRequest, Conflict, KeyNotFound, MemberNotFound

if TYPE_CHECKING:
    from starlette.responses import Response

    from meshd.api.table import Call


async def get_mesh_status(call: Call) -> Response:
    """Answer `GET /mesh/status`."""
    return JSONAnswer(readings.status(call.api))


async def list_members(call: Call) -> Response:
    """Answer `GET /mesh/members`."""
    return JSONAnswer({"members": readings.members(call.api)})


async def get_vector(call: Call) -> Response:
    """Answer `GET /mesh/vector`."""
    return JSONAnswer(readings.vector(call.api))


async def list_store(call: Call) -> Response:
    """Answer `GET /mesh/store`."""
    limit = call.query_int("limit", limits.DEFAULT_STORE_PAGE, 1, limits.MAX_PAGE)
    assert limit is not None
    tombstones = call.query_flag("tombstones", False)
    entries, following = await readings.store_page(
        call.api, call.query("prefix") or "", tombstones, limit, call.query("after") or ""
    )
    return listing("entries", entries, encoder.encode, {} if following is None else {"next": following})


async def get_store_key(call: Call) -> Response:
    """Answer `GET /mesh/store/{key}`."""
    key = call.path_value("key")
    entries = readings.store_key(call.api, key)
    if not entries:
        raise KeyNotFound(key)
    return JSONAnswer({"entries": entries})


async def explain_key(call: Call) -> Response:
    """Answer `GET /mesh/explain/{key}`."""
    key = call.path_value("key")
    found = readings.explain(call.api, key)
    if not found["entries"]:
        raise KeyNotFound(key)
    return JSONAnswer(found)


async def explain_url(call: Call) -> Response:
    """Answer `GET /mesh/why`."""
    url = call.query("url")
    if not url:
        raise BadRequest("say which worker: /mesh/why?url=http://HOST:PORT", field="url")
    return JSONAnswer(call.api.daemon.plane.explain_url(url, call.api.now()))


async def get_convergence(call: Call) -> Response:
    """Answer `GET /mesh/converge`."""
    return JSONAnswer(readings.convergence(call.api))


async def join_mesh(call: Call) -> Response:
    """Answer `POST /mesh/join`."""
    body: JoinBody = call.json_as(JoinBody)
    peers: list[str] = []
    for place, text in enumerate(body.peers):
        field = f"peers[{place}]"
        try:
            address = parse_address(text, allow_port_zero=False)
        except ValueError as error:
            raise BadRequest(f"{field}: {error}", field=field) from None
        if address.is_wildcard:
            raise BadRequest(
                f"{field}: {text!r} means every interface and cannot be dialled; name one address",
                field=field,
            )
        peers.append(str(address))
    call.api.daemon.mesh.add_addresses(peers, "join")
    return JSONAnswer(
        {"status": "accepted", "message": "dialling; GET /mesh/members shows who was met", "peers": peers},
        202,
    )


async def forget_node(call: Call) -> Response:
    """Answer `POST /mesh/forget/{node}`."""
    if call.body.strip() and call.json():
        raise BadRequest("this operation takes an empty object as its body", field="body")
    name = call.path_value("node")
    node = call.api.daemon.mesh.node
    state = "alive" if name == node.settings.node else node.owner_state(name)
    if state == "alive":
        raise Conflict(
            f"{name} is alive, and would assert its workers again; stop it first, or run leave on it"
        )
    if not node.forget_everywhere(name, call.api.now()) and state == "unknown":
        raise MemberNotFound(name)
    await call.api.written()
    message = f"every node drops the workers of {name}; if it returns, they return with it"
    return JSONAnswer({"status": "accepted", "message": message}, 202)


async def get_partitions(call: Call) -> Response:
    """Answer `GET /mesh/partitions`."""
    return JSONAnswer(readings.partitions(call.api))


async def leave_mesh(call: Call) -> Response:
    """Answer `POST /mesh/leave`."""
    body: LeaveBody = call.json_as(LeaveBody)
    await call.api.daemon.leave(keep_workers=body.keep_workers)
    message = "left; its workers stay" if body.keep_workers else "left; its workers are withdrawn"
    return JSONAnswer({"status": "accepted", "message": message, "keep_workers": body.keep_workers}, 202)
