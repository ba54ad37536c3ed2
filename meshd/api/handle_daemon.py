"""Operations on the daemon itself: probes, metrics, the log's level, capacity, events, OpenAPI and docs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse, Response

from meshd.api import metrics, readings
from meshd.api.codec import JSONAnswer
from meshd.api.eventlog import KINDS
from meshd.api.schemas import LogLevelBody
from meshd.api.sse import EventStream
from meshd.errors import BadRequest

if TYPE_CHECKING:
    from meshd.api.table import Call


async def get_health(call: Call) -> Response:
    """Answer `GET /healthz`: whoever reads this has proof that the daemon lives."""
    return JSONAnswer({"status": "ok"})


async def get_ready(call: Call) -> Response:
    """Answer `GET /readyz`: the store is loaded and the daemon listens (not: it has workers)."""
    ready = call.api.daemon.started
    return JSONAnswer({"ready": ready}, 200 if ready else 503)


async def get_metrics(call: Call) -> Response:
    """Answer `GET /metrics`."""
    return Response(metrics.page(call.api.registry), media_type=metrics.CONTENT_TYPE)


async def get_openapi(call: Call) -> Response:
    """Answer `GET /openapi.json`."""
    return JSONAnswer(call.api.openapi)


async def get_docs(call: Call) -> Response:
    """Answer `GET /docs`. The policy proves what the page promises: nothing comes from elsewhere."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
    return HTMLResponse(call.api.docs, headers={"content-security-policy": policy})


async def get_capacity(call: Call) -> Response:
    """Answer `GET /capacity`."""
    return JSONAnswer(readings.capacity(call.api, call.query("model")))


async def set_log_level(call: Call) -> Response:
    """Answer `PUT /log-level`."""
    body: LogLevelBody = call.json_as(LogLevelBody)
    try:
        call.api.daemon.log_control.set_level(body.level)
    except ValueError as error:
        raise BadRequest(str(error), field="level") from None
    return JSONAnswer({"status": "accepted", "message": f"logging from {body.level} on"})


async def stream_events(call: Call) -> Response:
    """Answer `GET /events`."""
    log = call.api.log
    text = call.query("types")
    kinds = None if text is None else frozenset(word for word in text.split(",") if word)
    for word in kinds or ():
        if word not in KINDS and word != "snapshot":
            raise BadRequest(
                f"there are no events of type {word[:40]!r}; there are {', '.join(KINDS)}", field="types"
            )
    # The header is what a browser or client sends by itself when it comes back, so it is newer than the
    # address.
    last = call.request.headers.get("last-event-id") or call.query("since")
    number = None if not last else log.number_of(last)
    return EventStream(
        log,
        call.api.write_snapshot,
        kinds=kinds or None,
        cursor=number,
        lost=bool(last) and number is None,
        opened=call.api.open_stream(),
    )
